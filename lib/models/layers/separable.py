"""Separable attention over template and search tokens: the layers of SMAT (Gopal and Amer, WACV 2024, goutamyg/SMAT),
which take them from MobileViTv2 (Mehta and Rastegari, 2022). State-dict names are SMAT's.

Its attention is linear in the number of tokens: one query channel scores every token, the scores weigh the keys to one
context vector, and the context scales every token's value. GroupNorm with one group normalises over all tokens of an
image at once, so what comes behind it for the template depends on the search region and cannot be kept.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..base import Tokens
from .drop_path import DropPath


class _Conv(nn.Module):
    """A convolution with what follows it, under SMAT's names (`block.conv`, `block.norm`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, norm: bool = False,
                 bias: bool = False, relu: bool = False):
        super().__init__()
        parts = {"conv": nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)}
        parts |= {"norm": nn.BatchNorm2d(outputs)} if norm else {}
        parts |= {"act": nn.ReLU()} if relu else {}
        self.block = nn.Sequential()
        for name, part in parts.items():
            self.block.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class _SeparableAttention(nn.Module):
    """The attention alone, without residual: (B, C, P, N) -> (B, C, P, N)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.qkv_proj = _Conv(dim, 1 + 2 * dim, bias=True)
        self.out_proj = _Conv(dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv_proj(x).split([1, self.dim, self.dim], dim=1)
        context = (key * query.softmax(dim=-1)).sum(dim=-1, keepdim=True)       # (B, C, P, 1)
        return self.out_proj(value.relu() * context)


class SeparableLayer(nn.Module):
    """One layer: attention and MLP of hidden width 2 C with ReLU, each behind a norm over all tokens, with residuals.

    Args:
        dim: width C.
        drop_path: rate, of both residual branches.
    """

    def __init__(self, dim: int, drop_path: float = 0.0):
        super().__init__()
        hidden = 2 * dim // 16 * 16
        self.pre_norm_attn = nn.Sequential(nn.GroupNorm(1, dim), _SeparableAttention(dim))
        self.pre_norm_ffn = nn.Sequential(nn.GroupNorm(1, dim), _Conv(dim, hidden, bias=True, relu=True), nn.Identity(),
                                          _Conv(hidden, dim, bias=True))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, P, N) -> the same; P pixels in each of N patches, which meet in the norms only."""
        x = x + self.drop_path(self.pre_norm_attn(x))
        return x + self.drop_path(self.pre_norm_ffn(x))


class SeparableBlock(nn.Module):
    """SMAT's block: a local convolution to an inner width, layers over the patches, and a projection back. It has no
    residual around it.

    Args:
        dim: width C of the maps.
        inner: width U of the layers.
        layers: how many.
        patch: side of a patch in tokens.
        mix: template and search tokens pass the layers together; else apart.
    """

    def __init__(self, dim: int, inner: int, layers: int = 1, patch: int = 2, mix: bool = True):
        super().__init__()
        self.patch, self.mix = patch, mix
        self.local_rep = nn.Sequential(_Conv(dim, dim, 3, groups=dim, norm=True, relu=True), _Conv(dim, inner))
        self.global_rep = nn.Sequential(*(SeparableLayer(inner) for _ in range(layers)), nn.GroupNorm(1, inner))
        self.conv_proj = _Conv(inner, dim, norm=True)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, s, s) of square pictures, their sides multiples of the patch's -> the same."""
        patches = [to_patches(self.local_rep(x), self.patch) for x in maps]
        if self.mix:
            lengths = [x.shape[-1] for x in patches]
            patches = list(self.global_rep(torch.cat(patches, dim=-1)).split(lengths, dim=-1))
        else:
            patches = [self.global_rep(x) for x in patches]
        return [self.conv_proj(to_map(x, self.patch)) for x in patches]


def to_patches(x: Tensor, patch: int) -> Tensor:
    """(B, C, s, s) -> (B, C, P, N): pixels within a patch and patches, both row by row."""
    return x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(2, 3)


def to_map(x: Tensor, patch: int) -> Tensor:
    """The opposite of `to_patches`."""
    side = round(x.shape[-1] ** 0.5)
    return x.unflatten(3, (side, side)).unflatten(2, (patch, patch)).permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)


def _maps(tokens: Tokens) -> list[Tensor]:
    """Each segment's tokens as a map (B, C, s, s)."""
    return [tokens.part(segment.name).transpose(1, 2).unflatten(2, (segment.grid, segment.grid))
            for segment in tokens.segments]


def _with_maps(tokens: Tokens, maps: Sequence[Tensor]) -> Tokens:
    return replace(tokens, x=torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2))


class SeparableTokenLayer(SeparableLayer):
    """`SeparableLayer` over `Tokens` of square pictures.

    Args:
        patch: side of a patch in tokens; 1 lets all tokens make one context.
    """

    def __init__(self, dim: int, drop_path: float = 0.0, patch: int = 1):
        super().__init__(dim, drop_path)
        self.patch = patch

    def forward(self, tokens: Tokens) -> Tokens:
        patches = [to_patches(x, self.patch) for x in _maps(tokens)]
        lengths = [x.shape[-1] for x in patches]
        done = super().forward(torch.cat(patches, dim=-1)).split(lengths, dim=-1)
        return _with_maps(tokens, [to_map(x, self.patch) for x in done])


class SeparableTokenBlock(SeparableBlock):
    """`SeparableBlock` over `Tokens` of square pictures."""

    def forward(self, tokens: Tokens) -> Tokens:
        return _with_maps(tokens, super().forward(_maps(tokens)))
