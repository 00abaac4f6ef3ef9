"""Success and precision plots."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ...utils.files import atomic_write
from ...vis import charts
from . import curves
from .curves import PLOTS, PlotSpec
from .report import by_score
from .results import BenchmarkReport

__all__ = ["PLOTS", "draw_plot", "save_plots"]

DASHES = ("solid", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))

_INSIDE = 5
"""With more trackers than this the legend stands beside the plot."""


def draw_plot(report: BenchmarkReport, plot: PlotSpec):
    """One plot with a curve per scored tracker; the legend is sorted by the score it shows in brackets.

    A tracker looks the same in all plots of a report.

    Returns:
        a Matplotlib figure.
    """
    from matplotlib.ticker import PercentFormatter  # Matplotlib takes a second to import

    styles = [(tracker, charts.COLORS[i % len(charts.COLORS)], DASHES[(i + i // len(charts.COLORS)) % len(DASHES)])
              for i, tracker in enumerate(tracker for tracker in by_score(report) if tracker.scores)]
    styles.sort(key=lambda style: -getattr(style[0].scores, plot.score))
    figure = charts.new_figure(5.2, 4.2)
    axes = figure.add_subplot()
    for rank, (tracker, color, dashes) in enumerate(styles):
        score = getattr(tracker.scores, plot.score)
        axes.plot(plot.thresholds, getattr(tracker.scores, plot.curve), label=f"{tracker.label} [{score:.1f}]",
                  color=color, linestyle=dashes, linewidth=1.8, zorder=3 - rank / len(styles))
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label, xlim=(plot.thresholds[0], plot.thresholds[-1]), ylim=(0, 100))
    axes.set_title(f"{plot.title} on {report.dataset} ({report.scored} sequences)", fontsize=11)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    charts.plain_axes(axes)
    if len(styles) > _INSIDE:
        figure.legend(loc="outside right upper", fontsize=8.5, frameon=False)
        figure.set_figwidth(8.6)
    else:
        axes.legend(loc=plot.legend, fontsize=8.5, framealpha=0.92, edgecolor="0.8")
    return figure


def save_plots(report: BenchmarkReport, folder: str | Path, formats: Iterable[str]) -> list[Path]:
    """Write the three plots of a report in every format (png, pdf); nothing when no tracker has scores.

    Each file carries a key of what it shows; a file whose key is the right one is left as it is.

    Returns:
        the files, named <plot>.<format>.
    """
    if not any(tracker.scores for tracker in report.trackers):
        return []
    paths = []
    for plot in PLOTS:
        key, figure = _key(report, plot), None
        for form in formats:
            path = Path(folder) / f"{plot.name}.{form}"
            paths.append(path)
            if path.is_file() and key.encode() in path.read_bytes():
                continue
            figure = figure or draw_plot(report, plot)
            _save(figure, path, form, key)
    return paths


def _key(report: BenchmarkReport, plot: PlotSpec) -> str:
    """What a plot is known by: a digest of all it shows and of the code that draws it."""
    shown = [report.dataset, report.scored,
             [[tracker.label, getattr(tracker.scores, plot.score), getattr(tracker.scores, plot.curve).tolist()]
              for tracker in by_score(report) if tracker.scores]]
    digest = hashlib.sha256(json.dumps(shown).encode())
    for source in (__file__, curves.__file__, charts.__file__):
        digest.update(Path(source).read_bytes())
    return f"scores {digest.hexdigest()}"


def _save(figure, path: Path, form: str, key: str) -> None:
    """Write a figure with the key among the file's properties."""
    from matplotlib import rc_context

    properties = {"png": "Description", "pdf": "Subject"}
    with atomic_write(path) as temporary, rc_context({"pdf.fonttype": 42}):  # fonts embedded as TrueType
        figure.savefig(temporary, format=form, dpi=300, metadata={properties[form]: key})
