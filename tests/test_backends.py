"""The run-time tracker over exported models: the same boxes from every engine, and errors that say what is wrong."""

import importlib.util
import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import trees
from tiny_models import scramble

from lib.deploy import backends
from lib.deploy.backends import ExportedModel
from lib.deploy.export import export_model
from lib.deploy.fast import FastOptions, build_fast
from lib.deploy.formats import ENGINES, ExportOptions
from lib.deploy.manifest import Manifest
from lib.families.build import build_for_test
from lib.models.checkpoint import save_slim
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

CONFIG = "compresstracker_vitb_256_4"
SMALL = ["MODEL.BACKBONE.TYPE=vit_tiny_patch16_224_compress", "MODEL.HEAD.NUM_CHANNELS=8",
         "MODEL.BACKBONE.DISTILL_LAYER=2"]


@pytest.fixture
def cfg(student):
    return student.cfg


@pytest.fixture
def model(student):
    return student.model


@pytest.fixture
def onnx_export(exported):
    return exported("onnx")[0]


@pytest.fixture
def torch_export(exported):
    return exported("torchscript", take_pixels=True)[0]


def track(tracker, frames=10):
    tracker.initialize(trees.picture(0), trees.box(0))
    return np.array([[*result.box_xywh, result.score] for result in
                     (tracker.track(trees.picture(i)) for i in range(1, frames))])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_onnx_backends_track_the_same_boxes(model, cfg, onnx_export, backend):
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    expected = track(Tracker.from_model(model, cfg))
    found = track(Tracker.from_export(onnx_export, backend=backend, device="cpu"))
    assert np.ptp(expected[:, 0]) > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", ["export", "fast"])
def test_the_window_reaches_every_target_and_can_be_left_out(model, cfg, onnx_export, kind):
    """Two targets in a step, by calls of one image each where the export has one, then without the window, as for
    re-detection: the best cells differ."""
    other = (Tracker.from_export(onnx_export, device="cpu") if kind == "export" else
             Tracker.from_model(build_fast(model, FastOptions()), cfg))
    images, boxes, found = [trees.picture(1), trees.picture(4)], [trees.box(0), trees.box(3)], []
    for tracker in (Tracker.from_model(model, cfg), other):
        targets = [tracker.start(trees.picture(0), box) for box in boxes]
        without = tracker.find(images, targets, boxes, window=False)
        found.append([*without, *tracker.step(images, targets)])
    rows = [[[*result.box_xywh, result.score] for result in results] for results in found]
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=1e-2)
    cells = [result.score_map.argmax() for result in found[0]]
    assert cells[:2] != cells[2:], "the window decides"


def test_a_foreign_graph_without_maps_is_named(model, cfg):
    class Foreign:
        def __call__(self, template, search):
            return model(template, search)._replace(size_map=None, offset_map=None)

    tracker = Tracker.from_model(Foreign(), cfg)
    tracker.initialize(trees.picture(0), trees.box(0))
    with pytest.raises(UserError, match="score map without size_map and offset_map"):
        tracker.track(trees.picture(1))


def test_pixels_go_into_a_graph_that_normalises(model, cfg, torch_export):
    tracker = Tracker.from_export(torch_export, device="cpu")
    assert tracker.model.backend == "torchscript" and tracker.model.takes_pixels
    np.testing.assert_allclose(track(tracker), track(Tracker.from_model(model, cfg)), rtol=0, atol=1e-2)


def test_prepare_runs_once_per_target(torch_export):
    tracker = Tracker.from_export(torch_export, device="cpu")
    names = []
    original = tracker.model._run
    tracker.model._run = lambda name, inputs: (names.append(name), original(name, inputs))[1]
    track(tracker, 4)
    assert names == ["template", "search", "search", "search"]


def test_the_formats_own_backend_is_the_default(onnx_export, torch_export):
    assert ExportedModel(onnx_export).backend == "onnxruntime"
    assert ExportedModel(torch_export).backend == "torchscript"
    assert ExportedModel(onnx_export).host_inputs and not ExportedModel(torch_export).host_inputs
    for backend in ENGINES:
        assert next(name for name, formats in ENGINES.items() if backend in formats or backend == name)


def test_a_traced_graph_makes_nothing_on_the_device_it_was_traced_on(torch_export):
    search = backends._load_torchscript(torch_export / Manifest.read(torch_export).parts["search"].file,
                                        torch.device("cpu"))

    def devices():
        return set(re.findall(r'torch.device\("(.*?)"\)', "".join(part.code for part in search.modules()
                                                                  if hasattr(part, "forward"))))

    assert devices() == {"cpu"}
    backends._made_on(search, torch.device("cuda:0"))
    assert devices() == {"cuda:0"}


