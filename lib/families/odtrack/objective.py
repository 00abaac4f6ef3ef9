"""What ODTrack learns: OSTrack's loss of each search frame, and the temporal token between them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...config import Config
from ...models.base import Prediction
from ..elimination import EliminationObjective
from .model import TOKEN


class TokenObjective(EliminationObjective):
    """The objective with the token that goes from a sample's search frame to the next.

    A sample starts without one. The official model never forgets its token, so that there a batch starts from the last
    frames of the batch before, of other videos, in validation, too; TRAIN.CARRY_TOKEN does the same where the batches
    have one size.
    """

    def __init__(self, cfg: Config):
        super().__init__(cfg)
        self._left: Tensor | None = None

    def further(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        further = super().further(batch, epoch)
        if self._left is not None and len(self._left) == len(batch["search"]):
            further[TOKEN] = self._left
        return further

    def carried(self, prediction: Prediction) -> dict[str, Any]:
        token = prediction.further[TOKEN]
        if self.cfg.TRAIN.CARRY_TOKEN:
            self._left = token
        return {TOKEN: token}
