"""Which data set, sequence and frames make a training pair. The rules are OSTrack's (lib/train/data/sampler.py of its
repository); which frames of a video, a family's own rule says (:mod:`lib.families.clips`).

Every random number comes from the generator that is passed in, and every search ends.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...families.clips import ClipRule
from ...utils.errors import UserError
from ..dataset import TrackingDataset

MIN_FRAMES = 20
"""A sequence is used from so many frames, and from more than 2 visible ones for each frame of a pair."""
QUICK_DRAWS = 100


class PairSampler:
    """Draws (data set, sequence, frames).

    A data set is drawn by its weight, a sequence uniformly among its usable ones, then frames by the rule. An image
    data set gives the same image for all of them.

    Args:
        datasets: what to draw from.
        weights: one per data set, not all zero; None draws by the number of sequences.
        rule: draws the frames of a video.

    Raises:
        UserError: the weights do not fit.
    """

    def __init__(self, datasets: Sequence[TrackingDataset], weights: Sequence[float] | None, rule: ClipRule):
        self.datasets = list(datasets)
        shares = np.asarray([len(d) for d in self.datasets] if weights is None else weights, dtype=np.float64)
        if len(shares) != len(self.datasets) or not len(shares) or (shares < 0).any() or not shares.sum() > 0:
            raise UserError(f"DATASETS_RATIO must hold one number per entry of DATASETS_NAME ({len(self.datasets)}), "
                            f"none negative and not all zero; found {shares.tolist()}")
        self._thresholds = np.cumsum(shares / shares.sum())[:-1]
        self.rule = rule
        self.frames = rule.templates + rule.search
        self._usable: dict[int, np.ndarray] = {}

    def draw(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """A data set, the number of a sequence, and numbers of frames: the templates, then the search frames.

        Raises:
            UserError: a data set has no usable sequence, or an annotation file is missing or wrong.
        """
        number = int(np.searchsorted(self._thresholds, rng.random(), side="right"))
        dataset = self.datasets[number]
        if not dataset.is_video:
            return dataset, int(rng.integers(len(dataset))), *[0] * self.frames
        for _ in range(QUICK_DRAWS):
            sequence = self._draw_sequence(number, rng)
            annotation = dataset.annotation(sequence)
            clip = self.rule.draw(annotation.visible, annotation.valid, rng)
            if clip is not None:
                return dataset, sequence, *clip.templates, *clip.search
        raise UserError(f"data set {dataset.name}: no pair of visible frames for {self.rule} in {QUICK_DRAWS} draws; "
                        "raise the interval")

    def _draw_sequence(self, number: int, rng: np.random.Generator) -> int:
        """A usable sequence; each is as likely as the others."""
        candidates = self._usable.get(number)
        if candidates is None:
            dataset = self.datasets[number]
            candidates = self._usable[number] = np.flatnonzero(usable(*dataset.counts(), self.frames))
            if not len(candidates):
                raise UserError(f"data set {dataset.name}: none of its {len(dataset)} sequences can be trained on; a "
                                f"sequence needs at least {MIN_FRAMES} frames, {2 * self.frames + 1} of them with a "
                                "visible target")
        return int(candidates[rng.integers(len(candidates))])


def usable(frames: np.ndarray, visible: np.ndarray, drawn: int = 2) -> np.ndarray:
    """Which video sequences are long enough and have enough visible frames.

    Args:
        frames: (S,) frames of each.
        visible: (S,) visible frames of each.
        drawn: frames of a pair.
    """
    return (frames >= MIN_FRAMES) & (visible > 2 * drawn)
