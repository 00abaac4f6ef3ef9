"""Batches on their way from the loader to the network."""

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
