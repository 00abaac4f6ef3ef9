"""Every format that can be written here computes what the model computes; the folder says what is in it."""

import importlib.util
import json
import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import trees
from tiny_models import require_packages, scramble, steady_tracker, tiny

from lib.deploy import export as export_module
from lib.deploy.backends import ExportedModel
from lib.deploy.crops import crop_pairs, model_inputs
from lib.deploy.export import compare, export_model
from lib.deploy.formats import PRECISIONS, ExportOptions
from lib.deploy.manifest import Manifest
from lib.families.build import build_for_test
from lib.models.checkpoint import save_slim
from lib.test.tracker import Tracker
from lib.utils.errors import UserError
from lib.utils.ownership import own

CE = {"MODEL__BACKBONE__DEPTH": 3, "MODEL__BACKBONE__CE_LOC": "[1]", "MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7]"}


@pytest.fixture
def cfg(student):
    return student.cfg


@pytest.fixture
def trained(student):
    """A model and the file with its weights."""
    return student.model, student.checkpoint


@pytest.fixture
def videos(student):
    return student.videos


ONNX = [{}, {"joint": True, "batch": 0, "take_pixels": True}, {"joint": True, "maps": True}]


@pytest.mark.parametrize(("format", "options"), [
    *(("onnx", options) for options in ONNX), ("openvino", {"joint": True, "take_pixels": True}),
    ("torchscript", {"batch": 0}), ("torchscript", {"joint": True, "batch": 3, "maps": True}),
    ("torchexport", {"batch": 0, "take_pixels": True, "maps": True})])
def test_float32(exported, cfg, videos, format, options):
    folder, manifest = exported(format, **options)
    maps = {"size_map", "offset_map"} if options.get("maps") else set()
    assert set(manifest.largest_difference) == {"boxes", "score_map"} | maps
    assert max(manifest.largest_difference.values()) < 1e-4
    assert Manifest.read(folder) == manifest
    batch = options.get("batch", 1) or "batch"
    assert manifest.batch == batch and manifest.checked_on == str(videos)
    main = manifest.parts[manifest.main]
    assert main.inputs["window"].shape == (4, 4)
    assert set(manifest.parts) == ({"tracker"} if options.get("joint") else {"template", "search"})
    pixels = options.get("take_pixels", False)
    assert main.inputs["search"].shape == ((batch, 64, 64, 3) if pixels else (batch, 3, 64, 64))
    assert main.inputs["search"].dtype == ("uint8" if pixels else "float32")
    files = {path.name for path in folder.iterdir() if path.suffix != ".bin"}
    assert files == {"manifest.json", *(part.file for part in manifest.parts.values())}
    if batch == "batch":
        runnable = ExportedModel(folder)
        for number in (1, 4):
            pair = next(export_module._batches(crop_pairs(None, number, cfg), number))
            template, search, _ = model_inputs(pair, cfg, pixels)
            assert len(runnable(runnable.prepare(template), search).boxes) == number


@pytest.mark.parametrize(("format", "precision"), [
    ("onnx", "float16"), pytest.param("openvino", "bfloat16", marks=pytest.mark.slow), ("torchscript", "bfloat16")])
def test_lower_precision(trained, cfg, tmp_path, format, precision):
    require_packages(format)
    manifest = export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions(format=format, precision=precision,
                                                                                    joint=True))
    assert manifest.precision == precision
    assert max(manifest.largest_difference.values()) < 0.1


def _order(trained, cfg):
    return trained[0], cfg, trained[1]


@pytest.mark.parametrize(("format", "joint", "maps"), [("onnx", True, False), ("torchexport", False, True)])
def test_candidate_elimination(tmp_path, format, joint, maps):
    require_packages(format)
    cfg = tiny("ce", **CE, MODEL__BACKBONE__CE_TEMPLATE_RANGE="GT_BOX")
    model = scramble(build_for_test(cfg)).eval()
    save_slim(tmp_path / "ce.pth.tar", model, cfg)
    manifest = export_model(model, cfg, tmp_path / "ce.pth.tar", tmp_path / "out",
                            ExportOptions(format=format, joint=joint, maps=maps))
    assert manifest.rules == {"ce_range": "GT_BOX", "stride": 16}
    assert manifest.parts[manifest.main].inputs["template_mask"].dtype == "bool"
    assert manifest.largest_difference["score_map"] < 1e-4


