"""Which number format computes on which device: bfloat16 where a GPU has it, else float16, TF32 where it is wanted."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from tiny_models import tiny
from training_fakes import build_scrambled, fit, noise_config

import lib.train.run as run
from lib.deploy import export
from lib.deploy.backends import ExportedModel
from lib.deploy.fast import FastOptions, build_fast
from lib.deploy.manifest import Manifest, Part, Port
from lib.deploy.profile import ProfileOptions, profile_config
from lib.train.learner import build_learner
from lib.train.profiling.step import profile_training
from lib.train.speed import resolve_precision
from lib.train.state import newest_state
from lib.utils.device import choose_dtype, full_float32
from lib.utils.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
AMP = {"TRAIN__AMP": "true"}


@pytest.fixture(params=[(7, 5), (8, 0), (9, 0)], ids=str)
def capability(request, monkeypatch):
    """A GPU of this compute capability, as far as one asks for it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: request.param)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return request.param


@pytest.fixture
def turing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "RTX 2080 Ti")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_auto_is_what_the_device_has(capability):
    expected = "float16" if capability < (8, 0) else "bfloat16"
    assert choose_dtype("auto", CUDA, "KEY") == expected
    assert choose_dtype("bfloat16", CPU, "KEY") == "bfloat16"
    for name in ("float32", "float16", "int8"):
        assert choose_dtype(name, CUDA, "KEY") == name
    assert FastOptions.parse(["dtype=auto", "head_dtype=auto"], CUDA).dtype == expected
    cfg = resolve_precision(tiny("compresstracker", **AMP, COMPRESS__TEACHER_DTYPE="auto"), CUDA)
    assert (cfg.TRAIN.AMP_DTYPE, cfg.COMPRESS.TEACHER_DTYPE) == (expected, expected)
    assert run.build_recipe(cfg).amp == getattr(torch, expected)


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_that_emulates_bfloat16_computes_in_float32_unless_it_is_named(monkeypatch, caplog, has):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    caplog.set_level("INFO")
    cfg = resolve_precision(tiny("compresstracker", **AMP, COMPRESS__TEACHER_DTYPE="auto"), CPU)
    assert run.build_recipe(cfg).amp is (torch.bfloat16 if has else None)
    assert cfg.COMPRESS.TEACHER_DTYPE == choose_dtype("auto", CPU, "KEY") == ("bfloat16" if has else "float32")
    assert ("TRAIN.AMP: this CPU has no bfloat16" in caplog.text) is not has
    cfg = resolve_precision(tiny(**AMP, TRAIN__AMP_DTYPE="bfloat16"), CPU)
    assert run.build_recipe(cfg).amp is torch.bfloat16
    assert ("TRAIN.AMP_DTYPE is bfloat16, which this CPU only emulates" in caplog.text) is not has


MESSAGE = "is bfloat16, but RTX 2080 Ti .compute capability 7.5. only emulates it.*choose float16"


def test_a_named_format_that_the_gpu_emulates_is_an_error(turing):
    with pytest.raises(UserError, match=f"TRAIN.AMP_DTYPE {MESSAGE}"):
        resolve_precision(tiny(**AMP, TRAIN__AMP_DTYPE="bfloat16"), CUDA)
    with pytest.raises(UserError, match=f"COMPRESS.TEACHER_DTYPE {MESSAGE}"):
        resolve_precision(tiny("compresstracker", COMPRESS__TEACHER_DTYPE="bfloat16"), CUDA)
    cfg = resolve_precision(tiny(TRAIN__AMP_DTYPE="bfloat16"), CUDA)            # not used without TRAIN.AMP
    assert run.build_recipe(cfg).amp is None


def test_the_fast_path_and_the_profilers_refuse_it_too(turing, model, cfg):
    for options in (["dtype=bfloat16"], ["head_dtype=bfloat16"]):
        with pytest.raises(UserError, match=f"fast option {options[0].split('=')[0]} {MESSAGE}"):
            FastOptions.parse(options, CUDA)
    for name in ("dtype", "head_dtype"):
        with pytest.raises(UserError, match=f"{name} of the fast module {MESSAGE}"):
            build_fast(model, replace(FastOptions(), **{name: "bfloat16"}), device=CUDA)
    with pytest.raises(UserError, match=f"--precision {MESSAGE}"):
        profile_config(cfg, device="cuda", options=ProfileOptions(precisions=("float32", "bfloat16")))
    with pytest.raises(UserError, match=f"TRAIN.AMP_DTYPE {MESSAGE}"):
        profile_training(tiny(**AMP, TRAIN__AMP_DTYPE="bfloat16"), device="cuda")


