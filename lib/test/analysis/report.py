"""Tables of scores: for the terminal, as CSV, Markdown and LaTeX, and everything as JSON."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from .curves import PLOTS
from .metrics import SCORE_NAMES, summarize
from .results import BenchmarkReport, Note, TrackerReport

_NAMED = 5
"""How many missing sequences a message names."""
_FILES = 2
"""How many files a message about adapted results names."""


def by_score(report: BenchmarkReport) -> list[TrackerReport]:
    """The trackers, best AUC first, those without scores last."""
    return sorted(report.trackers, key=lambda tracker: -tracker.scores.AUC if tracker.scores else float("inf"))


def score_table(report: BenchmarkReport, digits: int = 2, spread: str = "") -> pd.DataFrame:
    """A row of text per tracker, best first; `-` where there is no number.

    Args:
        spread: what stands between a mean over repeated runs and its standard deviation; without it only the mean.
    """
    rows = []
    for tracker in by_score(report):
        cells = dict.fromkeys(SCORE_NAMES, "-")
        if tracker.scores:
            cells = {name: f"{value:.{digits}f}" for name, value in tracker.scores.as_dict().items()}
        if spread and tracker.deviation:
            cells = {name: f"{cells[name]}{spread}{value:.{digits}f}" for name, value in tracker.deviation.items()}
        fps = "-" if tracker.fps is None else f"{tracker.fps:.1f}"
        rows.append({"Tracker": tracker.label, **cells, "FPS": fps,
                     "Sequences": f"{len(tracker.sequences)}/{report.total}"})
    return pd.DataFrame(rows)


def attribute_table(report: BenchmarkReport) -> pd.DataFrame:
    """A row per attribute: how many sequences have it and the AUC of every scored tracker, best first, in per cent."""
    trackers = [tracker for tracker in by_score(report) if tracker.scores]
    rows = [{"Attribute": name, "Sequences": len(names),
             **{tracker.label: report.scores_on(tracker, names).AUC for tracker in trackers}}
            for name, names in report.attributes.items()]
    return pd.DataFrame(rows)


def remarks(report: BenchmarkReport) -> list[str]:
    """What a reader has to know about the numbers: the convention, what they are over and what is missing."""
    convention = report.convention
    lines = [f"Convention {convention.name}: {convention.summary}.",
             *(f"{note[0].upper()}{note[1:]}." for note in report.notes)]
    if report.scored < report.total:
        lines.append(f"PARTIAL: scores over the {report.scored} sequences that all trackers have, of {report.total}; "
                     "not comparable with published numbers.")
    for tracker in report.trackers:
        if tracker.runs > 1:
            lines.append(f"{tracker.label}: mean of {tracker.runs} runs"
                         + (", standard deviation behind it" if tracker.deviation else "") + ".")
        if tracker.missing:
            names = ", ".join(tracker.missing[:_NAMED])
            hidden_count = len(tracker.missing) - _NAMED
            lines.append(f"{tracker.label} lacks {len(tracker.missing)} of {report.total} sequences: {names}"
                         + (f" and {hidden_count} more" if hidden_count > 0 else "")
                         + ("" if tracker.scores or not tracker.sequences else "; no scores without --partial") + ".")
        lines.extend(_unusable(tracker))
        lines.extend(f"{tracker.label}: {line}." for line in _grouped(tracker.notes))
    return lines


def _unusable(tracker: TrackerReport) -> list[str]:
    """One line for each reason why results of a tracker cannot be used, up to some."""
    names: dict[str, list[str]] = {}
    for name, reason in tracker.unusable.items():
        names.setdefault(reason, []).append(name)
    lines = [f"{tracker.label} on {', '.join(of[:_NAMED])}{', ...' if len(of) > _NAMED else ''} cannot be used: "
             f"{reason}." for reason, of in names.items()]
    hidden_count = len(lines) - _NAMED
    return lines[:_NAMED] + ([f"{tracker.label}: {hidden_count} more results cannot be used; scores.json lists them."]
                             if hidden_count > 0 else [])


def _grouped(notes: Sequence[Note]) -> list[str]:
    """One line for each thing that was adapted, with the first files in which it was."""
    places: dict[str, list[str]] = {}
    for note in notes:
        places.setdefault(note.what, []).append(note.where)
    lines = []
    for text, where in places.items():
        hidden_count = len(where) - _FILES
        lines.append(f"{text} ({', '.join(where[:_FILES])}"
                     + (f" and {hidden_count} more files" if hidden_count > 0 else "") + ")")
    return lines


def text_table(report: BenchmarkReport) -> str:
    """The scores as aligned text, in per cent, with the remarks below."""
    title = f"{report.dataset}: {report.total} sequences, per cent"
    lines = [title, *_aligned(score_table(report, spread=" +- ")), *remarks(report)]
    if report.attributes:
        lines += ["", f"{report.dataset}: AUC by attribute, per cent", *_aligned(attribute_table(report))]
    return "\n".join(lines)


def _aligned(table: pd.DataFrame) -> list[str]:
    """A table as lines of text between rules, its first column to the left and the others to the right."""
    label = table.columns[0]
    spaced = _cells(table).set_index(label).rename_axis(index=None, columns=label).map(" {}".format).add_prefix(" ")
    header, *rows = spaced.to_string().splitlines()
    rule = "-" * len(header)
    return [rule, header, rule, *rows, rule]


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table as text, numbers with two decimals."""
    return table.map(lambda cell: f"{cell:.2f}" if isinstance(cell, float) else str(cell))


