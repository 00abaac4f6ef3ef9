"""tracking/profile_training.py: steps of the trainer, timed part by part, and their report."""

import functools
import importlib.util
import json
import sys

import pytest
import torch
from tiny_models import tiny

from lib.config import load_config
from lib.deploy import rates
from lib.families.build import build_tracker
from lib.models.layers.plain_attention import write_out_attention
from lib.train.profiling import step
from lib.train.profiling.step import PARTS, profile_training, report_text
from lib.utils.errors import UserError

CPU = {"device": "cpu", "rounds": 2, "steps": 1, "warmup": 1}


@pytest.fixture(autouse=True)
def small_measurements(monkeypatch):
    monkeypatch.setattr(step, "FRAMES", 25)
    monkeypatch.setitem(rates.MATRIX_SIDE, "cpu", 64)
    monkeypatch.setitem(rates.COPIED_BYTES, "cpu", 4096)
    for name in ("matrix_rate", "memory_rate"):
        monkeypatch.setattr(step, name, functools.partial(getattr(rates, name), seconds=0.01))


def small(kind="compresstracker", **more):
    return tiny(kind, **({"TRAIN__TOTAL_BATCH": 4, "TRAIN__NUM_WORKER": 0, "TRAIN__SUP_LOGIT": True,
                          "TRAIN__SUP_FEAT": True} | more))


@pytest.mark.parametrize("kind, more", [
    ("compresstracker", {}), ("compresstracker", {"TRAIN__ACCUMULATE": 2, "TRAIN__AMP": "true", "TRAIN__EMA": 0.9}),
    ("compresstracker", {"COMPRESS__TEACHER_DTYPE": "bfloat16"}),
    ("ostrack", {"TRAIN__CHANNELS_LAST": "true"})])
def test_report_on_random_data(bfloat16_cpu, kind, more):
    cfg = small(kind, **more)
    report = profile_training(cfg, **CPU)
    assert json.loads(json.dumps(report)) == report
    assert list(report["variants"]) == ["configured", "plain"] and report["loader"] == "none"
    for name, way in report["variants"].items():
        assert way["step_ms"]["median"] > 0 and way["step_ms"]["forward"] > 0 and way["step_ms"]["backward"] > 0
        assert 0 < sum(way["step_ms"][part] for part in PARTS) <= 1.001 * way["step_ms"]["median"]
        assert way["pairs_per_second"] == pytest.approx(4000 / way["step_ms"]["median"])
        assert way["hours"] == pytest.approx(cfg.TRAIN.EPOCH * 60000 / way["pairs_per_second"] / 3600)
        assert way["loss"] > 0 and way["precision"] == ("bfloat16" if cfg.TRAIN.AMP and name != "plain" else "float32")
    assert report["variants"]["plain"]["over_plain"]["median"] == 1
    assert report["floor"]["student_share"] == (pytest.approx(0.75, abs=0.01) if kind == "compresstracker" else 1)
    text = report_text(report)
    assert all(word in text for word in ("configured", "plain", "MFU", "hours", "GFLOP", *PARTS))


@pytest.mark.parametrize("loader", ["frames", "crops"])
def test_both_ways_on_rendered_frames_see_the_same_losses(loader, tmp_path):
    report = profile_training(small(DATA__LOADER=loader), data="rendered", work_dir=tmp_path, **CPU)
    ways = report["variants"]
    assert report["loader"] == loader
    if loader == "frames":  # the plain loader's pixels are the same; attention written out rounds in another way
        assert ways["configured"]["loss"] == pytest.approx(ways["plain"]["loss"], rel=1e-4)
    made = {"frames", "index"} | ({"crops"} if loader == "crops" else set())
    assert {path.name for path in tmp_path.iterdir()} == made


def test_a_folder_of_ones_own_without_the_plain_way(tmp_path):
    step.render_frames(tmp_path / "mine", count=25, width=160, height=120, kilobytes=10)
    report = profile_training(small("ostrack"), data=str(tmp_path / "mine"), plain=False, work_dir=tmp_path / "work",
                              **CPU)
    assert list(report["variants"]) == ["configured"] and report["variants"]["configured"]["over_plain"] is None
    assert " - " in report_text(report)


def test_attention_written_out_is_the_same_attention():
    model, crops = build_tracker(small("ostrack")).eval(), (torch.randn(1, 3, 32, 32), torch.randn(1, 3, 64, 64))
    fused = model(*crops).boxes
    write_out_attention(model)
    assert not any(layer.attn.fused_attn for layer in model.layers)
    assert torch.allclose(model(*crops).boxes, fused, atol=1e-5)


@pytest.mark.parametrize("options, message", [({"rounds": 0}, "rounds is 0"), ({"steps": 0}, "steps is 0"),
                                              ({"threads": 0}, "threads is 0"), ({"device": "cuda:99"}, "cuda:99"),
                                              ({"data": "/no/such/folder"}, "/no/such/folder")])
def test_wrong_input(options, message):
    with pytest.raises(UserError, match=message):
        profile_training(small(), **(CPU | options))


def test_the_script_prints_and_writes(root, monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("profile_training", root / "tracking" / "profile_training.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    seen = {}

    def fake(cfg, **options):
        seen.update(options, name=cfg.name, batch=cfg.TRAIN.TOTAL_BATCH)
        return {"fake": 1}

    monkeypatch.setattr(step, "profile_training", fake)
    monkeypatch.setattr(step, "report_text", lambda report: f"text of {report}")
    monkeypatch.setattr(sys, "argv", ["x", "--data", "rendered", "--steps", "7", "--device", "cpu", "--set",
                                      "TRAIN.TOTAL_BATCH=16", "--json", str(tmp_path / "r.json")])
    script.main()
    assert capsys.readouterr().out == "text of {'fake': 1}\n"
    assert json.loads((tmp_path / "r.json").read_text()) == {"fake": 1}
    assert seen == {"name": "compresstracker_vitb_256_4", "batch": 16, "data": "rendered", "plain": True,
                    "device": "cpu", "rounds": 3, "steps": 7, "warmup": None, "threads": None, "work_dir": None}
    assert load_config("compresstracker", seen["name"]).TRAIN.TOTAL_BATCH == 128
