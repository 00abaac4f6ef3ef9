"""ViT weights to start from: MAE's, DINOv2's and timm's files into a one-stream tracker on a `ViTBackbone`."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.errors import UserError
from .checkpoint import (
    candidates_in,
    choose,
    load_weights,
    read_checkpoint,
    some,
    state_dicts,
    wrong_tensor,
)
from .layers.resampling import resample
from .one_stream import OneStreamTracker

LAYER_SCALES = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
"""Factors of a block's channels (LayerScale, as in DINOv2), and the projection whose outputs they multiply."""


def load_mae(model: OneStreamTracker, path: str | Path) -> None:
    """Start a backbone from MAE, DINOv2 or timm ViT weights, in place.

    LayerScale is multiplied into the projections before it. The first layers are used where the model is shallower than
    the file; the patch embedding is resized bicubically where the patch size differs; the positions are resized to the
    template's and the search's grids. A checkpoint of the tracker itself is accepted too and gives its whole model (as
    official configurations do).

    Raises:
        UserError: the file cannot be read or is of another width.
    """
    path = Path(path)
    content = read_checkpoint(path)
    names = (name for _, state in state_dicts(content, ("backbone", "box_head")) for name in state)
    if any("box_head." in name or name.endswith("pos_embed_x") for name in names):
        load_weights(model, path)
        return
    backbone = model.backbone
    own = backbone.state_dict()
    state = choose(vit_candidates(content, ("patch_embed", "blocks"), path), lambda state: _vit_problem(state, model),
                   path).state
    weight, raw = state["patch_embed.proj.weight"], state["pos_embed"]
    size = (backbone.stride, backbone.stride)
    if weight.shape[-2:] != size:
        weight = F.interpolate(weight.float(), size=size, mode="bicubic", align_corners=False)
        state["patch_embed.proj.weight"] = weight
    if raw.shape != own["pos_embed"].shape:
        side, raw = math.isqrt(raw.shape[1] - 1), raw.float()
        grid = resample(raw[:, 1:], side, backbone.raw_grid, mode="bicubic")
        state["pos_embed"] = torch.cat([raw[:, :1], grid], dim=1)
    used = {name: value for name, value in state.items() if name in own}
    problem = wrong_tensor(used, own)
    if problem:
        raise UserError(f"{path} {problem}")
    backbone.load_state_dict(used, strict=False)
    backbone.reset_positions()


def vit_candidates(content: Mapping[str, Any], parts: Sequence[str], path: Path) -> list:
    """`candidates_in`, with LayerScale multiplied into weights and biases: the same functions without it."""
    candidates = candidates_in(content, parts, path)
    for candidate in candidates:
        _fold_layer_scale(candidate.state)
    return candidates


def strange_part(state: Mapping[str, Tensor], own: Collection[str], depth: int) -> str:
    """An entry of a ViT that the first `depth` blocks of another one, with the entries `own`, have not, or that changes
    what they are given: without it the weights are another function. Empty where there is none."""
    blocks = tuple(f"blocks.{number}." for number in range(depth))
    return next((name for name in state if name not in own
                 and name.startswith((*blocks, "norm_pre.", "reg_token", "register_tokens"))), "")


def _fold_layer_scale(state: dict[str, Tensor]) -> None:
    """In place."""
    for name in [name for name in state if name.endswith(tuple(LAYER_SCALES))]:
        block, kind, _ = name.rsplit(".", 2)
        projection = LAYER_SCALES[f"{kind}.gamma"]
        if f"{block}.{projection}.weight" not in state:
            continue        # no block of a ViT
        factors = state.pop(name).float()
        for part, shape in (("weight", (-1, 1)), ("bias", (-1,))):
            state[f"{block}.{projection}.{part}"] = state[f"{block}.{projection}.{part}"].float() * factors.view(shape)


def _vit_problem(state: Mapping[str, Tensor], model: OneStreamTracker) -> str:
    """Why the model's backbone cannot start from a state dict, and what to do; empty where it can."""
    own = model.backbone.state_dict()
    needed = [name for name in own if not name.startswith(("pos_embed_", "cls_pos_embed", "norm."))]
    weight, raw = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if weight is None or weight.dim() != 4:
        return (f"holds no ViT (no patch_embed.proj.weight): its first entries are {some(state)}; expected "
                f"{some(needed)}, as MAE and timm's ViTs have")
    if weight.shape[0] != model.embed_dim:
        return (f"is a ViT of width {weight.shape[0]}, the configured backbone has {model.embed_dim}; choose another "
                "MODEL.BACKBONE.TYPE or file")
    lacks = [name for name in needed if name not in state]
    if lacks:
        return (f"lacks {len(lacks)} entries of a ViT with {model.depth} layers (first {lacks[0]}); expected MAE or "
                "timm ViT weights of at least this depth")
    strange = strange_part(state, own, model.depth)
    if strange:
        return (f"is another kind of ViT: it has {strange}, which the configured backbone has not; expected MAE, "
                "DINOv2 or timm ViT weights")
    side = math.isqrt(max(raw.shape[1] - 1, 0)) if raw.dim() == 3 else 0
    if not 1 < 1 + side**2 == raw.shape[1]:
        return (f"has a pos_embed of shape {tuple(raw.shape)}; expected a class token and a square grid, "
                "(1, 1 + side * side, width), as MAE and timm's ViTs have")
    return ""
