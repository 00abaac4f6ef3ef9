"""Scoring results of trackers on benchmarks.

A sequence is any object with `name`, `dataset`, `ground_truth` (N, 4) xywh (NaN where there is no target) and
`visible` (N,) bool or None; it may also have `attributes`, names of its challenges, and `frames` with its pictures.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from ...utils.errors import UserError
from .cache import ScoreCache, benchmark_digest, results_key
from .conventions import Convention, convention_for
from .frame_errors import annotated
from .metrics import (
    SCORE_NAMES,
    Scores,
    SequenceScores,
    evaluate_sequences,
    mean_of_runs,
    summarize,
)
from .reading import Aligned, WrongForm, align, read_aligned
from .sources import (
    Result,
    ResultFolder,
    ResultSource,
    UnusableResult,
    find_results,
    find_trackers,
    parse_tracker,
)

__all__ = ["BenchmarkReport", "Note", "ResultFolder", "ResultSource", "TrackerReport", "align", "boxes_of",
           "evaluate_benchmark", "find_trackers", "has_annotations", "image_size", "parse_tracker", "score_tracker"]

logger = logging.getLogger(__name__)


class Note(NamedTuple):
    """Something that was adapted in a result file."""

    where: str
    what: str


@dataclass
class TrackerReport:
    """One tracker on one benchmark.

    Attributes:
        scores: None when sequences are missing and partial scores were not asked for.
        sequences: scores of every sequence with results.
        missing: names of the sequences without results that can be scored.
        unusable: those of them whose results cannot be used -> why, and what to do.
        notes: what was unusual about the files.
        fps: frames per second after the first frame, over all sequences with recorded times; None without any.
        runs: how many repeated runs the scores are means of.
        deviation: standard deviation over those runs of each score by name (n - 1 in the denominator); None for one.
    """

    label: str
    scores: Scores | None = None
    sequences: dict[str, SequenceScores] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    fps: float | None = None
    runs: int = 1
    deviation: dict[str, float] | None = None


@dataclass
class BenchmarkReport:
    """All trackers on one benchmark.

    Attributes:
        total: number of sequences of the benchmark that can be scored.
        scored: number of sequences the scores are over; less than `total` only in a partial report.
        names: of the scored sequences.
        attributes: name of a challenge -> scored sequences that have it; empty when the benchmark names none.
        notes: what the convention asks for and the benchmark lacks.
        benchmark, sources: what was scored, by sequence and by label (of repeated runs the first).
    """

    dataset: str
    convention: Convention
    total: int
    scored: int
    trackers: list[TrackerReport]
    names: list[str] = field(default_factory=list)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    benchmark: Sequence = field(default=(), repr=False)
    sources: Mapping[str, ResultSource] = field(default_factory=dict, repr=False)

    @property
    def complete(self) -> bool:
        """No tracker lacks a sequence."""
        return not any(tracker.missing for tracker in self.trackers)

    def scores_on(self, tracker: TrackerReport, names: Iterable[str]) -> Scores:
        """A tracker's scores over some of the scored sequences."""
        return summarize([tracker.sequences[name] for name in names], self.convention)


def score_tracker(source: ResultSource, sequences: Sequence, convention: Convention, cache: ScoreCache | None = None,
                  sizes: Sequence[tuple[int, int] | None] | None = None, digest: bytes | None = None) -> TrackerReport:
    """Score one tracker on every sequence it has results for (`scores` stays None).

    A result that cannot be used takes its sequence from the tracker (`unusable`) and nothing else; boxes in another
    form than x,y,w,h take them all.

    Args:
        cache: where scores of the same content may be found and are kept.
        sizes: width and height of each sequence's images, for conventions that clip.
        digest: `benchmark_digest` of the sequences, where it is known already.

    Raises:
        UserError: a sequence has no public annotations.
    """
    sizes = [None] * len(sequences) if sizes is None else sizes
    results = find_results(source, sequences)
    if cache is None:
        return _score(source, results, sequences, convention, sizes)[0]
    key = results_key(digest or benchmark_digest(sequences, sizes, convention), results,
                      (source.form, getattr(source, "external", True)))
    kept = cache.load(source.label, convention.name, key)
    if kept:
        scores, facts = kept
        return TrackerReport(source.label, None, scores, facts["missing"], facts["unusable"],
                             [Note(*note) for note in facts["notes"]], facts["fps"])
    report = _score(source, results, sequences, convention, sizes)[0]
    cache.store(source.label, convention.name, key, report.sequences,
                {"missing": report.missing, "unusable": report.unusable, "notes": report.notes, "fps": report.fps})
    return report


