"""int8 from a user's frames."""

import numpy as np
import pytest
import torch
import trees

from lib.deploy import export as export_module
from lib.deploy.backends import ExportedModel, session_options
from lib.deploy.crops import crop_pairs, model_inputs
from lib.deploy.export import compare, export_model
from lib.deploy.formats import ExportOptions
from lib.deploy.quantise import Activation, last_products, quantise_onnx
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install onnxscript")


@pytest.fixture
def made(student, exported):
    """A model, its configuration and its int8 export, ranges measured on generated videos: folder and manifest."""
    return student.model, student.cfg, *exported("onnx", precision="int8", take_pixels=True, calibration_crops=12)


def test_weights_of_the_search_part_are_int8(made):
    _, _, folder, manifest = made
    values = {name: onnx.load(folder / part.file).graph.initializer for name, part in manifest.parts.items()}
    kinds = {name: [value.data_type for value in held] for name, held in values.items()}
    products = 4 * 2 + 1 + 3 * 4            # linear layers of two layers, patches, convolutions of the head
    assert kinds["search"].count(onnx.TensorProto.INT8) >= products
    assert onnx.TensorProto.INT8 not in kinds["template"], "the template's part runs once per target"
    assert not any(value.data_type == onnx.TensorProto.FLOAT and np.prod(value.dims) >= 32 * 32
                   for value in values["search"]), "a matrix of weights stayed float32"


