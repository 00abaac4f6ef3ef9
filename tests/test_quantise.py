"""int8 from a user's frames."""

import numpy as np
import pytest
import trees
from tiny_models import steady_tracker, tiny

from lib.deploy.backends import ExportedModel
from lib.deploy.crops import crop_pairs
from lib.deploy.export import ExportOptions, compare, export_model
from lib.deploy.quantise import last_products
from lib.models.checkpoint import save_slim
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its configuration and its int8 export, ranges measured on generated videos."""
    work = tmp_path_factory.mktemp("int8")
    videos = trees.folder(work / "videos", frames=10)
    cfg = tiny("compresstracker", MODEL__BACKBONE__DISTILL_LAYER=2)
    model = steady_tracker(cfg)
    save_slim(work / "student.pth.tar", model, cfg)
    options = ExportOptions("onnx", precision="int8", take_pixels=True, frames=str(videos), calibration_crops=12)
    manifest = export_model(model, cfg, work / "student.pth.tar", work / "out", options)
    return model, cfg, work, manifest


def test_weights_of_the_search_part_are_int8(made):
    _, _, work, manifest = made
    values = {name: onnx.load(work / "out" / part.file).graph.initializer for name, part in manifest.parts.items()}
    kinds = {name: [value.data_type for value in held] for name, held in values.items()}
    products = 4 * 2 + 1 + 3 * 4            # linear layers of two layers, patches, convolutions of the head
    assert kinds["search"].count(onnx.TensorProto.INT8) >= products
    assert onnx.TensorProto.INT8 not in kinds["template"], "the template's part runs once per target"
    assert not any(value.data_type == onnx.TensorProto.FLOAT and np.prod(value.dims) >= 32 * 32
                   for value in values["search"]), "a matrix of weights stayed float32"


def test_the_predictions_stay_near(made):
    model, cfg, work, manifest = made
    assert manifest.precision == "int8"
    assert 1e-5 < manifest.largest_difference["score_map"] < 0.1
    pairs = crop_pairs(str(work / "videos"), 4, cfg)
    assert compare(model, ExportedModel(work / "out", "onnxruntime"), pairs, cfg)["size_map"] < 0.1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_tracks(made, backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed: pip install {backend}")
    tracker = Tracker.from_export(made[2] / "out", backend=backend, device="cpu")
    tracker.initialize(trees.picture(0), trees.box(0))
    result = tracker.track(trees.picture(1))
    expected = Tracker.from_model(made[0], made[1])
    expected.initialize(trees.picture(0), trees.box(0))
    assert result.score == pytest.approx(expected.track(trees.picture(1)).score, abs=0.05)


def test_the_last_products_are_found(made):
    graph = onnx.load(made[2] / "out" / "search.onnx").graph
    last = set(last_products(graph))
    shapes = {value.name: list(value.dims) for value in graph.initializer}
    weights = [shapes[node.input[1]] for node in graph.node if node.name in last]
    assert sorted(weights) == [[1, 2, 1, 1], [2, 2, 1, 1], [2, 2, 1, 1]], "the head's three 1x1 convolutions"


def test_ranges_need_frames(made, tmp_path):
    model, cfg, work, _ = made
    with pytest.raises(UserError, match="not found"):
        export_model(model, cfg, work / "student.pth.tar", tmp_path / "out",
                     ExportOptions("onnx", precision="int8", frames=str(tmp_path / "none")))
    assert list(tmp_path.iterdir()) == []
