"""Where results lie and how they are written: OSTrack's files, one box per line."""

import re
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.files import write_text
from .benchmarks import OWN_FOLDERS


def results_root(save_dir: str | Path | None, env: Any) -> Path:
    """The folder of raw results below a `--save_dir`; None takes the one of the environment settings."""
    return Path(env.results_path) if save_dir is None else Path(save_dir).expanduser() / "test" / "tracking_results"


def tracker_folder(results_path: str | Path, script: str, config: str, run_id: int | None = None) -> Path:
    """`<results_path>/<script>/<config>`, with `_<run id>` in three digits behind the config of a repeated run."""
    suffix = "" if run_id is None else f"_{run_id:03d}"
    return Path(results_path) / script / f"{config}{suffix}"


def dataset_folder(dataset: str) -> str:
    """Sub-folder of a tracker's results that a data set has.

    GOT-10k and TrackingNet have one of their name and most other benchmarks lie side by side in the tracker's folder,
    as in the official code; those whose names of sequences repeat have one of their own (`has_own_names`).
    """
    if dataset in ("got10k", "trackingnet") or not has_own_names(dataset):
        return dataset.replace(":", "_")
    return ""


def has_own_names(dataset: str) -> bool:
    """Whether no other data set calls its sequences as this one does.

    Not so for plain folders (`folder:<name>`), for VOT and for the benchmarks that share videos with others.
    """
    return not dataset.startswith(("folder:", "vot:")) and dataset not in OWN_FOLDERS


def boxes_file(folder: str | Path, dataset: str, sequence: str) -> Path:
    """The file with the boxes of a sequence below the tracker's `folder`."""
    return Path(folder) / dataset_folder(dataset) / f"{sequence}.txt"


def times_file(boxes: Path) -> Path:
    """The file with the seconds per frame, beside the file with the boxes."""
    return boxes.with_name(f"{boxes.stem}_time.txt")


def has_results(folder: Path) -> bool:
    """Whether a tracker's folder holds boxes of sequences. Those of the video demo (`video_*.txt`) and what lies in
    `previous_N` folders do not count."""
    return any(_boxes_in(folder, "*.txt", "*/*.txt"))


def holds_sub_pixels(folder: Path) -> bool | None:
    """Whether the boxes of sequences in a data set's folder of results have fractions of pixels (see `write_result`);
    None where there are none."""
    file = next(_boxes_in(folder, "*.txt"), None)
    if file is None:
        return None
    with open(file, encoding="utf-8", errors="replace") as lines:
        return "." in lines.readline()


def _boxes_in(folder: Path, *patterns: str) -> Iterator[Path]:
    return (file for pattern in patterns for file in folder.glob(pattern)
            if file.is_file() and not file.stem.endswith(("_time", "_all_boxes", "_all_scores"))
            and not file.name.startswith("video_") and not file.parent.name.startswith("previous_"))


def is_done(boxes: Path, frames: int) -> bool:
    """Whether the file `boxes` is whole: one line for each of `frames` frames."""
    if not boxes.is_file():
        return False
    lines = boxes.read_text(encoding="utf-8", errors="replace").split("\n")
    return sum(bool(line.strip()) for line in lines) == frames > 0


def is_of(boxes: Path, first_box: Rows[float]) -> bool:
    """Whether a result file begins with a sequence's first box, as `write_result` wrote it, or cannot be read."""
    try:
        with open(boxes, encoding="utf-8", errors="replace") as file:
            row = [float(value) for value in re.split(r"[,\s]+", file.readline().strip())]
    except (OSError, ValueError):
        return True
    return len(row) != len(first_box) or all(abs(a - b) <= 1 for a, b in zip(row, first_box, strict=True))


def write_result(path: Path, boxes_xywh: np.ndarray, seconds: Rows[float], sub_pixel: bool = False) -> None:
    """Write the boxes and, beside them, the times. The boxes come last: where they are, the result is whole.

    Args:
        path: the boxes' file, `<sequence>.txt`.
        boxes_xywh: (N, 4) pixels.
        seconds: N, of which the first is the initialisation.
        sub_pixel: four decimals instead of OSTrack's integers, which are cut off towards zero.
    """
    rows = np.asarray(boxes_xywh, dtype=np.float64)
    lines = ("\t".join(f"{v:.4f}" for v in row) if sub_pixel else "\t".join(str(int(v)) for v in row) for row in rows)
    write_text(times_file(path), "".join(f"{value:.6f}\n" for value in seconds))
    write_text(path, "".join(f"{line}\n" for line in lines))
