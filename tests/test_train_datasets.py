"""Training data sets: which sequences, boxes, visible frames and pictures they give."""

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

from lib.config import DATASETS, load_config
from lib.train.dataset import build_dataset, place_of
from lib.train.dataset.base import read_ranges, read_spec, spec_lines
from lib.utils.errors import UserError


def check_frames(dataset, sequence, count):
    annotation = dataset.annotation(sequence)
    assert annotation.boxes.shape == (count, 4) and annotation.boxes.dtype == np.float32
    assert annotation.boxes[2] == pytest.approx(trees.box(2))
    for index in (0, count - 1):
        image = dataset.frame(sequence, index)
        expected = trees.picture(index).mean(axis=(0, 1))
        assert image.shape == (64, 96, 3) and np.abs(image.mean(axis=(0, 1)) - expected).max() < 4
    return annotation


def test_got10k(tmp_path, caplog):
    root = trees.got10k(tmp_path / "got", hidden=(4, 5))
    dataset = build_dataset("GOT10K_train_full", environment(tmp_path, got10k_dir=root))
    assert len(dataset) == 3 and dataset.name == "got10k" and dataset.is_video
    annotation = check_frames(dataset, 2, 24)
    assert np.flatnonzero(~annotation.visible).tolist() == [4, 5] and annotation.valid.all()
    assert dataset.frame_path(0, 0) == str(root / "GOT-10k_Train_000001" / "00000001.jpg")
    (root / "list.txt").write_text("GOT-10k_Train_000001\nGOT-10k_Train_000009\n")
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset("GOT10K_official_val", environment(tmp_path, got10k_val_dir=root))
    assert len(dataset) == 1 and "1 of 2 sequences are missing" in caplog.text


def test_got10k_cover_zero_is_hidden(tmp_path):
    root = trees.got10k(tmp_path / "got", sequences=1)
    (root / "GOT-10k_Train_000001" / "cover.label").write_text("0\n" + "8\n" * 23)
    annotation = build_dataset("GOT10K_train_full", environment(tmp_path, got10k_dir=root)).annotation(0)
    assert np.flatnonzero(~annotation.visible).tolist() == [0]


def test_got10k_splits(tmp_path):
    train, val = (
        {i for line in read_spec(f"got10k_{name}.txt") for i in read_ranges(line)} for name in ("vottrain", "votval"))
    assert len(train) == 7086 and len(val) == 1249 and not train & val
    assert min(train | val) == 0 and max(train | val) < 9335
    assert 3784 in train and 1349 in val
    root = trees.got10k(tmp_path / "got", sequences=2)
    env = environment(tmp_path, got10k_dir=root)
    with pytest.raises(UserError, match="9335 .* 2 found"):
        build_dataset("GOT10K_vottrain", env)
    names = [f"GOT-10k_Train_{i + 1:06d}" for i in range(9335)]
    (root / "list.txt").write_text("\n".join(names))
    assert list(build_dataset("GOT10K_vottrain", env).sequences) == ["GOT-10k_Train_000001"]
    assert list(build_dataset("GOT10K_votval", env).sequences) == ["GOT-10k_Train_000002"]


def test_lasot(tmp_path, caplog):
    names = [f"{c}-{n}" for c, *words in read_spec("lasot_train.txt") for n in read_ranges(words)]
    assert len(names) == len(set(names)) == 1120 and "airplane-1" not in names and "zebra-4" in names
    root = trees.lasot(tmp_path / "lasot", names=("airplane-2", "airplane-1", "zebra-4"), hidden=(1, 4, 6))
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset("LASOT", environment(tmp_path, lasot_dir=root))
    assert list(dataset.sequences) == ["airplane/airplane-2", "zebra/zebra-4"]
    assert "1118 of 1120 sequences are missing" in caplog.text
    annotation = check_frames(dataset, 1, 24)
    assert np.flatnonzero(~annotation.visible).tolist() == [1, 4, 6] and annotation.valid.all()


def test_trackingnet(tmp_path, caplog):
    root = trees.trackingnet(tmp_path / "tn")
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset("TRACKINGNET", environment(tmp_path, trackingnet_dir=root))
    assert len(dataset) == 2 and "TRAIN_5" in caplog.text
    assert check_frames(dataset, 1, 24).visible.all()
    assert dataset.frame_path(1, 0) == str(root / "TRAIN_11" / "frames" / "video11_0" / "0.jpg")


