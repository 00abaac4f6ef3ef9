"""Validation by tracking within a training: scores, the best checkpoint, failures, and nothing else disturbed."""

import logging
import os
import shutil
import signal

import pytest
import torch
from square_runs import best, run_log, slim
from tiny_models import same

from lib.config import load_config
from lib.families.build import build_tracker
from lib.pipeline.tracking import TrackingValidation, spread
from lib.test.analysis.metrics import evaluate_sequence
from lib.test.evaluation.single import track_sequence
from lib.test.tracker.tracker import Tracker
from lib.train.run import run_training
from lib.utils.errors import UserError

CPU = torch.device("cpu")


def never():
    return False


@pytest.fixture
def cfg(square_config, square_data):
    """`cfg(number)`: the tiny configuration with `number` sequences to track after each epoch."""
    def load(number=0, *more):
        return load_config("ostrack", str(square_config), [
            f"DATA.VAL.TRACK=folder:{square_data}", f"DATA.VAL.TRACK_SEQUENCES={number}",
            "TRAIN.TRACK_EPOCH_INTERVAL=1", *more])
    return load


def test_spread_takes_the_ends_and_even_distances():
    assert spread("abcdefghi", 3) == ["a", "e", "i"]
    assert spread("abcde", 1) == ["a"]
    assert spread("abc", 0) == spread("abc", 3) == spread("abc", 7) == ["a", "b", "c"]


def test_scores_are_those_of_tracking_and_analysis(cfg):
    settings, torch_state = cfg(), torch.get_rng_state()
    model = build_tracker(settings)
    torch.set_rng_state(torch_state)
    validation = TrackingValidation(settings)
    assert len(validation) == 2
    found = [validation.score(number, model, CPU, never) for number in (0, 1)]
    assert torch.equal(torch_state, torch.get_rng_state())
    for sequence, scores in zip(validation.sequences, found, strict=True):
        boxes = track_sequence(Tracker.from_model(model, settings), sequence).boxes_xywh
        expected = evaluate_sequence(boxes, sequence.ground_truth, None, "plain")
        assert scores == {"AUC": [100 * expected.auc, 1], "AO": [100 * expected.ao, 1]}


def test_ao_is_pooled_where_the_convention_pools(cfg, square_data, tmp_path, monkeypatch):
    folder = tmp_path / "got10k" / "val"
    shutil.copytree(square_data, folder)
    for name in ("one", "two"):
        (folder / name / "groundtruth_rect.txt").rename(folder / name / "groundtruth.txt")
        for picture in (folder / name / "img").iterdir():
            picture.rename(folder / name / picture.name)
        (folder / name / "img").rmdir()
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_PATH", str(folder.parent))
    settings = cfg(0, "DATA.VAL.TRACK=got10k_val")
    scores = TrackingValidation(settings).score(0, build_tracker(settings), CPU, never)
    assert scores["AUC"][1] == 1 and scores["AO"][1] == 23  # without the first frame


def test_training_is_bit_identical_with_and_without_it(cfg, tmp_path):
    settings = cfg()
    run_training(settings, tmp_path / "out", sequences=TrackingValidation(settings), log_to_console=False)
    tracked, log = slim(tmp_path, 2), run_log(tmp_path)
    assert log.count("[track: 1/2, 2 sequences] ") == log.count("[track: 2/2, 2 sequences] ") == 1
    assert "AUC" in log and "AO" in log
    record = best(tmp_path)
    assert record["measure"] == "AUC" and record["epoch"] in (1, 2)
    assert f"best so far: AUC {record['score']:.4g} after epoch {record['epoch']}" in log
    (tmp_path / "out").rename(tmp_path / "tracked")
    plain = settings.with_overrides({"TRAIN.TRACK_EPOCH_INTERVAL": 0})
    run_training(plain, tmp_path / "out", log_to_console=False)
    assert same(tracked, slim(tmp_path, 2))
    assert best(tmp_path)["measure"] == "IoU"


