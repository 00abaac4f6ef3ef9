"""Results of trackers: finding them, matching them with a benchmark's annotations, scoring them.

A sequence is any object with `name`, `dataset`, `ground_truth` (N, 4) xywh (NaN where there is no target) and
`visible` (N,) bool or None. A source of results is any object with the four members of `ResultSource`.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from lib.test.analysis.metrics import Convention, Scores, SequenceScores, convention_for, evaluate_sequence, summarize
from lib.test.analysis.textfiles import read_boxes, read_times
from lib.test.evaluation.results import boxes_file, has_own_names, has_results, times_file, tracker_folder
from lib.utils.errors import UserError

logger = logging.getLogger(__name__)

_SAME_BOX = 1.0
"""Pixels by which a written first box may differ from the annotation (results are cut to integers)."""


class ResultSource(Protocol):
    """One tracker's predictions on any number of sequences."""

    label: str

    def locate(self, sequence) -> str | None:
        """Where the predictions of a sequence are, for messages; None when there are none."""

    def boxes(self, sequence) -> np.ndarray:
        """(N, 4) xywh predictions of a sequence that `locate` found."""

    def times(self, sequence) -> np.ndarray | None:
        """Seconds per frame, (N,), or None when they were not recorded."""


@dataclass
class ResultFolder:
    """A folder of result files `<sequence>.txt`.

    Attributes:
        label: the tracker's name in tables and plots.
        folder: where the files are; some data sets have their own sub-folder in it (`dataset_folder`).
        flat: look for every data set's files in `folder` itself too (results that another project wrote).
    """

    label: str
    folder: Path
    flat: bool = False

    def _file(self, sequence) -> Path | None:
        files = [boxes_file(self.folder, sequence.dataset, sequence.name)]
        if self.flat or has_own_names(sequence.dataset):
            files.append(self.folder / f"{sequence.name}.txt")
        return next((file for file in files if file.is_file()), None)

    def locate(self, sequence) -> str | None:
        """The result file of a sequence, or None."""
        file = self._file(sequence)
        return None if file is None else str(file)

    def boxes(self, sequence) -> np.ndarray:
        """(N, 4) xywh predictions; UserError with file and line when the file is damaged."""
        file = self._file(sequence)
        if file is None:
            raise UserError(f"{self.folder}: no results for the sequence {sequence.name}")
        return read_boxes(file)

    def times(self, sequence) -> np.ndarray | None:
        """Seconds per frame from the time file beside the boxes, or None where there is none."""
        file = self._file(sequence)
        if file is None or not times_file(file).is_file():
            return None
        return read_times(times_file(file))


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


@dataclass
class TrackerReport:
    """One tracker on one benchmark.

    Attributes:
        scores: None when sequences are missing and partial scores were not asked for.
        sequences: scores of every sequence with results.
        missing: names of the sequences without results.
        notes: what was unusual about the files.
        fps: frames per second after the first frame, over all sequences with recorded times; None without any.
    """

    label: str
    scores: Scores | None = None
    sequences: dict[str, SequenceScores] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fps: float | None = None


@dataclass
class BenchmarkReport:
    """All trackers on one benchmark.

    Attributes:
        total: number of sequences the benchmark has.
        scored: number of sequences the scores are over; less than `total` only in a partial report.
    """

    dataset: str
    convention: Convention
    total: int
    scored: int
    trackers: list[TrackerReport]

    @property
    def complete(self) -> bool:
        """No tracker lacks a sequence."""
        return not any(tracker.missing for tracker in self.trackers)


