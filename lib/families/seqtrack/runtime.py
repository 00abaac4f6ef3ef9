"""SeqTrack's templates from frame to frame."""

from dataclasses import dataclass

from ..rules import Found
from ..templates import LatestTemplate


@dataclass(frozen=True)
class SureTemplate(LatestTemplate):
    """The first template and the latest sure one; sure is a frame by 10 times the sum of its tokens' probabilities (the
    official code's number; the paper speaks of their mean)."""

    def certainty(self, found: Found) -> float:
        return 10 * found.further["confidence"].sum().item()
