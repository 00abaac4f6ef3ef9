"""From folders of results to reports: chooses trackers and benchmarks, scores them, writes tables and plots."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.test.analysis.metrics import Convention, convention_for, get_convention
from lib.test.analysis.packed import PackedResults, read_benchmark
from lib.test.analysis.report import csv_table, markdown_table
from lib.test.analysis.results import (
    BenchmarkReport,
    ResultFolder,
    ResultSource,
    evaluate_benchmark,
    find_trackers,
    has_annotations,
    parse_tracker,
)
from lib.test.evaluation.datasets import BENCHMARKS, get_dataset
from lib.utils.errors import UserError
from lib.utils.files import resolve, write_text

logger = logging.getLogger(__name__)

FORMATS = ("csv", "md", "png", "pdf")


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats from `csv,png` (or `none`), in the order of FORMATS; UserError for an unknown one."""
    asked = {part.strip().lower() for part in text.split(",") if part.strip()} - {"none"}
    unknown = sorted(asked - set(FORMATS))
    if unknown:
        raise UserError(f"--formats {text}: unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)} or none")
    return tuple(form for form in FORMATS if form in asked)


def parse_result(text: str) -> ResultSource:
    """Results from `name=path`, where the path is a packed file (.npz) or a folder of <sequence>.txt files.

    Raises:
        UserError: another form, or nothing at that path.
    """
    label, separator, path = text.partition("=")
    if not (separator and label and path):
        raise UserError(f"--result {text}: expected NAME=FILE.npz or NAME=FOLDER")
    path = Path(path).expanduser()
    if path.is_dir():
        return ResultFolder(label, path, flat=True)
    if path.suffix != ".npz" or not path.is_file():
        raise UserError(f"--result {text}: {path} is neither a folder of result files nor a packed .npz file")
    return PackedResults(label, path)


def choose_trackers(results_path: Path, trackers: Sequence[str], results: Sequence[str],
                    script: str | None = None) -> tuple[list[ResultSource], bool]:
    """The results to score, and whether the user named them one by one.

    Args:
        trackers: `script:config[:runid][=label]` below `results_path`.
        results: `name=path`, see `parse_result`.
        script: without the two above, only the trackers of this script; None means everything that is found.

    Raises:
        UserError: nothing was found, or two have the same label.
    """
    named = [*(parse_tracker(text, results_path) for text in trackers), *(parse_result(text) for text in results)]
    sources = named or [found for found in find_trackers(results_path) if script in (None, found.folder.parent.name)]
    if not sources:
        raise UserError(f"no results below {results_path / script if script else results_path}; run tracking/test.py "
                        "first, or say where they are with --results, --save_dir or --result")
    labels = [source.label for source in sources]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double:
        raise UserError(f"two trackers are called {double!r}; give them labels, as in --tracker script:config=label")
    return sources, bool(named)


def packed_report(ground_truth: Path, absent: Path | None, sources: Sequence[ResultSource],
                  convention: Convention | None, partial: bool) -> BenchmarkReport:
    """Score trackers on a packed benchmark (see `lib.test.analysis.packed`). UserError as from `read_benchmark`."""
    sequences = read_benchmark(ground_truth, absent)
    if not sequences:
        raise UserError(f"{ground_truth}: no sequences in it")
    name = sequences[0].dataset
    chosen = convention or convention_for(name)
    if chosen.unseen_is_miss and sequences[0].visible is None:
        raise UserError(f"{ground_truth}: convention {chosen.name} needs the frames in which the target is hidden; "
                        "give them with --absent FILE.npz, or choose another --convention")
    return evaluate_benchmark(sources, sequences, name, chosen, partial)


def dataset_report(name: str, env: Any, sources: Sequence[ResultSource], named: bool, convention: Convention | None,
                   partial: bool) -> BenchmarkReport:
    """Score trackers on a data set; those that were only found, not named, are left out when they have none of it.

    Raises:
        UserError: the data set is unknown or not there, no tracker has results, or a result file is damaged.
    """
    sequences = get_dataset(name, env)
    present = [source for source in sources if any(source.locate(sequence) for sequence in sequences)]
    if not present:
        raise UserError(f"{name}: no results of {', '.join(source.label for source in sources)}; run tracking/test.py "
                        f"with --dataset {name} first")
    title = sequences[0].dataset if ":" in name else name.lower()
    return evaluate_benchmark(sources if named else present, sequences, title, convention, partial)


def find_reports(env: Any, sources: Sequence[ResultSource], named: bool, convention: Convention | None,
                 partial: bool) -> list[BenchmarkReport]:
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
        present = [source for source in sources if any(source.locate(sequence) for sequence in sequences)]
        if present and not has_annotations(sequences):
            reasons.append(f"{name}: the annotations are not public; pack the results for the evaluation server with "
                           f"lib/test/utils/transform_{benchmark.dataset}.py")
        elif present:
            reports.append(evaluate_benchmark(sources if named else present, sequences, name, convention, partial))
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
    return any(source.locate(probe) for source in sources for probe in probes)


class _Named:
    """A sequence of which only the name is known."""

    def __init__(self, name: str, dataset: str):
        self.name = name
        self.dataset = dataset


def _has_files(folder: Path, dataset: str) -> bool:
    """Result files where those of a data set would be."""
    own = folder / dataset
    return next((own if own.is_dir() else folder).glob("*.txt"), None) is not None


def write_report(report: BenchmarkReport, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write a report as scores.csv, scores.md and plots; returns the files. UserError when the disk refuses."""
    written = []
    for form, render in (("csv", csv_table), ("md", markdown_table)):
        if form in formats:
            written.append(folder / f"scores.{form}")
            write_text(written[-1], render(report))
    images = [form for form in formats if form in ("png", "pdf")]
    if images:
        from lib.test.analysis.plots import save_plots  # Matplotlib takes a second to import

        written += save_plots(report, folder, images)
    return written


def report_folder(output: Path, report: BenchmarkReport) -> Path:
    """Where a report's files go: a sub-folder of `output` with the data set's name."""
    return output / re.sub(r"[^\w.+-]+", "_", report.dataset)


def analyse(env: Any, *, datasets: Sequence[str] = (), trackers: Sequence[str] = (), results: Sequence[str] = (),
            script: str | None = None, results_path: Path | None = None, ground_truth: Path | None = None,
            absent: Path | None = None, convention: str = "auto", partial: bool = False) -> list[BenchmarkReport]:
    """Score trackers on benchmarks; everything that is not given is what can be found.

    Args:
        env: environment settings (`results_path` and the folders of the data sets).
        datasets: names for `get_dataset`.
        trackers, results, script: see `choose_trackers`.
        results_path: instead of the environment's.
        ground_truth, absent: packed annotations and flags instead of `datasets`.
        convention: name of one, or `auto` to go by the data set.
        partial: score only the sequences that all trackers have.

    Raises:
        UserError: nothing to score, or input that cannot be scored.
    """
    chosen = None if convention == "auto" else get_convention(convention)
    sources, named = choose_trackers(Path(results_path or resolve(env.results_path)), trackers, results, script)
    if ground_truth:
        if datasets:
            raise UserError("--ground-truth and --dataset exclude each other")
        return [packed_report(ground_truth, absent, sources, chosen, partial)]
    if absent:
        raise UserError("--absent belongs to --ground-truth; data sets bring their own flags")
    if datasets:
        return [dataset_report(name, env, sources, named, chosen, partial) for name in datasets]
    return find_reports(env, sources, named, chosen, partial)
