"""Archives that look like a folder: an :class:`ArchiveStorage` is one or several LMDBs or zip archives together."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...utils.errors import UserError
from ...utils.storage import State, Storage, file_state, joined

LMDB_SUFFIX = "_lmdb"
ZIP_SUFFIX = ".zip"
"""Or in capital letters."""
COUNTS = "counts"
"""Column of an :class:`ArchiveStorage`: how much of each other column belongs to which archive."""


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
        first = self.archive.first_from(key)
        return self.outer + first[len(self.inner):] if first is not None and first.startswith(self.inner) else None


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

    @property
    def name(self) -> str:
        name, suffix = super().name, ZIP_SUFFIX if self.kind == "zip" else LMDB_SUFFIX
        return name[: -len(suffix)] if name.lower().endswith(suffix) else name

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
        size = self._size(name)
        if size is None:
            raise self._missing(name)
        return size

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
            size = None if key is None else mount.archive.size(key)
            if size is not None:
                return size
        return None

    def _names(self, folder: str) -> tuple[list[str], list[str]]:
        """Files and folders in a folder. Jumps over what is inside a folder, so that its size does not matter."""
        files: list[str] = []
        folders: list[str] = []
        prefix = joined(folder, "")
        mounts = [mount for mount in self.mounts if (mount.first_from(prefix) or "\0").startswith(prefix)]
        at: str = prefix
        while (name := _first_from(mounts, at)) is not None and name.startswith(prefix):
            head, slash, _ = name[len(prefix):].partition("/")
            (folders if slash else files).append(head)
            at = f"{prefix}{head}0" if slash else f"{name}\0"  # "0" is the character behind "/"
        return files, sorted(folders)  # "a-b/" comes before "a/"

    def _missing(self, name: str) -> UserError:
        return UserError(f"cannot read {self.locate(name)}: no such entry")


def _first_from(mounts: Iterable[Mount], name: str) -> str | None:
    """The smallest name in these archives that is not smaller than `name`."""
    return min((first for mount in mounts if (first := mount.first_from(name)) is not None), default=None)
