"""Frames that are decoded and cropped on the device, here the CPU, beside the crops of the exact way."""

import cv2
import numpy as np
import pytest
import torch
import trees
from test_processing import batches, configuration, ready

from lib.train.data import build_loader
from lib.train.data.gpu import DevicePixels, Undecodable

CPU = torch.device("cpu")


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def levels(left, right):
    """Largest and mean difference of two normalised batches in grey levels."""
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    differences = torch.cat([((a[view] - b[view]) * std * 255).abs().flatten()
                             for a, b in zip(left, right, strict=True) for view in ("template", "search")])
    return float(differences.max()), float(differences.mean())


def test_pairs_are_those_of_the_exact_way(tmp_path):
    """JPEG and PNG files, a video and single images with one frame for both crops."""
    names = [f"FOLDER:{trees.folder(tmp_path / 'folder')}"]
    exact = batches(configuration(None, names=names, GRAYSCALE_PROB=0.3))
    found = batches(configuration(None, names=names, GRAYSCALE_PROB=0.3, LOADER="gpu"))
    for a, b in zip(exact, found, strict=True):
        assert torch.equal(a["template_box"], b["template_box"]) and torch.equal(a["search_box"], b["search_box"])
        assert b["search"].dtype == torch.float32 and b["search"].is_contiguous()
    assert levels(exact, found) == (0, 0)


def test_one_image_for_both_crops_travels_once(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSTRACKER_COCO_DIR", str(trees.coco(tmp_path / "coco")))
    cfg = configuration(None, names=["COCO17"], LOADER="gpu")
    loader = build_loader(cfg, "val", seed=1, batch_size=5, num_workers=0)
    batch = next(iter(loader))
    assert batch["frames"].shape == (5, 4) and batch["search_places"].shape == (5, 2, 2, 64)
    exact = batches(configuration(None, names=["COCO17"]), "val", batch_size=5)[:1]
    assert levels(exact, [loader.to_device(batch, CPU)]) == (0, 0)


def test_what_torchvision_decodes_otherwise_travels_as_pixels(tmp_path):
    root = trees.folder(tmp_path)
    (root / "png.txt").write_text("first\n")
    cfg = configuration(f"{root}@png.txt", LOADER="gpu")
    batch = next(iter(build_loader(cfg, "train", seed=1, batch_size=4, num_workers=0)))
    assert (batch["frames"][:, 0] == 1).all() and len(batch["data"]) < 8 * 96 * 64 * 3


def test_an_image_found_damaged_on_the_device_is_replaced_as_elsewhere(tmp_path, caplog):
    root = trees.got10k(tmp_path, sequences=2)
    for file in sorted(root.glob("*/000000*[0246].jpg")):
        file.write_bytes(trees.hollow(file.read_bytes()))
    exact = batches(configuration(f"{root}"))
    loader = build_loader(configuration(f"{root}", LOADER="gpu"), "train", seed=1, batch_size=4, num_workers=0)
    found = ready(loader)
    assert loader.replaced > 0 and "an image cannot be decoded on cpu" in caplog.text
    assert levels(exact, found) == (0, 0)
    for a, b in zip(exact, found, strict=True):
        assert torch.equal(a["search_box"], b["search_box"])


def test_damaged_bytes_are_undecodable():
    data = torch.from_numpy(np.frombuffer(b"\xff\xd8 no picture \xff\xd9", np.uint8).copy())
    batch = {"data": data, "frames": torch.tensor([[0, 8, 8, len(data)]])}
    with pytest.raises(Undecodable, match="cannot be decoded on cpu"):
        DevicePixels(8, 8).crops(batch, CPU)
    image = torch.from_numpy(np.frombuffer(cv2.imencode(".jpg", noise(16, 8))[1].tobytes(), np.uint8).copy())
    batch = {"data": image, "frames": torch.tensor([[0, 8, 8, len(image)]])}
    with pytest.raises(Undecodable, match=r"8 x 8 pixels came out on cpu as \(3, 8, 16\)"):
        DevicePixels(8, 8).crops(batch, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize(("kind", "num_workers"), [("process", 0), ("process", 2), ("thread", 2)])
def test_on_cuda_the_batches_are_the_same(tmp_path, kind, num_workers):
    """Copied ahead on a stream of its own, or decoded by nvJPEG."""
    root = trees.got10k(tmp_path, sequences=2)
    for loader_name, tolerance in (("frames", 1e-3), ("gpu", 40)):
        cfg = configuration(root, kind=kind, LOADER=loader_name)
        cfg.TRAIN.DEVICE = "cuda"
        loader = build_loader(cfg, "train", seed=1, batch_size=4, num_workers=num_workers)
        for _ in range(2):  # the copies begin ahead as soon as the device is known
            found = [{key: value.cpu() if isinstance(value, torch.Tensor) else value
                      for key, value in loader.to_device(batch, torch.device("cuda")).items()} for batch in loader]
            largest, mean = levels(batches(configuration(root)), found)
            assert len(found) == 6 and largest <= tolerance and mean < 1
