"""Frames that are decoded and cropped on the device, here the CPU, beside the crops of the exact way."""

import cv2
import numpy as np
import pytest
import torch
import torchvision
import trees
from test_processing import batches, configuration, ready

import lib.train.data.loader as loader_module
from lib.train.data import build_loader, gpu
from lib.train.data.gpu import DevicePixels, Undecodable
from lib.utils.errors import UserError

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


WRAPPED = "Error while decoding JPEG images: "


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
    RuntimeError(f"{WRAPPED}CUDA out of memory. Tried to allocate 1 GiB\nException raised from malloc"),
    RuntimeError(f"{WRAPPED}Failed to decode jpeg stream: 5\nException raised from decode"),
    torch.AcceleratorError("CUDA error: out of memory")])
def test_missing_memory_is_no_damaged_image(tmp_path, monkeypatch, error):
    """torchvision wraps what PyTorch and nvJPEG raise in an error of one kind; the run says what to do about memory."""
    loader = build_loader(configuration(trees.got10k(tmp_path, sequences=2), LOADER="gpu"), "train", seed=1,
                          batch_size=4, num_workers=0)
    batch = next(iter(loader))

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(gpu, "decode_jpeg", fail)
    with pytest.raises(torch.OutOfMemoryError, match="no memory for 8 decoded images"):
        loader.to_device(batch, CPU)
    assert loader.replaced == 0


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access was encountered"),
                                   torch.AcceleratorError("an illegal memory access")])
def test_a_broken_device_is_no_damaged_image(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(gpu, "decode_jpeg", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        gpu._decode_jpegs([torch.zeros(3, dtype=torch.uint8)], CPU)


@pytest.mark.parametrize("error", [RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support"),
                                   AttributeError("'image' object has no attribute 'decode_jpegs_cuda'")])
def test_a_device_without_a_decoder_is_found_at_the_start(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    cfg = configuration(trees.got10k(tmp_path, sequences=2), LOADER="gpu")
    build_loader(cfg, "train", seed=1, batch_size=4, num_workers=0, device=CPU)
    monkeypatch.setattr(gpu, "decode_jpeg", fail)
    with pytest.raises(UserError, match=f"torchvision {torchvision.__version__[:4]}.* cannot decode a JPEG file on "
                                        "cpu.*nvJPEG.*set DATA.LOADER to frames or crops") as caught:
        build_loader(cfg, "train", seed=1, batch_size=4, num_workers=0, device=CPU)
    assert str(error) not in str(caught.value)


def test_a_batch_may_be_asked_for_twice(tmp_path):
    """Also one that was found damaged: it is counted once."""
    root = trees.got10k(tmp_path, sequences=2)
    for file in sorted(root.glob("*/000000*[0246].jpg")):
        file.write_bytes(trees.hollow(file.read_bytes()))
    loader = build_loader(configuration(f"{root}", LOADER="gpu"), "train", seed=1, batch_size=4, num_workers=0)
    for batch in loader:
        first = loader.to_device(batch, CPU)
        replaced = loader.replaced
        assert levels([first], [loader.to_device(batch, CPU)]) == (0, 0) and loader.replaced == replaced
    assert loader.replaced > 0


def test_memory_is_pinned_for_cuda_only(tmp_path, monkeypatch):
    """Whatever the configuration says: --device decides."""
    pinned = []
    monkeypatch.setattr(loader_module, "batches", lambda *_, pin, **__: pinned.append(pin))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = configuration(trees.got10k(tmp_path, sequences=2))
    for device in (None, CPU, torch.device("cuda", 1)):
        build_loader(cfg, "train", seed=1, batch_size=4, num_workers=0, device=device)
    assert pinned == [False, False, True]
