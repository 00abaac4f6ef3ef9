"""The check of data sets: every kind of damage is found and named, nothing else is."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
import trees
from train_sets import MAKERS, OWN, OWN_FORMS, environment, in_form

from lib.train.dataset import open_dataset
from lib.train.dataset.checking import (
    ANNOTATION,
    DAMAGED,
    LENGTH,
    MISSING,
    NO_IMAGE,
    NO_SIZE,
    NO_START,
    OUTSIDE,
    UNREADABLE,
    check_dataset,
)
from lib.train.dataset.startup import measure_startup
from lib.utils.errors import UserError
from lib.utils.local_files import train_fields


@pytest.fixture
def script(root, tmp_path, monkeypatch):
    """`tracking/check_data.py` with every folder of the environment below the test's."""
    for name in train_fields():
        if name.endswith("_dir") and name != "index_dir":
            monkeypatch.setenv(f"COMPRESSTRACKER_{name.upper()}", str(tmp_path / name))
    monkeypatch.syspath_prepend(str(root / "tracking"))
    sys.modules.pop("check_data", None)
    import check_data

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["check_data.py", *map(str, arguments)])
        return check_data.main()

    return run


def report_of(name, tmp_path, **options):
    return check_dataset(open_dataset(name, environment(tmp_path, **{MAKERS[name][0]: str(tmp_path / "data")})),
                         **options)


def kinds(report, but=(MISSING,)):
    return {problem.kind for problem in report.problems} - set(but)


@pytest.mark.parametrize("name", MAKERS)
def test_whole_data_sets_are_clean(tmp_path, name):
    MAKERS[name][1](tmp_path / "data")
    report = report_of(name, tmp_path, decode=True)
    assert kinds(report) == set()
    assert report.sequences >= 2 and report.images == report.frames > 0
    assert report_of(name, tmp_path, sample=2).images <= 2 * report.sequences


def spoil(tmp_path, name="LASOT"):
    """The folder of a sequence of a new LaSOT."""
    MAKERS[name][1](tmp_path / "data")
    return tmp_path / "data" / "zebra" / "zebra-4"


def edit(file, change):
    lines = file.read_text().splitlines()
    file.write_text("\n".join(change(lines)) + "\n")


def remove_image(folder):
    (folder / "img" / "00000007.jpg").unlink()


def cut_image(folder):
    path = folder / "img" / "00000007.jpg"
    path.write_bytes(path.read_bytes()[:900])


def no_image(folder):
    (folder / "img" / "00000007.jpg").write_bytes(b"<html>" * 20)


def empty_image(folder):
    (folder / "img" / "00000007.jpg").write_bytes(b"")


def more_images(folder):
    trees.write_picture(folder / "img" / "00000025.jpg", 1)


def fewer_boxes(folder):
    edit(folder / "groundtruth.txt", lambda lines: lines[:20])


def more_boxes(folder):
    edit(folder / "groundtruth.txt", lambda lines: [*lines, lines[-1]])


def bad_box(folder):
    edit(folder / "groundtruth.txt", lambda lines: [*lines[:3], "1,2,x,4", *lines[4:]])


def box_outside(folder):
    edit(folder / "groundtruth.txt", lambda lines: [*lines[:3], "97,2,10,10", "-20,3,20,5", *lines[5:]])


def flat_box(folder):
    edit(folder / "groundtruth.txt", lambda lines: [*lines[:3], "5,5,0,10", *lines[4:]])


def no_labels(folder):
    (folder / "out_of_view.txt").unlink()


def no_boxes(folder):
    (folder / "groundtruth.txt").unlink()


@pytest.mark.parametrize(("damage", "kind", "words"), [
    (remove_image, NO_IMAGE, "1 of 24, for instance zebra/zebra-4/img/00000007.jpg"),
    (no_image, UNREADABLE, "cannot decode the image zebra/zebra-4/img/00000007.jpg (120 bytes)"),
    (empty_image, UNREADABLE, "(0 bytes)"),
    (more_images, LENGTH, "25 pictures for 24 boxes"), (fewer_boxes, LENGTH, "24 pictures for 20 boxes"),
    (fewer_boxes, LENGTH, "out_of_view.txt holds 24 labels for 20 boxes"), (more_boxes, ANNOTATION, "24 labels for 25"),
    (bad_box, ANNOTATION, "groundtruth.txt, line 4"), (no_boxes, ANNOTATION, "cannot read"),
    (box_outside, OUTSIDE, "00000004.jpg of 96 x 64 has the box 97,2,10,10; 1 more"),
    (flat_box, NO_SIZE, "1 frames, for instance frame 3"), (no_labels, LENGTH, "out_of_view.txt is missing"),
])
def test_what_is_wrong_is_named(tmp_path, damage, kind, words):
    damage(spoil(tmp_path))
    report = report_of("LASOT", tmp_path)
    found = [problem for problem in report.problems if problem.kind == kind]
    assert any(words in problem.detail for problem in found), report.text()
    assert {problem.where for problem in found} == {"zebra/zebra-4"}
    assert not report.clean and kind in report.text()


