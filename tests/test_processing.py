"""Jitter, augmentation and batches."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import trees

from lib.families import get_family
from lib.train.data import build_loader, workers
from lib.train.data.decode import DecodedPicture
from lib.train.data.pixels import FramePixels, Sample, too_many
from lib.train.data.processing import PairProcessing, View, jitter_box
from lib.utils.crop import Normaliser, box_to_crop, square_crop
from lib.utils.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TEMPLATE, SEARCH = View(32, 2.0, 0.0, 0.0), View(64, 4.0, 3.0, 0.25)
BOX = np.float32([40, 22, 20, 16])
GOLDEN = Path(__file__).parent / "golden" / "training_pairs.npz"


def processing(**options):
    return PairProcessing(TEMPLATE, SEARCH, **options)


def run(process, seed=0):
    return sample(process, trees.picture(1), BOX, trees.picture(2), BOX + 2, seed)


def sample(process, template, template_box, search, search_box, seed):
    """One finished sample of two frames in memory, without the batch's dimension; None where there is none."""
    frames = [DecodedPicture(image, "frame") for image in (template, search)]
    params = process([frame.image.shape[1::-1] for frame in frames], [template_box, search_box],
                     np.random.default_rng(seed))
    if params is None:
        return None
    pixels = FramePixels(process.template.size, process.search.size)
    batch = pixels.collate([Sample((0, 0), "test", params, pixels.make(frames, params), ())])
    normalise = Normaliser(MEAN, STD)
    made = {}
    for name, image, crop in zip(("template", "search"), pixels.crops(batch, torch.device("cpu")), params, strict=True):
        gain = None if crop.light is None else torch.tensor([crop.light / 255.0], dtype=torch.float32)
        made |= {name: normalise(image, gain)[0], f"{name}_box": torch.from_numpy(crop.box_xywh)}
    return made


def configuration(folder, *, train=24, val=10, ratio=(1,), names=None, kind="process", **data):
    def view(size, factor, center, scale):
        return SimpleNamespace(SIZE=size, FACTOR=factor, CENTER_JITTER=center, SCALE_JITTER=scale, NUMBER=1,
                               LATER_CENTER_JITTER=0, LATER_SCALE_JITTER=0)

    def part(samples):
        return SimpleNamespace(DATASETS_NAME=names or [f"FOLDER:{folder}"], DATASETS_RATIO=list(ratio),
                               SAMPLE_PER_EPOCH=samples)

    fields = {
        "TRAIN": part(train), "VAL": part(val), "TEMPLATE": view(32, 2.0, 0, 0), "SEARCH": view(64, 4.0, 3, 0.25),
        "MEAN": MEAN, "STD": STD, "GRAYSCALE_PROB": 0.05, "FLIP_PROB": 0.5, "BRIGHTNESS_JITTER": 0.2,
        "SAMPLER_MODE": "causal", "MAX_SAMPLE_INTERVAL": 200, "STORAGE": "auto", "LOADER": "frames",
        "DECODER": "auto", "SCALED_DECODE": False, "MAX_UNREADABLE": 1.0, **data,
    }
    training = SimpleNamespace(DEVICE="cpu", WORKER_KIND=kind, ACCUMULATE=1)
    return SimpleNamespace(DATA=SimpleNamespace(**fields), TRAIN=training, family=get_family("ostrack"),
                           MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(STRIDE=16)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trees.folder(tmp_path_factory.mktemp("data"))


def batches(cfg, split="train", *, epoch=0, seed=1, batch_size=4, num_workers=0, **ranks):
    loader = build_loader(cfg, split, seed=seed, batch_size=batch_size, num_workers=num_workers, **ranks)
    loader.set_epoch(epoch)
    return ready(loader)


def ready(loader):
    return [loader.to_device(batch, torch.device("cpu")) for batch in loader]


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a[key], b[key]) and a["dataset"] == b["dataset"]
        for a, b in zip(left, right, strict=True) for key in ("template", "search", "template_box", "search_box"))


def test_jitter_moments():
    view, rng = View(64, 4.0, 3.0, 0.25), np.random.default_rng(0)
    box = np.array([100.0, 50.0, 40.0, 10.0])
    boxes = np.array([jitter_box(box, view, rng) for _ in range(20000)])
    logs = np.log(boxes[:, 2:] / box[2:])
    assert np.abs(logs.mean(axis=0)).max() < 0.01 and np.abs(logs.std(axis=0) - 0.25).max() < 0.01
    offset = (boxes[:, :2] + boxes[:, 2:] / 2 - box[:2] - box[2:] / 2) / np.sqrt(boxes[:, 2:].prod(axis=1))[:, None]
    assert np.abs(offset).max() <= 1.5 and np.abs(offset).max() > 1.49
    assert np.abs(offset.mean(axis=0)).max() < 0.03 and np.abs(offset.std(axis=0) - 3 / np.sqrt(12)).max() < 0.02


