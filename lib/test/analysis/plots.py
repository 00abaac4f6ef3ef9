"""Success and precision plots."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.test.analysis.metrics import NORMALIZED_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS
from lib.test.analysis.report import by_score
from lib.test.analysis.results import BenchmarkReport
from lib.utils.files import atomic_write

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Colours that stay apart for colour-blind readers (after Okabe and Ito), the yellow replaced by a darker brown."""
DASHES = ("solid", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))

_INSIDE = 5
"""With more trackers than this the legend stands beside the plot."""


@dataclass(frozen=True)
class _Plot:
    """One kind of plot: which curve and score it shows, and its axes."""

    name: str
    title: str
    curve: str
    score: str
    thresholds: np.ndarray
    x_label: str
    y_label: str
    legend: str


PLOTS = (
    _Plot("success", "Success", "success", "AUC", SUCCESS_THRESHOLDS, "Overlap threshold", "Success rate",
          "lower left"),
    _Plot("precision", "Precision", "precision", "Precision", PRECISION_THRESHOLDS, "Centre error threshold (pixels)",
          "Precision", "lower right"),
    _Plot("norm_precision", "Normalised precision", "normalized", "NormPrecision", NORMALIZED_THRESHOLDS,
          "Normalised centre error threshold", "Normalised precision", "lower right"),
)


def draw_plot(report: BenchmarkReport, plot: _Plot) -> Figure:
    """One plot with a curve per scored tracker; the legend is sorted by the score it shows in brackets.

    A tracker looks the same in all plots of a report.
    """
    styles = [(tracker, COLORS[i % len(COLORS)], DASHES[(i + i // len(COLORS)) % len(DASHES)])
              for i, tracker in enumerate(tracker for tracker in by_score(report) if tracker.scores)]
    styles.sort(key=lambda style: -getattr(style[0].scores, plot.score))
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for rank, (tracker, color, dashes) in enumerate(styles):
        score = getattr(tracker.scores, plot.score)
        axes.plot(plot.thresholds, getattr(tracker.scores, plot.curve), label=f"{tracker.label} [{score:.1f}]",
                  color=color, linestyle=dashes, linewidth=1.8, zorder=3 - rank / len(styles))
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label, xlim=(plot.thresholds[0], plot.thresholds[-1]), ylim=(0, 100))
    axes.set_title(f"{plot.title} on {report.dataset} ({report.scored} sequences)", fontsize=11)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(styles) > _INSIDE:
        figure.legend(loc="outside right upper", fontsize=8.5, frameon=False)
        figure.set_figwidth(8.6)
    else:
        axes.legend(loc=plot.legend, fontsize=8.5, framealpha=0.92, edgecolor="0.8")
    return figure


def save_plots(report: BenchmarkReport, folder: str | Path, formats: Iterable[str]) -> list[Path]:
    """Write the three plots of a report in every format (png, pdf); nothing when no tracker has scores.

    Returns:
        the files, named <plot>.<format>.
    """
    if not any(tracker.scores for tracker in report.trackers):
        return []
    paths = []
    for plot in PLOTS:
        figure = draw_plot(report, plot)
        for form in formats:
            path = Path(folder) / f"{plot.name}.{form}"
            with atomic_write(path) as temporary, rc_context({"pdf.fonttype": 42}):  # fonts embedded as TrueType
                figure.savefig(temporary, format=form, dpi=300)
            paths.append(path)
    return paths
