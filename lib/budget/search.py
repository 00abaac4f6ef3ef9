"""The search: which students fit a budget, and which of them promises to keep most."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from ..utils.errors import UserError
from .costs import Cost, KindCosts, predict
from .space import MIN_ELIMINATING, Candidate, Kind, describe

PROXY = Path(__file__).with_name("proxy.json")
"""Points that the proxy is fitted to, most of them published."""
EVEN_SHARE = 0.5
"""Part of the importance that is divided evenly among all layers: a layer does more than what it changes alone."""


class Budget(NamedTuple):
    """What a student may cost at most; None for no limit.

    Attributes:
        ms: of a pass.
        macs: multiply-accumulates of a pass, attention's products among them.
        parameters: their number.
        layers: exactly so many.
    """

    ms: float | None = None
    macs: float | None = None
    parameters: float | None = None
    layers: int | None = None

    def used(self, cost: Cost) -> float:
        """The largest share of a limit that a cost takes; above 1 it does not fit. 0 without limits."""
        return max((value / limit for value, limit in zip(cost, self[:3], strict=True) if limit), default=0.0)

    def text(self) -> str:
        """In words."""
        parts = [f"{limit / scale:g} {unit}" for limit, scale, unit in
                 ((self.ms, 1, "ms"), (self.macs, 1e9, "G MACs"), (self.parameters, 1e6, "M parameters")) if limit]
        return ", ".join(parts + [f"{self.layers} layers"] * bool(self.layers)) or "no limit"


class Found(NamedTuple):
    """A student that the search looked at.

    Attributes:
        candidate: what it is.
        cost: predicted.
        kept: the share of the teacher's accuracy that the proxy expects it to keep, 0..1.
    """

    candidate: Candidate
    cost: Cost
    kept: float


def smoothed(importance: Sequence[float]) -> list[float]:
    """Measured importance as parts of 1, with `EVEN_SHARE` of it divided evenly; a negative one counts as 0."""
    values = [max(0.0, value) for value in importance]
    total = sum(values)
    return [EVEN_SHARE / len(values) + (1 - EVEN_SHARE) * (value / total if total else 1 / len(values))
            for value in values]


def balanced_stages(importance: Sequence[float], layers: int) -> tuple[int, ...]:
    """Divide the teacher's layers so that each student layer stands for about the same importance: the division with
    the least sum of squared loads, a stage's load being the sum of its layers' importance. Equal layers are divided
    evenly.

    Args:
        importance: of each teacher layer, not negative.
        layers: of the student.
    """
    depth, sums = len(importance), [0.0, *accumulate(importance)]
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (0.0, ())}
    for stages in range(1, layers + 1):
        for end in range(stages, depth - (layers - stages) + 1):
            best[stages, end] = min(
                (best[stages - 1, start][0] + (sums[end] - sums[start]) ** 2,
                 (*best[stages - 1, start][1], end - start))
                for start in range(stages - 1, end) if (stages - 1, start) in best)
    return best[layers, depth][1]


def concentration(importance: Sequence[float], stages: Sequence[int]) -> float:
    """The sum of squared loads of stages over that of single layers: 1 where each layer has a stage of its own, the
    larger the more of the teacher's work one student layer has to do."""
    ends = [0, *accumulate(stages)]
    loads = (sum(importance[start:end]) for start, end in pairwise(ends))
    return sum(load**2 for load in loads) / sum(value**2 for value in importance)


@cache
def proxy_slopes() -> dict[str, float]:
    """Loss of accuracy per unit of excess, fitted to the points (least squares through the origin)."""
    lists = {name: part["points"] for name, part in json.loads(PROXY.read_text(encoding="utf-8")).items()
             if isinstance(part, dict)}
    return {name: sum(x * loss for x, loss in points) / sum(x * x for x, _ in points) for name, points in lists.items()}


def expected_share(candidate: Candidate, teacher: Kind, importance: Sequence[float], stride: int) -> float:
    """The proxy: a factor for each way in which a student is less than its teacher (see proxy.json). A rough ranking
    made of other trackers, not a measurement.

    Args:
        importance: of each teacher layer.
        stride: side of a token in pixels.
    """
    kind, slopes = candidate.kind, proxy_slopes()
    excess = {"depth": concentration(importance, candidate.stages) - 1, "width": teacher.width / kind.width - 1,
              "mlp": teacher.mlp_ratio / kind.mlp_ratio - 1, "tokens": 1 / kind.kept - 1,
              "resolution": 256 * stride**2 * (kind.search**-2 - teacher.search**-2)}
    share = 1.0
    for name, value in excess.items():
        share *= max(0.0, 1 - slopes[name] * value)
    return share


def search(kinds: Iterable[Kind], costs: Mapping[Kind, KindCosts], teacher: Kind, importance: Sequence[float],
           stride: int, budget: Budget) -> list[Found]:
    """All students under a budget but the teacher itself, the one that promises most first; of equals, the cheapest.

    Args:
        kinds: to look at, each at every number of layers.
        costs: of the kinds, and of those without elimination.
        importance: of each teacher layer, as it was measured.
        stride: side of a token in pixels.

    Raises:
        UserError: none fits; the message says which comes nearest. Or there is nothing to search.
    """
    importance = smoothed(importance)
    depths = range(1, len(importance) + 1) if budget.layers is None else [budget.layers]
    divisions = {layers: balanced_stages(importance, layers) for layers in depths}
    found = []
    for kind in kinds:
        for layers, stages in divisions.items():
            if (kind, layers) == (teacher, len(importance)):
                continue        # the teacher itself
            if kind.kept == 1 or layers >= MIN_ELIMINATING:
                candidate = Candidate(kind, stages)
                found.append(Found(candidate, predict(costs, kind, layers),
                                   expected_share(candidate, teacher, importance, stride)))
    if not found:
        raise UserError("there is no student to look at but the teacher itself; ask for fewer layers, or vary more "
                        "(--vary)")
    fitting = [one for one in found if budget.used(one.cost) <= 1]
    if not fitting:
        nearest = min(found, key=lambda one: budget.used(one.cost))
        raise UserError(f"no student fits {budget.text()}: the nearest, {nearest.candidate.layers} layers, "
                        f"{describe(nearest.candidate.kind, teacher)}, takes {nearest.cost.text()}, "
                        f"{budget.used(nearest.cost):.2f} times as much. Allow more, or vary more (--vary)")
    return sorted(fitting, key=lambda one: (-one.kept, budget.used(one.cost), one.cost))
