"""The test runner when something goes wrong: dying workers, Ctrl-C, killed runs, stale results."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from fake_trackers import Frames, Mover, unbuildable

from lib.config import load_config
from lib.test.evaluation import manifest
from lib.test.evaluation.datasets import Sequence
from lib.test.evaluation.progress import Progress
from lib.test.evaluation.results import has_results
from lib.test.evaluation.running import run_dataset
from lib.utils.errors import UserError
from lib.utils.files import file_hash


def sequence(name="a", count=5, y=7.0, **frames):
    return Sequence(name, "lasot", Frames(count, **frames), np.tile([10.9, y, 8.2, 6.6], (count, 1)))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- workers that die

@pytest.mark.parametrize("action", ["die", "die within a message"])
def test_one_of_several_workers_dies(tmp_path, action):
    sequences = [sequence("deadly", count=9, y=1.0), *(sequence(f"s{i}") for i in range(6))]
    summary = run_dataset(sequences, partial(Mover, act={1.0: action}), tmp_path, threads=2, device="cpu")
    assert sorted(summary.finished) == [f"s{i}" for i in range(6)]
    failure, = summary.failures
    assert failure.sequence == "deadly"
    assert "its worker process" in failure.message and "on cpu was killed by SIGKILL" in failure.message
    assert "deadly.txt" not in names(tmp_path)
    again = run_dataset(sequences, Mover, tmp_path, threads=2, device="cpu")
    assert again.finished == ["deadly"] and len(again.skipped) == 6


def test_every_sequence_kills_its_worker(tmp_path):
    sequences = [sequence(f"s{i}", y=1.0) for i in range(3)]
    summary = run_dataset(sequences, partial(Mover, act={1.0: "die"}), tmp_path, threads=2, device="cpu")
    assert len(summary.failures) == 3 and not summary.finished and not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [0, 1])
def test_a_result_that_cannot_be_written_is_a_failure(tmp_path, threads):
    (tmp_path / "a.txt").mkdir()  # as good as a full disk
    summary = run_dataset([sequence("a"), sequence("b")], Mover, tmp_path, threads=threads, device="cpu")
    assert summary.finished == ["b"] and [failure.sequence for failure in summary.failures] == ["a"]
    assert "cannot write" in summary.failures[0].message and not list(tmp_path.glob(".*"))


def test_time_left_forgets_the_frames_of_failed_sequences():
    with Progress(2, 100, bar=False) as progress:
        progress.advance(10)
        progress.finish_sequence(lost=40)
        assert (progress.frames, progress.frames_done, progress.sequences_done) == (60, 10, 1)
    with Progress(2, 100, bar=True) as progress:
        progress.finish_sequence(lost=40)
        assert progress._bar.total == 60


def test_speed_is_that_of_tracking_without_the_start(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("lib.test.evaluation.progress.time.monotonic", lambda: now[0])
    with caplog.at_level("INFO"), Progress(1, 100, bar=False) as progress:
        for now[0] in (20.0, 22.0, 30.0):    # the processes take 20 seconds to start
            progress.advance(20)
        progress.finish_sequence(lost=40)
    assert caplog.messages == ["0/1 sequences, 20/100 frames", "0/1 sequences, 60/100 frames, 4.0 frames/s, 0:10 left",
                               "1/1 sequences, 60/60 frames, 4.0 frames/s, 0:00 left"]


# ---------------------------------------------------------------- runs that are stopped

PROGRAM = """
import signal
import sys
from functools import partial
from pathlib import Path
import numpy as np
from fake_trackers import Frames, Mover
from lib.test.evaluation.datasets import Sequence
from lib.test.evaluation.running import run_dataset
from lib.utils.log import run_script

def main():
    boxes = np.tile([10.0, 1.0, 8.0, 6.0], (400, 1))
    sequences = [Sequence(f"short{i}", "lasot", Frames(3), boxes[:3]) for i in range(4)]
    sequences += [Sequence(f"long{i}", "lasot", Frames(400), boxes) for i in range(2)]
    run_dataset(sequences, partial(Mover, act={1.0: "wait"}, log=Path(sys.argv[1]) / "workers"),
                Path(sys.argv[1]) / "results", threads=int(sys.argv[2]), device="cpu", progress_bar=False)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
    run_script(main)
"""


@pytest.fixture
def start(root, tmp_path):
    """Start PROGRAM in a process group of its own."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []

    def start(threads):
        environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
        process = subprocess.Popen([sys.executable, str(tmp_path / "program.py"), str(tmp_path), str(threads)],
                                   env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.02)


