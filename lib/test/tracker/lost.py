"""When a target counts as lost, and as found again."""

from dataclasses import dataclass

from ...utils.errors import UserError


@dataclass(frozen=True)
class LostRule:
    """Thresholds on the score, with hysteresis.

    A target is lost once its score was below `low` in `frames` frames in a row, and is found again by one frame with a
    score of at least `high`. Scores of different models are not alike: how the defaults were measured, and how to
    measure one's own, is in docs/live.md.

    Attributes:
        low, high: in 0..1, low <= high.
        frames: at least 1.

    Raises:
        UserError: a value out of range.
    """

    low: float = 0.35
    high: float = 0.5
    frames: int = 5

    def __post_init__(self):
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f"the lost rule has low {self.low} and high {self.high}; expected 0 <= low <= high <= 1")
        if self.frames < 1:
            raise UserError(f"the lost rule has {self.frames} frames; at least 1 is needed")


class LostFlag:
    """The state of one target under a rule.

    Attributes:
        lost: as of the last score.
    """

    def __init__(self, rule: LostRule):
        self.lost = False
        self._rule = rule
        self._below = 0

    def see(self, score: float) -> bool:
        """Take the score of the next frame; whether the target is lost now. A model without scores (NaN) never is."""
        self._below = self._below + 1 if score < self._rule.low else 0
        if self._below >= self._rule.frames:
            self.lost = True
        elif score >= self._rule.high:
            self.lost = False
        return self.lost
