"""Running trackers over sequences: result files, skipping, failures, worker processes."""

import functools
import logging
import time

import numpy as np
import pytest
from fake_trackers import Frames, Mover, crashing, unbuildable

from lib.test.evaluation.datasets import Sequence
from lib.test.evaluation.results import dataset_folder, is_done, tracker_folder
from lib.test.evaluation.running import run_dataset, worker_devices
from lib.utils.errors import UserError


def sequence(name="a", count=5, dataset="lasot", y=7.0, **frames):
    ground_truth = np.tile([10.9, y, 8.2, 6.6], (count, 1))
    return Sequence(name, dataset, Frames(count, **frames), ground_truth)


EXPECTED = "10\t7\t8\t6\n12\t7\t8\t6\n13\t7\t8\t6\n14\t7\t8\t6\n16\t7\t8\t6\n"


@pytest.mark.parametrize("threads", [0, 2])
def test_results_are_in_the_official_format(tmp_path, threads):
    sequences = [sequence("a"), sequence("b", dataset="got10k"), sequence("c", dataset="folder:mine")]
    summary = run_dataset(sequences, Mover, tmp_path, threads=threads, device="cpu")
    assert sorted(summary.finished) == ["a", "b", "c"] and not summary.failures and summary.frames == 15
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["a.txt", "a_time.txt", "folder_mine/c.txt", "folder_mine/c_time.txt", "got10k/b.txt",
                     "got10k/b_time.txt"]
    for name in files[::2]:
        assert (tmp_path / name).read_text() == EXPECTED
    times = np.loadtxt(tmp_path / "a_time.txt")
    assert times.shape == (5,) and (times >= 0).all() and times.sum() < 5


def test_integers_are_cut_off_towards_zero(tmp_path):
    negative = Sequence("a", "lasot", Frames(1), np.array([[-0.9, -3.7, 5.99, 4.0]]))
    run_dataset([negative], Mover, tmp_path, device="cpu")
    assert (tmp_path / "a.txt").read_text() == "0\t-3\t5\t4\n"


def test_sub_pixel_boxes(tmp_path):
    run_dataset([sequence()], Mover, tmp_path, device="cpu")
    with pytest.raises(UserError, match="have whole pixels: go on without --float, keep both with --runid N"):
        run_dataset([sequence("b")], Mover, tmp_path, device="cpu", sub_pixel=True)
    run_dataset([sequence()], Mover, tmp_path, device="cpu", sub_pixel=True, force=True)
    with pytest.raises(UserError, match="have fractions of pixels: go on with --float"):
        run_dataset([sequence()], Mover, tmp_path, device="cpu")
    assert (tmp_path / "a.txt").read_text().splitlines()[1] == "12.2000\t7.0000\t8.2000\t6.6000"


def test_what_is_done_is_skipped(tmp_path):
    run_dataset([sequence()], Mover, tmp_path, device="cpu")
    kept = EXPECTED.splitlines()
    (tmp_path / "a.txt").write_text("\n".join([*kept[:-1], "99\t7\t8\t6"]) + "\n")
    summary = run_dataset([sequence(), sequence("b")], Mover, tmp_path, device="cpu")
    assert summary.skipped == ["a"] and summary.finished == ["b"]
    assert (tmp_path / "a.txt").read_text().splitlines()[-1].startswith("99")

    (tmp_path / "b.txt").write_text(EXPECTED[:20])  # too few lines
    assert run_dataset([sequence("b")], Mover, tmp_path, device="cpu").finished == ["b"]
    assert run_dataset([sequence()], Mover, tmp_path, device="cpu", force=True).finished == ["a"]
    assert (tmp_path / "a.txt").read_text() == EXPECTED


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failure_does_not_stop_the_others(tmp_path, threads):
    sequences = [sequence("bad", y=1.0), sequence("unreadable", broken=2), sequence("good"),
                 sequence("absent", y=np.nan), sequence("fine", count=7)]
    factory = functools.partial(Mover, act={1.0: "fail"})
    summary = run_dataset(sequences, factory, tmp_path, threads=threads, device="cpu")
    assert sorted(summary.finished) == ["fine", "good"]
    failures = {failure.sequence: failure for failure in summary.failures}
    assert failures.keys() == {"bad", "unreadable", "absent"}
    assert "ValueError: no such thing" in failures["bad"].message and "in track" in failures["bad"].trace
    assert failures["unreadable"].message == "cannot read frame 2" and not failures["unreadable"].trace
    assert "first frame has no box" in failures["absent"].message
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["fine.txt", "fine_time.txt", "good.txt", "good_time.txt"]
    if threads == 0:
        assert all(s.frames.closed for s in sequences)
    again = run_dataset(sequences, Mover, tmp_path, device="cpu")
    assert again.finished == ["bad"] and sorted(again.skipped) == ["fine", "good"]


