"""From folders of results to reports: chooses trackers and benchmarks, scores them, writes tables and plots."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...utils.box_forms import FORMS
from ...utils.errors import UserError
from ...utils.files import resolve, write_text
from ...utils.ownership import own
from ..evaluation.datasets import BENCHMARKS, get_dataset
from .cache import ScoreCache
from .conventions import convention_for, get_convention
from .packed import PackedResults, read_benchmark
from .page import html_page
from .plots import save_plots
from .report import (
    attributes_csv,
    csv_table,
    json_text,
    latex_table,
    markdown_table,
    sequences_csv,
)
from .results import BenchmarkReport, evaluate_benchmark, has_annotations, load_aligned
from .sources import ResultFolder, ResultSource, external_folders, find_results, find_trackers, parse_tracker

logger = logging.getLogger(__name__)

FORMATS = ("csv", "md", "tex", "json", "html", "png", "pdf")


@dataclass(frozen=True)
class Scoring:
    """How results are scored, whatever the data set.

    Attributes:
        convention: name of one; None goes by the data set.
        partial: score only the sequences that all trackers have.
        attributes: challenges by sequence; None takes what the data sets say.
        merge_runs: put the mean of repeated runs (`<config>_000`, `<config>_001`, ...) in their place; those of
            --result always are.
        reports: folder of the reports, in which scores are kept between calls; None keeps none.
    """

    convention: str | None = None
    partial: bool = False
    attributes: Mapping[str, Sequence[str]] | None = None
    merge_runs: bool = False
    reports: Path | None = None

    def evaluate(self, sources: Sequence[ResultSource], sequences: Sequence, dataset: str) -> BenchmarkReport:
        """`evaluate_benchmark` in this way."""
        cache = ScoreCache(self.reports / _folder_name(dataset) / "cache") if self.reports else None
        return evaluate_benchmark(sources, sequences, dataset, convention_for(dataset, self.convention), self.partial,
                                  cache, self.attributes,
                                  external_runs(sources) | (repeated_runs(sources) if self.merge_runs else {}))


def external_runs(sources: Sequence[ResultSource]) -> dict[str, list[str]]:
    """Label for the mean -> labels of the sources that are its runs (`external_folders`)."""
    runs: dict[str, list[str]] = {}
    for source in sources:
        if source.mean_of:
            runs.setdefault(source.mean_of, []).append(source.label)
    return runs


def repeated_runs(sources: Sequence[ResultSource]) -> dict[str, list[str]]:
    """Label for the mean -> labels of the sources that are runs `_000`, `_001`, ... of one configuration."""
    grouped: dict[Path, list[ResultSource]] = {}
    for source in sources:
        is_own = isinstance(source, ResultFolder) and not source.mean_of
        match = re.fullmatch(r"(.+)_\d{3,}", source.folder.name) if is_own else None
        if match:
            grouped.setdefault(source.folder.with_name(match[1]), []).append(source)
    used_labels = {source.label for source in sources}
    runs = {}
    for folder, members in grouped.items():
        label = next(name for name in (folder.name, f"{folder.parent.name}/{folder.name}", f"{folder.name} (mean)",
                                       f"{folder} (mean)") if name not in used_labels)
        used_labels.add(label)
        runs[label] = [source.label for source in members]
    return runs


def read_attributes(path: Path) -> dict[str, list[str]]:
    """Challenges by sequence from a JSON file: {"<sequence>": ["<attribute>", ...], ...}.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    fits = isinstance(content, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values())
    if not fits:
        raise UserError(f'{path}: attributes are expected as {{"<sequence>": ["<attribute>", ...], ...}}')
    return content


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats from `csv,png` (or `none`), in the order of FORMATS; UserError for an unknown one."""
    formats = {part.strip().lower() for part in text.split(",") if part.strip()} - {"none"}
    unknown = sorted(formats - set(FORMATS))
    if unknown:
        raise UserError(f"--formats {text}: unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)} or none")
    return tuple(form for form in FORMATS if form in formats)


def parse_result(text: str) -> list[ResultSource]:
    """Results from `name=path`, where the path is a file with those of many sequences (.npz, .json), a folder of result
    files, or a folder of such folders, the runs of one tracker.

    Raises:
        UserError: another form, or nothing at that path.
    """
    label, separator, path = text.partition("=")
    if not (separator and label and path):
        raise UserError(f"--result {text}: expected NAME=FILE.npz, NAME=FILE.json or NAME=FOLDER")
    path = Path(path).expanduser()
    if path.is_dir():
        return list(external_folders(label, path))
    if path.suffix.lower() not in (".npz", ".json") or not path.is_file():
        kind = ("one file; name the folder that holds the files of all sequences" if path.is_file()
                else "neither a folder of result files nor a file with those of all sequences (.npz, .json)")
        raise UserError(f"--result {text}: {path} is {kind}")
    return [PackedResults(label, path)]


def state_forms(sources: Sequence[ResultSource], texts: Sequence[str]) -> None:
    """Give sources the form of their boxes from `form` (all results of other projects) or `label=form`.

    Raises:
        UserError: an unknown form, or nothing with that label.
    """
    for text in texts:
        label, _, form = text.rpartition("=")
        if form not in FORMS:
            raise UserError(f"--box-format {text}: unknown form {form!r}; choose one of {', '.join(FORMS)}")
        chosen = [source for source in sources
                  if (label in (source.label, source.mean_of) if label else getattr(source, "external", True))]
        if not chosen:
            raise UserError(f"--box-format {text}: there is no --result" + (
                f" or --tracker called {label!r}; there are {', '.join(source.label for source in sources)}"
                if label else ", and results of this project are x,y,w,h"))
        for source in chosen:
            source.form = form


def choose_trackers(results_path: Path, trackers: Sequence[str], results: Sequence[str], script: str | None = None,
                    box_formats: Sequence[str] = ()) -> tuple[list[ResultSource], bool]:
    """The results to score, and whether the user named them one by one.

    Args:
        trackers: `script:config[:runid][=label]` below `results_path`.
        results: `name=path`, see `parse_result`.
        script: without the two above, only the trackers of this script; None means everything that is found.
        box_formats: see `state_forms`.

    Raises:
        UserError: nothing was found, or two have the same label.
    """
    named = [*(parse_tracker(text, results_path) for text in trackers),
             *(source for text in results for source in parse_result(text))]
    sources = named or [source for source in find_trackers(results_path)
                        if script in (None, source.folder.parent.name)]
    if not sources:
        raise UserError(f"no results below {results_path / script if script else results_path}; run tracking/test.py "
                        "first, or say where they are with --results, --save_dir or --result")
    labels = [source.label for source in sources]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double:
        raise UserError(f"two trackers are called {double!r}; give them labels, as in --tracker script:config=label")
    state_forms(sources, box_formats)
    return sources, bool(named)


def packed_report(ground_truth: Path, absent: Path | None, sources: Sequence[ResultSource],
                  scoring: Scoring) -> BenchmarkReport:
    """Score trackers on a packed benchmark (see `lib.test.analysis.packed`). UserError as from `read_benchmark`."""
    sequences = read_benchmark(ground_truth, absent)
    if not sequences:
        raise UserError(f"{ground_truth}: no sequences in it")
    name = sequences[0].dataset
    chosen = convention_for(name, scoring.convention)
    if chosen.unseen_is_miss and sequences[0].visible is None:
        raise UserError(f"{ground_truth}: convention {chosen.name} needs the frames in which the target is hidden; "
                        "give them with --absent FILE.npz, or choose another --convention")
    return scoring.evaluate(sources, sequences, name)


def dataset_report(name: str, env: Any, sources: Sequence[ResultSource], named: bool,
                   scoring: Scoring) -> BenchmarkReport:
    """Score trackers on a data set; those that were only found, not named, are left out when they have none of it.

    Raises:
        UserError: the data set is unknown or not there, no tracker has results, or a result file is damaged.
    """
    sequences = get_dataset(name, env)
    present = [source for source in sources if any(find_results(source, sequences))]
    if not present:
        raise UserError(f"{name}: {'; '.join(source.lacking(sequences) for source in sources)}")
    title = sequences[0].dataset if ":" in name else name.lower()
    return scoring.evaluate(sources if named else present, sequences, title)


def find_reports(env: Any, sources: Sequence[ResultSource], named: bool, scoring: Scoring) -> list[BenchmarkReport]:
    """Score trackers on every data set that has results and annotations here.

    Raises:
        UserError: there is no such data set (the message says why for each one with results), or a file is damaged.
    """
    reports, unread, reasons, scored = [], [], [], set()
    for name, benchmark in BENCHMARKS.items():
        if not _worth_reading(name, env, sources):
            continue
        try:
            sequences = get_dataset(name, env)
        except UserError as error:
            unread.append((benchmark.dataset, str(error)))
            continue
        present = [source for source in sources if source.has_any(sequences)]
        if present and not has_annotations(sequences):
            reasons.append(f"{name}: nothing is annotated after the first frames; pack the results for the evaluation "
                           f"server with lib/test/utils/transform_{benchmark.dataset}.py")
        elif present:
            reports.append(scoring.evaluate(sources if named else present, sequences, name))
            scored.add(benchmark.dataset)
    reasons = [text for dataset, text in unread if dataset not in scored] + reasons  # splits share a folder of results
    folders = sorted({path.name.removeprefix("folder_") for source in sources if isinstance(source, ResultFolder)
                      for path in source.folder.glob("folder_*") if path.is_dir()})
    if folders:
        reasons.append(f"results of plain folders ({', '.join(folders)}) need --dataset folder:PATH")
    for reason in reasons if reports else ():
        logger.info("not scored: %s", reason)
    if not reports:
        raise UserError("\n  ".join(["no data set has both results and annotations here:",
                                     *(reasons or ["no result file belongs to a sequence of a known data set"]),
                                     "choose one with --dataset, or set the data folders in "
                                     "lib/test/evaluation/local.py"]))
    return reports


def _worth_reading(name: str, env: Any, sources: Sequence[ResultSource]) -> bool:
    """Whether a data set may have results; judged by names alone where its folder is there."""
    benchmark = BENCHMARKS[name]
    try:
        names = benchmark.names(resolve(getattr(env, benchmark.field, None) or ""))
    except OSError:
        return any(isinstance(source, ResultFolder) and _has_files(source.folder, benchmark.dataset)
                   for source in sources)
    probes = [_Named(sequence, benchmark.dataset) for sequence in names]
    return bool(probes) and any(source.has_any(probes) for source in sources)


class _Named:
    """A sequence of which only the name is known."""

    def __init__(self, name: str, dataset: str):
        self.name = name
        self.dataset = dataset


def _has_files(folder: Path, dataset: str) -> bool:
    """Whether there are result files where those of a data set would be."""
    own = folder / dataset
    return next((own if own.is_dir() else folder).glob("*.txt"), None) is not None


def write_report(report: BenchmarkReport, folder: Path, formats: Sequence[str], pictures: int = 6) -> list[Path]:
    """Write a report in some of FORMATS; returns the files, of which plots that are up to date were left as they were.

    Args:
        pictures: of how many of the worst sequences the HTML page shows frames, where they are at hand.

    Raises:
        UserError: the folder cannot be written, or another report is being written there.
    """
    texts = {"csv": {"scores.csv": csv_table, "sequences.csv": sequences_csv}, "md": {"scores.md": markdown_table},
             "tex": {"scores.tex": latex_table}, "json": {"scores.json": json_text},
             "html": {"report.html": lambda report: html_page(report, pictures)}}
    if report.attributes:
        texts["csv"]["attributes.csv"] = attributes_csv
    written = []
    with own(folder):
        for name, render in (item for form in formats if form in texts for item in texts[form].items()):
            written.append(folder / name)
            write_text(written[-1], render(report))
        images = [form for form in formats if form not in texts]
        return written + (save_plots(report, folder, images) if images else [])


def time_scoring(report: BenchmarkReport) -> str:
    """Time the scoring of a report's first tracker against a plain loop, on arrays in memory; a line for people."""
    from .plain import compare  # PyTorch takes seconds to import

    source = report.sources[next(tracker.label for tracker in report.trackers if tracker.scores)]
    preds, gts, visible = zip(*load_aligned(source, report.benchmark, report.convention), strict=True)
    return f"{source.label}: {compare(preds, gts, visible, report.convention)}"


