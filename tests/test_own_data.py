"""Data of one's own: what is wrong with them is refused or mended by rule, in training, in testing and in the check."""

import json
import logging
import shutil

import cv2
import numpy as np
import pytest
import trees
from train_sets import environment

from lib.test.evaluation.datasets import get_dataset
from lib.train.dataset import build_dataset, open_dataset
from lib.train.dataset.checking import (
    ANNOTATION,
    DEPTH,
    FORM,
    LENGTH,
    NO_START,
    SIZE,
    UNBOXED,
    check_dataset,
)
from lib.utils.errors import UserError
from lib.utils.frames import open_frames
from lib.utils.sequences import find_sequences, match_frames

FRAMES = 24


def walk():
    """(N, 4) xywh of a target that crosses trees' pictures."""
    number = np.arange(FRAMES)[:, None]
    return np.hstack([4 + 2.5 * number, 3 + 1.5 * number, np.tile([24.0, 18.0], (FRAMES, 1))])


def written(form):
    boxes = walk()
    if form.endswith("xyxy"):
        boxes[:, 2:] += boxes[:, :2]
    elif form.endswith("cxcywh"):
        boxes[:, :2] += boxes[:, 2:] / 2
    return boxes / np.tile(trees.SIZE, 2) if form.startswith("normalised") else boxes


def sequence(folder, boxes, suffix=".jpg"):
    """A folder with one sequence `a`; gives the folder of its pictures."""
    for number in range(FRAMES):
        trees.write_picture(folder / "a" / "img" / f"{number + 1:04d}{suffix}", number)
    np.savetxt(folder / "a" / "groundtruth.txt", boxes, fmt="%.6f", delimiter=",")
    return folder / "a" / "img"


def found(root, **options):
    report = check_dataset(open_dataset(f"FOLDER:{root}", environment(root.parent)), **options)
    return {problem.kind: problem.detail for problem in report.problems}


def refused(root, message):
    """Both readers refuse a folder with the same words, and the check has them, too."""
    for read in (lambda: get_dataset(f"folder:{root}", None),
                 lambda: build_dataset(f"FOLDER:{root}", environment(root.parent))):
        with pytest.raises(UserError, match=message) as error:
            read()
    assert str(error.value) in found(root)[ANNOTATION]


# --- the form of boxes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "why"), [
    ("xyxy", "reach beyond the picture as x,y,w,h, and none as corners"),
    ("normalised-xywh", "all 24 boxes lie within 0..1"), ("normalised-xyxy", "all 24 boxes lie within 0..1")])
def test_boxes_of_another_form_are_refused_until_it_is_stated(tmp_path, form, why):
    sequence(tmp_path / "mine", written(form))
    refused(tmp_path / "mine", f"a/groundtruth.txt: the boxes are not x,y,w,h in pixels: .*{why}.*box_format.txt .*"
            f"`{form}`")
    for place in ("box_format.txt", "a/box_format.txt"):
        (tmp_path / "mine" / place).write_text(f"{form}\n")
        (read,) = get_dataset(f"folder:{tmp_path / 'mine'}", None)
        np.testing.assert_allclose(read.ground_truth, walk(), atol=1e-3)
        np.testing.assert_allclose(build_dataset(f"FOLDER:{tmp_path / 'mine'}", environment(tmp_path)).annotation(0)
                                   .boxes, walk(), atol=1e-3)
        assert found(tmp_path / "mine") == {}
        (tmp_path / "mine" / place).unlink()


def test_a_stated_form_is_believed(tmp_path):
    sequence(tmp_path / "mine", written("xyxy"))
    (tmp_path / "mine" / "box_format.txt").write_text("xywh")
    assert get_dataset(f"folder:{tmp_path / 'mine'}", None)[0].ground_truth == pytest.approx(written("xyxy"))
    (tmp_path / "mine" / "box_format.txt").write_text("corners")
    refused(tmp_path / "mine", "box_format.txt must hold one of xywh, xyxy, .*found 'corners'")


