"""Fast-iTPN's blocks (Tian et al., Fast-iTPN: Integrally Pre-Trained Transformer Pyramid Network with Token Migration),
with the names of its files."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.base import Tokens
from ...models.layers.drop_path import DropPath

EPS = 1e-6
"""Of every LayerNorm."""
INITIAL_GAMMA = 0.1
"""Of the layer scales."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvMlp(nn.Module):
    """Two 1x1 convolutions with GELU and a norm between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.ffn_ln = ChannelNorm(hidden, eps=EPS)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.fc2(self.ffn_ln(F.gelu(self.fc1(x))))


class ConvBlock(nn.Module):
    """A block of the early stages: a residual MLP at each place of a map (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm2 = ChannelNorm(dim, eps=EPS)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Merge(nn.Module):
    """The end of an early stage: (B, C, H, W) -> (B, 2 * C, H / 2, W / 2)."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = ChannelNorm(dim, eps=EPS)
        self.reduction = nn.Conv2d(dim, 2 * dim, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(x))


def early_stages(dim: int, blocks: Sequence[int], mlp_ratio: float, drop_rates: Sequence[float]) -> list[nn.Module]:
    """The modules between the patch convolution and the main blocks.

    Args:
        dim: width of the main blocks; the stages have a quarter and half of it.
        blocks: number of blocks of the two stages.
        drop_rates: drop-path rate of each block.
    """
    rates, modules = iter(drop_rates), []
    for number, width in zip(blocks, (dim // 4, dim // 2), strict=True):
        modules += [ConvBlock(width, mlp_ratio, next(rates)) for _ in range(number)]
        modules.append(Merge(width))
    return modules


class Attention(nn.Module):
    """Attention of all tokens to all, with separate projections; keys have no bias.

    Attributes:
        fused_attn: PyTorch's fused operator; else two matrix products and a softmax.
    """

    fused_attn = True

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> the same."""
        projected = (F.linear(x, self.q_proj.weight, self.q_bias), F.linear(x, self.k_proj.weight),
                     F.linear(x, self.v_proj.weight, self.v_bias))
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in projected)  # (B, heads, L, d)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """A gated MLP with a norm before its last layer."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=EPS)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> the same."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class MainLayer(nn.Module):
    """A main block: the layer that a compression replaces."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.full((dim,), INITIAL_GAMMA))
        self.gamma_2 = nn.Parameter(torch.full((dim,), INITIAL_GAMMA))
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = SwiGLU(dim, int(dim * mlp_ratio))
        self.drop_path1, self.drop_path2 = (DropPath(drop_path) if drop_path > 0 else nn.Identity() for _ in range(2))

    def forward(self, tokens: Tokens) -> Tokens:
        x = tokens.x + self.drop_path1(self.gamma_1 * self.attn(self.norm1(tokens.x)))
        return replace(tokens, x=x + self.drop_path2(self.gamma_2 * self.mlp(self.norm2(x))))