@pytest.mark.parametrize("format", ["torchscript", "onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_head_without_maps(tmp_path, format):
    require_packages(format)
    cfg = tiny(MODEL__HEAD__TYPE="CORNER", MODEL__NUM_CHANNELS=16, MODEL__BACKBONE__DEPTH=2)
    model = scramble(build_for_test(cfg)).eval()
    save_slim(tmp_path / "corner.pth.tar", model, cfg)
    manifest = export_model(model, cfg, tmp_path / "corner.pth.tar", tmp_path / "out",
                            ExportOptions(format, joint=True, batch=2))
    assert list(manifest.parts["tracker"].outputs) == ["boxes"] == list(manifest.largest_difference)
    assert manifest.largest_difference["boxes"] < 1e-4


def test_manifest_names_the_weights_and_the_rules(trained, cfg, exported):
    import hashlib

    folder, manifest = exported("torchscript")
    digest = hashlib.sha256(trained[1].read_bytes()).hexdigest()
    assert manifest.checkpoint == {"file": "student.pth.tar", "sha256": digest}
    assert (manifest.template_size, manifest.search_size, manifest.stride) == (32, 64, 16)
    assert (manifest.template_factor, manifest.search_factor) == (cfg.TEST.TEMPLATE_FACTOR, cfg.TEST.SEARCH_FACTOR)
    assert manifest.mean == tuple(json.loads((folder / "manifest.json").read_text())["mean"])
    assert manifest.libraries["torch"] == torch.__version__.split("+")[0]


def test_a_tracker_without_window(tmp_path):
    cfg = tiny("compresstracker", MODEL__BACKBONE__DISTILL_LAYER=2, TEST__WINDOW="false")
    model = steady_tracker(cfg)
    save_slim(tmp_path / "student.pth.tar", model, cfg)
    manifest = export_model(model, cfg, tmp_path / "student.pth.tar", tmp_path / "out", ExportOptions("torchscript"))
    assert manifest.window is False and "window" in manifest.parts["search"].inputs
    tracks = []
    for tracker in (Tracker.from_model(model, cfg), Tracker.from_export(tmp_path / "out", device="cpu")):
        tracker.initialize(trees.picture(0), trees.box(0))
        tracks.append([tracker.track(trees.picture(i)).box_xywh for i in range(1, 5)])
    np.testing.assert_allclose(tracks[1], tracks[0], rtol=0, atol=1e-2)


def test_numbers_that_are_none_are_seen(trained, cfg, tmp_path, monkeypatch):
    """Also where crops without a difference come after them."""
    original, calls = ExportedModel.__call__, []

    def sometimes(self, *inputs, **more):
        calls.append(1)
        found = original(self, *inputs, **more)
        return found._replace(boxes=found.boxes * torch.nan) if len(calls) == 1 else found

    monkeypatch.setattr(ExportedModel, "__call__", sometimes)
    with pytest.raises(RuntimeError, match="differs from the PyTorch model"):
        export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions("torchscript"))
    assert len(calls) > 1


def test_a_wrong_graph_is_not_kept(trained, cfg, tmp_path, monkeypatch):
    model, checkpoint = trained
    original = export_module.build_fast

    def other(model, options, **rest):
        fast = original(model, options, **rest)
        fast.norm.weight.mul_(1.5)
        return fast

    monkeypatch.setattr(export_module, "build_fast", other)
    with pytest.raises(RuntimeError, match="differs from the PyTorch model"):
        export_model(model, cfg, checkpoint, tmp_path / "out", ExportOptions("torchscript"))
    assert list(tmp_path.iterdir()) == []


def test_compare_sees_other_weights(cfg, exported):
    other = scramble(build_for_test(cfg), seed=3).eval()
    assert compare(other, ExportedModel(exported("torchscript")[0]), crop_pairs(None, 2, cfg), cfg)["boxes"] > 1e-3


def test_a_doubtful_export_is_told_of(trained, cfg, tmp_path, monkeypatch, caplog):
    """Lower precision is allowed to differ, but not silently by much."""
    monkeypatch.setattr(export_module, "SUSPICIOUS", 1e-9)
    export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions("torchscript", "bfloat16"))
    assert "differs much from the PyTorch model" in caplog.text


