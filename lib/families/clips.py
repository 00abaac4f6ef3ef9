"""Which frames of a video make a training sample: its templates and its search frames."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ..config import SAMPLER_MODES
from ..utils.errors import UserError

GAP_STEP = 5
"""By how much the largest distance grows when no partner is found within it."""
QUICK_DRAWS = 100
NEAR_MODES = ("causal", "interval")
"""Those that draw any number of search frames."""


class Clip(NamedTuple):
    """Frames of a video, counted from 0; each kind in the order in which the model gets them."""

    templates: tuple[int, ...]
    search: tuple[int, ...]


class ClipRule(ABC):
    """Draws the frames of a sample. `str` of it names the keys and values that decide whether there are any.

    Args:
        templates, search: how many frames of each kind; at least 1.
    """

    def __init__(self, templates: int = 1, search: int = 1):
        self.templates, self.search = templates, search

    @abstractmethod
    def draw(self, visible: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> Clip | None:
        """A clip of a video; None where none is found.

        Args:
            visible: (N,) bool, of each frame: there is a box and the target can be seen.
            valid: (N,) bool: there is a box. Only such frames can be drawn.
            rng: the only source of randomness.
        """


class ModeClips(ClipRule):
    """The rules of OSTrack's sampler (get_frame_ids_* and the causal mode in lib/train/data/sampler.py of its
    repository, which are STARK's) and of PyTracking's (interval).

    - causal: the first template is a visible frame, the search frames are visible ones less than `max_gap` frames
      later, the further templates visible ones at most `max_gap` frames earlier; where there are none, all are drawn
      again with a distance 5 larger, and so on;
    - interval: the same, but further templates and search frames lie on either side of the first template (or are
      itself);
    - trident, trident_pro, stark: the first template and the one search frame are any visible frames. The further
      templates are visible (trident), any (trident_pro) or annotated (stark) frames within `max_gap` frames from the
      search frame towards the first template; that there is one is a condition with a single template, too.

    Frames are drawn with replacement and stay in the order drawn: a first template of causal is later than the others.

    Args:
        mode: one of `SAMPLER_MODES`.
        max_gap: frames, at least 1.
        templates, search: see `ClipRule`.

    Raises:
        UserError: there is no such mode, or it does not draw so many search frames.
    """

    def __init__(self, mode: str, max_gap: int, templates: int = 1, search: int = 1):
        super().__init__(templates, search)
        if mode not in SAMPLER_MODES:
            raise UserError(f"unknown DATA.SAMPLER_MODE {mode!r}; choose from {', '.join(SAMPLER_MODES)}")
        if search > 1 and mode not in NEAR_MODES:
            raise UserError(f"DATA.SEARCH.NUMBER is {search}, but DATA.SAMPLER_MODE {mode} draws one search frame; set "
                            f"the number to 1, or the mode to {' or '.join(NEAR_MODES)}")
        self.mode = mode
        self.max_gap = max_gap

    def __str__(self) -> str:
        return f"DATA.SAMPLER_MODE {self.mode} and DATA.MAX_SAMPLE_INTERVAL {self.max_gap}"

    def draw(self, visible: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> Clip | None:
        """See `ClipRule.draw`."""
        if self.mode in NEAR_MODES:
            return self._draw_near(visible, rng)
        return self._draw_towards(visible, valid, rng)

    def _draw_near(self, visible: np.ndarray, rng: np.random.Generator) -> Clip | None:
        causal, frames = self.mode == "causal", len(visible)
        seen = np.flatnonzero(visible)
        low, high = np.searchsorted(seen, (self.templates - 1, frames - self.search)) if causal else (0, len(seen))
        if low >= high:
            return None
        for gap in range(self.max_gap, self.max_gap + frames + GAP_STEP * QUICK_DRAWS, GAP_STEP):
            base = int(seen[rng.integers(low, high)])
            further = _draw_between(seen, base - gap, base if causal else base + gap, self.templates - 1, rng)
            if further is None:
                continue
            search = _draw_between(seen, base + 1 if causal else base - gap, base + gap, self.search, rng)
            if search is not None:
                return Clip((base, *further), search)
        return None

    def _draw_towards(self, visible: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> Clip | None:
        partners = np.flatnonzero({"trident": visible, "trident_pro": np.ones_like(visible), "stark": valid}[self.mode])
        seen = np.flatnonzero(visible)
        for _ in range(QUICK_DRAWS if len(seen) else 0):
            template, search = (int(seen[i]) for i in rng.integers(len(seen), size=2))
            first, last = (search, search + self.max_gap) if template >= search else (search - self.max_gap, search)
            if not _any_between(partners, first, last):
                continue
            further = _draw_between(partners, first, last, self.templates - 1, rng)
            if valid[list(further)].all():      # what has no box cannot be cropped: the official code draws again, too
                return Clip((template, *further), (search,))
        return None


class OrderClips(ClipRule):
    """The rule `order` of SeqTrack and SUTrack (lib/train/data/sampler.py of their repositories): frames are drawn with
    replacement among the visible ones from `max_gap` frames before to `max_gap` - 1 after a visible one, then all are
    brought into the order of time, or as often backwards: the first are the templates, the others the search frames.

    Args:
        max_gap: frames, at least 1.
        templates, search: see `ClipRule`.
    """

    def __init__(self, max_gap: int, templates: int = 1, search: int = 1):
        super().__init__(templates, search)
        self.max_gap = max_gap

    def __str__(self) -> str:
        return f"DATA.SAMPLER_MODE order and DATA.MAX_SAMPLE_INTERVAL {self.max_gap}"

    def draw(self, visible: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> Clip | None:
        """See `ClipRule.draw`."""
        seen = np.flatnonzero(visible)
        if not len(seen):
            return None
        base = int(seen[rng.integers(len(seen))])
        drawn = _draw_between(seen, base - self.max_gap, base + self.max_gap, self.templates + self.search, rng)
        frames = tuple(sorted(drawn, reverse=rng.random() < 0.5))      # there is the base at least
        return Clip(frames[:self.templates], frames[self.templates:])


def _any_between(frames: np.ndarray, first: int, end: int) -> bool:
    """Whether one of the rising `frames` is in `first`..`end` - 1."""
    low, high = np.searchsorted(frames, (first, end))
    return bool(low < high)


def _draw_between(frames: np.ndarray, first: int, end: int, number: int, rng: np.random.Generator
                  ) -> tuple[int, ...] | None:
    """So many of the rising `frames` in `first`..`end` - 1, with replacement; None where not one is there."""
    if not number:
        return ()
    low, high = np.searchsorted(frames, (first, end))
    if low >= high:
        return None
    return tuple(int(frames[rng.integers(low, high)]) for _ in range(number))
