"""Means of repeated runs and how sure they are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
"""Of the intervals."""


class Summary(NamedTuple):
    """Of repeated measurements.

    Attributes:
        number: of them.
        mean: their mean.
        deviation: their standard deviation (n - 1 in the denominator); NaN for one.
        half: half the width of the mean's interval at `LEVEL`; NaN for one.
    """

    number: int
    mean: float
    deviation: float
    half: float

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the mean's interval."""
        return self.mean - self.half, self.mean + self.half


def summarise(values: Sequence[float]) -> Summary:
    """Mean with Student's interval, for values that scatter like a normal distribution. Of paired runs (the same seed),
    give the differences.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("there is nothing to summarise")
    numbers = np.asarray(values, dtype=float)
    if len(numbers) == 1:
        return Summary(1, float(numbers[0]), float("nan"), float("nan"))
    deviation = float(numbers.std(ddof=1))
    return Summary(len(numbers), float(numbers.mean()), deviation,
                   student_quantile(len(numbers) - 1, (1 + LEVEL) / 2) * deviation / len(numbers) ** 0.5)


def student_quantile(freedom: int, share: float) -> float:
    """The value that Student's t with `freedom` degrees of freedom stays under with probability `share` (0..1).

    With t = sqrt(freedom) tan(a), the density of a is proportional to cos(a) ** (freedom - 1).
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(freedom**0.5 * np.tan(np.interp(share, below / below[-1], angles)))
