"""What a layer of the tracker looks at."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...models.layers.elimination import template_attention
from ...models.layers.encoder import EncoderLayer
from ...models.one_stream import OneStreamTracker
from ...utils.errors import UserError


class AttentionProbe:
    """Context manager that keeps how much the template attends to each search token in one layer, at every pass.

    The attention is the mean over heads and template tokens (with candidate elimination: over the template tokens that
    decide it), taken from the layer's own weights; the layer itself runs as it always does.

    Args:
        model: the tracker's model.
        layer: number of the layer, from 0; negative numbers count from the last, -1.

    Attributes:
        layer: its number from 0.
        map: (S, S) float32 of the last pass, at least 0, sum at most 1; NaN for search tokens that layers before had
            eliminated. None before the first pass.

    Raises:
        UserError: the model is no one-stream tracker, or has no such layer.
    """

    def __init__(self, model: Any, layer: int):
        if not isinstance(model, OneStreamTracker) or not isinstance(model.layers[0], EncoderLayer):
            raise UserError("attention maps need a one-stream tracker with attention layers, not "
                            f"{type(model).__name__}")
        if not -model.depth <= layer < model.depth:
            raise UserError(f"there is no layer {layer}: the model has {model.depth} layers, 0 to {model.depth - 1}")
        self.layer = layer % model.depth
        self.map: np.ndarray | None = None
        self._model = model
        self._hook: Any = None

    def __enter__(self) -> "AttentionProbe":
        self._hook = self._model.layers[self.layer].register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    @torch.no_grad()
    def _keep(self, layer: Any, arguments: tuple) -> None:
        """Runs before the layer, on its input."""
        tokens = arguments[0]
        votes = template_attention(layer.attn, replace(tokens, x=layer.norm1(tokens.x)))[0]
        side, kept = self._model.feat_size, tokens.extra.kept
        if kept is None:
            grid = votes
        else:
            grid = votes.new_full((side * side,), torch.nan)
            grid[kept[0]] = votes
        self.map = grid.reshape(side, side).float().cpu().numpy()
