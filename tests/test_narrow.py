"""Students of another width, with fewer heads or another MLP, that start from their teacher's weights."""

import pytest
import torch
from tiny_models import scramble, tiny, tiny_batch
from torch import nn

from lib.families.build import build_compressor, build_for_train, build_tracker
from lib.models.base import Inputs
from lib.models.compress.initialise import _copy_fitting, initialise_student
from lib.models.compress.narrow import _kept_units
from lib.utils.errors import UserError

TEACHER = {"MODEL__BACKBONE__NUM_HEADS": 4, "MODEL__BACKBONE__DEPTH": 3, "MODEL__BACKBONE__DISTILL_LAYER": 3}
HALF = {"STUDENT__MODEL__BACKBONE__EMBED_DIM": 16, "STUDENT__MODEL__BACKBONE__NUM_HEADS": 2}


def pair(**student):
    """A compressor of three layers each with random weights, and frames for it."""
    cfg = tiny("compresstracker", **TEACHER, **student)
    net = build_compressor(cfg, load=False)
    scramble(net, 3)
    batch = tiny_batch(cfg)
    return net.eval(), [Inputs.of(batch["template"], batch["search"])]


@torch.no_grad()
def maps(tracker, frames):
    return torch.cat([value.flatten() for value in tracker(frames[0].templates, frames[0].search).tensors().values()])


@torch.no_grad()
def waste(teacher):
    """Let the teacher's tokens fill 15 of their 32 axes, and only half of its heads and hidden units add to them."""
    axes = torch.linalg.qr(torch.cat([torch.ones(32, 1), torch.randn(32, 15)], 1))[0][:, 1:]
    onto = axes @ axes.T
    backbone = teacher.backbone
    embed = backbone.patch_embed.proj
    embed.weight.copy_(torch.tensordot(onto, embed.weight, dims=1))
    embed.bias.copy_(onto @ embed.bias)
    for positions in (backbone.pos_embed_z, backbone.pos_embed_x):
        positions.copy_(positions @ onto)
    for layer in teacher.layers:
        layer.attn.proj.weight[:, 8:24] = 0         # heads 1 and 2
        layer.mlp.fc2.weight[:, ::2] = 0
        for write in (layer.attn.proj, layer.mlp.fc2):
            write.weight.copy_(onto @ write.weight)
            write.bias.copy_(onto @ write.bias)
    backbone.norm.bias.zero_()          # at the border of the map the head's convolutions see zeros instead of it


def test_nothing_is_lost_where_the_teacher_needs_no_more():
    net, frames = pair(**HALF)
    waste(net.teacher)
    assert not torch.allclose(maps(net.student, frames), maps(net.teacher, frames), atol=0.05)
    axes = initialise_student(net.student, net.teacher, sources=range(3), frames=lambda: frames)
    assert axes.shape == (32, 16) and net.student.layers[0].attn.num_heads == 2
    torch.testing.assert_close(maps(net.student, frames), maps(net.teacher, frames), rtol=0, atol=1e-3)

    net.bridges.start(axes)
    alone = net(frames[0].templates, frames[0].search, [True, True, True]).student.boxes
    mixed = net(frames[0].templates, frames[0].search, [True, False, True])
    torch.testing.assert_close(mixed.student.boxes, alone, rtol=0, atol=1e-3)
    for ours, target in zip(mixed.student_features, mixed.teacher_features, strict=True):
        torch.testing.assert_close(ours, target - target.mean(-1, keepdim=True), rtol=0, atol=1e-3)


