"""Results of trackers: where they are, how they are read, how they are brought to the annotated frames.

A sequence is any object with `name`, `dataset`, `ground_truth` (N, 4) xywh (NaN where there is no target) and
`visible` (N,) bool or None. A source of results is any object with the members of `ResultSource`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...utils.errors import UserError
from ..evaluation.results import boxes_file, has_own_names, has_results, times_file, tracker_folder
from .textfiles import parse_boxes, parse_times, read_bytes

_SAME_BOX = 1.0
"""Pixels by which a written first box may differ from the annotation (results are cut to integers)."""


class Result(Protocol):
    """One tracker's predictions on one sequence, not yet interpreted."""

    where: str
    """For messages: the file, or the place in it."""

    def content(self) -> list[bytes | memoryview]:
        """All that scores depend on: what a cache has to know them by."""

    def boxes(self, repair: bool = False) -> tuple[np.ndarray, list[str]]:
        """(N, 4) xywh predictions, and notes on what was adapted; `repair` as in `textfiles.parse_boxes`."""

    def times(self) -> np.ndarray | None:
        """Seconds per frame, (N,), or None when they were not recorded."""


class ResultSource(Protocol):
    """One tracker's predictions on any number of sequences."""

    label: str

    def locate(self, sequence) -> str | None:
        """Where the predictions of a sequence are, for messages; None when there are none."""

    def open(self, sequence) -> Result | None:
        """The predictions of a sequence; None when there are none."""

    def boxes(self, sequence) -> np.ndarray:
        """(N, 4) xywh predictions of a sequence that `locate` found."""


@dataclass(frozen=True)
class TextResult:
    """A result file and the time file beside it, as they were read once."""

    where: str
    data: bytes
    seconds: bytes | None
    seconds_where: str
    notes: tuple[str, ...] = ()

    def content(self) -> list[bytes | memoryview]:
        """See `Result`."""
        return [self.data, self.seconds or b"", *(note.encode() for note in self.notes)]

    def boxes(self, repair: bool = False) -> tuple[np.ndarray, list[str]]:
        """See `Result`; UserError with file and line when the file is damaged."""
        boxes, notes = parse_boxes(self.data, self.where, repair)
        return boxes, [*self.notes, *notes]

    def times(self) -> np.ndarray | None:
        """See `Result`; UserError with file and line when the file is damaged."""
        return None if self.seconds is None else parse_times(self.seconds, self.seconds_where)


@dataclass
class ResultFolder:
    """A folder of result files `<sequence>.txt`, or `<sequence>/<sequence>_001.txt` as the GOT-10k toolkit writes them.

    Attributes:
        label: the tracker's name in tables and plots.
        folder: where the files are; some data sets have their own sub-folder in it (`dataset_folder`).
        flat: look for every data set's files in `folder` itself too (results that another project wrote).
    """

    label: str
    folder: Path
    flat: bool = False

    def _file(self, sequence) -> Path | None:
        file = boxes_file(self.folder, sequence.dataset, sequence.name)
        folders = [file.parent]
        if self.flat or has_own_names(sequence.dataset):
            folders.append(self.folder)
        names = (f"{sequence.name}.txt", f"{sequence.name}/{sequence.name}_001.txt")
        return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)

    def locate(self, sequence) -> str | None:
        """The result file of a sequence, or None."""
        file = self._file(sequence)
        return None if file is None else str(file)

    def open(self, sequence) -> TextResult | None:
        """The files of a sequence; UserError when they cannot be read."""
        file = self._file(sequence)
        if file is None:
            return None
        times, notes = times_file(file), ()
        if file.stem != sequence.name:
            times = file.with_name(f"{sequence.name}_time.txt")
            repeats = len(list(file.parent.glob(f"{sequence.name}_[0-9][0-9][0-9].txt")))
            notes = (f"the first of {repeats} repetitions is scored",) if repeats > 1 else ()
        seconds = read_bytes(times) if times.is_file() else None
        return TextResult(str(file), read_bytes(file), seconds, str(times), notes)

    def boxes(self, sequence) -> np.ndarray:
        """(N, 4) xywh predictions; UserError with file and line when the file is damaged."""
        result = self.open(sequence)
        if result is None:
            raise UserError(f"{self.folder}: no results for the sequence {sequence.name}")
        return result.boxes()[0]


