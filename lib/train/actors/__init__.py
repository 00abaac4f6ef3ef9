"""Actors: one batch in, a loss and its terms out."""

from torch import nn

from ...config import Config
from ...models.compress import Compressor
from .base import Actor, Prepared
from .compresstracker import CompressActor
from .tracker import TrackerActor


def build_actor(cfg: Config, net: nn.Module) -> Actor:
    """The actor for `net` (a tracker or a `Compressor`, wrapped for distribution or not)."""
    inner = getattr(net, "module", net)
    return CompressActor(cfg, net) if isinstance(inner, Compressor) else TrackerActor(cfg, net)


__all__ = ["Actor", "CompressActor", "TrackerActor", "Prepared", "build_actor"]
