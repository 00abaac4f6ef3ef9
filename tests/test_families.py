"""Every registered family goes through everything that a tracker can be asked for, and nothing else knows its name."""

import ast
import re

import numpy as np
import pytest
import torch
from tiny_models import copies, require_packages, same, scramble, steady_tracker, tiny_batch

from lib.config import SCRIPTS, load_config, schema_of
from lib.deploy.crops import crop_pairs, model_inputs
from lib.deploy.export import ExportOptions, export_model
from lib.deploy.fast import FastOptions, build_fast
from lib.deploy.profile import profile_config
from lib.families import FAMILIES
from lib.families.build import build_compressor, build_for_test, build_tracker
from lib.families.objective import search_frames
from lib.models.base import Inputs
from lib.models.checkpoint import load_weights, save_slim
from lib.models.compress.initialise import initialise_student
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.errors import UserError

SMALL = {"ostrack": ("vitb_256_mae_32x4_ep300", ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2",
                                                 "MODEL.BACKBONE.DEPTH=4", "MODEL.BACKBONE.IMG_SIZE=64"]),
         "vittrack": ("vittrack", []),
         "mixformerv2": ("mixformerv2_s", ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2",
                                           "MODEL.FEAT_SZ=24", "TRAIN.TRAIN_SCORE=false"]),
         "sutrack": ("sutrack_b224", ["MODEL.BACKBONE.TYPE=fastitpnt", "MODEL.BACKBONE.EMBED_DIM=32",
                                      "MODEL.BACKBONE.NUM_HEADS=2", "MODEL.BACKBONE.DEPTH=4",
                                      "MODEL.BACKBONE.DISTILL_LAYER=2"]),
         "seqtrack": ("seqtrack_b256", ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2",
                                        "MODEL.BACKBONE.DEPTH=4", "MODEL.BACKBONE.DISTILL_LAYER=2",
                                        "MODEL.HIDDEN_DIM=16", "MODEL.DECODER.NHEADS=2",
                                        "MODEL.DECODER.DIM_FEEDFORWARD=24", "MODEL.BINS=50"]),
         "odtrack": ("baseline", ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2",
                                  "MODEL.BACKBONE.DEPTH=4", "MODEL.BACKBONE.IMG_SIZE=64",
                                  "MODEL.BACKBONE.DISTILL_LAYER=2",
                                  "MODEL.BACKBONE.CE_LOC=[]", "MODEL.BACKBONE.CE_KEEP_RATIO=[]"])}
STUDENTS = {"ostrack": "compresstracker_vitb_256_2", "vittrack": "compresstracker_vittrack_2",
            "mixformerv2": "compresstracker_mixformerv2_s_4", "sutrack": "compresstracker_sutrack_b224_8",
            "seqtrack": "compresstracker_seqtrack_b256_4",
            "odtrack": "compresstracker_odtrack_384_4"}
CROPS = ["DATA.TEMPLATE.SIZE=32", "DATA.SEARCH.SIZE=64", "TEST.TEMPLATE_SIZE=32", "TEST.SEARCH_SIZE=64",
         "MODEL.HEAD.NUM_CHANNELS=16", "MODEL.PRETRAIN_FILE=''"]
EXEMPT = ("lib/quickstart/run.py", "lib/test/analysis/conventions.py", "lib/test/analysis/metrics.py")
"""What names experiments, and an evaluation rule that is called after a repository."""


def small(family: str, *more: str):
    config, overrides = SMALL[family]
    return load_config(family, config, [*overrides, *CROPS, *more])


def small_student(family: str, *more: str):
    return load_config("compresstracker", STUDENTS[family], [*SMALL[family][1], *CROPS, *more])


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


def batch_of(cfg) -> dict:
    """A training batch, with the names of its data sets."""
    return {**tiny_batch(cfg), "dataset": ["lasot", "coco"]}


def test_weights_are_saved_and_loaded(family, tmp_path):
    cfg = small(family)
    model = scramble(build_tracker(cfg))
    save_slim(tmp_path / "tracker.pth.tar", model, cfg)
    other = build_for_test(cfg)
    load_weights(other, tmp_path / "tracker.pth.tar")
    assert same(copies(model), copies(other))


def test_a_training_step(family):
    cfg = small(family)
    actor = build_actor(cfg, build_tracker(cfg))
    groups = actor.parameter_groups()
    learning = {id(p) for p in actor.module.parameters() if p.requires_grad}
    assert sorted(learning) == sorted(id(p) for group in groups for p in group["params"])
    loss, _ = actor(batch_of(cfg), 1, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for group in groups for p in group["params"])


def test_a_compression_step(family):
    cfg = small_student(family)
    net = build_compressor(cfg, load=False)
    assert (net.student.depth, net.teacher.depth) == (cfg.MODEL.BACKBONE.DISTILL_LAYER, cfg.shape.depth)
    net.eval()      # drop path may leave a layer out of a whole batch
    loss, terms = build_actor(cfg, net).loss_of(batch_of(cfg), [True] * net.student.depth, 1.0)
    loss.backward()
    assert {"Loss/dst_logit", "Loss/dst_feat_all"} <= terms.keys()
    assert all(p.grad.abs().sum() > 0 for layer in net.student.layers for p in layer.parameters())


