"""Draw the figures of the documentation: `python docs/make_figures.py`.

overview.png shows the method, schedule.png the replacement probability over the epochs, stages.png how the teacher's
layers are divided. The curves and divisions are computed by the code that trains.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.models.compress import divide, replacement_probability  # noqa: E402
from lib.models.compress.initialise import source_layers  # noqa: E402
from lib.utils.files import atomic_write  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

INK, GREY, PALE, PAPER = "#1f2933", "#667380", "#eef1f5", "#ffffff"
TEACHER, TEACHER_PALE = "#2f6db0", "#dbe8f6"
STUDENT, STUDENT_PALE = "#d9701a", "#fce5d0"
TRACK, GUIDE, MIMIC = "#1c8a5a", "#8e3a9d", "#b3261e"
STYLE = {"font.family": "DejaVu Sans", "font.size": 11, "text.color": INK, "axes.edgecolor": GREY,
         "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
DPI = 160

DRAWS = (True, False, True, True)
"""The draw that overview.png shows."""


# ---------------------------------------------------------------- drawing

def canvas(width: float, height: float, units: float) -> tuple[Figure, Axes]:
    """A white card of width x height inches, with an area of `units` across to draw in."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, units)
    axes.set_ylim(0, units * height / width)
    axes.set_axis_off()
    return figure, axes


def box(axes: Axes, x: float, y: float, w: float, h: float, text: str = "", *, face: str = PALE, edge: str = GREY,
        color: str = INK, size: float = 11, weight: str = "normal", line: float = 1.2, dashed: bool = False,
        radius: float = 0.7) -> None:
    """A rounded box around the centre (x, y)."""
    axes.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=f"round,pad=0,rounding_size={radius}",
                                  facecolor=face, edgecolor=edge, linewidth=line,
                                  linestyle=(0, (4, 2.5)) if dashed else "solid", zorder=2))
    if text:
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color=color, weight=weight, zorder=4,
                  linespacing=1.25)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK, *, dashed: bool = False,
          both: bool = False, line: float = 1.5) -> None:
    """A straight arrow."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="<|-|>" if both else "-|>", mutation_scale=12, color=color,
                                   linewidth=line, linestyle=(0, (3, 2)) if dashed else "solid", shrinkA=0, shrinkB=0,
                                   zorder=3))


def label(axes: Axes, x: float, y: float, text: str, *, color: str = INK, size: float = 11, align: str = "center",
          weight: str = "normal") -> None:
    """Text around or beside (x, y)."""
    axes.text(x, y, text, ha=align, va="center", fontsize=size, color=color, weight=weight, zorder=4, linespacing=1.3)


def note(axes: Axes, x: float, y: float, text: str, color: str, w: float, h: float) -> None:
    """A label on an arrow, which passes behind it."""
    axes.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=0.7",
                                  facecolor=PAPER, edgecolor=color, linewidth=1, zorder=5))
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=color, zorder=6, linespacing=1.3)


def layer_group(axes: Axes, x: float, y: float, numbers: Sequence[int], *, pitch: float = 4.2, height: float = 6.4,
                face: str = TEACHER_PALE, edge: str = TEACHER) -> tuple[float, float]:
    """Boxes for the teacher's layers `numbers` side by side around (x, y); their left and right ends."""
    left = x - pitch * (len(numbers) - 1) / 2
    for place, number in enumerate(numbers):
        box(axes, left + pitch * place, y, 3.5, height, str(number), face=face, edge=edge, color=edge, size=11)
    return left - 1.75, left + pitch * (len(numbers) - 1) + 1.75


# ---------------------------------------------------------------- figures