def markdown_table(report: BenchmarkReport) -> str:
    """The scores as a Markdown section, in per cent, with the remarks below."""
    lines = [f"## {report.dataset}", "", *_markdown(score_table(report, spread=" ± ")), "",
             *(f"- {remark}" for remark in remarks(report))]
    if report.attributes:
        lines += ["", "AUC by attribute", "", *_markdown(attribute_table(report))]
    return "\n".join(lines) + "\n"


def _markdown(table: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table, all columns but the first to the right (pandas needs a further package)."""
    cells = [table.columns, *_cells(table).to_numpy()]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    return [lines[0], f"| {' | '.join(['---', *['---:'] * (len(table.columns) - 1)])} |", *lines[1:]]


def csv_table(report: BenchmarkReport) -> str:
    """The scores as CSV with four decimals, one tracker per line, empty where there is no number.

    The standard deviations of repeated runs are columns of their own, present when any tracker has them.
    """
    rows = []
    for tracker in by_score(report):
        scores = tracker.scores.as_dict() if tracker.scores else dict.fromkeys(SCORE_NAMES)
        rows.append({"Dataset": report.dataset, "Convention": report.convention.name, "Tracker": tracker.label,
                     **scores, "FPS": tracker.fps, "Scored": report.scored if tracker.scores else 0,
                     "Found": len(tracker.sequences), "Total": report.total,
                     **{f"{name} std": value for name, value in (tracker.deviation or {}).items()}})
    return _csv(pd.DataFrame(rows))


def attributes_csv(report: BenchmarkReport) -> str:
    """AUC by attribute as CSV with four decimals."""
    return _csv(attribute_table(report))


def sequences_csv(report: BenchmarkReport) -> str:
    """Every score of every tracker on every sequence as CSV, one sequence and tracker per line."""
    rows = [[name, tracker.label, int(tracker.sequences[name].frames),
             *summarize([tracker.sequences[name]], report.convention).as_dict().values()]
            for name in report.names for tracker in by_score(report) if name in tracker.sequences]
    return _csv(pd.DataFrame(rows, columns=["Sequence", "Tracker", "Frames", *SCORE_NAMES]))


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def latex_table(report: BenchmarkReport) -> str:
    """The scores as a LaTeX table (package booktabs), the best of each column in bold."""
    table = score_table(report, digits=1, spread="$\\pm$").drop(columns="Sequences")
    cells = table.drop(columns="Tracker")
    numbers = cells.apply(lambda column: pd.to_numeric(column.str.partition("$")[0], errors="coerce"))
    best = numbers.eq(numbers.max()) & (numbers.count() > 1)
    styled = table.style.hide(axis="index").format(escape="latex", subset=["Tracker"]).apply(
        lambda _: best.replace({True: "textbf:--rwrap;", False: ""}), axis=None, subset=cells.columns)
    notes = [f"% {remark}\n" for remark in remarks(report)]
    return "".join([f"% {report.dataset}: {report.total} sequences, per cent\n", *notes,
                    styled.to_latex(hrules=True, column_format="l" + "r" * len(cells.columns))])


def report_data(report: BenchmarkReport) -> dict[str, Any]:
    """Everything in a report as JSON can hold it; scores, curves and deviations in per cent."""
    trackers = []
    for tracker in by_score(report):
        scores = tracker.scores
        trackers.append({
            "label": tracker.label,
            "scores": scores.as_dict() if scores else None,
            "deviation": tracker.deviation,
            "runs": tracker.runs,
            "fps": tracker.fps,
            "curves": {plot.name: getattr(scores, plot.curve).tolist() for plot in PLOTS} if scores else None,
            "attributes": {name: report.scores_on(tracker, names).as_dict()
                           for name, names in report.attributes.items()} if scores else {},
            "sequences": {name: {score: None if math.isnan(value) else value for score, value in
                                 summarize([tracker.sequences[name]], report.convention).as_dict().items()}
                          for name in report.names if name in tracker.sequences},
            "missing": tracker.missing,
            "unusable": tracker.unusable,
            "notes": [note._asdict() for note in tracker.notes],
        })
    return {
        "dataset": report.dataset,
        "convention": {"name": report.convention.name, "summary": report.convention.summary},
        "sequences": {"total": report.total, "scored": report.scored, "names": report.names},
        "attributes": report.attributes,
        "remarks": remarks(report),
        "thresholds": {plot.name: plot.thresholds.tolist() for plot in PLOTS},
        "trackers": trackers,
    }


def json_text(report: BenchmarkReport) -> str:
    """A report as JSON: see `report_data`."""
    return json.dumps(report_data(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
