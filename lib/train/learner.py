"""A network with all that changes it: what a configuration's training is made of besides its data."""

from typing import NamedTuple

import torch
from torch import nn

from ..config import Config
from .actors import Actor, build_actor
from .average import WeightAverage
from .batch import BatchPlan, rate_factor
from .distributed import World
from .schedule import LearningRate, build_learning_rate, build_optimizer
from .speed import apply_switches
from .sync_norm import synchronise_norms


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
        UserError: nothing is to be trained, or torch.compile is asked for and does not work.
    """
    net = net.to(device)
    if cfg.TRAIN.SYNC_BN:
        synchronise_norms(net, world)
    apply_switches(cfg, net, device)
    actor = build_actor(cfg, net)
    scaled = cfg.TRAIN.AMP and cfg.TRAIN.AMP_DTYPE == "float16"
    return Learner(
        net, actor, build_optimizer(cfg, actor.parameter_groups(), rate_factor(cfg, batch.total)),
        build_learning_rate(cfg), torch.amp.GradScaler(device.type, enabled=scaled),
        WeightAverage(actor.model_for_saving(), cfg.TRAIN.EMA) if cfg.TRAIN.EMA else None)
