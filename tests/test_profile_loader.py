"""tracking/profile_training.py --loader: what it measures, and its report."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
import simplejpeg
import torch

from lib.config import load_config
from lib.train.profiling import loader
from lib.train.profiling.frames import render_frames
from lib.train.profiling.loader import PARTS, PLAIN, profile_loader, report_text
from lib.utils.errors import UserError
from lib.utils.sequences import find_in_spec

SIZE = {"count": 25, "width": 320, "height": 200, "kilobytes": 25}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BATCH", 4), ("WARM", 1), ("MEASURED", 3)):
            patch.setattr(loader, name, value)
        return profile_loader(cfg, **SIZE, pairs=4, rounds=2, workers=1, device="cpu",
                              work_dir=tmp_path_factory.mktemp("work"))


def test_the_exact_ways_have_the_plain_ways_pixels(report):
    for name in (PLAIN, "frames", "frames, whole decode", "gpu (the CPU's part)"):
        assert report["variants"][name]["max_difference"] < 0.01 and report["variants"][name]["same_pairs"] == 1
    assert 0 < report["variants"]["crops"]["mean_difference"]["search"] < 12
    assert report["variants"]["crops"]["same_pairs"] > 0.8


def test_the_report_is_complete(report):
    assert json.loads(json.dumps(report)) == report
    assert report["frames"]["width"] == 320 and report["frames"]["kilobytes"] == pytest.approx(25, rel=0.15)
    for name, way in report["variants"].items():
        assert set(way["milliseconds"]) == set(PARTS) and min(way["milliseconds"].values()) >= 0
        assert way["device_milliseconds"] >= 0 and (way.get("workers_pairs_per_second", 0) > 0) == (name != PLAIN)
    plain, frames = report["variants"][PLAIN], report["variants"]["frames"]
    assert plain["over_plain"] == 1
    assert plain["milliseconds"]["decode"] > 0 < frames["milliseconds"]["decode"]
    text = report_text(report)
    assert "320 x 200 pixels" in text and all(name in text for name in report["variants"])


def test_rendered_frames_have_the_size_asked_for_and_are_used_again(tmp_path):
    folder = render_frames(tmp_path, **SIZE)
    sequence, = find_in_spec(str(folder))
    assert len(sequence.frames) == 25 and sequence.boxes.shape == (25, 4)
    assert (sequence.boxes[:, :2] >= 0).all() and (sequence.boxes[:, :2] + sequence.boxes[:, 2:] <= (320, 200)).all()
    files = sorted((folder / "rendered-000" / "img").iterdir())
    for file in files:
        assert abs(file.stat().st_size - 25000) < 5000
    assert simplejpeg.decode_jpeg_header(files[0].read_bytes())[:2] == (200, 320)
    before = [file.stat().st_mtime_ns for file in files]
    render_frames(tmp_path, **SIZE)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_size_that_cannot_be_reached_is_an_error(tmp_path):
    with pytest.raises(UserError, match="come to .* kB, not to 900 kB"):
        render_frames(tmp_path, **SIZE | {"kilobytes": 900})


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"rounds": 0}, {"count": 0}, {"workers": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} is"):
        profile_loader(load_config("compresstracker", "compresstracker_vitb_256_4"), **wrong)


def test_the_script_prints_the_table_and_writes_the_report(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loader, "BATCH", 2)
    spec = importlib.util.spec_from_file_location("profile_training", root / "tracking" / "profile_training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    frames = render_frames(tmp_path / "mine", **SIZE)
    words = ["--loader", "--frames", str(frames), "--pairs", "2", "--rounds", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["profile_training.py", *words, "--json", str(tmp_path / "report.json")])
    module.main()
    assert f"FOLDER:{frames}: 320 x 200 pixels" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["pairs"] == 2
    monkeypatch.setattr(sys, "argv", ["profile_training.py", "--loader", "--frames", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="nowhere"):
        module.main()


def test_a_loader_that_the_device_cannot_run_is_left_out(monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("compiled without nvJPEG")

    cfg, sizes = load_config("compresstracker", "compresstracker_vitb_256_4"), SimpleNamespace(size=32)
    monkeypatch.setattr("lib.train.data.gpu.decode_jpeg", fail)
    monkeypatch.setattr(loader, "LoaderVariant", lambda *_: None)
    monkeypatch.setattr(loader, "PairSampler", lambda *_: None)
    processing = SimpleNamespace(template=sizes, search=sizes)
    found = loader._variants(cfg, None, None, processing, torch.device("cpu"))
    assert PLAIN in found and "gpu (the CPU's part)" not in found and "left out: torchvision" in caplog.text
