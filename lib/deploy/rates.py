"""How fast a device computes and moves bytes, measured: what a time that was measured beside can be held against."""

import time
from collections.abc import Callable

import torch

from ..utils.device import synchronize

MATRIX_SIDE = {"cuda": 8192, "cpu": 1536}
"""Side of the square matrices whose product measures the device, by its type."""
COPIED_BYTES = {"cuda": 2**30, "cpu": 2**28}
"""Size of the copy that measures the memory, by the device's type."""


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations per second of a large square matrix product on `device`: the best of several.

    Args:
        dtype: a floating point type, or int8 (summed up in int32).
    """
    side = MATRIX_SIDE[device.type]
    if dtype == torch.int8:
        left, right = (torch.randint(-128, 128, (side, side), dtype=dtype, device=device) for _ in range(2))
        product = torch._int_mm                    # matmul itself knows no product of int8 with a wider sum
    else:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        product = torch.mm
    return 2.0 * side**3 / _best_time(lambda: product(left, right.t()), device, seconds)


def memory_rate(device: torch.device, seconds: float = 0.5) -> float:
    """Bytes per second that `device` reads and writes in a large copy: the best of several."""
    source = torch.empty(COPIED_BYTES[device.type], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return 2.0 * source.numel() / _best_time(lambda: target.copy_(source), device, seconds)


def _best_time(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Shortest of the calls that fit into `seconds`, at least three after two that warm up."""
    best, begin, calls = float("inf"), 0.0, 0
    while calls < 5 or time.perf_counter() - begin < seconds:
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        if calls == 2:
            begin = start
        if calls >= 2:
            best = min(best, time.perf_counter() - start)
        calls += 1
    return best
