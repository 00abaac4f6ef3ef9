"""LMDB: one file of keys and values, in the layout of the OSTrack family (keys are relative paths)."""

import os
import threading
from pathlib import Path
from typing import Any

from ...utils.errors import UserError
from .storage import Archive

DATA_FILE = "data.mdb"

_open_environments: dict[str, tuple[int, Any]] = {}
"""Folder -> (process id, environment). LMDB allows one environment per folder and process, whoever asks for it."""
_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)  # the old one may be held by a thread that the child does not have


class LmdbArchive(Archive):
    """An LMDB that is only read. It is opened when first asked for, in each process anew.

    Writers are not waited for: reading takes no lock, so it works on read-only disks too.

    Args:
        path: the folder with data.mdb.
    """

    def __init__(self, path: str | Path):
        self.path = os.path.realpath(path)

    def first_from(self, key: str) -> str | None:
        with self._environment().begin() as transaction:
            cursor = transaction.cursor()
            return cursor.key().decode("utf-8", "surrogateescape") if cursor.set_range(encoded_key(key)) else None

    def get(self, key: str, limit: int | None = None) -> bytes | None:
        with self._environment().begin(buffers=limit is not None) as transaction:
            value = transaction.get(encoded_key(key))
            return value if value is None or limit is None else bytes(value[:limit])

    def size(self, key: str) -> int | None:
        with self._environment().begin(buffers=True) as transaction:
            value = transaction.get(encoded_key(key))
            return None if value is None else len(value)

    def state_file(self) -> str:
        return os.path.join(self.path, DATA_FILE)

    def close(self) -> None:
        """Close the LMDB in this process, for whoever uses it; reading opens it again."""
        with _lock:
            entry = _open_environments.pop(self.path, None)
            if entry is not None:
                entry[1].close()

    def _environment(self) -> Any:
        entry = _open_environments.get(self.path)
        if entry is None or entry[0] != os.getpid():
            with _lock:
                entry = _open_environments.get(self.path)
                if entry is None or entry[0] != os.getpid():
                    if entry is not None:
                        entry[1].close()  # the parent's; closing it here leaves the parent's own untouched
                    entry = _open_environments[self.path] = (os.getpid(), open_lmdb(self.path))
        return entry[1]


def is_lmdb(path: str | Path) -> bool:
    """Whether there is an LMDB in a folder."""
    return os.path.isfile(os.path.join(path, DATA_FILE))


def import_lmdb() -> Any:
    """The lmdb package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UserError(f"LMDB storage needs the lmdb package ({error}): pip install lmdb") from error
    return lmdb


def open_lmdb(path: str | Path) -> Any:
    """The LMDB in a folder for reading, without locks.

    Raises:
        UserError: it is missing, unreadable, no LMDB or not whole, or the lmdb package is missing.
    """
    lmdb = import_lmdb()
    file = os.path.join(path, DATA_FILE)
    try:
        size = os.path.getsize(file)
        environment = lmdb.open(str(path), readonly=True, lock=False, create=False, readahead=False, meminit=False)
    except (OSError, lmdb.Error) as error:
        raise UserError(f"cannot open the LMDB {path}: {error}; expected a file {DATA_FILE} that can be read. Copy it "
                        "again, or pack the data set anew with tracking/make_lmdb.py") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:
        environment.close()
        raise UserError(f"the LMDB {file} is truncated: {size} bytes of at least {needed}; copy it again, or pack the "
                        "data set anew with tracking/make_lmdb.py")
    return environment


def encoded_key(key: str) -> bytes:
    """A key as bytes. LMDB knows no empty key, and none starts with a zero byte."""
    return key.encode("utf-8", "surrogateescape") or b"\0"
