"""Actor of a plain tracker (the teacher)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...models.base import Prediction, StagedTracker
from .base import Actor, Prepared


class TrackerActor(Actor):
    """Trains a tracker on the ground truth."""

    def __call__(self, batch: dict, epoch: int, draws: torch.Generator,
                 prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.frames_loss(batch, epoch, None if prepared is None else prepared.counts)

    def deployed(self) -> Callable[..., Prediction]:
        return self.net

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
