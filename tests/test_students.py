"""Students of another resolution than their teacher, and students that eliminate candidates."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import copies, require_packages, same, scramble, tiny, tiny_batch

from lib.config import load_config
from lib.deploy.counting import count
from lib.deploy.export import export_model
from lib.deploy.formats import ExportOptions
from lib.deploy.profile import profile_config
from lib.families.build import build_compressor, build_for_test
from lib.models.base import Inputs, Segment, Tokens
from lib.models.checkpoint import load_weights, save_slim
from lib.models.compress.bridges import regrid
from lib.models.compress.initialise import initialise_student
from lib.models.layers.resampling import cut, resample, resize
from lib.models.one_stream import OneStreamTracker
from lib.test.evaluation.manifest import describe
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.errors import UserError

SIZES = {"DATA.TEMPLATE.SIZE": 64, "DATA.SEARCH.SIZE": 96, "STUDENT.DATA.TEMPLATE.SIZE": 32,
         "STUDENT.DATA.SEARCH.SIZE": 64}
ELIMINATION = {"STUDENT.MODEL.BACKBONE.CE_LOC": "[0, 1]", "STUDENT.MODEL.BACKBONE.CE_KEEP_RATIO": "[0.5, 0.5]",
               "STUDENT.MODEL.BACKBONE.CE_TEMPLATE_RANGE": "GT_BOX", "TRAIN.CE_START_EPOCH": 0,
               "TRAIN.CE_WARM_EPOCH": 0}
NARROW = {"STUDENT.MODEL.BACKBONE.EMBED_DIM": 16, "COMPRESS.INIT": "none", "COMPRESS.HEAD_INIT": "random"}
KINDS = {"smaller": SIZES, "larger": {"STUDENT.DATA.SEARCH.SIZE": 96}, "eliminating": ELIMINATION,
         "all at once": SIZES | ELIMINATION | NARROW,
         "part of the view": {"DATA.SEARCH.SIZE": 64, "DATA.SEARCH.FACTOR": 4.0, "COMPRESS.TEACHER_FACTOR": 6.0}}
PATTERNS = list(itertools.product((True, False), repeat=3))


def config(kind, **more):
    """A student of 3 layers of a teacher of 6."""
    overrides = {"MODEL.BACKBONE.DEPTH": 6, "MODEL.BACKBONE.DISTILL_LAYER": 3, **KINDS[kind], **more}
    return tiny("compresstracker", **{name.replace(".", "__"): value for name, value in overrides.items()})


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def cfg(kind):
    return config(kind)


@pytest.fixture
def net(cfg):
    return compressor(cfg)


def compressor(cfg):
    torch.manual_seed(0)
    net = build_compressor(cfg, load=False)
    return scramble(net, 3).eval()


def inputs_of(cfg, batch, epoch=1):
    """What the chain takes: crops in the student's size, and what the family takes besides."""
    crops = [resize(batch[view], size) for view, size in (("template", cfg.student.DATA.TEMPLATE.SIZE),
                                                          ("search", cfg.student.DATA.SEARCH.SIZE))]
    return *crops, cfg.family.objective(cfg).further(batch, epoch)


# ---------------------------------------------------------------- resampling

def test_resampling_by_hand():
    tokens = torch.arange(8.0).reshape(1, 8, 1)                      # two pictures of 2 x 2
    assert resample(tokens, 2, 2) is tokens
    assert resample(tokens, 2, 1).flatten().tolist() == [1.5, 5.5]   # every token has its share
    assert resample(tokens, 2, 4)[0, :4, 0].tolist() == [0, 0.25, 0.75, 1]
    rows = torch.tensor([7.0, 14.0, 0.0, 0.0]).repeat(4).view(1, 16, 1)
    torch.testing.assert_close(resample(rows, 4, 2).flatten(), torch.tensor([9.0, 2.0, 9.0, 2.0]))  # 3/7, 3/7, 1/7, 0
    assert resample(torch.rand(1, 9, 2).bfloat16(), 3, 2).dtype == torch.bfloat16