def test_a_form_that_is_stated_later_makes_a_new_index(tmp_path):
    root = tmp_path / "mine"
    sequence(root, written("cxcywh"))
    env = environment(tmp_path)
    env.index_dir = str(tmp_path / "index")
    before = build_dataset(f"FOLDER:{root}", env).annotation(0).boxes
    (root / "box_format.txt").write_text("cxcywh")
    after = build_dataset(f"FOLDER:{root}", env).annotation(0).boxes
    assert not np.allclose(before, after) and np.allclose(after, walk(), atol=1e-3)


def test_a_form_in_archives(tmp_path):
    root = tmp_path / "mine"
    sequence(root, written("normalised-xyxy"))
    (root / "box_format.txt").write_text("normalised-xyxy")
    trees.zipped(root, tmp_path / "mine.zip")
    shutil.rmtree(root)
    boxes = build_dataset(f"FOLDER:{root}", environment(tmp_path)).annotation(0).boxes
    np.testing.assert_allclose(boxes, walk(), atol=1e-3)


def test_videos_too(tmp_path):
    trees.write_video(tmp_path / "mine" / "a" / "clip.avi", FRAMES)
    np.savetxt(tmp_path / "mine" / "a" / "groundtruth.txt", written("xyxy"), delimiter=",")
    refused(tmp_path / "mine", "not x,y,w,h in pixels")


def test_rectangles_in_vots_layout(tmp_path):
    folder = sequence(tmp_path / "mine", written("xyxy"))
    folder.rename(folder.with_name("color"))
    with pytest.raises(UserError, match="not x,y,w,h in pixels.*box_format.txt"):
        get_dataset(f"vot:{tmp_path / 'mine'}", None)
    (tmp_path / "mine" / "box_format.txt").write_text("xyxy")
    np.testing.assert_allclose(get_dataset(f"vot:{tmp_path / 'mine'}", None)[0].ground_truth, walk(), atol=1e-3)


def test_a_known_data_set_with_other_boxes_is_found_by_the_check(tmp_path):
    root = trees.got10k(tmp_path / "got", sequences=2, frames=FRAMES)
    np.savetxt(root / "GOT-10k_Train_000002" / "groundtruth.txt", written("xyxy"), delimiter=",")
    report = check_dataset(open_dataset("GOT10K_train_full", environment(tmp_path, got10k_dir=str(root))))
    assert [(problem.kind, problem.where) for problem in report.problems] == [(FORM, "GOT-10k_Train_000002")]


# --- frames ---------------------------------------------------------------------------------------------------------


def numbers(frames):
    return [name.partition(".")[0] for name in frames.names]


@pytest.mark.parametrize("copies", [["0003 (1).jpg"], ["0003 - Copy.jpg", "0009 - Copy.jpg"], ["0005_copy.jpg"],
                                    ["0007.png"], ["cover.jpg", "0002 (1).jpg"]])
def test_copies_are_left_out(tmp_path, copies, caplog):
    folder = sequence(tmp_path / "mine", walk())
    for name in copies:
        trees.write_picture(folder / name, 1)
    with caplog.at_level(logging.WARNING):
        (files,) = find_sequences(tmp_path / "mine")
    assert numbers(files.frames) == [f"{i + 1:04d}" for i in range(FRAMES)]
    assert f"those that are called like 0001.jpg are taken, the {len(copies)} others are left out" in caplog.text
    assert f"{FRAMES + len(copies)} pictures for {FRAMES} boxes" in found(tmp_path / "mine")[LENGTH]


@pytest.mark.parametrize("hidden", ["._0001.jpg", ".0005.jpg", "Thumbs.db", ".DS_Store"])
def test_hidden_files_are_no_pictures(tmp_path, hidden, caplog):
    (sequence(tmp_path / "mine", walk()) / hidden).write_bytes(b"hidden")
    (files,) = find_sequences(tmp_path / "mine")
    assert len(files.frames) == FRAMES and not caplog.text and found(tmp_path / "mine") == {}


@pytest.mark.parametrize("name", ["{:04d}.png", "img{:04d}.jpg", "{:04d} (1).jpg", "{}.jpg", "{:04d}.JPG"])
def test_two_pictures_for_every_frame_are_refused(tmp_path, name):
    folder = sequence(tmp_path / "mine", walk())
    for i in range(FRAMES):
        shutil.copy(folder / f"{i + 1:04d}.jpg", folder / name.format(i + 1))
    refused(tmp_path / "mine", "a/img holds (48 pictures for 24 boxes, in 2 kinds: .*0001.*keep those|two pictures for "
            "one frame, .*; keep one of each)")


