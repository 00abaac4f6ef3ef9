"""What a training step has to compute, and how fast the device computes: the floor beside a measured step."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lib.config import Config
from lib.models.build import build_compressor, build_ostrack
from lib.train.actors import build_actor
from lib.utils.device import synchronize

MATRIX_SIDE = {"cuda": 8192, "cpu": 1536}
"""Side of the square matrices whose product measures the device, by its type."""
COPIED_BYTES = {"cuda": 2**30, "cpu": 2**28}
"""Size of the copy that measures the memory, by the device's type."""

SECONDS = 0.7
"""How long each rate is measured."""


@dataclass(frozen=True)
class StepWork:
    """Floating point operations of one pair's forward and backward pass (two per multiply-accumulate).

    Matrix products (attention's too) and convolutions count; norms, activations and the optimiser do not. What a
    switch computes a second time (activation checkpointing) does not count either.

    Attributes:
        student: with every stage the student's (for script ostrack: of the model).
        teacher: with every stage the teacher's; the targets' pass is part of both.
    """

    student: float
    teacher: float

    def at(self, probability: float) -> float:
        """The mean over draws in which each stage is the student's with `probability`."""
        return probability * self.student + (1 - probability) * self.teacher


def step_work(cfg: Config) -> StepWork:
    """Count a configuration's step on shapes alone (`meta` device); nothing is computed and no weights are read."""
    compress = cfg.script == "compresstracker"
    net = (build_compressor(cfg, load=False) if compress else build_ostrack(cfg)).to("meta").train()
    actor = build_actor(cfg, net)
    boxes = torch.empty(1, 4, device="meta")
    batch = {"template": torch.empty(1, 3, *2 * [cfg.DATA.TEMPLATE.SIZE], device="meta"),
             "search": torch.empty(1, 3, *2 * [cfg.DATA.SEARCH.SIZE], device="meta"),
             "template_box": boxes, "search_box": boxes}
    if not compress:
        operations = _operations(lambda: actor(batch, 1, torch.Generator())[0])
        return StepWork(operations, operations)
    stages = len(net.stages)
    return StepWork(student=_operations(lambda: actor.loss_of(batch, [True] * stages, 1.0)[0]),
                    teacher=_operations(lambda: actor.loss_of(batch, [False] * stages, 1.0)[0]))


def _operations(loss: Callable[[], torch.Tensor]) -> float:
    """Operations of computing a loss and its gradients. Attention is run unfused: the counter knows no fused kernel of
    the meta device."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss().backward()
    return float(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations per second of a large square matrix product on `device`: the best of several."""
    side = MATRIX_SIDE[device.type]
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2.0 * side**3 / _best_time(lambda: one @ other, device)


def memory_rate(device: torch.device) -> float:
    """Bytes per second that `device` reads and writes in a large copy: the best of several."""
    source = torch.empty(COPIED_BYTES[device.type], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return 2.0 * source.numel() / _best_time(lambda: target.copy_(source), device)


def optimizer_bytes(net: nn.Module) -> int:
    """Bytes that an AdamW step moves at the least: weight, gradient and two moments read, all but the gradient written,
    for every parameter that learns."""
    return sum(7 * parameter.numel() * parameter.element_size()
               for parameter in net.parameters() if parameter.requires_grad)


def _best_time(call: Callable[[], object], device: torch.device) -> float:
    """Shortest of the calls that fit into SECONDS, at least three after two that warm up."""
    best, begin, calls = float("inf"), 0.0, 0
    while calls < 5 or time.perf_counter() - begin < SECONDS:
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        if calls == 2:
            begin = start
        if calls >= 2:
            best = min(best, time.perf_counter() - start)
        calls += 1
    return best
