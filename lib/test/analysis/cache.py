"""Scores kept on disk, known by the content of everything that they were computed from.

One file for each tracker, data set and convention. It holds a key, the SHA-256 of
    the source files of this project that take part in scoring,
    the convention,
    each sequence's name, annotations, visibility flags and image size, and
    the whole content of the tracker's result files and time files (or that there is none).
Scores are taken from the file only when its key is that of the files as they are now: they are read on every call, what
is saved is the interpreting and scoring. Times and sizes of files play no part, so a kept score cannot be stale. A file
that is damaged, or that cannot be written, is as good as none.
"""

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np

from ...utils import box_forms, numbers
from ...utils.errors import UserError
from ...utils.files import atomic_write
from .conventions import Convention
from .metrics import SequenceScores
from .sources import Result

logger = logging.getLogger(__name__)

_FIELDS = tuple(field.name for field in fields(SequenceScores))
_SCORING = ("conventions.py", "frame_errors.py", "metrics.py", "names.py", "packed.py", "reading.py", "results.py",
            "sources.py", "textfiles.py")
"""The files beside this one that scores depend on."""


@cache
def _code_digest() -> bytes:
    """Of the source files that scores depend on."""
    digest = hashlib.sha256()
    for module in (numbers, box_forms):
        digest.update(Path(module.__file__).read_bytes())
    for name in _SCORING:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.digest()


def _update(digest, part: bytes | memoryview) -> None:
    """Add a part with its length, so that parts cannot run into each other."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def benchmark_digest(sequences: Iterable, sizes: Sequence[tuple[int, int] | None], convention: Convention) -> bytes:
    """Of all that scores depend on besides a tracker's results."""
    digest = hashlib.sha256(_code_digest())
    _update(digest, repr(convention).encode())
    for sequence, size in zip(sequences, sizes, strict=True):
        _update(digest, f"{sequence.name} {sequence.dataset} {size}".encode())
        earlier = getattr(sequence, "earlier", None)
        for boxes in (sequence.ground_truth, np.empty((0, 4)) if earlier is None else earlier):
            _update(digest, np.ascontiguousarray(boxes, dtype=np.float64).tobytes())
        flags = b"" if sequence.visible is None else np.ascontiguousarray(sequence.visible, dtype=bool).tobytes()
        _update(digest, flags)
    return digest.digest()


def results_key(benchmark: bytes, results: Iterable[Result | None], reading: object = None) -> str:
    """What a tracker's scores are known by: hexadecimal SHA-256.

    Args:
        benchmark: from `benchmark_digest`.
        results: one for each sequence, None where there is none.
        reading: how they are read: the stated form of their boxes, and whose they are.
    """
    digest = hashlib.sha256(benchmark)
    _update(digest, repr(reading).encode())
    for result in results:
        _update(digest, b"" if result is None else result.where.encode())
        for part in () if result is None else result.content():
            _update(digest, part)
    return digest.hexdigest()


class ScoreCache:
    """The kept scores of one data set.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def _file(self, label: str, convention: str) -> Path:
        name = re.sub(r"[^\w.+-]+", "_", label)
        mark = hashlib.sha256(label.encode()).hexdigest()[:8]  # labels that differ in other characters only
        return self.folder / f"{name}.{mark}.{convention}.npz"

    def load(self, label: str, convention: str, key: str) -> tuple[dict[str, SequenceScores], dict] | None:
        """Scores by sequence and what was stored with them; None when there are none of that key."""
        path = self._file(label, convention)
        try:
            with np.load(path, allow_pickle=False) as file:
                if file["key"].item() != key:
                    return None
                names, facts = file["names"].tolist(), json.loads(file["facts"].item())
                columns = [file[name] for name in _FIELDS]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.debug("%s: not readable, computed anew: %s", path, error)
            return None
        scores = {}
        for name, *values in zip(names, *columns, strict=True):
            scores[name] = SequenceScores(*(value if value.ndim else value.item() for value in values))
        return scores, facts

    def store(self, label: str, convention: str, key: str, scores: dict[str, SequenceScores], facts: dict) -> None:
        """Keep scores and anything that JSON can hold; a disk that refuses is only reported."""
        arrays = {name: np.array([getattr(score, name) for score in scores.values()]) for name in _FIELDS}
        try:
            with atomic_write(self._file(label, convention)) as temporary, open(temporary, "wb") as file:
                np.savez(file, key=key, names=list(scores), facts=json.dumps(facts), **arrays)
        except UserError as error:
            logger.warning("scores are not kept for the next time: %s", error)
