"""The average of the weights (TRAIN.EMA): its formula, its place in a run, and its return from a state."""

import logging
import os
import signal

import pytest
import torch
from tiny_models import same
from torch import nn
from training_fakes import fit, noise_config

from lib.train.actors import CompressActor
from lib.train.average import WeightAverage
from lib.train.state import load_state, newest_state, state_name
from lib.train.trainer import Trainer
from lib.utils.errors import UserError
from lib.utils.signals import TrainingInterrupted


def small_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[2].requires_grad_(False)
    return model


def test_the_formula():
    model = small_model()
    average, expected = WeightAverage(model, 0.3), model[0].weight.detach().clone()
    with torch.no_grad():
        for done in range(1, 9):
            model[0].weight.add_(1)
            model[1].running_mean.add_(1)
            model[1].num_batches_tracked.add_(1)
            average.update(done)
            keep = min(0.3, (1 + done) / (10 + done))                       # the first steps forget faster
            expected = keep * expected + (1 - keep) * model[0].weight
    state = average.state()
    assert set(state) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
                          "1.num_batches_tracked"}                          # what is frozen is not averaged
    torch.testing.assert_close(state["0.weight"], expected)
    torch.testing.assert_close(state["1.running_mean"], (expected - (model[0].weight - 8)).mean(1).detach())
    assert state["1.num_batches_tracked"] == 8


def test_in_place_for_a_while():
    model = small_model()
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model[0].weight.add_(1)
    own, optimiser_sees = model[0].weight.detach().clone(), model[0].weight
    with pytest.raises(KeyError), average.in_place():
        torch.testing.assert_close(model[0].weight.detach(), own - 1)
        raise KeyError
    assert torch.equal(model[0].weight, own) and model[0].weight is optimiser_sees


def test_an_average_of_another_model_is_refused(tmp_path):
    average = WeightAverage(small_model(), 0.9)
    with pytest.raises(UserError, match=r"state\.pth does not fit .* first 0\.bias"):
        average.load({"0.weight": torch.ones(3, 2)}, tmp_path / "state.pth")


# ---------------------------------------------------------------- in a run

EMA = {"TRAIN__EMA": 0.5, "TRAIN__VAL_EPOCH_INTERVAL": 1, "TRAIN__SAVE_EPOCH_INTERVAL": 1}


def folder(path):
    return path / "checkpoints" / "train" / "compresstracker" / "compresstracker_vitb_256_4"


def test_the_result_is_the_average_and_the_training_is_as_without(monkeypatch, tmp_path):
    plain, plain_losses = fit(monkeypatch, tmp_path / "plain", noise_config(TRAIN__SAVE_EPOCH_INTERVAL=1))
    result, losses = fit(monkeypatch, tmp_path / "ema", noise_config(**EMA))
    assert losses == plain_losses
    state = load_state(folder(tmp_path / "ema") / state_name(2))
    final = load_state(folder(tmp_path / "plain") / state_name(2))
    assert same(state.net, final.net) and not final.average                 # the weights themselves are kept too
    for name, value in state.average.items():
        assert torch.equal(result[name.replace("blocks", "distill_blocks")], value), name
    assert not same(result, plain)


def test_the_average_is_validated(monkeypatch, tmp_path):
    seen = []

    def validate(self, position):
        outcome = checked(self, position)
        if position.epoch:
            seen.append(self._net.student.backbone.norm.weight.detach().clone())
        return outcome

    def predict(self, batch, epoch):
        during[epoch] = self.module.student.backbone.norm.weight.detach().clone()
        return predicted(self, batch, epoch)

    checked, predicted, during = Trainer._validate_due, CompressActor.predict, {}
    monkeypatch.setattr(Trainer, "_validate_due", validate)
    monkeypatch.setattr(CompressActor, "predict", predict)
    fit(monkeypatch, tmp_path, noise_config(**EMA))
    states = [load_state(folder(tmp_path) / state_name(epoch)) for epoch in (1, 2)]
    for state, raw, validated in zip(states, seen, during.values(), strict=True):
        assert torch.equal(raw, state.net["student.backbone.norm.weight"])
        assert torch.equal(validated, state.average["backbone.norm.weight"]) and not torch.equal(raw, validated)


@pytest.mark.parametrize("step", [2, 5])
def test_interrupted_and_resumed_is_bit_identical(monkeypatch, tmp_path, step):
    """With averaging, passes, and float16's scaler: within the first epoch and in the second."""
    cfg = noise_config(**EMA, TRAIN__ACCUMULATE=2, TRAIN__AMP="true", TRAIN__AMP_DTYPE="float16")
    whole, _ = fit(monkeypatch, tmp_path / "whole", cfg)
    steps = []

    def stop(self, *arguments):
        steps.append(arguments)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return done(self, *arguments)

    done = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", stop)
    with pytest.raises(TrainingInterrupted):
        fit(monkeypatch, tmp_path / "parts", cfg)
    assert newest_state(folder(tmp_path / "parts"))[1].step == (step - 1) % 3 + 1
    parts, _ = fit(monkeypatch, tmp_path / "parts", cfg)
    assert same(whole, parts) and len(steps) == 6


def test_an_average_may_begin_later(monkeypatch, tmp_path, caplog):
    fit(monkeypatch, tmp_path, noise_config(TRAIN__EPOCH=1))
    (folder(tmp_path) / "CompressTracker_ep0001.pth.tar").unlink()
    first = load_state(folder(tmp_path) / state_name(1)).net["student.backbone.norm.weight"]
    with caplog.at_level(logging.INFO):
        fit(monkeypatch, tmp_path, noise_config(**(EMA | {"TRAIN__EMA": 0.001})))
    log = next((tmp_path / "logs").iterdir()).read_text()
    assert "TRAIN.EMA 0.0 -> 0.001" in log
    state = load_state(folder(tmp_path) / state_name(2))
    assert not torch.equal(state.average["backbone.norm.weight"], first)
    torch.testing.assert_close(state.average["backbone.norm.weight"], state.net["student.backbone.norm.weight"],
                               rtol=0, atol=1e-4)