def whole(folder):
    """Every file is a whole result: boxes with their times, nothing temporary."""
    found = [name for name in names(folder) if name != ".owner"] if folder.is_dir() else []
    boxes = [name for name in found if not name.endswith("_time.txt")]
    assert all(name.endswith(".txt") for name in found)
    for name in boxes:
        lines = (folder / name).read_text().splitlines()
        assert len(lines) == (3 if name.startswith("short") else 400)
        assert name.replace(".txt", "_time.txt") in found
    return boxes


@pytest.mark.parametrize("threads", [0, 2])
def test_ctrl_c_keeps_what_is_done(start, tmp_path, threads):
    process = start(threads)
    results = tmp_path / "results"
    if threads:
        until(lambda: len(list((tmp_path / "workers").iterdir())) == 2)
        time.sleep(0.3)
    else:
        until(lambda: all((results / f"short{i}.txt").is_file() for i in range(4)))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "sequences were tracked and are kept" in errors
    assert len(whole(results)) < 6, "it was stopped in between"


def test_a_killed_run_leaves_no_workers_and_goes_on(start, tmp_path):
    process = start(2)
    until(lambda: len(list((tmp_path / "workers").iterdir())) == 2)
    time.sleep(0.3)
    process.kill()
    process.wait()
    workers = [int(path.name) for path in (tmp_path / "workers").iterdir()]
    until(lambda: not any(alive(worker) for worker in workers))
    whole(tmp_path / "results")
    boxes = np.tile([10.0, 1.0, 8.0, 6.0], (400, 1))
    sequences = [Sequence(f"long{i}", "lasot", Frames(400), boxes) for i in range(2)]
    run_dataset(sequences, Mover, tmp_path / "results", device="cpu")
    assert {"long0.txt", "long1.txt"} <= set(whole(tmp_path / "results"))


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------- stale results

@pytest.fixture
def made_with(tmp_path):
    """Manifests by the content of the checkpoint and overrides of the configuration."""
    def made_with(content=b"weights", *overrides):
        path = tmp_path / "weights.pth.tar"
        path.write_bytes(content)
        return manifest.describe(load_config("ostrack", "vitb_256_mae_32x4_ep300", overrides), path)
    return made_with


def track(folder, made_with, *sequences, **options):
    return run_dataset(sequences or [sequence("a"), sequence("b")], Mover, folder, device="cpu", made_with=made_with,
                       **options)


