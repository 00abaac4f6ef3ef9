"""Jitter, augmentation and batches."""

import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import trees

from lib.train.data import build_loader
from lib.train.data.processing import PairProcessing, View, jitter_box
from lib.utils.crop import box_to_crop, square_crop
from lib.utils.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TEMPLATE, SEARCH = View(32, 2.0, 0.0, 0.0), View(64, 4.0, 3.0, 0.25)
BOX = np.float32([40, 22, 20, 16])


def processing(**options):
    return PairProcessing(TEMPLATE, SEARCH, mean=MEAN, std=STD, **options)


def run(process, seed=0):
    return process(trees.picture(1), BOX, trees.picture(2), BOX + 2, np.random.default_rng(seed))


def configuration(folder, *, train=24, val=10, ratio=(1,), names=None, **data):
    def view(size, factor, center, scale):
        return SimpleNamespace(SIZE=size, FACTOR=factor, CENTER_JITTER=center, SCALE_JITTER=scale, NUMBER=1)

    def part(samples):
        return SimpleNamespace(DATASETS_NAME=names or [f"FOLDER:{folder}"], DATASETS_RATIO=list(ratio),
                               SAMPLE_PER_EPOCH=samples)

    fields = {
        "TRAIN": part(train), "VAL": part(val), "TEMPLATE": view(32, 2.0, 0, 0), "SEARCH": view(64, 4.0, 3, 0.25),
        "MEAN": MEAN, "STD": STD, "GRAYSCALE_PROB": 0.05, "FLIP_PROB": 0.5, "BRIGHTNESS_JITTER": 0.2,
        "SAMPLER_MODE": "causal", "MAX_SAMPLE_INTERVAL": 200, "STORAGE": "auto", **data,
    }
    return SimpleNamespace(DATA=SimpleNamespace(**fields), TRAIN=SimpleNamespace(DEVICE="cpu"),
                           MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(STRIDE=16)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trees.folder(tmp_path_factory.mktemp("data"))


def batches(cfg, split="train", *, epoch=0, seed=1, batch_size=4, num_workers=0, **ranks):
    loader = build_loader(cfg, split, seed=seed, batch_size=batch_size, num_workers=num_workers, **ranks)
    loader.set_epoch(epoch)
    return list(loader)


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


@pytest.mark.parametrize("gray", [0.0, 1.0])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_validation_equals_the_plain_way(gray, flip):
    """Grey and mirror the whole frame, crop, scale to 0..1, normalise."""
    sample = run(processing(gray_prob=gray, flip_prob=flip, augment=False))
    image, box = trees.picture(1), BOX.astype(float)
    if gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        box[0] = image.shape[1] - 1 - box[0] - box[2]
    crop = square_crop(image, box, 2.0, 32)
    expected = (crop.image / 255 - MEAN) / STD
    assert np.allclose(sample["template"].permute(1, 2, 0), expected, atol=1e-5)
    assert np.allclose(sample["template_box"], box_to_crop(box, box, crop.scale, 32), atol=1e-6)
    assert sample["search"].shape == (3, 64, 64) and sample["search"].dtype == torch.float32


def test_boxes_follow_the_pixels():
    """A bright square stays under its box through every jitter and mirroring."""
    image = np.full((120, 160, 3), 30, np.uint8)
    image[50:70, 60:90] = 220
    box, misses = np.float32([60, 50, 30, 20]), 0
    for seed in range(40):
        sample = processing()(image, box, image, box, np.random.default_rng(seed))
        for part in ("template", "search"):
            pixels = sample[part][1].numpy()
            x, y, w, h = sample[f"{part}_box"].numpy() * pixels.shape[0]
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
        sample = process(image, BOX, image, BOX, np.random.default_rng(seed))
        centre = [sample[part][0, 16, 16].item() * STD[0] + MEAN[0] for part in ("template", "search")]
        factors.append([v * 255 / 100 for v in centre if v > 0.01])
    template = np.array([f[0] for f in factors])
    assert 0.8 <= template.min() < 0.82 and 1.18 < template.max() <= 1.2001
    assert np.mean([len(set(f)) > 1 for f in factors if len(f) == 2]) > 0.95
    bright = process(image + 150, BOX, image, BOX, np.random.default_rng(1))["template"]
    assert bright.max() <= (1 - MEAN[2]) / STD[2] + 1e-5


def test_probabilities_of_grey_and_mirror():
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0] = np.arange(96) * 2
    grey, rising = 0, 0
    for seed in range(600):
        sample = processing(brightness=0)(image, BOX, image, BOX, np.random.default_rng(seed))["template"]
        values = sample * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        grey += bool((values[0] - values[2]).abs().max() < 1e-4)
        rising += bool(values[0, 16, 24] > values[0, 16, 8])
    assert 12 <= grey <= 50
    assert 240 <= rising <= 360


@pytest.mark.parametrize("box", [[10, 10, 0, 5], [10, 10, np.nan, 5], [-900, -900, 20, 20]])
def test_no_sample_of_an_impossible_box(box):
    result = processing()(trees.picture(0), np.float32(box), trees.picture(0), BOX, np.random.default_rng(0))
    assert result is None


def test_batch(folder):
    found = batches(configuration(folder))
    assert len(found) == 6
    assert set(found[0]) == {"template", "search", "template_box", "search_box", "dataset"}
    assert found[0]["template"].shape == (4, 3, 32, 32) and found[0]["search"].shape == (4, 3, 64, 64)
    assert found[0]["template_box"].shape == found[0]["search_box"].shape == (4, 4)
    assert found[0]["dataset"] == [f"folder:{folder}"] * 4
    assert not torch.equal(found[0]["search"], found[1]["search"])


def test_workers_and_ranks_do_not_change_the_samples(folder):
    cfg = configuration(folder)
    alone = batches(cfg, epoch=3)
    assert same(alone, batches(cfg, epoch=3, num_workers=2))
    assert same(alone, batches(cfg, epoch=3))
    two = [batches(cfg, epoch=3, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *parts in zip(alone, *two, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(whole["search"][rank::2], part["search"])
    assert not same(alone, batches(cfg, epoch=4))
    assert not same(alone, batches(cfg, epoch=3, seed=2))


def test_persistent_workers_see_the_epoch(folder):
    cfg = configuration(folder, train=8)
    loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=1)
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        assert same(list(loader), batches(cfg, epoch=epoch))


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


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_image_is_replaced_logged_once_and_counted(tmp_path, caplog, num_workers):
    root = trees.folder(tmp_path)
    (root / "half.txt").write_text("first\n")
    for number in range(0, 24, 2):
        (root / "first" / "img" / f"{number}.png").write_bytes(b"broken")
    loader = build_loader(configuration(f"{root}@half.txt"), "train", seed=1, batch_size=4, num_workers=num_workers)
    with caplog.at_level(logging.WARNING):
        assert sum(len(batch["dataset"]) for batch in loader) == 24
    assert loader.replaced > 24
    if num_workers == 0:
        assert 6 <= len(caplog.messages) == len(set(caplog.messages)) <= 12
        assert all(".png" in message for message in caplog.messages)


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
    cfg = configuration(folder)
    cfg.DATA.TEMPLATE.NUMBER = 2
    with pytest.raises(UserError, match="TEMPLATE.NUMBER is 2"):
        batches(cfg)
