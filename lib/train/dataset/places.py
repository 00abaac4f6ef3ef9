"""In which form a data set is there: folders, LMDB or zip archives."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...utils.errors import UserError
from ...utils.frames import VIDEO_SUFFIXES, is_picture
from ...utils.storage import DirectoryStorage, Storage
from .lmdb_archive import LmdbArchive, is_lmdb
from .storage import LMDB_SUFFIX, ZIP_SUFFIX, ArchiveStorage, Mount
from .zip_archive import ZipArchive

FORMS = ("directory", "lmdb", "zip")
DEEPEST = 3
"""Folders above the pictures of a sequence of one's own: <class>/<sequence>/img."""


@dataclass(frozen=True)
class Place:
    """Where a data set may lie.

    Attributes:
        dataset: name in the yaml.
        field: the setting of lib/train/admin/local.py that holds the folder; '' where the yaml names it.
        root: its value.
        lmdb_field, lmdb: the same for the LMDB.
        layout: what is expected in the folder.
        inner: what the names in the LMDB start with.
        parts: folders that may come as an LMDB <part>_lmdb or an archive <part>.zip of their own.
        parted: whether the LMDB form has one LMDB for each part.
    """

    dataset: str
    field: str
    root: str
    lmdb_field: str
    lmdb: str
    layout: str
    inner: str = ""
    parts: Collection[str] = ()
    parted: bool = False

    @classmethod
    def of(cls, env: Any, dataset: str, field: str, lmdb_field: str, layout: str, **options: Any) -> "Place":
        """With the values that the environment `env` has for the two fields."""
        root, lmdb = (getattr(env, name, "") or "" for name in (field, lmdb_field))
        return cls(dataset, field, root, lmdb_field, lmdb, layout, **options)

    @classmethod
    def own(cls, dataset: str, path: Path, layout: str) -> "Place":
        """Of data of one's own, which the yaml names by its path."""
        location = _archive_in(path)
        folder = location[0].with_suffix("") / location[1] if location else path
        return cls(dataset, "", str(path), "", f"{folder}{LMDB_SUFFIX}", layout)

    @property
    def is_own(self) -> bool:
        """Whether the yaml names the path."""
        return not self.field

    def nothing_found(self, storage: Storage) -> UserError:
        """The error for a storage without a single sequence."""
        return UserError(f"data set {self.dataset}: no sequence in {storage.root}. {self.how_to_set()}")

    def how_to_set(self) -> str:
        """How a user tells where the data set is, and what should be there."""
        if self.is_own:
            return f"Expected {self.layout}"
        return (f"Set {self.field} (for LMDB: {self.lmdb_field}) in lib/train/admin/local.py (written by "
                f"tracking/create_default_local_file.py) or the environment variable "
                f"COMPRESSTRACKER_{self.field.upper()}, or leave the data set out of DATASETS_NAME. Expected layout: "
                f"{self.layout}")


def open_storage(place: Place, form: str) -> Storage:
    """The storage of a data set.

    Args:
        place: where it may lie.
        form: "directory", "lmdb", "zip", or "auto" for the first of them that is there. A path of one's own that is an
            archive, or leads into one, says the form itself.

    Raises:
        UserError: it is not there in that form.
    """
    storage = archive_at(Path(place.root)) if place.is_own else None
    for candidate in FORMS if form == "auto" else (form,):
        storage = storage or _OPENERS[candidate](place)
    if storage is not None:
        return storage
    if place.is_own and form in ("auto", "directory") and os.path.isdir(place.root) and _zip(place) is None:
        return DirectoryStorage(place.root)
    root, lmdb = place.root or "(not set)", place.lmdb or "(not set)"
    archives = f"zip archives {root}.zip or {os.path.join(root, '*.zip')}"
    folder = f" (DATA.STORAGE: auto takes the folder {root})" if place.is_own and _directory(place) else ""
    if form == "lmdb":
        problem = f"no LMDB at {lmdb}; pack one with `python tracking/make_lmdb.py {place.dataset}`{folder}"
    elif form == "zip":
        problem = f"no {archives}{folder}"
    else:
        problem = f"no sequence in {root}" if os.path.isdir(root) else f"folder not found: {root}"
        problem += f" (nor an LMDB at {lmdb}, nor {archives})" if form == "auto" else ""
    raise UserError(f"data set {place.dataset}: {problem}. {place.how_to_set()}")