def test_without_jitter_the_box_stays():
    box = np.array([3.0, 4.0, 5.0, 6.0])
    assert np.array_equal(jitter_box(box, TEMPLATE, np.random.default_rng(0)), box)


def test_samples_are_those_of_the_first_version():
    """Numbers that the loader made when workers still decoded whole frames with OpenCV and delivered floats."""
    process = PairProcessing(View(16, 2.0, 0.0, 0.0), View(32, 4.0, 3.0, 0.25), gray_prob=0.3)
    with np.load(GOLDEN) as golden:
        for number, seed in enumerate(golden["seeds"]):
            found = sample(process, trees.picture(seed), np.float32(trees.box(seed)), trees.picture(seed + 3),
                           np.float32(trees.box(seed + 9)), seed)
            for name, value in found.items():
                assert np.array_equal(value.numpy(), golden[name][number]), name


@pytest.mark.parametrize("gray", [0.0, 1.0])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_validation_equals_the_plain_way(gray, flip):
    """Grey and mirror the whole frame, crop, scale to 0..1, normalise."""
    made = run(processing(gray_prob=gray, flip_prob=flip, augment=False))
    image, box = trees.picture(1), BOX.astype(float)
    if gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        box[0] = image.shape[1] - 1 - box[0] - box[2]
    crop = square_crop(image, box, 2.0, 32)
    expected = (crop.image / 255 - MEAN) / STD
    assert np.allclose(made["template"].permute(1, 2, 0), expected, atol=1e-5)
    assert np.allclose(made["template_box"], box_to_crop(box, box, crop.scale, 32), atol=1e-6)
    assert made["search"].shape == (3, 64, 64) and made["search"].dtype == torch.float32


def test_boxes_follow_the_pixels():
    """A bright square stays under its box through every jitter and mirroring."""
    image = np.full((120, 160, 3), 30, np.uint8)
    image[50:70, 60:90] = 220
    box, misses = np.float32([60, 50, 30, 20]), 0
    for seed in range(40):
        made = sample(processing(), image, box, image, box, seed)
        for part in ("template", "search"):
            pixels = made[part][1].numpy()
            x, y, w, h = made[f"{part}_box"].numpy() * pixels.shape[0]
            rows, columns = np.nonzero(pixels > (pixels.max() + pixels.min()) / 2)
            low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
            inside = x >= 0 and y >= 0 and x + w <= pixels.shape[0] and y + h <= pixels.shape[0]
            if inside:
                assert np.abs(low - [x, y]).max() < 3 and np.abs(high - [x + w, y + h]).max() < 3
            misses += not inside
    assert misses < 40


def test_brightness_is_per_image_and_bounded():
    image = np.full((64, 96, 3), 100, np.uint8)
    process = processing(gray_prob=0, flip_prob=0)
    factors = []
    for seed in range(300):
        made = sample(process, image, BOX, image, BOX, seed)
        centre = [made[part][0, 16, 16].item() * STD[0] + MEAN[0] for part in ("template", "search")]
        factors.append([v * 255 / 100 for v in centre if v > 0.01])
    template = np.array([f[0] for f in factors])
    assert 0.8 <= template.min() < 0.82 and 1.18 < template.max() <= 1.2001
    assert np.mean([len(set(f)) > 1 for f in factors if len(f) == 2]) > 0.95
    bright = sample(process, image + 150, BOX, image, BOX, 1)["template"]
    assert bright.max() <= (1 - MEAN[2]) / STD[2] + 1e-5


def test_probabilities_of_grey_and_mirror():
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0] = np.arange(96) * 2
    grey, rising = 0, 0
    for seed in range(600):
        template = sample(processing(brightness=0), image, BOX, image, BOX, seed)["template"]
        values = template * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        grey += bool((values[0] - values[2]).abs().max() < 1e-4)
        rising += bool(values[0, 16, 24] > values[0, 16, 8])
    assert 12 <= grey <= 50
    assert 240 <= rising <= 360


@pytest.mark.parametrize("box", [[10, 10, 0, 5], [10, 10, np.nan, 5], [-900, -900, 20, 20]])
def test_no_sample_of_an_impossible_box(box):
    assert sample(processing(), trees.picture(0), np.float32(box), trees.picture(0), BOX, 0) is None