def _score(source: ResultSource, results: Sequence[Result | None], sequences: Sequence, convention: Convention,
           sizes: Sequence[tuple[int, int] | None]) -> tuple[TrackerReport, list[Aligned]]:
    """Read and score; also what was scored, one entry for each sequence with results that can be used."""
    report = TrackerReport(source.label)
    names, places, aligned, scored_sizes, frames, seconds = [], [], [], [], 0, 0.0
    for result, sequence, size in zip(results, sequences, sizes, strict=True):
        if result is None:
            report.missing.append(sequence.name)
            continue
        try:
            part, notes = read_aligned(result, sequence, convention, source, partial(image_size, sequence))
        except WrongForm as error:
            stored = {sequence.name: str(error) for sequence, result in zip(sequences, results, strict=True) if result}
            return TrackerReport(source.label, missing=[sequence.name for sequence in sequences], unusable=stored), []
        except UserError as error:
            report.missing.append(sequence.name)
            remedy = "" if isinstance(result, UnusableResult) else f"; {source.remedy}"
            report.unusable[sequence.name] = f"{error}{remedy}"
            continue
        names.append(sequence.name)
        places.append(result.where)
        aligned.append(part)
        scored_sizes.append(size)
        try:
            times = result.times()
            if times is not None and len(times) < len(part.pred) - 1:
                raise UserError(f"there are {len(times)} for {len(part.pred)} frames")
        except UserError as error:
            notes.append(f"its times are left out: {error}")
            times = None
        report.notes.extend(Note(result.where, note) for note in notes)
        if times is not None and len(times) > 1:
            frames += len(times) - 1
            seconds += float(times[1:].sum())
    report.fps = frames / seconds if seconds > 0 else None
    preds, gts, visible = zip(*aligned, strict=True) if aligned else ((), (), ())
    scores = evaluate_sequences(preds, gts, visible, convention, scored_sizes, places)
    report.sequences = dict(zip(names, scores, strict=True))
    return report, aligned


def load_aligned(source: ResultSource, sequences: Sequence, convention: Convention) -> list[Aligned]:
    """Predictions and annotations of the sequences that a tracker has usable results for, as they are scored."""
    return _score(source, find_results(source, sequences), sequences, convention, [None] * len(sequences))[1]


def boxes_of(source: ResultSource, sequence, convention: Convention) -> np.ndarray:
    """A tracker's predictions on one sequence, (N, 4) xywh for the N annotated frames; NaN before a late start.

    Raises:
        UserError: there are none, or they cannot be used: see `read_aligned`.
    """
    result = find_results(source, [sequence])[0]
    if result is None:
        raise UserError(source.lacking([sequence]))
    pred = read_aligned(result, sequence, convention, source, partial(image_size, sequence))[0].pred
    return np.vstack([np.full((len(sequence.ground_truth) - len(pred), 4), np.nan), pred])


def evaluate_benchmark(sources: Sequence[ResultSource], sequences: Sequence, dataset: str,
                       convention: Convention | None = None, partial: bool = False, cache: ScoreCache | None = None,
                       attributes: Mapping[str, Sequence[str]] | None = None,
                       runs: Mapping[str, Sequence[str]] | None = None) -> BenchmarkReport:
    """Score trackers on a benchmark.

    Args:
        sources: the trackers' results.
        sequences: the benchmark.
        dataset: its name, which chooses the convention when none is given.
        partial: score the sequences for which every tracker has results, leaving out trackers without any. Otherwise a
            tracker that lacks sequences gets no scores; its `missing` says which.
        cache: where scores are kept between calls.
        attributes: names of the challenges by sequence; None takes them from the sequences.
        runs: label -> labels of the sources that are repeated runs of one tracker, to be replaced by their mean.

    Raises:
        UserError: see `score_tracker`; or a benchmark without public annotations; or no sequence is common to all.
    """
    _require_annotations(sequences, dataset)
    everything, sequences = sequences, list(filter(is_annotated, sequences))
    convention = convention or convention_for(dataset)
    sizes = [image_size(sequence) if convention.clip else None for sequence in sequences]
    lacks = _lacks(sequences, sizes, convention)
    if len(sequences) < len(everything):
        kept = {sequence.name for sequence in sequences}
        left_out = [sequence.name for sequence in everything if sequence.name not in kept]
        lacks.append(f"no target is to be seen after the first frame of {', '.join(left_out[:5])}"
                     f"{f' and {len(left_out) - 5} more' if len(left_out) > 5 else ''}: left out")
    for lack in lacks:
        logger.warning("%s: %s", dataset, lack)
    digest = benchmark_digest(sequences, sizes, convention) if cache else None
    trackers = [score_tracker(source, sequences, convention, cache, sizes, digest) for source in sources]
    scored = [sequence.name for sequence in sequences
              if not partial or all(sequence.name in tracker.sequences for tracker in trackers if tracker.sequences)]
    for tracker in trackers:
        if tracker.sequences and all(name in tracker.sequences for name in scored) and scored:
            tracker.scores = summarize([tracker.sequences[name] for name in scored], convention)
    if not any(tracker.scores for tracker in trackers):
        _explain_none(dataset, trackers, len(sequences), partial)
    by_label = {source.label: source for source in sources}
    for label, members in (runs or {}).items():
        merged = _mean_tracker(label, [tracker for tracker in trackers if tracker.label in members], scored, convention)
        trackers = [merged if tracker.label == members[0] else tracker for tracker in trackers
                    if tracker.label == members[0] or tracker.label not in members]
        by_label[label] = by_label[members[0]]
    return BenchmarkReport(dataset, convention, len(sequences), len(scored), trackers, scored,
                           _by_attribute(sequences, scored, attributes), lacks, sequences, by_label)


