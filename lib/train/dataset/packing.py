"""Packing a data set into LMDB, in the layout that the readers of the OSTrack family expect."""

import contextlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...utils.errors import UserError
from ...utils.files import cannot_write, write_text
from ...utils.ownership import NAME, own
from ...utils.progress import progress
from ...utils.storage import Storage
from ...utils.threads import map_in_threads
from .base import StoredDataset
from .lmdb_archive import DATA_FILE, LmdbArchive, encoded_key, import_lmdb, is_lmdb
from .storage import LMDB_SUFFIX

logger = logging.getLogger(__name__)

PART_SUFFIX = ".part"
CHUNK = 256
"""Files that are read at once and written in one transaction."""
READ_THREADS = 8
FIRST_MAP = 1 << 30
"""First size of an LMDB's map; it is doubled whenever it is full. The file on the disk is only as large as needed."""
LONGEST_KEY = 511
"""Bytes; LMDB's limit."""
SEQUENCE_LIST = "seq_list.json"
"""Beside the LMDBs of a data set in parts: [part's number, sequence] of all sequences, for OSTrack's reader."""


@dataclass
class Target:
    """One LMDB to be written.

    Attributes:
        folder: its final place.
        files: key -> name of the file in the data set.
        made: key -> content of files that the data set does not have.
    """

    folder: Path
    files: dict[str, str]
    made: dict[str, bytes]

    def __len__(self) -> int:
        return len(self.files) + len(self.made)


def plan(dataset: StoredDataset, output: str | Path) -> list[Target]:
    """What has to be written.

    Args:
        dataset: the data set.
        output: folder of the LMDB; for a data set whose LMDB form is in parts, the folder that holds them.

    Raises:
        UserError: the data set is an LMDB already, or a name in it is too long.
    """
    if dataset.storage.kind == "lmdb":
        raise UserError(f"data set {dataset.dataset} is read from an LMDB ({dataset.storage.root}); to pack it, its "
                        "folders or zip archives are needed")
    place, made = dataset.place, dataset.made_files()
    targets: dict[str, Target] = {}
    for name in [*dataset.packed_files(), *made]:
        part, inner = name.split("/", 1) if place.parted else ("", place.inner + name)
        folder = Path(output) / (part + LMDB_SUFFIX) if part else Path(output)
        target = targets.setdefault(part, Target(folder, {}, {}))
        if name in made:
            target.made[inner] = made[name]
        else:
            target.files[inner] = name
        if len(encoded_key(inner)) > LONGEST_KEY:
            raise UserError(f"{name}: longer than {LONGEST_KEY} bytes, which LMDB does not allow; rename it")
    return list(targets.values())


def write_sequence_list(dataset: StoredDataset, output: str | Path) -> None:
    """The list of sequences beside the LMDBs of a data set in parts (nothing for the others)."""
    if dataset.place.parted:
        pairs = [name.split("/", 1) for name in dataset.sequences]
        numbered = [[int(part.rpartition("_")[2]), sequence] for part, sequence in pairs]
        write_text(Path(output) / SEQUENCE_LIST, json.dumps(numbered))


def check_place(target: Target) -> None:
    """UserError where something else than an LMDB is in a target's place."""
    folder = target.folder
    if folder.exists() and not is_lmdb(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds something else (no {DATA_FILE}); choose another --output")


def pack(storage: Storage, target: Target) -> bool:
    """Write one LMDB, or go on with it after an interruption. It appears at its place when it is whole and verified.

    Files that an interrupted run has written with the same size stay.

    Returns:
        False when it was there already.

    Raises:
        UserError: a file cannot be read, the disk is full, another process packs the same, or what was written is not
            what was read.
    """
    if is_lmdb(target.folder):
        return False
    lmdb = import_lmdb()
    part = target.folder.with_name(target.folder.name + PART_SUFFIX)
    try:
        with own(part):
            with contextlib.closing(lmdb.open(str(part), map_size=_first_map(part), readahead=False)) as environment:
                _write(environment, storage, target)
            problems = verify(storage, target, folder=part)
            if problems:
                shutil.rmtree(part)
                raise UserError(f"{target.folder} was not written as it was read ({problems[0]}); it is removed. Check "
                                "the disk and the memory of this machine, then pack again")
            (part / NAME).unlink(missing_ok=True)
            os.rename(part, target.folder)
    except (OSError, lmdb.Error) as error:
        problem = (cannot_write(part, error, "--output") if isinstance(error, OSError) else
                   f"cannot write {part}: {error}; free disk space or choose another --output")
        raise UserError(f"{problem}. The same command goes on with what is there; if that is damaged, remove it first"
                        ) from error
    return True


def verify(storage: Storage, target: Target, *, sample: int = 1000, folder: Path | None = None) -> list[str]:
    """Compare an LMDB with the files that it should hold.

    Args:
        sample: of how many files, evenly spread, the checksum is compared too; 0 for all. Of the others the size.
        folder: where it lies; None for its final place.

    Returns:
        What is wrong, one line for each key; nothing when all is well.

    Raises:
        UserError: the LMDB or a file of the data set cannot be read.
    """
    folder = folder or target.folder
    step = max(1, len(target) // sample) if sample else 1
    problems = []
    keys = [*target.files, *target.made]
    with contextlib.closing(LmdbArchive(folder)) as archive:
        for place, key in enumerate(progress(keys, len(keys), f"verify {target.folder.name}", "files")):
            stored_size = archive.size(key)
            if stored_size is None:
                problems.append(f"{key} is missing")
                continue
            name = target.files.get(key)
            content = storage.read(name) if name is not None and place % step == 0 else target.made.get(key)
            size = len(content) if content is not None else storage.size(name)
            if stored_size != size:
                problems.append(f"{key} has {stored_size} bytes instead of {size}")
            elif content is not None and zlib.crc32(archive.get(key)) != zlib.crc32(content):
                problems.append(f"{key} has another content than {storage.locate(name) if name else 'it should'}")
    return problems


def _write(environment: Any, storage: Storage, target: Target) -> None:
    """Put everything that is not there yet into an open LMDB."""
    files = list(target.files.items())
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    for chunk in progress(chunks, len(chunks), f"pack {target.folder.name}", f"x {CHUNK} files"):
        with environment.begin(buffers=True) as transaction:
            missing = [(key, name) for key, name in chunk
                       if (stored := transaction.get(encoded_key(key))) is None or len(stored) != storage.size(name)]
        contents = map_in_threads(storage.read, [name for _, name in missing], READ_THREADS)
        _put(environment, {key: content for (key, _), content in zip(missing, contents, strict=True)})
    _put(environment, target.made)
    environment.sync(True)


def _put(environment: Any, contents: Mapping[str, bytes]) -> None:
    """Write in one transaction, with a larger map where this one is full."""
    lmdb = import_lmdb()
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, content in contents.items():
                    transaction.put(encoded_key(key), content)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(environment.info()["map_size"] * 2)


def _first_map(part: Path) -> int:
    """Bytes of the map to begin with: twice of what an interrupted run has written."""
    file = part / DATA_FILE
    return max(FIRST_MAP, 2 * file.stat().st_size if file.is_file() else 0)


def describe(targets: Sequence[Target]) -> str:
    """Numbers of a plan in words."""
    files = sum(len(target) for target in targets)
    return f"{files} files into {len(targets)} LMDB{'s' if len(targets) != 1 else ''}"
