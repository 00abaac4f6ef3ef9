"""A small benchmark and results on it, for tests of the analysis."""

from types import SimpleNamespace

import numpy as np

FRAMES = 6


def sequence(name, dataset="lasot", frames=FRAMES, visible=None):
    """A box of 40 x 30 that moves by 10 pixels per frame."""
    gt = np.array([[10.0 * i, 5, 40, 30] for i in range(frames)])
    return SimpleNamespace(name=name, dataset=dataset, ground_truth=gt, visible=visible)


def write(path, boxes, separator="\t", times=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(separator.join(f"{v:g}" for v in row) for row in boxes) + "\n")
    if times is not None:
        path.with_name(f"{path.stem}_time.txt").write_text("\n".join(map(str, times)))


def two_sequences():
    """Sequences whose target is always visible."""
    visible = np.ones(FRAMES, dtype=bool)
    return [sequence(name, visible=visible) for name in ("car-1", "cat-2")]


def two_trackers(folder, benchmark):
    """Results of `good`, which is perfect, and of run 3 of `bad`, which stands still."""
    for seq in benchmark:
        write(folder / "ours" / "good" / f"{seq.name}.txt", seq.ground_truth, times=[9] + [0.1] * (FRAMES - 1))
        write(folder / "theirs" / "bad_003" / f"{seq.name}.txt", seq.ground_truth[[0] * FRAMES], ",")
    return folder
