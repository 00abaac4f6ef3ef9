"""Batches on their way from the loader to the network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` (a tensor, or a dict, list or tuple with tensors) with every tensor on `device`; the rest unchanged."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


class Normaliser:
    """Makes numbers of crops: brightness, minus a mean, over a standard deviation.

    Args:
        mean, std: of red, green, blue, for values in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self._constants = torch.tensor([list(mean), list(std)], dtype=torch.float32).view(2, 1, 3, 1, 1)

    def __call__(self, crops: Tensor, gains: Tensor | None) -> Tensor:
        """Crops as the network takes them.

        Args:
            crops: (B, 3, S, S) uint8 of any memory order.
            gains: (B,) float32 by which the levels 0..255 are multiplied (and then cut to 0..1); None divides by 255.

        Returns:
            (B, 3, S, S) float32 on the same device.
        """
        if self._constants.device != crops.device:  # once, since it waits for the device
            self._constants = self._constants.to(crops.device)
        mean, std = self._constants
        values = crops.to(torch.float32, memory_format=torch.contiguous_format)
        if gains is None:
            values.div_(255)
        else:
            values.mul_(gains.view(-1, 1, 1, 1)).clamp_(0, 1)
        return values.sub_(mean).div_(std)


class Upload:
    """Tensors that a stream of its own copies to a CUDA device while the network computes.

    Args:
        tensors: in pinned memory, or the copy waits.
        device: a CUDA device.
        stream: does the copying.
    """

    def __init__(self, tensors: dict[str, Tensor], device: torch.device, stream: torch.cuda.Stream):
        with torch.cuda.stream(stream):
            self._copies = to_device(tensors, device)
        self._done = stream.record_event()

    def take(self) -> dict[str, Tensor]:
        """The copies, for use on the current stream."""
        stream = torch.cuda.current_stream(next(iter(self._copies.values())).device)
        stream.wait_event(self._done)
        for tensor in self._copies.values():
            tensor.record_stream(stream)
        return self._copies
