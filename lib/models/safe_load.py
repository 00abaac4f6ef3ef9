"""Files of weights: read from anywhere, without running code of theirs and without letting them change the process, and
written whole or not at all."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch

from ..utils.errors import UserError
from ..utils.files import atomic_write
from .file_kinds import is_safetensors, other_kind


class Placeholder:
    """Stands for an object of an unknown class, or for what an unknown function gives: it holds and does nothing."""

    __slots__ = ()

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        """Items of a list of an unknown class are dropped."""

    def extend(self, items):
        """See `append`."""

    def add(self, item):
        """See `append`."""


class _Dictionary(dict):
    """An `OrderedDict` of the file, without the attributes that the file gives to it."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Rebuilder:
    """A function of PyTorch that a file may call but, other than the bare function, not change.

    A pickle can set attributes of every object it gets hold of, of functions too.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args):
        return self._function(*args)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("the file tries to change a function")


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; everything else in the file becomes a `Placeholder`.

    PyTorch's reader derives from it and adds the storages' types. The functions that a file can call are those of
    `ALLOWED`, which make a tensor from a storage.
    """

    ALLOWED = {
        ("collections", "OrderedDict"): _Dictionary,
        **{("torch._utils", function.__name__): _Rebuilder(function)
           for function in (torch._utils._rebuild_tensor, torch._utils._rebuild_tensor_v2,
                            torch._utils._rebuild_parameter)},
    }

    def find_class(self, module: str, name: str) -> Any:
        return self.ALLOWED.get((module, name), Placeholder)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _storages_only(value) if name == "persistent_load" else value)


def _storages_only(persistent_load: Callable) -> Callable:
    """PyTorch's look-up of what lies outside the pickle, for storages.

    Its other kind, a module with its source code, is refused: a file can use it to have a patch file written.
    """
    def load(key: Any) -> Any:
        if not (isinstance(key, tuple) and key and key[0] in ("storage", b"storage")):
            raise pickle.UnpicklingError("the file refers to something that is no tensor storage")
        return persistent_load(key)
    return load


_RESTRICTED_PICKLE = SimpleNamespace(
    __name__="restricted", Unpickler=_RestrictedUnpickler,
    load=lambda file, **kwargs: _RestrictedUnpickler(file, **kwargs).load())


def safe_load(path: Path) -> Any:
    """What a file of `torch.save` (in the zip or in the older format) or of safetensors holds, tensors on the CPU.

    Files of tensors and plain values are read with `weights_only=True`. Files that hold more, as the official training
    checkpoints do, are read through an allow-list; objects that are not on it become a `Placeholder`.

    Raises:
        UserError: the file cannot be read, is of another kind (the message names it), or is damaged.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        remedy = "; change its permissions" if isinstance(error, PermissionError) else ""
        raise UserError(f"{path} cannot be read: {error.strerror}{remedy}") from error
    kind = other_kind(path, head)
    if kind:
        raise UserError(f"{path} is {kind}. A checkpoint written by torch.save or safetensors is expected")
    try:
        if is_safetensors(path, head):
            return safetensors.torch.load_file(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED_PICKLE)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers of zip, pickle and tensors fail in any way
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint: it is truncated or damaged "
                        f"({path.stat().st_size:,} bytes). Copy or download it again") from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data with torch.save, whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file is untouched.
    """
    with atomic_write(path) as temporary:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:  # how PyTorch's writer reports that not all could be written
            raise UserError(f"cannot write {path}: not all of it could be written; free disk space (or the quota), or "
                            "choose another folder. Nothing was left half written, earlier files are kept") from error
