"""Packed crops: what is stored, that training draws the same pairs of it, and every way in which packing can end."""

import importlib.util
import json
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import trees
from test_processing import batches, configuration, ready
from train_sets import OWN, OWN_FORMS, in_form

from lib.train.data import build_loader
from lib.train.data import packing as packing_module
from lib.train.data.crops import MANIFEST, cover, folder_of, open_packed
from lib.train.data.packing import Packing, Recipe
from lib.train.data.processing import View, jitter_box
from lib.train.dataset import build_dataset
from lib.utils.errors import UserError

TEMPLATE, SEARCH = View(32, 2.0, 0.0, 0.0), View(64, 4.0, 3.0, 0.25)
FRAMES = 24


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two sequences of pictures, and the folder of crops."""
    monkeypatch.setenv("COMPRESSTRACKER_CROPS_DIR", str(tmp_path / "crops"))
    root = trees.got10k(tmp_path / "got", sequences=2, hidden=(5,))
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_DIR", str(root))
    return SimpleNamespace(root=root, crops=tmp_path / "crops", name="GOT10K_train_full")


def packing(data, **options):
    env = SimpleNamespace(got10k_dir=str(data.root))
    return Packing(Recipe(data.name, TEMPLATE, SEARCH, **options), build_dataset(data.name, env), data.crops)


def pack(data, workers=0, **options):
    return packing(data, **options).run(workers, 0.01)


def write_boxes(data, *lines):
    for file in data.root.glob("*/groundtruth.txt"):
        file.write_text("\n".join(lines) + "\n")


def opened(data):
    return open_packed(data.name, data.crops, (TEMPLATE, SEARCH))


def config(data, loader="crops", **options):
    return configuration(None, names=[data.name], LOADER=loader, **options)


def test_cover_without_jitter_is_the_crop():
    assert cover(TEMPLATE, 0.99) == pytest.approx(2.0)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_cover_holds_the_stated_share_of_jittered_squares(quantile):
    rng, box = np.random.default_rng(0), np.array([0.0, 0.0, 40.0, 10.0])
    mean_side, center = 20.0, np.array([20.0, 5.0])
    half = cover(SEARCH, quantile) * mean_side / 2
    jittered = np.array([jitter_box(box, SEARCH, rng) for _ in range(4000)])
    side = np.sqrt(jittered[:, 2:].prod(1)) * SEARCH.factor
    reach = np.abs(jittered[:, :2] + jittered[:, 2:] / 2 - center).max(1) + side / 2
    assert np.mean(reach <= half) == pytest.approx(quantile, abs=0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_visible_frame_is_stored_with_its_box(data, workers, monkeypatch):
    monkeypatch.setattr(packing_module, "PART_FRAMES", 10)
    write_boxes(data, *(f"{20 + i},15,12,9" for i in range(FRAMES)))
    folder = pack(data, workers)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["frames"] == 2 * (FRAMES - 1) and manifest["left_out"] == 0 and len(manifest["parts"]) == 2
    assert not list(folder.glob("*.bin.npy"))
    packed = opened(data)
    annotation = packed.annotation(1)
    assert len(packed) == 2 and packed.name == "got10k" and packed.is_video
    assert np.flatnonzero(~annotation.visible).tolist() == [5] and annotation.boxes.shape == (FRAMES, 4)
    assert annotation.boxes[7].tolist() == [27, 15, 12, 9] and np.isnan(annotation.boxes[5]).all()
    record = packed.record(1, 7)
    assert (record["width"], record["height"]) == trees.SIZE and record["frame"] == 7
    place = record["search"]
    stored = cv2.imdecode(np.frombuffer(packed.encoded(record, "search"), np.uint8), 1)[..., ::-1]
    assert stored.shape[:2] == (place["height"], place["width"])
    expected = trees.picture(7)[place["top"]:, place["left"]:][:place["height"], :place["width"]]
    assert np.abs(stored.astype(int) - expected).mean() < 4


def test_stride_stores_every_nth_frame(data):
    folder = pack(data, stride=4)
    assert json.loads((folder / MANIFEST).read_text())["frames"] == 12
    assert np.flatnonzero(opened(data).annotation(0).visible).tolist() == [0, 4, 8, 12, 16, 20]


def test_pairs_are_those_of_whole_frames(data):
    """Where the jitter stays within what is stored, the boxes are the same and the pixels nearly."""
    pack(data, quantile=0.999)
    exact, found = batches(config(data, "frames")), batches(config(data))
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    alike = 0
    for a, b in zip(exact, found, strict=True):
        same = (a["search_box"] == b["search_box"]).all(1) & (a["template_box"] == b["template_box"]).all(1)
        alike += int(same.sum())
        for view in ("template", "search"):
            difference = ((a[view] - b[view])[same] * std * 255).abs()
            assert difference.mean() < 4
    assert alike >= 22


@pytest.mark.parametrize(("kind", "num_workers"), [("process", 2), ("thread", 2)])
def test_workers_do_not_change_the_samples(data, kind, num_workers):
    pack(data)
    alone = batches(config(data))
    others = batches(config(data, kind=kind), num_workers=num_workers)
    assert all(torch.equal(a["search"], b["search"]) for a, b in zip(alone, others, strict=True))


def test_a_draw_beyond_what_is_stored_is_drawn_again(data):
    """With little stored, every pair still lies within it, and the same pairs come every time."""
    pack(data, quantile=0.2)
    loader = build_loader(config(data), "train", seed=1, batch_size=4, num_workers=0)
    first = ready(loader)
    assert all(torch.equal(a["search"], b["search"]) for a, b in zip(first, ready(loader), strict=True))
    assert loader.replaced == 0
    packed = opened(data)
    for index in range(24):
        sample = loader.pairs[0, index]
        assert sample.payload[1].any()
    exact = batches(config(data, "frames"))
    assert any((a["search_box"] != b["search_box"]).any() for a, b in zip(exact, first, strict=True))
    assert packed.record(0, 3)["search"]["width"] < trees.SIZE[0]


def test_large_targets_are_stored_at_the_crops_scale(data):
    """A stored picture has the density of an unjittered crop, and no side above the limit."""
    write_boxes(data, *["20,10,60,44"] * FRAMES)  # 64 pixels of the search crop show 4 * sqrt(60 * 44) of the frame's
    for density, limit, side in ((1.0, 640, 30), (1.0, 20, 20), (2.0, 640, 60), (9.0, 640, 96)):
        folder = pack(data, density=density, max_side=limit)
        record = opened(data).record(0, 0)
        stored = cv2.imdecode(np.frombuffer(opened(data).encoded(record, "search"), np.uint8), 1)
        assert record["search"]["width"] == 96 and stored.shape[1] == side
        assert len(batches(config(data))) == 6
        shutil.rmtree(folder)


def test_images_with_one_object_each(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSTRACKER_CROPS_DIR", str(tmp_path / "crops"))
    root = trees.coco(tmp_path / "coco")
    dataset = build_dataset("COCO17", SimpleNamespace(coco_dir=str(root)))
    Packing(Recipe("COCO17", TEMPLATE, SEARCH, stride=5), dataset, tmp_path / "crops").run(0, 0.01)
    found = batches(configuration(None, names=["COCO17"], LOADER="crops"))
    assert set(found[0]["dataset"]) == {"coco"} and len(found) == 6


def test_images_that_are_not_stored_are_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSTRACKER_CROPS_DIR", str(tmp_path / "crops"))
    root = trees.coco(tmp_path / "coco")
    (root / "images" / "train2017" / "000000000009.jpg").write_bytes(b"broken")
    dataset = build_dataset("COCO17", SimpleNamespace(coco_dir=str(root)))
    Packing(Recipe("COCO17", TEMPLATE, SEARCH), dataset, tmp_path / "crops").run(0, 0.01)
    packed = open_packed("COCO17", tmp_path / "crops", (TEMPLATE, SEARCH))
    assert len(dataset) == 2 and len(packed) == 1
    assert packed.annotation(0).boxes.tolist() == [[40, 20, 8, 9]] and packed.record(0, 0)["sequence"] == 1
    assert len(batches(configuration(None, names=["COCO17"], LOADER="crops"))) == 6


def test_packing_goes_on_where_it_was_interrupted(data, monkeypatch, caplog):
    monkeypatch.setattr(packing_module, "PART_FRAMES", 10)
    whole = packing(data)
    written, write = [], Packing.write_part

    def interrupted(self, number):
        if written:
            raise KeyboardInterrupt
        written.append(number)
        return write(self, number)

    monkeypatch.setattr(Packing, "write_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        whole.run(0, 0.01)
    folder = folder_of(data.crops, data.name)
    assert sorted(file.name for file in folder.iterdir()) == ["part-00000.bin", "part-00000.bin.npy", "recipe.json"]
    with pytest.raises(UserError, match="manifest.json not found.*make_crops.py.*--datasets GOT10K_train_full"):
        opened(data)
    before = (folder / "part-00000.bin").stat().st_mtime_ns
    monkeypatch.setattr(Packing, "write_part", write)
    pack(data)
    assert (folder / "part-00000.bin").stat().st_mtime_ns == before and len(opened(data)) == 2
    with caplog.at_level(logging.INFO):
        pack(data)
    assert "already packed" in caplog.text


def test_another_recipe_does_not_mix_with_what_is_there(data):
    pack(data)
    with pytest.raises(UserError, match="made with other settings.*recipe.json"):
        pack(data, quality=80)
    shutil.rmtree(folder_of(data.crops, data.name))
    pack(data, quality=80)


def test_changed_boxes_do_not_mix_with_what_is_there(data):
    pack(data)
    (data.root / "GOT-10k_Train_000001" / "absence.label").write_text("0\n" * FRAMES)
    with pytest.raises(UserError, match="of other frames"):
        pack(data)


def test_the_digest_is_that_of_the_stored_boxes(data):
    digests = []
    for stride, first in ((1, None), (1, None), (4, None), (4, "0,0,0,0")):
        if first:
            boxes = (data.root / "GOT-10k_Train_000001" / "groundtruth.txt").read_text().splitlines()
            write_boxes(data, first, *boxes[1:])
        folder = pack(data, stride=stride)
        digests.append(opened(data).digest())
        shutil.rmtree(folder)
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_small_disk_is_noticed_before_the_start(data, monkeypatch):
    monkeypatch.setattr(packing_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="needs about .* GB .* are free.*--stride"):
        pack(data)
    assert not folder_of(data.crops, data.name).exists()


def test_the_estimate_is_near(data):
    estimate = packing(data).estimate()
    folder = pack(data)
    assert estimate == pytest.approx(sum(file.stat().st_size for file in folder.glob("*.bin")), rel=0.2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_fills_up_leaves_nothing_half_written(data, workers, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing_module.np, "save", full)
    with pytest.raises(UserError, match="cannot write .*part-00000.bin.npy: No space left on device"):
        pack(data, workers)
    assert not list(folder_of(data.crops, data.name).glob("*.part")) and not list(data.crops.glob("*/manifest.json"))


def test_unreadable_frames_are_left_out_and_too_many_end_it(data, caplog):
    images = sorted(data.root.glob("*/*.jpg"))
    for file in images[:3]:
        file.write_bytes(b"broken")
    folder = pack(data)
    assert json.loads((folder / MANIFEST).read_text())["left_out"] == 3
    assert not opened(data).annotation(0).visible[:3].any() and str(images[0]) in caplog.text
    shutil.rmtree(folder)
    for file in images[:12]:  # of which one is of a hidden target
        file.write_bytes(trees.hollow(trees.jpeg(3)))
    with pytest.raises(UserError, match=r"^11 of 46 images .*MAX_UNREADABLE \(1.0%\) allows: .*jpg"):
        pack(data)


def test_targets_outside_the_frame_are_left_out(data):
    write_boxes(data, "500,500,10,10", *["20,15,24,18"] * (FRAMES - 1))
    pack(data)
    assert not opened(data).annotation(0).visible[0] and opened(data).annotation(0).visible[1]


def test_nothing_to_pack_is_an_error(data):
    for file in data.root.glob("*/absence.label"):
        file.write_text("1\n" * FRAMES)
    with pytest.raises(UserError, match="no visible frame"):
        pack(data)


@pytest.mark.parametrize(("views", "complaint"), [
    ((TEMPLATE, SEARCH._replace(center_jitter=4.5)), "DATA.SEARCH .*CENTER_JITTER 3.*CENTER_JITTER 4.5"),
    ((TEMPLATE, SEARCH._replace(scale_jitter=0.5)), "DATA.SEARCH .*SCALE_JITTER 0.25"),
    ((TEMPLATE._replace(size=64), SEARCH), "DATA.TEMPLATE SIZE 32.*SIZE 64"),
    ((TEMPLATE._replace(factor=3.0), SEARCH), "DATA.TEMPLATE .*FACTOR 2.*FACTOR 3"),
])
def test_a_recipe_that_asks_for_more_is_refused(data, views, complaint):
    pack(data)
    with pytest.raises(UserError, match=f"{complaint}.*make_crops.py"):
        open_packed(data.name, data.crops, views)


def test_a_recipe_that_asks_for_less_is_served(data):
    pack(data)
    open_packed(data.name, data.crops, (TEMPLATE, SEARCH._replace(center_jitter=2.0, size=48)))


@pytest.mark.parametrize(("break_it", "complaint"), [
    (lambda folder: (folder / "part-00000.bin").unlink(), "part-00000.bin not found"),
    (lambda folder: (folder / "part-00000.bin").write_bytes(b"short"), "has 5 bytes instead of"),
    (lambda folder: (folder / "index.npy").unlink(), "index.npy not found"),
    (lambda folder: (folder / "index.npy").write_bytes(b"no array"), "index.npy cannot be read"),
    (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json cannot be used"),
    (lambda folder: (folder / MANIFEST).write_text('{"format": 99}'), "is of format 99, not 1"),
    (lambda folder: (folder / MANIFEST).write_text('{"format": 1}'), "manifest.json cannot be used"),
    (shutil.rmtree, "manifest.json not found"),
])
def test_broken_crops_are_refused_at_the_start(data, break_it, complaint):
    break_it(pack(data))
    with pytest.raises(UserError, match=f"GOT10K_train_full: .*{complaint}.*DATA.LOADER to frames"):
        opened(data)


def test_a_damaged_crop_is_replaced_and_counted(data):
    part = pack(data) / "part-00000.bin"
    content, packed = bytearray(part.read_bytes()), opened(data)
    for frame in (0, 1, 2, 3, 4, 6, 7, 8):
        start = int(packed.record(0, frame)["template"]["offset"])
        content[start : start + 200] = bytes(200)
    part.write_bytes(content)
    loader = build_loader(config(data), "train", seed=1, batch_size=4, num_workers=0)
    assert len(ready(loader)) == 6 and loader.replaced > 0


def test_names_of_folders():
    assert folder_of("/crops", "LASOT") == Path("/crops/LASOT")
    one, other = folder_of("/c", "FOLDER:/data/my set"), folder_of("/c", "FOLDER:/other/my set")
    assert one.name.startswith("folder-my_set-") and one != other


# ---- the script

@pytest.fixture
def script(root, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_crops", root / "tracking" / "make_crops.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["make_crops.py", *words])
        module.main()

    return run


def test_script_packs_what_training_then_reads(data, script, caplog):
    with caplog.at_level(logging.INFO):
        script("--datasets", data.name, "--estimate")
        assert "46 frames, about 0.00 GB" in caplog.text and not data.crops.exists()
        script("--datasets", data.name, "--workers", "0", "--stride", f"{data.name}=2")
    manifest = json.loads((data.crops / data.name / MANIFEST).read_text())
    assert manifest["stride"] == 2 and manifest["views"]["search"]["size"] == 256
    assert manifest["cover"]["search"] > 8 and "frames of 2 sequences packed" in caplog.text


@pytest.mark.parametrize("form", OWN_FORMS)
@pytest.mark.parametrize("name", OWN)
def test_script_packs_own_data_in_every_form(tmp_path, monkeypatch, script, name, form):
    monkeypatch.setenv("COMPRESSTRACKER_CROPS_DIR", str(tmp_path / "crops"))
    name, root = name.format(tmp_path / "mine"), OWN[name](tmp_path / "mine")
    kind, options = form.removesuffix("s"), ("--datasets", name, "--stride", "6", "--workers", "1")
    script(*options)
    place = folder_of(str(tmp_path / "crops"), name)
    plain = {file.name: file.read_bytes() for file in place.iterdir()}
    shutil.rmtree(place)
    in_form(form, name.replace(str(root), "{}"), root)
    script(*options, "--set", f"DATA.STORAGE={kind}")
    assert plain == {file.name: file.read_bytes() for file in place.iterdir()}


@pytest.mark.parametrize(("words", "complaint"), [
    (["--stride", "0"], "--stride 0: expected N or NAME=N"),
    (["--stride", "LASOT=2"], "--stride LASOT=2: .*one of GOT10K_train_full"),
    (["--stride", "x"], "--stride x"),
])
def test_script_refuses_strides(data, script, words, complaint):
    with pytest.raises(UserError, match=complaint):
        script("--datasets", data.name, *words)


@pytest.mark.parametrize("words", [["--quality", "0"], ["--quantile", "1"], ["--max_side", "3"], ["--workers", "-1"],
                                   ["--density", "0"]])
def test_script_refuses_numbers_out_of_range(script, words, capsys):
    with pytest.raises(SystemExit):
        script(*words)
    assert words[0] in capsys.readouterr().err