def damaged(folder, target, change):
    """A copy of a manifest's folder with its JSON changed."""
    import shutil

    shutil.copytree(folder, target)
    content = json.loads((target / "manifest.json").read_text())
    change(content)
    (target / "manifest.json").write_text(json.dumps(content))
    return target


def test_folders_that_cannot_be_used(torch_export, tmp_path):
    with pytest.raises(UserError, match="manifest.json not found.*export_model.py"):
        ExportedModel(tmp_path)
    with pytest.raises(UserError, match="another version"):
        ExportedModel(damaged(torch_export, tmp_path / "version", lambda c: c.update(version=0)))
    with pytest.raises(UserError, match="no manifest.*stride"):
        ExportedModel(damaged(torch_export, tmp_path / "key", lambda c: c.pop("stride")))
    with pytest.raises(UserError, match="no manifest"):
        ExportedModel(damaged(torch_export, tmp_path / "more", lambda c: c.update(colour="red")))
    with pytest.raises(UserError, match="has the parts search; expected"):
        ExportedModel(damaged(torch_export, tmp_path / "part", lambda c: c["parts"].pop("template")))
    lost = damaged(torch_export, tmp_path / "lost", lambda c: None)
    (lost / "search.pt").unlink()
    with pytest.raises(UserError, match="search.pt, which .* names, does not exist"):
        ExportedModel(lost)
    (lost / "search.pt").write_bytes(b"no graph")
    with pytest.raises(UserError, match="torchscript cannot load .*search.pt"):
        ExportedModel(lost)
    (lost / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="no manifest"):
        ExportedModel(lost)