def test_batch(folder):
    found = batches(configuration(folder))
    assert len(found) == 6
    assert set(found[0]) == {"template", "search", "template_box", "search_box", "dataset"}
    assert found[0]["template"].shape == (4, 3, 32, 32) and found[0]["search"].shape == (4, 3, 64, 64)
    assert found[0]["template_box"].shape == found[0]["search_box"].shape == (4, 4)
    assert found[0]["dataset"] == [f"folder:{folder}"] * 4
    assert not torch.equal(found[0]["search"], found[1]["search"])


@pytest.mark.parametrize(("kind", "num_workers"), [("process", 1), ("process", 3), ("thread", 1), ("thread", 2)])
@pytest.mark.parametrize("loader", ["frames", "gpu"])
def test_workers_do_not_change_the_samples(folder, kind, num_workers, loader):
    cfg = configuration(folder, kind=kind, LOADER=loader)
    assert same(batches(cfg, epoch=3), batches(cfg, epoch=3, num_workers=num_workers))


def test_ranks_share_the_samples(folder):
    cfg = configuration(folder)
    alone = batches(cfg, epoch=3)
    two = [batches(cfg, epoch=3, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *parts in zip(alone, *two, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(whole["search"][rank::2], part["search"])
    assert not same(alone, batches(cfg, epoch=4))
    assert not same(alone, batches(cfg, epoch=3, seed=2))


@pytest.mark.parametrize(("kind", "num_workers"), [("process", 0), ("process", 2), ("thread", 2)])
def test_skipped_batches_are_left_out_once(folder, kind, num_workers):
    cfg = configuration(folder, kind=kind)
    loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=num_workers)
    loader.skip(4)
    assert same(ready(loader), batches(cfg)[4:])
    assert len(ready(loader)) == 6


def test_a_thread_that_is_not_waited_for_ends(folder):
    loader = build_loader(configuration(folder, kind="thread"), "train", seed=1, batch_size=4, num_workers=2)
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_a_killed_worker_is_an_error_in_seconds(folder):
    loader = build_loader(configuration(folder, train=4000), "train", seed=1, batch_size=4, num_workers=2)
    before, start = set(multiprocessing.active_children()), time.monotonic()
    iterator = iter(loader)
    next(iterator)
    worker = next(child for child in multiprocessing.active_children() if child not in before)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()   # nothing is raised before the next batch is asked for
    with pytest.raises(UserError, match="^a process that loads data was killed by SIGKILL.*TRAIN.NUM_WORKER"):
        list(iterator)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("error", "code", "message"), [
    (RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly"), -9, "was killed by SIGKILL. Mostly"),
    (RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly"), None,
     r"ended \(DataLoader worker \(pid\(s\) 1\) exited unexpectedly\). Mostly"),
    (EOFError(), -15, "was killed by SIGTERM. Mostly"), (ConnectionResetError("gone"), None, r"ended \(gone\). Mostly"),
    (RuntimeError("something else"), 1, "ended with exit status 1. Mostly")])
def test_the_end_of_a_worker_is_told_whatever_is_known_of_it(monkeypatch, error, code, message):
    monkeypatch.setattr(workers, "wait", lambda sentinels, timeout: None)
    batches = workers.Processes(None, [1], 1, pin=False)
    batches._workers = [SimpleNamespace(sentinel=0, exitcode=code)]
    batches._begin = lambda: failing(error)
    with pytest.raises(UserError, match=f"^a process that loads data {message}.*TRAIN.NUM_WORKER"):
        list(batches)


def test_other_errors_stay_what_they_are():
    batches = workers.Processes(None, [1], 1, pin=False)
    batches._begin = lambda: failing(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="^something else$"):
        list(batches)


def failing(error):
    """An iterator that raises."""
    raise error
    yield


def test_workers_do_not_outlive_a_failing_script(folder, root):
    """Also where something holds on to the loader's iterator until Python ends."""
    script = (f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests')!r}]\n"
              "from test_processing import configuration\nfrom lib.train.data import build_loader\n"
              f"loader = build_loader(configuration({str(folder)!r}), 'train', seed=1, batch_size=4, num_workers=2)\n"
              "keep = sys.modules['keep'] = iter(loader)\nnext(keep)\nraise SystemExit(7)\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr


def test_persistent_workers_see_the_epoch(folder):
    cfg = configuration(folder, train=8)
    loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=1)
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        assert same(ready(loader), batches(cfg, epoch=epoch))


def test_validation_is_complete_and_always_the_same(folder):
    cfg = configuration(folder, val=10)
    first = batches(cfg, "val")
    assert [len(b["dataset"]) for b in first] == [4, 4, 2]
    assert same(first, batches(cfg, "val", epoch=7))
    assert [len(batches(cfg, "val", rank=rank, world_size=4)) for rank in range(4)] == [1, 1, 1, 1]
    train = batches(configuration(folder, train=10))
    assert [len(b["dataset"]) for b in train] == [4, 4]
    assert not torch.equal(first[0]["search"], train[0]["search"])


def test_mixture_of_all_formats(tmp_path, monkeypatch):
    for name, make in (("lasot", trees.lasot), ("got10k", trees.got10k), ("coco", trees.coco),
                       ("trackingnet", trees.trackingnet)):
        monkeypatch.setenv(f"COMPRESSTRACKER_{name.upper()}_DIR", str(make(tmp_path / name)))
    cfg = configuration(None, names=["LASOT", "GOT10K_train_full", "COCO17", "TRACKINGNET"], ratio=[1, 1, 1, 1])
    names = [name for batch in batches(cfg) for name in batch["dataset"]]
    assert set(names) == {"lasot", "got10k", "coco", "trackingnet"}


def half_broken(tmp_path):
    """A folder with one sequence, every second image of which is damaged."""
    root = trees.folder(tmp_path)
    (root / "half.txt").write_text("first\n")
    for number in range(0, 24, 2):
        (root / "first" / "img" / f"{number}.png").write_bytes(b"broken")
    return f"{root}@half.txt"


@pytest.mark.parametrize(("kind", "num_workers"), [("process", 0), ("process", 2), ("thread", 2)])
def test_unreadable_image_is_replaced_logged_once_and_counted(tmp_path, caplog, kind, num_workers):
    cfg = configuration(half_broken(tmp_path), kind=kind)
    loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=num_workers)
    with caplog.at_level(logging.WARNING):
        assert sum(len(batch["dataset"]) for batch in loader) == 24
    assert loader.replaced > 24
    assert 6 <= len(caplog.messages) == len(set(caplog.messages)) <= 12
    assert all(".png" in message for message in caplog.messages)
    assert same(ready(loader), batches(cfg))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_unreadable_images_end_the_run(tmp_path, num_workers):
    cfg = configuration(half_broken(tmp_path), MAX_UNREADABLE=0.4)
    with pytest.raises(UserError, match=r"^\d+ of \d+ draws \(\d\d.\d%\).*allows 40.0%.*/first/img/.*png"):
        batches(cfg, num_workers=num_workers)


def test_how_many_may_be_unreadable():
    assert not too_many(1, 10, 0.01) and not too_many(10, 20, 0.01)
    assert too_many(11, 20, 0.01) and too_many(21, 2000, 0.01) and not too_many(20, 2000, 0.01)
    assert too_many(1, 10**6, 0.0) and not too_many(0, 10, 0.0)
    assert not too_many(24, 24, 1.0)


def test_a_fault_noticed_late_is_replaced_by_the_same_draw(tmp_path):
    """A file that shows its size but no pixels, and one that shows nothing, lead to the same pairs."""
    found = []
    for name, damage in (("early", lambda data: data[:-2]), ("late", trees.hollow)):
        root = trees.got10k(tmp_path / name, sequences=2)
        for file in sorted(root.glob("*/000000*[02468].jpg")):
            file.write_bytes(damage(file.read_bytes()))
        loader = build_loader(configuration(root), "train", seed=1, batch_size=4, num_workers=0)
        found.append((ready(loader), loader.replaced))
    (early, early_count), (late, late_count) = found
    assert early_count == late_count > 0
    for left, right in zip(early, late, strict=True):
        assert torch.equal(left["search"], right["search"]) and torch.equal(left["search_box"], right["search_box"])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_only_unreadable_images_end_in_the_same_error(tmp_path, num_workers):
    root = trees.folder(tmp_path)
    (root / "half.txt").write_text("first\n")
    for file in (root / "first" / "img").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match="^50 draws in a row .* 50 had an image .*first/img/.*png"):
        batches(configuration(f"{root}@half.txt"), num_workers=num_workers)


def test_broken_annotation_reaches_the_main_process(tmp_path, monkeypatch):
    root = trees.got10k(tmp_path, sequences=1)
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_DIR", str(root))
    (root / "GOT-10k_Train_000001" / "groundtruth.txt").write_text("1,2\n")
    for num_workers in (0, 1):
        with pytest.raises(UserError, match="^/.*groundtruth.txt, line 1: expected four numbers"):
            batches(configuration(None, names=["GOT10K_train_full"]), num_workers=num_workers)


def test_boxes_outside_every_frame_end(tmp_path):
    root = trees.folder(tmp_path)
    (root / "half.txt").write_text("first\n")
    (root / "first" / "groundtruth_rect.txt").write_text("5000,5000,10,10\n" * 24)
    with pytest.raises(UserError, match="crop without content"):
        batches(configuration(f"{root}@half.txt"))


def test_impossible_requests(folder):
    with pytest.raises(UserError, match="SAMPLE_PER_EPOCH"):
        batches(configuration(folder, train=3))
