"""OSTrack's model (Ye et al., ECCV 2022): a ViT that template and search tokens pass together, and a box head."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from timm.layers import PatchEmbed, build_sincos2d_pos_embed, trunc_normal_
from torch import nn

from ...models.heads import build_head
from ...models.layers.resampling import resample
from ...models.one_stream import OneStreamBackbone, OneStreamTracker
from ..base import Shape
from ..one_stream import one_stream_layers

if TYPE_CHECKING:
    from ...config import Config


def build(cfg: "Config", shape: Shape, drop_rates: Sequence[float]) -> OneStreamTracker:
    """See `lib.families.Family.build`."""
    backbone, data, head = cfg.MODEL.BACKBONE, cfg.DATA, cfg.MODEL.HEAD
    layers = one_stream_layers(cfg, shape, drop_rates)
    vit = ViTBackbone(layers, shape.embed_dim, patch_size=backbone.STRIDE, image_size=backbone.IMG_SIZE,
                      template_size=data.TEMPLATE.SIZE, search_size=data.SEARCH.SIZE)
    channels = cfg.MODEL.NUM_CHANNELS if head.TYPE == "CORNER" else head.NUM_CHANNELS
    return OneStreamTracker(vit, build_head(head.TYPE, shape.embed_dim, channels))


class ViTBackbone(OneStreamBackbone):
    """A ViT whose keys are those of the official checkpoints.

    Args:
        layers: in order.
        dim: width of the tokens.
        patch_size: side of a patch in pixels, also the stride.
        image_size: side of the image that the raw `pos_embed` (and an ImageNet or MAE checkpoint) belongs to.
        template_size, search_size: sides of the crops in pixels.
    """

    def __init__(self, layers: Sequence[nn.Module], dim: int, *, patch_size: int, image_size: int, template_size: int,
                 search_size: int):
        patch_embed = PatchEmbed(img_size=None, patch_size=patch_size, embed_dim=dim)
        super().__init__(patch_embed, layers, stride=patch_size, template_size=template_size, search_size=search_size,
                         embed_dim=dim, eps=1e-6)
        self.raw_grid = image_size // patch_size
        # The class token and the raw positions are never used by the tracker; they are kept, frozen, because the
        # official files hold them, and `pos_embed_z`/`pos_embed_x` are made from the latter.
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.raw_grid**2, dim), requires_grad=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Truncated normal weights, and the fixed 2-D sine-cosine positions that MAE starts from."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(self.norm.weight.numel(), -1))
        dim = self.pos_embed.shape[-1]
        if dim % 4 == 0:
            grid = build_sincos2d_pos_embed([self.raw_grid, self.raw_grid], dim=dim)
            self.pos_embed[0, 1:] = grid.reshape(-1, dim)
        else:
            trunc_normal_(self.pos_embed, std=0.02)
        self.reset_positions()

    @torch.no_grad()
    def reset_positions(self) -> None:
        """Make the template's and the search's positions from the raw ones, bicubically resized (as OSTrack does)."""
        for target, grid in ((self.pos_embed_z, self.template_grid), (self.pos_embed_x, self.search_grid)):
            target.copy_(resample(self.pos_embed[:, 1:], self.raw_grid, grid, mode="bicubic"))
