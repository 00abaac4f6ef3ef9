"""A real tracker under the project's run-time rules gives its known scores on real videos.

VitTrack (OpenCV zoo) has OSTrack's shape; the AUCs are those that `sequences/README.md` of the reference data states.
Frames, boxes, crops, window, decoding and clipping all have to be right for them. Run this file as a script for the
table of all sequences: `PYTHONPATH=. python tests/test_vittrack.py <reference data folder> [backend]`.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from lib.deploy.manifest import Manifest, Part, Port
from lib.test.analysis.frame_errors import annotated, overlap
from lib.test.evaluation import get_dataset
from lib.test.evaluation.single import track_sequence
from lib.test.tracker import Tracker

SHORT = ["SegTrack2_girl", "SegTrack2_monkey", "DAVIS_car-shadow", "SegTrack2_bmx", "OTB_Football1"]
MOST_FRAMES = 1000
TOLERANCE = 0.01


def write_manifest(shared: Path, folder: Path, model: Path | None = None, precision: str = "float32") -> Path:
    """A folder with a manifest for VitTrack's file: how a tracker that another project exported is described."""
    outputs = {"score_map": Port("output1", (1, 1, 16, 16)), "size_map": Port("output2", (1, 2, 16, 16)),
               "offset_map": Port("output3", (1, 2, 16, 16))}
    inputs = {"template": Port("template", (1, 3, 128, 128)), "search": Port("search", (1, 3, 256, 256))}
    part = Part(str(model or shared / "weights" / "vittrack.onnx"), inputs, outputs)
    manifest = Manifest(script="ostrack", config="vittrack", format="onnx", precision=precision,
                        parts={"tracker": part}, template_size=128, template_factor=2.0, search_size=256,
                        search_factor=4.0, stride=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    manifest.write(folder)
    return folder


def stated_scores(shared: Path) -> dict[str, float]:
    """Sequence -> AUC, from the list in the README that names those that check."""
    text = (shared / "sequences" / "README.md").read_text()
    paragraph = next(line for line in text.splitlines() if line.startswith("DAVIS_car-shadow"))
    return {name: float(value) for name, value in re.findall(r"([\w-]+) (0\.\d+)", paragraph)}


class FirstFrames:
    """A source's first frames."""

    def __init__(self, frames, number):
        self.frames, self.number = frames, number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return self.frames[index]


def measure(tracker: Tracker, shared: Path, name: str) -> tuple[float, float]:
    """AUC (IoU above each of 0:0.05:1, mean over annotated frames and thresholds) and frames per second."""
    sequence = get_dataset(f"folder:{shared / 'sequences'}", None, name)[0]
    number = min(sequence.length, MOST_FRAMES)
    short = SimpleNamespace(name=name, length=number, frames=FirstFrames(sequence.frames, number),
                            first_box=sequence.first_box)
    tracked = track_sequence(tracker, short)
    truth = sequence.ground_truth[:number]
    known = annotated(truth)
    ious = overlap(tracked.boxes_xywh, truth)[known]
    return float((ious[:, None] > np.arange(21) * 0.05).mean()), number / sum(tracked.seconds)


@pytest.mark.parametrize("name", SHORT)
def test_known_scores(shared_dir, tmp_path, name):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    tracker = Tracker.from_export(write_manifest(shared_dir, tmp_path), backend="onnxruntime", device="cpu")
    auc, _ = measure(tracker, shared_dir, name)
    assert auc == pytest.approx(stated_scores(shared_dir)[name], abs=TOLERANCE)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    backend = sys.argv[2] if len(sys.argv) > 2 else "onnxruntime"
    with TemporaryDirectory() as scratch:
        tracker = Tracker.from_export(write_manifest(folder, Path(scratch)), backend=backend, device="cpu")
    for name, stated in stated_scores(folder).items():
        auc, fps = measure(tracker, folder, name)
        verdict = "ok" if abs(auc - stated) <= TOLERANCE else "DIFFERS"
        print(f"{name:28s} stated {stated:.3f} measured {auc:.4f} {fps:6.1f} frames/s {verdict}", flush=True)
