"""Benchmarks and results packed into one NumPy file each.

A packed file (.npz) holds
    names    (S,) names of the sequences
    offsets  (S + 1,) integers from 0 on; rows offsets[i]:offsets[i + 1] of the arrays below belong to sequence i
    boxes    (F, 4) x, y, w, h in pixels: annotations (NaN or no area where there is none) or predictions
    absent   (F,) optional, non-zero where the target is hidden or out of view (or `visible`, the opposite)
The flags may also stand in a file of their own with the same names and offsets (and no boxes).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...utils.errors import UserError


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
    if len(offsets) != len(names) + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise UserError(f"{path}: offsets must be {len(names) + 1} numbers that start at 0 and never fall")
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
            for name, start, stop in zip(names, offsets[:-1], offsets[1:], strict=True)}


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
    """The rows (N, 4) of one sequence in a packed file; used like `sources.TextResult`."""

    where: str
    rows: np.ndarray

    def content(self) -> list[bytes | memoryview]:
        """See `sources.Result`."""
        return [np.ascontiguousarray(self.rows).data.cast("B")] if self.rows.size else [b""]

    def boxes(self, repair: bool = False) -> tuple[np.ndarray, list[str]]:
        """See `sources.Result`; the scoring refuses invalid boxes."""
        return self.rows, []

    def times(self) -> None:
        """Packed results hold no times."""


class PackedResults:
    """A tracker's predictions in a packed file, read when first asked for; used like `sources.ResultFolder`."""

    def __init__(self, label: str, path: str | Path):
        self.label = label
        self.path = Path(path)
        self._sequences: dict[str, dict[str, np.ndarray]] | None = None

    def open(self, sequence) -> PackedResult | None:
        """The predictions of a sequence, or None.

        Raises:
            UserError: see `read_packed`.
        """
        if self._sequences is None:
            self._sequences = read_packed(self.path)
        found = self._sequences.get(sequence.name)
        if found is None or "boxes" not in found:
            return None
        return PackedResult(f"{self.path} [{sequence.name}]", found["boxes"])

    def locate(self, sequence) -> str | None:
        """Where the predictions of a sequence are, for messages; None when there are none."""
        found = self.open(sequence)
        return found and found.where

    def boxes(self, sequence) -> np.ndarray:
        """(N, 4) xywh predictions of a sequence; UserError when there are none."""
        found = self.open(sequence)
        if found is None:
            raise UserError(f"{self.path}: no results for the sequence {sequence.name}")
        return found.rows
