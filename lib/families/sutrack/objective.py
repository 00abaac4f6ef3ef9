"""What SUTrack learns: OSTrack's loss, and the task that a sample is of (SUTrack, section 3.4)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.base import Prediction
from ..objective import Objective
from ..templates import of_benchmark


class SUTrackObjective(Objective):
    """OSTrack's terms and the cross-entropy of the task."""

    def further(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """The boxes of the templates, and the task of each sample by the name of its data set."""
        boxes = batch["template_box"]
        index = self.cfg.MODEL.TASK_INDEX
        numbers = {**index.to_dict(), "DEFAULT": index.LASOT}
        task = torch.tensor([of_benchmark(numbers, name) for name in batch["dataset"]], device=boxes.device)
        return {"template_boxes": boxes if boxes.dim() == 3 else boxes.unsqueeze(1), "task": task}

    def loss(self, prediction: Prediction, target_xywh: Tensor, counts: Tensor | None = None
             ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().loss(prediction, target_xywh, counts)
        task = F.cross_entropy(prediction.further["task_logits"], prediction.further["task"])
        loss = loss + self.cfg.TRAIN.TASK_CE_WEIGHT * task
        return loss, {**terms, "Loss/total": loss.detach(), "Loss/task_class": task.detach()}
