"""What actors share: the wrapped network, the tracking loss, and validation."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lib.config import Config
from lib.models.base import Prediction, StagedTracker
from lib.train.losses.tracking import box_loss, location_loss
from lib.utils.boxes import cxcywh_to_xyxy, xywh_to_xyxy


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

    @abstractmethod
    def __call__(self, batch: dict, epoch: int, draws: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one training batch.

        Args:
            batch: `template` (B, 3, h, w), `search` (B, 3, H, W), `template_box` and `search_box` (B, 4) xywh in 0..1
                of their crops.
            epoch: 1..TRAIN.EPOCH.
            draws: CPU generator of the step's random draws.

        Returns:
            scalar loss, and its terms (detached scalars) by name.
        """

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

    def tracking_loss(self, prediction: Prediction, target_xywh: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """OSTrack's loss against the ground truth.

        Args:
            prediction: of the batch.
            target_xywh: (B, 4) in 0..1 of the search crop.

        Returns:
            scalar, and its terms.
        """
        train = self.cfg.TRAIN
        box = box_loss(prediction.boxes, xywh_to_xyxy(target_xywh).clamp(0, 1))
        location = location_loss(prediction, target_xywh)
        loss = train.GIOU_WEIGHT * box.giou + train.L1_WEIGHT * box.l1 + train.FOCAL_WEIGHT * location
        terms = {"Loss/total": loss, "Loss/giou": box.giou, "Loss/l1": box.l1, "Loss/location": location,
                 "IoU": box.iou}
        return loss, {name: value.detach() for name, value in terms.items()}

    def guidance_loss(self, prediction: Prediction, teacher: Prediction) -> Tensor:
        """Prediction guidance: the tracking loss with the teacher's box as the target (paper section 3.4).

        COMPRESS.PRED_FORM `full` has all three terms, the heat map's peak at the teacher's box; `boxes` leaves the
        score map out, as the released code does.
        """
        train = self.cfg.TRAIN
        target = teacher.boxes.squeeze(1)                                   # (B, 4) cxcywh
        box = box_loss(prediction.boxes, cxcywh_to_xyxy(target))
        loss = train.GIOU_WEIGHT * box.giou + train.L1_WEIGHT * box.l1
        if self.cfg.COMPRESS.PRED_FORM == "full":
            corner = torch.cat([target[:, :2] - target[:, 2:] / 2, target[:, 2:]], dim=1)
            loss = loss + train.FOCAL_WEIGHT * location_loss(prediction, corner)
        return loss
