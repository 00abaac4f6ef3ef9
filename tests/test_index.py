"""The index: the same annotations as the files, mapped into memory, rebuilt when anything was changed or damaged."""

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import trees
from train_sets import MAKERS, environment, same

from lib.train.dataset import build_dataset, open_dataset
from lib.train.dataset.annotation import Annotation
from lib.train.dataset.columns import TextColumn
from lib.train.dataset.index import DamagedIndexError, Index, load_or_build
from lib.utils.errors import UserError
from lib.utils.storage import State


def made(tmp_path, name="LASOT"):
    """Root, environment."""
    field, make = MAKERS[name]
    root = make(tmp_path / "data")
    return root, environment(tmp_path, **{field: str(root)})


def folders(tmp_path):
    return sorted((tmp_path / "index").glob("*/*"))


@pytest.mark.parametrize("name", MAKERS)
def test_the_index_holds_what_the_files_say(tmp_path, name, caplog):
    _, env = made(tmp_path, name)
    plain = open_dataset(name, env)
    with caplog.at_level(logging.INFO):
        first = build_dataset(name, env)
        second = build_dataset(name, env)
    assert caplog.text.count("building the index") == 1 and len(folders(tmp_path)) == 1
    for dataset in (first, second, pickle.loads(pickle.dumps(second))):
        same(dataset, plain)
        assert dataset.digest() == plain.digest()
        last = len(plain) - 1
        assert dataset.frame_path(last, 0) == plain.frame_path(last, 0)
        assert dataset.encoded(last, 0) == plain.encoded(last, 0)


def test_arrays_are_mapped_and_pickled_by_path(tmp_path):
    _, env = made(tmp_path)
    dataset = build_dataset("LASOT", env)
    boxes = dataset.annotation(0).boxes
    base = boxes
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap) and not boxes.flags.writeable
    assert b"zebra-4" not in pickle.dumps(dataset)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(_boxes, [dataset]), boxes)


def _boxes(dataset):
    return dataset.annotation(0).boxes


def test_the_digest_is_that_of_names_and_boxes(tmp_path):
    root, env = made(tmp_path)
    digest = build_dataset("LASOT", env).digest()
    moved = environment(tmp_path, lasot_dir=str(shutil.copytree(root, tmp_path / "moved")))
    assert build_dataset("LASOT", moved).digest() == digest
    for file, old, new in (("groundtruth.txt", "20.00", "21.00"), ("out_of_view.txt", "0", "1")):
        path = root / "zebra" / "zebra-4" / file
        text = path.read_text()
        path.write_text(text.replace(old, new, 1))
        assert build_dataset("LASOT", env).digest() != digest
        path.write_text(text)
    assert build_dataset("LASOT", env).digest() == digest


def test_a_changed_data_set_is_indexed_again(tmp_path, caplog):
    root, env = made(tmp_path)
    old = build_dataset("LASOT", env).annotation(1)
    file = root / "zebra" / "zebra-4" / "groundtruth.txt"
    file.write_text(file.read_text().replace("20.00", "21.00", 1))
    with caplog.at_level(logging.INFO):
        new = build_dataset("LASOT", env).annotation(1)
    assert new.boxes[0, 0] == 21 and old.boxes[0, 0] == 20  # what was mapped before stays
    assert "the data set has changed: 1 changed (for instance zebra/zebra-4/groundtruth.txt)" in caplog.text
    shutil.rmtree(root / "zebra")
    with caplog.at_level(logging.INFO):
        assert len(build_dataset("LASOT", env)) == 1
    assert "3 gone" in caplog.text and len(folders(tmp_path)) == 1


@pytest.mark.parametrize(("name", "file"), [
    ("LASOT", "zebra/zebra-4/full_occlusion.txt"), ("LASOT", "zebra/zebra-4/out_of_view.txt"),
    ("GOT10K_train_full", "GOT-10k_Train_000002/absence.label"),
    ("GOT10K_train_full", "GOT-10k_Train_000002/cover.label"),
])
def test_changed_labels_count(tmp_path, name, file):
    root, env = made(tmp_path, name)
    before = build_dataset(name, env).annotation(1).visible.copy()
    shown = "0" if file.endswith("cover.label") else "1"
    (root / file).write_text("\n".join([shown] * 24) + "\n")
    assert before.any() and not build_dataset(name, env).annotation(1).visible.any()


def test_archives_are_checked_by_their_own_state(tmp_path, caplog):
    root = trees.lasot(tmp_path / "unpacked" / "lasot")
    archive = trees.zipped(root, tmp_path / "lasot.zip", "lasot")
    env = environment(tmp_path, lasot_dir=str(tmp_path / "lasot"))
    same(build_dataset("LASOT", env), open_dataset("LASOT", environment(tmp_path, lasot_dir=str(root))))
    trees.zipped(root / "zebra", archive, "zebra")
    with caplog.at_level(logging.INFO):
        dataset = build_dataset("LASOT", env)
    assert list(dataset.sequences) == ["zebra/zebra-4"]
    assert "1 changed (for instance" in caplog.text and "lasot.zip" in caplog.text
    caplog.clear()
    build_dataset("LASOT", env)  # found in the index, not by looking into the archive
    assert "1119 of 1120 sequences are missing" in caplog.text and "building" not in caplog.text


def test_a_pickled_data_set_takes_the_list_of_an_archives_files_from_the_index(tmp_path, monkeypatch):
    root = trees.lasot(tmp_path / "unpacked" / "lasot")
    trees.zipped(root, tmp_path / "lasot.zip", "lasot")
    dataset = build_dataset("LASOT", environment(tmp_path, lasot_dir=str(tmp_path / "lasot")))
    data = pickle.dumps(dataset)
    assert b"00000024.jpg" not in data
    monkeypatch.setattr(zipfile, "ZipFile", None)  # nothing is left to read the archive's directory with
    again = pickle.loads(data)
    assert again.encoded(1, 23) == (root / "zebra" / "zebra-4" / "img" / "00000024.jpg").read_bytes()


