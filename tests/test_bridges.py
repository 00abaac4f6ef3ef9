"""Students of another width than their teacher: bridges in training, none at test time."""

import pickle

import pytest
import torch
from tiny_models import copies, same, scramble, tiny, tiny_batch

from lib.families.build import build_compressor, build_for_test
from lib.models.base import Inputs
from lib.models.checkpoint import load_weights, save_slim
from lib.train.actors import build_actor
from lib.train.state import net_state
from lib.utils.errors import UserError

NARROW = {"STUDENT.MODEL.BACKBONE.EMBED_DIM": 16, "COMPRESS.INIT": "none", "COMPRESS.HEAD_INIT": "random",
          "MODEL.BACKBONE.DISTILL_LAYER": 2, "MODEL.BACKBONE.DEPTH": 4}


def narrow(**overrides):
    return tiny("compresstracker", **{name.replace(".", "__"): value for name, value in NARROW.items()} | overrides)


@pytest.fixture
def cfg():
    return narrow()


@pytest.fixture
def net(cfg):
    torch.manual_seed(0)
    net = build_compressor(cfg, load=False)
    scramble(net, 3)
    return net


def test_the_student_section_is_laid_over_the_model(cfg):
    student = cfg.student
    assert (student.shape.embed_dim, student.shape.num_heads, cfg.shape.embed_dim) == (16, 2, 32)
    assert student.student is student and cfg.student is student and cfg.MODEL.BACKBONE.EMBED_DIM == 32
    assert cfg.compresses and not student.compresses and student.title == cfg.title == "CompressTracker"
    same = tiny("compresstracker")
    assert same.student.to_dict() == same.with_overrides({"MODEL.BACKBONE.DEPTH": 4}).to_dict()
    assert pickle.loads(pickle.dumps(student)).of_student and student.with_overrides({"TRAIN.EPOCH": 3}).of_student
    tracker = tiny()
    assert tracker.student is tracker
    small = tiny("compresstracker", STUDENT__MODEL__BACKBONE__TYPE="vit_tiny_patch16_224", COMPRESS__INIT="none",
                 COMPRESS__HEAD_INIT="random").student
    assert (small.shape.embed_dim, small.shape.num_heads, small.shape.depth) == (192, 3, 4)


def test_a_pass_of_the_student_alone_crosses_no_bridge(cfg, net):
    """What is tested and exported is what the last epochs train, bit by bit."""
    batch = tiny_batch(cfg)
    net.eval()
    with torch.no_grad():
        alone = net.student(batch["template"], batch["search"])
        trained = net(batch["template"], batch["search"], [True, True]).student
        for bridge in net.bridges.parameters():
            bridge.fill_(float("nan"))
        without = net(batch["template"], batch["search"], [True, True], mimic=False).student
    for one, two, three in zip(*(found.tensors().values() for found in (alone, trained, without)), strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


@pytest.mark.parametrize("draws", [[False, False], [True, False], [False, True]])
def test_mixed_passes_cross_where_the_two_meet(cfg, net, draws):
    batch = tiny_batch(cfg)
    net.eval()
    found = net(batch["template"], batch["search"], draws)
    assert all(ours.shape == target.shape for ours, target in zip(found.student_features, found.teacher_features,
                                                                  strict=True))
    tokens, crossing = net.student.embed(Inputs.of(batch["template"], batch["search"])).x, net.bridges
    assert tokens.shape[-1] == 16
    sides = [True, *draws, True]
    for border, (before, behind) in enumerate(zip(sides, sides[1:], strict=False)):
        if before != behind:
            layer = (crossing.to_student if behind else crossing.to_teacher)[border]
            with torch.no_grad():
                changed = layer.weight.clone()
                layer.weight.mul_(2)
                other = net(batch["template"], batch["search"], draws).student.boxes
                layer.weight.copy_(changed)
            assert not torch.equal(other, found.student.boxes)


def test_bridges_learn_and_are_in_the_states_but_not_in_the_slim_file(cfg, net, tmp_path):
    actor = build_actor(cfg, net)
    learning = {id(p) for group in actor.parameter_groups() for p in group["params"]}
    assert all(id(p) in learning for p in net.bridges.parameters())
    loss, _ = actor.loss_of(tiny_batch(cfg), [True, False], 0.5)
    loss.backward()
    assert net.bridges.to_teacher[1].weight.grad.abs().sum() > 0
    assert any(name.startswith("bridges.") for name in net_state(net))
    save_slim(tmp_path / "student.pth.tar", actor.model_for_saving(), cfg)
    other = build_for_test(cfg)
    load_weights(other, tmp_path / "student.pth.tar")
    assert same(copies(other), copies(net.student)) and other.embed_dim == 16


def test_an_equal_width_needs_no_bridge():
    assert build_compressor(narrow(STUDENT__MODEL__BACKBONE__EMBED_DIM=32), load=False).bridges is None


@pytest.mark.parametrize(("overrides", "message"), [
    ({"STUDENT__MODEL__BACKBONE__NUM_HEADS": 3}, "width 16 is not a multiple of its 3 attention heads"),
    ({"STUDENT__MODEL__BACKBONE__TYPE": "vit_huge"}, "MODEL.BACKBONE.TYPE is the text 'vit_huge'; expected one of")])
def test_impossible_students(overrides, message):
    with pytest.raises(UserError, match=message):
        narrow(**overrides)
