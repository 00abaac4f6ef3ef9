"""tracking/video_demo.py: every backend, files, and wrong options."""

import logging
import runpy
import sys

import numpy as np
import pytest
import torch
from demo_fakes import lines

from lib.config import load_config
from lib.deploy.export import export_model
from lib.deploy.formats import ExportOptions
from lib.families.build import build_for_test
from lib.models.checkpoint import load_weights, save_slim
from lib.utils.errors import UserError

TINY = ["MODEL.BACKBONE.EMBED_DIM=48", "MODEL.BACKBONE.NUM_HEADS=3", "MODEL.HEAD.NUM_CHANNELS=16"]
SET = [part for key in TINY for part in ("--set", key)]


@pytest.fixture
def script(root, monkeypatch):
    """`tracking/video_demo.py` with its arguments, run from here; returns its exit status."""
    main = runpy.run_path(str(root / "tracking/video_demo.py"), run_name="video_demo")["main"]

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["video_demo.py", *map(str, arguments)])
        return main()

    return run


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights of a tiny student."""
    torch.manual_seed(0)
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4", TINY)
    save_slim(tmp_path / "weights.pth.tar", build_for_test(cfg), cfg, {})
    return tmp_path / "weights.pth.tar"


def test_script_tracks_with_a_model(script, film, checkpoint, tmp_path):
    status = script("compresstracker", "compresstracker_vitb_256_4", film, "--optional_box", 20, 40, 20, 20,
                    "--checkpoint", checkpoint, "--device", "cpu", "--output", tmp_path / "out", "--no-display",
                    "--max_frames", 4, "--save_dir", tmp_path / "save", "--save_results", *SET)
    assert status == 0
    boxes = lines(tmp_path / "out/film.txt")
    assert len(boxes) == 4 and boxes[0] == "20\t40\t20\t20"
    assert lines(tmp_path / "save/test/tracking_results/compresstracker/compresstracker_vitb_256_4/video_film.txt") \
        == boxes
    assert all(0 <= float(score) <= 1 for score in lines(tmp_path / "out/film_scores.txt"))


def test_script_runs_every_backend(script, film, checkpoint, tmp_path, caplog):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4", TINY)
    model = build_for_test(cfg)
    load_weights(model, checkpoint, role="test")
    export_model(model.eval(), cfg, checkpoint, tmp_path / "export", ExportOptions("torchscript"))

    def track(name, *options):
        assert script("compresstracker", "compresstracker_vitb_256_4", film, "--box", 20, 40, 20, 20, "--box", 60, 30,
                      30, 40, "--device", "cpu", "--output", tmp_path / name, "--float", "--max_frames", 4,
                      "--no-display", "--benchmark", "--save_dir", tmp_path, "--save_results", *options) == 0
        return np.stack([np.loadtxt(tmp_path / name / f"film_{target}.txt") for target in (1, 2)])

    with caplog.at_level(logging.INFO):
        weights = "--checkpoint", checkpoint, *SET
        plain, fast = track("plain", *weights), track("fast", *weights, "--backend", "fast")
        export = track("export", "--exported", tmp_path / "export", "--backend", "torchscript")
    assert plain.shape == (2, 4, 4)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=0.05)
    np.testing.assert_allclose(export, plain, rtol=0, atol=0.05)
    assert caplog.text.count("median time of the parts of a frame") == 3
    results = tmp_path / "test/tracking_results/compresstracker"
    assert {path.name.removeprefix("compresstracker_vitb_256_4") for path in results.iterdir()} \
        == {"", "_fast", "_torchscript"}


def test_script_refuses_options_that_exclude_each_other(script, film, capsys):
    with pytest.raises(SystemExit):
        script("ostrack", "quickstart_teacher", film, "--backend", "onnxruntime")
    assert "needs --exported FOLDER" in capsys.readouterr().err


def test_script_without_checkpoint_names_the_file(script, film, tmp_path):
    with pytest.raises(UserError, match="nothing.pth.tar"):
        script("compresstracker", "compresstracker_vitb_256_4", film, "--optional_box", 20, 40, 20, 20,
               "--checkpoint", tmp_path / "nothing.pth.tar", "--device", "cpu", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
