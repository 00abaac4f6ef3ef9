"""Energy that an NVIDIA GPU has used, as its driver tells it (NVML, the library behind nvidia-smi)."""

import time
from collections.abc import Callable

import torch

from ..utils.device import synchronize

SECONDS = 2.0
"""How long a call is repeated: the driver's counter moves some ten times a second only."""


def joules_per_call(call: Callable[[], object], device: torch.device, seconds: float = SECONDS) -> float | None:
    """Mean energy of a call that is repeated for some seconds, with what the device uses in any case.

    Returns:
        None where the device tells no energy.
    """
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        synchronize(device)
        begin, start, calls = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle), time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            call()
            synchronize(device)
            calls += 1
        return (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - begin) / 1e3 / calls     # it counts millijoules
    except pynvml.NVMLError:    # no such library, an older one without the counter, or the GPU does not tell
        return None