def test_only_an_export_is_replaced(trained, cfg, tmp_path):
    options = ExportOptions("torchscript")
    target = tmp_path / "out"
    target.mkdir()
    export_model(*_order(trained, cfg), target, options)
    (target / "mine.txt").write_text("of an older export")
    export_model(*_order(trained, cfg), target, replace(options, joint=True))
    assert {path.name for path in target.iterdir()} == {"manifest.json", "tracker.pt"}
    (target / "manifest.json").unlink()
    with pytest.raises(UserError, match="holds something else"):
        export_model(*_order(trained, cfg), target, options)
    assert (target / "tracker.pt").is_file() and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_exports_to_one_folder(trained, cfg, tmp_path):
    with own(tmp_path / ".out.export"), pytest.raises(UserError, match="is being written"):
        export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions("torchscript"))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("wrong", "message"), [
    ({"format": "caffe"}, "format is 'caffe'; choose one of onnx"),
    ({"format": "onnx", "precision": "bfloat16"}, "bfloat16 cannot be written as onnx; choose one of float32"),
    ({"batch": -1}, "batch is -1"), ({"precision": "int8"}, "--frames")])
def test_wrong_options(wrong, message):
    with pytest.raises(UserError, match=message):
        ExportOptions(**wrong)


@pytest.mark.parametrize(("package", "format"), [("onnxscript", "onnx"), ("openvino", "openvino")])
def test_a_missing_package_is_named(trained, cfg, tmp_path, monkeypatch, package, format):
    require_packages(format)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"pip install .*{package}"):
        export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions(format))
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_says_the_command(trained, cfg, tmp_path, monkeypatch, videos):
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions("tensorrt", batch=0))
    assert ("trtexec --onnx=search.onnx --saveEngine=search.engine --stronglyTyped --noTF32 "
            "--minShapes=tokens:1x4x128,search:1x3x64x64 ") in str(caught.value)
    assert "trtexec --onnx=template.onnx" in str(caught.value)
    with pytest.raises(UserError) as caught:
        export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions("tensorrt", joint=True))
    assert "--onnx=tracker.onnx" in str(caught.value) and "Shapes" not in str(caught.value)
    with pytest.raises(UserError, match="needs the package tensorrt.*not symmetric"):
        export_model(*_order(trained, cfg), tmp_path / "out", ExportOptions("tensorrt", precision="int8",
                                                                             frames=str(videos)))


# ---------------------------------------------------------------- crops

def test_crops_come_from_all_sequences(cfg, videos):
    pairs = crop_pairs(str(videos), 7, cfg)
    assert len(pairs) == 7
    assert all(pair.template.shape == (1, 32, 32, 3) and pair.search.shape == (1, 64, 64, 3) for pair in pairs)
    assert not all(torch.equal(pair.search, pairs[0].search) for pair in pairs[1:])
    area = pairs[0].box[0, 2:].prod().item()
    assert area == pytest.approx(1 / cfg.TEST.TEMPLATE_FACTOR**2, rel=0.1)


def test_a_crop_is_what_the_tracker_sees(trained, cfg, videos):
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, template, search):
            seen.append((template, search))
            return trained[0](template, search)

    tracker = Tracker.from_model(Watched(), cfg)
    frame = trees.picture(0)
    tracker.initialize(frame, trees.box(0))
    pair = crop_pairs(str(videos), 3, cfg)[0]
    tracker.track(trees.picture(1))
    template, search, _ = model_inputs(pair, cfg, False)
    assert torch.equal(seen[0][0], template) and torch.equal(seen[0][1], search)