def test_wider_students_lose_less():
    lost = []
    for width in (8, 16, 24):
        net, frames = pair(STUDENT__MODEL__BACKBONE__EMBED_DIM=width, STUDENT__MODEL__BACKBONE__NUM_HEADS=width // 8)
        axes = initialise_student(net.student, net.teacher, sources=range(3), frames=frames.copy).float()
        with torch.no_grad():
            tokens, ours = net.teacher.embed(frames[0]).x, net.student.embed(frames[0]).x
        lost.append((tokens - tokens.mean(-1, keepdim=True) - ours @ axes.T).square().sum().item())
        assert ours.mean(-1).abs().max() < 1e-5
    assert lost == sorted(lost, reverse=True) and lost[2] < lost[0] / 4


def test_another_mlp_keeps_what_adds_most_and_guesses_the_rest():
    """Half of the hidden units repeat the others and add less: with those left out nothing changes."""
    net, frames = pair(STUDENT__MODEL__BACKBONE__MLP_RATIO=2.0)
    with torch.no_grad():
        for layer in net.teacher.layers:
            layer.mlp.fc1.weight[64:], layer.mlp.fc1.bias[64:] = layer.mlp.fc1.weight[:64], layer.mlp.fc1.bias[:64]
            layer.mlp.fc2.weight[:, 64:] = layer.mlp.fc2.weight[:, :64].roll(1, 0) / 10
    assert initialise_student(net.student, net.teacher, sources=range(3), frames=lambda: frames) is None
    assert net.bridges is None and net.student.layers[0].mlp.fc1.weight.shape == (64, 32)
    assert torch.equal(net.student.layers[1].attn.qkv.weight, net.teacher.layers[1].attn.qkv.weight)
    assert torch.equal(net.student.layers[1].mlp.fc1.weight, net.teacher.layers[1].mlp.fc1.weight[:64])
    torch.testing.assert_close(maps(net.student, frames), maps(net.teacher, frames), rtol=0, atol=1e-4)


def test_layers_that_do_not_say_their_branches_copy_what_fits(caplog):
    own, theirs = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, width)) for width in (6, 8))
    before = own[1].weight.clone()
    with caplog.at_level("INFO"):
        _copy_fitting(2, own, theirs)
    assert torch.equal(own[0].weight, theirs[0].weight) and torch.equal(own[1].weight, before)
    assert "student layer 2 copies 2 of 4 tensors" in caplog.text


def test_the_units_that_add_most_stay_in_their_order():
    moment = torch.diag(torch.tensor([1.0, 4, 9, 0, 1, 1], dtype=torch.float64))
    write = torch.tensor([[1.0, 1, 1, 1, 5, 0], [0, 1, 0, 9, 0, 1]])          # they add 1, 8, 9, 0, 25 and 1
    assert _kept_units(moment, write, 3, 1).tolist() == [1, 2, 4]
    assert _kept_units(moment, write, 4, 2).tolist() == [0, 1, 4, 5]
    assert _kept_units(moment, write, 8, 2).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_training_starts_from_the_file_and_its_frames(tmp_path):
    torch.manual_seed(0)
    cfg = tiny("compresstracker", **TEACHER | {"MODEL__BACKBONE__DISTILL_LAYER": 2}, **HALF,
               MODEL__PRETRAIN_FILE=str(tmp_path / "teacher.pth.tar"))
    teacher = scramble(build_tracker(tiny(**{key: TEACHER[key] for key in list(TEACHER)[:2]})))
    torch.save({"net": teacher.state_dict()}, tmp_path / "teacher.pth.tar")
    batch = tiny_batch(cfg)
    frames = [Inputs.of(batch["template"], batch["search"])]
    with pytest.raises(ValueError, match="needs frames"):
        build_for_train(cfg)
    net = build_for_train(cfg, lambda: iter(frames))
    other = build_for_train(cfg, lambda: iter(frames))
    assert all(torch.equal(one, two) for one, two in zip(net.state_dict().values(), other.state_dict().values(),
                                                         strict=True))
    into, back = net.bridges.to_student[1].weight, net.bridges.to_teacher[0].weight
    assert torch.equal(into, back.T) and into.abs().sum() > 0


@pytest.mark.parametrize(("overrides", "message"), [
    ({"STUDENT__MODEL__BACKBONE__NUM_HEADS": 4}, r"INIT is skip, but .* width 16 cannot start from layers of width 32 "
     "with 4 heads; expected fewer heads of the teacher's width 8"),
    ({"STUDENT__MODEL__BACKBONE__EMBED_DIM": 48, "STUDENT__MODEL__BACKBONE__NUM_HEADS": 6}, "expected fewer heads"),
    ({"MODEL__HEAD__TYPE": "MLP"}, r"INIT is skip, but .* here \(of family ostrack\); expected none"),
    ({"COMPRESS__INIT": "none"}, "HEAD_INIT is teacher, but with COMPRESS.INIT none the student's tokens of width 16")])
def test_students_that_cannot_start_so(overrides, message):
    with pytest.raises(UserError, match=message):
        tiny("compresstracker", **TEACHER, **HALF | overrides)
