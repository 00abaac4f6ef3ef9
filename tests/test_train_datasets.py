"""Training data sets: which sequences, boxes, visible frames and pictures they give."""

import json
import logging
import shutil

import numpy as np
import pytest
import trees
from train_sets import environment

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


def test_a_single_data_set_or_any_mixture_is_a_configuration():
    names = ["COCO:a.json@b", "VID", "VASTTRACK", "TNL2K", "LASOT_EXT", "FOLDER:c@d.txt"]
    for chosen in (names, ["VID"]):
        cfg = load_config("ostrack", "vitb_256_mae_32x4_ep300", [f"DATA.TRAIN.DATASETS_NAME={chosen}",
                                                                 f"DATA.TRAIN.DATASETS_RATIO={[1] * len(chosen)}"])
        assert list(cfg.DATA.TRAIN.DATASETS_NAME) == chosen
    for wrong in ("COCO:", "COCO18", "FOLDER:"):
        with pytest.raises(UserError, match="VASTTRACK.*FOLDER:<path>.*COCO:<annotation json>"):
            load_config("ostrack", "vitb_256_mae_32x4_ep300", [f"DATA.TRAIN.DATASETS_NAME=['{wrong}', 'LASOT']"])


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
