"""Benchmarks and results packed into one NumPy file each.

A packed file (.npz) holds
    names    (S,) names of the sequences
    offsets  (S + 1,) integers from 0 on; rows offsets[i]:offsets[i + 1] of the arrays below belong to sequence i
    boxes    (F, 4) x, y, w, h in pixels: annotations (NaN or no area where there is none) or predictions
    absent   (F,) optional, non-zero where the target is hidden or out of view (or `visible`, the opposite)
The flags may also stand in a file of their own with the same names and offsets (and no boxes).
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...utils.errors import UserError
from .names import match_names
from .sources import EXTERNAL_REMEDY, Result, UnusableResult, ambiguous, some_names
from .textfiles import Rows, json_rows, parse_json, read_bytes


@dataclass(frozen=True)
class PackedSequence:
    """One sequence of a packed benchmark: annotations (N, 4) xywh and visibility (N,) bool or None."""

    name: str
    dataset: str
    ground_truth: np.ndarray
    visible: np.ndarray | None


def read_packed(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """{sequence: {"boxes": (N, 4) float, "visible": (N,) bool}}, with those of the two that the file holds.

    Raises:
        UserError: the file is missing, is not an .npz file, or does not have the layout of this module.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a packed benchmark (.npz): {error}") from error
    missing = {"names", "offsets"} - arrays.keys()
    columns = {key: arrays[key] for key in ("boxes", "absent", "visible") if key in arrays}
    if missing or not columns:
        raise UserError(f"{path}: a packed benchmark has the arrays names, offsets and boxes (or absent or visible); "
                        f"found {', '.join(sorted(arrays)) or 'nothing'}")
    names, offsets = arrays["names"].tolist(), arrays["offsets"]
    whole = offsets.astype(np.int64) if offsets.dtype.kind in "iuf" else np.empty(0)
    if whole.shape != (len(names) + 1,) or (whole != offsets).any() or whole[0] != 0 or (np.diff(whole) < 0).any():
        raise UserError(f"{path}: offsets must be {len(names) + 1} whole numbers that start at 0 and never fall")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"{path}: two sequences are called {double}")
    for key, values in columns.items():
        expected = (int(offsets[-1]), 4) if key == "boxes" else (int(offsets[-1]),)
        if values.shape != expected:
            raise UserError(f"{path}: {key} has the shape {values.shape}; {expected} was expected from the offsets")
    fields = {}
    if "boxes" in columns:
        fields["boxes"] = columns["boxes"].astype(np.float64)
    if "absent" in columns:
        fields["visible"] = columns["absent"] == 0
    elif "visible" in columns:
        fields["visible"] = columns["visible"] != 0
    return {str(name): {key: values[start:stop] for key, values in fields.items()}
            for name, start, stop in zip(names, whole[:-1], whole[1:], strict=True)}


def read_benchmark(path: str | Path, absent: str | Path | None = None) -> list[PackedSequence]:
    """Sequences of a packed benchmark; the data set's name is the file's without `_gt`.

    Args:
        path: packed annotations.
        absent: packed visibility flags, when they are in a file of their own.

    Raises:
        UserError: see `read_packed`; or the two files do not belong together.
    """
    path = Path(path)
    packed = read_packed(path)
    flags = read_packed(absent) if absent else packed
    sequences = []
    for name, fields in packed.items():
        if "boxes" not in fields:
            raise UserError(f"{path}: no array `boxes` in it; is this the file with the annotations?")
        visible = flags.get(name, {}).get("visible")
        if absent and (visible is None or len(visible) != len(fields["boxes"])):
            raise UserError(f"{absent}: no visibility flag for each of the {len(fields['boxes'])} frames of {name} "
                            f"that {path} annotates")
        sequences.append(PackedSequence(name, path.stem.removesuffix("_gt"), fields["boxes"], visible))
    return sequences


@dataclass(frozen=True)
class PackedResult:
    """The rows of one sequence in a file with those of many; used like `sources.TextResult`."""

    where: str
    values: np.ndarray
    notes: tuple[str, ...] = ()

    def content(self) -> list[bytes | memoryview]:
        """See `sources.Result`."""
        boxes = [np.ascontiguousarray(self.values).data.cast("B")] if self.values.size else [b""]
        return [*boxes, *(note.encode() for note in self.notes)]

    def rows(self) -> Rows:
        """See `sources.Result`."""
        return Rows(self.values, list(self.notes))

    def times(self) -> None:
        """Files of many sequences hold no times."""


class PackedResults:
    """A tracker's predictions on many sequences in one file, read when first asked for: a packed one (.npz), or JSON
    with an object {"<sequence>": boxes, ...}, see `textfiles.json_rows`. Used like `sources.ResultFolder`."""

    mean_of = ""
    remedy = EXTERNAL_REMEDY

    def __init__(self, label: str, path: str | Path, form: str | None = None):
        self.label = label
        self.path = Path(path)
        self.form = form

    @cached_property
    def _results(self) -> dict[str, PackedResult | UnusableResult]:
        """All sequences of the file."""
        if self.path.suffix.lower() == ".json":
            return self._from_json()
        return {name: PackedResult(f"{self.path} [{name}]", fields["boxes"])
                for name, fields in read_packed(self.path).items() if "boxes" in fields}

    def _from_json(self) -> dict[str, PackedResult | UnusableResult]:
        content = parse_json(read_bytes(self.path), str(self.path))
        if not isinstance(content, dict):
            raise UserError(f'{self.path}: expected {{"<sequence>": [[x, y, w, h], ...], ...}}')
        results = {}
        for name, boxes in content.items():
            where = f"{self.path} [{name}]"
            try:
                rows = json_rows(boxes, where)
                results[name] = PackedResult(where, rows.values, tuple(rows.notes))
            except UserError as error:
                results[name] = UnusableResult(where, str(error))
        return results

    def find(self, sequences: Sequence) -> list[Result | None]:
        """See `sources.ResultSource`; UserError as from `read_packed`."""
        matches = match_names([s.name for s in sequences], self._results, sequences[0].dataset)
        return [self._result(matches.get(sequence.name, [])) for sequence in sequences]

    def _result(self, names: Sequence[str]) -> Result | None:
        if len(names) > 1:
            return ambiguous(str(self.path), names)
        return self._results[names[0]] if names else None

    def has_any(self, sequences: Sequence) -> bool:
        """See `sources.ResultSource`."""
        return any(sequence.name in self._results for sequence in sequences)

    def lacking(self, sequences: Sequence) -> str:
        """See `sources.ResultSource`."""
        return (f"no results in {self.path} are called like {some_names([s.name for s in sequences])}; there are those "
                f"of {some_names(list(self._results))}")
