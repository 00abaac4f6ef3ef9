"""OSTrack as a staged tracker."""

from torch import Tensor, nn

from ..base import Prediction, StagedTracker, Tokens
from .vit import ViTBackbone


class OSTrack(StagedTracker):
    """ViT backbone and box head (OSTrack, ECCV 2022; repository botaoye/OSTrack).

    Args:
        backbone: patch embedding, positions, layers, final norm.
        head: (B, C, S, S) -> `Prediction`.
    """

    part_prefixes = {"embed": ("backbone.patch_embed.", "backbone.pos_embed", "backbone.cls_token"),
                     "layers": ("backbone.blocks.",), "norm": ("backbone.norm.",), "head": ("box_head.",)}

    def __init__(self, backbone: ViTBackbone, head: nn.Module):
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

    def embed(self, template: Tensor, search: Tensor, template_mask: Tensor | None = None,
              keep_rate: float | None = None) -> Tokens:
        return self.backbone.embed(template, search, template_mask, keep_rate)

    def compile_layers(self) -> None:
        """As `StagedTracker.compile_layers`; layers that eliminate candidates are left out: their shapes change."""
        for layer in self.layers:
            if layer.keep_rate == 1:
                layer.compile()

    def predict(self, tokens: Tokens) -> Prediction:
        return self.box_head(self.backbone.search_features(tokens))