def test_a_cut_image_is_found_by_decoding(tmp_path):
    cut_image(spoil(tmp_path))
    assert kinds(report_of("LASOT", tmp_path)) == set()
    assert kinds(report_of("LASOT", tmp_path, decode=True)) == {UNREADABLE}


def test_an_image_with_damage_inside_is_found_by_decoding(tmp_path):
    path = spoil(tmp_path) / "img" / "00000007.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    path.write_bytes(data[:4000] + bytes(60) + data[4060:])
    report = report_of("LASOT", tmp_path, decode=True)
    assert kinds(report) in ({DAMAGED}, {UNREADABLE}) and "00000007.jpg" in report.text()


def test_missing_sequences(tmp_path):
    spoil(tmp_path)
    report = report_of("LASOT", tmp_path)
    assert sum(problem.kind == MISSING for problem in report.problems) == 1118
    assert "missing sequence: 1118" in report.text() and "and 1113 more" in report.text()
    trees.trackingnet(tmp_path / "tn")
    env = environment(tmp_path, trackingnet_dir=str(tmp_path / "tn"))
    found = check_dataset(open_dataset("TRACKINGNET", env)).problems
    assert [problem.where for problem in found] == [f"TRAIN_{i}" for i in range(1, 11)]


def test_objects_of_coco(tmp_path):
    root = MAKERS["COCO17"][1](tmp_path / "data")
    report = report_of("COCO17", tmp_path)
    assert report.clean and "1 of 3 objects have no area" in report.text()
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    content["annotations"][0]["bbox"] = [96, 1, 5, 5]
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    next((root / "images" / "train2017").glob("*7.jpg")).unlink()
    assert kinds(report_of("COCO17", tmp_path)) == {OUTSIDE, NO_IMAGE}


def test_tnl2k_with_too_few_pictures(tmp_path):
    root = MAKERS["TNL2K"][1](tmp_path / "data")
    (root / "Bird_27-Done" / "imgs" / "img98.png").unlink()
    (problem,) = report_of("TNL2K", tmp_path).problems
    assert problem.kind == NO_IMAGE and "1 of 24" in problem.detail


def test_folders_of_ones_own(tmp_path):
    root = trees.folder(tmp_path / "mine")
    env = environment(tmp_path)
    report = check_dataset(open_dataset(f"FOLDER:{root}", env))
    assert report.clean and report.frames == 72 and report.images == 48 and report.video_frames == 24
    assert "48 images their headers read, 24 frames of videos run through" in report.text()
    boxes = next((root / "third").glob("*.txt"))
    kept = boxes.read_text()
    edit(boxes, lambda lines: [lines[0], "5000,5000,20,30", *lines[2:5], "-9,3,5,5", *lines[6:]])
    (problem,) = check_dataset(open_dataset(f"FOLDER:{root}", env)).problems
    assert (problem.kind, problem.where, problem.count) == (OUTSIDE, "third", 2)
    assert "frame 1 (counted from 0) of" in problem.detail and "has the box 5000,5000,20,30; 1 more" in problem.detail
    boxes.write_text(kept)
    trees.write_picture(root / "first" / "img" / "24.png", 1)
    (root / "second" / "frame5.jpg").write_bytes(b"no picture")
    (root / "first" / "full_occlusion.txt").write_text("0\n" * 24)
    edit(root / "first" / "groundtruth_rect.txt", lambda lines: ["NaN NaN NaN NaN", "200 3 4 5", *lines[2:]])
    video = root / "third" / "clip.avi"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    report = check_dataset(open_dataset(f"FOLDER:{root}", env))
    found = {problem.where: problem.kind for problem in report.problems}
    assert found["second"] == UNREADABLE and found["third"] in (UNREADABLE, ANNOTATION)
    assert {p.kind for p in report.problems if p.where == "first"} == {NO_SIZE, NO_START, OUTSIDE, LENGTH}


@pytest.mark.parametrize("form", OWN_FORMS)
@pytest.mark.parametrize("name", OWN)
def test_own_data_is_checked_in_every_form(tmp_path, script, capsys, name, form):
    root = OWN[name](tmp_path / "mine")
    picture = next(path for path in sorted(root.rglob("*.jpg")))
    in_form(form, name, root)
    assert script(name.format(root), "--storage", form.removesuffix("s"), "--decode") == 0
    shown = capsys.readouterr().out
    images = 2 if name.startswith("COCO") else 48
    assert f"({form.removesuffix('s')}, " in shown and f"{images} images decoded" in shown
    moved = tmp_path / "moved" / picture.relative_to(root)
    moved.write_bytes(b"no picture")
    again = tmp_path / "again"
    shutil.move(tmp_path / "moved", again)
    in_form(form, name, again)
    assert script(name.format(again)) == 1
    shown = capsys.readouterr().out
    assert "unreadable image: 1" in shown and picture.name in shown


