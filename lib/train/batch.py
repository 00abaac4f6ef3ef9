"""How the pairs of an optimiser step are divided, and the learning rate that goes with their number."""

import math
from dataclasses import dataclass

from ..config import Config
from ..utils.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """The batch of an optimiser step, in equal parts: one for each pass of each process.

    Attributes:
        total: pairs per step of all processes.
        processes: how many there are.
        accumulate: passes (forward and backward) of each process in a step.
    """

    total: int
    processes: int = 1
    accumulate: int = 1

    @property
    def size(self) -> int:
        """Pairs per pass and process."""
        return self.total // (self.processes * self.accumulate)

    @property
    def units(self) -> int:
        """Parts of the batch."""
        return self.processes * self.accumulate

    def steps(self, passes: int) -> int:
        """Whole steps in so many passes of a process."""
        return passes // self.accumulate

    def unit(self, rank: int, number: int) -> int:
        """Number of the part that process `rank` works on in its pass `number`."""
        return number * self.processes + rank

    def rows(self, rank: int, number: int) -> slice:
        """Rows of the whole batch in that part: process r of n takes r, r + n, ..."""
        first = number * self.size * self.processes
        return slice(first + rank, first + self.size * self.processes, self.processes)

    def samples(self, rank: int, step: int) -> range:
        """Indices within the epoch of the pairs that process `rank` sees in `step`."""
        return range(step * self.total + rank, (step + 1) * self.total, self.processes)

    def __str__(self) -> str:
        passes = f"{self.accumulate} passes x " if self.accumulate > 1 else ""
        processes = f"{self.processes} process" + ("es" if self.processes > 1 else "")
        return f"{self.total} pairs per step ({processes} x {passes}{self.size} pairs)"


def plan_batch(cfg: Config, processes: int = 1) -> BatchPlan:
    """The batch that TRAIN.TOTAL_BATCH (or BATCH_SIZE) and TRAIN.ACCUMULATE ask for with so many processes.

    Raises:
        UserError: it cannot be divided (the nearest numbers that can are named), or is more than an epoch has.
    """
    train, samples = cfg.TRAIN, cfg.DATA.TRAIN.SAMPLE_PER_EPOCH
    units = processes * train.ACCUMULATE
    total = train.TOTAL_BATCH or train.BATCH_SIZE * units
    if total % units:
        choices = ", or ".join(_choices(total, processes, units))
        raise UserError(f"{cfg.origin()}: TRAIN.TOTAL_BATCH {total} cannot be divided among {processes} process(es) x "
                        f"TRAIN.ACCUMULATE {train.ACCUMULATE}; choose {choices}")
    if total > samples:
        raise UserError(f"{cfg.origin()}: DATA.TRAIN.SAMPLE_PER_EPOCH ({samples}) is less than one batch of {total} "
                        f"pairs; raise it, or lower {'TRAIN.TOTAL_BATCH' if train.TOTAL_BATCH else 'TRAIN.BATCH_SIZE'}")
    return BatchPlan(total, processes, train.ACCUMULATE)


def _choices(total: int, processes: int, units: int) -> list[str]:
    """The numbers next to the given ones with which the batch can be divided, one kind a text."""
    accumulate = units // processes
    multiples = [number for number in (total // units * units, (total // units + 1) * units) if number]
    choices = {"TRAIN.TOTAL_BATCH": multiples,
               "TRAIN.ACCUMULATE": _nearest(accumulate, total // processes if total % processes == 0 else 0),
               "processes": _nearest(processes, total // accumulate if total % accumulate == 0 else 0)}
    return [f"{' or '.join(map(str, numbers))} {name}" if name == "processes" else
            f"{name} {' or '.join(map(str, numbers))}" for name, numbers in choices.items() if numbers]


def _nearest(number: int, product: int) -> list[int]:
    """The divisors of `product` next below and next above `number`; none of 0."""
    divisors = [candidate for candidate in range(1, product + 1) if product % candidate == 0]
    return [*[divisor for divisor in divisors if divisor < number][-1:],
            *[divisor for divisor in divisors if divisor > number][:1]]


def rate_factor(cfg: Config, total: int) -> float:
    """What TRAIN.LR_RULE multiplies every learning rate with for `total` pairs per step."""
    ratio = total / cfg.TRAIN.LR_BATCH
    return {"fixed": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[cfg.TRAIN.LR_RULE]


def describe_rule(cfg: Config, total: int) -> str:
    """The rule in words, for the log."""
    rule = cfg.TRAIN.LR_RULE
    if rule == "fixed":
        return "fixed, whatever the batch"
    return f"{rule} rule: x {rate_factor(cfg, total):.4g} for {total} pairs instead of {cfg.TRAIN.LR_BATCH}"