def is_in_some_form(path: Path) -> bool:
    """Whether a path is a folder or an archive, or stands for an archive beside it."""
    return path.exists() or is_lmdb(f"{path}{LMDB_SUFFIX}") or _zip_beside(path) is not None


def archive_at(path: Path) -> ArchiveStorage | None:
    """The files of an LMDB or a zip archive that a path names, or of a folder in one that it leads into
    (``data/all.zip/mine``); None where it does neither."""
    location = _archive_in(path)
    if location is None:
        return None
    file, folder = location
    inner = f"{folder}/" if folder else ""
    if is_lmdb(file):
        return ArchiveStorage(str(path), "lmdb", [Mount(LmdbArchive(file), inner=inner)])
    return ArchiveStorage(str(path), "zip", [Mount(ZipArchive(file, own_folder=file.stem), inner=inner)])


def _archive_in(path: Path) -> tuple[Path, str] | None:
    """The LMDB or zip archive in a path, and the folder in it ('' for the whole)."""
    existing = next((part for part in (path, *path.parents) if os.path.exists(part)), path)
    if not is_lmdb(existing) and not (existing.suffix.lower() == ZIP_SUFFIX and existing.is_file()):
        return None
    return existing, "" if existing == path else path.relative_to(existing).as_posix()


def _directory(place: Place) -> Storage | None:
    """The folder, if there is a folder in it (one with archives only is the zip form); of one's own data, which may
    have lists in folders beside an archive, if there is a picture or a video in it or in the folders in it."""
    if not os.path.isdir(place.root):
        return None
    storage = DirectoryStorage(place.root)
    return storage if (_holds_frames(place.root) if place.is_own else storage.folders()) else None


def _holds_frames(root: str) -> bool:
    """Whether there is a picture or a video in a folder, or as deep in it as those of sequences may be."""
    for folder, inner, files in os.walk(root, followlinks=True):
        if any(is_picture(name) or name.lower().endswith(VIDEO_SUFFIXES) for name in files):
            return True
        if len(Path(folder).relative_to(root).parts) == DEEPEST:
            inner.clear()
    return False


def _lmdb(place: Place) -> Storage | None:
    if is_lmdb(place.lmdb):
        return ArchiveStorage(place.lmdb, "lmdb", [Mount(LmdbArchive(place.lmdb), inner=place.inner)])
    mounts = [Mount(LmdbArchive(path), outer=f"{part}/") for part in place.parts
              if is_lmdb(path := os.path.join(place.lmdb, part + LMDB_SUFFIX))]
    return ArchiveStorage(place.lmdb, "lmdb", mounts) if mounts else None


def _zip(place: Place) -> Storage | None:
    """<data set>.zip beside the data set's folder, or all archives in it."""
    if not place.root:
        return None
    root = Path(place.root)
    whole = _zip_beside(root)
    if whole is not None:
        return archive_at(whole)
    mounts = [Mount(ZipArchive(path, part=path.stem if path.stem in place.parts else ""))
              for path in sorted(root.glob("*.[zZ][iI][pP]"))]
    return ArchiveStorage(str(root), "zip", mounts) if mounts else None


def _zip_beside(folder: Path) -> Path | None:
    """<folder>.zip, if there is one."""
    files = (Path(f"{folder}{suffix}") for suffix in (ZIP_SUFFIX, ZIP_SUFFIX.upper()))
    return next((file for file in files if file.is_file()), None)


_OPENERS = {"directory": _directory, "lmdb": _lmdb, "zip": _zip}
