"""Gradients averaged over the processes."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .distributed import World

BUCKET_BYTES = 25 * 2**20
"""Gradients are sent in parts of about this size, the last layers' first, while the backward pass goes on."""


class GradientAverage:
    """Averages the gradients of some parameters over all processes during a backward pass.

    A parameter that took part on some processes gets the sum of their gradients divided by the number of all; one that
    took part on none keeps no gradient, as on a single process, so that AdamW leaves it alone, decay included.

    PyTorch's DistributedDataParallel would have to look for the stages that did not run in every step, wait for the
    device to learn which of them no process ran, and send zeros for them. Here the draws tell: idle parameters are not
    sent, and nothing waits. What else a pass left out, the processes tell each other afterwards, by a small message
    between the hosts. The division into parts is fixed by the order of the parameters, so a resumed run adds in the
    same order.

    Args:
        parameters: all that learn, in the order of the forward pass, the same on all processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world: World) -> None:
        self._world = world
        self._buckets = list(_divide(list(parameters)[::-1])) if world.size > 1 else []
        self._place = {id(parameter): place for place, bucket in enumerate(self._buckets) for parameter in bucket}
        self._waiting: list[int] = []
        self._sent: list[tuple[list[nn.Parameter], Tensor, dist.Work]] = []
        self._idle: set[int] = set()
        self._missing: set[int] = set()
        """Parameters that took no part in this process's passes, though they are not idle."""
        self._next = len(self._buckets)
        for bucket in self._buckets:
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(self._arrived)

    @contextlib.contextmanager
    def averaging(self, idle: Iterable[nn.Parameter]) -> Iterator[None]:
        """Around the backward pass after which the gradients are to be averages.

        Args:
            idle: parameters that are known to take part on no process; the same everywhere.
        """
        self._idle = {id(parameter) for parameter in idle}
        self._waiting = [sum(id(parameter) not in self._idle for parameter in bucket) for bucket in self._buckets]
        self._sent, self._next, self._missing = [], 0, set()
        try:
            yield
            while self._next < len(self._buckets):  # some of it took part on other processes only
                self._send()
            for parameters, flat, work in self._sent:
                work.wait()  # on CUDA it is the stream that waits, not the host
                _unpack(parameters, flat)
            self._forget_unused()
        finally:
            self._sent, self._next = [], len(self._buckets)

    def _arrived(self, parameter: nn.Parameter) -> None:
        """A gradient is there: send the buckets that are complete, always in their order."""
        if self._next >= len(self._buckets):
            return
        self._waiting[self._place[id(parameter)]] -= 1
        while self._next < len(self._buckets) and self._waiting[self._next] == 0:
            self._send()

    def _send(self) -> None:
        """Start to add up the next bucket."""
        parameters = [parameter for parameter in self._buckets[self._next] if id(parameter) not in self._idle]
        self._next += 1
        if not parameters:
            return
        for parameter in parameters:
            if parameter.grad is None:
                self._missing.add(id(parameter))
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters]).div_(self._world.size)
        self._sent.append((parameters, flat, dist.all_reduce(flat, async_op=True)))


    def _forget_unused(self) -> None:
        """Take the gradients of parameters that took part on no process away again."""
        sent = [parameter for parameters, _, _ in self._sent for parameter in parameters]
        used = self._world.sum(torch.tensor([id(parameter) not in self._missing for parameter in sent]).int())
        for parameter, processes in zip(sent, used.tolist(), strict=True):
            if processes == 0:
                parameter.grad = None


def _divide(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one type, about BUCKET_BYTES at a time."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size >= BUCKET_BYTES or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel() * parameter.element_size()
    if bucket:
        yield bucket


def _unpack(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Put a bucket's sums where the gradients are."""
    pieces = flat.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        average = piece.view(parameter.shape)
        if parameter.is_contiguous():
            parameter.grad = average
        else:  # the optimiser expects the gradient in the parameter's memory order (channels last)
            parameter.grad.copy_(average)