def report_folder(output: Path, report: BenchmarkReport) -> Path:
    """Where a report's files go: a sub-folder of `output` with the data set's name."""
    return output / _folder_name(report.dataset)


def _folder_name(dataset: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", dataset)


def analyse(env: Any, *, datasets: Sequence[str] = (), trackers: Sequence[str] = (), results: Sequence[str] = (),
            script: str | None = None, results_path: Path | None = None, ground_truth: Path | None = None,
            absent: Path | None = None, convention: str = "auto", partial: bool = False,
            attributes: Path | None = None, merge_runs: bool = False, reports: Path | None = None,
            box_formats: Sequence[str] = ()) -> list[BenchmarkReport]:
    """Score trackers on benchmarks; everything that is not given is what can be found.

    Args:
        env: environment settings (`results_path` and the folders of the data sets).
        datasets: names for `get_dataset`.
        trackers, results, script, box_formats: see `choose_trackers`.
        results_path: instead of the environment's.
        ground_truth, absent: packed annotations and flags instead of `datasets`.
        convention: name of one, or `auto` to go by the data set.
        partial: score only the sequences that all trackers have.
        attributes: file with the challenges of the sequences, instead of what the data sets say.
        merge_runs, reports: see `Scoring`.

    Raises:
        UserError: nothing to score, or input that cannot be scored.
    """
    if convention != "auto":
        get_convention(convention)
    scoring = Scoring(None if convention == "auto" else convention, partial,
                      read_attributes(attributes) if attributes else None, merge_runs, reports)
    sources, named = choose_trackers(Path(results_path or resolve(env.results_path)), trackers, results, script,
                                     box_formats)
    if ground_truth:
        if datasets:
            raise UserError("--ground-truth and --dataset exclude each other")
        return [packed_report(ground_truth, absent, sources, scoring)]
    if absent:
        raise UserError("--absent belongs to --ground-truth; data sets bring their own flags")
    if datasets:
        return [dataset_report(name, env, sources, named, scoring) for name in datasets]
    return find_reports(env, sources, named, scoring)
