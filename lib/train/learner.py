"""A network with all that changes it: what a configuration's training is made of besides its data."""

from typing import NamedTuple

import torch
from torch import nn

from ..config import Config
from ..utils.errors import UserError
from .actors import Actor, build_actor
from .average import WeightAverage
from .batch import BatchPlan, rate_factor
from .distributed import World
from .schedule import LearningRate, build_learning_rate, build_optimizer
from .speed import apply_switches


class Learner(NamedTuple):
    """What the loop steps.

    Attributes:
        net: the network, on its device.
        actor: turns batches into losses.
        optimizer, learning_rate: change the weights.
        scaler: of the loss, enabled for float16 only.
        average: the weights' average (TRAIN.EMA), None without.
    """

    net: nn.Module
    actor: Actor
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    scaler: torch.amp.GradScaler
    average: WeightAverage | None


def build_learner(cfg: Config, net: nn.Module, batch: BatchPlan, world: World, device: torch.device) -> Learner:
    """Move `net` to `device` and set it up as the configuration asks for.

    Raises:
        UserError: nothing is to be trained, TRAIN.SYNC_BN or torch.compile is asked for and does not work.
    """
    net = net.to(device)
    if cfg.TRAIN.SYNC_BN and world.size > 1:
        if device.type != "cuda":
            raise UserError(f"TRAIN.SYNC_BN with several processes needs GPUs (PyTorch's SyncBatchNorm), not {device}; "
                            "set TRAIN.SYNC_BN=false, or train with one process")
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    apply_switches(cfg, net, device)
    actor = build_actor(cfg, net)
    scaled = cfg.TRAIN.AMP and cfg.TRAIN.AMP_DTYPE == "float16"
    return Learner(
        net, actor, build_optimizer(cfg, actor.parameter_groups(), rate_factor(cfg, batch.total)),
        build_learning_rate(cfg), torch.amp.GradScaler(device.type, enabled=scaled),
        WeightAverage(actor.model_for_saving(), cfg.TRAIN.EMA) if cfg.TRAIN.EMA else None)
