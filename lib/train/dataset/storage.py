"""Where the files of a data set lie. The data sets ask for files by relative name and never touch paths themselves.

:class:`DirectoryStorage` is a folder; :class:`ArchiveStorage` is one or several LMDBs or zip archives that together
look like a folder. Both can be pickled, survive a fork and may be read by several threads at once.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.utils.errors import UserError

STAT_THREADS = 8
STAT_CHUNK = 512
COUNTS = "counts"
"""Column of an :class:`ArchiveStorage`: how much of each other column belongs to which archive."""


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

    def changes_since(self, old: "State") -> str:
        """What differs from an earlier state, in words."""
        before = {name: tuple(stamp) for name, stamp in zip(old.names, old.stamps.tolist(), strict=True)}
        now = {name: tuple(stamp) for name, stamp in zip(self.names, self.stamps.tolist(), strict=True)}
        changed = [name for name in now if name in before and now[name] != before[name]]
        words = []
        for what, names in (("changed", changed), ("new", [n for n in now if n not in before]),
                            ("gone", [n for n in before if n not in now])):
            if names:
                words.append(f"{len(names)} {what} (for instance {names[0]})")
        return ", ".join(words) or "the order of its files"


class Storage(ABC):
    """Files of a data set.

    Attributes:
        root: the folder or file, for messages.
        kind: "directory", "lmdb" or "zip".
    """

    root: str
    kind: str

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
        """Sorted names of the files in a folder; none when the folder is missing."""

    @abstractmethod
    def folders(self, folder: str = "") -> list[str]:
        """Sorted names of the folders in a folder; none when the folder is missing."""

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
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.locate(name)} is no text file: {error}") from error

    def walk(self, folder: str = "") -> Iterator[str]:
        """Names of all files in a folder and the folders in it."""
        prefix = f"{folder}/" if folder else ""
        for name in self.files(folder):
            yield prefix + name
        for name in self.folders(folder):
            yield from self.walk(prefix + name)


class DirectoryStorage(Storage):
    """Files of a folder on disk."""

    kind = "directory"

    def __init__(self, root: str | Path):
        self.root = str(root)

    def locate(self, name: str) -> str:
        return os.path.join(self.root, name)

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

    def _unreadable(self, name: str, error: OSError) -> UserError:
        return UserError(f"cannot read {self.locate(name)}: {error.strerror or error}")


def file_state(root: str, names: Iterable[str]) -> State:
    """State of files and folders on disk.

    Args:
        root: what the names start from.
        names: relative or absolute.
    """
    wanted = list(names)
    chunks = [wanted[i : i + STAT_CHUNK] for i in range(0, len(wanted), STAT_CHUNK)]
    with ThreadPoolExecutor(STAT_THREADS) as pool:  # on a network disk each of these waits for an answer
        stamps = [stamp for part in pool.map(lambda chunk: [_stamp(root, name) for name in chunk], chunks)
                  for stamp in part]
    return State(wanted, np.array(stamps, dtype=np.int64).reshape(-1, 2))


def _stamp(root: str, name: str) -> tuple[int, int]:
    try:
        status = os.stat(os.path.join(root, name))
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


class Archive(ABC):
    """One file that holds many, under sorted keys with slashes.

    Attributes:
        path: the archive, for messages.
    """

    path: str

    @abstractmethod
    def first_from(self, key: str) -> str | None:
        """The smallest key that is not smaller than `key`; None when there is none."""

    @abstractmethod
    def get(self, key: str, limit: int | None = None) -> bytes | None:
        """Content of a key or its first `limit` bytes; None when there is no such key."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of a key's content; None when there is no such key."""

    @abstractmethod
    def state_file(self) -> str:
        """The file whose size and time tell whether the archive was changed."""

    def columns(self) -> dict[str, np.ndarray]:
        """What to keep beside the data set's index, so that the archive opens faster the next time."""
        return {}

    def use(self, columns: dict[str, np.ndarray]) -> None:  # noqa: B027 - most archives keep nothing
        """Take back what `columns` gave, possibly in another process."""