def overview() -> Figure:
    """Teacher, one mixed pass of the training, student, and the losses between them."""
    figure, axes = canvas(12.4, 6.7, 124)
    stages = divide(12, len(DRAWS))
    columns = [41 + 17.4 * i for i in range(len(stages))]
    embed, head, out = 25.6, 110.2, 120.4
    teacher_y, mixed_y, student_y = 52.6, 33.4, 8.4
    middle = (teacher_y + mixed_y) / 2

    for i, x in enumerate(columns):
        axes.add_patch(FancyBboxPatch((x - 7.7, 3), 15.4, 55.2, boxstyle="round,pad=0,rounding_size=1",
                                      facecolor="#f4f6f9", edgecolor="none", zorder=0))
        label(axes, x, 61.6, f"stage {i + 1}", color=GREY, size=11.5, weight="bold")
    label(axes, embed, 61.6, "template and\nsearch crop", color=GREY, size=10.5)
    label(axes, head, 61.6, "prediction", color=GREY, size=10.5)

    for y, lift, name, text, color in (
            (teacher_y, 3.4, "Teacher", "12 layers, frozen:\ngives the targets", TEACHER),
            (mixed_y, 4.2, "Training", "each stage drawn:\nstudent with\nprobability p", INK),
            (student_y, 3.4, "Student", "4 layers: what is\ntested and used", STUDENT)):
        label(axes, 2, y + lift, name, color=color, size=15, weight="bold", align="left")
        label(axes, 2, y + lift - (4.3 if lift < 4 else 5.1), text, color=GREY, size=10.5, align="left")

    for y, face, edge in ((teacher_y, TEACHER_PALE, TEACHER), (mixed_y, STUDENT_PALE, STUDENT),
                          (student_y, STUDENT_PALE, STUDENT)):
        box(axes, embed, y, 8.2, 6.4, "embed", face=face, edge=edge, color=edge)
        box(axes, head, y, 8.2, 6.4, "norm,\nhead", face=face, edge=edge, color=edge, size=10)
        arrow(axes, (head + 4.3, y), (out - 2.3, y))
        label(axes, out, y, "box")
        end = embed + 4.1
        for i, (x, stage) in enumerate(zip(columns, stages, strict=True)):
            if y == teacher_y or (y == mixed_y and not DRAWS[i]):
                left, right = layer_group(axes, x, y, list(stage))
            else:
                left, right = x - 5.95, x + 5.95
                box(axes, x, y, 11.9, 6.4, f"student {i + 1}", face=STUDENT_PALE, edge=STUDENT, color=STUDENT)
            arrow(axes, (end + 0.2, y), (left - 0.2, y))
            end = right
        arrow(axes, (end + 0.2, y), (head - 4.3, y))

    label(axes, embed, middle, "feature\nmimicking,\nweight 0.2", color=MIMIC, size=10)
    for x, drawn in zip(columns, DRAWS, strict=True):
        arrow(axes, (x, teacher_y - 3.6), (x, mixed_y + 3.6), MIMIC, dashed=True, both=True)
        note(axes, x, middle, "squared error", MIMIC, 11.9, 4)
        name, does, color = ("student", "learns", STUDENT) if drawn else ("teacher", "waits", GREY)
        arrow(axes, (x, mixed_y - 3.6), (x, student_y + 3.6), color, dashed=not drawn, line=1.3)
        note(axes, x, (mixed_y + student_y) / 2, f"drew the {name}:\nstudent layer {does}", color, 14.2, 6.2)
    for start, end, text, color in ((teacher_y - 3.6, mixed_y + 3.6, "prediction guidance", GUIDE),
                                    (mixed_y - 9.4, mixed_y - 3.6, "ground truth", TRACK)):
        arrow(axes, (head, start), (head, end), color, dashed=True, both=color == GUIDE)
        note(axes, head, middle if color == GUIDE else mixed_y - 12.5, f"{text}:\nfocal, GIoU, L1", color, 16.2, 6.2)
    return figure


