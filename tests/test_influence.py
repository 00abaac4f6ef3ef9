"""Which teacher layer does most, and a student that starts from it."""

import logging

import pytest
import torch
from tiny_models import scramble, tiny
from torch import nn
from training_fakes import NoiseLoader, noise_config

import lib.train.run as run
from lib.config import load_config
from lib.families.build import build_teacher
from lib.models.base import Inputs
from lib.models.checkpoint import save_slim
from lib.models.compress.influence import layer_influence
from lib.models.layers.drop_path import DropPath
from lib.utils.errors import UserError


class Chain(nn.Module):
    """A tracker's chain of known layers over two tokens."""

    depth, all_tokens = 3, {"keep": True}

    def embed(self, inputs):
        assert inputs.further == {"keep": True, "given": 1} and not self.training
        return type("Tokens", (), {"x": inputs.search})

    def run_layer(self, index, tokens):
        turn = torch.tensor([[0.0, -1], [1, 0]])
        return type("Tokens", (), {"x": [tokens.x, 2 * tokens.x, tokens.x @ turn.T][index]})


def test_what_does_nothing_has_no_influence():
    chain = Chain().train()
    batches = [Inputs(None, torch.randn(number, 2, 2), {"given": 1}) for number in (3, 1)]
    assert layer_influence(chain, batches) == pytest.approx([0, 0, 1], abs=1e-6), "the same, scaled, at a right angle"
    assert chain.training


def test_each_sample_counts_alike():
    class Turned(Chain):
        def run_layer(self, index, tokens):
            return type("Tokens", (), {"x": -tokens.x if tokens.x.mean() > 0 else tokens.x})

    batches = [Inputs(None, torch.ones(1, 2, 2), {"given": 1}), Inputs(None, -torch.ones(3, 2, 2), {"given": 1})]
    assert layer_influence(Turned(), batches)[0] == pytest.approx(2 / 4)


# ---------------------------------------------------------------- in a training

OVERRIDES = {"COMPRESS__INIT": "influence", "TRAIN__EPOCH": 2, "COMPRESS__TRAINABLE": "[embed, norm, head]"}


def train(monkeypatch, folder, cfg, resume="auto"):
    """The student's layers after a training on noise; they are frozen, so they are the ones it started from."""
    with monkeypatch.context() as patch:
        patch.setattr(run, "build_loader", lambda cfg, split, *, seed, rank, world_size, batch_size, **rest:
                      NoiseLoader(cfg, rank, world_size, batch_size))
        path = run.run_training(cfg, folder / "out", resume=resume, log_to_console=False)
    return torch.load(path, weights_only=True)["net"]


@pytest.fixture
def teacher(tmp_path):
    """A teacher whose layer 2 leaves the tokens nearly as they are, and its file."""
    cfg = noise_config()
    model = scramble(build_teacher(cfg), 3)
    with torch.no_grad():
        for layer, scale in zip(model.layers, (1.0, 0.5, 1.0, 0.01), strict=True):
            layer.attn.proj.weight.mul_(scale)
            layer.mlp.fc2.weight.mul_(scale)
    save_slim(tmp_path / "teacher.pth.tar", model, tiny(MODEL__BACKBONE__DEPTH=4))
    return model, tmp_path / "teacher.pth.tar"


def test_a_student_starts_from_the_layers_that_do_most(monkeypatch, tmp_path, teacher, caplog):
    model, file = teacher
    assert any(isinstance(module, DropPath) for module in model.modules())
    with caplog.at_level(logging.INFO):
        weights = train(monkeypatch, tmp_path, noise_config(MODEL__PRETRAIN_FILE=file, **OVERRIDES))
    name = "attn.qkv.weight"
    for own, source in enumerate((0, 2)):
        assert torch.equal(weights[f"backbone.distill_blocks.{own}.{name}"], model.layers[source].attn.qkv.weight)
    assert "influence of the teacher's layers on 32 training pairs: 0: " in caplog.text

    written = noise_config(MODEL__PRETRAIN_FILE=file, **OVERRIDES | {"COMPRESS__INIT": "layers",
                                                                     "COMPRESS__INIT_LAYERS": "[0, 2]"})
    same = train(monkeypatch, tmp_path / "written", written)
    assert all(torch.equal(value, same[key]) for key, value in weights.items())


@pytest.mark.parametrize(("overrides", "message"), [
    (["COMPRESS.INIT=layers"], r"COMPRESS.INIT is layers and COMPRESS.INIT_LAYERS \[\]"),
    (["COMPRESS.INIT_LAYERS=[2,5,8,11]"], r"INIT is skip and COMPRESS.INIT_LAYERS \[2, 5, 8, 11\]"),
    (["COMPRESS.INIT=layers", "COMPRESS.INIT_LAYERS=[2,5,8]"], "expected 4 numbers from 0 to 11"),
    (["COMPRESS.INIT=layers", "COMPRESS.INIT_LAYERS=[2,5,8,12]"], "expected 4 numbers from 0 to 11"),
])
def test_impossible_layers(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config("compresstracker", "compresstracker_vitb_256_4", overrides)
