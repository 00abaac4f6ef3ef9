"""Which device computes."""

import torch

from .errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where there is any, else the CPU; otherwise `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: the name is unknown, or CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {name!r} was asked for, but this PyTorch ({torch.__version__}) sees no CUDA GPU; "
                            "use cpu or auto, or check the driver with nvidia-smi")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"device {name!r} was asked for, but there are only {torch.cuda.device_count()} GPUs "
                            "(counted from 0)")
    return device


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on `device` is done (nothing to wait for on a CPU)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
