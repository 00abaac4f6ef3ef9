"""The pre-norm transformer layer of ViT trackers, on timm's block, which runs fused attention where there is any."""

from dataclasses import replace
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import nn

from ..base import Branch, Tokens
from .drop_path import DropPath
from .elimination import eliminate, template_attention


class EncoderLayer(Block):
    """One layer over `Tokens`; with `keep_rate` < 1 it also eliminates candidates."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, keep_rate: float = 1.0,
                 eps: float = 1e-6):
        super().__init__(dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=eps))
        if drop_path > 0:
            self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)
        self.keep_rate = keep_rate

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What the layer adds to its tokens, all of it."""
        return (Branch("norm1", "attn.qkv", "attn.proj", self.attn.head_dim, copies=3),
                Branch("norm2", "mlp.fc1", "mlp.fc2"))

    def forward(self, tokens: Tokens) -> Tokens:
        normed = self.norm1(tokens.x)
        tokens = replace(tokens, x=tokens.x + self.drop_path1(self.attn(normed)))
        if self.keep_rate < 1:
            candidates = tokens.extra
            rate = self.keep_rate if candidates.keep_rate is None else candidates.keep_rate
            if rate < 1:
                with torch.no_grad():
                    votes = template_attention(self.attn, replace(tokens, x=normed))
                tokens = eliminate(tokens, votes, rate)
        return replace(tokens, x=tokens.x + self.drop_path2(self.mlp(self.norm2(tokens.x))))