def test_a_failing_sequence_is_reported_and_left_out(cfg, tmp_path, caplog):
    settings = cfg()
    lost = tmp_path / "data"
    shutil.copytree(os.fspath(settings.DATA.VAL.TRACK.removeprefix("folder:")), lost)
    validation = TrackingValidation(settings.with_overrides({"DATA.VAL.TRACK": f"folder:{lost}"}))
    (lost / "two" / "img" / "0005.jpg").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        run_training(settings, tmp_path / "out", sequences=validation, log_to_console=False)
    assert "[track: 2/2, 1 sequences, 1 failed]" in run_log(tmp_path)
    assert "two failed: frame 4" in caplog.text and "0005.jpg" in caplog.text


def test_a_signal_gives_the_sequence_up_and_the_validation_is_done_later(cfg, tmp_path, monkeypatch, train_script,
                                                                        train_arguments):
    settings = cfg()
    line = train_arguments("--set", f"DATA.VAL.TRACK={settings.DATA.VAL.TRACK}", "--set",
                           "TRAIN.TRACK_EPOCH_INTERVAL=2")
    track = Tracker.track

    def interrupted(self, image):
        os.kill(os.getpid(), signal.SIGTERM)
        return track(self, image)

    monkeypatch.setattr("lib.test.evaluation.single.REPORT_EVERY", 0.0)
    monkeypatch.setattr(Tracker, "track", interrupted)
    assert train_script(line) == 128 + signal.SIGTERM
    assert "[track:" not in run_log(tmp_path)
    monkeypatch.setattr(Tracker, "track", track)
    assert train_script(line) == 0
    assert run_log(tmp_path).count("[track: 2/2, 2 sequences]") == 1
    assert run_log(tmp_path).count("[train: 2/2, 6/6]") == 1


@pytest.mark.parametrize("name, message", [
    ("folder:/no/such/place", "DATA.VAL.TRACK: .*/no/such/place"),
    ("nosuch", "DATA.VAL.TRACK: unknown data set 'nosuch'"),
    ("got10k_val", "DATA.VAL.TRACK: data set got10k_val .* not found"),
    ("''", "TRAIN.TRACK_EPOCH_INTERVAL is 1, but DATA.VAL.TRACK is empty"),
])
def test_a_missing_set_is_found_before_anything_is_written(train_script, train_arguments, tmp_path, monkeypatch, name,
                                                           message):
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=message):
        train_script(train_arguments("--set", f"DATA.VAL.TRACK={name}", "--set", "TRAIN.TRACK_EPOCH_INTERVAL=1"))
    assert not (tmp_path / "out").exists()


def test_a_set_without_public_annotations_is_refused(cfg, square_data, tmp_path):
    folder = tmp_path / "secret"
    shutil.copytree(square_data, folder)
    for name in ("one", "two"):
        (folder / name / "groundtruth_rect.txt").write_text("15,12,20,16\n" + "NaN,NaN,NaN,NaN\n" * 23)
    with pytest.raises(UserError, match="after its first frame"):
        TrackingValidation(cfg(0, f"DATA.VAL.TRACK=folder:{folder}"))


def test_two_processes_share_the_sequences(cfg, tmp_path, twice, monkeypatch):
    """Each tracks one of the two sequences, and both count."""
    settings, tracked, track = cfg(0, "TRAIN.TRACK_EPOCH_INTERVAL=2"), [], TrackingValidation.score

    def train():
        run_training(settings, tmp_path / "out", sequences=TrackingValidation(settings), log_to_console=False)
        return tracked

    monkeypatch.setattr(TrackingValidation, "score",
                        lambda self, number, *rest: (tracked.append(number), track(self, number, *rest))[1])
    assert twice(train) == [[0], [1]]
    assert run_log(tmp_path).count("[track: 2/2, 2 sequences] ") == 1
