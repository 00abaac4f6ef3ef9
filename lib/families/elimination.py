"""Candidate elimination in training and tracking: which template tokens vote, and how many candidates stay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..models.layers.elimination import keep_rate_at, template_mask
from .objective import Objective
from .rules import Rules


@dataclass(frozen=True)
class EliminationRules(Rules):
    """Rules of a one-stream tracker.

    Attributes:
        ce_range: which template tokens steer the elimination (ALL, CTR_POINT, CTR_REC, GT_BOX); None for a model
            without it.
        stride: pixels per token.
    """

    ce_range: str | None = None
    stride: int = 16

    def further(self, templates: Tensor, boxes_xywh: Tensor) -> dict[str, Tensor]:
        """`template_mask` (B, Lz) bool where not all tokens vote."""
        return self.of_boxes(boxes_xywh, max(templates.shape[-2:]))     # pixels have the channels last

    def of_boxes(self, boxes_xywh: Tensor, side: int) -> dict[str, Tensor]:
        """`further` of template crops whose side is `side` pixels."""
        mask = template_mask(self.ce_range, side // self.stride, boxes_xywh[:, 0], self.stride)
        return {} if mask is None else {"template_mask": mask}


class EliminationObjective(Objective):
    """OSTrack's objective with the mask, and the share of candidates that its schedule keeps in an epoch: those of the
    student, where there is one."""

    def further(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        cfg = self.cfg.student
        backbone = cfg.MODEL.BACKBONE
        if not backbone.CE_LOC:
            return {}
        boxes = batch["template_box"].view(len(batch["search"]), -1, 4)     # (B, T, 4)
        rate = keep_rate_at(epoch, cfg.TRAIN.CE_START_EPOCH, cfg.TRAIN.CE_WARM_EPOCH, backbone.CE_KEEP_RATIO[0])
        return {**cfg.family.rules_of(cfg).of_boxes(boxes, cfg.DATA.TEMPLATE.SIZE), "keep_rate": rate}
