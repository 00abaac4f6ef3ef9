"""What the training profiler counts and measures as the floor of a step."""

import pytest
import torch
from tiny_models import tiny
from torch import nn

from lib.deploy.counting import exact_macs
from lib.families.build import build_student, build_teacher, build_tracker
from lib.train.profiling.floor import StepWork, optimizer_bytes, step_work


def forward_operations(model, cfg) -> int:
    """Two per multiply-accumulate of one pair's forward pass."""
    crops = [torch.empty(1, 3, side, side, device="meta") for side in (cfg.DATA.TEMPLATE.SIZE, cfg.DATA.SEARCH.SIZE)]
    return 2 * exact_macs(model.to("meta").eval(), *crops)


def patch_operations(cfg) -> int:
    """Of the patch embedding, which needs no gradient for its input, the image."""
    stride = cfg.MODEL.BACKBONE.STRIDE
    tokens = sum((side // stride) ** 2 for side in (cfg.DATA.TEMPLATE.SIZE, cfg.DATA.SEARCH.SIZE))
    return 2 * tokens * 3 * stride**2 * cfg.MODEL.BACKBONE.EMBED_DIM


def test_plain_tracker_is_three_forward_passes_without_the_images_gradient():
    cfg = tiny("ostrack")
    expected = 3 * forward_operations(build_tracker(cfg), cfg) - patch_operations(cfg)
    work = step_work(cfg)
    assert work.student == work.teacher == pytest.approx(expected)


def test_compression_is_the_students_three_passes_and_the_teachers_one():
    cfg = tiny("compresstracker", **{"TRAIN__SUP_LOGIT": True, "TRAIN__SUP_FEAT": True})
    student, teacher = (forward_operations(build(cfg), cfg) for build in (build_student, build_teacher))
    work = step_work(cfg)
    assert work.student == pytest.approx(3 * student - patch_operations(cfg) + teacher)
    assert work.teacher > work.student
    assert step_work(cfg.with_overrides({"TRAIN.SUP_LOGIT": False, "TRAIN.SUP_FEAT": False})).student \
        == pytest.approx(work.student - teacher)


def test_mean_over_draws():
    assert StepWork(10.0, 30.0).at(0.75) == 15.0


def test_bytes_of_an_update():
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert optimizer_bytes(net) == 7 * 4 * 6
