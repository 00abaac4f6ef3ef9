"""Stochastic depth (Huang et al., ECCV 2016) whose draws do not depend on how a batch is divided."""

import contextlib
from collections.abc import Iterator

import timm.layers
import torch
from torch import Tensor, nn


class DropPath(timm.layers.DropPath):
    """timm's layer: in training, drops a residual branch for whole samples and scales the kept ones up.

    Inside `drawn_paths` the samples are those that were drawn there; elsewhere PyTorch's generator draws, as in timm.
    Drawn beforehand, the same samples are dropped however the batch is divided among processes and passes, when a
    layer is computed again in the backward pass, and when it is compiled.
    """

    def __init__(self, drop_prob: float):
        super().__init__(drop_prob)
        self.scale: Tensor | None = None
        """(B,): 0 for a dropped sample, 1 / (1 - drop_prob) for a kept one; None to draw in `forward`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:  # asked first: reading the rate here would make torch.compile tell the layers apart
            return x
        if self.scale is None:
            return super().forward(x)
        scale = self.scale.to(x.dtype).repeat_interleave(len(x) // len(self.scale))     # several rows of a sample
        return x * scale.view(-1, *[1] * (x.dim() - 1))


@contextlib.contextmanager
def drawn_paths(net: nn.Module, generator: torch.Generator, total: int, rows: slice,
                device: torch.device) -> Iterator[None]:
    """Draw for every `DropPath` of `net` that is in training mode; the draws hold for the passes inside.

    Args:
        generator: on the CPU; the same for all parts of a batch.
        total: samples of the whole batch.
        rows: those of them that the pass inside works on.
        device: where it runs.
    """
    layers = [module for module in net.modules() if isinstance(module, DropPath) and module.training]
    if not layers:
        yield
        return
    keep = 1 - torch.tensor([layer.drop_prob for layer in layers]).unsqueeze(1)
    drawn = torch.rand(len(layers), total, generator=generator) < keep                  # (layers, total)
    scales = (drawn / keep)[:, rows].contiguous()
    if device.type == "cuda":
        scales = scales.pin_memory()
    scales = scales.to(device, non_blocking=True)
    for layer, scale in zip(layers, scales, strict=True):
        layer.scale = scale
    try:
        yield
    finally:
        for layer in layers:
            layer.scale = None
