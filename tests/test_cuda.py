"""What only a CUDA GPU can show: everything that is computed there, beside the CPU's numbers."""

import re
import warnings

import numpy as np
import pytest
import torch
import trees
from square_runs import become_rank, free_port
from test_device_crop import PLACES, film, noise, squares_in, track
from test_distributed_equality import arbitrary
from test_gpu_loader import levels
from test_processing import batches, configuration
from tiny_models import scramble, steady_tracker, tiny, tiny_batch
from training_fakes import fit, noise_config

from lib.deploy.backends import ExportedModel
from lib.deploy.crops import crop_pairs
from lib.deploy.cuda_graph import GraphReplay, padded_batch
from lib.deploy.energy import joules_per_call
from lib.deploy.export import TOLERANCE, ExportOptions, compare, export_model
from lib.deploy.fast import FastOptions, build_fast
from lib.families.build import build_for_test
from lib.models.checkpoint import save_slim
from lib.models.layers.elimination import template_mask
from lib.test.tracker import Tracker
from lib.train.data import build_loader
from lib.utils.crop import cut_square, normalize
from lib.utils.device import choose_dtype, full_float32
from lib.utils.device_crop import cut_on_device
from lib.utils.window import hann_window

if not torch.cuda.is_available():
    pytest.skip("no CUDA GPU, or hidden from a run of all tests: what only one can show is untested; with a GPU: "
                "bash install.sh --test -- tests/test_cuda.py", allow_module_level=True)

CUDA = torch.device("cuda")
CE = {"MODEL__BACKBONE__DEPTH": 4, "MODEL__BACKBONE__CE_LOC": "[1, 3]", "MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7, 0.5]",
      "MODEL__BACKBONE__CE_TEMPLATE_RANGE": "GT_BOX", "DATA__SEARCH__SIZE": 128}
NO_NORM = {"COMPRESS__HEAD_INIT": "teacher_frozen"}


def half_types():
    """Number formats of 16 bits that the GPU has."""
    return ["float16"] if choose_dtype("auto", CUDA, "") == "float16" else ["bfloat16", "float16"]


# ---------------------------------------------------------------- training

@pytest.mark.parametrize("kind, more", [("ostrack", {}), ("compresstracker", {}),
                                        ("compresstracker", NO_NORM | {"TRAIN__ACCUMULATE": 2})])