def test_a_folder_of_videos_has_no_names_of_frames(tmp_path):
    trees.write_video(tmp_path / "mine" / "one" / "clip.avi", 22)
    trees.write_boxes(tmp_path / "mine" / "one" / "groundtruth.txt", 22)
    for _ in range(2):
        dataset = build_dataset(f"FOLDER:{tmp_path / 'mine'}", environment(tmp_path))
        assert dataset.frame(0, 21).shape == (64, 96, 3) and dataset.encoded(0, 3) is None
        assert dataset.frame_path(0, 21).endswith("one/clip.avi")


def test_the_same_name_at_another_place_has_its_own_index(tmp_path):
    one, other = (trees.lasot(tmp_path / n, names=(s,)) for n, s in (("a", "zebra-4"), ("b", "airplane-2")))
    for root in (one, other, one):
        dataset = build_dataset("LASOT", environment(tmp_path, lasot_dir=str(root)))
        assert (root / dataset.sequences[0]).is_dir()
    assert len(folders(tmp_path)) == 2


def cut(folder):
    path = folder / "boxes.npy"
    path.write_bytes(path.read_bytes()[:-20])


def longer(folder):
    with open(folder / "boxes.npy", "ab") as file:
        file.write(bytes(16))


def garble(folder):
    size = (folder / "offsets.npy").stat().st_size
    (folder / "offsets.npy").write_bytes(bytes(size))


def wrong_length(folder):
    np.save(folder / "visible.npy", np.zeros(3, bool))
    meta = json.loads((folder / "index.json").read_text())
    meta["arrays"]["visible"] = (folder / "visible.npy").stat().st_size
    (folder / "index.json").write_text(json.dumps(meta))


@pytest.mark.parametrize("damage", [
    cut, longer, garble, wrong_length, lambda folder: (folder / "visible.npy").unlink(),
    lambda folder: (folder / "index.json").unlink(), lambda folder: (folder / "index.json").write_text("{"),
    lambda folder: (folder / "index.json").write_text("{}"),
])
def test_a_damaged_index_is_built_again(tmp_path, caplog, damage):
    _, env = made(tmp_path)
    build_dataset("LASOT", env)
    damage(folders(tmp_path)[0])
    with pytest.raises(DamagedIndexError):
        Index.open(folders(tmp_path)[0])
    same(build_dataset("LASOT", env), open_dataset("LASOT", env))
    assert "damaged" in caplog.text and len(folders(tmp_path)) == 1
    Index.open(folders(tmp_path)[0])


def tiny():
    annotation = Annotation.of(np.array([[1.0, 2, 3, 4], [np.nan] * 4]))
    return Index.of_annotations([annotation], {"names": ["é"]}, {})


STATE = State(["a"], np.array([[1, 2]]))


def test_two_processes_that_build_at_once(tmp_path):
    """While this one builds, another one finishes: its index stays."""
    def build():
        load_or_build(str(tmp_path), "D", "r", STATE, tiny)
        other.extend(tmp_path.glob("*/*/boxes.npy"))
        return tiny()

    other = []
    index = load_or_build(str(tmp_path), "D", "r", STATE, build)
    assert index.folder == other[0].parent and len(list(tmp_path.glob("*/*"))) == 1
    with multiprocessing.get_context("fork").Pool(4) as pool:
        shutil.rmtree(index.folder)
        assert len(set(pool.map(_load, [str(tmp_path)] * 8))) == 1
    assert len(list(tmp_path.glob("*/*"))) == 1


def _load(folder):
    return load_or_build(folder, "D", "r", STATE, tiny).folder


def test_a_disk_that_cannot_be_written_keeps_the_index_in_memory(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    index = load_or_build(str(tmp_path / "file"), "D", "r", STATE, tiny)
    assert index.folder is None and index.annotation(0).visible.tolist() == [True, False]
    assert "cannot be saved" in caplog.text and "COMPRESSTRACKER_INDEX_DIR" in caplog.text
    again = pickle.loads(pickle.dumps(index))
    assert again.texts("names")[0] == "é"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert load_or_build(str(tmp_path / "index"), "D", "r", STATE, tiny).folder is None
    assert "No space left" in caplog.text and not list(tmp_path.glob("index/*/*"))


def test_without_an_index_folder_nothing_is_written(tmp_path):
    assert load_or_build("", "D", "r", STATE, tiny).folder is None and not list(tmp_path.iterdir())


def test_what_a_killed_process_left_behind_is_removed_in_time(tmp_path):
    folder = load_or_build(str(tmp_path), "D", "r", STATE, tiny).folder
    young, old = (folder.parent / f".part-{n}-x" for n in (1, 2))
    for path in (young, old):
        path.mkdir()
    os.utime(old, (1, 1))
    load_or_build(str(tmp_path), "D", "r", State(["a"], np.array([[1, 3]])), tiny)
    assert young.is_dir() and not old.exists() and not folder.exists()


def test_errors_of_building_are_passed_on(tmp_path):
    def build():
        raise UserError("bad file")

    with pytest.raises(UserError, match="bad file"):
        load_or_build(str(tmp_path), "D", "r", STATE, build)
    assert not list(tmp_path.iterdir())


def test_columns_of_texts():
    texts = ["", "a", "ü" * 3, "", "b/c.jpg", "\udcff"]
    column = TextColumn.of(texts)
    assert list(column) == texts and column[-2] == "b/c.jpg" and len(column) == 6 and not list(TextColumn.of([]))
    with pytest.raises(IndexError):
        column[6]
