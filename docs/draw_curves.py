"""Draw how trainings got on: `python docs/draw_curves.py LABEL=FOLDER [LABEL=FOLDER ...] --output FILE`.

A FOLDER is the `--save_dir` of one training; its curves are read from the event files for TensorBoard below it. Of
several with one label (seeds) the mean is drawn, with the range from the least to the largest. At the left is the mean
overlap on validation pairs, at the right the AUC of tracking the validation sequences, where a training did that twice.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import atomic_write  # noqa: E402
from lib.utils.log import run_script  # noqa: E402
from lib.vis.charts import COLORS, new_figure, plain_axes  # noqa: E402

PANELS = {"IoU/val": "mean overlap on validation pairs", "AUC/track": "AUC on validation sequences"}


def read_curves(folder: Path) -> dict[str, dict[int, float]]:
    """Tag of `PANELS` -> epoch -> value, of one training; where an epoch was done twice (a restart), the later value.

    Raises:
        UserError: without event files, or with those of several trainings.
    """
    logging.getLogger("tensorboard").setLevel(logging.WARNING)     # tells of every file that it reads to the end
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes seconds to import

    curves: dict[str, dict[int, float]] = {tag: {} for tag in PANELS}
    folders = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    if len(folders) != 1:
        raise UserError(f"{folder} must hold the event files of one training (tensorboard/.../events.out.tfevents.*), "
                        f"but has those of {len(folders)}")
    events = EventAccumulator(str(folders[0])).Reload()
    for tag in set(events.Tags()["scalars"]) & set(curves):
        curves[tag] = {event.step: event.value for event in events.Scalars(tag)}
    return curves


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="LABEL=FOLDER", help="a training, and its name in the legend")
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    args = parser.parse_args(arguments)

    runs: dict[str, list[dict[str, dict[int, float]]]] = {}
    for text in args.runs:
        label, equals, folder = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} is not LABEL=FOLDER")
        runs.setdefault(label, []).append(read_curves(Path(folder)))

    panels = {tag: title for tag, title in PANELS.items()
              if any(len(curve[tag]) > 1 for curves in runs.values() for curve in curves)}
    if not panels:
        raise UserError("none of the trainings was validated twice: there is no curve to draw")
    figure = new_figure(5 * len(panels), 3.8)
    for axes, (tag, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for colour, (label, curves) in zip(cycle(COLORS), runs.items(), strict=False):
            epochs = sorted(set.intersection(*(set(curve[tag]) for curve in curves)))
            if not epochs:
                continue
            values = np.array([[curve[tag][epoch] for epoch in epochs] for curve in curves])    # (runs, epochs)
            axes.plot(epochs, values.mean(0), "o-", color=colour, markersize=3.5, label=label)
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        plain_axes(axes)
    with atomic_write(args.output) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


if __name__ == "__main__":
    run_script(main)
