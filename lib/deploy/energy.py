"""Energy that an NVIDIA GPU has used, as its driver tells it (NVML, the library behind nvidia-smi)."""

import ctypes
import time
from collections.abc import Callable

import torch

from ..utils.device import synchronize

LIBRARY = "libnvidia-ml.so.1"
SECONDS = 2.0
"""How long a call is repeated: the driver's counter moves some ten times a second only."""


class EnergyMeter:
    """The energy counter of one CUDA device.

    Raises:
        OSError: this device or system tells no energy.
    """

    def __init__(self, device: torch.device):
        if device.type != "cuda":
            raise OSError(f"only NVIDIA GPUs tell their energy, not {device}")
        self._nvml = ctypes.CDLL(LIBRARY)
        self._handle = ctypes.c_void_p()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        self._ask("nvmlInit_v2")
        self._ask("nvmlDeviceGetHandleByUUID", uuid, ctypes.byref(self._handle))
        self.joules()

    def joules(self) -> float:
        """Energy since the driver was loaded."""
        value = ctypes.c_ulonglong()
        self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(value))
        return value.value / 1e3

    def _ask(self, name: str, *arguments: object) -> None:
        code = getattr(self._nvml, name)(*arguments)
        if code != 0:
            raise OSError(f"{name} of {LIBRARY} failed with code {code}")


def joules_per_call(call: Callable[[], object], device: torch.device, seconds: float = SECONDS) -> float | None:
    """Mean energy of a call that is repeated for some seconds, with what the device uses in any case.

    Returns:
        None where the device tells no energy.
    """
    try:
        meter = EnergyMeter(device)
    except (OSError, AttributeError):   # no such library, an older one without the function, or the GPU does not tell
        return None
    synchronize(device)
    begin, start, calls = meter.joules(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        synchronize(device)
        calls += 1
    return (meter.joules() - begin) / calls