def test_only_segments_with_another_grid_are_resampled():
    segments = Segment("prompt", 1), Segment("search", 9, 3), Segment("template", 4, 2)
    tokens = Tokens(torch.rand(2, 1 + 9 + 4, 3), segments)
    assert regrid(tokens, {"search": 3, "template": 2}) is tokens
    found = regrid(tokens, {"search": 2, "template": 2})
    assert found.segments == (("prompt", 1, None), ("search", 4, 2), ("template", 4, 2))
    assert torch.equal(found.x[:, :1], tokens.x[:, :1]) and torch.equal(found.x[:, 5:], tokens.x[:, 10:])
    assert torch.equal(found.part("search"), resample(tokens.part("search"), 3, 2))


def test_positions_are_resampled_as_ostrack_does():
    net = compressor(config("smaller"))
    initialise_student(net.student, net.teacher, sources=[1, 3, 5])
    for name, ours, theirs in (("pos_embed_z", 2, 4), ("pos_embed_x", 4, 6)):
        own, source = (getattr(model.backbone, name) for model in (net.student, net.teacher))
        grid = source.reshape(1, theirs, theirs, -1).permute(0, 3, 1, 2)
        expected = F.interpolate(grid, size=(ours, ours), mode="bicubic", align_corners=False)
        assert torch.equal(own, expected.flatten(2).transpose(1, 2))
    assert torch.equal(net.student.backbone.patch_embed.proj.weight, net.teacher.backbone.patch_embed.proj.weight)


# ---------------------------------------------------------------- a part of the teacher's view

def wide_teacher(folder, **more):
    """A tracker for crops of 96 pixels, six times the target, and its file."""
    cfg = tiny("ostrack", MODEL__BACKBONE__DEPTH=6, DATA__SEARCH__SIZE=96, DATA__SEARCH__FACTOR=6.0, **more)
    wide = scramble(build_for_test(cfg), 5).eval()
    save_slim(folder / "teacher.pth.tar", wide, cfg)
    return wide


def part_of(folder, **more):
    file = {"MODEL.PRETRAIN_FILE": str(folder / "teacher.pth.tar")}
    return build_compressor(config("part of the view", **file, **more))


def test_the_middle_by_hand():
    tokens = torch.arange(18.0).reshape(1, 18, 1)                    # two pictures of 3 x 3
    assert cut(tokens, 3, 1).flatten().tolist() == [4, 13]
    assert torch.equal(cut(tokens, 3, 3), tokens)
    for target in (2, 5):
        with pytest.raises(ValueError, match="no grid of side"):
            cut(tokens, 3, target)


def test_teacher_and_student_see_the_middle_of_the_teachers_view(tmp_path):
    """All tokens that are left are those of the wide crop, at the same places."""
    wide = wide_teacher(tmp_path)
    net = part_of(tmp_path)
    search, template = torch.rand(2, 3, 96, 96), torch.rand(1, 2, 3, 32, 32)
    middle = search[:, :, 16:80, 16:80]
    with torch.no_grad():
        whole = wide.embed(Inputs.of(template, search, None))
        found = [tracker.embed(Inputs.of(template, middle, None)) for tracker in (net.teacher, net.student)]
    for tokens in found:
        torch.testing.assert_close(tokens.part("search"), cut(whole.part("search"), 6, 4))
        torch.testing.assert_close(tokens.part("template"), whole.part("template"))
    same(net.teacher.layers.state_dict(), wide.layers.state_dict())


def test_sizes_are_shares_of_the_smaller_crop(tmp_path):
    """A target of its usual size, a sixth of the wide crop's side, is a quarter of the other's."""
    wide = wide_teacher(tmp_path)
    head = part_of(tmp_path).teacher.box_head
    logits = head.conv5_size.bias - wide.box_head.conv5_size.bias + math.log(1 / 5)
    torch.testing.assert_close(logits.sigmoid(), torch.full((2,), 1 / 4))
    others = [name for name in head.state_dict() if name != "conv5_size.bias"]
    assert all(torch.equal(head.state_dict()[name], wide.box_head.state_dict()[name]) for name in others)


