"""VitTrack's model, as its graph in the OpenCV zoo (models/object_tracking_vittrack) has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from ...models.heads import build_head
from ...models.layers.start import start_linear
from ...models.one_stream import OneStreamBackbone, OneStreamTracker
from ..base import Shape
from ..one_stream import one_stream_layers

if TYPE_CHECKING:
    from ...config import Config

EPS = 1e-5
"""Of every LayerNorm."""


def build(cfg: "Config", shape: Shape, drop_rates: Sequence[float]) -> "VitTrackModel":
    """See `lib.families.Family.build`."""
    backbone, data, head = cfg.MODEL.BACKBONE, cfg.DATA, cfg.MODEL.HEAD
    stem = ConvStem(shape.embed_dim)
    layers = one_stream_layers(cfg, shape, drop_rates, EPS)
    vit = OneStreamBackbone(stem, layers, stride=backbone.STRIDE, template_size=data.TEMPLATE.SIZE,
                            search_size=data.SEARCH.SIZE, embed_dim=shape.embed_dim, eps=EPS)
    _initialise(vit)
    return VitTrackModel(vit, build_head(head.TYPE, shape.embed_dim, head.NUM_CHANNELS))


class ConvStem(nn.Module):
    """Four 3x3 convolutions of stride 2 with BatchNorm, Hardswish between them: a token for 16 x 16 pixels."""

    def __init__(self, embed_dim: int):
        super().__init__()
        widths = [3, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim]
        modules: list[nn.Module] = []
        for i, o in zip(widths, widths[1:], strict=False):
            modules += [nn.Conv2d(i, o, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(o), nn.Hardswish()]
        self.proj = nn.Sequential(*modules[:-1])

    def forward(self, crops: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 16 * W / 16, C)."""
        return self.proj(crops).flatten(2).transpose(1, 2)


class VitTrackModel(OneStreamTracker):
    """A one-stream tracker that reads the zoo's ONNX file too."""

    def read_foreign(self, path: Path) -> dict[str, Tensor] | None:
        from .weights import is_onnx, read_onnx

        return read_onnx(path, self) if is_onnx(path) else None


@torch.no_grad()
def _initialise(vit: OneStreamBackbone) -> None:
    """Truncated normal weights and 2-D sine-cosine positions."""
    start_linear(vit)
    for positions, grid in ((vit.pos_embed_z, vit.template_grid), (vit.pos_embed_x, vit.search_grid)):
        positions.copy_(build_sincos2d_pos_embed([grid, grid], dim=positions.shape[-1]).reshape(positions.shape))
