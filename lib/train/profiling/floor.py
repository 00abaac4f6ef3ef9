"""What a training step has to compute and to move: with the rates of :mod:`lib.deploy.rates`, the floor of its time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...config import Config
from ...families.build import build_for_train
from ..actors import build_actor


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
    compress = cfg.compresses
    cfg = cfg.with_overrides({"COMPRESS.TEACHER_DTYPE": "same"})  # the number format changes no count
    net = build_for_train(cfg, load=False).to("meta").train()
    actor = build_actor(cfg, net)
    batch = {}
    for name, view in (("template", cfg.DATA.TEMPLATE), ("search", cfg.DATA.SEARCH)):
        batch[name] = torch.empty(1, view.NUMBER, 3, view.SIZE, view.SIZE, device="meta").squeeze(1)
        batch[f"{name}_box"] = torch.empty(1, view.NUMBER, 4, device="meta").squeeze(1)
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


def optimizer_bytes(net: nn.Module) -> int:
    """Bytes that an AdamW step moves at the least: weight, gradient and two moments read, all but the gradient written,
    for every parameter that learns."""
    return sum(7 * parameter.numel() * parameter.element_size()
               for parameter in net.parameters() if parameter.requires_grad)
