"""Weights that a SeqTrack starts from."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...models.checkpoint import choose, load_weights, read_checkpoint, some, state_dicts, wrong_tensor
from ...models.layers.resampling import resample
from ...models.vit_weights import strange_part, vit_candidates
from .model import SeqTrackModel


def load_start(model: SeqTrackModel, path: Path) -> None:
    """Start from a SeqTrack, or its encoder from MAE's or timm's ViT weights, in place.

    Of a ViT the first layers are used where the model is shallower; its positions, without the class token's, are
    resized bicubically, corner to corner as the official code does, once for the search region and once for the
    templates.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    content = read_checkpoint(path)
    parts = [name for name, _ in model.named_children()]
    if any(name.startswith("vocab_embed.") for _, state in state_dicts(content, parts) for name in state):
        load_weights(model, path)
        return
    body = model.encoder.body
    own = body.state_dict()
    needed = [name for name in own if name != "pos_embed"]

    def problem(state: Mapping[str, Tensor]) -> str:
        lacks = [name for name in (*needed, "pos_embed") if name not in state]
        if lacks:
            return (f"lacks {some(lacks)}, and has {some(state)}; expected a SeqTrack, or MAE or timm ViT weights "
                    f"of at least {model.depth} layers")
        strange = strange_part(state, own, model.depth)
        if strange:
            return f"is another kind of ViT: it has {strange}, which the encoder has not"
        return wrong_tensor({name: state[name] for name in needed}, own)

    state = choose(vit_candidates(content, ("patch_embed", "blocks"), path), problem, path).state
    raw = state["pos_embed"].float()[:, 1:]                     # (1, side * side, C)
    side = math.isqrt(raw.shape[1])
    resized = [resample(raw, side, grid, "bicubic", align_corners=True) for grid in model.encoder.grids]
    body.load_state_dict({name: state[name] for name in needed} | {"pos_embed": torch.cat(resized, dim=1)})
