"""Zip archives that are read in place, by the offsets of their central directory."""

import os
import struct
import threading
import zipfile
import zlib
from bisect import bisect_left
from pathlib import Path

import numpy as np

from ...utils.errors import UserError
from .columns import TextColumn
from .storage import Archive

MEMBER = np.dtype([("offset", np.int64), ("packed", np.int64), ("size", np.int64), ("deflated", np.bool_)])
"""A file in an archive: where its header starts, its bytes in the archive and unpacked."""
HEADER = struct.Struct("<26xHH")
"""Of a file within an archive; at its end the lengths of the name and the extra field that follow it."""
SIGNATURE = b"PK\x03\x04"


class ZipArchive(Archive):
    """A zip archive, uncompressed or deflated, that is not unpacked.

    Its list of files is kept as sorted arrays: text and ends of the names, and members.

    Args:
        path: the archive.
        own_folder: left out of the names where everything is in a folder of this name.
        part: the names are taken as those in a folder `part`, unless there is one in the archive.
    """

    def __init__(self, path: str | Path, own_folder: str = "", part: str = ""):
        self.path = str(path)
        self.own_folder = own_folder
        self.part = part
        self._names: TextColumn | None = None
        self._members: np.ndarray | None = None
        self._file: int | None = None
        self._lock = threading.Lock()

    def __reduce__(self):
        return ZipArchive, (self.path, self.own_folder, self.part)

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def columns(self) -> dict[str, np.ndarray]:
        names, members = self._table()
        return {"text": names.text, "ends": names.ends, "members": members}

    def use(self, columns: dict[str, np.ndarray]) -> None:
        self._take(TextColumn(columns["text"], columns["ends"]), columns["members"])

    def first_from(self, key: str) -> str | None:
        names = self._table()[0]
        place = bisect_left(names, key)
        return names[place] if place < len(names) else None

    def get(self, key: str, limit: int | None = None) -> bytes | None:
        member = self._find(key)
        if member is None:
            return None
        offset, packed, size, deflated = member.item()
        length = packed if deflated or limit is None else min(packed, limit)
        content = self._content(key, offset, length)
        if not deflated:
            return content
        try:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            content = inflater.decompress(content, size if limit is None else limit)
        except zlib.error as error:
            raise self._damaged(f"{key} cannot be unpacked ({error})") from error
        if limit is None and len(content) != size:
            raise self._damaged(f"{key} has {len(content)} bytes instead of {size}")
        return content

    def size(self, key: str) -> int | None:
        member = self._find(key)
        return None if member is None else int(member["size"])

    def state_file(self) -> str:
        return self.path

    def _find(self, key: str) -> np.void | None:
        names, members = self._table()
        if not self._first <= key <= self._last:  # most often the case where a data set has many archives
            return None
        place = bisect_left(names, key)
        return members[place] if place < len(names) and names[place] == key else None

    def _table(self) -> tuple[TextColumn, np.ndarray]:
        """Names and members, read from the archive when nothing was kept."""
        if self._names is None or self._members is None:
            files = read_directory(self.path)
            members = np.array([(info.header_offset, info.compress_size, info.file_size,
                                 info.compress_type == zipfile.ZIP_DEFLATED) for info in files], MEMBER)
            names = self._mounted([info.filename for info in files])
            order = sorted(range(len(names)), key=names.__getitem__)
            self._take(TextColumn.of(names[i] for i in order), members[order])
        return self._names, self._members

    def _take(self, names: TextColumn, members: np.ndarray) -> None:
        """Use a list of files. The names come last, so that another thread finds all or nothing."""
        self._first, self._last = (names[0], names[-1]) if len(names) else ("\0", "")
        self._members = members
        self._names = names

    def _mounted(self, names: list[str]) -> list[str]:
        """Names in the archive as names in the data set."""
        top = {name.partition("/")[0] for name in names}
        if self.own_folder and top == {self.own_folder}:
            return [name.partition("/")[2] for name in names]
        return [f"{self.part}/{name}" for name in names] if self.part and self.part not in top else names

    def _content(self, key: str, offset: int, packed: int) -> bytes:
        """`packed` bytes of a file's content as they are in the archive."""
        header = self._bytes(offset, HEADER.size)
        if len(header) < HEADER.size or not header.startswith(SIGNATURE):
            raise self._damaged(f"no file starts at byte {offset}, where {key} should be")
        name, extra = HEADER.unpack(header)
        content = self._bytes(offset + HEADER.size + name + extra, packed)
        if len(content) != packed:
            raise self._damaged(f"it ends within {key}")
        return content

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            if self._file is None:
                with self._lock:
                    if self._file is None:
                        self._file = os.open(self.path, os.O_RDONLY)
            return os.pread(self._file, count, offset)  # without a position that threads or processes would share
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _damaged(self, problem: str) -> UserError:
        return UserError(f"the zip archive {self.path} is damaged or was replaced: {problem}; "
                         "download or copy it again")


def read_directory(path: str) -> list[zipfile.ZipInfo]:
    """The files of a zip archive, without what macOS adds. Backslashes, which some packers on Windows write, become
    slashes where no name has a slash.

    Raises:
        UserError: the archive is missing, broken, encrypted or packed by a method other than deflate.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if not any("/" in info.filename for info in infos):
                for info in infos:
                    info.filename = info.filename.replace("\\", "/")
            files = [info for info in infos
                     if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot open the zip archive {path}: {error}; it is missing, truncated or damaged. Download "
                        "or copy it again") from error
    for info in files:
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"the zip archive {path} cannot be read in place: {info.filename} is encrypted or packed "
                            f"by method {info.compress_type}. Unpack it, or pack it anew with `zip -0`")
    return files
