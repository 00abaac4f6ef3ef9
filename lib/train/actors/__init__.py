"""Actors: one batch in, a loss and its terms out."""

from torch import nn

from lib.config import Config
from lib.models.compress import Compressor
from lib.train.actors.base import Actor, Prepared
from lib.train.actors.compresstracker import CompressActor
from lib.train.actors.ostrack import OSTrackActor


def build_actor(cfg: Config, net: nn.Module) -> Actor:
    """The actor for `net` (an `OSTrack` or a `Compressor`, wrapped for distribution or not)."""
    inner = getattr(net, "module", net)
    return CompressActor(cfg, net) if isinstance(inner, Compressor) else OSTrackActor(cfg, net)


__all__ = ["Actor", "CompressActor", "OSTrackActor", "Prepared", "build_actor"]