def test_a_killed_worker_is_reported_and_replaced(tmp_path):
    sequences = [sequence("deadly", count=9, y=1.0), *(sequence(f"s{i}") for i in range(4))]
    summary = run_dataset(sequences, functools.partial(Mover, act={1.0: "die"}), tmp_path, threads=1, device="cpu")
    assert sorted(summary.finished) == ["s0", "s1", "s2", "s3"]
    assert [failure.sequence for failure in summary.failures] == ["deadly"]
    assert "SIGKILL" in summary.failures[0].message


def test_no_more_workers_than_sequences(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    run_dataset([sequence("a"), sequence("b")], functools.partial(Mover, log=log), tmp_path, threads=30, device="cpu")
    workers = list(log.iterdir())
    assert len(workers) == 2 and {worker.read_text() for worker in workers} == {"cpu"}


@pytest.mark.parametrize("threads", [0, 1])
def test_a_tracker_that_cannot_be_built_ends_the_run(tmp_path, threads):
    with pytest.raises(UserError, match="no checkpoint at nowhere"):
        run_dataset([sequence()], unbuildable, tmp_path, threads=threads, device="cpu")
    with pytest.raises((RuntimeError, OSError), match="out of everything"):
        run_dataset([sequence()], crashing, tmp_path, threads=threads, device="cpu")
    assert not list(tmp_path.iterdir())


def test_interrupt_leaves_nothing_half_written(tmp_path, monkeypatch):
    from lib.test.evaluation import running

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "write_result", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_dataset([sequence("a"), sequence("long", count=5000, y=1.0)], functools.partial(Mover, act={1.0: "wait"}),
                    tmp_path, threads=2, device="cpu")
    assert time.monotonic() - started < 60, "the long sequence was waited for"
    assert not list(tmp_path.iterdir())


def test_two_sequences_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="'a'"):
        run_dataset([sequence("a"), sequence("a", count=6)], Mover, tmp_path, device="cpu")


def test_debug_leaves_drawn_frames(tmp_path):
    run_dataset([sequence(count=3)], Mover, tmp_path, device="cpu", debug=1)
    assert sorted(path.name for path in (tmp_path / "debug" / "a").iterdir()) == [f"{i:06d}.jpg" for i in range(3)]


def test_progress_lines(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run_dataset([sequence("a"), sequence("b")], Mover, tmp_path, device="cpu", progress_bar=False)
    assert any("2/2 sequences, 10/10 frames" in message for message in caplog.messages)


def test_workers_are_spread_over_the_gpus_there_are(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_devices("auto", 8, 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert worker_devices("auto", 1, 2) == ["cuda:0", "cuda:0"]
    assert worker_devices("auto", 0, 1) == ["cpu"]
    assert worker_devices("cuda:1", 8, 2) == ["cuda:1", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert worker_devices("auto", 8, 2) == ["cpu", "cpu"]
    with pytest.raises(UserError, match="CUDA"):
        worker_devices("cuda", 8, 1)


def test_folders():
    assert str(tracker_folder("r", "ostrack", "x")) == "r/ostrack/x"
    assert str(tracker_folder("r", "ostrack", "x", 7)) == "r/ostrack/x_007"
    assert [dataset_folder(name) for name in ("lasot", "got10k", "trackingnet", "folder:b")] == [
        "", "got10k", "trackingnet", "folder_b"]


def test_done_means_whole(tmp_path):
    path = tmp_path / "a.txt"
    assert not is_done(path, 2)
    path.write_text("")
    assert not is_done(path, 0)
    path.write_text("1\t2\t3\t4\n1\t2\t3\t4\n\n")
    assert is_done(path, 2) and not is_done(path, 3)
