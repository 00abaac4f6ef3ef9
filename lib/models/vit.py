"""The ViT of one-stream trackers that start from MAE (OSTrack and its successors)."""

from collections.abc import Sequence

import torch
from timm.layers import PatchEmbed, build_sincos2d_pos_embed, trunc_normal_
from torch import nn

from .layers.resampling import resample
from .layers.start import start_linear
from .one_stream import OneStreamBackbone


class ViTBackbone(OneStreamBackbone):
    """A ViT whose keys are those of the official checkpoints.

    Args:
        layers: in order.
        dim: width of the tokens.
        patch_size: side of a patch in pixels, also the stride.
        image_size: side of the image that the raw `pos_embed` (and an ImageNet or MAE checkpoint) belongs to.
        template_size, search_size: sides of the crops in pixels.
        class_token: the class token takes part and has a position of its own, `cls_pos_embed`.
    """

    def __init__(self, layers: Sequence[nn.Module], dim: int, *, patch_size: int, image_size: int, template_size: int,
                 search_size: int, class_token: bool = False):
        patch_embed = PatchEmbed(img_size=None, patch_size=patch_size, embed_dim=dim)
        super().__init__(patch_embed, layers, stride=patch_size, template_size=template_size, search_size=search_size,
                         embed_dim=dim, eps=1e-6)
        self.raw_grid = image_size // patch_size
        # What is never used by the tracker, the raw positions and mostly the class token, is kept, frozen, because the
        # official files hold it, and the other positions are made from the raw ones.
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=class_token)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.raw_grid**2, dim), requires_grad=False)
        self.cls_pos_embed = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Truncated normal weights, and the fixed 2-D sine-cosine positions that MAE starts from."""
        start_linear(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(self.norm.weight.numel(), -1))
        dim = self.pos_embed.shape[-1]
        if dim % 4 == 0:
            grid = build_sincos2d_pos_embed([self.raw_grid, self.raw_grid], dim=dim)
            self.pos_embed[0, 1:] = grid.reshape(-1, dim)
        else:
            trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token.requires_grad:
            trunc_normal_(self.cls_token, std=0.02)
        self.reset_positions()

    @torch.no_grad()
    def reset_positions(self) -> None:
        """Make the template's and the search's positions from the raw ones, bicubically resized (as OSTrack does), and
        the class token's."""
        for target, grid in ((self.pos_embed_z, self.template_grid), (self.pos_embed_x, self.search_grid)):
            target.copy_(resample(self.pos_embed[:, 1:], self.raw_grid, grid, mode="bicubic"))
        if self.cls_pos_embed is not None:
            self.cls_pos_embed.copy_(self.pos_embed[:, :1])
