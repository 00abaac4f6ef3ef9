"""Checkpoints: the official formats in and out, without ever running code from a file.

Layouts read (state-dict names):

- OSTrack (`net`): `backbone.blocks.i.*`, `box_head.*`;
- CompressTracker, slim (`net`): `backbone.distill_blocks.i.*` for the student's layers;
- CompressTracker, raw training checkpoint: the above, and `backbone.blocks.*`, `ori_backbone.*`, `ori_box_head.*` for
  the frozen teacher;
- MAE or timm ViT weights (`model`, or a bare state dict): `blocks.i.*`, `patch_embed.*`, `pos_embed`, `norm.*`.

A `module.` prefix (from DistributedDataParallel) is ignored. Slim files are written in the official layout.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config
from ..utils.errors import UserError
from ..utils.files import atomic_write
from .base import StagedTracker
from .safe_load import Placeholder, safe_load

STUDENT_LAYERS = "backbone.distill_blocks."
LAYERS = "backbone.blocks."
WEIGHTS = ("net", "model", "state_dict")
"""Where the formats keep the state dict."""


# ---------------------------------------------------------------- reading files

def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's dictionary, tensors on the CPU.

    The official training checkpoints also hold objects of their own classes; those are left out (see `safe_load`).

    Raises:
        UserError: the file is missing, truncated, or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} " + ("is a folder; name the file in it" if path.is_dir() else
                                                 "does not exist; check the path, or put the file there"))
    try:
        content = safe_load(path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; change its permissions") from error
    except Exception as error:  # damaged bytes make the readers of zip, pickle and tensors fail in any way
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint ({_first_line(error)}); it is truncated or of "
                        "another kind. Copy or download it again.") from error
    if not isinstance(content, Mapping):
        kind = "object" if isinstance(content, Placeholder) else type(content).__name__
        raise UserError(f"{path} holds one {kind}, not a dictionary with a state dict; expected an "
                        "OSTrack, CompressTracker or MAE checkpoint")
    return {key: value for key, value in content.items() if not isinstance(value, Placeholder)}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without `module.` prefixes."""
    for key in WEIGHTS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {name.removeprefix("module."): value for name, value in content.items()
             if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} holds no weights (looked for `net`, `model`, `state_dict` or tensors); expected an "
                        "OSTrack, CompressTracker or MAE checkpoint")
    return state


# ---------------------------------------------------------------- weights into models

def load_weights(model: StagedTracker, path: str | Path, role: str = "test") -> dict[str, Any]:
    """Load a tracker's weights in place.

    Args:
        model: of the depth and width that the file holds.
        path: an official or own checkpoint (see the module's docstring).
        role: which model of a raw training checkpoint: `test` the student, `teacher` the frozen teacher.

    Returns:
        what the file holds beside the weights (epoch, configuration...), as far as it is plain data.

    Raises:
        UserError: the file cannot be read or does not fit the model.
    """
    path = Path(path)
    foreign = model.read_foreign(path) if path.is_file() else None
    content = read_checkpoint(path) if foreign is None else {"net": foreign}
    state = _select(state_dict(content, path), role)
    _check_depth(state, model, path)
    own = model.state_dict()
    for optional in ("backbone.cls_token", "backbone.pos_embed"):   # never used by the tracker
        if optional in own and (optional not in state or state[optional].shape != own[optional].shape):
            state[optional] = own[optional]
    result = copy_weights(model, state, path)
    if result.missing_keys or result.unexpected_keys:
        problem = [f"lacks {name}" for name in result.missing_keys[:3]]
        problem += [f"has the unknown entry {name}" for name in result.unexpected_keys[:3]]
        raise UserError(f"{path} does not fit the configured model: it {'; it '.join(problem)}. Use the configuration "
                        "that the checkpoint was trained with.")
    return {key: value for key, value in content.items() if key not in WEIGHTS and not isinstance(value, Tensor)}


def copy_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> Any:
    """Copy the entries into the module; names that the two do not share are returned, wrong shapes are an error."""
    try:
        return module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise UserError(f"{path} does not fit the configured model: {' '.join(lines)} Use the configuration that the "
                        "file was made with.") from error


def _select(state: dict[str, Tensor], role: str) -> dict[str, Tensor]:
    """The entries of one model, under OSTrack's names."""
    has_student = any(name.startswith(STUDENT_LAYERS) for name in state)
    if role == "teacher" and any(name.startswith("ori_backbone.") for name in state):
        return {name.removeprefix("ori_"): value for name, value in state.items() if name.startswith("ori_")}
    state = {name: value for name, value in state.items() if not name.startswith("ori_")}
    if has_student:
        state = {name.replace(STUDENT_LAYERS, LAYERS): value for name, value in state.items()
                 if not name.startswith(LAYERS)}
    return state


def _check_depth(state: Mapping[str, Tensor], model: StagedTracker, path: Path) -> None:
    """The file's number of layers must be the model's: a wrong student is the most common mix-up."""
    numbers = {name.removeprefix(LAYERS).split(".")[0] for name in state if name.startswith(LAYERS)}
    if not numbers:
        raise UserError(f"{path} holds no tracker (no {LAYERS}* entries); expected an OSTrack or CompressTracker "
                        "checkpoint. MAE weights are named by MODEL.PRETRAIN_FILE of an ostrack configuration.")
    if len(numbers) != model.depth:
        raise UserError(f"{path} holds a tracker of {len(numbers)} layers, but the configuration asks for "
                        f"{model.depth}; use the configuration that belongs to the file")


# ---------------------------------------------------------------- writing

def slim_state_dict(model: StagedTracker, student: bool) -> dict[str, Tensor]:
    """The model's weights under the official names, on the CPU; a student's layers are `distill_blocks`."""
    return {name.replace(LAYERS, STUDENT_LAYERS) if student else name: value.detach().cpu().clone()
            for name, value in model.state_dict().items()}


def save_slim(path: str | Path, model: StagedTracker, cfg: Config, extra: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint that holds just the model, in the official layout, with the configuration beside it.

    Args:
        path: appears whole or not at all.
        model: the tracker (not a `Compressor`).
        cfg: the run's configuration; its script decides the layout.
        extra: more plain data (epoch, scores).

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file is untouched.
    """
    content = {"net": slim_state_dict(model, cfg.compresses), "net_type": cfg.title,
               "config": {"script": cfg.script, "name": cfg.name, "values": cfg.to_dict()}, **(extra or {})}
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how PyTorch's writer reports a full disk
            raise UserError(f"cannot write {path}: {_first_line(error)}; free disk space or choose another folder. "
                            "Nothing was left half written.") from error