def align(pred: np.ndarray, sequence, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str | None]:
    """Bring predictions and annotations to the same frames.

    Rows beyond the last annotated frame are left out (some LaSOT results have them). Results that are too short are
    accepted only when they plainly start later: their first box is the annotation of that later frame and not the one
    of the first frame (OTB's Tiger1, which trackers start at frame 6).

    Returns:
        predictions (M, 4), annotations (M, 4), visibility (M,) or None, and a note when something was left out.

    Raises:
        UserError: too short in any other way.
    """
    gt, visible = np.asarray(sequence.ground_truth, dtype=np.float64), sequence.visible
    lack = len(gt) - len(pred)
    if lack == 0:
        return pred, gt, visible, None
    if lack < 0:
        return pred[:len(gt)], gt, visible, f"{where}: {-lack} rows beyond the {len(gt)} annotated frames left out"
    late = len(pred) > 0 and np.abs(pred[0] - gt[lack]).max() <= _SAME_BOX
    on_time = len(pred) > 0 and np.abs(pred[0] - gt[0]).max() <= _SAME_BOX
    if not late or on_time:
        raise UserError(f"{where}: {len(pred)} boxes for the {len(gt)} annotated frames of {sequence.name}; one "
                        "box per frame was expected. Delete the file and run the tracker on this sequence again")
    return (pred, gt[lack:], None if visible is None else visible[lack:],
            f"{where}: starts at frame {lack + 1}; compared with the annotations from there on")


def score_tracker(source: ResultSource, sequences: Iterable, convention: Convention) -> TrackerReport:
    """Score one tracker on every sequence it has results for (`scores` stays None).

    Raises:
        UserError: a result file is damaged or has the wrong length, or a sequence has no public annotations.
    """
    report = TrackerReport(source.label)
    frames, seconds = 0, 0.0
    for sequence in sequences:
        where = source.locate(sequence)
        if where is None:
            report.missing.append(sequence.name)
            continue
        pred, gt, visible, note = align(source.boxes(sequence), sequence, where)
        if note:
            report.notes.append(note)
        try:
            report.sequences[sequence.name] = evaluate_sequence(pred, gt, visible, convention)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        times = source.times(sequence)
        if times is not None and len(times) > 1:
            frames += len(times) - 1
            seconds += float(times[1:].sum())
    report.fps = frames / seconds if seconds > 0 else None
    return report


def evaluate_benchmark(sources: Sequence[ResultSource], sequences: Sequence, dataset: str,
                       convention: Convention | None = None, partial: bool = False) -> BenchmarkReport:
    """Score trackers on a benchmark.

    Args:
        sources: the trackers' results.
        sequences: the benchmark.
        dataset: its name, which chooses the convention when none is given.
        partial: score the sequences for which every tracker has results. Otherwise a tracker that lacks sequences
            gets no scores; its `missing` says which.

    Raises:
        UserError: see `score_tracker`; or a benchmark without public annotations; or no sequence is common to all.
    """
    _require_annotations(sequences, dataset)
    convention = convention or convention_for(dataset)
    if convention.unseen_is_miss and all(sequence.visible is None for sequence in sequences):
        logger.warning("%s: no visibility flags found, so hidden targets are not counted as misses and the scores are "
                       "not comparable with published ones", dataset)
    trackers = [score_tracker(source, sequences, convention) for source in sources]
    scored = [sequence.name for sequence in sequences
              if not partial or all(sequence.name in tracker.sequences for tracker in trackers)]
    if not scored:
        counts = ", ".join(f"{tracker.label} {len(tracker.sequences)}" for tracker in trackers)
        raise UserError(f"{dataset}: no sequence has results of all trackers (of {len(sequences)}: {counts}); "
                        "leave out the tracker that lacks them")
    for tracker in trackers:
        if all(name in tracker.sequences for name in scored):
            tracker.scores = summarize([tracker.sequences[name] for name in scored], convention)
    return BenchmarkReport(dataset, convention, len(sequences), len(scored), trackers)


def has_annotations(sequences: Sequence) -> bool:
    """Whether any sequence has a box after its first one (evaluation servers keep the others to themselves)."""
    return any(np.isfinite(sequence.ground_truth[1:]).all(axis=1).any() for sequence in sequences)


def _require_annotations(sequences: Sequence, dataset: str) -> None:
    """Refuse benchmarks that cannot be scored here."""
    if not sequences:
        raise UserError(f"{dataset}: the data set has no sequences")
    if not has_annotations(sequences):
        raise UserError(f"{dataset}: only first boxes are annotated. GOT-10k test and TrackingNet are scored by their "
                        "evaluation servers: pack the results with lib/test/utils/transform_got10k.py or "
                        "lib/test/utils/transform_trackingnet.py and upload them")