def test_crops_that_cannot_be(cfg, tmp_path):
    with pytest.raises(UserError, match="0 crops"):
        crop_pairs(None, 0, cfg)
    with pytest.raises(UserError, match="not found"):
        crop_pairs(str(tmp_path / "none"), 3, cfg)
    trees.write_picture(tmp_path / "one" / "0.png", 0)
    trees.write_boxes(tmp_path / "one" / "groundtruth.txt", 1)
    with pytest.raises(UserError, match="two frames"):
        crop_pairs(str(tmp_path), 3, cfg)


# ---------------------------------------------------------------- the script and the client

@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("export_script", root / "tracking" / "export_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(checkpoint, cfg, *more):
    overrides = ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2", "MODEL.HEAD.NUM_CHANNELS=16",
                 "MODEL.BACKBONE.IMG_SIZE=64", "MODEL.BACKBONE.DISTILL_LAYER=2", "DATA.TEMPLATE.SIZE=32",
                 "DATA.SEARCH.SIZE=64", "TEST.TEMPLATE_SIZE=32", "TEST.SEARCH_SIZE=64"]
    return ["--script", "compresstracker", "--config", "compresstracker_vitb_256_4", "--checkpoint", str(checkpoint),
            *[part for item in overrides for part in ("--set", item)], *more]


def test_script(script, trained, cfg, tmp_path, videos, caplog):
    with caplog.at_level(logging.INFO):
        script.main(arguments(trained[1], cfg, "--format", "torchscript", "--save_dir", str(tmp_path), "--frames",
                              str(videos), "--checks", "3"))
    assert f"largest difference from PyTorch on crops of {videos}: boxes" in caplog.text
    folder = tmp_path / "exports" / "compresstracker" / "compresstracker_vitb_256_4" / "torchscript_float32"
    assert (folder / "search.pt").is_file()
    with pytest.raises(SystemExit):
        script.parse(["--script", "ostrack", "--config", "x", "--format", "caffe"])
    script.main(arguments(trained[1], cfg, "--format", "torchscript", "--maps", "--output", str(tmp_path / "maps")))
    assert list(Manifest.read(tmp_path / "maps").parts["search"].outputs) == [
        "boxes", "score_map", "size_map", "offset_map"]
    assert set(PRECISIONS) == {"onnx", "openvino", "torchscript", "torchexport", "tensorrt"}


@pytest.fixture(scope="module")
def client(root):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    spec = importlib.util.spec_from_file_location("track_onnx", root / "docs" / "track_onnx.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("folder", "box", "message"), [
    (None, "20 15 24 18", "manifest.json not found"), ({}, "20 15 0 18", "has no area in a frame of"),
    ({}, "5000 15 24 18", "has no area in a frame of")])
def test_the_reference_client_names_wrong_input(client, exported, tmp_path, folder, box, message):
    trees.write_picture(tmp_path / "frames" / "0.png", 0)
    export = tmp_path if folder is None else exported("onnx", **folder)[0]
    with pytest.raises(SystemExit, match=message):
        client.main([str(export), str(tmp_path / "frames"), *box.split(), "--output", str(tmp_path / "boxes.txt")])
    assert not (tmp_path / "boxes.txt").exists()


@pytest.mark.parametrize("options", ONNX)
def test_the_reference_client_tracks_the_same_boxes(client, exported, trained, cfg, tmp_path, options):
    folder, _ = exported("onnx", **options)
    frames = [trees.picture(i) for i in range(8)]
    for i in range(8):
        trees.write_picture(tmp_path / "frames" / f"{i:03d}.png", i)
    client.main([str(folder), str(tmp_path / "frames"), "20", "15", "24", "18", "--output",
                 str(tmp_path / "boxes.txt")])
    found = np.loadtxt(tmp_path / "boxes.txt", delimiter=",")
    tracker = Tracker.from_model(trained[0], cfg)
    tracker.initialize(frames[0], [20, 15, 24, 18])
    expected = np.array([[20, 15, 24, 18]] + [tracker.track(frame).box_xywh for frame in frames[1:]])
    assert np.ptp(expected, axis=0).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1)


def test_the_reference_client_needs_three_packages_only(root):
    source = (root / "docs" / "track_onnx.py").read_text()
    imported = {line.split()[1].partition(".")[0] for line in source.splitlines()
                if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"cv2", "numpy", "onnxruntime"}
