"""Sequences tracked side by side: the files of one by one, replacement of those that end, failures."""

import functools

import numpy as np
import pytest
import torch
import trees
from fake_trackers import Frames, Stepper
from tiny_models import scramble, tiny

from lib.deploy.fast import FastOptions, build_fast
from lib.families.build import build_for_test
from lib.test.evaluation.datasets import Sequence
from lib.test.evaluation.results import is_done
from lib.test.evaluation.running import run_dataset
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

LENGTHS = [9, 4, 6, 1, 12, 5]


class Film:
    """Pictures with a texture that moves, from a number on; what `FrameSource` offers."""

    def __init__(self, first, count):
        self.first, self.count, self.closed = first, count, False

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return trees.picture(self.first + index)

    def close(self):
        self.closed = True


def films():
    return [Sequence(f"s{i}", "lasot", Film(10 * i, count), np.tile(trees.box(i), (count, 1)))
            for i, count in enumerate(LENGTHS)]


def make_tracker(kind):
    torch.manual_seed(0)
    cfg = tiny("ce" if kind == "ce" else "compresstracker", MODEL__BACKBONE__DEPTH=12)
    model = scramble(build_for_test(cfg)).eval()
    if kind == "fast":
        model = build_fast(model, FastOptions.best("cpu"), mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    return Tracker.from_model(model, cfg)


@pytest.mark.parametrize("kind", ["plain", "ce", "fast"])
def test_files_are_those_of_one_by_one(tmp_path, kind):
    tracker = make_tracker(kind)
    summaries = [run_dataset(films(), lambda device: tracker, tmp_path / str(batch), batch=batch, device="cpu")
                 for batch in (1, 3)]
    for summary in summaries:
        assert sorted(summary.finished) == [f"s{i}" for i in range(6)] and summary.frames == sum(LENGTHS)
    texts = [[(tmp_path / str(batch) / f"s{i}.txt").read_text() for i in range(6)] for batch in (1, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts[0][4].splitlines())) > 3, "the box moves, or nothing was compared"
    times = np.loadtxt(tmp_path / "3" / "s0_time.txt")
    assert times.shape == (9,) and (times > 0).all()


def test_scores_and_boxes_are_equal_within_rounding():
    tracker = make_tracker("plain")
    images = [trees.picture(i) for i in range(4)]
    targets = [tracker.start(image, trees.box(i)) for i, image in enumerate(images)]
    together = tracker.step(images[::-1], targets)
    for i, result in enumerate(together):
        tracker.initialize(images[i], trees.box(i))
        alone = tracker.track(images[3 - i])
        np.testing.assert_allclose(result.box_xywh, alone.box_xywh, rtol=0, atol=1e-3)
        np.testing.assert_allclose(result.score_map, alone.score_map, rtol=0, atol=1e-5)
        assert result.score == pytest.approx(alone.score, abs=1e-5)
        assert targets[i].box_xywh == result.box_xywh


def sequence(name, count, y=7.0, **frames):
    return Sequence(name, "lasot", Frames(count, **frames), np.tile([10.0, y, 8.0, 6.0], (count, 1)))


def run(sequences, tracker, folder, **options):
    return run_dataset(sequences, lambda device: tracker, folder, device="cpu", **options)


def test_a_finished_sequence_is_replaced_at_once(tmp_path):
    tracker = Stepper("cpu")
    sequences = [sequence(f"s{i}", count) for i, count in enumerate(LENGTHS)]
    summary = run(sequences, tracker, tmp_path, batch=2)
    assert sorted(summary.finished) == [f"s{i}" for i in range(6)]
    assert max(tracker.batches) == 2 and sum(tracker.batches) == sum(LENGTHS) - 6
    assert tracker.batches.count(1) <= 5, "one step alone for each that ends, and the rest of the last"
    assert all(s.frames.closed for s in sequences)
    assert (tmp_path / "s1.txt").read_text().splitlines()[3] == "13\t7\t8\t6"


def test_a_failure_does_not_stop_the_others(tmp_path):
    sequences = [sequence("bad", 9, y=1.0), sequence("unreadable", 8, broken=2), sequence("good", 7),
                 sequence("absent", 6, y=np.nan), sequence("fine", 5)]
    summary = run(sequences, Stepper("cpu", bad=(1.0,)), tmp_path, batch=3)
    assert sorted(summary.finished) == ["fine", "good"]
    failures = {failure.sequence: failure for failure in summary.failures}
    assert failures.keys() == {"bad", "unreadable", "absent"}
    assert "ValueError: no such thing" in failures["bad"].message and "in step" in failures["bad"].trace
    assert failures["unreadable"].message == "cannot read frame 2" and not failures["unreadable"].trace
    assert "first frame has no box" in failures["absent"].message
    assert is_done(tmp_path / "good.txt", 7) and is_done(tmp_path / "fine.txt", 5)
    assert (tmp_path / "good.txt").read_text().splitlines()[-1] == "17\t7\t8\t6", "a retried step moved a box twice"
    assert all(s.frames.closed for s in sequences)


def test_too_little_memory_ends_the_run(tmp_path):
    tracker = Stepper("cpu", bad=(7.0,), error=torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(UserError, match="too small for 2 sequences at once.*--batch"):
        run([sequence("a", 3), sequence("b", 3)], tracker, tmp_path, batch=4)
    assert not list(tmp_path.iterdir())


def test_drawn_frames(tmp_path):
    run([sequence("a", 3), sequence("b", 2)], Stepper("cpu"), tmp_path, batch=2, debug=1)
    assert [len(list((tmp_path / "debug" / name).iterdir())) for name in "ab"] == [3, 2]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "debug").write_text("in the way")
    summary = run([sequence("a", 3), sequence("b", 2)], Stepper("cpu"), tmp_path / "again", batch=2, debug=1)
    assert ["cannot write" in failure.message for failure in summary.failures] == [True, True]


# ---- in worker processes


def test_workers_track_side_by_side_too(tmp_path):
    sequences = [sequence(f"s{i}", count) for i, count in enumerate(LENGTHS)]
    options = {"device": "cpu", "batch": 2}
    summary = run_dataset(sequences, Stepper, tmp_path / "workers", threads=2, **options)
    assert sorted(summary.finished) == [f"s{i}" for i in range(6)] and summary.frames == sum(LENGTHS)
    run_dataset(sequences, Stepper, tmp_path / "here", **options)
    for i in range(6):
        assert (tmp_path / "workers" / f"s{i}.txt").read_text() == (tmp_path / "here" / f"s{i}.txt").read_text()


def test_every_worker_gets_something(tmp_path, caplog):
    with caplog.at_level("INFO"):
        run_dataset([sequence(f"s{i}", 5) for i in range(4)], Stepper, tmp_path, device="cpu", threads=2, batch=16)
    assert "2 processes on cpu, 2 sequences at a time each" in caplog.text


def test_failures_in_workers(tmp_path):
    sequences = [sequence("bad", 9, y=1.0), *(sequence(f"s{i}", 5) for i in range(3))]
    summary = run_dataset(sequences, functools.partial(Stepper, bad=(1.0,)), tmp_path, device="cpu", threads=1, batch=3)
    assert sorted(summary.finished) == ["s0", "s1", "s2"]
    assert [failure.sequence for failure in summary.failures] == ["bad"]
    with pytest.raises(UserError, match="too small for 2 sequences at once"):
        run_dataset(sequences, functools.partial(Stepper, bad=(1.0,), error=torch.OutOfMemoryError("no memory")),
                    tmp_path / "b", device="cpu", threads=1, batch=2)


def test_a_killed_worker_takes_only_its_own_sequences(tmp_path):
    sequences = [sequence("deadly", 9, y=1.0), sequence("beside", 8), *(sequence(f"s{i}", 5) for i in range(4))]
    factory = functools.partial(Stepper, dies=(1.0,))
    summary = run_dataset(sequences, factory, tmp_path, device="cpu", threads=1, batch=2)
    assert sorted(summary.finished) == ["s0", "s1", "s2", "s3"]
    assert sorted(failure.sequence for failure in summary.failures) == ["beside", "deadly"]
    assert all("SIGKILL" in failure.message for failure in summary.failures)