def test_a_video_in_an_archive_is_named(tmp_path, script, capsys):
    root = trees.folder(tmp_path / "mine")
    in_form("zip", "FOLDER:{}", root)
    assert script(f"FOLDER:{root}.zip") == 1
    shown = capsys.readouterr().out
    assert "unusable annotation: 1" in shown and "clip.avi: a video can only be read as a file on the disk" in shown


@pytest.mark.parametrize("form", ("zip", "lmdb"))
def test_archives_are_checked_too(tmp_path, form):
    from lib.train.dataset.packing import pack, plan

    folder = spoil(tmp_path)
    no_image(folder)
    if form == "zip":
        trees.zipped(tmp_path / "data", tmp_path / "z.zip")
        env = environment(tmp_path, lasot_dir=str(tmp_path / "z"))
    else:
        dataset = open_dataset("LASOT", environment(tmp_path, lasot_dir=str(tmp_path / "data")))
        (target,) = plan(dataset, tmp_path / "l")
        pack(dataset.storage, target)
        env = environment(tmp_path, lasot_lmdb_dir=str(tmp_path / "l"))
    report = check_dataset(open_dataset("LASOT", env))
    assert report.form == form and kinds(report) == {UNREADABLE}


def test_exit_status_and_report_file(tmp_path, script, capsys, caplog):
    root = trees.got10k(tmp_path / "got10k_dir")
    assert script("GOT10K_train_full", "--json", tmp_path / "out.json") == 0
    assert "no problem found" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["clean"] is True
    (root / "GOT-10k_Train_000002" / "00000003.jpg").unlink()
    assert script("GOT10K_train_full", "--json", tmp_path / "out.json") == 1
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["clean"] is False and content["reports"][0]["problems"][0]["kind"] == NO_IMAGE
    assert script("GOT10K_train_full", "LASOT", "--json", tmp_path / "out.json") == 2
    assert "lasot_dir" in caplog.text
    content = json.loads((tmp_path / "out.json").read_text())
    assert [entry["dataset"] for entry in content["absent"]] == ["LASOT"] and len(content["reports"]) == 1
    assert script("LASSOT") == 2


def test_all_data_sets_of_an_experiment(tmp_path, script, capsys):
    trees.lasot(tmp_path / "lasot_dir", names=("zebra-4",))
    mine = trees.folder(tmp_path / "mine")
    options = [f"DATA.TRAIN.DATASETS_NAME=[LASOT, 'FOLDER:{mine}']", "DATA.TRAIN.DATASETS_RATIO=[1, 1]",
               f"DATA.VAL.DATASETS_NAME=['FOLDER:{mine}']"]
    config = ("--script", "compresstracker", "--config")
    arguments = [word for option in options for word in ("--set", option)]
    assert script(*config, "compresstracker_vitb_256_4", *arguments) == 1
    shown = capsys.readouterr().out
    assert shown.count("FOLDER:") == 1 and "LASOT (directory" in shown
    with pytest.raises(UserError, match="no configuration"):
        script(*config, "no_such")


@pytest.mark.parametrize("arguments", [(), ("LASOT", "--sample", "-1"), ("LASOT", "--threads", "0"),
                                       ("LASOT", "--set", "A=1"), ("--benchmark", "0"),
                                       ("--config", "x"), ("LASOT", "--script", "ostrack")])
def test_wrong_options(script, arguments):
    with pytest.raises(SystemExit) as ended:
        script(*arguments)
    assert ended.value.code == 2


def test_the_measurement_of_a_start(monkeypatch):
    monkeypatch.setattr("lib.train.dataset.startup._start", lambda folder, draws: {
        "start": draws, "draw": 2, "before": 3, "own": 4, "shared": 5})
    text = measure_startup(30, frames=25, draws=10)
    assert "directory: 30 sequences, 750 frames, 10 draws" in text and "seconds to start" in text and "10.00" in text
    with pytest.raises(UserError, match="directory and zip, not for lmdb"):
        measure_startup(30, form="lmdb")
    monkeypatch.setattr("lib.train.dataset.startup.STATUS", trees.Path("/no/such/file"))
    with pytest.raises(UserError, match="needs Linux"):
        measure_startup(30)


@pytest.mark.parametrize("form", ("directory", "zip"))
def test_a_start_is_measured_in_the_process_itself(tmp_path, form):
    from lib.train.dataset.startup import _write, start_and_draw

    _write(tmp_path, 30, 25, form)
    first = start_and_draw(str(tmp_path), 20)
    assert set(first) == {"start", "draw", "before", "own", "shared"} and first["start"] > 0 and first["before"] > 10
    (boxes,) = (tmp_path / "index").glob("trackingnet-*/*/boxes.npy")
    assert (boxes.parent / "archive.members.npy").is_file() == (form == "zip")
    assert len(np.load(boxes)) == 30 * 25
