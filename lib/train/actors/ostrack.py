"""Actor of a plain tracker (the teacher)."""

import torch
from torch import Tensor

from ...models.base import Prediction
from ...models.layers.elimination import configured_mask, keep_rate_at
from ...models.ostrack import OSTrack
from .base import Actor, Prepared


class OSTrackActor(Actor):
    """Trains an `OSTrack` on the ground truth."""

    def __call__(self, batch: dict, epoch: int, draws: torch.Generator,
                 prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        peaks = None if prepared is None else prepared.counts[0]
        return self.tracking_loss(self.predict(batch, epoch), batch["search_box"], peaks)

    def predict(self, batch: dict, epoch: int) -> Prediction:
        backbone, train = self.cfg.MODEL.BACKBONE, self.cfg.TRAIN
        if not backbone.CE_LOC:
            return self.net(batch["template"], batch["search"])
        rate = keep_rate_at(epoch, train.CE_START_EPOCH, train.CE_WARM_EPOCH, backbone.CE_KEEP_RATIO[0])
        return self.net(batch["template"], batch["search"], configured_mask(self.cfg, batch["template_box"]), rate)

    def model_for_saving(self) -> OSTrack:
        return self.module

    def parameter_groups(self) -> list[dict]:
        """The head learns with TRAIN.LR, the backbone with TRAIN.LR * TRAIN.BACKBONE_MULTIPLIER (OSTrack)."""
        train = self.cfg.TRAIN
        head = [p for p in self.module.box_head.parameters() if p.requires_grad]
        backbone = [p for p in self.module.backbone.parameters() if p.requires_grad]
        return [{"params": head, "lr": train.LR}, {"params": backbone, "lr": train.LR * train.BACKBONE_MULTIPLIER}]