def test_coco(tmp_path):
    root = trees.coco(tmp_path / "coco")
    dataset = build_dataset("COCO17", environment(tmp_path, coco_dir=root))
    assert len(dataset) == 2 and not dataset.is_video
    assert dataset.annotation(0).boxes.tolist() == [[10, 12, 30, 20]]
    assert dataset.annotation(1).visible.tolist() == [True]
    assert dataset.frame_path(0, 0).endswith("images/train2017/000000000009.jpg")
    assert dataset.frame(1, 0).shape == (64, 96, 3)
    for content in ('{"images": []}', "no json"):
        (root / "annotations" / "instances_train2017.json").write_text(content)
        with pytest.raises(UserError, match="not a COCO instances file"):
            build_dataset("COCO17", environment(tmp_path, coco_dir=root))


def test_real_coco(shared_dir, tmp_path):
    dataset = build_dataset("COCO17", environment(tmp_path, coco_dir=shared_dir / "coco128"))
    boxes = np.concatenate([dataset.annotation(i).boxes for i in range(len(dataset))])
    assert len(boxes) > 500 and (boxes[:, 2:] > 0).all()
    assert dataset.frame(0, 0).ndim == 3


def test_folder(tmp_path):
    root = trees.folder(tmp_path / "mine")
    dataset = build_dataset(f"FOLDER:{root}", environment(tmp_path))
    assert len(dataset) == 3 and dataset.is_video
    for sequence in range(3):
        check_frames(dataset, sequence, 24)
    assert not dataset.annotation(1).valid[3] and not dataset.annotation(1).visible[3]
    (root / "one.txt").write_text("third\n")
    assert len(build_dataset(f"FOLDER:{root}@one.txt", environment(tmp_path))) == 1


@pytest.mark.parametrize(("name", "field"), [
    ("LASOT", "lasot_dir"), ("GOT10K_train_full", "got10k_dir"), ("GOT10K_official_val", "got10k_val_dir"),
    ("COCO17", "coco_dir"), ("TRACKINGNET", "trackingnet_dir"), ("VID", "imagenet_dir"), ("TNL2K", "tnl2k_dir"),
    ("VASTTRACK", "vasttrack_dir"), ("LASOT_EXT", "lasot_extension_subset_dir"),
])
def test_missing_or_empty_root_says_what_to_set(tmp_path, name, field):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "things").mkdir(parents=True)
    for root in (tmp_path / "missing", tmp_path / "empty", tmp_path / "other"):
        with pytest.raises(UserError) as caught:
            build_dataset(name, environment(tmp_path, **{field: root}))
        for part in (name, str(root), field, f"COMPRESSTRACKER_{field.upper()}", "Expected layout"):
            assert part in str(caught.value)


def test_every_name_of_the_schema_has_a_place(tmp_path):
    env = environment(tmp_path)
    assert {place_of(name, env).dataset for name in DATASETS} == set(DATASETS)
    assert all(place_of(name, env).root and place_of(name, env).lmdb for name in DATASETS)


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="'LASSOT'.*LASOT.*FOLDER:"):
        build_dataset("LASSOT", environment(tmp_path))


def test_broken_annotation_names_the_file(tmp_path):
    root = trees.lasot(tmp_path / "lasot", names=("zebra-4",))
    (root / "zebra" / "zebra-4" / "groundtruth.txt").write_text("1,2,3\n")
    env = environment(tmp_path, lasot_dir=root)
    with pytest.raises(UserError, match="zebra-4/groundtruth.txt, line 1"):
        build_dataset("LASOT", env)
    (root / "zebra" / "zebra-4" / "groundtruth.txt").unlink()
    with pytest.raises(UserError, match="cannot read .*zebra-4/groundtruth.txt"):
        build_dataset("LASOT", env)
    assert not list((tmp_path / "index").glob("*/*"))


# ---------------------------------------------------------------- the data sets beyond OSTrack's default four

def test_imagenet_vid(tmp_path):
    root = trees.vid(tmp_path / "vid")
    env = environment(tmp_path, imagenet_dir=str(root))
    dataset = build_dataset("VID", env)
    assert len(dataset) == 2 and dataset.name == "imagenetvid" and dataset.is_video
    first, second = dataset.annotation(0), dataset.annotation(1)
    assert len(first.visible) == 21 and first.visible.all()  # what comes after the gap is left out
    assert first.boxes[2] == pytest.approx(trees.box(2))
    assert len(second.visible) == 21 and np.flatnonzero(~second.visible).tolist() == [2, 3]
    video = "Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000007"
    assert dataset.frame_path(1, 2) == str(root / video / "000005.JPEG")  # it starts in frame 3
    assert dataset.frame(1, 2).shape == (64, 96, 3)


