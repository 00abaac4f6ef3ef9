"""ODTrack's model (Zheng et al., AAAI 2024): a one-stream ViT over a temporal token, any number of templates and the
search region. The token of a frame weighs its search tokens and enters the next frame."""

from dataclasses import replace

import torch

from ...models.base import Inputs, Prediction, Segment, Tokens
from ...models.layers.elimination import restore
from ...models.one_stream import OneStreamTracker
from ...models.vit import ViTBackbone

TOKEN = "track_query"
"""The temporal token's name in `Inputs.further` and `Prediction.further`, (B, 1, C); zeros are as good as none."""


class TokenBackbone(ViTBackbone):
    """A ViT whose sequence begins with the temporal token: [token | templates | search region]."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, class_token=True, **kwargs)

    def embed(self, inputs: Inputs) -> Tokens:
        """Crops and the token of the frame before -> tokens (B, 1 + T * Lz + Lx, C)."""
        tokens = super().embed(inputs)
        token = (self.cls_token + self.cls_pos_embed).expand(tokens.x.shape[0], -1, -1)     # (B, 1, C)
        if TOKEN in inputs.further:
            token = token + inputs.further[TOKEN]
        return replace(tokens, x=torch.cat([token, tokens.x], dim=1), segments=(Segment("token", 1), *tokens.segments))


class ODTrackModel(OneStreamTracker):
    """A `TokenBackbone` and a CENTER head. The names in the state dict are those of the official checkpoints."""

    unused = ("backbone.pos_embed",)
    part_prefixes = OneStreamTracker.part_prefixes | {
        "embed": (*OneStreamTracker.part_prefixes["embed"], "backbone.cls_pos_embed")}
    rearrangeable = False

    def predict(self, tokens: Tokens) -> Prediction:
        """Search tokens times their products with the frame's own token, through the head. `further` has that token,
        detached: no gradient flows from frame to frame."""
        normed = replace(tokens, x=self.backbone.norm(tokens.x))
        token, search = normed.part("token"), restore(normed, self.feat_size**2)        # (B, 1, C), (B, S * S, C)
        weighted = search * (search @ token.transpose(1, 2))
        features = weighted.transpose(1, 2).unflatten(2, (self.feat_size, self.feat_size))
        return self.box_head(features)._replace(further={TOKEN: token.detach()})
