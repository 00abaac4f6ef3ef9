"""Validation by tracking: a training run's model on a few sequences of a test set."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import Config
from ..test.analysis.metrics import convention_for, evaluate_sequence
from ..test.analysis.results import is_annotated
from ..test.evaluation.datasets import get_dataset
from ..test.evaluation.environment import env_settings
from ..test.evaluation.single import Failure, attempt
from ..test.tracker.tracker import Tracker
from ..utils.errors import UserError
from ..utils.files import ROOT

logger = logging.getLogger(__name__)


class TrackingValidation:
    """The sequences of DATA.VAL.TRACK that a training run tracks now and then, the longest first.

    What is drawn at random and what is trained stay as they are: the model is used in evaluation mode and without
    gradients, by the rules of `tracking/test.py`.

    Args:
        cfg: the run's configuration.
        env: environment settings with the folders of the test sets; None reads them.
        base: what a relative path of `folder:` starts from.

    Raises:
        UserError: the test set is unknown, missing, or has no public annotations.
    """

    names = ("AUC", "AO")

    def __init__(self, cfg: Config, env: Any = None, base: Path = ROOT) -> None:
        name, number = cfg.DATA.VAL.TRACK, cfg.DATA.VAL.TRACK_SEQUENCES
        try:
            sequences = get_dataset(name, env or env_settings(), base=base)
        except UserError as error:
            raise UserError(f"DATA.VAL.TRACK: {error}") from error
        sequences = list(filter(is_annotated, sequences))
        if not sequences:
            raise UserError(f"DATA.VAL.TRACK is {name}, of which no sequence has a box of a visible target after its "
                            "first frame; choose a set that can be scored here, such as got10k_val, or set "
                            "TRAIN.TRACK_EPOCH_INTERVAL to 0")
        self._cfg, self._convention = cfg, convention_for(name)
        chosen = spread(sequences, number)
        self.sequences = sorted(chosen, key=lambda sequence: -sequence.length)

    def __len__(self) -> int:
        return len(self.sequences)

    def score(self, number: int, model: nn.Module, device: torch.device,
              stopped: Callable[[], bool]) -> dict[str, list[float]]:
        """Track one sequence.

        Args:
            number: which one, 0 the longest.
            model: the tracker's network, on `device`; stays in evaluation mode.
            stopped: asked twice a second; True gives the sequence up.

        Returns:
            `[sum, count]` in per cent for AUC (over sequences) and AO (over frames or sequences, as the data set's
            convention says); empty where the sequence failed, which is logged, or was given up.
        """
        sequence = self.sequences[number]

        def watch(frames: int) -> None:
            if stopped():
                raise _GivenUp

        try:
            tracker = Tracker.from_model(model, self._cfg.student, device=device, benchmark=self._cfg.DATA.VAL.TRACK)
            outcome = attempt(tracker, sequence, None, watch)
        except _GivenUp:
            return {}
        if isinstance(outcome, Failure):
            logger.warning("validation by tracking: %s failed: %s%s", outcome.sequence, outcome.message,
                           f"\n{outcome.trace.rstrip()}" if outcome.trace else "")
            return {}
        try:
            scores = evaluate_sequence(outcome.boxes_xywh, sequence.ground_truth, sequence.visible, self._convention)
        except UserError as error:
            logger.warning("validation by tracking: %s cannot be scored: %s", sequence.name, error)
            return {}
        overlap = [scores.overlap_sum, scores.frames] if self._convention.pooled else [scores.ao, 1]
        return {"AUC": [100 * scores.auc, 1], "AO": [100 * overlap[0], overlap[1]]}


class _GivenUp(BaseException):
    """Passes through the handling of a sequence's errors."""


def spread(items: Sequence[Any], number: int) -> list[Any]:
    """`number` of the items at even distances, the first and the last among them; all for 0 or too large a number."""
    if number == 0 or number >= len(items):
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, number).round()]
