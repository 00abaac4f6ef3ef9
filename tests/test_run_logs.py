"""What a training reports: log file, TensorBoard, Weights & Biases, pictures, speed."""

import sys
import types

import numpy as np
import pytest
import torch
from square_runs import checkpoints, run_log
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.config import load_config
from lib.train.admin.logs import Clock, RunLog, progress_text
from lib.train.admin.pictures import prediction_picture
from lib.train.run import run_training
from lib.utils.errors import UserError


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package; `wandb.runs` are the calls of `init`, `wandb.logged` those of `log`."""
    module = types.ModuleType("wandb")
    module.runs, module.logged, module.axes, module.ended = [], [], {}, []

    class Run:
        def log(self, values):
            module.logged.append(values)

        def define_metric(self, name, step_metric):
            module.axes[name] = step_metric

        def finish(self, exit_code):
            module.ended.append(exit_code)

    def init(**options):
        module.runs.append(options)
        return Run()

    module.init, module.Image = init, lambda image: ("image", image)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def train(square_config, tmp_path):
    """`train(*overrides, resume=..., use_wandb=...)`: a run of the tiny configuration."""
    def go(*overrides, resume="auto", use_wandb=False):
        cfg = load_config("ostrack", str(square_config), overrides)
        return run_training(cfg, tmp_path / "out", log_to_console=False, resume=resume, use_wandb=use_wandb)
    return go


def curves(folder):
    """Tag -> [(step, value), ...] of TensorBoard's files, and the pictures' tags."""
    events = EventAccumulator(str(folder / "out" / "tensorboard" / "train" / "ostrack" / "tiny"))
    events.Reload()
    tags = events.Tags()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}, {
        tag: [event.step for event in events.Images(tag)] for tag in tags["images"]}


def test_a_slow_epoch_shows_signs_of_life_on_the_console(monkeypatch, tmp_path, caplog):
    """Without a bar: after 5 seconds, then ever more rarely, and not beside the run's own lines."""
    now = [0.0]
    monkeypatch.setattr("lib.train.admin.logs.time.monotonic", lambda: now[0])
    said = []
    with caplog.at_level("INFO"), RunLog("run", tmp_path / "log.txt", tmp_path / "board") as log:
        log.start_progress("epoch 1/5", 100, 0)
        for step in range(1, 101):
            now[0] += 4
            log.advance()
            if step == 9:
                log.progress("a report", "")
            said += [(step, record.getMessage()) for record in caplog.records]
            caplog.clear()
    assert [step for step, _ in said] == [2, 5, 9, 14, 24, 39, 54, 69, 84, 99]
    assert said[0][1] == "epoch 1/5: 2 of 100" and said[2][1] == "a report"
    assert "of 100" not in (tmp_path / "log.txt").read_text()


def test_curves_by_epoch_and_by_step(train, tmp_path):
    train()
    scalars, pictures = curves(tmp_path)
    for name in ("Loss/total", "IoU", "LearningRate", "Throughput", "DataWait", "EpochTime"):
        assert [step for step, _ in scalars[f"{name}/train"]] == [1, 2], name
    for name in ("Loss/total", "IoU", "LearningRate", "Throughput", "DataWait"):
        assert [step for step, _ in scalars[f"{name}/step"]] == [2, 4, 6, 8, 10, 12], name
    assert [step for step, _ in scalars["IoU/val"]] == [2]
    assert "Memory/train" not in scalars  # of CUDA
    by_step = [value for _, value in scalars["Loss/total/step"]]
    assert scalars["Loss/total/train"][0][1] == pytest.approx(np.mean(by_step[:3]), rel=1e-5)
    assert pictures == {"predictions/val": [2]}


def test_states_within_an_epoch_do_not_change_the_curves(train, tmp_path):
    train("TRAIN.EPOCH=1")
    plain = curves(tmp_path)[0]
    (tmp_path / "out").rename(tmp_path / "plain")
    train("TRAIN.EPOCH=1", "TRAIN.SAVE_STEP_INTERVAL=1")
    saved = curves(tmp_path)[0]
    for tag in ("Loss/total/step", "Loss/total/train", "IoU/step"):
        assert [step for step, _ in saved[tag]] == [step for step, _ in plain[tag]]
        assert [value for _, value in saved[tag]] == pytest.approx([value for _, value in plain[tag]], rel=1e-6)


def test_no_pictures_when_none_are_asked_for(train, tmp_path):
    train("TRAIN.PICTURES=0", "TRAIN.EPOCH=1")
    assert curves(tmp_path)[1] == {}


