"""The quickstart end to end in small, and the difficulty of the benchmark that it renders."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from square_runs import load_script
from test_vittrack import write_manifest

from lib.config import read_yaml
from lib.pipeline.ladder import Ladder
from lib.quickstart import run
from lib.quickstart.baseline import MatchTemplateTracker
from lib.quickstart.render import render_benchmark
from lib.test.analysis.metrics import success_auc
from lib.test.evaluation import get_dataset
from lib.test.evaluation.single import track_sequence
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

SHORT = ("TRAIN.EPOCH=1", "TEST.EPOCH=1", "TRAIN.BATCH_SIZE=4", "DATA.TRAIN.SAMPLE_PER_EPOCH=8",
         "DATA.VAL.SAMPLE_PER_EPOCH=4", "TRAIN.PRINT_INTERVAL=1")
RECORDED_WITH = "86c7da14937ded15"
"""Digest of the settings that the recorded runs were made with."""


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A benchmark of a few short sequences, and the quickstart's call for it."""
    for name, value in (("TRAIN_SEQUENCES", 3), ("VAL_SEQUENCES", 1), ("TEST_SEQUENCES", 2), ("FRAMES", (20, 20)),
                        ("TIMED_PASSES", 20)):
        monkeypatch.setattr(run, name, value)
    return lambda **options: run.run_quickstart(tmp_path / "out", data=tmp_path / "data", device="cpu",
                                                overrides=SHORT, **options)


def test_end_to_end(small, tmp_path):
    outcome = small(seeds=2)
    names = [row.name for row in outcome.rows]
    assert names == ["template matching", "teacher", "naive student", "compressed student"]
    assert [len(row.auc) for row in outcome.rows] == [1, 1, 2, 2]
    assert outcome.row("teacher").layers == 12 and outcome.row("compressed student").layers == 4
    assert outcome.row("teacher").macs > 2 * outcome.row("compressed student").macs
    assert all(0 <= auc <= 100 for row in outcome.rows for auc in row.auc)
    assert outcome.speed_up > 1

    table = (tmp_path / "out" / "table.txt").read_text()
    assert table == outcome.table() + "\n"
    for row in outcome.rows:
        assert row.name in table
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 1 + 6
    assert all(path.exists() for path in outcome.files.values())
    assert {path.suffix for path in (tmp_path / "out" / "plots").iterdir()} == {".png", ".pdf"}
    video = cv2.VideoCapture(str(outcome.files["video"]))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 20
    seeds = [(tmp_path / "out" / "runs" / f"compressed_seed{seed}").rglob("CompressTracker_ep0001.pth.tar")
             for seed in range(2)]
    checkpoints = [next(found) for found in seeds]
    assert checkpoints[0].read_bytes() != checkpoints[1].read_bytes()

    written = checkpoints[0].stat().st_mtime_ns
    again = small(seeds=2)
    assert checkpoints[0].stat().st_mtime_ns == written, "a second run trained again"
    assert [row.auc for row in again.rows] == [row.auc for row in outcome.rows]


def test_the_recorded_runs_are_those_of_the_ladder(root):
    runs, ladder = run.recorded_runs(), Ladder.read(root / run.LADDER)
    method = Ladder.read(root / "experiments" / "ladders" / "method.yaml")
    assert all(len(values) == len(ladder.seeds) >= 5 and all(0 < value < 100 for value in values)
               for values in runs.values())
    assert list(runs) == list(run.STUDENTS) and list(run.STUDENTS.values()) == list(ladder.rungs)
    as_long = Ladder.read(root / run.LADDER, settings=[f"TRAIN.EPOCH={method.load('mimicking', 42).TRAIN.EPOCH}"])
    for rung, same in {"naive": "initialisation", "compressed": "mimicking"}.items():
        assert method.load(same, 42).flat() == as_long.load(rung, 42).flat(), "it differs in more than its length"
    assert ladder.dataset == method.dataset and ladder.reference == method.reference == "/".join(run.TEACHER)
    settings = read_yaml(root / run.LADDER), read_yaml(root / "experiments" / ladder.script / f"{ladder.config}.yaml")
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    assert digest == RECORDED_WITH, "run the ladder again, and put its runs.csv in the place of recorded.csv"


def test_the_table_shows_what_to_expect():
    rows = [run.Row("teacher", [70.0], 12, 1, 1, 1.0), run.Row("naive student", [60.0], 4, 1, 1, 1.0, [60.0, 62.0]),
            run.Row("compressed student", [66.0], 4, 1, 1, 1.0, [65.0, 68.0])]
    table = run.Outcome(rows, 2.0).table().splitlines()
    assert table[0].endswith("recorded AUC") and table[2].endswith("61.0 [48.3, 73.7]")
    assert table[-1].endswith("compressed over naive +5.5 [-0.9, +11.9]")
    assert "recorded" not in run.Outcome([run.Row("teacher", [70.0], 12, 1, 1, 1.0)], 2.0).table()


def test_rendering_alone(tmp_path, root, monkeypatch):
    for name in ("TRAIN_SEQUENCES", "VAL_SEQUENCES", "TEST_SEQUENCES"):
        monkeypatch.setattr(run, name, 1)
    monkeypatch.setattr(run, "FRAMES", (3, 3))
    monkeypatch.setattr("sys.argv", ["quickstart.py", "--only-render", "--data", str(tmp_path / "data"),
                                     "--workers", "1", "--output", str(tmp_path / "out")])
    assert load_script(root / "tracking" / "quickstart.py").main() == 0
    assert len(list((tmp_path / "data").rglob("*.jpg"))) == 9 and not (tmp_path / "out").exists()


def test_wrong_input(small, tmp_path):
    with pytest.raises(UserError, match="seeds"):
        small(seeds=0)
    with pytest.raises(UserError, match="no-such-teacher"):
        small(teacher=tmp_path / "no-such-teacher.pth.tar")


@pytest.fixture(scope="module")
def test_split(tmp_path_factory):
    """The test part that the quickstart renders, whole."""
    folder = tmp_path_factory.mktemp("benchmark")
    render_benchmark(folder, seed=run.SEED, train=0, val=0, test=run.TEST_SEQUENCES, frames=run.FRAMES, workers=2)
    return get_dataset(f"folder:{folder / 'test'}", None)


def mean_auc(tracker, sequences) -> float:
    scores = [success_auc(np.asarray(track_sequence(tracker, s).boxes_xywh), s.ground_truth, s.visible)
              for s in sequences]
    return float(np.mean(scores))


@pytest.mark.slow
def test_template_matching_does_not_solve_the_benchmark(test_split):
    assert len(test_split) == run.TEST_SEQUENCES
    assert 0.15 < mean_auc(MatchTemplateTracker(), test_split) < 0.45


@pytest.mark.slow
def test_a_real_tracker_can_solve_the_benchmark(test_split, shared_dir, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    assert mean_auc(Tracker.from_export(write_manifest(shared_dir, tmp_path), device="cpu"), test_split) >= 0.50

