"""Which frames make a training pair. The rules are OSTrack's (lib/train/data/sampler.py of its repository).

Every random number comes from the generator that is passed in, and every search ends.
"""

from collections.abc import Sequence

import numpy as np

from ...config import SAMPLER_MODES
from ...utils.errors import UserError
from ..dataset import Annotation, TrackingDataset

MIN_FRAMES = 20
MIN_VISIBLE = 5
"""A sequence is used from 20 frames and from more than 2 * (one template + one search) visible ones."""
GAP_STEP = 5
"""By how much the largest distance grows when no partner is found within it."""
QUICK_DRAWS = 100


class PairSampler:
    """Draws (data set, sequence, template frame, search frame).

    A data set is drawn by its weight, a sequence uniformly among its usable ones, then two frames by the mode:

    - causal: the template is a visible frame, the search frame a visible one less than `max_gap` frames later; where
      there is none, both are drawn again with a distance 5 larger, and so on;
    - interval: the same, but the search frame lies on either side (or is the template's own frame), as in PyTracking;
    - trident, trident_pro, stark: template and search frame are any visible frames. STARK's further templates are not
      used by a tracker with one template, but their condition holds: within `max_gap` frames from the search frame
      towards the template there is a visible (trident), any (trident_pro) or annotated (stark) frame.

    An image data set gives the same image twice.

    Args:
        datasets: what to draw from.
        weights: one per data set, not all zero; None draws by the number of sequences.
        mode: one of `SAMPLER_MODES`.
        max_gap: frames, at least 1.

    Raises:
        UserError: weights or mode do not fit.
    """

    def __init__(self, datasets: Sequence[TrackingDataset], weights: Sequence[float] | None, mode: str, max_gap: int):
        self.datasets = list(datasets)
        shares = np.asarray([len(d) for d in self.datasets] if weights is None else weights, dtype=np.float64)
        if len(shares) != len(self.datasets) or not len(shares) or (shares < 0).any() or not shares.sum() > 0:
            raise UserError(f"DATASETS_RATIO must hold one number per entry of DATASETS_NAME ({len(self.datasets)}), "
                            f"none negative and not all zero; found {shares.tolist()}")
        if mode not in SAMPLER_MODES:
            raise UserError(f"unknown DATA.SAMPLER_MODE {mode!r}; choose from {', '.join(SAMPLER_MODES)}")
        self._thresholds = np.cumsum(shares / shares.sum())[:-1]
        self.mode = mode
        self.max_gap = max_gap
        self._usable: dict[int, np.ndarray] = {}

    def draw(self, rng: np.random.Generator) -> tuple[TrackingDataset, int, int, int]:
        """A data set, a sequence of it, its template frame and its search frame.

        Raises:
            UserError: a data set has no usable sequence, or an annotation file is missing or wrong.
        """
        number = int(np.searchsorted(self._thresholds, rng.random(), side="right"))
        dataset = self.datasets[number]
        if not dataset.is_video:
            return dataset, int(rng.integers(len(dataset))), 0, 0
        for _ in range(QUICK_DRAWS):
            sequence = self._draw_sequence(number, rng)
            pair = draw_frames(dataset.annotation(sequence), self.mode, self.max_gap, rng)
            if pair is not None:
                return dataset, sequence, *pair
        raise UserError(f"data set {dataset.name}: no pair of visible frames for DATA.SAMPLER_MODE {self.mode} and "
                        f"DATA.MAX_SAMPLE_INTERVAL {self.max_gap} in {QUICK_DRAWS} draws; raise the interval")

    def _draw_sequence(self, number: int, rng: np.random.Generator) -> int:
        """A usable sequence; each is as likely as the others."""
        candidates = self._usable.get(number)
        if candidates is None:
            dataset = self.datasets[number]
            candidates = self._usable[number] = np.flatnonzero(usable(*dataset.counts()))
            if not len(candidates):
                raise UserError(f"data set {dataset.name}: none of its {len(dataset)} sequences can be trained on; a "
                                f"sequence needs at least {MIN_FRAMES} frames, {MIN_VISIBLE} of them with a visible "
                                "target")
        return int(candidates[rng.integers(len(candidates))])


def usable(frames: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Which video sequences are long enough and have enough visible frames.

    Args:
        frames: (S,) frames of each.
        visible: (S,) visible frames of each.
    """
    return (frames >= MIN_FRAMES) & (visible >= MIN_VISIBLE)


def draw_frames(annotation: Annotation, mode: str, max_gap: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Template and search frame of a sequence by a mode of :class:`PairSampler`; None when none is found."""
    if mode in ("causal", "interval"):
        return _draw_near(annotation.visible, mode == "causal", max_gap, rng)
    partners = {"trident": annotation.visible, "trident_pro": np.ones_like(annotation.visible),
                "stark": annotation.valid}[mode]
    seen = np.flatnonzero(annotation.visible)
    for _ in range(QUICK_DRAWS if len(seen) else 0):
        template, search = (int(seen[i]) for i in rng.integers(len(seen), size=2))
        first, last = (search, search + max_gap) if template >= search else (max(0, search - max_gap), search)
        if partners[first:last].any():
            return template, search
    return None


def _draw_near(visible: np.ndarray, causal: bool, max_gap: int, rng: np.random.Generator) -> tuple[int, int] | None:
    seen = np.flatnonzero(visible)
    templates = seen[seen < len(visible) - 1] if causal else seen
    if not len(templates):
        return None
    for gap in range(max_gap, max_gap + len(visible) + GAP_STEP * QUICK_DRAWS, GAP_STEP):
        template = int(templates[rng.integers(len(templates))])
        first = template + 1 if causal else template - gap
        low, high = np.searchsorted(seen, (first, template + gap))
        if low < high:
            return template, int(seen[rng.integers(low, high)])
    return None
