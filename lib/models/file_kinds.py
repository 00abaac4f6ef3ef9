"""What a file is that stands in the place of a checkpoint, told by how it begins."""

import re
import tarfile
import zipfile
from pathlib import Path

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


def other_kind(path: Path, head: bytes) -> str:
    """What a file is that neither torch.save nor safetensors wrote, with what to do; empty where one of them may have
    written it."""
    if not head:
        return "empty (0 bytes): its download or copy failed; get it again"
    if _header(head):
        return ""
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
    if begins_as_onnx(head):
        return "an ONNX model" + _EXPORTED + ", and a family's own file goes with a configuration of that family"
    if path.suffix == ".pb" or re.search(r"\.(index|data-\d+-of-\d+)$", path.name):
        return "a TensorFlow file; convert its weights to PyTorch first"
    text = _text_kind(head)
    if text or is_safetensors(path, head) or head[0] == 0x80:
        return text
    return "of an unknown kind, or damaged; copy or download it again"


def begins_as_onnx(head: bytes) -> bool:
    """Whether a file begins as ONNX models do: the version of the format, then one of the fields that may follow."""
    return head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b'"', b"(", b"2", b":", b"B")


def is_safetensors(path: Path, head: bytes) -> bool:
    """Whether a file that is of no other kind has the name or the start of safetensors."""
    return path.suffix == ".safetensors" or _header(head)


def _header(head: bytes) -> bool:
    """Whether a file begins as safetensors do: a length in 8 bytes, then JSON. (The length may begin as anything.)"""
    return head[4:10] in (b'\0\0\0\0{"', b"\0\0\0\0{}")


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
