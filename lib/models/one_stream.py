"""One-stream trackers: template and search tokens pass the same layers, a head reads the search tokens.

What OSTrack has in common with the trackers of its shape. A family builds it with an embedding and layers of its own;
fast inference, export and profiling know this class, not the families.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Inputs, Prediction, Segment, StagedTracker, Tokens
from .layers.elimination import Candidates, restore
from .layers.encoder import EncoderLayer
from .layers.separable import SeparableTokenBlock, SeparableTokenLayer


def build_layers(kind: str, drop_rates: Sequence[float], *, embed_dim: int, num_heads: int, mlp_ratio: float,
                 patch: int = 1, keep_rates: Mapping[int, float] | None = None, eps: float = 1e-6) -> list[nn.Module]:
    """The layers of a backbone, one for each drop-path rate.

    Args:
        kind: MODEL.BACKBONE.LAYER: attention; separable; separable_block, of half the width inside (as in SMAT).
        patch: MODEL.BACKBONE.LAYER_PATCH.
        num_heads, mlp_ratio, keep_rates, eps: of attention layers; keep_rates: index of the layer -> share of the
            search tokens that candidate elimination keeps there.
    """
    if kind == "separable":
        return [SeparableTokenLayer(embed_dim, rate, patch) for rate in drop_rates]
    if kind == "separable_block":
        return [SeparableTokenBlock(embed_dim, embed_dim // 2, patch=patch) for _ in drop_rates]
    keep = keep_rates or {}
    return [EncoderLayer(embed_dim, num_heads, mlp_ratio, rate, keep.get(index, 1.0), eps)
            for index, rate in enumerate(drop_rates)]


class OneStreamBackbone(nn.Module):
    """Patch embedding, positions, layers and final norm.

    Args:
        patch_embed: crops (B, 3, H, W) -> (B, L, C) tokens, row by row.
        stride: side of a token in pixels.
        template_size, search_size: sides of the crops in pixels.
        layers: in order; their number is the depth.
        embed_dim: width C of the tokens.
        eps: of the final LayerNorm.
    """

    def __init__(self, patch_embed: nn.Module, layers: Sequence[nn.Module], *, stride: int, template_size: int,
                 search_size: int, embed_dim: int, eps: float):
        super().__init__()
        self.stride = stride
        self.template_grid, self.search_grid = template_size // stride, search_size // stride
        self.patch_embed = patch_embed
        self.pos_embed_z = nn.Parameter(torch.zeros(1, self.template_grid**2, embed_dim))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, self.search_grid**2, embed_dim))
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(embed_dim, eps=eps)

    @property
    def segments(self) -> tuple[Segment, Segment]:
        """Of all tokens, with one template: the template's, then the search region's."""
        return (Segment("template", self.template_grid**2, self.template_grid),
                Segment("search", self.search_grid**2, self.search_grid))

    def embed(self, inputs: Inputs) -> Tokens:
        """Crops -> tokens (B, T * Lz + Lx, C); the positions of all T templates are the same."""
        x = self.patch_embed(inputs.search) + self.pos_embed_x
        z = self.patch_embed(inputs.templates.flatten(0, 1)) + self.pos_embed_z         # (B * T, Lz, C)
        z = z.reshape(x.shape[0], -1, x.shape[2])
        template, search = self.segments
        segments = (template._replace(length=z.shape[1]), search)
        return Tokens(torch.cat([z, x], dim=1), segments, Candidates.of(inputs.further))

    def search_features(self, tokens: Tokens) -> Tensor:
        """Final norm; the search tokens as a map (B, C, S, S), zeros where candidates were eliminated."""
        normed = replace(tokens, x=self.norm(tokens.x))
        search = restore(normed, self.search_grid**2)
        return search.transpose(1, 2).unflatten(2, (self.search_grid, self.search_grid))


class OneStreamTracker(StagedTracker):
    """Backbone and box head; the names in the state dict are those of OSTrack's checkpoints.

    Args:
        backbone: patch embedding, positions, layers, final norm.
        head: (B, C, S, S) -> `Prediction`.
    """

    student_layers, teacher_prefix = "backbone.distill_blocks.", "ori_"
    unused = ("backbone.cls_token", "backbone.pos_embed")
    position_names = {"backbone.pos_embed_z": ("template",), "backbone.pos_embed_x": ("search",)}
    all_tokens = {"keep_rate": 1.0}
    part_prefixes = {"embed": ("backbone.patch_embed.", "backbone.pos_embed", "backbone.cls_token"),
                     "layers": ("backbone.blocks.",), "norm": ("backbone.norm.",), "head": ("box_head.",)}
    rearrangeable: ClassVar[bool] = True
    """Whether embedding and prediction are those of this class, which the fast module rearranges."""

    def __init__(self, backbone: OneStreamBackbone, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.box_head = head

    @property
    def layers(self) -> nn.ModuleList:
        return self.backbone.blocks

    @property
    def embed_dim(self) -> int:
        """Width C of the tokens."""
        return self.backbone.norm.normalized_shape[0]

    @property
    def feat_size(self) -> int:
        """Side S of the search grid."""
        return self.backbone.search_grid

    @property
    def template_feat_size(self) -> int:
        """Side of the template grid."""
        return self.backbone.template_grid

    @property
    def token_grids(self) -> dict[str, int]:
        return {segment.name: segment.grid for segment in self.backbone.segments}

    def embed(self, inputs: Inputs) -> Tokens:
        return self.backbone.embed(inputs)

    def token_places(self, tokens: Tokens) -> Tensor | None:
        kept = tokens.extra.kept
        if kept is None:
            return None
        first = tokens.place("search").start
        return torch.cat([torch.arange(first, device=kept.device).expand(len(kept), -1), first + kept], dim=1)

    def load_middle(self, wide: "OneStreamTracker", factor: float, factor_of_wide: float) -> None:
        """Take over the weights of the same tracker for search crops that show more of the picture at the same
        resolution.

        A token sees the same pixels in both, so its position is that which it has in the middle of the wide crop. What
        the head says in shares of the crop's side grows.

        Args:
            wide: that tracker; the family says whether it can be one (`Family.sees_middle`).
            factor, factor_of_wide: side of the search crops / sqrt(area of the target), of this tracker and of `wide`.
        """
        for part in self.part_prefixes:
            self.load_part(part, wide.state_dict(), wide.token_grids, middle=True)
        self.box_head.rescale(1 / factor_of_wide, 1 / factor)

    def compile_layers(self) -> None:
        """As `StagedTracker.compile_layers`; layers that eliminate candidates are left out: their shapes change."""
        for layer in self.layers:
            if getattr(layer, "keep_rate", 1) == 1:
                layer.compile()

    def predict(self, tokens: Tokens) -> Prediction:
        return self.box_head(self.backbone.search_features(tokens))
