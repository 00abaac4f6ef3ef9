"""Tables as plain text and Markdown, and the cells of repeated measurements."""

from collections.abc import Mapping, Sequence

from .statistics import Summary


def aligned(rows: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    """Rows of cells as lines, in columns two blanks apart.

    Args:
        right: move all but the first column to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) if right and number else cell.ljust(width)
                      for number, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows, each a text for every column, as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def spread(summary: Summary | None) -> str:
    """Mean and standard deviation, as far as there are any."""
    if summary is None:
        return "-"
    return f"{summary.mean:.1f}" + (f" +- {summary.deviation:.1f}" if summary.number > 1 else "")


def interval(summary: Summary | None) -> str:
    """A mean difference with its interval, as far as there are any."""
    if summary is None:
        return ""
    low, high = summary.interval
    return f"{summary.mean:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if summary.number > 1 else "")
