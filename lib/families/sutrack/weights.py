"""Fast-iTPN's weights to start from."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...models.checkpoint import (
    candidates_in,
    choose,
    load_weights,
    read_checkpoint,
    some,
    state_dicts,
    wrong_tensor,
)
from ...models.layers.resampling import resample
from ...utils.errors import UserError
from .model import CHANNELS, FastITPN, SUTrackModel


def load_fast_itpn(model: SUTrackModel, path: Path) -> None:
    """Start a backbone from Fast-iTPN's weights, in place; a checkpoint of a tracker gives its whole model.

    As officially: the patch convolution has half of the file's weights for each three of its six channels; positions
    of a smaller grid are the top left ones of the file's grid, of a larger one they are interpolated (bicubic, corners
    aligned); what the file does not have (types of tokens, the last norm) keeps its start.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    content = read_checkpoint(path)
    if any(".pos_embed" in name for _, state in state_dicts(content, ("encoder", "decoder")) for name in state):
        load_weights(model, path)
        return
    body = model.body
    own = body.state_dict()
    state = choose(candidates_in(content, ("patch_embed", "blocks"), path), lambda state: _problem(state, own),
                   path).state
    if state["patch_embed.proj.weight"].shape[1] == CHANNELS // 2:
        state["patch_embed.proj.weight"] = torch.cat([state["patch_embed.proj.weight"] / 2] * 2, dim=1)
    state["pos_embed"] = _positions(state["pos_embed"], body)
    used = {name: value for name, value in state.items() if name in own}
    problem = wrong_tensor(used, own)
    if problem:
        raise UserError(f"{path} {problem}")
    body.load_state_dict(used, strict=False)


def _positions(raw: Tensor, body: FastITPN) -> Tensor:
    """(1, n * n, C) positions -> (1, Lx + Lz, C): the search region's, then the template's."""
    side, raw = math.isqrt(raw.shape[1]), raw.float()
    corner = raw.unflatten(1, (side, side))                                            # (1, n, n, C)
    return torch.cat([resample(raw, side, wanted, "bicubic", align_corners=True) if wanted > side
                      else corner[:, :wanted, :wanted].flatten(1, 2)
                      for wanted in (body.search_grid, body.template_grid)], dim=1)


def _problem(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Why a backbone with the state `own` cannot start from a state dict, and what to do; empty where it can."""
    needed = [name for name in own if name.startswith(("patch_embed.", "blocks.")) or name == "pos_embed"]
    lacks = [name for name in needed if name not in state]
    if lacks:
        return (f"is not the Fast-iTPN of the configuration: it lacks {some(lacks)}; its first entries are "
                f"{some(state)}. Choose the file or the MODEL.BACKBONE.TYPE that belongs to the other")
    positions = state["pos_embed"]
    if positions.dim() != 3 or math.isqrt(positions.shape[1]) ** 2 != positions.shape[1]:
        return (f"has positions of shape {tuple(positions.shape)}; expected a square grid, (1, side * side, width), as "
                "Fast-iTPN's files have")
    return ""