def manifest(**values):
    part = Part("graph.pt", {"template": Port("template", (1, 3, 8, 8), "float32")},
                {"tokens": Port("tokens", (1, 1, 4), "float32")})
    return Manifest(**({"script": "ostrack", "config": "x", "format": "torchscript", "precision": "bfloat16",
                        "parts": {"template": part, "search": part}, "template_size": 8, "template_factor": 2.0,
                        "search_size": 8, "search_factor": 4.0, "stride": 4, "mean": (0.0,) * 3, "std": (1.0,) * 3,
                        "window": True, "take_pixels": False, "checkpoint": {}, "checked_on": "",
                        "libraries": {}} | values))


def test_an_export_in_it_is_refused_there(turing, monkeypatch, tmp_path):
    monkeypatch.setattr(Manifest, "read", lambda folder: manifest())
    with pytest.raises(UserError, match=f"the precision of .* {MESSAGE}"):
        ExportedModel(tmp_path, device="cuda")


def test_onnxruntime_computes_float32_in_float32_on_cuda(monkeypatch, tmp_path):
    def session(path, options, providers):
        raise UserError(f"asked for {providers[0]}")

    fake = SimpleNamespace(SessionOptions=mock.MagicMock, InferenceSession=session,
                           get_available_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(Manifest, "read", lambda folder: manifest(format="onnx", precision="float32"))
    with pytest.raises(UserError, match="'use_tf32': 0"):
        ExportedModel(tmp_path, device="cuda")


def test_tensorrt_builds_without_tf32(monkeypatch, tmp_path):
    tensorrt = mock.MagicMock()
    config = tensorrt.Builder.return_value.create_builder_config.return_value
    tensorrt.Builder.return_value.build_serialized_network.return_value = b"engine"
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    export._write_tensorrt(tmp_path / "graph.onnx", tmp_path / "search.engine", manifest().parts["search"])
    config.clear_flag.assert_called_once_with(tensorrt.BuilderFlag.TF32)
    assert (tmp_path / "search.engine").read_bytes() == b"engine"


def test_float16_gets_the_scaler(monkeypatch, turing):
    made = []
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: made.append(enabled))
    for kind in ("ostrack", "compresstracker"):
        cfg = resolve_precision(noise_config(kind, **AMP), CUDA)
        net = build_scrambled(cfg)
        build_learner(cfg, net, run.plan_batch(cfg), run.World(), CPU)
        assert cfg.TRAIN.AMP_DTYPE == "float16" and made.pop()


def test_a_state_from_before_auto_goes_on_without_a_word(monkeypatch, bfloat16_cpu, tmp_path, caplog):
    """States say which format they were trained in; `auto` that chooses the same is no change."""
    cfg = noise_config(**AMP, TRAIN__EPOCH=1, TRAIN__AMP_DTYPE="bfloat16")
    fit(monkeypatch, tmp_path, cfg)
    folder = next(tmp_path.glob("checkpoints/train/*/*"))
    assert newest_state(folder)[1].config["TRAIN"]["AMP_DTYPE"] == "bfloat16"
    fit(monkeypatch, tmp_path, noise_config(**AMP, TRAIN__EPOCH=2))
    assert newest_state(folder)[1].config["TRAIN"]["AMP_DTYPE"] == "bfloat16"
    assert "AMP_DTYPE: auto" in (folder / "config.yaml").read_text()
    log = next(tmp_path.glob("logs/*.log")).read_text()
    assert "autocast bfloat16" in log and "TRAIN.EPOCH 1 -> 2" in log and "AMP_DTYPE" not in log


def test_comparisons_are_in_full_float32_and_leave_the_settings(monkeypatch):
    before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), full_float32():
            inside = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
            raise KeyError
        assert inside == (False, "highest") and torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 == before is True
    finally:
        torch.set_float32_matmul_precision("highest")
