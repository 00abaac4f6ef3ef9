"""What SeqTrack learns: the tokens of the box, each after those before it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import Config
from ...models.base import Prediction
from ...utils.boxes import box_iou, cxcywh_to_xyxy
from ..objective import Objective
from .model import LENGTH
from .sequence import Vocabulary

SPECIAL = 0.01
"""Weight of the end (and start) token in the loss."""


class SequenceObjective(Objective):
    """Cross-entropy of the tokens under teacher forcing (section 3.3). Prediction guidance in a compression is the
    divergence of the teacher's distributions of the four coordinates from the student's, both after the same tokens:
    what the paper's guidance, the loss against the teacher's prediction, becomes for a decoder."""

    guidance_counts = False

    def __init__(self, cfg: Config):
        super().__init__(cfg)
        self.vocabulary = Vocabulary(cfg.MODEL.BINS, cfg.DATA.SEQ_FORMAT)
        self.weights = torch.ones(self.vocabulary.size)
        self.weights[self.vocabulary.bins:] = SPECIAL

    def further(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """`sequence` (B, 5): the start and the tokens of the box."""
        return {"sequence": self.vocabulary.given(self.vocabulary.tokens(batch["search_box"]))}

    def counts(self, boxes_xywh: Tensor) -> Tensor:
        """Nothing: each sample has the same number of tokens."""
        return boxes_xywh.new_ones(1)

    def loss(self, prediction: Prediction, target_xywh: Tensor, counts: Tensor | None = None
             ) -> tuple[Tensor, dict[str, Tensor]]:
        logits, tokens = prediction.further["logits"], self.vocabulary.tokens(target_xywh)
        wanted = self.vocabulary.wanted(tokens).flatten()
        entropy = F.cross_entropy(logits.flatten(0, 1), wanted, self.weights.to(logits.device))
        loss = self.cfg.TRAIN.CE_WEIGHT * entropy
        boxes = prediction.boxes.squeeze(1), self.vocabulary.boxes(tokens)
        iou, _ = box_iou(*map(cxcywh_to_xyxy, boxes))
        terms = {"Loss/total": loss, "Loss/tokens": entropy, "IoU": iou.mean()}
        return loss, {name: value.detach() for name, value in terms.items()}

    def guidance(self, prediction: Prediction, teacher: Prediction, counts: Tensor | None = None) -> Tensor:
        ours, theirs = (said.further["logits"][:, :LENGTH].flatten(0, 1).log_softmax(dim=1)
                        for said in (prediction, teacher))
        return self.cfg.TRAIN.CE_WEIGHT * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