def test_the_official_cache_of_imagenet_vid_is_read(tmp_path):
    root = trees.vid(tmp_path / "vid")
    env = environment(tmp_path, imagenet_dir=str(root))
    plain = build_dataset("VID", env)
    (root / "cache.json").write_bytes(plain.made_files()["cache.json"])
    entries = json.loads((root / "cache.json").read_text())
    assert len(entries) == 3 and set(entries[0]) == {"set_id", "vid_id", "class_name", "start_frame", "anno",
                                                     "target_visible", "image_size"}
    shutil.rmtree(root / "Annotations")
    cached = build_dataset("VID", env)
    assert list(cached.sequences) == list(plain.sequences) and cached.frame_path(1, 0) == plain.frame_path(1, 0)
    np.testing.assert_array_equal(cached.annotation(1).boxes, plain.annotation(1).boxes)
    for content in ("[{}]", "no json", '[{"anno": [], "target_visible": [], "vid_id": 7}]'):
        (root / "cache.json").write_text(content)
        with pytest.raises(UserError, match="cache.json is not OSTrack's cache file"):
            build_dataset("VID", env)


def test_a_broken_annotation_of_imagenet_vid_is_named(tmp_path):
    root = trees.vid(tmp_path / "vid")
    next((root / "Annotations").rglob("000004.xml")).write_text("<annotation><object/></annotation>")
    with pytest.raises(UserError, match="000004.xml is no annotation"):
        build_dataset("VID", environment(tmp_path, imagenet_dir=str(root)))
    shutil.rmtree(root / "Annotations" / "VID" / "train" / "ILSVRC2015_VID_train_0000")
    (root / "Annotations" / "VID" / "train" / "mine" / "video").mkdir(parents=True)
    with pytest.raises(UserError, match="mine/video: expected folders that end in _<number>"):
        build_dataset("VID", environment(tmp_path, imagenet_dir=str(root)))


def test_vasttrack(tmp_path):
    listed = [line.rpartition(":") for line in spec_lines("vasttrack_test.txt")]
    assert sum(len(read_ranges(numbers.split())) for _, _, numbers in listed) == 3500
    root = trees.vasttrack(tmp_path / "vast", names=("Air Hockey-500", "Air Hockey-4", "Aardwolf-3"))  # 4 is a test one
    (root / "Aardwolf" / "Aardwolf-3" / "Groundtruth.txt").rename(root / "Aardwolf" / "Aardwolf-3" / "groundtruth.txt")
    boxes = root / "Air Hockey" / "Air Hockey-500" / "Groundtruth.txt"
    boxes.write_text("0,0,0,0\n" + boxes.read_text().split("\n", 1)[1])
    dataset = build_dataset("VASTTRACK", environment(tmp_path, vasttrack_dir=str(root)))
    assert list(dataset.sequences) == ["Aardwolf/Aardwolf-3", "Air Hockey/Air Hockey-500"]
    assert check_frames(dataset, 0, 24).visible.all()
    assert np.flatnonzero(~dataset.annotation(1).visible).tolist() == [0]
    assert dataset.frame_path(1, 0).endswith("Air Hockey-500/imgs/00001.jpg")


def test_tnl2k(tmp_path):
    test = spec_lines("tnl2k_test.txt")
    assert len(set(test)) == len(test) == 700
    root = trees.tnl2k(tmp_path / "tnl", names=("Bird_27-Done", "train_p1/Boat_video1-Done", test[0]))
    dataset = build_dataset("TNL2K", environment(tmp_path, tnl2k_dir=str(root)))
    assert list(dataset.sequences) == ["Bird_27-Done", "train_p1/Boat_video1-Done"]
    assert check_frames(dataset, 1, 24).visible.all()
    assert dataset.frame_path(0, 2).endswith("Bird_27-Done/imgs/img100.png")  # natural order
    (root / "Bird_27-Done" / "imgs" / "img98.png").unlink()
    with pytest.raises(UserError, match="Bird_27-Done: groundtruth.txt holds 24 boxes, .* only 23 pictures"):
        build_dataset("TNL2K", environment(tmp_path, tnl2k_dir=str(root)))