def test_the_teacher_is_profiled_with_its_own_view():
    report = profile_config(config("part of the view"), device="cpu", threads=1, iterations=1, warmup=0)
    assert {size["model"]: size["search_size"] for size in report["sizes"]} == {"student": 64, "teacher": 96}


def test_corners_need_no_other_head(tmp_path):
    wide = wide_teacher(tmp_path, MODEL__HEAD__TYPE="CORNER")
    net = part_of(tmp_path, **{"MODEL.HEAD.TYPE": "CORNER"})
    same(net.teacher.box_head.state_dict(), wide.box_head.state_dict())


def test_a_family_that_cannot_see_a_part():
    with pytest.raises(UserError, match="family seqtrack .* SEQUENCE cannot be made to see 4 times the target alone"):
        load_config("compresstracker", "compresstracker_seqtrack_b256_4", ["COMPRESS.TEACHER_FACTOR=6"])


def test_a_head_that_cannot_follow():
    with pytest.raises(UserError, match="TEACHER_FACTOR is 6, but .* cannot be made to see 4 times the target"):
        config("part of the view", **{"MODEL.HEAD.TYPE": "MLP"})


@pytest.mark.parametrize(("overrides", "message"), [
    ({"COMPRESS.TEACHER_FACTOR": 5.0}, "the teacher's crops had 80 pixels, 0.5 tokens of 16 pixels more on each side"),
    ({"COMPRESS.TEACHER_FACTOR": 3.0}, "the teacher's crops had 48 pixels, -0.5 tokens"),
    ({"COMPRESS.TEACHER_FACTOR": -1}, "COMPRESS.TEACHER_FACTOR is -1")])
def test_impossible_parts_of_a_view(overrides, message):
    with pytest.raises(UserError, match=message):
        config("part of the view", **overrides)


# ---------------------------------------------------------------- passes

def test_a_pass_of_the_student_alone_is_what_is_tested(kind, cfg, net):
    """Bit by bit, whatever the bridges are; and it is what validation runs."""
    batch = tiny_batch(cfg)
    *crops, further = inputs_of(cfg, batch)
    with torch.no_grad():
        alone = net.student(*crops, further).tensors()
        trained = net(batch["template"], batch["search"], [True] * 3, further).student.tensors()
        checked = build_actor(cfg, net).predict(batch, 1).tensors()
        for bridge in net.bridges.parameters() if net.bridges else ():
            bridge.fill_(float("nan"))
        without = net(batch["template"], batch["search"], [True] * 3, further, mimic=False).student.tensors()
    for name, one in alone.items():
        assert all(torch.equal(one, other[name]) for other in (trained, checked, without))
    assert alone["score_map"].shape[-1] == cfg.student.DATA.SEARCH.SIZE // 16
    assert (net.bridges is None) == (kind != "all at once")


