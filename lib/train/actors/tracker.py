"""Actor of a plain tracker (the teacher)."""

import torch
from torch import Tensor, nn

from ...models.base import Prediction, StagedTracker
from ...models.layers.elimination import configured_mask, keep_rate_at
from .base import Actor, Prepared


class TrackerActor(Actor):
    """Trains a tracker on the ground truth."""

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

    def model_for_saving(self) -> StagedTracker:
        return self.module

    def parameter_groups(self) -> list[dict]:
        """The head learns with TRAIN.LR, the backbone with TRAIN.LR * TRAIN.BACKBONE_MULTIPLIER (OSTrack)."""
        train = self.cfg.TRAIN
        head = set(self.module.parts()["head"])
        groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                groups[parameter not in head].append(parameter)
        return [{"params": groups[0], "lr": train.LR},
                {"params": groups[1], "lr": train.LR * train.BACKBONE_MULTIPLIER}]
