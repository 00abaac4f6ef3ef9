"""Where the files of a data set lie. Who reads them asks for files by relative name and never touches paths.

:class:`DirectoryStorage` is a folder; the archives of :mod:`lib.train.dataset.storage` look like one. All can be
pickled, survive a fork and may be read by several threads at once.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import UserError

STAT_THREADS = 8
STAT_CHUNK = 512


@dataclass(frozen=True)
class State:
    """What a storage holds, as sizes and times: cheap to take, and different as soon as something was changed."""

    names: Sequence[str]
    stamps: np.ndarray
    """(len(names), 2) int64: size in bytes and time of the last change in nanoseconds; -1 where there is no file."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits; the same for the same state."""
        text = "\n".join(self.names).encode("utf-8", "surrogateescape")
        return hashlib.sha1(text + b"\0" + np.ascontiguousarray(self.stamps).tobytes()).hexdigest()[:16]

    def __add__(self, other: "State") -> "State":
        return State([*self.names, *other.names], np.concatenate([self.stamps, other.stamps]))

    def changes_since(self, old: "State") -> str:
        """What differs from an earlier state, in words."""
        before = {name: tuple(stamp) for name, stamp in zip(old.names, old.stamps.tolist(), strict=True)}
        now = {name: tuple(stamp) for name, stamp in zip(self.names, self.stamps.tolist(), strict=True)}
        changed = [name for name in now if name in before and now[name] != before[name]]
        words = []
        for change, names in (("changed", changed), ("new", [n for n in now if n not in before]),
                              ("gone", [n for n in before if n not in now])):
            if names:
                words.append(f"{len(names)} {change} (for instance {names[0]})")
        return ", ".join(words) or "the order of its files"


class Storage(ABC):
    """Files of a data set.

    Attributes:
        root: the folder or file, for messages.
        kind: "directory", "lmdb" or "zip".
    """

    root: str
    kind: str

    @property
    def name(self) -> str:
        """What the folder is called that the storage is, or stands for."""
        return Path(self.root).name

    @abstractmethod
    def locate(self, name: str) -> str:
        """Full name for messages."""

    @abstractmethod
    def read(self, name: str, limit: int | None = None) -> bytes:
        """Content of a file, or its first `limit` bytes.

        Raises:
            UserError: it is missing or unreadable.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            UserError: it is missing.
        """

    @abstractmethod
    def has_file(self, name: str) -> bool:
        """Whether there is a file of that name."""

    @abstractmethod
    def files(self, folder: str = "") -> list[str]:
        """Sorted names of the files in a folder; none when the folder is missing.

        Raises:
            UserError: it is unreadable.
        """

    @abstractmethod
    def folders(self, folder: str = "") -> list[str]:
        """As `files`, of the folders in a folder."""

    @abstractmethod
    def state(self, names: Iterable[str]) -> State:
        """State of the files and folders `names`. Archives take their own state and never look at the names."""

    def columns(self) -> dict[str, np.ndarray]:
        """What the storage wants to be kept beside the data set's index, so that it opens faster the next time."""
        return {}

    def use(self, columns: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - most storages keep nothing
        """Take back what `columns` gave, possibly in another process."""

    def read_text(self, name: str) -> str:
        """Content of a text file (UTF-8).

        Raises:
            UserError: it is missing, unreadable or no text.
        """
        return as_text(self.read(name), self.locate(name))

    def walk(self, folder: str = "") -> Iterator[str]:
        """Names of all files in a folder and the folders in it."""
        for name in self.files(folder):
            yield joined(folder, name)
        for name in self.folders(folder):
            yield from self.walk(joined(folder, name))


class DirectoryStorage(Storage):
    """Files of a folder on disk."""

    kind = "directory"

    def __init__(self, root: str | Path):
        self.root = str(root)

    def locate(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def read(self, name: str, limit: int | None = None) -> bytes:
        try:
            with open(self.locate(name), "rb") as file:
                return file.read(-1 if limit is None else limit)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def size(self, name: str) -> int:
        try:
            return os.stat(self.locate(name)).st_size
        except OSError as error:
            raise self._unreadable(name, error) from error

    def has_file(self, name: str) -> bool:
        return os.path.isfile(self.locate(name))

    def files(self, folder: str = "") -> list[str]:
        return self._names(folder, want_folders=False)

    def folders(self, folder: str = "") -> list[str]:
        return self._names(folder, want_folders=True)

    def state(self, names: Iterable[str]) -> State:
        return file_state(self.root, names)

    def _names(self, folder: str, want_folders: bool) -> list[str]:
        try:
            with os.scandir(self.locate(folder)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() == want_folders)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def _unreadable(self, name: str, error: OSError) -> UserError:
        return UserError(f"cannot read {self.locate(name)}: {error.strerror or error}")


def as_text(data: bytes, name: str) -> str:
    """The text (UTF-8) of a file's content; `name` is for the message.

    Raises:
        UserError: it is no such text.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no text in UTF-8 (see byte {error.start}); save it as plain text in UTF-8"
                        ) from error


DISK = DirectoryStorage("")
"""The whole disk: its names are paths."""


def joined(folder: str, name: str) -> str:
    """The name in a storage of what is called `name` in `folder` ('' for the storage's root)."""
    return f"{folder}/{name}" if folder else name


def file_state(root: str, names: Iterable[str]) -> State:
    """State of files and folders on disk.

    Args:
        root: what the names start from.
        names: relative or absolute.
    """
    listed = list(names)
    chunks = [listed[i : i + STAT_CHUNK] for i in range(0, len(listed), STAT_CHUNK)]
    with ThreadPoolExecutor(STAT_THREADS) as pool:  # on a network disk each of these waits for an answer
        stamps = [stamp for part in pool.map(lambda chunk: [_stamp(root, name) for name in chunk], chunks)
                  for stamp in part]
    return State(listed, np.array(stamps, dtype=np.int64).reshape(-1, 2))


def _stamp(root: str, name: str) -> tuple[int, int]:
    try:
        status = os.stat(os.path.join(root, name))
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