@pytest.mark.parametrize("copy", ["0003 (1).jpg", "0003 - Copy (2).jpg", "0003_copy.jpg", "0003.png", "3.jpg"])
def test_a_copy_in_place_of_a_missing_frame_is_refused(tmp_path, copy):
    folder = sequence(tmp_path / "mine", walk())
    (folder / "0020.jpg").rename(folder / copy)
    refused(tmp_path / "mine", "two pictures for one frame, .*3.*as many pictures as boxes")


def test_names_as_browsers_number_them_are_taken(tmp_path):
    folder = sequence(tmp_path / "mine", walk())
    for i in range(FRAMES):
        (folder / f"{i + 1:04d}.jpg").rename(folder / (f"cam1 ({i}).jpg" if i else "cam1.jpg"))
    (files,) = find_sequences(tmp_path / "mine")
    assert len(files.frames) == FRAMES and found(tmp_path / "mine") == {}


def test_what_is_there_is_named_where_frames_are_not(tmp_path):
    folder = sequence(tmp_path / "mine", walk())
    folder.rename(folder.with_name("IMG"))
    refused(tmp_path / "mine", "no frames in .*a, which holds IMG/, groundtruth.txt: expected pictures")


def test_in_a_benchmark_that_is_a_warning(tmp_path, caplog):
    folder = sequence(tmp_path / "mine", walk())
    for i in range(FRAMES):
        shutil.copy(folder / f"{i + 1:04d}.jpg", folder / f"{i + 1:04d}.png")
    assert len(match_frames(open_frames(folder), FRAMES, "b.txt", own=False)) == FRAMES
    assert "48 pictures for 24 boxes, in 2 kinds" in caplog.text and "the last 24 frames are left out" in caplog.text


def test_names_that_are_only_mixed_are_taken(tmp_path):
    folder = sequence(tmp_path / "mine", walk())
    (folder / "0003.jpg").rename(folder / "0003 (1).jpg")
    (folder / "0004.jpg").rename(folder / "0004.jpeg")
    (files,) = find_sequences(tmp_path / "mine")
    assert numbers(files.frames)[:5] == ["0001", "0002", "0003 (1)", "0004", "0005"]


def test_pictures_without_boxes_are_named(tmp_path, caplog):
    sequence(tmp_path / "mine", walk())
    trees.write_picture(tmp_path / "mine" / "b" / "img" / "1.jpg", 1)
    with caplog.at_level(logging.WARNING):
        assert [s.name for s in get_dataset(f"folder:{tmp_path / 'mine'}", None)] == ["a"]
    assert "1 folders hold pictures and no box file, and are left out: b" in caplog.text
    assert UNBOXED in found(tmp_path / "mine")


def test_pictures_of_16_bits_are_named(tmp_path, caplog, monkeypatch):
    from lib.utils import images

    monkeypatch.setattr(images, "_loss_named", type(images._loss_named)())
    folder = sequence(tmp_path / "mine", walk(), ".png")
    for file in folder.iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 3 + 7000)
    get_dataset(f"folder:{tmp_path / 'mine'}", None)
    assert caplog.text.count("0001.png: 16-bit pictures are cut to 8 bits") == 1
    caplog.clear()
    env = environment(tmp_path)
    env.index_dir = str(tmp_path / "index")
    for _ in range(2):  # whether the index is new or not
        build_dataset(f"FOLDER:{tmp_path / 'mine'}", env)
    assert caplog.text.count("0001.png: 16-bit pictures are cut to 8 bits") == 2
    assert "; 23 more" in found(tmp_path / "mine")[DEPTH]


# --- the first frame ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("boxes", "words"), [
    ([[0, 0, 0, 0]] * 2 + walk()[2:].tolist(), "the first box is in line 3: remove the lines and frames before it"),
    (np.full((FRAMES, 4), np.nan), "no line has one")])
