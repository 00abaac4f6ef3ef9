"""The optimiser, and the learning rate as a plain function of the position in the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..config import Config
from ..utils.errors import UserError


def build_optimizer(cfg: Config, groups: Sequence[dict], factor: float = 1.0) -> torch.optim.Optimizer:
    """AdamW over an actor's parameter groups (each `params` and `lr`), every rate times `factor`.

    Raises:
        UserError: TRAIN.OPTIMIZER is something else, or nothing is to be trained.
    """
    if cfg.TRAIN.OPTIMIZER.upper() != "ADAMW":
        raise UserError(f"TRAIN.OPTIMIZER is {cfg.TRAIN.OPTIMIZER!r}; only ADAMW is available")
    groups = [{"params": list(group["params"]), "lr": group["lr"] * factor} for group in groups]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise UserError("no parameter is to be trained; check COMPRESS.TRAINABLE")
    return torch.optim.AdamW(groups, lr=cfg.TRAIN.LR, weight_decay=cfg.TRAIN.WEIGHT_DECAY,
                             fused=cfg.TRAIN.FUSED_OPTIMIZER or None)


@dataclass(frozen=True)
class LearningRate:
    """The factor on every group's base rate, at any step of any epoch.

    It keeps no state, so a resumed run continues it by knowing where it is. Epochs count from 1, steps from 0.

    Attributes:
        kind: `step` (times `gamma` after every `drop_epoch` epochs), `Mstep` (times `gamma` after each epoch of
            `milestones`) or `cosine` (from 1 to 0 between the end of the warm-up and the end of the run).
        epochs: length of the run.
        warmup: epochs (may be a fraction) over which the factor grows linearly from 0; 0 for none.
    """

    kind: str
    epochs: int
    drop_epoch: int = 1
    gamma: float = 0.1
    milestones: tuple[int, ...] = ()
    warmup: float = 0.0

    def factor(self, epoch: int, step: int, steps: int) -> float:
        """The factor for step `step` of the `steps` of epoch `epoch`."""
        done = epoch - 1
        position = done + step / steps
        if self.kind == "step":
            factor = self.gamma ** (done // self.drop_epoch)
        elif self.kind == "Mstep":
            factor = self.gamma ** sum(milestone <= done for milestone in self.milestones)
        else:
            progress = (position - self.warmup) / max(self.epochs - self.warmup, 1e-9)
            factor = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        if self.warmup > 0:
            factor *= min(1.0, (position + 1.0 / steps) / self.warmup)
        return factor


def build_learning_rate(cfg: Config) -> LearningRate:
    """The schedule that TRAIN.SCHEDULER, TRAIN.LR_DROP_EPOCH and TRAIN.WARMUP_EPOCH ask for.

    Raises:
        UserError: unknown TRAIN.SCHEDULER.TYPE.
    """
    scheduler = cfg.TRAIN.SCHEDULER
    common = {"epochs": cfg.TRAIN.EPOCH, "warmup": float(cfg.TRAIN.WARMUP_EPOCH)}
    if scheduler.TYPE == "step":
        return LearningRate("step", drop_epoch=max(1, cfg.TRAIN.LR_DROP_EPOCH), gamma=scheduler.DECAY_RATE, **common)
    if scheduler.TYPE == "Mstep":
        return LearningRate("Mstep", milestones=tuple(scheduler.MILESTONES), gamma=scheduler.GAMMA, **common)
    if scheduler.TYPE == "cosine":
        return LearningRate("cosine", **common)
    raise UserError(f"TRAIN.SCHEDULER.TYPE is {scheduler.TYPE!r}; choose step, Mstep or cosine")
