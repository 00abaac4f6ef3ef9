"""ViT weights to start from: MAE's and timm's files into an OSTrack."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from ...models.checkpoint import copy_weights, load_weights, read_checkpoint, state_dict
from ...models.one_stream import OneStreamTracker
from ...utils.errors import UserError


def load_mae(model: OneStreamTracker, path: str | Path) -> None:
    """Start a backbone from MAE or timm ViT weights, in place.

    The first layers are used where the model is shallower than the file; the patch embedding is resized bicubically
    where the patch size differs; the positions are resized to the template's and the search's grids. An OSTrack
    checkpoint is accepted too and gives its whole model (as official configurations do).

    Raises:
        UserError: the file cannot be read or is of another width.
    """
    path = Path(path)
    state = state_dict(read_checkpoint(path), path)
    if any(name.startswith("backbone.") for name in state):
        load_weights(model, path)
        return
    backbone = model.backbone
    own = backbone.state_dict()
    weight = state.get("patch_embed.proj.weight")
    if weight is None:
        raise UserError(f"{path} holds no ViT (no patch_embed.proj.weight); expected MAE or timm ViT weights")
    if weight.shape[0] != model.embed_dim:
        raise UserError(f"{path} is a ViT of width {weight.shape[0]}, the configured backbone has {model.embed_dim}; "
                        "choose another MODEL.BACKBONE.TYPE or file")
    size = (backbone.stride, backbone.stride)
    if weight.shape[-2:] != size:
        state["patch_embed.proj.weight"] = F.interpolate(weight, size=size, mode="bicubic", align_corners=False)
    raw = state.get("pos_embed")
    if raw is not None and raw.shape != own["pos_embed"].shape:
        side = math.isqrt(max(raw.shape[1] - 1, 0)) if raw.dim() == 3 else 0
        if not 1 < 1 + side**2 == raw.shape[1]:
            raise UserError(f"{path} has a pos_embed of shape {tuple(raw.shape)}; expected a class token and a square "
                            "grid, (1, 1 + side * side, width), as MAE and timm's ViTs have")
        grid = raw[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(backbone.raw_grid, backbone.raw_grid), mode="bicubic", align_corners=False)
        state["pos_embed"] = torch.cat([raw[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    used = {name: value for name, value in state.items() if name in own}
    missing = [name for name in own if name not in used and not name.startswith(("pos_embed_", "norm."))]
    if missing:
        raise UserError(f"{path} lacks {len(missing)} entries of a ViT with {model.depth} layers (first {missing[0]}); "
                        "expected MAE or timm ViT weights of at least this depth")
    copy_weights(backbone, used, path)
    backbone.reset_positions()
