"""The ViT backbone of OSTrack, on timm's layers (which run fused attention where the device has it)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, build_sincos2d_pos_embed, trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..base import Tokens
from ..layers.drop_path import DropPath
from ..layers.elimination import eliminate, restore, template_attention


class EncoderLayer(Block):
    """One pre-norm transformer layer over `Tokens`; with `keep_rate` < 1 it also eliminates candidates."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, keep_rate: float = 1.0):
        super().__init__(dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
        if drop_path > 0:
            self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)
        self.keep_rate = keep_rate

    def forward(self, tokens: Tokens) -> Tokens:
        normed = self.norm1(tokens.x)
        tokens = replace(tokens, x=tokens.x + self.drop_path1(self.attn(normed)))
        if self.keep_rate < 1:
            rate = self.keep_rate if tokens.keep_rate is None else tokens.keep_rate
            if rate < 1:
                with torch.no_grad():
                    votes = template_attention(self.attn, normed, tokens.template_length, tokens.template_mask)
                tokens = eliminate(tokens, votes, rate)
        return replace(tokens, x=tokens.x + self.drop_path2(self.mlp(self.norm2(tokens.x))))


class ViTBackbone(nn.Module):
    """Patch embedding, positions, layers and final norm; its keys are those of the official checkpoints.

    Args:
        embed_dim, num_heads, mlp_ratio: width of the ViT.
        drop_rates: drop-path rate of each layer; its length is the depth.
        patch_size: side of a patch in pixels, also the stride.
        image_size: side of the image that the raw `pos_embed` (and an ImageNet or MAE checkpoint) belongs to.
        template_size, search_size: sides of the crops in pixels.
        keep_rates: layer index -> share of search tokens that candidate elimination keeps there.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, mlp_ratio: float, drop_rates: Sequence[float],
                 patch_size: int, image_size: int, template_size: int, search_size: int,
                 keep_rates: dict[int, float] | None = None):
        super().__init__()
        keep_rates = keep_rates or {}
        self.patch_size = patch_size
        self.raw_grid = image_size // patch_size
        self.template_grid = template_size // patch_size
        self.search_grid = search_size // patch_size
        self.patch_embed = PatchEmbed(img_size=None, patch_size=patch_size, embed_dim=embed_dim)
        # The class token and the raw positions are never used by the tracker; they are kept, frozen, because the
        # official files hold them, and `pos_embed_z`/`pos_embed_x` are made from the latter.
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.raw_grid**2, embed_dim), requires_grad=False)
        self.pos_embed_z = nn.Parameter(torch.zeros(1, self.template_grid**2, embed_dim))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, self.search_grid**2, embed_dim))
        self.blocks = nn.ModuleList(
            EncoderLayer(embed_dim, num_heads, mlp_ratio, rate, keep_rates.get(index, 1.0))
            for index, rate in enumerate(drop_rates))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
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
        dim = self.pos_embed.shape[-1]
        raw = self.pos_embed[:, 1:].reshape(1, self.raw_grid, self.raw_grid, dim).permute(0, 3, 1, 2)
        for target, grid in ((self.pos_embed_z, self.template_grid), (self.pos_embed_x, self.search_grid)):
            resized = F.interpolate(raw, size=(grid, grid), mode="bicubic", align_corners=False)
            target.copy_(resized.flatten(2).transpose(1, 2))

    def embed(self, template: Tensor, search: Tensor, template_mask: Tensor | None, keep_rate: float | None) -> Tokens:
        """Crops (B, 3, h, w) and (B, 3, H, W) -> tokens (B, Lz + Lx, C)."""
        z = self.patch_embed(template) + self.pos_embed_z
        x = self.patch_embed(search) + self.pos_embed_x
        return Tokens(torch.cat([z, x], dim=1), z.shape[1], template_mask=template_mask, keep_rate=keep_rate)

    def search_features(self, tokens: Tokens) -> Tensor:
        """Final norm; the search tokens as a map (B, C, S, S), zeros where candidates were eliminated."""
        normed = replace(tokens, x=self.norm(tokens.x))
        search = restore(normed, self.search_grid**2)
        return search.transpose(1, 2).unflatten(2, (self.search_grid, self.search_grid))
