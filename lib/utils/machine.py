"""What a measurement of time depends on."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("torch", "timm", "thop", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "openvino")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What a timing depends on: device, threads, arithmetic and library versions."""
    cuda = device.type == "cuda"
    facts: dict[str, Any] = {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES
                      if any(metadata.distributions(name=name))},
    }
    if cuda:
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
                  "matmul_precision": torch.get_float32_matmul_precision(),
                  "tf32_convolutions": torch.backends.cudnn.allow_tf32}
    return facts


def _cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or "unknown CPU"
