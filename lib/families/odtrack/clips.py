"""Which frames of a video ODTrack learns from."""

import numpy as np

from ..clips import Clip, ModeClips


class OrderedClips(ModeClips):
    """`ModeClips`, but templates and search frames of mode causal are brought into the order of time (getitem of
    lib/train/data/sampler.py of ODTrack's repository)."""

    def draw(self, visible: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> Clip | None:
        """See `ClipRule.draw`."""
        clip = super().draw(visible, valid, rng)
        if clip is None or self.mode != "causal":
            return clip
        return Clip(tuple(sorted(clip.templates)), tuple(sorted(clip.search)))
