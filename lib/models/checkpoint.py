"""Checkpoints: the official formats in and out, without ever running code from a file.

Names in the state dict are the model's own, but for what its class says of files: other names for a student's layers
(`student_layers`), a frozen teacher beside its student (`teacher_prefix`), entries that nothing reads (`unused`). Of
one-stream trackers, for instance:

- a tracker (OSTrack): `backbone.blocks.i.*`, `box_head.*`;
- a student, slim (CompressTracker): `backbone.distill_blocks.i.*` for its layers;
- a raw training checkpoint: the above, and `backbone.blocks.*`, `ori_backbone.*`, `ori_box_head.*` for the teacher.

Files are those of `torch.save` or safetensors. The state dict may be the file itself or lie anywhere in its
dictionaries (`net`, `model`, `state_dict`, `module`, `ema`...), and its names may have prefixes in front and the parts
that wrappers put between (see `candidates_in`). Slim files are written in the official layout.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import Config
from ..utils.errors import UserError
from .base import StagedTracker
from .safe_load import Placeholder, safe_load, write_tensors

logger = logging.getLogger(__name__)

WEIGHTS = ("net", "model", "state_dict", "module")
"""Where the formats keep the state dict; where several fit, the first is taken."""

_DEPTH = 8
"""Dictionaries in dictionaries in which weights are looked for."""

_WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What DistributedDataParallel, torch.compile, Lightning, FSDP and activation checkpointing put into names."""

_COPY = re.compile(r"(?:^|[._])(ema|averaged?|avg|swa|shadow|teacher)(?:[._]|$)")
"""Names of a second copy of the weights, which stands after the weights themselves."""


# ---------------------------------------------------------------- the official places

def run_folder(save_dir: str | Path, script: str, name: str) -> Path:
    """Folder of a run's checkpoints, as the official repositories have it."""
    return Path(save_dir).expanduser() / "checkpoints" / "train" / script / name


def slim_name(title: str, epoch_or_name: int | str) -> str:
    """File name of a slim checkpoint of a model with a title (`Config.title`): of an epoch, `OSTrack_ep0300.pth.tar`,
    or called otherwise (`best`)."""
    return f"{title}_{epoch_or_name if isinstance(epoch_or_name, str) else f'ep{epoch_or_name:04d}'}.pth.tar"


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
    content = safe_load(path)
    if not isinstance(content, Mapping):
        kind = "object" if isinstance(content, Placeholder) else type(content).__name__
        raise UserError(f"{path} holds one {kind}, not a dictionary with a state dict; expected an "
                        "OSTrack, CompressTracker or MAE checkpoint (of a whole model, save its state_dict())")
    return {key: value for key, value in content.items() if not isinstance(value, Placeholder)}


class _Candidate(NamedTuple):
    """A state dict that a file holds.

    Attributes:
        place: keys of the dictionaries that it lies in, and the prefix of its names.
        rank: the lowest is preferred.
        state: its tensors, names without prefix and wrappers.
    """

    place: tuple[str, ...]
    rank: tuple[int, int]
    state: dict[str, Tensor]

    def __str__(self) -> str:
        return "/".join(part for part in self.place if part) or "the file itself"


def candidates_in(content: Mapping[str, Any], parts: Iterable[str], path: Path) -> list[_Candidate]:
    """The state dicts in a checkpoint that have entries of a model with the given parts (first words of its names), or
    all there are; the preferred one first.

    The names of wrappers are taken out. What stands before the first of the parts is a prefix (`net.`, `model.ema.`):
    the names of one prefix make one state dict.

    Raises:
        UserError: there is none at all.
    """
    parts = list(parts)
    part = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(map(re.escape, parts))})(?:\.|$)")
    with_parts, without_parts = [], []
    for place, tensors in state_dicts(content, parts):
        names = {name: _WRAPPERS.sub("", name) for name in tensors if name.rpartition(".")[2] != "n_averaged"}
        if len(set(names.values())) < len(names):  # wrapped and bare copies of one model: each has its own prefix
            names = {name: name for name in names}
        matches = [part.search(name) for name in names.values()]
        prefixes = sorted({match.string[:match.start()] for match in matches if match}, key=len, reverse=True)
        groups: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes or [""]}
        for name, plain in names.items():
            prefix = next((prefix for prefix in groups if plain.startswith(prefix)), None)
            if prefix is not None:
                groups[prefix][plain.removeprefix(prefix)] = tensors[name]
        for prefix, state in groups.items():
            where = (*place, prefix)
            order = WEIGHTS.index(place[0]) if place and place[0] in WEIGHTS else len(WEIGHTS)
            rank = (int(any(_COPY.search(step) for step in where)), order)
            (with_parts if prefixes else without_parts).append(_Candidate(where, rank, state))
    if not with_parts and not without_parts:
        raise UserError(f"{path} holds no weights, that is, no dictionary of tensors by name (it has "
                        f"{some(map(str, content))}); expected an OSTrack, CompressTracker or MAE checkpoint")
    return sorted(with_parts or without_parts, key=lambda candidate: candidate.rank)


