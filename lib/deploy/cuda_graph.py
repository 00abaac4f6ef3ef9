"""Replay of recorded CUDA kernels: one launch for a whole call."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..models.base import Prediction

_WARM_UP = 3
"""Calls before the recording, in which libraries choose their kernels and buffers."""


class GraphReplay:
    """A call of tensors on one CUDA device that is recorded at the first use of each combination of input shapes.

    Batch sizes are rounded up (see `padded_batch`), so that there are few recordings, whatever sizes come. All take
    their memory from one pool: only one runs at a time, and nothing in the pool is read after it.

    Args:
        call: tensors (or None) -> `Prediction`, with the same kernels for the same shapes and no host waits; what it
            says about an image depends on no other image of the batch.
        device: the CUDA device of all tensors.
        batched: so many inputs, from the first, have one row for each image; all images share the others. None: all
            have.
    """

    def __init__(self, call: Callable[..., Prediction], device: torch.device, batched: int | None):
        self._call, self._device, self._batched = call, device, math.inf if batched is None else batched
        self._recorded: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor | None], Prediction]] = {}
        """Shapes and types of the inputs -> the graph, the tensors that it reads and those that it writes."""
        self._pool: tuple[int, int] | None = None

    @torch.inference_mode()     # like the recording: its tensors can be written in this mode only
    def __call__(self, *inputs: Tensor | None) -> Prediction:
        """The call's result, in tensors that later calls leave alone."""
        batch = len(inputs[0])
        rows = padded_batch(batch)
        shapes = [None if tensor is None else (rows, *tensor.shape[1:]) if number < self._batched else tensor.shape
                  for number, tensor in enumerate(inputs)]
        key = tuple(None if tensor is None else (tuple(shape), tensor.dtype)
                    for tensor, shape in zip(inputs, shapes, strict=True))
        with torch.cuda.device(self._device):
            if key not in self._recorded:
                self._recorded[key] = self._record([None if tensor is None else tensor.new_zeros(shape)
                                                    for tensor, shape in zip(inputs, shapes, strict=True)])
            graph, places, outputs = self._recorded[key]
            for place, tensor in zip(places, inputs, strict=True):
                if tensor is not None:
                    place[:len(tensor)].copy_(tensor, non_blocking=True)    # the rows behind keep what they had
            graph.replay()
            return outputs.map(lambda output: output[:batch].clone())

    def _record(self, places: list[Tensor | None]
                ) -> tuple[torch.cuda.CUDAGraph, list[Tensor | None], Prediction]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._call(*places)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = self._call(*places)
        return graph, places, outputs


def padded_batch(batch: int) -> int:
    """The batch size that is recorded for `batch` images: 1, 2, 3, 4, 6, 8, 12, 16, 24, ...; less than half is
    added."""
    step = max(1, 2 ** (batch - 1).bit_length() // 4)
    return -(-batch // step) * step