def test_a_training_is_that_of_the_cpu(monkeypatch, tmp_path, kind, more):
    with full_float32():
        (_, cpu), (_, cuda) = (fit(monkeypatch, tmp_path / device, noise_config(kind, TRAIN__DEVICE=device, **more))
                               for device in ("cpu", "cuda"))
    assert cuda[:len(cuda) // 6] == pytest.approx(cpu[:len(cpu) // 6], rel=1e-4)      # the first step
    assert cuda == pytest.approx(cpu, rel=1e-2) and cuda != cpu


def test_mixed_precision_is_near(monkeypatch, tmp_path):
    def losses(name, **more):
        cfg = noise_config(TRAIN__DEVICE="cuda", TRAIN__EPOCH=1, **NO_NORM, **more)
        return fit(monkeypatch, tmp_path / name, cfg)[1]

    plain = losses("plain")
    amp = {name: losses(name, TRAIN__AMP="true", TRAIN__AMP_DTYPE=name) for name in half_types()}
    for name, found in amp.items():
        assert found != plain and found == pytest.approx(plain, rel={"bfloat16": 0.05, "float16": 0.01}[name])
    assert losses("auto", TRAIN__AMP="true") == pytest.approx(amp[half_types()[0]], rel=1e-3)


def test_the_memory_is_that_of_one_pass(monkeypatch, tmp_path):
    peaks = []
    for passes in (1, 8):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fit(monkeypatch, tmp_path / str(passes), noise_config(
            TRAIN__DEVICE="cuda", TRAIN__EPOCH=1, TRAIN__TOTAL_BATCH=16 * passes, TRAIN__ACCUMULATE=passes,
            DATA__TRAIN__SAMPLE_PER_EPOCH=32 * passes, **NO_NORM))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.1 * peaks[0]


def train_part(rank, port, folder, cfg):
    """Train as process `rank` of two, each on its GPU."""
    become_rank(rank, port)
    with full_float32():
        torch.save(fit(pytest.MonkeyPatch(), folder, cfg), folder.parent / f"{rank}.pt")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA GPUs: NCCL is untested")
@pytest.mark.parametrize("kind, more", [("ostrack", {"TRAIN__SYNC_BN": "true"}),
                                        ("compresstracker", NO_NORM | {"TRAIN__ACCUMULATE": 2})])
def test_two_gpus_train_as_one(monkeypatch, tmp_path, kind, more):
    cfg = noise_config(kind, TRAIN__DEVICE="cuda", **more)
    torch.multiprocessing.spawn(train_part, (free_port(), tmp_path / "two", cfg), nprocs=2)
    (weights, first), (_, second) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    with full_float32():
        alone, losses = fit(monkeypatch, tmp_path / "one", cfg.with_overrides({"TRAIN.ACCUMULATE": 1}))
    assert np.reshape([first, second], (2, 6, -1)).mean((0, 2)) == pytest.approx(losses, rel=1e-3)
    for name, value in alone.items():
        if not arbitrary(name):
            assert (weights[name] - value).float().abs().mean() < 1e-4, name


# ---------------------------------------------------------------- the fast module

def crops_of(cfg, batch, seed=0):
    """uint8 crops (B, H, W, 3), and the same normalised."""
    generator = torch.Generator().manual_seed(seed)
    raw = [torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
           for side in (cfg.DATA.TEMPLATE.SIZE, cfg.DATA.SEARCH.SIZE)]
    return raw, [normalize(crop.numpy(), cfg.DATA.MEAN, cfg.DATA.STD) for crop in raw]


@pytest.mark.parametrize("kind", ["compresstracker", "ce"])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_fast_module_on_the_gpu_is_the_model_on_the_cpu(kind, batch):
    cfg = tiny(kind, **(CE if kind == "ce" else {}))
    model = steady_tracker(cfg)
    raw, normalised = crops_of(cfg, batch)
    mask = template_mask("GT_BOX", 2, tiny_batch(cfg, batch)["template_box"]) if kind == "ce" else None
    formats = {"float32": 1e-4} | ({} if kind == "ce" else dict.fromkeys(half_types(), 0.1))
    with torch.inference_mode(), full_float32():
        expected = model(*normalised, {} if mask is None else {"template_mask": mask})
        for dtype, tolerance in formats.items():
            best = FastOptions.best(CUDA, dtype)
            for options in (best, FastOptions(dtype=dtype), FastOptions(dtype=dtype, cuda_graph=True)):
                fast = build_fast(model, options, device=CUDA, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
                template, search = (crop.to(CUDA) for crop in (raw if options.take_pixels else normalised))
                found = fast(fast.prepare(template), search, {} if mask is None else {"template_mask": mask.to(CUDA)})
                for name in ("boxes", "score_map"):
                    difference = (getattr(found, name).cpu() - getattr(expected, name)).abs().max().item()
                    assert difference < tolerance, (dtype, options, name)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_recorded_kernels_give_what_the_call_gives_and_share_their_memory(model, cfg, dtype):
    options = FastOptions(dtype=dtype, merge_branches=True, peak_only=False, take_pixels=True)
    fast = build_fast(model, options, device=CUDA, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    replay, window = GraphReplay(fast.run, CUDA, batched=3), hann_window(fast.search_grid, CUDA)
    sizes, results = [1, 9, 1, 32, 12, 5, 9, 1, 27, 32, 6, 2], []
    with full_float32(), torch.inference_mode():
        for seed, batch in enumerate(sizes):
            template, search = (crop.to(CUDA) for crop in crops_of(cfg, batch, seed)[0])
            inputs = fast.prepare(template), search, None, window
            results.append((replay(*inputs), fast.run(*inputs)))
        reserved = torch.cuda.memory_reserved()
        for batch in range(1, 33):
            template, search = (crop.to(CUDA) for crop in crops_of(cfg, batch)[0])
            replay(fast.prepare(template), search, None, window)
    assert len(replay._recorded) == len({padded_batch(batch) for batch in range(1, 33)})
    assert torch.cuda.memory_reserved() < 2 * reserved
    for replayed, expected in results:     # all of them in the end: a later replay must not change an earlier result
        for ours, theirs in zip(replayed, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 if dtype == "float32" else 1e-2)


def test_other_heads():
    for kind in ("CORNER", "MLP"):
        cfg = tiny(MODEL__HEAD__TYPE=kind, MODEL__NUM_CHANNELS=16, MODEL__BACKBONE__DEPTH=2)
        model = scramble(build_for_test(cfg)).eval()
        raw, normalised = crops_of(cfg, 3)
        with torch.inference_mode(), full_float32():
            fast = build_fast(model, FastOptions.best(CUDA), device=CUDA, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
            template, search = (crop.to(CUDA) for crop in raw)
            found = fast(fast.prepare(template), search).boxes.cpu()
            assert (found - model(*normalised).boxes).abs().max() < 1e-4


def test_the_energy_of_a_call_is_told_or_not():
    joules = joules_per_call(lambda: torch.ones(1000, device=CUDA).sum(), CUDA, seconds=0.5)
    assert joules is None or 0 <= joules < 100


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_tensorrt_engine_computes_what_the_model_computes(model, cfg, tmp_path, precision):
    pytest.importorskip("tensorrt", reason="tensorrt is not installed: its engines are untested")
    save_slim(tmp_path / "student.pth.tar", model, cfg)
    manifest = export_model(model, cfg, tmp_path / "student.pth.tar", tmp_path / "out",
                            ExportOptions("tensorrt", precision, batch=0))
    assert max(manifest.largest_difference.values()) <= (TOLERANCE if precision == "float32" else 0.1)
    trackers = Tracker.from_model(model, cfg), Tracker.from_export(tmp_path / "out", device=CUDA)
    if precision == "float32":
        expected, found = (np.array([result.box_xywh for result in track(one, film(41))]) for one in trackers)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.5)


@pytest.mark.parametrize("format", ["torchscript", "torchexport"])
@pytest.mark.parametrize("maps", [False, True])
def test_pytorchs_own_exports_run_on_the_gpu(model, cfg, tmp_path, format, maps):
    """Written on the CPU: no constant may stay there."""
    save_slim(tmp_path / "student.pth.tar", model, cfg)
    export_model(model, cfg, tmp_path / "student.pth.tar", tmp_path / "out", ExportOptions(format, maps=maps))
    with full_float32():
        difference = compare(model, ExportedModel(tmp_path / "out", device=CUDA), crop_pairs(None, 4, cfg), cfg)
    assert max(difference.values()) < TOLERANCE


# ---------------------------------------------------------------- crops and the loader

def test_crops_are_opencvs_while_others_are_queued():
    """Nothing is waited for between the calls, so a buffer that is used again too early would show."""
    images = [noise(640, 480, seed) for seed in range(20)]
    boxes = [[100, 80, 120, 90], [-20, 300, 60, 90], [500, 400, 30, 30], [900, 10, 5, 5]]
    squares = squares_in(images[0], boxes)
    found = [cut_on_device([image] * 4, squares, 256, CUDA) for image in images for _ in range(3)]
    for crops, image in zip(found, (image for image in images for _ in range(3)), strict=True):
        assert np.array_equal(crops.cpu().numpy(), np.stack([cut_square(image, place, 256) for place in squares]))


@pytest.mark.parametrize("options", [None, FastOptions(take_pixels=True), FastOptions.best(CUDA)])
def test_a_track_has_the_same_boxes_and_waits_once_per_frame(model, cfg, options):
    run = model if options is None else build_fast(model, options, device=CUDA, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    results = []
    for where in (False, True):
        tracker = Tracker.from_model(run, cfg, device=CUDA, crop_on_device=where)
        results.append(track(tracker, film(101)))
    places = [np.array([result.box_xywh for result in found]) for found in results]
    np.testing.assert_allclose(places[1], places[0], rtol=0, atol=1e-3)
    image, target = next(film(1)), tracker.start(next(film(1)), PLACES[0])
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tracker.step([image], [target])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in caught if "synchronizing" in str(one.message)]
    assert len(waits) == 1, waits


@pytest.mark.parametrize(("kind", "num_workers"), [("process", 0), ("process", 2), ("thread", 2)])
def test_the_batches_of_the_loader_are_the_same(tmp_path, kind, num_workers):
    """Copied ahead on a stream of its own, or decoded by nvJPEG, where it has been found at the start."""
    root = trees.got10k(tmp_path, sequences=2)
    for loader_name, tolerance in (("frames", 1e-3), ("gpu", 40)):
        cfg = configuration(root, kind=kind, LOADER=loader_name)
        loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=num_workers, device=CUDA)
        for _ in range(2):  # the copies begin ahead as soon as the device is known
            found = [{key: value.cpu() if isinstance(value, torch.Tensor) else value
                      for key, value in loader.to_device(batch, CUDA).items()} for batch in loader]
            largest, mean = levels(batches(configuration(root)), found)
            assert len(found) == 6 and largest <= tolerance and mean < 1


def test_nvjpeg_names_a_damaged_image_and_missing_memory(tmp_path, caplog):
    root = trees.got10k(tmp_path, sequences=2)
    for file in sorted(root.glob("*/000000*[0246].jpg")):
        file.write_bytes(trees.hollow(file.read_bytes()))
    cfg = configuration(f"{root}", LOADER="gpu")
    loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=0, device=CUDA)
    good = [loader.to_device(batch, CUDA) for batch in loader]
    assert len(good) == 6
    assert not loader.replaced or re.search("an image cannot be decoded on cuda", caplog.text)
    batch = next(iter(loader))
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(max(1e-6, torch.cuda.memory_reserved() / total))
        with pytest.raises(torch.OutOfMemoryError):
            kept = [loader.to_device(batch, CUDA) for _ in range(100000)]
            assert not kept
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