def test_weights_and_biases_go_on_under_the_same_name(train, wandb, tmp_path):
    train("TRAIN.EPOCH=1", use_wandb=True)
    train("TRAIN.EPOCH=2", use_wandb=True)
    first, second = wandb.runs
    assert first["id"] == second["id"] and first["resume"] == "allow" and first["name"] == "ostrack/tiny"
    assert first["config"]["TRAIN"]["EPOCH"] == 1
    assert wandb.axes == {"train/*": "epoch", "val/*": "epoch", "track/*": "epoch", "step/*": "step"}
    assert [values["step"] for values in wandb.logged if "step/Loss/total" in values] == [2, 4, 6, 8, 10, 12]
    assert [values["epoch"] for values in wandb.logged if "train/IoU" in values] == [1, 2]
    pictures = [values for values in wandb.logged if "val/predictions" in values]
    assert [values["epoch"] for values in pictures] == [1, 2]
    kind, image = pictures[0]["val/predictions"]
    assert kind == "image" and image.dtype == np.uint8 and image.ndim == 3
    assert wandb.ended == [0, 0]
    train("TRAIN.EPOCH=1", use_wandb=True, resume="none")
    assert wandb.runs[2]["id"] != first["id"]
    assert (checkpoints(tmp_path) / "previous_1" / "wandb_id.txt").read_text().strip() == first["id"]


def test_weights_and_biases_hear_of_a_failure(train, wandb, tmp_path):
    with pytest.raises(UserError, match="NaN or infinite"):
        train("TRAIN.LR=1e30", "TRAIN.GRAD_CLIP_NORM=0", use_wandb=True)
    assert wandb.ended == [1]
    assert "ended by UserError" in run_log(tmp_path)


def test_a_silent_log_says_and_writes_nothing(tmp_path):
    with RunLog("x", tmp_path / "log", tmp_path / "board", active=False) as log:
        log.line("text")
        log.scalars("train", {"IoU": 0.5}, 1)
        log.picture("val", np.zeros((4, 4, 3), np.uint8), 1)
    assert list(tmp_path.iterdir()) == []


def test_picture_of_predictions():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    gray = ((torch.full((3, 3, 64, 64), 128 / 255) - torch.tensor(mean).reshape(3, 1, 1))
            / torch.tensor(std).reshape(3, 1, 1))
    truth = torch.tensor([[0.25, 0.25, 0.5, 0.5]]).repeat(3, 1)
    same = torch.tensor([0.5, 0.5, 0.5, 0.5]).repeat(3, 1, 1)
    picture = prediction_picture(gray, truth, same, mean, std)
    assert picture.shape == (64 + 12, 3 * 64 + 4 * 6, 3) and picture.dtype == np.uint8
    crop = picture[6:70, 6:70]
    assert (crop[32, 32] == 128).all() and (crop[60, 60] == 128).all()
    assert (crop[47:50, 32] != 128).any(), "the lower edge of the boxes is drawn"
    other = prediction_picture(gray, truth, same * 0.5, mean, std)
    assert not np.array_equal(picture, other)


def test_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("lib.train.admin.logs.time.perf_counter", lambda: now[0])
    clock = Clock(8, torch.device("cpu"))

    def steps(number, seconds, waited):
        for _ in range(number):
            with clock.waiting():
                now[0] += waited
            now[0] += seconds - waited
            clock.step()

    clock.restart()
    steps(4, 0.5, 0.1)
    assert clock.lap() == pytest.approx((16, 16))
    assert clock.usage(clock.last) == pytest.approx({"Throughput": 16, "DataWait": 0.2})
    steps(2, 1.0, 0.9)
    assert clock.lap() == pytest.approx((12, 8))
    assert clock.usage(clock.last)["DataWait"] == pytest.approx(0.9)
    assert clock.usage(clock.epoch) == pytest.approx({"Throughput": 12, "DataWait": 2.2 / 4})
    assert clock.remaining(3) == pytest.approx(2)
    with clock.waiting():
        now[0] += 50  # a validation's wait
    clock.restart()
    steps(1, 1.0, 0.0)
    clock.lap()
    assert clock.usage(clock.epoch) == pytest.approx({"Throughput": 8, "DataWait": 0.0})


def test_progress_text():
    text, details = progress_text("train", 3, 20, 200, 500, rates=(65.5, 64.6), averages={"IoU": 0.5}, left=2150,
                                  waiting=0.034, lr=0.000977)
    assert details == "65.5 pairs/s (64.6 last), 3 % waiting for data, 0:35:50 left, lr 0.000977, IoU 0.500"
    assert text == f"[train: 3/20, 200/500] {details}"
    text, _ = progress_text("val", 3, 20, 7, 7, rates=(65.5, 64.6), averages={"IoU": 0.5})
    assert text == "[val: 3/20, 7/7] 65.5 pairs/s (64.6 last), IoU 0.500"