def test_a_student_of_another_resolution(family, tmp_path):
    """It eliminates candidates, too, where the family's models can."""
    more = ["STUDENT.MODEL.BACKBONE.CE_LOC=[0]", "STUDENT.MODEL.BACKBONE.CE_KEEP_RATIO=[0.5]",
            "TRAIN.CE_START_EPOCH=0"] if "STUDENT.MODEL.BACKBONE.CE_LOC" in schema_of(family) else []
    cfg = small_student(family, "STUDENT.DATA.SEARCH.SIZE=96", *more)
    net = build_compressor(cfg, load=False).eval()
    depth = net.student.depth
    batch = batch_of(cfg)
    frame = search_frames(batch)[0]
    inputs = Inputs.of(frame["template"], frame["search"], cfg.family.objective(cfg).further(batch, 1))
    initialise_student(net.student, net.teacher, sources=range(depth), frames=lambda: [inputs])
    build_actor(cfg, net).loss_of(batch, [True, False] * (depth // 2), 0.5)[0].backward()
    for name, kinds in net.student.position_names.items():
        assert "search" not in kinds or net.student.get_parameter(name).grad.abs().sum() > 0
    save_slim(tmp_path / "student.pth.tar", net.student, cfg)
    assert Tracker.from_checkpoint(tmp_path / "student.pth.tar", cfg, device="cpu").search_size == 96


@pytest.mark.parametrize("take_pixels", [False, True])
def test_the_fast_module_is_the_model(family, take_pixels):
    cfg = small(family)
    model = scramble(build_for_test(cfg)).eval()
    fast = build_fast(model, FastOptions(peak_only=False, take_pixels=take_pixels), mean=cfg.DATA.MEAN,
                      std=cfg.DATA.STD)
    pair, = crop_pairs(None, 1, cfg)
    with torch.inference_mode():
        expected = model(*model_inputs(pair, cfg, False))
        templates, *others = model_inputs(pair, cfg, take_pixels)
        found = fast(fast.prepare(templates), *others)
    assert found.tensors().keys() == expected.tensors().keys()
    for name, values in found.tensors().items():
        torch.testing.assert_close(values, expected.tensors()[name], atol=1e-4, rtol=0)


def test_it_tracks_and_is_profiled(family):
    cfg = small(family)
    tracker = Tracker.from_model(steady_tracker(cfg), cfg)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    tracker.initialize(image, [60, 50, 20, 20])
    alone = [tracker.track(image).box_xywh for _ in range(3)]
    targets = [tracker.start(image, [60, 50, 20, 20]) for _ in range(2)]
    for box in alone:
        for result in tracker.step([image, image], targets):
            np.testing.assert_allclose(result.box_xywh, box, atol=1e-3)
    student = small_student(family)
    report = profile_config(student, device="cpu", threads=1, iterations=1, warmup=0)
    depths = [student.MODEL.BACKBONE.DISTILL_LAYER, student.shape.depth]
    assert [model["layers"] for model in report["models"]] == depths


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "torchscript"])
def test_its_export_is_the_model(family, form, tmp_path):
    require_packages(form)
    cfg = small(family)
    model, checkpoint = steady_tracker(cfg), tmp_path / "tracker.pth.tar"
    save_slim(checkpoint, model, cfg)
    manifest = export_model(model, cfg, checkpoint, tmp_path / form, ExportOptions(format=form))
    assert "boxes" in manifest.largest_difference and max(manifest.largest_difference.values()) < 1e-4
    assert Tracker.from_export(tmp_path / form).search_size == 64


def test_a_family_has_its_own_keys(family):
    assert small(family).MODEL.FAMILY == family == small(family).family.name
    assert schema_of(family)["MODEL.FAMILY"].default == family
    for other in set(SCRIPTS) - {family, "compresstracker"}:
        with pytest.raises(UserError, match=f"MODEL.FAMILY is {other}, but script {family} trains {family}"):
            small(family, f"MODEL.FAMILY={other}")
    with pytest.raises(UserError, match="MODEL.FAMILY is the text 'siamese'; expected one of"):
        small(family, "MODEL.FAMILY=siamese")


def test_nothing_else_knows_a_family(root):
    """No family in the code outside its folder: no import, identifier or text that is its name. The registry's list is
    the one place."""
    names = "|".join(FAMILIES)
    known = []
    for path in [*(root / "lib").rglob("*.py"), *(root / "tracking").glob("*.py")]:
        place = path.relative_to(root).as_posix()
        if place.startswith(tuple(f"lib/families/{name}/" for name in FAMILIES)) or place in EXEMPT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
            if isinstance(node, ast.Constant):
                found = any(re.fullmatch(names, word, flags=re.IGNORECASE) for word in words)
            else:
                found = any(re.search(names, word, flags=re.IGNORECASE) for word in words)
            if found:
                known.append(f"{place}:{getattr(node, 'lineno', '?')}: {words}")
    assert all(line.startswith("lib/families/__init__.py") for line in known), known