def test_lasots_extension(tmp_path, caplog):
    root = trees.lasot(tmp_path / "ext", names=("atv-1", "rhino-10", "zebra-4"), hidden=(3,))
    dataset = build_dataset("LASOT_EXT", environment(tmp_path, lasot_extension_subset_dir=str(root)))
    assert list(dataset.sequences) == ["atv/atv-1", "rhino/rhino-10"] and dataset.name == "lasot_ext"
    assert "148 of 150 sequences are missing" in caplog.text
    assert np.flatnonzero(~dataset.annotation(0).visible).tolist() == [3]


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


def test_a_single_data_set_or_any_mixture_is_a_configuration():
    names = ["COCO:a.json@b", "VID", "VASTTRACK", "TNL2K", "LASOT_EXT", "FOLDER:c@d.txt"]
    for chosen in (names, ["VID"]):
        cfg = load_config("ostrack", "vitb_256_mae_32x4_ep300", [f"DATA.TRAIN.DATASETS_NAME={chosen}",
                                                                 f"DATA.TRAIN.DATASETS_RATIO={[1] * len(chosen)}"])
        assert list(cfg.DATA.TRAIN.DATASETS_NAME) == chosen
    for wrong in ("COCO:", "COCO18", "FOLDER:"):
        with pytest.raises(UserError, match="VASTTRACK.*FOLDER:<path>.*COCO:<annotation json>"):
            load_config("ostrack", "vitb_256_mae_32x4_ep300", [f"DATA.TRAIN.DATASETS_NAME=['{wrong}', 'LASOT']"])


def test_threads_may_share_the_videos_of_a_folder(tmp_path):
    dataset = build_dataset(f"FOLDER:{trees.folder(tmp_path / 'mine')}", environment(tmp_path))
    wanted = [(2, i) for i in (20, 3, 11, 7, 20, 0)] + [(0, 5)]
    alone = [dataset.frame(*frame) for frame in wanted]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(alone, pool.map(lambda frame: dataset.frame(*frame), wanted), strict=True):
            np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- which frames count: OSTrack's rules, computed apart

def official_boxes(rng, count=30):
    boxes = rng.integers(-3, 40, (count, 4)).astype(float)
    return boxes, (boxes[:, 2] > 0) & (boxes[:, 3] > 0)


def write_rows(path, rows):
    path.write_text("\n".join(",".join(f"{v:g}" for v in np.atleast_1d(row)) for row in rows) + "\n")


def test_valid_and_visible_frames_are_the_official_ones(tmp_path):
    rng = np.random.default_rng(0)
    got = trees.got10k(tmp_path / "got", sequences=1, frames=2) / "GOT-10k_Train_000001"
    lasot = trees.lasot(tmp_path / "lasot", names=("zebra-4",), frames=2) / "zebra" / "zebra-4"
    net = trees.trackingnet(tmp_path / "tn", chunks=(0,), frames=2) / "TRAIN_0" / "anno" / "video0_0.txt"
    env = environment(tmp_path, got10k_dir=str(tmp_path / "got"), lasot_dir=str(tmp_path / "lasot"),
                      trackingnet_dir=str(tmp_path / "tn"))
    for _ in range(5):
        boxes, valid = official_boxes(rng)
        absence, cover = rng.integers(0, 2, 30), rng.integers(0, 9, 30)
        occluded, outside = rng.integers(0, 2, (2, 30))
        for file in (got / "groundtruth.txt", lasot / "groundtruth.txt", net):
            write_rows(file, boxes)
        write_rows(got / "absence.label", absence)
        write_rows(got / "cover.label", cover)
        write_rows(lasot / "full_occlusion.txt", [occluded])
        write_rows(lasot / "out_of_view.txt", [outside])
        expected = {"GOT10K_train_full": valid & (absence == 0) & (cover > 0),
                    "LASOT": valid & (occluded == 0) & (outside == 0), "TRACKINGNET": valid}
        for name, visible in expected.items():
            annotation = build_dataset(name, env).annotation(0)
            np.testing.assert_array_equal(annotation.valid, valid)
            np.testing.assert_array_equal(annotation.visible, visible)
            np.testing.assert_array_equal(annotation.boxes[valid], boxes[valid].astype(np.float32))