@pytest.mark.parametrize("draws", PATTERNS)
def test_mixed_passes(cfg, net, draws):
    """Against the chain written out: at a border the tokens that the student's layers dropped come back, and all are
    mapped on the student's grids and resampled."""
    batch = tiny_batch(cfg)
    *crops, further = inputs_of(cfg, batch)
    found = net(batch["template"], batch["search"], draws, further)
    tokens = whole = net.student.embed(Inputs.of(*crops, further))
    target, students = net.teacher.embed(Inputs.of(batch["template"], batch["search"], further)), True

    def mapped(x, border, to):
        return x if net.bridges is None else getattr(net.bridges, f"to_{to}")[border](x)

    for index, draw in enumerate(draws):
        if draw and not students:
            small = regrid(tokens, net.student.token_grids)
            tokens = whole = Tokens(mapped(small.x, index, "student"), small.segments, small.extra)
        elif students and not draw:
            wide = Tokens(mapped(whole.x, index, "teacher"), whole.segments, whole.extra)
            tokens = regrid(wide, net.teacher.token_grids)
        students = draw
        for layer in [net.student.layers[index]] if draw else net.teacher.layers[2 * index:2 * index + 2]:
            tokens = layer(tokens)
        for layer in net.teacher.layers[2 * index:2 * index + 2]:
            target = layer(target)
        small, wanted = regrid(target, net.student.token_grids).x, tokens
        kept = tokens.extra.kept if draw else None
        if kept is not None:
            first = tokens.place("search").start
            filled = whole.x.clone()
            for row, places in enumerate(kept):
                filled[row, first + places] = tokens.x[row, first:]
                filled[row, :first] = tokens.x[row, :first]
            whole = Tokens(filled, whole.segments, whole.extra)
            small = torch.stack([torch.cat([row[:first], row[first + places]])
                                 for row, places in zip(small, kept, strict=True)])
        elif draw:
            whole = tokens
        ours = mapped(tokens.x, index + 1, "teacher") if draw else regrid(wanted, net.student.token_grids).x
        torch.testing.assert_close(found.student_features[index], ours)
        assert torch.equal(found.teacher_features[index], small)
        assert sum(segment.length for segment in found.segments[index]) == ours.shape[1]
    if not students:
        small = regrid(tokens, net.student.token_grids)
        tokens = Tokens(mapped(small.x, 3, "student"), small.segments, small.extra)
    torch.testing.assert_close(found.student, net.student.predict(tokens))
    assert found.teacher.score_map.shape[-1] == cfg.DATA.SEARCH.SIZE // 16


def test_gradients_reach_all_that_learns(cfg, net):
    """Every layer in its stage, positions of another grid, and the bridges."""
    actor, batch = build_actor(cfg, net), tiny_batch(cfg)
    for draws in PATTERNS:
        actor.loss_of(batch, list(draws), 0.5)[0].backward()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    learning = [parameter for group in actor.parameter_groups() for parameter in group["params"]]
    still = [names[id(p)] for p in learning if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert not still and len(learning) > 50
    assert all(parameter.grad is None for parameter in net.teacher.parameters())


def test_a_dropped_token_comes_back_for_the_teacher():
    """With the value with which it entered the layer that dropped it, and with its gradient."""
    cfg = config("eliminating")
    net, batch = compressor(cfg), tiny_batch(cfg)
    *_, further = inputs_of(cfg, batch)
    entered, dropped = [], []
    net.teacher.layers[2].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    net.student.layers[0].register_forward_hook(lambda _, inputs, out: dropped.append((inputs[0], out)))
    net(batch["template"], batch["search"], [True, False, False], further, mimic=False, guide=False)
    (before, after), tokens = dropped[0], entered[-1]
    for row, places in enumerate(after.extra.removed[0]):
        assert torch.equal(tokens.part("search")[row, places], before.part("search")[row, places])
    assert len(places) == 8 and tokens.extra.kept is None and not tokens.extra.removed
    gradient, = torch.autograd.grad(tokens.part("search")[-1, places].sum(), before.x)
    assert torch.equal(gradient[-1].any(dim=1).nonzero().flatten(), 4 + places)


def test_nothing_is_shared_between_different_grids():
    same_size = config("eliminating", **{"COMPRESS.TRAINABLE": "[layers, norm, head]"})
    for cfg, shares in ((same_size, True), (same_size.with_overrides({"STUDENT.DATA.SEARCH.SIZE": 96}), False)):
        net = compressor(cfg)
        initialise_student(net.student, net.teacher, sources=[1, 3, 5])
        assert net.share_prefix() is shares
        batch = tiny_batch(cfg)
        *_, further = inputs_of(cfg, batch)
        for draws in PATTERNS:      # the same from the beginning
            found = net(batch["template"], batch["search"], draws, further)
            net.shares_prefix = False
            again = net(batch["template"], batch["search"], draws, further)
            net.shares_prefix = shares
            assert torch.equal(found.student.boxes, again.student.boxes) and found.segments == again.segments
            for one, other in zip(found.student_features, again.student_features, strict=True):
                assert torch.equal(one, other)


# ---------------------------------------------------------------- training

def test_peaks_are_counted_on_the_students_grid():
    cfg = config("smaller")
    net = compressor(cfg)
    actor, batch = build_actor(cfg, net), tiny_batch(cfg)
    batch["search_box"][0] = torch.tensor([0.85, 0.4, 0.1, 0.1])     # cell 5 of 6, but 4 of 4
    assert actor.objective.counts(batch["search_box"]).item() == 1
    assert actor.prepare(batch, 1).counts[0] == 1
    whole, _ = actor.loss_of(batch, [True, False, True], 0.5, actor.prepare(batch, 1))
    again, _ = actor.loss_of(batch, [True, False, True], 0.5)
    assert whole.item() == pytest.approx(again.item(), rel=1e-6)


def test_parts_of_a_batch_make_the_whole(cfg, net):
    """As with TRAIN.ACCUMULATE or several processes."""
    actor, batch = build_actor(cfg, net), tiny_batch(cfg, size=4)
    whole, _ = actor.loss_of(batch, [True, False, True], 0.5)
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 4))]
    prepared = [actor.prepare(part, 1) for part in parts]
    counts = sum(part.counts for part in prepared).clamp(min=1) / 2
    losses = [actor.loss_of(part, [True, False, True], 0.5, ready._replace(counts=counts))[0].item()
              for part, ready in zip(parts, prepared, strict=True)]
    assert np.mean(losses) == pytest.approx(whole.item(), rel=1e-4)