class Mount:
    """An archive as a part of a storage: its keys that start with `inner` are the names that start with `outer`."""

    def __init__(self, archive: Archive, outer: str = "", inner: str = ""):
        self.archive = archive
        self.outer = outer
        self.inner = inner

    def key(self, name: str) -> str | None:
        """The key of a name; None when it belongs to another archive."""
        return self.inner + name[len(self.outer):] if name.startswith(self.outer) else None

    def first_from(self, name: str) -> str | None:
        """The smallest name in this archive that is not smaller than `name`."""
        key = self.key(name)
        if key is None:
            if name > self.outer:
                return None
            key = self.inner
        found = self.archive.first_from(key)
        return self.outer + found[len(self.inner):] if found is not None and found.startswith(self.inner) else None


class ArchiveStorage(Storage):
    """Files of one or several archives.

    Args:
        root: the data set's place, for messages.
        kind: "lmdb" or "zip".
        mounts: the archives and where their files belong.
    """

    def __init__(self, root: str, kind: str, mounts: Sequence[Mount]):
        self.root = root
        self.kind = kind
        self.mounts = list(mounts)

    def locate(self, name: str) -> str:
        places = [(mount, key) for mount in self.mounts if (key := mount.key(name)) is not None]
        for mount, key in places:
            if len(places) == 1 or mount.archive.size(key) is not None:
                return f"{mount.archive.path}:{key}"
        return f"{self.root}:{name}"

    def read(self, name: str, limit: int | None = None) -> bytes:
        for mount in self.mounts:
            key = mount.key(name)
            content = None if key is None else mount.archive.get(key, limit)
            if content is not None:
                return content
        raise self._missing(name)

    def size(self, name: str) -> int:
        found = self._size(name)
        if found is None:
            raise self._missing(name)
        return found

    def has_file(self, name: str) -> bool:
        return self._size(name) is not None

    def files(self, folder: str = "") -> list[str]:
        return self._names(folder)[0]

    def folders(self, folder: str = "") -> list[str]:
        return self._names(folder)[1]

    def state(self, names: Iterable[str]) -> State:
        return file_state("", [mount.archive.state_file() for mount in self.mounts])

    def columns(self) -> dict[str, np.ndarray]:
        parts = [mount.archive.columns() for mount in self.mounts]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if columns:
            columns[COUNTS] = np.array([[len(array) for array in part.values()] for part in parts])
        return columns

    def use(self, columns: Mapping[str, np.ndarray]) -> None:
        if not columns:
            return
        ends = np.cumsum(columns[COUNTS], axis=0)
        starts = ends - columns[COUNTS]
        names = [name for name in columns if name != COUNTS]
        for mount, first, last in zip(self.mounts, starts, ends, strict=True):
            mount.archive.use({name: columns[name][i:j] for name, i, j in zip(names, first, last, strict=True)})

    def _size(self, name: str) -> int | None:
        for mount in self.mounts:
            key = mount.key(name)
            found = None if key is None else mount.archive.size(key)
            if found is not None:
                return found
        return None

    def _names(self, folder: str) -> tuple[list[str], list[str]]:
        """Files and folders in a folder. Jumps over what is inside a folder, so that its size does not matter."""
        files: list[str] = []
        folders: list[str] = []
        prefix = f"{folder}/" if folder else ""
        at: str = prefix
        while (name := self._first_from(at)) is not None and name.startswith(prefix):
            head, slash, _ = name[len(prefix):].partition("/")
            (folders if slash else files).append(head)
            at = f"{prefix}{head}0" if slash else f"{name}\0"  # "0" is the character behind "/"
        return files, sorted(folders)  # "a-b/" comes before "a/"

    def _first_from(self, name: str) -> str | None:
        return min((found for mount in self.mounts if (found := mount.first_from(name)) is not None), default=None)

    def _missing(self, name: str) -> UserError:
        return UserError(f"cannot read {self.locate(name)}: no such entry")
