"""Files that appear whole or not at all."""

import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import UserError

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
"""This package: `lib` in the repository, `compresstracker` where it is installed."""

ROOT = PACKAGE.parent
"""The repository's root: what relative paths of yaml files and of ``local.py`` start from."""

_PART = ".part"
"""Ending of files that are being written."""


def resolve(path: str | Path, base: Path = ROOT) -> Path:
    """`path` with `~` expanded, made absolute from `base` when it is relative."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else base / path


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free disk space or choose another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions or choose another folder"),
    errno.EROFS: "choose another folder",
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is where a folder is needed; choose another folder"),
    errno.EISDIR: "a folder is where the file should be; choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def cannot_write(path: str | Path, error: OSError, option: str = "") -> str:
    """`cannot write ...: why; what to do`, by what the system says was wrong.

    Args:
        option: of the command line that names the place, for the advice.
    """
    remedy = _REMEDIES.get(error.errno or 0, "choose another folder")
    if option:
        remedy = re.sub("choose (another|a shorter) (folder|name)", f"choose another {option}", remedy)
    return f"cannot write {path}: {error.strerror or error}; {remedy}"


def check_output(folder: str | Path, option: str) -> None:
    """Try now whether files can be written to a folder, before any work is done for them; it is left as it was.

    Args:
        folder: need not exist yet.
        option: of the command line that names it, for the message.

    Raises:
        UserError: they cannot.
    """
    folder = Path(folder).expanduser().absolute()
    try:
        with made_folder(folder), tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise UserError(cannot_write(folder, error, option)) from error


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, with those around it; those that were missing and are empty in the end go away again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def check_output_file(file: str | Path, option: str) -> None:
    """`check_output` for one file."""
    file = Path(file).expanduser()
    if file.is_dir():
        raise UserError(cannot_write(file, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), option))
    check_output(file.parent, option)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the place of `path`, on any failure it is removed.

    The temporary file is flushed to the disk before the rename, so that a crash leaves the old file or the new one.

    Raises:
        UserError: the file cannot be written (the old one is untouched).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        os.chmod(temporary, 0o666 & ~_umask())
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{cannot_write(path, error)}. Nothing was left half written.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Delete the temporary files that processes killed within `atomic_write` left in `folder`; gives their paths."""
    leftovers = sorted(Path(folder).glob(f".*{_PART}"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


@contextlib.contextmanager
def atomic_folder(path: str | Path, marker: str) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success it takes the place of `path`, on any failure it is removed.

    Args:
        marker: a file that folders of this kind hold; an older folder at `path` is replaced only if it is one or empty.

    Raises:
        UserError: something else is at `path`, or the folder cannot be written.
    """
    path = Path(path).expanduser()
    if path.exists() and not (path.is_dir() and ((path / marker).is_file() or not any(path.iterdir()))):
        raise UserError(f"{path} exists and holds something else (no {marker}); choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
            folder, old = Path(beside) / "new", Path(beside) / "old"
            folder.mkdir()
            yield folder
            if path.exists():
                os.replace(path, old)
            os.replace(folder, path)
    except OSError as error:
        raise UserError(f"{cannot_write(path, error)}. Nothing was left half written.") from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def set_aside(paths: Iterable[Path]) -> None:
    """Move files (or folders) of an abandoned run, in the order given, into a new `previous_N` folder beside them: not
    lost, and never taken for the new run's."""
    paths = [path for path in paths if path.exists()]
    if not paths:
        return
    folder = paths[0].parent
    number = 1
    while (folder / f"previous_{number}").exists():
        number += 1
    target = folder / f"previous_{number}"
    target.mkdir()
    for path in paths:
        path.rename(target / path.name)
    logger.info("%d earlier files moved to %s", len(paths), target)


def file_hash(path: Path) -> str:
    """SHA-256 of a file; computed again only when its size or its time has changed.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        state = path.stat()
        return _hash(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


@functools.lru_cache(maxsize=64)
def _hash(path: Path, size: int, time_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    """The process's file mode mask (reading it means setting it for a moment)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
