"""The text token of a tracker that is told no words.

The official tracker feeds CLIP's text tower with 77 ids that are 0 where there is no text. The tower reads its answer
at the largest id, that is at the first position, and no position sees a later one; so the answer is one constant, which
an official checkpoint holds as the weights of the tower and which is kept here as a number for each channel.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

TEXT_WIDTH, TEXT_BLOCKS = 768, 12
"""Of CLIP's ViT-L/14 text tower; its answer has the same width."""


class TextEncoder(nn.Module):
    """The constant answer of CLIP's tower and the projection of it that SUTrack learns.

    Attributes:
        feature: (1, 768) the answer; zeros where a training starts without CLIP, so that the token is what
            `text_proj.bias` learns.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.text_proj = nn.Linear(TEXT_WIDTH, dim)
        trunc_normal_(self.text_proj.weight, std=0.02)
        nn.init.zeros_(self.text_proj.bias)
        self.register_buffer("feature", torch.zeros(1, TEXT_WIDTH))

    def forward(self) -> Tensor:
        """(1, 1, C) token."""
        return self.text_proj(self.feature).unsqueeze(1)


@torch.no_grad()
def feature_without_words(tower: Mapping[str, Tensor]) -> Tensor:
    """(1, 768) answer of CLIP's text tower (Radford et al., 2021) to ids that are all 0, in float32.

    With one position in sight attention is the identity: what it gives is the value itself.

    Args:
        tower: the weights, with CLIP's names.

    Raises:
        KeyError: an entry is missing.
    """
    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], tower[f"{name}.weight"].float(), tower[f"{name}.bias"].float())

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, tower[f"{name}.weight"].float(), tower[f"{name}.bias"].float())

    x = tower["token_embedding.weight"][:1].float() + tower["positional_embedding"][:1].float()         # (1, 768)
    for number in range(TEXT_BLOCKS):
        block = f"transformer.resblocks.{number}"
        *_, weight = tower[f"{block}.attn.in_proj_weight"].float().chunk(3)     # of queries, keys and values
        *_, bias = tower[f"{block}.attn.in_proj_bias"].float().chunk(3)
        value = F.linear(norm(f"{block}.ln_1", x), weight, bias)
        x = x + linear(f"{block}.attn.out_proj", value)
        hidden = linear(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x))
        x = x + linear(f"{block}.mlp.c_proj", hidden * (1.702 * hidden).sigmoid())
    return norm("ln_final", x) @ tower["text_projection"].float()