def schedule() -> Figure:
    """The replacement probability of the three schedules, in the paper's length and in a short run."""
    figure = Figure(figsize=(11.2, 4.3), facecolor=PAPER)
    FigureCanvasAgg(figure)
    long, short = figure.subplots(1, 2, width_ratios=(1.45, 1))
    kinds = (("constant", GREY, (0, (6, 2)), 1.8), ("progressive", STUDENT, "solid", 2.6),
             ("released", TEACHER, (0, (2, 1.4)), 2.2))
    for axes, epochs in ((long, 500), (short, 20)):
        for kind, color, dashes, width in kinds:
            p = [replacement_probability(epoch, epochs, kind) for epoch in range(1, epochs + 1)]
            if epochs > 50:
                text = f"{kind}  (mean {sum(p) / epochs:.3f})"
                axes.plot(range(1, epochs + 1), p, color=color, linestyle=dashes, linewidth=width, label=text)
            else:
                axes.plot(range(1, epochs + 1), p, color=color, linestyle=dashes, linewidth=width * 0.7, marker="o",
                          markersize=4.5 if kind != "released" else 3)
        axes.set_ylim(0.42, 1.06)
        axes.set_xlabel("epoch")
        axes.grid(color=PALE, linewidth=1)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    long.set_xlim(0, 505)
    long.set_ylabel("p: probability of a student stage")
    long.set_title("500 epochs: the paper's run", loc="left", fontsize=12, weight="bold")
    long.set_xticks([1, 50, 150, 250, 350, 450, 500])
    long.legend(loc="lower right", frameon=False, bbox_to_anchor=(1.0, 0.14), handlelength=3.2)
    short.set_title("20 epochs: a step apart", loc="left", fontsize=12, weight="bold")
    short.set_xticks([1, 5, 10, 15, 20])
    short.tick_params(labelleft=False)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.9, bottom=0.135, wspace=0.07)
    return figure


def stage_divisions() -> Figure:
    """Which teacher layers each student layer stands for, and which it starts from."""
    figure, axes = canvas(11.2, 6.2, 112)
    cases = (("12 → 4, even", "[] (default)", 4, ()), ("12 → 4, uneven", "[2, 2, 6, 2]", 4, (2, 2, 6, 2)),
             ("12 → 8", "[] (default)", 8, ()))
    pitch, start, top = 6.5, 34.4, 49
    for row, (title, key, depth, sizes) in enumerate(cases):
        y = top - 18 * row
        stages = divide(12, depth, sizes)
        sources = source_layers("skip", stages)
        label(axes, 3, y + 0.4, title, size=14, weight="bold", align="left")
        label(axes, 3, y - 4.2, f"COMPRESS.STAGES:\n{key}", size=10, color=GREY, align="left")
        for number, stage in enumerate(stages):
            left, right = start + pitch * stage[0] - 2.8, start + pitch * stage[-1] + 2.8
            axes.add_patch(FancyBboxPatch((left - 0.15, y - 9.9), right - left + 0.3, 14.2,
                                          boxstyle="round,pad=0,rounding_size=1", facecolor="#f3f6f9",
                                          edgecolor="none", zorder=0))
            for layer in stage:
                x = start + pitch * layer
                chosen = layer == sources[number]
                box(axes, x, y + 1, 4.7, 4.6, str(layer), face=TEACHER if chosen else TEACHER_PALE, edge=TEACHER,
                    color=PAPER if chosen else TEACHER, weight="bold" if chosen else "normal")
            box(axes, (left + right) / 2, y - 6.6, right - left - 1.1, 4.4, str(number + 1), face=STUDENT_PALE,
                edge=STUDENT, color=STUDENT, weight="bold")
            source = start + pitch * sources[number]
            arrow(axes, (source, y - 1.5), (source, y - 4.2), STUDENT, line=1.3)
    box(axes, 5, 58.6, 3.4, 3.2, face=TEACHER_PALE, edge=TEACHER)
    label(axes, 7.9, 58.5, "teacher layer", size=10.5, align="left")
    box(axes, 26.6, 58.6, 3.4, 3.2, face=TEACHER, edge=TEACHER)
    label(axes, 29.5, 58.5, "teacher layer whose weights the student layer starts from (COMPRESS.INIT: skip)",
          size=10.5, align="left")
    box(axes, 92.6, 58.6, 3.4, 3.2, face=STUDENT_PALE, edge=STUDENT)
    label(axes, 95.5, 58.5, "student layer", size=10.5, align="left")
    return figure


FIGURES = {"overview": overview, "schedule": schedule, "stages": stage_divisions}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "figures", help="default: %(default)s")
    output = parser.parse_args(arguments).output
    with rc_context(STYLE):
        for name, draw in FIGURES.items():
            figure = draw()
            with atomic_write(output / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    run_script(main)
