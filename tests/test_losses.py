"""The loss terms against numbers worked out by hand, and what the actors do with them."""

import math

import pytest
import torch
from tiny_models import scramble, tiny, tiny_batch

from lib.families.build import build_compressor, build_tracker
from lib.losses.compression import mimic_loss
from lib.losses.heatmap import gaussian_heatmap
from lib.losses.tracking import box_loss, focal_loss, location_loss
from lib.models.base import Prediction, Segment
from lib.models.compress import draw_stages, replacement_probability
from lib.train.actors import CompressActor, TrackerActor, build_actor
from lib.utils.boxes import xywh_to_xyxy

TRACKING = {"Loss/total", "Loss/giou", "Loss/l1", "Loss/location", "IoU"}


@pytest.fixture(scope="module")
def cfg():
    return tiny("compresstracker", TRAIN__EPOCH=10, TRAIN__DROP_PATH_RATE=0.0)


def compress_actor(cfg) -> CompressActor:
    net = build_compressor(cfg, load=False)
    scramble(net.teacher, 1)
    scramble(net.student, 2)
    return build_actor(cfg, net)


class Wrapper(torch.nn.Module):
    """Stands for DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


# ---------------------------------------------------------------- terms

def test_box_loss_by_hand():
    # 0.4 x 0.4 around (0.3, 0.3): [0.1, 0.1, 0.5, 0.5]; target [0.3, 0.1, 0.7, 0.5]: half of each is shared.
    loss = box_loss(torch.tensor([[[0.3, 0.3, 0.4, 0.4]]]), torch.tensor([[0.3, 0.1, 0.7, 0.5]]))
    iou = 0.08 / 0.24
    hull = 0.6 * 0.4
    assert loss.iou.item() == pytest.approx(iou)
    assert loss.giou.item() == pytest.approx(1 - (iou - (hull - 0.24) / hull), abs=1e-6)
    assert loss.l1.item() == pytest.approx((0.2 + 0 + 0.2 + 0) / 4)
    apart = box_loss(torch.tensor([[[0.1, 0.1, 0.2, 0.2]]]), torch.tensor([[0.8, 0.8, 1.0, 1.0]]))
    assert apart.iou.item() == 0 and apart.giou.item() == pytest.approx(1 + (1 - 0.08), abs=1e-6)


def test_focal_loss_by_hand():
    target = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    prediction = torch.tensor([[[[0.8, 0.3], [0.1, 0.1]]]])
    wanted = -(math.log(0.8) * 0.2**2 + math.log(0.7) * 0.3**2 * 0.5**4 + 2 * math.log(0.9) * 0.1**2)
    assert focal_loss(prediction, target).item() == pytest.approx(wanted, rel=1e-5)
    none = focal_loss(prediction, torch.zeros_like(target))              # no peak: divided by 1
    wanted = -(math.log(0.2) * 0.8**2 + math.log(0.7) * 0.3**2 + 2 * math.log(0.9) * 0.1**2)
    assert none.item() == pytest.approx(wanted, rel=1e-5)


def test_heatmap_peaks_at_the_centre():
    heat = gaussian_heatmap(torch.tensor([[0.25, 0.5, 0.25, 0.25], [0.9, 0.9, 0.6, 0.6]]), 16)
    assert (heat[0] == 1).nonzero().tolist() == [[0, 10, 6]] and 0 < heat[0, 0, 10, 7] < 1
    assert not (heat[1] == 1).any()                                       # its centre lies outside the crop


def test_a_head_without_score_map_has_no_location_loss():
    assert location_loss(Prediction(torch.rand(2, 1, 4)), torch.rand(2, 4)).item() == 0


SEGMENTS = 2 * ((Segment("template", 1), Segment("search", 4)),)


def test_mimic_loss_by_hand():
    ours = [torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)]
    target = [torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)]
    target[0][:, 0] = 2.0                                                 # 1 of 1 template tokens: squared error 4
    target[1][:, 1:3] = 1.0                                               # 2 of 4 search tokens: squared error 1
    assert mimic_loss(ours, target, SEGMENTS, "tokens").item() == pytest.approx((4 / 5 + 2 / 5) / 2)
    assert mimic_loss(ours, target, SEGMENTS, "halves").item() == pytest.approx((4 / 2 + (2 / 4) / 2) / 2)
    for form in ("tokens", "halves"):
        assert mimic_loss(target, target, SEGMENTS, form).item() == 0
    with pytest.raises(ValueError):
        mimic_loss(ours, target[:1], SEGMENTS, "tokens")


def test_stages_that_are_compared(cfg):
    batch, terms, net = tiny_batch(cfg), {}, compress_actor(cfg).net.eval()
    for stages in ((), (0, 2), (0,), (2,)):
        actor = build_actor(cfg.with_overrides({"COMPRESS.FEAT_STAGES": stages}), net)
        terms[stages] = actor.loss_of(batch, [True] * 4, 1.0)[1]["Loss/dst_feat_all"].item()
    assert terms[0, 2] == pytest.approx((terms[0,] + terms[2,]) / 2, rel=1e-5)
    assert len({round(value, 6) for value in terms.values()}) == 4


# ---------------------------------------------------------------- guidance

def test_guidance_full_adds_the_score_map_at_the_teachers_box(cfg):
    student = Prediction(torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]), torch.full((1, 1, 4, 4), 0.3))
    teacher = Prediction(torch.tensor([[[0.4, 0.6, 0.3, 0.1]]]), torch.full((1, 1, 4, 4), 0.9))
    actors = {form: compress_actor(cfg.with_overrides({"COMPRESS.PRED_FORM": form, "TRAIN.FOCAL_WEIGHT": 3.0,
                                                       "TRAIN.GIOU_WEIGHT": 2.0, "TRAIN.L1_WEIGHT": 7.0}))
              for form in ("full", "boxes")}
    box = box_loss(student.boxes, torch.tensor([[0.25, 0.55, 0.55, 0.65]]))
    boxes = actors["boxes"].objective.guidance(student, teacher)
    assert boxes.item() == pytest.approx((2 * box.giou + 7 * box.l1).item(), rel=1e-5)
    focal = location_loss(student, torch.tensor([[0.25, 0.55, 0.3, 0.1]]))
    full = actors["full"].objective.guidance(student, teacher)
    assert focal > 0 and full.item() == pytest.approx((boxes + 3 * focal).item(), rel=1e-5)


def test_guidance_pulls_the_students_box_to_the_teachers(cfg):
    actor = compress_actor(cfg)
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]], requires_grad=True)
    teacher = Prediction(torch.tensor([[[0.6, 0.4, 0.2, 0.2]]]))
    actor.objective.guidance(Prediction(boxes), teacher).backward()
    assert boxes.grad[0, 0, 0] < 0 < boxes.grad[0, 0, 1]
    assert actor.objective.guidance(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------- the compression's actor

@pytest.mark.parametrize("logit, feat", [(True, True), (True, False), (False, True), (False, False)])
def test_stats_and_total(cfg, logit, feat):
    cfg = cfg.with_overrides({"TRAIN.SUP_LOGIT": logit, "TRAIN.SUP_FEAT": feat, "COMPRESS.TRACK_WEIGHT": 0.5,
                              "COMPRESS.PRED_WEIGHT": 2.0, "COMPRESS.FEAT_WEIGHT": 0.3})
    actor, batch = compress_actor(cfg), tiny_batch(cfg)
    actor.eval()
    pattern = [True, False, True, False]
    loss, stats = actor.loss_of(batch, pattern, 0.7)
    extra = {"Loss/dst_logit"} if logit else set()
    extra |= {"Loss/dst_feat_all"} if feat else set()
    assert stats.keys() == TRACKING | extra | {"p"}
    assert all(value.dim() == 0 and not value.requires_grad for value in stats.values())
    assert stats["p"].item() == pytest.approx(0.7)

    out = actor.module(batch["template"], batch["search"], pattern)
    total = 0.5 * actor.objective.loss(out.student, batch["search_box"])[0]
    if logit:
        total = total + 2 * actor.objective.guidance(out.student, out.teacher)
    if feat:
        total = total + 0.3 * sum((a - b).square().mean() for a, b in
                                  zip(out.student_features, out.teacher_features, strict=True)) / 4
    assert loss.item() == pytest.approx(total.item(), rel=1e-5) == stats["Loss/total"].item()


def test_the_step_draws_with_the_epochs_probability(cfg):
    actor, batch = compress_actor(cfg), tiny_batch(cfg)
    seen = []
    actor.loss_of = lambda batch, pattern, probability, prepared, epoch: seen.append((pattern, probability))
    for epoch in (1, 5, 10):
        actor(batch, epoch, torch.Generator().manual_seed(epoch))
        actor(batch, epoch, torch.Generator().manual_seed(epoch))
    assert [p for _, p in seen[::2]] == [replacement_probability(epoch, 10) for epoch in (1, 5, 10)]
    assert seen[::2] == seen[1::2]                                        # the generator alone decides
    assert seen[-1] == ([True] * 4, 1.0)


def test_without_replacement_the_student_runs_alone(cfg):
    actor = compress_actor(cfg.with_overrides({"TRAIN.SUP_REPLACE": False}))
    assert {actor.probability(epoch) for epoch in (1, 5, 10)} == {1.0}


def test_schedule_keys_reach_the_actor(cfg):
    cfg = cfg.with_overrides({"COMPRESS.SCHEDULE": "constant", "COMPRESS.P_INIT": 0.3})
    assert compress_actor(cfg).probability(10) == 0.3
    cfg = cfg.with_overrides({"COMPRESS.SCHEDULE": "progressive", "COMPRESS.ALPHA1": 0.5, "COMPRESS.ALPHA2": 0.4})
    assert [compress_actor(cfg).probability(epoch) for epoch in (5, 6, 7)] == pytest.approx([0.3, 0.3, 1.0])


def test_stage_by_stage_training_draws_nothing(cfg):
    actor, seen = compress_actor(cfg.with_overrides({"COMPRESS.SCHEDULE": "stagewise", "TRAIN.EPOCH": 8})), []
    actor.loss_of = lambda batch, pattern, probability, prepared, epoch: seen.append((pattern, probability))
    for epoch in (1, 4, 8):
        actor(tiny_batch(cfg), epoch, torch.Generator().manual_seed(epoch))
    assert seen == [([True, False, False, False], 0.25), ([True, True, False, False], 0.5), ([True] * 4, 1.0)]
    layer = list(actor.module.student.layers[0].parameters())
    assert len(actor.idle_parameters(1, [torch.Generator()])) == 3 * len(layer)


def test_parameter_groups_of_a_compression(cfg):
    cfg = cfg.with_overrides({"TRAIN.LR": 0.002, "TRAIN.BACKBONE_MULTIPLIER": 0.5,
                              "COMPRESS.HEAD_INIT": "teacher_frozen"})
    actor = compress_actor(cfg)
    (group,) = actor.parameter_groups()
    assert group["lr"] == pytest.approx(0.001)
    wanted = [p for name, p in actor.module.student.named_parameters()
              if not name.startswith("box_head.") and name not in ("backbone.pos_embed", "backbone.cls_token")]
    assert sorted(map(id, group["params"])) == sorted(map(id, wanted))


def test_validation_uses_the_student_alone(cfg):
    actor, batch = compress_actor(cfg), tiny_batch(cfg)
    with torch.no_grad():
        for parameter in actor.module.teacher.parameters():
            parameter.fill_(math.nan)
    actor.eval()
    stats = actor.validate(batch, 1)
    assert stats.keys() == TRACKING and all(value.isfinite() for value in stats.values())
    alone = actor.objective.loss(actor.module.student(batch["template"], batch["search"]), batch["search_box"])[1]
    assert stats == alone
    assert actor.model_for_saving() is actor.module.student


def test_the_wrapped_network_is_the_one_that_is_called(cfg):
    net = build_compressor(cfg, load=False)
    wrapper = Wrapper(net)
    actor = build_actor(cfg, wrapper)
    assert isinstance(actor, CompressActor) and actor.module is net and actor.model_for_saving() is net.student
    calls = []
    wrapper.register_forward_hook(lambda *_: calls.append(1))
    actor(tiny_batch(cfg), 1, torch.Generator().manual_seed(0))
    assert calls == [1]


# ---------------------------------------------------------------- the teacher's actor

def test_ostrack_actor():
    cfg = tiny(TRAIN__LR=0.01, TRAIN__BACKBONE_MULTIPLIER=0.1, MODEL__BACKBONE__DEPTH=2, TRAIN__DROP_PATH_RATE=0.0)
    model = scramble(build_tracker(cfg))
    actor, batch = build_actor(cfg, model), tiny_batch(cfg)
    assert isinstance(actor, TrackerActor) and actor.model_for_saving() is model
    head, backbone = actor.parameter_groups()
    assert (head["lr"], backbone["lr"]) == pytest.approx((0.01, 0.001))
    learning = [id(p) for group in (head, backbone) for p in group["params"]]
    assert sorted(learning) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert {id(p) for p in head["params"]} == {id(p) for p in model.box_head.parameters()}

    actor.eval()
    loss, stats = actor(batch, 1, torch.Generator())
    out = model(batch["template"], batch["search"])
    box = box_loss(out.boxes, xywh_to_xyxy(batch["search_box"]))
    wanted = 2 * box.giou + 5 * box.l1 + location_loss(out, batch["search_box"])
    assert loss.item() == pytest.approx(wanted.item()) and stats.keys() == TRACKING
    assert actor.validate(batch, 1) == stats


def test_ostrack_actor_lowers_the_keep_rate_over_the_epochs():
    cfg = tiny("ce", MODEL__BACKBONE__DEPTH=3, MODEL__BACKBONE__CE_LOC="[1]", MODEL__BACKBONE__CE_KEEP_RATIO="[0.5]",
               MODEL__BACKBONE__CE_TEMPLATE_RANGE="GT_BOX", TRAIN__CE_START_EPOCH=2, TRAIN__CE_WARM_EPOCH=4)
    model = build_tracker(cfg)
    actor, kept = build_actor(cfg, model), []
    model.layers[-1].register_forward_hook(lambda _, __, tokens: kept.append(tokens.x.shape[1] - 4))
    for epoch in range(1, 8):
        actor(tiny_batch(cfg), epoch, torch.Generator())
    rates = [1, 1, *(0.5 + 0.25 * (1 + math.cos(math.pi * step / 4)) for step in (1, 2, 3)), 0.5, 0.5]
    assert kept == [math.ceil(rate * 16) for rate in rates] == [16, 16, 15, 12, 10, 8, 8]


def test_the_crops_box_is_cut_at_the_crops_border():
    cfg = tiny(MODEL__BACKBONE__DEPTH=1)
    actor = build_actor(cfg, build_tracker(cfg))
    prediction = Prediction(torch.tensor([[[0.9, 0.5, 0.2, 0.2]]]), torch.full((1, 1, 4, 4), 0.5))
    _, stats = actor.objective.loss(prediction, torch.tensor([[0.8, 0.4, 0.6, 0.2]]))     # to 1.4: only 1.0 is seen
    assert stats["IoU"].item() == pytest.approx(1) and stats["Loss/l1"].item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------- parts of a batch

def test_the_parts_of_a_batch_divide_by_the_peaks_of_the_whole(cfg):
    """Two boxes lie outside the map, in one part; so do some of the teacher's."""
    actor = compress_actor(cfg)
    actor.eval()

    def targets(template, search, further, **options):
        """The teacher's, moved out of the crops that begin with a 9."""
        found = made(template, search, further, **options)
        boxes = found.prediction.boxes * 0.1 + 0.5 + search[:, 0, 0, 0].eq(9).view(-1, 1, 1)
        return found._replace(prediction=found.prediction._replace(boxes=boxes))

    made, actor.module.targets = actor.module.targets, targets
    batch = tiny_batch(cfg, size=6)
    batch["search_box"][:2, :2] = 1.2
    batch["search"][3, 0, 0, 0] = 9
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 3), slice(3, 6))]
    pattern = [True] * len(actor.module.stages)
    whole, stats = actor.loss_of(batch, pattern, 1.0)

    prepared = [actor.prepare(part, epoch=1) for part in parts]
    counts = torch.stack([known.counts for known in prepared])
    assert counts.tolist() == [[1, 3], [3, 2]]
    share = counts.sum(0) / 2
    terms = [actor.loss_of(part, pattern, 1.0, known._replace(counts=share))
             for part, known in zip(parts, prepared, strict=True)]
    assert sum(loss.item() for loss, _ in terms) / 2 == pytest.approx(whole.item(), rel=1e-5)
    for name in stats:
        assert sum(part[name].item() for _, part in terms) / 2 == pytest.approx(stats[name].item(), rel=1e-5), name
    alone = [actor.loss_of(part, pattern, 1.0)[0].item() for part in parts]
    assert sum(alone) / 2 != pytest.approx(whole.item(), rel=1e-3)