def state_dicts(content: Mapping[Any, Any], parts: Collection[str], place: tuple[str, ...] = ()
                ) -> Iterator[tuple[tuple[str, ...], dict]]:
    """The dictionaries of tensors by name in nested dictionaries, with the keys that lead there. Several of a model's
    parts that lie beside each other, each in its own dictionary, are joined."""
    inner = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)}
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if len(inner.keys() & set(parts)) > 1:
        for key in inner.keys() & set(parts):
            tensors |= {f"{key}.{name}": value for name, value in inner.pop(key).items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in inner.items():
        if len(place) < _DEPTH:
            yield from state_dicts(value, parts, (*place, key))


def choose(candidates: list[_Candidate], problem: Callable[[dict[str, Tensor]], str], path: Path) -> _Candidate:
    """The preferred one of the state dicts of which `problem` says nothing.

    Raises:
        UserError: it says something of all (what it says of the preferred one), or the choice is not clear.
    """
    fitting = [candidate for candidate in candidates if not problem(candidate.state)]
    if not fitting:
        raise UserError(f"{path} {problem(candidates[0].state)}")
    first, *others = fitting
    for other in others:
        if other.rank == first.rank and not _same(first.state, other.state):
            raise UserError(f"{path} holds several models that fit ({first}, {other}); write the one that you want "
                            "into a file of its own")
    if others:
        logger.info("%s: the weights are those of %s", path, first)
    return first


def _same(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in state.items())


def some(names: Iterable[str]) -> str:
    """The first of some names, for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"


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
    own = model.state_dict()
    candidates = [candidate._replace(state=model.adapt(_select(candidate.state, role, model), path))
                  for candidate in candidates_in(content, dict(model.named_children()), path)]
    chosen = choose(candidates, lambda state: _tracker_problem(state, model, own), path)
    optional = {name: own[name] for name in model.unused
                if name in own and not _fits(chosen.state.get(name), own[name])}
    model.load_state_dict({**chosen.state, **optional})
    used = {*WEIGHTS, chosen.place[0]}
    return {key: value for key, value in content.items() if key not in used and not isinstance(value, Tensor)}


def _tracker_problem(state: Mapping[str, Tensor], model: StagedTracker, own: Mapping[str, Tensor]) -> str:
    """Why a state dict is not that of a model with the state `own`, and what to do; empty where it is."""
    prefix = _layers(model)
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if model.part_of(name) == "layers"}
    if not numbers:
        return (f"holds no tracker: its first entries are {some(state)}; expected {some(own)}, as checkpoints of the "
                "configuration's family have. Weights of a backbone alone are named by MODEL.PRETRAIN_FILE of a "
                "configuration that trains")
    if len(numbers) != model.depth:  # a wrong student is the most common mix-up
        return (f"holds a tracker of {len(numbers)} layers, but the configuration asks for {model.depth}; use the "
                "configuration that belongs to the file")
    lacks = [name for name in own if name not in state and not name.endswith(".num_batches_tracked")
             and name not in model.unused]
    unknown = [name for name in state if name not in own]
    if lacks or unknown:
        text = [f"it lacks {some(lacks)}"] * bool(lacks) + [f"it has the unknown {some(unknown)}"] * bool(unknown)
        return (f"does not fit the configured model: {'; '.join(text)}. Use the configuration that the checkpoint was "
                "trained with")
    return wrong_tensor({name: value for name, value in state.items() if name not in model.unused}, own)


def wrong_tensor(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Which of the entries has another shape or kind of numbers than the model's own; empty where none has."""
    for name, value in state.items():
        if not _fits(value, own[name]):
            remedy = ("Use the configuration that the file was made with" if value.shape != own[name].shape else
                      "Save the weights as plain floating-point tensors")
            return (f"does not fit the configured model: {name} is {_describe(value)}, expected "
                    f"{_describe(own[name])}. {remedy}")
    return ""


def _fits(value: Tensor | None, own: Tensor) -> bool:
    """Whether a tensor can stand for the model's own: any floating-point type for another, but not whole numbers, nor
    one that is sparse or has no numbers (of the device meta)."""
    return (value is not None and value.shape == own.shape and value.is_floating_point() == own.is_floating_point()
            and value.layout == own.layout and not value.is_meta)


def _describe(value: Tensor) -> str:
    kind = ("without numbers (device meta), " * value.is_meta
            + "sparse, " * (value.layout != torch.strided) + str(value.dtype).removeprefix("torch."))
    return f"{kind} {tuple(value.shape)}"


def _layers(model: StagedTracker) -> str:
    """How the names of the model's layers begin."""
    prefix, = model.part_prefixes["layers"]
    return prefix


def _select(state: dict[str, Tensor], role: str, model: StagedTracker) -> dict[str, Tensor]:
    """The entries of one model, under the model's own names."""
    layers, students, teacher = _layers(model), model.student_layers, model.teacher_prefix
    if teacher:
        beside = {name.removeprefix(teacher): value for name, value in state.items() if name.startswith(teacher)}
        if role == "teacher" and beside:
            return beside
        state = {name: value for name, value in state.items() if not name.startswith(teacher)}
    if students and any(name.startswith(students) for name in state):
        state = {name.replace(students, layers): value for name, value in state.items() if not name.startswith(layers)}
    return state


# ---------------------------------------------------------------- writing

def slim_state_dict(model: StagedTracker, student: bool) -> dict[str, Tensor]:
    """The model's weights under the names that files have, on the CPU."""
    layers = _layers(model)
    students = student and model.student_layers or layers
    return {name.replace(layers, students): value.detach().cpu().clone() for name, value in model.state_dict().items()}


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
    write_tensors(path, {
        "net": slim_state_dict(model, cfg.compresses), "net_type": cfg.title,
        "config": {"script": cfg.script, "name": cfg.name, "values": cfg.to_dict()}, **(extra or {})})
