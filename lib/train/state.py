"""The training state: everything that a run needs to go on as if it had never stopped."""

import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.safe_load import safe_load, write_tensors
from ..utils.errors import UserError

logger = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"state_ep(\d+)(?:_step(\d+))?\.pth")


@dataclass
class TrainingState:
    """Where a run is and what it has learned.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch after them (0 between epochs).
        steps_per_epoch: steps of an epoch when this was written.
        world_size: processes that trained.
        net: trainable parameters and all buffers by name; frozen parameters come from the checkpoint they were
            initialised with.
        frozen: checksum of the frozen parameters.
        optimizer, scaler: their state dicts.
        sums: totals of the unfinished epoch's statistics, name -> [sum, count].
        config: the resolved configuration.
        average: the averaged weights by name (TRAIN.EMA); empty without.
        validated: the last epoch after which everything that was due has been validated.
    """

    epoch: int
    step: int
    steps_per_epoch: int
    world_size: int
    net: dict[str, Tensor]
    frozen: int
    optimizer: dict
    scaler: dict
    sums: dict[str, list[float]] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    validated: int = 0


def state_name(epoch: int, step: int = 0) -> str:
    """File name of the state after `epoch` epochs and `step` steps of the next."""
    return f"state_ep{epoch:04d}.pth" if step == 0 else f"state_ep{epoch:04d}_step{step:06d}.pth"


def list_states(folder: Path) -> list[Path]:
    """The state files of `folder`, newest position first."""
    states = []
    for path in folder.glob("state_ep*.pth"):
        match = _NAME.fullmatch(path.name)
        if match:
            states.append(((int(match[1]), int(match[2] or 0)), path))
    return [path for _, path in sorted(states, reverse=True)]


def save_state(folder: Path, state: TrainingState, keep: int) -> Path:
    """Write `state` into `folder` whole, then remove all but the `keep` newest states. Returns the file.

    Raises:
        UserError: the disk is full or the folder cannot be written; the earlier states are untouched.
    """
    path = folder / state_name(state.epoch, state.step)
    write_tensors(path, {"format": FORMAT, **vars(state)})
    for old in list_states(folder)[max(1, keep):]:
        if old != path:     # behind states of later steps, which were not what the run went on from
            old.unlink(missing_ok=True)
    return path


def load_state(path: Path) -> TrainingState:
    """Read a state file without running any code in it; tensors on the CPU.

    Raises:
        UserError: missing, truncated, or not a training state of this project.
    """
    if not path.is_file():
        raise UserError(f"training state not found: {path}; give the path of a state_ep*.pth file to --resume")
    try:
        content = safe_load(path)
    except UserError as error:
        raise UserError(f"{error}; or resume from an earlier state_ep*.pth") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a training state of this version (format {FORMAT}); only state_ep*.pth files "
                        "can be resumed, *.pth.tar files hold weights alone")
    expected = {entry.name: entry.default is entry.default_factory is MISSING for entry in fields(TrainingState)}
    wrong = [name for name, required in expected.items() if required and name not in content]
    wrong += sorted(content.keys() - expected)
    if wrong:
        raise UserError(f"{path} is not a complete training state of this version: {wrong[0]} is missing or unknown; "
                        "resume from an earlier state_ep*.pth")
    return TrainingState(**content)


def newest_state(folder: Path) -> tuple[Path, TrainingState] | None:
    """The newest readable state of `folder`; unreadable ones are skipped with a warning. None where there is none."""
    for path in list_states(folder):
        try:
            return path, load_state(path)
        except UserError as error:
            logger.warning("skipped: %s", error)
    return None


def net_state(net: nn.Module) -> dict[str, Tensor]:
    """`net`'s trainable parameters and buffers, by name (not copied)."""
    frozen = _frozen_names(net)
    return {name: tensor for name, tensor in net.state_dict().items() if name not in frozen}


def load_net_state(net: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Put what `net_state` gave back into `net`.

    Raises:
        UserError: the names or shapes differ (another configuration).
    """
    check_fit(net_state(net), state, source)
    net.load_state_dict(dict(state), strict=False)


def check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path) -> None:
    """Raise `UserError` where the names or shapes of a state's tensors are not the expected ones."""
    wrong = sorted(set(expected) ^ set(state))
    wrong += [name for name in expected if name in state and expected[name].shape != state[name].shape]
    if wrong:
        raise UserError(f"{source} does not fit the configured model: {len(wrong)} tensors differ, first {wrong[0]}; "
                        "resume with the configuration it was trained with, or start anew with --resume none")


def frozen_checksum(net: nn.Module) -> int:
    """CRC-32 over the frozen parameters, 0 where there are none: tells whether a resumed run has the same teacher."""
    checksum = 0
    for _, parameter in sorted(net.named_parameters()):
        if not parameter.requires_grad:
            data = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            checksum = zlib.crc32(data.numpy(), checksum)
    return checksum


def _frozen_names(net: nn.Module) -> set[str]:
    """Names (all of them, where a tensor is shared) of the parameters that take no gradient."""
    return {name for name, parameter in net.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
