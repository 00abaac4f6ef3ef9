"""Charts of experiments: means of several runs, and how layers compare."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..utils.files import atomic_write
from ..utils.statistics import Summary, summarise

FORMATS = ("png", "pdf")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Colours that stay apart for colour-blind readers (after Okabe and Ito), the yellow replaced by a darker brown."""
BLUE, ORANGE, GREY = *COLORS[:2], "0.45"
LABEL_SIDES = tuple(((right * x, up * y), across, along) for x, y in ((6, 4), (10, 24), (10, 42))
                    for up, along in ((1, "bottom"), (-1, "top")) for right, across in ((1, "left"), (-1, "right")))
"""Where a point's label may stand, the best first: points to the right and up, and which of its own sides lie there."""
NEAR = 10
"""A label that stands further from its point, in points up or down, has a line to it."""


def save_ladder_chart(path: Path, title: str, score: str, scores: Mapping[str, Sequence[float]],
                      gains: Mapping[str, Summary | None], reference: float | None = None) -> list[Path]:
    """Draw the rungs of a ladder: each run, the mean with its interval, and the paired differences with theirs.

    Args:
        path: of the files, without ending.
        score: its name, for the axis.
        scores: rung -> score of each run; rungs without any stay empty.
        gains: rung -> difference to another one; None for none.
        reference: score of a tracker that is drawn as a line.

    Returns:
        the files.
    """
    names = list(scores)
    figure = new_figure(9.5, 1.4 + 0.42 * len(names))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, name in enumerate(names):
        values = list(scores[name])
        if values:
            whole = summarise(values)
            left.plot(values, [place] * len(values), "o", color=GREY, markersize=3.5, alpha=0.7, zorder=2)
            left.errorbar(whole.mean, place, xerr=None if np.isnan(whole.half) else whole.half, fmt="D", color=BLUE,
                          markersize=5, capsize=3, zorder=3)
        gain = gains.get(name)
        if gain is not None:
            right.errorbar(gain.mean, place, xerr=None if np.isnan(gain.half) else gain.half, fmt="D", color=ORANGE,
                           markersize=5, capsize=3)
    if reference is not None:
        left.axvline(reference, color="black", linewidth=1, linestyle=(0, (4, 2)))
        left.annotate(f"reference {reference:.1f}", (reference, 1), xycoords=("data", "axes fraction"), fontsize=8,
                      xytext=(-3, 2), textcoords="offset points", ha="right")
    right.axvline(0, color="black", linewidth=1)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel=f"{score}: runs, mean with 95 % interval")
    left.set_title(title, pad=20)                           # above the label of the reference
    right.set(xlabel=f"difference in {score} with 95 % interval")
    for axes in (left, right):
        plain_axes(axes, "x")
    return _save(figure, path)


def save_importance_chart(path: Path, influence: Sequence[float], skipped: Sequence[float],
                          similarity: Sequence[Sequence[float]]) -> list[Path]:
    """Draw what `lib.budget.importance` measures: two bars for each layer, and the similarity of all borders.

    Args:
        path: of the files, without ending.
        influence, skipped: of each layer.
        similarity: (depth + 1) x (depth + 1).

    Returns:
        the files.
    """
    layers = np.arange(len(influence))
    figure = new_figure(12, 3.6)
    bars = figure.subplots(1, 3, width_ratios=(3, 3, 2.6))
    for axes, values, color, title in ((bars[0], influence, BLUE, "block influence"),
                                       (bars[1], skipped, ORANGE, "IoU lost without the layer")):
        axes.bar(layers, values, color=color)
        axes.set(title=title, xlabel="layer", xticks=layers)
        plain_axes(axes, "y")
    shown = bars[2].imshow(np.asarray(similarity), vmin=0, vmax=1, cmap="viridis", origin="lower")
    ticks = range(0, len(layers) + 1, 2)
    bars[2].set(title="similarity of tokens (CKA)", xlabel="after so many layers", xticks=ticks, yticks=ticks)
    figure.colorbar(shown, ax=bars[2], shrink=0.85)
    return _save(figure, path)


def save_speed_chart(path: Path, title: str, score: str, points: Mapping[str, tuple[float, Summary]]) -> list[Path]:
    """Draw trackers as points, a score over the time of a frame (logarithmic); of several runs the mean with its
    interval.

    Args:
        path: of the files, without ending.
        score: its name, for the axis.
        points: label -> milliseconds per frame, and the score.

    Returns:
        the files.
    """
    from matplotlib.ticker import LogFormatter

    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    for ms, value in points.values():
        axes.errorbar(ms, value.mean, yerr=None if np.isnan(value.half) else value.half, fmt="o", color=BLUE,
                      markersize=6, capsize=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))     # fewer over several decades
    axes.margins(x=0.18, y=0.12)
    axes.set(xlabel="milliseconds per frame, median", ylabel=score, title=title)
    plain_axes(axes)
    _label_points(axes, {label: (ms, value.mean) for label, (ms, value) in points.items()})
    return _save(figure, path)


def _label_points(axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each label beside its point, at the side where it meets the fewest labels, points and borders."""
    from matplotlib.text import Text

    axes.figure.draw_without_rendering()         # now the layout is known
    taken: list = []

    def place(text):
        text.get_window_extent()                 # it finds its position
        return Text.get_window_extent(text)      # without the line

    for label, point in points.items():
        others = [axes.transData.transform(other) for name, other in points.items() if name != label]
        texts = [axes.annotate(label, point, fontsize=9, xytext=offset, textcoords="offset points", ha=across, va=along,
                               arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 4}
                               if abs(offset[1]) > NEAR else None) for offset, across, along in LABEL_SIDES]

        def clashes(text, others=others) -> int:
            extent = place(text)
            beyond = not axes.bbox.containsx(extent.x0) or not axes.bbox.containsx(extent.x1)
            return 3 * (extent.padded(3).count_overlaps(taken) + beyond) + extent.padded(12).count_contains(others)

        best = min(texts, key=clashes)
        best.set_in_layout(False)
        taken.append(place(best))
        for text in texts:
            if text is not best:
                text.remove()


def new_figure(width: float, height: float):
    """An empty Matplotlib figure of this size in inches, which draws into files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # Matplotlib takes a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes, grid: str = "both") -> None:
    """Pale grid lines behind the curves, along `grid` (x, y or both), and no frame above and at the right."""
    axes.grid(axis=grid, color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure, path: Path) -> list[Path]:
    paths = [path.with_name(f"{path.name}.{form}") for form in FORMATS]
    for file, form in zip(paths, FORMATS, strict=True):
        with atomic_write(file) as temporary:
            figure.savefig(temporary, format=form, dpi=200)
    return paths
