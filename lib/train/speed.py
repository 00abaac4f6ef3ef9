"""The switches of the configuration that change how fast a training is, and not what it learns."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..config import Config
from ..models.base import StagedTracker
from ..models.layers.plain_attention import write_out_attention
from ..utils.device import choose_dtype
from ..utils.errors import UserError

logger = logging.getLogger(__name__)

COMPILED_KINDS = 64
"""How many versions of a layer torch.compile may make: teacher's and student's, with and without gradient, drop path
and training mode."""


def apply_switches(cfg: Config, net: nn.Module, device: torch.device) -> None:
    """TRAIN.CHANNELS_LAST, CHECKPOINT_ACTIVATIONS and COMPILE for a network on `device`, in place.

    In mixed precision on a CPU attention is written out: PyTorch's fused operator, its backward pass above all, takes
    three times as long there at the few hundred tokens of a tracker.

    Raises:
        UserError: torch.compile does not work here.
    """
    if cfg.TRAIN.CHANNELS_LAST:
        net.to(memory_format=torch.channels_last)
    if cfg.TRAIN.AMP and device.type == "cpu":
        write_out_attention(net)
    trackers = [module for module in net.modules() if isinstance(module, StagedTracker)]
    for tracker in trackers:
        tracker.checkpoint_layers = cfg.TRAIN.CHECKPOINT_ACTIVATIONS
    if cfg.TRAIN.COMPILE:
        check_compile(device)
        torch._dynamo.config.recompile_limit = COMPILED_KINDS
        for tracker in trackers:
            tracker.compile_layers()


def check_compile(device: torch.device) -> None:
    """Compile a few operations, so that a missing compiler is found now and not in the first step.

    Raises:
        UserError: it failed.
    """
    try:
        torch.compile(lambda x: (x * 2).sin())(torch.ones(4, device=device))
    except Exception as error:  # each backend fails in its own way: no compiler, no Triton, an old GPU
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"TRAIN.COMPILE: torch.compile does not work on {device}: {lines[0]}. It needs a C++ compiler "
                        "on the CPU and Triton on CUDA; install it, or set TRAIN.COMPILE=false") from error


def resolve_precision(cfg: Config, device: torch.device) -> Config:
    """The configuration with number formats that `device` has in place of `auto` (TRAIN.AMP_DTYPE, and
    COMPRESS.TEACHER_DTYPE); without TRAIN.AMP where that is float32.

    Raises:
        UserError: one that is named, and used, is impossible on the device.
    """
    amp, teacher = cfg.TRAIN.AMP_DTYPE if cfg.TRAIN.AMP else "auto", cfg.COMPRESS.TEACHER_DTYPE
    dtype = choose_dtype(amp, device, "TRAIN.AMP_DTYPE")
    if cfg.TRAIN.AMP and dtype == "float32":
        logger.info("TRAIN.AMP: this CPU has no bfloat16, so that all is computed in float32")
    overrides: dict[str, Any] = {"TRAIN.AMP": False} if dtype == "float32" else {"TRAIN.AMP_DTYPE": dtype}
    if cfg.compresses:
        overrides["COMPRESS.TEACHER_DTYPE"] = choose_dtype(teacher, device, "COMPRESS.TEACHER_DTYPE")
    return cfg.with_overrides(overrides)


@contextlib.contextmanager
def cuda_products(cfg: Config, device: torch.device) -> Iterator[None]:
    """How products are computed on CUDA inside: float32 ones in TF32, where TRAIN.TF32 asks for it, and attention not
    by cuDNN, whose backward pass can give NaN gradients on an H100 or H200 for 64, 192, 320, ... tokens, such as
    OSTrack's (pytorch/pytorch#196678, NVIDIA/cudnn-frontend#628)."""
    precision, attention = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
        if cfg.TRAIN.TF32:
            torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cuda.enable_cudnn_sdp(attention)