def find_trackers(results_path: str | Path) -> list[ResultFolder]:
    """Every `<results_path>/<script>/<config>` folder with result files in it, sorted by path.

    A label is the folder's name, with the script before it where two scripts share that name.
    """
    results_path = Path(results_path)
    if not results_path.is_dir():
        return []
    folders = [folder for folder in sorted(results_path.glob("*/*")) if folder.is_dir() and has_results(folder)]
    names = [folder.name for folder in folders]
    return [ResultFolder(f.name if names.count(f.name) == 1 else f"{f.parent.name}/{f.name}", f) for f in folders]


def parse_tracker(text: str, results_path: str | Path) -> ResultFolder:
    """A tracker from `script:config[:runid][=label]`.

    Raises:
        UserError: the text has another form, or there is no such folder (the message says what there is).
    """
    match = re.fullmatch(r"([^:=]+):([^:=]+)(?::(\d+))?(?:=(.+))?", text)
    if not match:
        raise UserError(f"--tracker {text}: expected script:config, script:config:runid or either with =label behind")
    script, config, run_id, label = match.groups()
    folder = tracker_folder(results_path, script, config, None if run_id is None else int(run_id))
    if not folder.is_dir():
        found = [f"{f.folder.parent.name}:{f.folder.name}" for f in find_trackers(results_path)]
        raise UserError(f"no results in {folder}; run tracking/test.py {script} {config} first. "
                        f"Found below {results_path}: {', '.join(found) or 'nothing'}")
    return ResultFolder(label or folder.name, folder)


def align(pred: np.ndarray, sequence, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str | None]:
    """Bring predictions and annotations to the same frames.

    The first row of a result file is the box that the tracker was given, so it tells which frame the rows begin at.
    Three cases are accepted when lengths differ:

    - more rows than frames, and the first row is the first annotation: the rows at the end are left out (some LaSOT
      results have them);
    - fewer rows, and the first row is the annotation of the frame that many frames later and not the first one's: the
      tracker was started late (OTB's Tiger1, which trackers start at frame 6), and is compared from there on;
    - exactly one row fewer, and the first row is neither: the given box was not written, and is put back. It is never
      judged, so nothing depends on it.

    "Is" means within one pixel in all four numbers.

    Returns:
        predictions (M, 4), annotations (M, 4), visibility (M,) or None, and a note when something was adapted.

    Raises:
        UserError: any other difference in length.
    """
    gt, visible = np.asarray(sequence.ground_truth, dtype=np.float64), sequence.visible
    lack = len(gt) - len(pred)
    if lack == 0:
        return pred, gt, visible, None

    def begins_at(frame: int) -> bool:
        return len(pred) > 0 and bool(np.abs(pred[0] - gt[frame]).max() <= _SAME_BOX)

    if lack < 0 and begins_at(0):
        return pred[:len(gt)], gt, visible, f"{-lack} rows beyond the {len(gt)} annotated frames left out"
    if 0 < lack < len(gt) and not begins_at(0):
        if begins_at(lack):
            return (pred, gt[lack:], None if visible is None else visible[lack:],
                    f"starts at frame {lack + 1}; compared with the annotations from there on")
        if lack == 1 and np.isfinite(gt[0]).all():
            return (np.vstack([gt[:1], pred]), gt, visible,
                    "one row short and without the first frame's box, which was put back")
    raise UserError(f"{where}: {len(pred)} boxes for the {len(gt)} annotated frames of {sequence.name}; one box per "
                    "frame was expected, and which frames the rows belong to is not plain. Delete the file and run the "
                    "tracker on this sequence again")