def _explain_none(dataset: str, trackers: Sequence[TrackerReport], total: int, partial: bool) -> None:
    """UserError where no tracker has scores since results cannot be used, or share no sequence."""
    reasons = [(tracker.label, reason) for tracker in trackers for reason in dict.fromkeys(tracker.unusable.values())]
    if reasons:
        label, reason = reasons[0]
        suffix = f" ({len(reasons) - 1} more results cannot be used either)" if len(reasons) > 1 else ""
        raise UserError(f"{dataset}: {label} cannot be scored: {reason}{suffix}")
    if partial:
        counts = ", ".join(f"{tracker.label} {len(tracker.sequences)}" for tracker in trackers)
        raise UserError(f"{dataset}: no sequence has results of all trackers (of {total}: {counts}); leave out the "
                        "tracker that lacks them")


def _lacks(sequences: Sequence, sizes: Sequence[tuple[int, int] | None], convention: Convention) -> list[str]:
    """What a convention asks for and a benchmark does not give, as sentences without full stops."""
    lacks = []
    if all(sequence.visible is None for sequence in sequences):
        if convention.unseen_is_miss:
            lacks.append("no visibility flags found, so hidden targets are not counted as misses and the scores are "
                         "not comparable with published ones")
        elif convention.skip_first and convention.use_visible:
            lacks.append("no visibility flags found, so every annotated frame counts as one with a target")
    if convention.clip and None in sizes:
        lacks.append(f"boxes were not clipped to the image in {sizes.count(None)} of {len(sizes)} sequences, whose "
                     "first picture is not at hand or cannot be read")
    return lacks


def _mean_tracker(label: str, runs: Sequence[TrackerReport], scored: Sequence[str],
                  convention: Convention) -> TrackerReport:
    """Repeated runs as one tracker: the means of their scores, and how far they spread."""
    missing = list(dict.fromkeys(name for run in runs for name in run.missing))
    unusable = {name: reason for run in runs for name, reason in run.unusable.items()}
    notes = [note for run in runs for note in run.notes]
    merged = TrackerReport(label, missing=missing, unusable=unusable, notes=notes, runs=len(runs))
    merged.sequences = {name: mean_of_runs([run.sequences[name] for run in runs]) for name in runs[0].sequences
                        if all(name in run.sequences for run in runs)}
    speeds = [run.fps for run in runs if run.fps is not None]
    merged.fps = float(np.mean(speeds)) if speeds else None
    if all(run.scores for run in runs):
        merged.scores = summarize([merged.sequences[name] for name in scored], convention)
        if len(runs) > 1:
            values = [list(run.scores.as_dict().values()) for run in runs]
            merged.deviation = dict(zip(SCORE_NAMES, np.std(values, axis=0, ddof=1).tolist(), strict=True))
    return merged


def _by_attribute(sequences: Sequence, scored: Iterable[str],
                  attributes: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """Attribute -> scored sequences that have it, attributes in the order of their first use."""
    if attributes is None:
        attributes = {sequence.name: getattr(sequence, "attributes", ()) for sequence in sequences}
    grouped: dict[str, list[str]] = {}
    for name in scored:
        for attribute in attributes.get(name, ()):
            grouped.setdefault(attribute, []).append(name)
    return grouped


def image_size(sequence) -> tuple[int, int] | None:
    """Width and height of a sequence's first picture as it is tracked; None when it has none or it cannot be read."""
    frames = getattr(sequence, "frames", None)
    if frames is None or not len(frames):
        return None
    try:
        return frames.look().size
    except UserError as error:
        logger.warning("%s: the size of its pictures is not known, so its boxes are not clipped: %s", sequence.name,
                       error)
        return None


def is_annotated(sequence) -> bool:
    """Whether a sequence has a box of a visible target after its first frame, so that there is something to measure."""
    seen = annotated(sequence.ground_truth[1:])
    return bool((seen if sequence.visible is None else seen & np.asarray(sequence.visible[1:], dtype=bool)).any())


def has_annotations(sequences: Sequence) -> bool:
    """Whether any sequence `is_annotated` (evaluation servers keep all boxes but the first to themselves)."""
    return any(map(is_annotated, sequences))


def _require_annotations(sequences: Sequence, dataset: str) -> None:
    """Refuse benchmarks that cannot be scored here."""
    if not sequences:
        raise UserError(f"{dataset}: the data set has no sequences")
    if not has_annotations(sequences):
        raise UserError(f"{dataset}: no sequence has a box of a visible target after its first frame. GOT-10k test and "
                        "TrackingNet are scored by their evaluation servers: pack the results with "
                        "lib/test/utils/transform_got10k.py or lib/test/utils/transform_trackingnet.py and upload them")
