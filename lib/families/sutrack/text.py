"""The text token of a tracker that is told no words.

The official tracker feeds CLIP's text tower with 77 ids that are 0 where there is no text. The tower reads its answer
at the largest id, that is at the first position, and no position sees a later one; so the answer is one constant, which
an official checkpoint holds as the weights of the tower and which is kept here as a number for each channel.
"""

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

TEXT_WIDTH = 768
"""Width of CLIP's ViT-L/14 text tower and of its answer."""


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
    tower = {name: value.float() for name, value in tower.items() if not name.startswith("visual.")}

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], tower[f"{name}.weight"], tower[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, tower[f"{name}.weight"], tower[f"{name}.bias"])

    x = tower["token_embedding.weight"][:1] + tower["positional_embedding"][:1]                         # (1, 768)
    width = x.shape[1]
    for number in itertools.count():
        block = f"transformer.resblocks.{number}"
        if f"{block}.ln_1.weight" not in tower:
            break
        weight, bias = tower[f"{block}.attn.in_proj_weight"], tower[f"{block}.attn.in_proj_bias"]
        value = F.linear(norm(f"{block}.ln_1", x), weight[2 * width:], bias[2 * width:])    # queries, keys, values
        x = x + linear(f"{block}.attn.out_proj", value)
        hidden = linear(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x))
        x = x + linear(f"{block}.mlp.c_proj", hidden * (1.702 * hidden).sigmoid())
    return norm("ln_final", x) @ tower["text_projection"]
