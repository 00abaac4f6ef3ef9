"""Files of weights from anywhere: what kind of file it is, and its content without running code of it and without
letting it change the process. And files of tensors written whole."""

import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch

from ..utils.errors import UserError
from ..utils.files import atomic_write


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
    other = _other_kind(path, head)
    if other:
        raise UserError(f"{path} is {other}. A checkpoint written by torch.save or safetensors is expected")
    try:
        if _is_safetensors(path, head):
            return safetensors.torch.load_file(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED_PICKLE)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers of zip, pickle and tensors fail in any way
        raise UserError(f"{path} cannot be read: it is truncated or damaged "
                        f"({path.stat().st_size:,} bytes). Copy or download it again") from error


_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""Files of torch.save in the older format begin with a pickle of this number."""

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with git lfs pull, or download it"),
    (b"\x1f\x8b", "compressed with gzip; unpack it (gunzip) and name the file that was inside"),
    (b"BZh", "compressed with bzip2; unpack it (bunzip2) and name the file that was inside"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it (unxz) and name the file that was inside"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard; unpack it (unzstd) and name the file that was inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and name the checkpoint that was inside"),
    (b"Rar!", "a RAR archive; unpack it and name the checkpoint that was inside"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write weights"),
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"ftrt", "a TensorRT engine; an exported tracker is named by its folder, with --exported"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
)
_PICKLED = ("a pickle that torch.save did not write; it is not opened, for a pickle can run code. Save the state dict "
            "again with torch.save")
_EXPORTED = "; an exported tracker is named by its folder, with --exported"
_UNPACK = "; unpack it ({}) and name the checkpoint that was inside"


def _other_kind(path: Path, head: bytes) -> str:
    """What a file is that neither torch.save nor safetensors wrote, with what to do; empty where one of them may have
    written it."""
    if not head:
        return "empty (0 bytes): its download or copy failed; get it again"
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if b"PK\x03\x04".startswith(head[:4]) or head.startswith(b"PK\x05\x06"):
        return _other_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive" + _inside(_tar_names(path)) + _UNPACK.format("tar -xf")
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "" if _MAGIC in head[:40] or len(head) < 40 else _PICKLED
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if path.suffix == ".onnx" or (head[0] == 8 and head[2:3] in (b"\x12", b"\x1a", b"B", b":")):
        return "an ONNX model" + _EXPORTED
    if path.suffix == ".pb" or re.search(r"\.(index|data-\d+-of-\d+)$", path.name):
        return "a TensorFlow file; convert its weights to PyTorch first"
    text = _text_kind(head)
    if text or _is_safetensors(path, head) or head[0] == 0x80:
        return text
    return "of an unknown kind, or damaged; copy or download it again"


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Whether a file that is no text has the name or the start of safetensors: 8 bytes of length, a JSON header."""
    return path.suffix == ".safetensors" or head[8:10] == b'{"'


def _text_kind(head: bytes) -> str:
    """What kind of text a file begins with; empty for bytes that are none."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 1024 else "ignore").lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return ""
    if not text or not all(letter.isprintable() or letter in "\t\r\n" for letter in text):
        return ""
    lower = text.lower()
    if lower.startswith(("<!doctype html", "<html", "<head")):
        return ("a web page (HTML), not the file that it leads to: a sign-in, a warning or a limit of downloads was "
                "saved; open the address in a browser and download the file itself")
    if lower.startswith("<?xml"):
        return "an XML file, as OpenVINO writes with its models" + _EXPORTED
    if text.startswith(("{", "[")):
        return "a JSON text; where it lists the parts of a model, join those into one file first"
    return f"a text that begins with {text.splitlines()[0][:40]!r}"


def _other_zip(path: Path) -> str:
    """What a zip archive is that torch.save did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return ""  # a truncated checkpoint, most likely
    folders = {name.split("/")[1] for name in names if name.count("/")}
    if {"code", "constants.pkl"} <= folders:
        return "a TorchScript module" + _EXPORTED
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)"
    if any(name.endswith("config.json") for name in names) and "model.weights.h5" in names:
        return "a Keras model"
    return "a zip archive" + _inside(names) + _UNPACK.format("unzip")


def _tar_names(path: Path) -> list[str]:
    try:
        with tarfile.open(path) as archive:
            first = archive.next()
    except tarfile.TarError:
        return []
    return [first.name] if first is not None else []


def _inside(names: list[str]) -> str:
    return f" (with {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


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
