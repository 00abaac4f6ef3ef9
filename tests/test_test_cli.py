"""tracking/test.py from the command line, with a small student."""

import importlib.util
import logging

import numpy as np
import pytest

from lib.config import load_config
from lib.families.build import build_student
from lib.models.checkpoint import save_slim
from lib.test.evaluation.results import tracker_folder
from lib.utils.errors import UserError
from lib.vis.draw import save_image

CONFIG = "compresstracker_vitb_256_4"
SMALL = ["MODEL.BACKBONE.TYPE=vit_tiny_patch16_224_compress", "MODEL.HEAD.NUM_CHANNELS=8"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder of three sequences (one of them damaged) and the checkpoint of a small student."""
    work = tmp_path_factory.mktemp("work")
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for name in ("one", "two", "broken"):
        for i in range(3):
            save_image(work / "videos" / name / "img" / f"{i}.jpg", image)
        (work / "videos" / name / "groundtruth_rect.txt").write_text("20,15,20,16\n" * 3)
    (work / "videos" / "broken" / "img" / "1.jpg").write_bytes(b"no picture")
    cfg = load_config("compresstracker", CONFIG, SMALL)
    path = work / "out" / "checkpoints" / "train" / "compresstracker" / CONFIG / "CompressTracker_ep0002.pth.tar"
    save_slim(path, build_student(cfg), cfg)
    return work


def small(*arguments):
    overrides = [part for item in SMALL for part in ("--set", item)]
    return ["--set", "TEST.EPOCH=2", "--device", "cpu", *overrides, *arguments]


@pytest.fixture
def main(root, work, monkeypatch):
    """The script's main, in this process and in the work folder."""
    spec = importlib.util.spec_from_file_location("tracking_test", root / "tracking" / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(work)
    return lambda *arguments: module.main(["compresstracker", CONFIG, "--save_dir", "out", *small(*arguments)])


def test_whole_folder_with_two_processes(main, work, caplog):
    with caplog.at_level(logging.INFO):
        assert main("--dataset", "folder:videos", "--threads", "2", "--num_gpus", "8", "--runid", "1") == 1
    assert "broken failed" in caplog.text and "1 of 3 sequences failed" in caplog.text
    assert "2 processes on cpu" in caplog.text
    folder = work / "out/test/tracking_results/compresstracker" / f"{CONFIG}_001" / "folder_videos"
    assert sorted(path.name for path in folder.iterdir()) == ["one.txt", "one_time.txt", "two.txt", "two_time.txt"]
    lines = (folder / "one.txt").read_text().splitlines()
    assert len(lines) == 3 and lines[0] == "20\t15\t20\t16"
    assert (folder / "two.txt").read_text() == (folder / "one.txt").read_text(), "processes disagree"


def test_one_sequence_sub_pixel_in_this_process(main, work, caplog):
    assert main("--dataset_name", "folder:videos", "--sequence", "one", "--float") == 0
    path = work / "out/test/tracking_results/compresstracker" / CONFIG / "folder_videos" / "one.txt"
    assert path.read_text().splitlines()[0] == "20.0000\t15.0000\t20.0000\t16.0000"
    with caplog.at_level(logging.INFO):
        assert main("--dataset", "folder:videos", "--sequence", "1", "--float") == 0  # 0 is "broken"
        assert "1 of 1 sequences are done already" in caplog.messages
    assert main("--dataset", "folder:videos", "--sequence", "1", "--float", "--debug", "1") == 0
    assert len(list((path.parents[1] / "debug" / "folder_videos" / "one").iterdir())) == 3


def result_text(work, run_id, sequence):
    """The boxes' file of a sequence in a repeated run."""
    folder = tracker_folder(work / "out/test/tracking_results", "compresstracker", CONFIG, run_id)
    return (folder / "folder_videos" / f"{sequence}.txt").read_text()


def test_repeated_runs(main, work, caplog):
    with caplog.at_level(logging.INFO):
        assert main("--dataset", "folder:videos", "--sequence", "one", "--runs", "2", "--runid", "4") == 0
    assert any("2 runs of the same weights" in message for message in caplog.messages)
    assert any("time went into waiting for frames" in message for message in caplog.messages)
    texts = [result_text(work, number, "one") for number in (4, 5)]
    assert texts[0] == texts[1] and len(texts[0].splitlines()) == 3


def test_sequences_side_by_side(main, work, caplog):
    with caplog.at_level(logging.INFO):
        assert main("--dataset", "folder:videos", "--runid", "2", "--batch", "3") == 1
    assert any("with cpu, 3 sequences at a time" in message for message in caplog.messages)
    assert any("broken failed" in message for message in caplog.messages)
    assert main("--dataset", "folder:videos", "--runid", "3") == 1
    for name in ("one", "two"):
        texts = [result_text(work, number, name) for number in (2, 3)]
        assert texts[0] == texts[1]


def test_stale_results_are_refused(main, work):
    arguments = ["--dataset", "folder:videos", "--sequence", "one", "--runid", "7"]
    assert main(*arguments) == 0
    folder = work / "out/test/tracking_results/compresstracker" / f"{CONFIG}_007"
    assert (folder / "manifest.json").is_file()
    with pytest.raises(UserError, match="TEST.WINDOW True instead of False"):
        main(*arguments, "--set", "TEST.WINDOW=false")
    assert main(*arguments, "--read_ahead", "0") == 0
    assert main(*arguments, "--set", "TEST.WINDOW=false", "--force") == 0
    assert (folder / "previous_1" / "folder_videos" / "one.txt").is_file()


def test_options_of_the_fast_model_are_kept_apart(main, work):
    arguments = ["--dataset", "folder:videos", "--sequence", "one", "--runid", "8", "--backend", "fast"]
    assert main(*arguments) == 0
    assert (work / f"out/test/tracking_results/compresstracker/{CONFIG}_fast_008/folder_videos/one.txt").is_file()
    with pytest.raises(UserError, match="backend fast instead of fast fused_attention=false"):
        main(*arguments, "--fast", "fused_attention=false")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--dataset", "nosuch"], "unknown data set 'nosuch'"),
    (["--dataset", "folder:elsewhere"], "elsewhere"),
    (["--dataset", "vot:elsewhere"], "folder of VOT sequences not found: .*elsewhere"),
    (["--dataset", "UAV123"], "data set UAV123 .UAV123. not found: uav_path is .* get it from http"),
    (["--dataset", "folder:videos", "--sequence", "three"], "no sequence 'three'"),
    (["--dataset", "folder:videos", "--checkpoint", "none.pth"], "no checkpoint at .*none.pth"),
    (["--dataset", "folder:videos", "--runid", "9", "--device", "abacus"], "unknown device"),
])
def test_mistakes_are_named(main, arguments, message):
    with pytest.raises(UserError, match=message):
        main(*arguments)


@pytest.mark.parametrize(("option", "value", "least"), [("threads", -1, 0), ("read_ahead", -1, 0), ("runs", 0, 1),
                                                     ("batch", 0, 1)])
def test_wrong_usage(main, capsys, option, value, least):
    with pytest.raises(SystemExit, match="2"):
        main("--dataset", "lasot", f"--{option}", str(value))
    assert f"--{option} must be {least} or more" in capsys.readouterr().err
