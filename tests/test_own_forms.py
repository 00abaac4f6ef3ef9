"""Data of one's own are the same in folders, videos and archives, with lists and annotations beside them."""

import json
import logging
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trees
from train_sets import OWN, OWN_FORMS, environment, in_form, same

from lib.train.dataset import build_dataset
from lib.utils.errors import UserError


def test_any_coco_file(tmp_path):
    root = trees.coco(tmp_path / "coco")
    file = shutil.copy(root / "annotations" / "instances_train2017.json", tmp_path / "mine.json")
    env = environment(tmp_path)
    dataset = build_dataset(f"COCO:{file}@{root}/images/train2017", env)
    assert len(dataset) == 2 and dataset.name == "coco:mine" and not dataset.is_video
    assert dataset.frame(0, 0).shape == (64, 96, 3)
    shutil.copy(file, root / "images" / "train2017" / "mine.json")
    beside = build_dataset(f"COCO:{root}/images/train2017/mine.json", env)
    assert beside.frame_path(1, 0) == dataset.frame_path(1, 0)
    for spec, message in ((f"{tmp_path}/no.json", "annotation file not found: .*no.json"),
                          (f"{file}@{tmp_path}/none", "folder not found: .*none .nor an LMDB at .*none_lmdb")):
        with pytest.raises(UserError, match=message):
            build_dataset(f"COCO:{spec}", env)
    (tmp_path / "mine.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="no sequence in .*Expected COCO:<annotation json>"):
        build_dataset(f"COCO:{file}@{root}", env)


@pytest.mark.parametrize(("change", "message"), [
    ({"bbox": [1, 2, 3]}, r"annotation 1 has the bbox \[1, 2, 3\]; expected x, y, width, height\); correct it"),
    ({"image_id": 77}, "annotation 1 has the image_id 77, which is not among the images")])
def test_a_wrong_object_of_own_images_is_named(tmp_path, change, message):
    root = trees.pictures(tmp_path / "mine")
    content = json.loads((root / "boxes.json").read_text())
    content["annotations"][0] |= change | {"id": 1, "iscrowd": 0}
    (root / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        build_dataset(f"COCO:{root}/boxes.json", environment(tmp_path))


@pytest.mark.parametrize("form", OWN_FORMS)
@pytest.mark.parametrize("name", OWN)
def test_own_data_is_the_same_in_every_form(tmp_path, caplog, name, form):
    root = OWN[name](tmp_path / "my.data")
    env = environment(tmp_path, index_dir="")
    plain = build_dataset(name.format(root), env)
    ends = [len(plain.annotation(sequence).visible) - 1 for sequence in range(len(plain))]
    pictures = [(plain.encoded(i, 0), plain.encoded(i, end)) for i, end in enumerate(ends)]
    assert plain.storage.kind == "directory" and len(plain) == 2
    in_form(form, name, root)
    env.index_dir = str(tmp_path / "index")
    kind, explicit = form.removesuffix("s"), name.format(f"{root}{OWN_FORMS[form]}")
    with caplog.at_level(logging.INFO):
        found = [build_dataset(*words) for words in ((name.format(root), env), (name.format(root), env, kind),
                                                    (explicit, env, "auto" if form == "zips" else "directory"))]
    assert caplog.text.count("building the index") == (2 if explicit != name.format(root) else 1)
    for dataset in (*found, pickle.loads(pickle.dumps(found[0]))):
        assert dataset.storage.kind == kind
        same(dataset, plain)
        assert [(dataset.encoded(i, 0), dataset.encoded(i, end)) for i, end in enumerate(ends)] == pictures
        assert dataset.frame(1, 0).shape == (64, 96, 3)
    with pytest.raises(UserError, match="no zip archives|no LMDB at .*make_lmdb.py (FOLDER|COCO)"):
        build_dataset(name.format(root), env, {"lmdb": "zip", "zip": "lmdb", "zips": "lmdb"}[form])


def test_a_path_may_lead_into_an_archive(tmp_path):
    trees.folder(tmp_path / "all" / "seq", video=False)
    trees.pictures(tmp_path / "all" / "det")
    (tmp_path / "all" / "det" / "boxes.json").rename(tmp_path / "all" / "a.json")
    names = (f"FOLDER:{tmp_path}/all{{0}}/seq", f"COCO:{tmp_path}/all{{0}}/a.json@{tmp_path}/all{{0}}/det",
             f"FOLDER:{tmp_path}/all{{0}}/seq/first")
    env = environment(tmp_path)
    plain = [build_dataset(name.format(""), env) for name in names]
    trees.zipped(tmp_path / "all", tmp_path / "all.zip", "all")
    for dataset, name in zip(plain, names, strict=True):
        zipped = build_dataset(name.format(".zip"), env)
        same(zipped, dataset)
        assert zipped.encoded(0, 0) == dataset.encoded(0, 0) and zipped.storage.kind == "zip"
        assert zipped.place.lmdb == str(dataset.storage.root) + "_lmdb"
    with pytest.raises(UserError, match="no sequence in .*all.zip/none"):
        build_dataset(f"FOLDER:{tmp_path}/all.zip/none", env)
    with pytest.raises(UserError, match="annotation file not found: /none/b.json"):
        build_dataset(f"COCO:/none/b.json@{tmp_path}/all.zip/det", env)
    with pytest.raises(UserError, match="none of the images that .*all.zip:a.json names is in .*all.zip/imgs, .*9.jpg"):
        build_dataset(f"COCO:{tmp_path}/all.zip/a.json@{tmp_path}/all.zip/imgs", env)


def test_one_image_that_is_missing_does_not_stop(tmp_path):
    root, env = trees.pictures(tmp_path / "mine"), environment(tmp_path, index_dir="")
    name = f"COCO:{root}/boxes.json"
    first, second = (build_dataset(name, env).frame_path(sequence, 0) for sequence in (0, 1))
    Path(first).unlink()
    assert len(build_dataset(name, env)) == 2
    Path(second).unlink()
    with pytest.raises(UserError, match="none of the images that .*boxes.json names is in .*mine"):
        build_dataset(name, env, "directory")


@pytest.mark.parametrize("form", ["zip", "zips"])
def test_the_ending_of_an_archive_may_be_in_capital_letters(tmp_path, form):
    root, env = trees.folder(tmp_path / "mine@2", video=False), environment(tmp_path)
    plain = build_dataset(f"FOLDER:{root}", env)
    in_form(form, "FOLDER:{}", root)
    archives = list(tmp_path.glob("**/*.zip"))
    for archive in archives:
        archive.rename(archive.with_suffix(".ZIP"))
    assert archives
    same(build_dataset(f"FOLDER:{root}", env), plain)
    if form == "zip":
        same(build_dataset(f"FOLDER:{root}.ZIP", env), plain)


def test_an_archive_with_backslashes(tmp_path):
    root, env = trees.folder(tmp_path / "mine", video=False), environment(tmp_path)
    plain = build_dataset(f"FOLDER:{root}", env)
    with zipfile.ZipFile(tmp_path / "win.zip", "w") as archive:
        archive.writestr("mine\\", "")
        for file in (path for path in root.rglob("*") if path.is_file()):
            archive.writestr("mine\\" + str(file.relative_to(root)).replace("/", "\\"), file.read_bytes())
    zipped = build_dataset(f"FOLDER:{tmp_path}/win.zip", env)
    same(zipped, plain)
    assert zipped.encoded(1, 3) == plain.encoded(1, 3)


def test_auto_keeps_a_folder_of_own_data_before_its_archives(tmp_path):
    root, env = trees.pictures(tmp_path / "mine"), environment(tmp_path)
    trees.zipped(root, root / "old.zip")
    trees.zipped(root, tmp_path / "mine.zip")
    name = f"COCO:{root}/boxes.json"
    assert build_dataset(name, env).storage.kind == "directory"
    assert build_dataset(name, env, "zip").storage.root == str(tmp_path / "mine.zip")
    with pytest.raises(UserError, match="no LMDB at .*DATA.STORAGE: auto takes the folder .*mine"):
        build_dataset(name, env, "lmdb")
    (tmp_path / "empty@2").mkdir()
    with pytest.raises(UserError, match="no sequence in .*empty@2; expected one folder per sequence"):
        build_dataset(f"FOLDER:{tmp_path}/empty@2", env)


def test_a_changed_list_beside_an_archive_counts(tmp_path, caplog):
    root, env = trees.folder(tmp_path / "mine", video=False), environment(tmp_path)
    in_form("zip", "FOLDER:{}", root)
    root.mkdir()
    for text, names in (("first/", ["first"]), ("second\n./first", ["second", "first"])):
        (root / "l.txt").write_text(text)
        with caplog.at_level(logging.INFO):
            assert list(build_dataset(f"FOLDER:{root}@l.txt", env).sequences) == names
    assert "the data set has changed: 1 changed (for instance" in caplog.text and "l.txt)" in caplog.text
    for spec, message in (("@none.txt", "cannot read the list of sequences .*none.txt: .* nor none.txt in .*mine.zip"),
                          ("@three.txt", "1 of 2 listed sequences are not in .*mine.zip .*third")):
        (root / "three.txt").write_text("first\nthird\n")
        with pytest.raises(UserError, match=message):
            build_dataset(f"FOLDER:{root}{spec}", env)


@pytest.mark.parametrize("form", OWN_FORMS)
def test_lists_in_a_folder_beside_an_archive(tmp_path, form):
    root, env = trees.folder(tmp_path / "mine", video=False), environment(tmp_path)
    in_form(form, "FOLDER:{}", root)
    (root / "lists").mkdir(parents=True)
    (root / "lists" / "l.txt").write_text("second\n")
    dataset = build_dataset(f"FOLDER:{root}@lists/l.txt", env)
    assert dataset.storage.kind == form.removesuffix("s") and list(dataset.sequences) == ["second"]
    with pytest.raises(UserError) as caught:
        build_dataset(f"FOLDER:{root}@lists/l.txt", env, {"lmdb": "zip", "zip": "lmdb", "zips": "lmdb"}[form])
    assert "auto takes" not in str(caught.value)


def test_a_changed_annotation_file_beside_an_archive_counts(tmp_path):
    root, env = trees.pictures(tmp_path / "mine"), environment(tmp_path)
    in_form("zips", "COCO:{}/boxes.json", root)
    name = f"COCO:{root}/boxes.json"
    assert len(build_dataset(name, env)) == 2
    content = json.loads((root / "boxes.json").read_text())
    content["annotations"] = content["annotations"][:1]
    (root / "boxes.json").write_text(json.dumps(content))
    assert len(build_dataset(name, env)) == 1
    (root / "boxes.json").unlink()
    with pytest.raises(UserError, match="COCO:.*annotation file not found: .*boxes.json"):
        build_dataset(name, env)


def test_what_archives_of_own_data_cannot_hold(tmp_path):
    env = environment(tmp_path)
    in_form("zip", "FOLDER:{}", trees.folder(tmp_path / "mine"))
    with pytest.raises(UserError, match="clip.avi: a video can only be read as a file on the disk.*unpack .*list file"):
        build_dataset(f"FOLDER:{tmp_path}/mine", env)
    root = trees.folder(tmp_path / "parts" / "all", video=False)
    for name in ("first", "second"):
        trees.zipped(root / name, tmp_path / "loose" / f"{name}.zip")
    with pytest.raises(UserError, match="an archive in .*loose holds a sequence without its folder; pack each"):
        build_dataset(f"FOLDER:{tmp_path}/loose", env)
    same(build_dataset(f"FOLDER:{tmp_path}/loose/first.zip", env), build_dataset(f"FOLDER:{root}/first", env))


def test_threads_may_share_the_videos_of_a_folder(tmp_path):
    dataset = build_dataset(f"FOLDER:{trees.folder(tmp_path / 'mine')}", environment(tmp_path))
    wanted = [(2, i) for i in (20, 3, 11, 7, 20, 0)] + [(0, 5)]
    alone = [dataset.frame(*frame) for frame in wanted]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(alone, pool.map(lambda frame: dataset.frame(*frame), wanted), strict=True):
            np.testing.assert_array_equal(a, b)