def test_a_target_that_is_absent_at_first(tmp_path, boxes, words):
    folder = sequence(tmp_path / "mine", boxes)
    assert f"a/groundtruth.txt: the first frame has no box to start from; {words}" in found(tmp_path / "mine")[NO_START]
    folder.rename(folder.with_name("color"))
    for name in ("folder", "vot"):
        (read,) = get_dataset(f"{name}:{tmp_path / 'mine'}", None)
        with pytest.raises(UserError, match=f"a/groundtruth.txt: the first frame has no box .*{words}"):
            read.first_box()


# --- advice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False])
def test_the_layout_of_vots(tmp_path, listed):
    folder = sequence(tmp_path / "mine", walk()).parent
    (folder / "groundtruth.txt").rename(folder / "groundtruth_2.txt")
    if listed:
        (tmp_path / "mine" / "list.txt").write_text("a\n")
    with pytest.raises(UserError, match="groundtruth_<object>.txt, .* of VOTS .*copy one .*a/groundtruth.txt") as error:
        get_dataset(f"vot:{tmp_path / 'mine'}", None)
    assert "votchallenge" not in str(error.value)
    with pytest.raises(UserError, match="no sequence in .*mine; a: none of its files is a box file: groundtruth_2.txt"):
        get_dataset(f"folder:{tmp_path / 'mine'}", None)


def test_a_list_that_names_what_is_not_there(tmp_path):
    sequence(tmp_path / "mine", walk())
    (tmp_path / "mine" / "c").mkdir()
    (tmp_path / "mine" / "c" / "boxes.txt").write_text("1,2,3,4\n")
    (tmp_path / "mine" / "list.txt").write_text("a\n\nb\nc\n")
    with pytest.raises(UserError, match=r"list.txt, line 3, names 'b', .* no such folder.*c holds no ") as error:
        get_dataset(f"vot:{tmp_path / 'mine'}", None)
    assert "votchallenge" not in str(error.value)
    with pytest.raises(UserError, match=r"b \(no such folder\), c \(none of its files is a box file: boxes.txt\)"):
        get_dataset(f"folder:{tmp_path / 'mine'}@list.txt", None)


# --- COCO -----------------------------------------------------------------------------------------------------------


def detections(root, boxes, **more):
    """Annotations of one object in each of some pictures; gives the file's content and its name in a yaml."""
    for number in range(len(boxes)):
        trees.write_picture(root / f"{number}.jpg", number)
    content = {"images": [{"id": i, "file_name": f"{i}.jpg", "width": trees.SIZE[0], "height": trees.SIZE[1]} | more
                          for i in range(len(boxes))],
               "annotations": [{"id": 100 + i, "image_id": i, "bbox": list(box)} for i, box in enumerate(boxes)]}
    (root / "a.json").write_text(json.dumps(content))
    return content, f"COCO:{root}/a.json"


def boxes_of(dataset):
    return [dataset.annotation(i).boxes[0].tolist() for i in range(len(dataset))]


@pytest.mark.parametrize("form", ["xyxy", "normalised-xywh"])
@pytest.mark.parametrize("more", [{}, {"width": None, "height": 0}])
def test_objects_of_another_form_are_refused_until_it_is_stated(tmp_path, monkeypatch, form, more):
    _, name = detections(tmp_path / "mine", written(form), **more)
    with pytest.raises(UserError, match=f"a.json: the boxes are not x,y,w,h in pixels: .*`{form}`"):
        build_dataset(name, environment(tmp_path))
    (tmp_path / "mine" / "box_format.txt").write_text(form)
    monkeypatch.setattr("lib.train.dataset.coco.LOOKED_AT", 3)
    np.testing.assert_allclose(boxes_of(build_dataset(name, environment(tmp_path))), walk(), atol=1e-3)