def test_what_is_prepared_changes_nothing_for_a_whole_batch(cfg):
    plain = tiny(TRAIN__DROP_PATH_RATE=0.0)
    for actor in (compress_actor(cfg), build_actor(plain, scramble(build_tracker(plain)))):
        batch = tiny_batch(cfg)
        known = actor.prepare(batch, epoch=1)
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        loss, _ = actor(batch, 1, generators[0])
        assert torch.equal(actor(batch, 1, generators[1], known)[0], loss)


def test_idle_parameters_are_those_of_stages_that_no_pass_ran():
    cfg = tiny("compresstracker", TRAIN__EPOCH=10, COMPRESS__P_INIT=0.3)
    actor = compress_actor(cfg)
    layers = actor.module.student.layers
    for seeds in ([1], [1, 2], [1, 2, 3, 4, 5]):
        patterns = [draw_stages(4, 0.3, torch.Generator().manual_seed(seed)) for seed in seeds]
        idle = {id(parameter) for parameter in
                actor.idle_parameters(1, [torch.Generator().manual_seed(seed) for seed in seeds])}
        for layer, ran in zip(layers, map(any, zip(*patterns, strict=True)), strict=True):
            assert all((id(parameter) in idle) != ran for parameter in layer.parameters())
    assert not build_actor(tiny(), build_tracker(tiny())).idle_parameters(1, [torch.Generator()])