def test_a_damaged_graph_is_named(onnx_export, tmp_path):
    folder = damaged(onnx_export, tmp_path / "copy", lambda c: None)
    (folder / "search.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="onnxruntime cannot load .*search.onnx"):
        ExportedModel(folder)


def test_backends_that_do_not_fit(torch_export):
    with pytest.raises(UserError, match="unknown backend 'abacus'; choose one of onnxruntime"):
        ExportedModel(torch_export, "abacus")
    with pytest.raises(UserError, match="onnxruntime runs onnx, but .* holds torchscript; choose torchscript"):
        ExportedModel(torch_export, "onnxruntime")


SIGNAL = """
import os, signal, sys, threading, time
from lib.deploy.backends import ExportedModel
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
models = [ExportedModel(sys.argv[1], "openvino")]
last = threading.Thread(target=models.clear)   # a thread that is not the one whose signal stack it was
last.start()
last.join()
os.kill(os.getpid(), signal.SIGUSR1)
time.sleep(0.1)
"""


def test_signals_are_survived_after_openvino(onnx_export, root):
    """OpenVINO's plugin leaves its thread a signal stack that is gone when the plugin is."""
    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", SIGNAL, str(onnx_export)], cwd=root,
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named(onnx_export, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package}; .*pip install {package}"):
        ExportedModel(onnx_export, package)


def test_onnxruntime_does_not_fall_back_to_the_cpu_in_silence(onnx_export, monkeypatch):
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    fake = SimpleNamespace(SessionOptions=mock.MagicMock, InferenceSession=lambda *key, **words: session,
                           get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(UserError, match="no CUDA and cuDNN libraries"):
        ExportedModel(onnx_export, "onnxruntime", "cuda")
    fake.get_available_providers = lambda: ["CPUExecutionProvider"]
    with pytest.raises(UserError, match="onnxruntime-gpu instead"):
        ExportedModel(onnx_export, "onnxruntime", "cuda")


@pytest.mark.parametrize(("able", "precision", "hint"), [
    (["FP32", "INT8", "BF16"], "int8", "bf16"), (["FP32", "INT8"], "int8", "f32"),
    (["FP32", "INT8", "BF16"], "float32", "f32"), (["FP32"], "bfloat16", "bf16")])
def test_the_rest_of_int8_is_bfloat16_where_the_cpu_has_it(onnx_export, tmp_path, monkeypatch, able, precision, hint):
    class Core:
        def get_property(self, device, name):
            return {"OPTIMIZATION_CAPABILITIES": able}[name]

        def read_model(self, path):
            return path

        def compile_model(self, model, device, options):
            raise UserError(f"asked for {options['INFERENCE_PRECISION_HINT']}")

    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    monkeypatch.setattr(backends, "_the_core", lambda openvino: Core())
    folder = damaged(onnx_export, tmp_path / "copy", lambda c: c.update(precision=precision))
    with pytest.raises(UserError, match=f"asked for {hint}"):
        ExportedModel(folder, "openvino")


def test_tensorrt_without_its_package(torch_export, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    folder = damaged(torch_export, tmp_path / "engine", lambda c: c.update(format="tensorrt"))
    with pytest.raises(UserError, match="needs the package tensorrt"):
        ExportedModel(folder)


def test_inputs_that_do_not_fit(torch_export):
    exported = ExportedModel(torch_export)
    template, search = (torch.zeros(1, side, side, 3, dtype=torch.uint8) for side in (32, 64))
    tokens = exported.prepare(template)
    with pytest.raises(UserError, match="takes search of shape 1 x 64 x 64 x 3, not 2 x 64 x 64 x 3"):
        exported(tokens, torch.cat([search, search]))
    with pytest.raises(UserError, match="takes search of shape"):
        exported(tokens, search[0])
    exported.manifest.parts["search"].inputs["template_mask"] = exported.manifest.parts["search"].inputs["search"]
    with pytest.raises(UserError, match="needs template_mask"):
        exported(tokens, search)


def test_manifest_round_trip(torch_export, tmp_path):
    manifest = replace(Manifest.read(torch_export), parts={"tracker": Manifest.read(torch_export).parts["search"]})
    (tmp_path / "search.pt").touch()
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest and manifest.main == "tracker"


# ---------------------------------------------------------------- tracking/test.py

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Videos, the checkpoint of a small student and its export."""
    from lib.config import load_config

    work = tmp_path_factory.mktemp("work")
    trees.folder(work / "videos", frames=4)
    cfg = load_config("compresstracker", CONFIG, SMALL)
    student = scramble(build_for_test(cfg)).eval()
    save_slim(work / "student.pth.tar", student, cfg)
    export_model(student, cfg, work / "student.pth.tar", work / "export", ExportOptions("torchscript"))
    return work


@pytest.fixture
def main(root, small, monkeypatch):
    spec = importlib.util.spec_from_file_location("tracking_test", root / "tracking" / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(small)
    weights = ["--checkpoint", "student.pth.tar", *(part for item in SMALL for part in ("--set", item))]
    return lambda *arguments, config=CONFIG: module.main(
        ["compresstracker", config, "--dataset", "folder:videos", "--sequence", "first", "--save_dir", "out",
         "--device", "cpu", "--float", *(() if "--exported" in arguments else weights), *arguments])


def test_the_script_tests_every_backend(main, small, caplog):
    with caplog.at_level(logging.INFO):
        assert main() == main("--backend", "fast") == main("--exported", "export") == 0
        assert main("--backend", "fast", "--fast", "dtype=bfloat16", "--fast", "trim_last_layer=false") == 0
        assert main("--exported", "export", "--backend", "torchscript") == 0
    assert "from " + str(small / "export") in caplog.text
    folder = small / "out/test/tracking_results/compresstracker"
    names = {"", "_fast", "_fast_bfloat16", "_torchscript"}
    assert {path.name for path in folder.iterdir()} == {CONFIG + name for name in names}
    plain, fast, export = (np.loadtxt(folder / (CONFIG + name) / "folder_videos" / "first.txt")
                           for name in ("", "_fast", "_torchscript"))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-2)
    np.testing.assert_allclose(export, plain, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--backend", "openvino"], "needs --exported"), (["--backend", "fast", "--exported", "export"], "not --exported"),
    (["--fast", "dtype=float16"], "--fast needs --backend fast"), (["--backend", "abacus"], "invalid choice"),
    (["--checkpoint", "x.pth.tar", "--epoch", "0"], "--epoch chooses among the checkpoints of a training"),
    (["--exported", "export", "--epoch", "0"], "--epoch does not change what was exported"),
    (["--exported", "export", "--set", "TEST.WINDOW=false"], "--set does not change what was exported")])
def test_wrong_combinations(main, arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(*arguments)
    assert message in capsys.readouterr().err


def test_an_export_of_another_configuration(main):
    with pytest.raises(UserError, match="holds compresstracker compresstracker_vitb_256_4, not .*_256_2"):
        main("--exported", "export", config="compresstracker_vitb_256_2")