def test_the_manifest_names_weights_and_settings(tmp_path, made_with):
    folder = tmp_path / "results"
    track(folder, made_with())
    assert names(folder) == ["a.txt", "a_time.txt", "b.txt", "b_time.txt", "manifest.json"]
    content = json.loads((folder / "manifest.json").read_text())
    assert content["script"] == "ostrack" and content["config"] == "vitb_256_mae_32x4_ep300"
    assert content["checkpoint"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert content["settings"]["TEST.WINDOW"] is True and content["settings"]["DATA.MEAN"] == [0.485, 0.456, 0.406]
    assert "TEST.EPOCH" not in content["settings"] and "TRAIN.LR" not in content["settings"]
    assert track(folder, made_with(), sequence("a"), sequence("c")).finished == ["c"]


@pytest.mark.parametrize(("content", "overrides", "message"), [
    (b"other weights", (), r"checkpoint .*weights.pth.tar \(\w{12}\) instead of .*weights.pth.tar \(\w{12}\)"),
    (b"weights", ("TEST.WINDOW=false",), "TEST.WINDOW True instead of False"),
    (b"weights", ("TEST.SEARCH_FACTOR=4.5",), "TEST.SEARCH_FACTOR 4.0 instead of 4.5"),
])
def test_results_of_something_else_are_refused(tmp_path, made_with, content, overrides, message):
    folder = tmp_path / "results"
    track(folder, made_with())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=message) as caught:
        track(folder, made_with(content, *overrides), sequence("c"))
    assert "--runid" in str(caught.value) and "--force" in str(caught.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_sequences_of_another_data_set_with_these_names_are_refused(tmp_path, made_with):
    """Two folders called videos: what is there is neither taken for the other's nor written over."""
    folder = tmp_path / "results"
    track(folder, made_with())
    before = (folder / "a.txt").read_bytes()
    for other in (sequence("a", y=90.0), sequence("a", count=7, y=90.0)):
        with pytest.raises(UserError, match="a.txt does not begin with the first box of a: it is of another data set "
                                            "with these names.*--runid N.*--force"):
            track(folder, made_with(), other)
    assert (folder / "a.txt").read_bytes() == before
    assert track(folder, made_with(), sequence("a", y=90.0), force=True).finished == ["a"]


def test_settings_of_the_training_do_not_matter(tmp_path, made_with):
    track(tmp_path / "results", made_with())
    same = made_with(b"weights", "TRAIN.LR=0.1", "TEST.EPOCH=7", "MODEL.PRETRAIN_FILE=other.pth")
    assert track(tmp_path / "results", same).skipped == ["a", "b"]


def test_force_moves_results_of_something_else_away(tmp_path, made_with):
    folder = tmp_path / "results"
    track(folder, made_with())
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert track(folder, made_with(b"new"), sequence("a"), force=True).finished == ["a"]
    assert names(folder) == ["a.txt", "a_time.txt", "manifest.json", "previous_1"]
    assert {path.name: path.read_bytes() for path in (folder / "previous_1").iterdir()} == old
    assert track(folder, made_with(b"new")).finished == ["b"]
    assert track(folder, made_with(b"new"), force=True).finished == ["a", "b"]
    assert "previous_2" not in names(folder), "the same weights are tracked again in place"


def test_force_without_a_result_moves_nothing(tmp_path, made_with):
    folder = tmp_path / "results"
    track(folder, made_with())
    before = names(folder)
    bad = partial(Mover, act={1.0: "fail"})
    summary = run_dataset([sequence("a", y=1.0)], bad, folder, device="cpu", made_with=made_with(b"new"), force=True)
    assert len(summary.failures) == 1 and names(folder) == before
    with pytest.raises(UserError, match="no checkpoint at nowhere"):
        run_dataset([sequence("a")], unbuildable, folder, device="cpu", made_with=made_with(b"new"), force=True)
    assert names(folder) == before


def test_results_without_a_manifest_stay_as_they_are(tmp_path, made_with, caplog):
    folder = tmp_path / "results"
    run_dataset([sequence("a")], Mover, folder, device="cpu")
    summary = track(folder, made_with())
    assert summary.skipped == ["a"] and summary.finished == ["b"]
    assert "holds results without a manifest" in caplog.text and "manifest.json" not in names(folder)
    assert track(folder, made_with(), force=True).finished == ["a", "b"]
    assert "manifest.json" in names(folder) and names(folder / "previous_1") == [
        "a.txt", "a_time.txt", "b.txt", "b_time.txt"]


@pytest.mark.parametrize("text", ["", "[]", "{\"format\": 99}", "{\"format\": 1, \"checkpoint\": 3}"])
def test_a_damaged_manifest_is_named(tmp_path, made_with, text):
    folder = tmp_path / "results"
    track(folder, made_with())
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json is damaged or of another version"):
        track(folder, made_with())
    assert track(folder, made_with(), force=True).finished == ["a", "b"]
    assert track(folder, made_with()).skipped == ["a", "b"]


def test_a_manifest_without_results_binds_nobody(tmp_path, made_with):
    folder = tmp_path / "results"
    track(folder, made_with(), sequence("a"))
    (folder / "a.txt").unlink()
    assert track(folder, made_with(b"new")).finished == ["a", "b"]
    assert track(folder, made_with(b"new")).skipped == ["a", "b"]


def test_a_key_that_is_newer_than_the_manifest_had_its_default(made_with):
    old, new = made_with(), made_with()
    del old["settings"]["TEST.WINDOW"], old["settings"]["DATA.STD"]
    assert manifest.differences(old, new) == []
    assert manifest.differences(old, made_with(b"weights", "TEST.WINDOW=false")) == [
        "TEST.WINDOW True instead of False"]
    assert "rules 1 instead of 2" in manifest.differences(old, new | {"rules": 2})[0]


def test_a_hash_is_computed_once_for_each_state_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = file_hash(path)
    monkeypatch.setattr(hashlib, "sha256", None)  # nothing is hashed again
    assert file_hash(path) == first
    monkeypatch.undo()
    path.write_bytes(b"other")
    assert file_hash(path) != first
    with pytest.raises(UserError, match="cannot read .*nothing"):
        file_hash(tmp_path / "nothing")


def test_what_counts_as_results(tmp_path):
    for name in ("video_film.txt", "a_time.txt", "previous_1/a.txt", "debug/a/0.jpg", "manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert not has_results(tmp_path) and not has_results(tmp_path / "nowhere")
    (tmp_path / "got10k").mkdir()
    (tmp_path / "got10k" / "a.txt").write_text("")
    assert has_results(tmp_path)
