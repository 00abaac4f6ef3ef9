"""Tables of scores for the terminal, as CSV and as Markdown."""

import csv
import io
from collections.abc import Sequence

from lib.test.analysis.metrics import SCORE_NAMES
from lib.test.analysis.results import BenchmarkReport, TrackerReport

_NAMED = 5
"""How many missing sequences a message names."""


def by_score(report: BenchmarkReport) -> list[TrackerReport]:
    """The trackers, best AUC first, those without scores last."""
    return sorted(report.trackers, key=lambda tracker: -tracker.scores.AUC if tracker.scores else float("inf"))


def table_rows(report: BenchmarkReport, digits: int = 2) -> tuple[list[str], list[list[str]]]:
    """Column names and one row of text per tracker, best first; `-` where there is no number."""
    header = ["Tracker", *SCORE_NAMES, "FPS", "Sequences"]
    rows = []
    for tracker in by_score(report):
        if tracker.scores:
            numbers = [f"{value:.{digits}f}" for value in tracker.scores.as_dict().values()]
        else:
            numbers = ["-"] * len(SCORE_NAMES)
        fps = "-" if tracker.fps is None else f"{tracker.fps:.1f}"
        rows.append([tracker.label, *numbers, fps, f"{len(tracker.sequences)}/{report.total}"])
    return header, rows


def remarks(report: BenchmarkReport) -> list[str]:
    """What a reader has to know about the numbers: the convention, what they are over and what is missing."""
    convention = report.convention
    lines = [f"Convention {convention.name}: {convention.summary}."]
    if report.scored < report.total:
        lines.append(f"PARTIAL: scores over the {report.scored} sequences that all trackers have, of {report.total}; "
                     "not comparable with published numbers.")
    for tracker in report.trackers:
        if tracker.missing:
            names = ", ".join(tracker.missing[:_NAMED])
            rest = len(tracker.missing) - _NAMED
            lines.append(f"{tracker.label} lacks {len(tracker.missing)} of {report.total} sequences: {names}"
                         + (f" and {rest} more" if rest > 0 else "")
                         + ("" if tracker.scores else "; no scores without --partial") + ".")
        lines.extend(f"{tracker.label}: {note}." for note in tracker.notes)
    return lines


def text_table(report: BenchmarkReport) -> str:
    """The scores as aligned text, in per cent, with the remarks below."""
    header, rows = table_rows(report)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = [cell.ljust(width) if i == 0 else cell.rjust(width)
                          for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join([first, *others]).rstrip()

    title = f"{report.dataset}: {report.total} sequences, per cent"
    rule = "-" * len(line(header))
    return "\n".join([title, rule, line(header), rule, *map(line, rows), rule, *remarks(report)])


def markdown_table(report: BenchmarkReport) -> str:
    """The scores as a Markdown section, in per cent, with the remarks below."""
    header, rows = table_rows(report)
    rows = [[row[0].replace("|", "\\|"), *row[1:]] for row in rows]
    lines = [f"## {report.dataset}", "", _cells(header), _cells(["---", *["---:"] * (len(header) - 1)]),
             *map(_cells, rows), "", *(f"- {remark}" for remark in remarks(report))]
    return "\n".join(lines) + "\n"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def csv_table(report: BenchmarkReport) -> str:
    """The scores as CSV with four decimals, one tracker per line, empty where there is no number."""
    header, rows = table_rows(report, digits=4)
    header = ["Dataset", "Convention", *header[:-1], "Scored", "Found", "Total"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    found = {id(tracker): len(tracker.sequences) for tracker in report.trackers}
    for tracker, row in zip(by_score(report), rows, strict=True):
        scored = report.scored if tracker.scores else 0
        numbers = ["" if cell == "-" else cell for cell in row[1:-1]]
        writer.writerow([report.dataset, report.convention.name, row[0], *numbers, scored, found[id(tracker)],
                         report.total])
    return text.getvalue()
