"""Replay of recorded CUDA kernels: one launch for a whole call."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..models.base import Prediction

_WARM_UP = 3
"""Calls before the recording, in which libraries choose their kernels and buffers."""


class GraphReplay:
    """A call of tensors on one CUDA device that is recorded at the first use of each combination of input shapes.

    Args:
        call: tensors (or None) -> `Prediction`, with the same kernels for the same shapes and no host waits.
        device: the CUDA device of all tensors.
    """

    def __init__(self, call: Callable[..., Prediction], device: torch.device):
        self._call, self._device = call, device
        self._recorded: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor | None], Prediction]] = {}
        """Shapes and types of the inputs -> the graph, the tensors that it reads and those that it writes."""

    @torch.inference_mode()     # like the recording: its tensors can be written in this mode only
    def __call__(self, *inputs: Tensor | None) -> Prediction:
        """The call's result, in tensors that the next call of the same shapes leaves alone."""
        key = tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs)
        with torch.cuda.device(self._device):
            if key not in self._recorded:
                self._recorded[key] = self._record(inputs)
            graph, places, outputs = self._recorded[key]
            for place, tensor in zip(places, inputs, strict=True):
                if tensor is not None:
                    place.copy_(tensor, non_blocking=True)
            graph.replay()
            return Prediction(*(None if output is None else output.clone() for output in outputs))

    def _record(self, inputs: tuple[Tensor | None, ...]
                ) -> tuple[torch.cuda.CUDAGraph, list[Tensor | None], Prediction]:
        places = [None if tensor is None else tensor.clone() for tensor in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._call(*places)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._call(*places)
        return graph, places, outputs
