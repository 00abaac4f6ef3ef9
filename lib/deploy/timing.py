"""How long calls take, measured so that several can be compared."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..utils.device import synchronize
from ..utils.progress import Progress

LEAST_BLOCKS = 3
"""Blocks that are timed however little time there is."""
SETTLE = 0.1
"""Seconds until the threads of an engine are still: ONNX Runtime's wait for more work that long without giving up their
cores (seen with 7 sessions on two cores: the first pass of the next one took six times as long, the twentieth no
longer)."""


@dataclass(frozen=True)
class Timings:
    """Seconds of every timed call of one variant.

    Attributes:
        seconds: (blocks, calls per block), in the order of measurement.
        batch: images per call.
    """

    seconds: np.ndarray
    batch: int = 1

    @cached_property
    def median_ms(self) -> float:
        """Median milliseconds per call."""
        return float(np.median(self.seconds) * 1e3)

    @cached_property
    def p95_ms(self) -> float:
        """Milliseconds that 95 % of the calls stay under."""
        return float(np.percentile(self.seconds, 95) * 1e3)

    @property
    def fps(self) -> float:
        """Images per second at the median."""
        return self.batch * 1e3 / self.median_ms

    def speed_up(self, reference: "Timings") -> tuple[float, float, float]:
        """How many times faster than `reference`, which was timed in the same run.

        Returns:
            The median over the blocks of (reference's block median / own block median), and the 10th and the 90th
            percentile: neighbours in time are compared, so a slow phase of the machine hits both.
        """
        ratios = np.median(reference.seconds, axis=1) / np.median(self.seconds, axis=1)
        middle, low, high = np.percentile(ratios, [50, 10, 90])
        return float(middle), float(low), float(high)


def time_alternately(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    iterations: int,
    warmup: int,
    blocks: int = 10,
    batch: int = 1,
    seconds: float | None = None,
    settle: float = 0.0,
    label: str = "timing",
) -> dict[str, Timings]:
    """Time several calls in turn, a block of each at a time, the order turned round after every round.

    Each call is timed alone, from an idle device to an idle device, which is what a tracker waits for on every frame.
    The first call of a block is not timed, as the caches are still another's then.

    Args:
        calls: name -> what to time.
        device: waited for before and after every call.
        iterations: timed calls of each, rounded up to a whole number of blocks.
        warmup: calls of each before the first timed one, not timed.
        blocks: number of blocks (fewer where there are fewer iterations).
        batch: images per call, for the frame rate.
        seconds: about what all of it may take. Where the warm-up or the clock shows that `iterations` need more, there
            are fewer blocks, the same for all calls, down to `LEAST_BLOCKS`, and then shorter ones.
        settle: seconds of a block in which its calls are made but not timed: `SETTLE` where one of them is run by an
            engine with threads of its own, which would take the cores from the next.
        label: what is done, for the progress.

    Returns:
        name -> timings.

    Raises:
        ValueError: nothing to time, or `iterations` or `blocks` under 1, or `warmup` under 0.
    """
    if not calls or iterations < 1 or blocks < 1 or warmup < 0:
        raise ValueError("time_alternately needs a call, iterations and blocks of at least 1 and warmup of at least 0")
    blocks = min(blocks, iterations)
    per_block = -(-iterations // blocks)
    if seconds is not None:
        warmup = max(warmup, 1)
    begin, shortest = time.perf_counter(), dict.fromkeys(calls, float("inf"))
    with Progress(warmup * len(calls), f"{label}, warm-up", "calls") as shown:
        for name, call in calls.items():
            for _ in range(warmup):
                shortest[name] = min(shortest[name], _time_once(call, device))
                shown.advance()
    if seconds is not None:
        left = seconds - (time.perf_counter() - begin)
        timed = max(sum(shortest.values()), 1e-9)           # a call of each
        untimed = sum(max(one, settle) for one in shortest.values())
        per_block = max(1, min(per_block, int((left / LEAST_BLOCKS - untimed) / timed)))
        blocks = min(blocks, max(LEAST_BLOCKS, int(left / (untimed + per_block * timed))))
    measured = {name: np.empty((blocks, per_block)) for name in calls}
    done = 0
    order = list(calls)
    with Progress(blocks * len(calls) * (per_block + 1), label, "calls") as shown:
        while done < blocks:
            for name in order:
                settled = time.perf_counter() + settle
                _time_once(calls[name], device)
                while time.perf_counter() < settled:
                    _time_once(calls[name], device)
                shown.advance()
                for i in range(per_block):
                    measured[name][done, i] = _time_once(calls[name], device)
                    shown.advance()
            order.reverse()
            done += 1
            if seconds is not None and done >= LEAST_BLOCKS and time.perf_counter() - begin >= seconds:
                break
    return {name: Timings(values[:done], batch) for name, values in measured.items()}


def _time_once(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start
