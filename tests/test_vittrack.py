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
import torch
from torch import nn

from lib.config import load_config
from lib.deploy.manifest import Manifest, Part, Port
from lib.families import build
from lib.families.build import build_for_test, build_for_train
from lib.models.checkpoint import load_weights
from lib.test.analysis.frame_errors import annotated, overlap
from lib.test.evaluation import get_dataset
from lib.test.evaluation.single import track_sequence
from lib.test.tracker import Tracker, checkpoint_path, find_checkpoint
from lib.train.actors import build_actor
from lib.utils.errors import UserError

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


@pytest.fixture(scope="module")
def own(shared_dir):
    """The project's own model with the weights of the zoo's file."""
    pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    cfg = load_config("vittrack", "vittrack")
    model = build_for_test(cfg).eval()
    load_weights(model, shared_dir / "weights" / "vittrack.onnx")
    return model, cfg


def test_the_own_model_is_the_graph(shared_dir, own):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    session = onnxruntime.InferenceSession(str(shared_dir / "weights" / "vittrack.onnx"))
    generator = np.random.default_rng(0)
    for _ in range(3):
        crops = [generator.standard_normal((1, 3, size, size)).astype(np.float32) for size in (128, 256)]
        expected = session.run(None, dict(zip(("template", "search"), crops, strict=True)))
        with torch.inference_mode():
            found = own[0](*map(torch.from_numpy, crops))
        for one, other in zip(expected, (found.score_map, found.size_map, found.offset_map), strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", SHORT[:2])
def test_known_scores_of_the_own_model(shared_dir, own, name):
    auc, _ = measure(Tracker.from_model(*own), shared_dir, name)
    assert auc == pytest.approx(stated_scores(shared_dir)[name], abs=TOLERANCE)


@pytest.mark.parametrize(("overrides", "message"), [
    (["MODEL.BACKBONE.DEPTH=2"], "is not VitTrack's graph: it has 16 convolutions and 12 matrices, the configured "
                                 "model 16 and 8"),
    (["MODEL.BACKBONE.EMBED_DIM=64"], "does not fit the configured model")])
def test_the_file_of_another_shape_is_refused(shared_dir, overrides, message):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    model = build_for_test(load_config("vittrack", "vittrack", overrides))
    with pytest.raises(UserError, match=message):
        load_weights(model, shared_dir / "weights" / "vittrack.onnx")


@pytest.mark.parametrize("content, problem", [
    (b"\x08\x07\x12\x07pytorch\x1a", "cannot be read as an ONNX file: it is truncated"),
    (b"<!DOCTYPE html><html>", r"is a web page \(HTML\)"),
    (b"", r"is empty \(0 bytes\)"),
])
def test_a_file_that_is_no_whole_model_is_named(tmp_path, content, problem):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    (tmp_path / "vittrack.onnx").write_bytes(content)
    with pytest.raises(UserError, match=f"vittrack.onnx {problem}"):
        load_weights(build_for_test(load_config("vittrack", "vittrack")), tmp_path / "vittrack.onnx")


def test_frozen_layers_keep_their_statistics():
    """VitTrack's embedding has BatchNorms; the head's learn."""
    cfg = load_config("vittrack", "vittrack", ["TRAIN.FROZEN_LAYERS=1", "MODEL.PRETRAIN_FILE=unread.pth"])
    model = build_for_train(cfg, load=False)
    build_actor(cfg, model).train()
    norms = {name: module.training for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {name: on for name, on in norms.items() if name.startswith("backbone")} == {
        name: False for name in norms if name.startswith("backbone")} != {}
    assert all(on for name, on in norms.items() if not name.startswith("backbone")) and not model.layers[0].training
    assert model.layers[1].training and model.training


def test_the_zoos_file_is_tested_where_no_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    with pytest.raises(UserError, match="the file with the weights .TEST.CHECKPOINT: .*vittrack.onnx. was not found"):
        find_checkpoint("vittrack", "vittrack", overrides=["TEST.CHECKPOINT=nowhere/vittrack.onnx"])
    (tmp_path / "pretrained_models").mkdir()
    (tmp_path / "pretrained_models" / "vittrack.onnx").write_bytes(b"")
    _, path = find_checkpoint("vittrack", "vittrack", overrides=["TEST.CHECKPOINT=nowhere/vittrack.onnx"])
    assert path == tmp_path / "pretrained_models" / "vittrack.onnx"
    with pytest.raises(UserError, match="no checkpoint at .*VitTrack_ep0003.pth.tar"):
        find_checkpoint("vittrack", "vittrack", epoch=3, save_dir=tmp_path)
    trained = checkpoint_path(load_config("vittrack", "vittrack"), save_dir=tmp_path)
    trained.parent.mkdir(parents=True)
    trained.with_name("VitTrack_ep0007.pth.tar").write_bytes(b"")
    with pytest.raises(UserError, match="that folder holds VitTrack_ep0007.pth.tar: choose one with --epoch"):
        find_checkpoint("vittrack", "vittrack", save_dir=tmp_path)
    trained.write_bytes(b"")
    assert find_checkpoint("vittrack", "vittrack", save_dir=tmp_path)[1] == trained, "what was trained comes first"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    backend = sys.argv[2] if len(sys.argv) > 2 else "onnxruntime"
    with TemporaryDirectory() as scratch:
        tracker = Tracker.from_export(write_manifest(folder, Path(scratch)), backend=backend, device="cpu")
    for name, stated in stated_scores(folder).items():
        auc, fps = measure(tracker, folder, name)
        verdict = "ok" if abs(auc - stated) <= TOLERANCE else "DIFFERS"
        print(f"{name:28s} stated {stated:.3f} measured {auc:.4f} {fps:6.1f} frames/s {verdict}", flush=True)
