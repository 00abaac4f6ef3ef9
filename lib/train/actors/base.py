"""What actors share: the wrapped network, the tracking loss, and validation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...config import Config
from ...models.base import Prediction, StagedTracker
from ...models.compress import Targets
from ...utils.boxes import cxcywh_to_xywh, cxcywh_to_xyxy, xywh_to_xyxy
from ..losses.heatmap import count_peaks
from ..losses.tracking import box_loss, location_loss


class Prepared(NamedTuple):
    """What is known of a part of a batch before its loss.

    Attributes:
        counts: see `Actor.counts`.
        targets: the teacher's own pass, where there is a teacher.
    """

    counts: Tensor
    targets: Targets | None = None

    def to(self, device: torch.device) -> "Prepared":
        """The same on another device, or parked in the host's memory, without waiting; what the targets share with the
        mixed pass, which is but a saving, does not come along."""
        if self.counts.device == device:
            return self

        def move(value: Tensor | None) -> Tensor | None:
            if value is None or device.type != "cpu":
                return value if value is None else value.to(device, non_blocking=True)
            return torch.empty_like(value, device=device, pin_memory=True).copy_(value, non_blocking=True)

        targets = self.targets
        if targets is not None:
            prediction = targets.prediction and Prediction(*map(move, targets.prediction))
            targets = Targets(prediction, tuple(map(move, targets.features)))
        return Prepared(move(self.counts), targets)


class Actor(ABC):
    """Turns a batch into a loss.

    Args:
        cfg: the run's configuration.
        net: the network to call; may be wrapped in DistributedDataParallel.
    """

    def __init__(self, cfg: Config, net: nn.Module):
        self.cfg = cfg
        self.net = net

    @property
    def module(self) -> nn.Module:
        """The network without its distributed wrapper."""
        return getattr(self.net, "module", self.net)

    def train(self, mode: bool = True) -> None:
        """Put the network in training or evaluation mode."""
        self.net.train(mode)

    def eval(self) -> None:
        """Put the network in evaluation mode."""
        self.train(False)

    def counts(self, batch: dict, epoch: int) -> Tensor | None:
        """What has to be known of every part of a batch before the loss of any: the numbers (n,) float32 that terms of
        it divide by (peaks of the heat maps). See `__call__` for the arguments.

        Returns:
            None where they take as much work as `prepare`, which gives them too.
        """
        return torch.stack([self._peaks(batch["search_box"])])

    def prepare(self, batch: dict, epoch: int) -> Prepared:
        """What the loss of a part needs: its counts, and the teacher's targets."""
        return Prepared(torch.stack([self._peaks(batch["search_box"])]))

    @abstractmethod
    def __call__(self, batch: dict, epoch: int, draws: torch.Generator,
                 prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one training batch, or of a part of it.

        The mean of the parts' losses is the loss of the whole if `prepared` has the same counts for all: the whole
        batch's, divided by the number of parts.

        Args:
            batch: `template` (B, 3, h, w), `search` (B, 3, H, W), `template_box` and `search_box` (B, 4) xywh in 0..1
                of their crops.
            epoch: 1..TRAIN.EPOCH.
            draws: CPU generator of the step's random draws.
            prepared: by `prepare`; None for a batch that is no part of another.

        Returns:
            scalar loss, and its terms (detached scalars) by name.
        """

    def idle_parameters(self, epoch: int, draws: Sequence[torch.Generator]) -> list[nn.Parameter]:
        """Those that learn, but take no part in any of the passes that have these generators."""
        return []

    @abstractmethod
    def predict(self, batch: dict, epoch: int) -> Prediction:
        """What the model that will be deployed says about the batch."""

    @abstractmethod
    def model_for_saving(self) -> StagedTracker:
        """The model that is the result of the training."""

    @abstractmethod
    def parameter_groups(self) -> list[dict]:
        """Groups `params`, `lr` for the optimiser."""

    @torch.no_grad()
    def validate(self, batch: dict, epoch: int) -> dict[str, Tensor]:
        """Terms of the tracking loss on one batch, in evaluation mode."""
        _, stats = self.tracking_loss(self.predict(batch, epoch), batch["search_box"])
        return stats

    def tracking_loss(self, prediction: Prediction, target_xywh: Tensor,
                      peaks: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """OSTrack's loss against the ground truth.

        Args:
            prediction: of the batch.
            target_xywh: (B, 4) in 0..1 of the search crop.
            peaks: see `focal_loss`.

        Returns:
            scalar, and its terms.
        """
        train = self.cfg.TRAIN
        box = box_loss(prediction.boxes, xywh_to_xyxy(target_xywh).clamp(0, 1))
        location = location_loss(prediction, target_xywh, peaks)
        loss = train.GIOU_WEIGHT * box.giou + train.L1_WEIGHT * box.l1 + train.FOCAL_WEIGHT * location
        terms = {"Loss/total": loss, "Loss/giou": box.giou, "Loss/l1": box.l1, "Loss/location": location,
                 "IoU": box.iou}
        return loss, {name: value.detach() for name, value in terms.items()}

    def guidance_loss(self, prediction: Prediction, teacher: Prediction, peaks: Tensor | None = None) -> Tensor:
        """Prediction guidance: the tracking loss with the teacher's box as the target (paper section 3.4).

        COMPRESS.PRED_FORM `full` has all three terms, the heat map's peak at the teacher's box; `boxes` leaves the
        score map out, as the released code does. For `peaks` see `focal_loss`.
        """
        train = self.cfg.TRAIN
        target = teacher.boxes.squeeze(1)                                   # (B, 4) cxcywh
        box = box_loss(prediction.boxes, cxcywh_to_xyxy(target))
        loss = train.GIOU_WEIGHT * box.giou + train.L1_WEIGHT * box.l1
        if self.cfg.COMPRESS.PRED_FORM == "full":
            loss = loss + train.FOCAL_WEIGHT * location_loss(prediction, cxcywh_to_xywh(target), peaks)
        return loss

    def _peaks(self, boxes_xywh: Tensor) -> Tensor:
        """How many of the boxes (B, 4), in 0..1 of the search crop, have a peak in the score map; float32."""
        return count_peaks(boxes_xywh, self.cfg.DATA.SEARCH.SIZE // self.cfg.MODEL.BACKBONE.STRIDE).float()