def test_the_keep_rate_of_the_student_falls_over_the_epochs():
    cfg = config("eliminating", **{"TRAIN.CE_START_EPOCH": 2, "TRAIN.CE_WARM_EPOCH": 4})
    net, kept, teachers = compressor(cfg), [], []
    net.student.layers[0].register_forward_hook(lambda _, __, tokens: kept.append(tokens.x.shape[1] - 4))
    net.teacher.layers[-1].register_forward_hook(lambda _, __, tokens: teachers.append(tokens.x.shape[1] - 4))
    actor = build_actor(cfg, net)
    for epoch in range(1, 8):
        actor.loss_of(tiny_batch(cfg), [True] * 3, 1.0, epoch=epoch)
    rates = [1, 1, *(0.5 + 0.25 * (1 + math.cos(math.pi * step / 4)) for step in (1, 2, 3)), 0.5, 0.5]
    assert kept == [math.ceil(rate * 16) for rate in rates] and set(teachers) == {16}


def test_the_mask_has_the_students_grid():
    cfg = config("all at once")
    mask = cfg.family.objective(cfg).further(tiny_batch(cfg), 1)["template_mask"]
    assert mask.shape == (2, 2 * 2) and config("smaller").family.objective(config("smaller")).further({}, 1) == {}


# ---------------------------------------------------------------- use

def test_saved_tracked_and_exported(kind, cfg, net, tmp_path):
    require_packages("torchscript")
    path, student = tmp_path / "student.pth.tar", net.student
    save_slim(path, student, cfg)
    model = build_for_test(cfg)
    load_weights(model, path)
    assert same(copies(model), copies(student))
    tracker = Tracker.from_checkpoint(path, cfg, device="cpu")
    manifest = export_model(student, cfg, path, tmp_path / "out", ExportOptions("torchscript", check_crops=2))
    sides = cfg.student.DATA.TEMPLATE.SIZE, cfg.student.DATA.SEARCH.SIZE
    assert (manifest.template_size, manifest.search_size) == sides == (tracker.template_size, tracker.search_size)
    assert manifest.rules["ce_range"] == ("GT_BOX" if "CE" in str(KINDS[kind]) else None)
    assert (manifest.script, manifest.config) == (cfg.script, cfg.name)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    boxes = []
    for each in (tracker, Tracker.from_export(tmp_path / "out", device="cpu")):
        each.initialize(image, [60, 50, 20, 20])
        boxes.append([each.track(image).box_xywh for _ in range(2)])
    np.testing.assert_allclose(*boxes, atol=1e-2)