@pytest.mark.parametrize(("change", "words"), [
    ({"bbox": [1, 2, 3]}, r"annotation 100 has the bbox \[1, 2, 3\]"), ({"bbox": ["1", 2, 3, 4]}, "the bbox"),
    ({"bbox": [1, 2, float("nan"), 4]}, "the bbox .*nan"), ({"bbox": [1, 2, float("inf"), 4]}, "the bbox .*inf"),
    ({"bbox": {"x": 1}}, "the bbox"), ({"bbox": [[1, 2, 3, 4]]}, "the bbox"), ({"bbox": [None] * 4}, "the bbox"),
    ({"image_id": "0"}, "annotation 100 has the image_id '0', which is not among"), ({"image_id": None}, "None, which"),
    ({"image_id": [0]}, r"\[0\], which"), ({"iscrowd": "0"}, "annotation 100 has the iscrowd '0'"),
])
def test_wrong_objects_are_named_and_counted(tmp_path, change, words):
    content, name = detections(tmp_path / "mine", walk()[:3])
    content["annotations"][0] |= change
    (tmp_path / "mine" / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"a.json is not a COCO instances file .*{words}.*correct it"):
        build_dataset(name, environment(tmp_path))
    content["annotations"][1] |= change
    content["annotations"].append(7)
    (tmp_path / "mine" / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"\(2 annotations .*, for instance annotation 100 .*; number 3 .* is 7\)"):
        build_dataset(name, environment(tmp_path))
    (problem,) = check_dataset(open_dataset(name, environment(tmp_path))).problems
    assert problem.kind == ANNOTATION and "2 annotations" in problem.detail


@pytest.mark.parametrize(("images", "words"), [
    ([{"id": 0, "file_name": "0.jpg"}, {"id": 0, "file_name": "1.jpg"}], "0.jpg and 1.jpg have the id 0"),
    ([{"id": 0}], "number 0 .* is {'id': 0}"), ([{"id": 0, "file_name": None}], "number 0"), (["0.jpg"], "number 0"),
    ({}, "must be lists")])
def test_wrong_images_are_named(tmp_path, images, words):
    content, name = detections(tmp_path / "mine", walk()[:1])
    (tmp_path / "mine" / "a.json").write_text(json.dumps(content | {"images": images}))
    with pytest.raises(UserError, match=words):
        build_dataset(name, environment(tmp_path))


def test_objects_without_a_box_are_left_out(tmp_path, caplog):
    content, name = detections(tmp_path / "mine", walk()[:6])
    for annotation, box in zip(content["annotations"], (None, [], [1, 2, -3, 4]), strict=False):
        annotation["bbox"] = box
    content["annotations"][0]["segmentation"] = "odd"
    del content["annotations"][3]["bbox"]
    content["images"].append(dict(content["images"][0]))  # twice, and the same
    content["annotations"][4]["image_id"] = 4.0
    (tmp_path / "mine" / "a.json").write_text(json.dumps(content))
    dataset = build_dataset(name, environment(tmp_path))
    assert boxes_of(dataset) == walk()[4:6].tolist() and dataset.frame_path(0, 0).endswith("4.jpg")
    assert "1 of 3 objects have no area (a width or height that is not positive), and 3 more no box" in caplog.text


def test_sizes_that_are_not_those_of_the_pictures(tmp_path, caplog):
    """As in annotations of pictures before their Exif data turned them."""
    _, name = detections(tmp_path / "mine", walk()[:3], width=trees.SIZE[1], height=trees.SIZE[0])
    problems = check_dataset(open_dataset(name, environment(tmp_path))).problems
    assert {problem.kind for problem in problems} == {SIZE} and len(problems) == 3
    assert "0.jpg is 96 x 64, and the annotations say 64 x 96" in problems[0].detail
    build_dataset(name, environment(tmp_path))
    assert caplog.text.count("0.jpg is 96 x 64, and the annotations say 64 x 96") == 1


# --- text files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "content", "words"), [
    ("a/groundtruth.txt", "1,2,3,4\n".encode("utf-16"), "groundtruth.txt is no text in UTF-8 .see byte 0.; save it"),
    ("a/absence.label", b"0\nno\n", "absence.label: expected one whole number per frame, found 'no'")])
def test_text_that_cannot_be_read(tmp_path, file, content, words):
    sequence(tmp_path / "mine", walk())
    (tmp_path / "mine" / file).write_bytes(content)
    refused(tmp_path / "mine", words)


@pytest.mark.parametrize("content", [b'{"images": [}', b"\xff\xfe{}", b"[]", b'{"images": []}'])
def test_json_that_is_none(tmp_path, content):
    _, name = detections(tmp_path / "mine", walk()[:1])
    (tmp_path / "mine" / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="is not a COCO instances file .(no JSON text|no object with the lists)"):
        build_dataset(name, environment(tmp_path))
