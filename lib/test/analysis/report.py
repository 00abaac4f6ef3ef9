"""Tables of scores: for the terminal, as CSV, Markdown and LaTeX, and everything as JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

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


def table_rows(report: BenchmarkReport, digits: int = 2, spread: str = "") -> tuple[list[str], list[list[str]]]:
    """Column names and one row of text per tracker, best first; `-` where there is no number.

    Args:
        spread: what stands between a mean over repeated runs and its standard deviation; without it only the mean.
    """
    header = ["Tracker", *SCORE_NAMES, "FPS", "Sequences"]
    rows = []
    for tracker in by_score(report):
        numbers = ["-"] * len(SCORE_NAMES)
        if tracker.scores:
            numbers = [f"{value:.{digits}f}" for value in tracker.scores.as_dict().values()]
        if spread and tracker.deviation:
            numbers = [f"{number}{spread}{deviation:.{digits}f}"
                       for number, deviation in zip(numbers, tracker.deviation.values(), strict=True)]
        fps = "-" if tracker.fps is None else f"{tracker.fps:.1f}"
        rows.append([tracker.label, *numbers, fps, f"{len(tracker.sequences)}/{report.total}"])
    return header, rows


def attribute_rows(report: BenchmarkReport, digits: int = 2) -> tuple[list[str], list[list[str]]]:
    """Column names and one row per attribute: how many sequences have it and the AUC of every scored tracker."""
    trackers = [tracker for tracker in by_score(report) if tracker.scores]
    header = ["Attribute", "Sequences", *(tracker.label for tracker in trackers)]
    rows = [[name, str(len(names)), *(f"{report.scores_on(tracker, names).AUC:.{digits}f}" for tracker in trackers)]
            for name, names in report.attributes.items()]
    return header, rows


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
            rest = len(tracker.missing) - _NAMED
            lines.append(f"{tracker.label} lacks {len(tracker.missing)} of {report.total} sequences: {names}"
                         + (f" and {rest} more" if rest > 0 else "")
                         + ("" if tracker.scores or not tracker.sequences else "; no scores without --partial") + ".")
        lines.extend(_unusable(tracker))
        lines.extend(f"{tracker.label}: {line}." for line in _grouped(tracker.notes))
    return lines


def _unusable(tracker: TrackerReport) -> list[str]:
    """One line for each reason why results of a tracker cannot be used, up to some."""
    names: dict[str, list[str]] = {}
    for name, reason in tracker.unusable.items():
        names.setdefault(reason, []).append(name)
    lines = [f"{tracker.label} on {', '.join(of[:_NAMED])}{', ...' if len(of) > _NAMED else ''} cannot be used: {reason}."
             for reason, of in names.items()]
    rest = len(lines) - _NAMED
    return lines[:_NAMED] + ([f"{tracker.label}: {rest} more results cannot be used; scores.json lists them."]
                             if rest > 0 else [])


def _grouped(notes: Sequence[Note]) -> list[str]:
    """One line for each thing that was adapted, with the first files in which it was."""
    places: dict[str, list[str]] = {}
    for note in notes:
        places.setdefault(note.what, []).append(note.where)
    lines = []
    for what, where in places.items():
        rest = len(where) - _FILES
        lines.append(f"{what} ({', '.join(where[:_FILES])}" + (f" and {rest} more files" if rest > 0 else "") + ")")
    return lines


def text_table(report: BenchmarkReport) -> str:
    """The scores as aligned text, in per cent, with the remarks below."""
    header, rows = table_rows(report, spread=" +- ")
    title = f"{report.dataset}: {report.total} sequences, per cent"
    lines = [title, *_aligned(header, rows), *remarks(report)]
    if report.attributes:
        lines += ["", f"{report.dataset}: AUC by attribute, per cent", *_aligned(*attribute_rows(report))]
    return "\n".join(lines)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text between rules."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = [cell.ljust(width) if i == 0 else cell.rjust(width)
                          for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join([first, *others]).rstrip()

    rule = "-" * len(line(header))
    return [rule, line(header), rule, *map(line, rows), rule]


def markdown_table(report: BenchmarkReport) -> str:
    """The scores as a Markdown section, in per cent, with the remarks below."""
    lines = [f"## {report.dataset}", "", *_markdown(*table_rows(report, spread=" ± ")), "",
             *(f"- {remark}" for remark in remarks(report))]
    if report.attributes:
        lines += ["", "AUC by attribute", "", *_markdown(*attribute_rows(report))]
    return "\n".join(lines) + "\n"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, all columns but the first to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    lines = [f"| {' | '.join(cells)} |" for cells in escaped]
    return [lines[0], f"| {' | '.join(['---', *['---:'] * (len(header) - 1)])} |", *lines[1:]]


def csv_table(report: BenchmarkReport) -> str:
    """The scores as CSV with four decimals, one tracker per line, empty where there is no number.

    The standard deviations of repeated runs are columns of their own, present when any tracker has them.
    """
    header, rows = table_rows(report, digits=4)
    spread = any(tracker.deviation for tracker in report.trackers)
    header = ["Dataset", "Convention", *header[:-1], "Scored", "Found", "Total",
              *(f"{name} std" for name in SCORE_NAMES if spread)]
    lines = [header]
    for tracker, row in zip(by_score(report), rows, strict=True):
        scored = report.scored if tracker.scores else 0
        numbers = ["" if cell == "-" else cell for cell in row[1:-1]]
        deviation = tracker.deviation or dict.fromkeys(SCORE_NAMES, "")
        lines.append([report.dataset, report.convention.name, row[0], *numbers, scored, len(tracker.sequences),
                      report.total, *(_decimals(value) for value in deviation.values() if spread)])
    return _csv(lines)


def attributes_csv(report: BenchmarkReport) -> str:
    """AUC by attribute as CSV with four decimals."""
    header, rows = attribute_rows(report, digits=4)
    return _csv([header, *rows])


def sequences_csv(report: BenchmarkReport) -> str:
    """Every score of every tracker on every sequence as CSV, one sequence and tracker per line."""
    lines: list[list[Any]] = [["Sequence", "Tracker", "Frames", *SCORE_NAMES]]
    for sequence in report.names:
        for tracker in by_score(report):
            if sequence in tracker.sequences:
                score = tracker.sequences[sequence]
                values = summarize([score], report.convention).as_dict().values()
                lines.append([sequence, tracker.label, int(score.frames), *map(_decimals, values)])
    return _csv(lines)


def _decimals(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.4f}"


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def latex_table(report: BenchmarkReport) -> str:
    """The scores as a LaTeX table (package booktabs), the best of each column in bold."""
    header, rows = table_rows(report, digits=1, spread="$\\pm$")
    header, rows = header[:-1], [row[:-1] for row in rows]
    for column in range(1, len(header)):
        values = {i: float(row[column].split("$")[0]) for i, row in enumerate(rows) if row[column] != "-"}
        for i, value in values.items():
            if value == max(values.values()) and len(values) > 1:
                rows[i][column] = f"\\textbf{{{rows[i][column]}}}"
    body = [" & ".join([_escaped(row[0]), *row[1:]]) + r" \\" for row in rows]
    notes = [f"% {remark}" for remark in remarks(report)]
    return "\n".join([
        f"% {report.dataset}: {report.total} sequences, per cent", *notes,
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    """Text in which LaTeX sees no commands."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


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