def test_only_inputs_of_products_are_quantised(made):
    graph = onnx.load(made[2] / "search.onnx").graph
    readers = {name: [node.op_type for node in graph.node if name in node.input]
               for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert all(kinds and set(kinds) <= {"MatMul", "Conv"} for kinds in readers.values())
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 4 * 2 + 1 + 4 + 4


def test_the_embedding_is_int8_only_where_it_reads_bytes(student, made, tmp_path):
    model, cfg = student.model, student.cfg
    export_model(model, cfg, student.checkpoint, tmp_path / "out",
                 ExportOptions("onnx", precision="int8", frames=str(student.videos), calibration_crops=4))

    def embedding_inputs(folder):
        graph = onnx.load(folder / "search.onnx").graph
        constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
        makers = {name: node for node in graph.node for name in node.output}
        convolution = next(node for node in graph.node if node.op_type == "Conv")
        return [makers.get(name) for name in convolution.input[:2]], constants

    (pixels, _), constants = embedding_inputs(made[2])
    assert pixels.op_type == "DequantizeLinear" and [constants[name] for name in pixels.input[1:]] == [1, 0]
    (pixels, weights), _ = embedding_inputs(tmp_path / "out")
    assert pixels is None and weights is None, "the normalised crop and the weights as they were"


def test_linear_layers_become_integer_kernels(made, tmp_path):
    """ONNX Runtime must not put a layer back together in float32."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    onnxruntime.InferenceSession(str(made[2] / "search.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 4 * 2 and "Gemm" not in kinds


def test_the_predictions_stay_near(student, made):
    model, cfg, folder, manifest = made
    assert manifest.precision == "int8"
    assert 1e-5 < manifest.largest_difference["score_map"] < 0.05
    pairs = crop_pairs(str(student.videos), 4, cfg)
    assert compare(model, ExportedModel(folder, "onnxruntime"), pairs, cfg)["boxes"] < 0.02


def product(tmp_path, weights, values, symmetric=False):
    """The outputs of a linear layer with bias 1 in int8, its range measured on the values (1, N, C) themselves."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(*parts) for parts in (
        ("Abs", ["x"], ["a"]), ("MatMul", ["a", "w"], ["y"], "product"), ("Add", ["y", "b"], ["z"]),
        ("MatMul", ["z", "v"], ["out"], "last"))]
    constants = {"w": weights, "b": np.ones(weights.shape[1]), "v": np.eye(weights.shape[1])}
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", kind, values.shape)],
        [helper.make_tensor_value_info("out", kind, [*values.shape[:2], weights.shape[1]])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "a.onnx")
    quantise_onnx(tmp_path / "a.onnx", tmp_path / "b.onnx", [{"x": values}], symmetric)
    session = onnxruntime.InferenceSession(str(tmp_path / "b.onnx"), session_options(onnxruntime),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_product(tmp_path, symmetric):
    generator = np.random.default_rng(0)
    weights, values = generator.normal(size=(48, 5)), generator.exponential(size=(1, 400, 48)).astype(np.float32)
    exact = values @ weights + 1
    error = np.abs(product(tmp_path, weights, values, symmetric) - exact)
    assert 1e-4 < error.mean() < 0.02 * exact.std()


def test_large_numbers_do_not_overflow(tmp_path):
    """As they do by ONNX Runtime's own choice on CPUs without VNNI: two products of bytes exceed 16 bits."""
    generator = np.random.default_rng(0)
    weights, values = generator.uniform(1, 1.1, (768, 64)), generator.uniform(5, 6, (1, 400, 768)).astype(np.float32)
    np.testing.assert_allclose(product(tmp_path, weights, values), values @ weights + 1, rtol=0.01)


def test_rounded_weights_leave_the_mean(tmp_path):
    """Values of one sign: what rounding took from the weights would add up to an error of the mean."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(48, 5))
    values = generator.uniform(200, 255, (1, 400, 48)).round().astype(np.float32)
    scale = np.abs(weights).max(0) / 127
    moved = np.abs(values.mean((0, 1)) @ (np.rint(weights / scale) * scale - weights))
    error = np.abs((product(tmp_path, weights, values) - values @ weights - 1).mean((0, 1)))
    assert moved.min() > 0.05 and (error < 0.05 * moved).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_what_lost_weights_do_to_a_convolution(groups):
    generator = np.random.default_rng(0)
    weights, values = generator.normal(size=(6, 9 // groups, 3, 3)), generator.normal(size=(1, 9, 1, 1))
    seen = Activation()
    seen.add(values, channel=1)
    image = torch.from_numpy(values.astype(np.float32)).expand(-1, -1, 3, 3)
    expected = torch.nn.functional.conv2d(image, torch.from_numpy(weights).float(), groups=groups).flatten()
    np.testing.assert_allclose(seen.lost(weights, 0), expected, rtol=1e-4, atol=1e-5)


def test_ranges():
    seen = Activation()
    for values in ([[1.5, -0.5]], [[0.25, 4.0]]):
        seen.add(np.array(values, np.float16), channel=1)
    scale, zero = seen.quantisation(symmetric=False)
    assert scale == 4.5 / 255 and zero == 28
    assert seen.quantisation(symmetric=True) == (4 / 127, 0)
    assert seen.total.tolist() == [1.75, 3.5] and seen.number == 2
    pixels = Activation()
    pixels.add(np.array([[3.0, 250.0]]), channel=1)
    assert pixels.quantisation(symmetric=False) == (1, 0), "bytes stay as they are"
    assert pixels.quantisation(symmetric=True) == (250 / 127, 0)
    nothing = Activation()
    nothing.add(np.zeros((1, 2)), channel=1)
    assert nothing.quantisation(symmetric=True)[0] > 0


def test_the_graph_for_tensorrt(student, monkeypatch, tmp_path):
    """Symmetric, the rest in float16; computed by ONNX Runtime here."""
    model, cfg = student.model, student.cfg
    monkeypatch.setattr(export_module, "_require_tensorrt", lambda parts, precision: None)
    monkeypatch.setattr(export_module, "_write_tensorrt", lambda onnx, path, part: onnx.replace(path))
    pair = crop_pairs(str(student.videos), 1, cfg)[0]
    options = ExportOptions("tensorrt", precision="int8", take_pixels=True, frames=str(student.videos),
                            calibration_crops=12)
    parts = export_module._write_parts(model, cfg, tmp_path, options, pair)
    graph = onnx.load(tmp_path / parts["search"].file).graph
    constants = {value.name: value for value in graph.initializer}
    rules = [[constants[name] for name in node.input[1:]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(rules) == 4 * 2 + 4 + 4, "inputs of linear layers and convolutions; not the pixels"
    for scale, zero in rules:
        assert scale.data_type == onnx.TensorProto.FLOAT16
        assert zero.data_type == onnx.TensorProto.INT8 and onnx.numpy_helper.to_array(zero) == 0
    assert onnx.TensorProto.FLOAT not in {value.data_type for value in graph.initializer if np.prod(value.dims) > 64}
    plain = onnxruntime.SessionOptions()            # its optimisations spoil float16 graphs with int8
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    run = {name: onnxruntime.InferenceSession(str(tmp_path / part.file), plain, providers=["CPUExecutionProvider"])
           for name, part in parts.items()}
    template, search = (crop.numpy() for crop in model_inputs(pair, cfg, True)[:2])
    tokens = run["template"].run(None, {"template": template})[0]
    window = np.ones((4, 4), np.float32)
    found = run["search"].run(["score_map", "boxes"], {"tokens": tokens, "search": search, "window": window})
    expected = model(*model_inputs(pair, cfg, False))
    for name, value in zip(("score_map", "boxes"), found, strict=True):
        difference = np.abs(value - getattr(expected, name).detach().numpy())
        assert 1e-6 < difference.max() < 0.03


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_tracks(made, backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed: pip install {backend}")
    tracker = Tracker.from_export(made[2], backend=backend, device="cpu")
    tracker.initialize(trees.picture(0), trees.box(0))
    result = tracker.track(trees.picture(1))
    expected = Tracker.from_model(made[0], made[1])
    expected.initialize(trees.picture(0), trees.box(0))
    assert result.score == pytest.approx(expected.track(trees.picture(1)).score, abs=0.05)


def test_the_last_products_are_found(made):
    graph = onnx.load(made[2] / "search.onnx").graph
    last = set(last_products(graph))
    shapes = {value.name: list(value.dims) for value in graph.initializer}
    weights = [shapes[node.input[1]] for node in graph.node if node.name in last]
    assert sorted(weights) == [[1, 2, 1, 1], [4, 2, 1, 1]], "the head's 1x1 convolutions"


def test_ranges_need_frames(student, tmp_path):
    model, cfg = student.model, student.cfg
    with pytest.raises(UserError, match="not found"):
        export_model(model, cfg, student.checkpoint, tmp_path / "out",
                     ExportOptions("onnx", precision="int8", frames=str(tmp_path / "none")))
    assert list(tmp_path.iterdir()) == []
