"""Which device computes, and in which number formats."""

import contextlib
import logging
from collections.abc import Iterator

import torch

from .errors import UserError

logger = logging.getLogger(__name__)


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


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 numbers itself.

    Where it does not, PyTorch emulates them and says nothing: on GPUs before compute capability 8.0 (Ampere) slower
    than float32; on CPUs without AVX-512 (x86-64) or BF16 instructions (Arm) five times as slow in linear layers, and
    fifty times in convolutions.
    """
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose_dtype(name: str, device: torch.device, setting: str) -> str:
    """A number format by name, as `device` computes it.

    Args:
        name: `auto` (bfloat16 where the device has it, else float16 on a GPU and float32 on a CPU), or a format's own
            name; bfloat16 on a CPU that emulates it is taken with a warning.
        setting: the key or option that asks for it, for the error.

    Raises:
        UserError: bfloat16 is named and the GPU does not have it.
    """
    if name not in ("auto", "bfloat16"):
        return name
    if has_bfloat16(device):
        return "bfloat16"
    if name == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if device.type != "cuda":
        logger.warning("%s is bfloat16, which this CPU only emulates, many times slower than float32", setting)
        return name
    major, minor = torch.cuda.get_device_capability(device)
    raise UserError(f"{setting} is bfloat16, but {torch.cuda.get_device_name(device)} (compute capability "
                    f"{major}.{minor}) only emulates it, slower than float32; choose float16 or float32")


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Inside, PyTorch computes with so many threads on the CPU, and engines of exports that are loaded take that
    number; None leaves PyTorch's."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Inside, CUDA computes float32 convolutions and products in float32, not in TF32 with its 10 bits.

    For comparisons: PyTorch's default is TF32 for convolutions, float32 for products.
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