def test_the_profile_of_student_and_teacher():
    report = profile_config(config("all at once"), device="cpu", threads=1, iterations=1, warmup=0)
    student, teacher = report["sizes"]
    assert [(size["layers"], size["template_size"], size["search_size"]) for size in (student, teacher)] == [
        (3, 32, 64), (6, 64, 96)]
    all_tokens = count(build_for_test(config("smaller", **NARROW)), (1, 3, 32, 32), (1, 3, 64, 64))
    assert student["macs"] < all_tokens.macs and student["thop_macs"] == all_tokens.thop_macs


def test_results_know_the_students_settings(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"")
    settings = describe(config("eliminating"), path)["settings"]
    assert settings["STUDENT.MODEL.BACKBONE.CE_KEEP_RATIO"] == [0.5, 0.5]


def test_the_configuration_of_the_student():
    cfg = config("all at once")
    data, test = cfg.student.DATA, cfg.student.TEST
    assert (data.TEMPLATE.SIZE, data.SEARCH.SIZE, test.TEMPLATE_SIZE, test.SEARCH_SIZE) == (32, 64, 32, 64)
    assert cfg.TEST.SEARCH_SIZE == cfg.DATA.SEARCH.SIZE == 96 and not cfg.MODEL.BACKBONE.CE_LOC
    assert cfg.student.MODEL.BACKBONE.CE_LOC == (0, 1)


def test_a_student_of_256_pixels():
    cfg = load_config("compresstracker", "compresstracker_vitb_384to256_4")
    assert (cfg.DATA.SEARCH.SIZE, cfg.DATA.TEMPLATE.SIZE) == (384, 192)
    assert (cfg.student.DATA.SEARCH.SIZE, cfg.student.TEST.TEMPLATE_SIZE) == (256, 128)
    assert cfg.student.TEST.SEARCH_FACTOR == cfg.TEST.SEARCH_FACTOR == cfg.DATA.SEARCH.FACTOR == 5


@pytest.mark.parametrize(("overrides", "message"), [
    ({"STUDENT.DATA.SEARCH.SIZE": 70}, "of the student: DATA.SEARCH.SIZE is 70; expected a multiple of"),
    ({"STUDENT.DATA.SEARCH.SIZE": 8}, "DATA.SEARCH.SIZE is 8; expected a whole number at least 16"),
    ({"STUDENT.MODEL.BACKBONE.CE_LOC": "[1, 3]"}, r"of the student: MODEL.BACKBONE.CE_LOC is \[1, 3\]; .* from 0 to 2"),
    ({"STUDENT.MODEL.BACKBONE.CE_LOC": "[1]"}, "CE_LOC has 1 entries and MODEL.BACKBONE.CE_KEEP_RATIO 2"),
    ({"STUDENT.MODEL.BACKBONE.CE_TEMPLATE_RANGE": "NONE"}, "CE_TEMPLATE_RANGE is the text 'NONE'; expected one of ALL"),
    ({"MODEL.BACKBONE.CE_LOC": "[1]", "MODEL.BACKBONE.CE_KEEP_RATIO": "[0.7]"}, "a teacher keeps all tokens"),
    ({"STUDENT.MODEL.BACKBONE.TYPE": "vit_tiny_patch16_224", "COMPRESS.INIT": "none", "COMPRESS.HEAD_INIT": "random"},
     "eliminates no candidates; choose a TYPE that ends in _ce")])
def test_impossible_students(overrides, message):
    with pytest.raises(UserError, match=message):
        config("eliminating", **overrides)


def test_a_family_that_cannot_be_resampled(monkeypatch):
    monkeypatch.setattr(OneStreamTracker, "token_grids", {})
    with pytest.raises(UserError, match="models of family ostrack have no `token_grids`"):
        build_compressor(config("larger"), load=False)
