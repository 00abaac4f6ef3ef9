"""CUDA graphs for a machine without CUDA: kernels are recorded once and run again on the same tensors, and what CUDA
forbids while it records is an error."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS, SIZES = "a number is read back from the device", "the size of a result is read back from the device"
ATEN = torch.ops.aten
WAITS = {ATEN._local_scalar_dense.default: READS, ATEN.item.default: READS, ATEN.is_nonzero.default: READS,
         ATEN.nonzero.default: SIZES, ATEN.masked_select.default: SIZES,
         ATEN.lift_fresh.default: "a tensor is made of the host's numbers"}


class RecordedGraph(TorchDispatchMode):
    """Takes the place of `torch.cuda.CUDAGraph`; as a context it records."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def __torch_dispatch__(self, kernel, types, args=(), kwargs=None):
        if kernel in WAITS:
            raise RuntimeError(f"{kernel}: {WAITS[kernel]} while a graph is recorded")
        result = kernel(*args, **(kwargs or {}))
        self.kernels.append((kernel, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        for kernel, args, kwargs, result in self.kernels:
            again = kernel(*args, **kwargs)
            pairs = zip(result, again, strict=True) if isinstance(result, tuple | list) else [(result, again)]
            for old, new in pairs:
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def replace_cuda_graphs(monkeypatch):
    """Let the code that records and replays CUDA graphs do so with CPU tensors."""

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool=None: graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, contextlib.nullcontext)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Stream)
