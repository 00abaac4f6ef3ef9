"""Every benchmark: its data file against published counts, and its reader on small trees in the published layout."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trees
from test_sequences import number_of

from lib.test.analysis.metrics import convention_for
from lib.test.analysis.results import ResultFolder
from lib.test.evaluation import get_dataset
from lib.test.evaluation.benchmarks import ALIASES, BENCHMARKS, SPECS, load_spec
from lib.test.evaluation.results import dataset_folder
from lib.utils.errors import UserError
from lib.utils.local_files import test_fields as fields_of_tests

COUNTS = json.loads((Path(__file__).parent / "benchmark_counts.json").read_text())

# Benchmark, sequence, box file, boxes, first and last frame that are tracked. The numbers come from the benchmarks'
# documentation and stand here a second time on purpose.
NUMBERED = [
    ("lasot", "airplane-1", "airplane/airplane-1/groundtruth.txt", 2788,
     "airplane/airplane-1/img/00000001.jpg", "airplane/airplane-1/img/00002788.jpg"),
    ("lasot", "zebra-10", "zebra-10/groundtruth.txt", 2008, "zebra-10/img/00000001.jpg", "zebra-10/img/00002008.jpg"),
    ("lasot_extension_subset", "atv-1", "atv/atv-1/groundtruth.txt", 9,
     "atv/atv-1/img/00000001.jpg", "atv/atv-1/img/00000009.jpg"),
    ("lasot_ext", "wingsuit-10", "wingsuit/wingsuit-10/groundtruth.txt", 9,
     "wingsuit/wingsuit-10/img/00000001.jpg", "wingsuit/wingsuit-10/img/00000009.jpg"),
    ("otb", "Basketball", "Basketball/groundtruth_rect.txt", 725, "Basketball/img/0001.jpg", "Basketball/img/0725.jpg"),
    ("otb", "David", "David/groundtruth_rect.txt", 471, "David/img/0300.jpg", "David/img/0770.jpg"),
    ("otb", "Diving", "Diving/groundtruth_rect.txt", 215, "Diving/img/0001.jpg", "Diving/img/0215.jpg"),
    ("otb", "Football1", "Football1/groundtruth_rect.txt", 74, "Football1/img/0001.jpg", "Football1/img/0074.jpg"),
    ("otb", "Freeman3", "Freeman3/groundtruth_rect.txt", 460, "Freeman3/img/0001.jpg", "Freeman3/img/0460.jpg"),
    ("otb", "Freeman4", "Freeman4/groundtruth_rect.txt", 283, "Freeman4/img/0001.jpg", "Freeman4/img/0283.jpg"),
    ("otb", "BlurCar1", "BlurCar1/groundtruth_rect.txt", 742, "BlurCar1/img/0247.jpg", "BlurCar1/img/0988.jpg"),
    ("otb", "Tiger1", "Tiger1/groundtruth_rect.txt", 354, "Tiger1/img/0006.jpg", "Tiger1/img/0354.jpg"),
    ("otb", "Board", "Board/groundtruth_rect.txt", 698, "Board/img/00001.jpg", "Board/img/00698.jpg"),
    ("otb", "Human4_2", "Human4/groundtruth_rect.2.txt", 667, "Human4/img/0001.jpg", "Human4/img/0667.jpg"),
    ("otb100", "Jogging_1", "Jogging/groundtruth_rect.1.txt", 307, "Jogging/img/0001.jpg", "Jogging/img/0307.jpg"),
    ("otb100", "KiteSurf", "KiteSurf/groundtruth_rect.txt", 84, "KiteSurf/img/0001.png", "KiteSurf/img/0084.png"),
    ("otb50", "Skating2_2", "Skating2/groundtruth_rect.2.txt", 473, "Skating2/img/0001.jpg", "Skating2/img/0473.jpg"),
    ("uav", "uav_bike1", "anno/UAV123/bike1.txt", 3085,
     "data_seq/UAV123/bike1/000001.jpg", "data_seq/UAV123/bike1/003085.jpg"),
    ("uav123", "uav_bird1_2", "anno/UAV123/bird1_2.txt", 703,
     "data_seq/UAV123/bird1/000775.jpg", "data_seq/UAV123/bird1/001477.jpg"),
    ("uav20l", "bird1", "anno/UAV20L/bird1.txt", 2437,
     "data_seq/UAV123/bird1/000001.jpg", "data_seq/UAV123/bird1/002437.jpg"),
    ("nfs", "nfs_Gymnastics", "anno/nfs_Gymnastics.txt", 368,
     "sequences/Gymnastics/00001.jpg", "sequences/Gymnastics/00368.jpg"),
    ("tc128", "Busstation_ce2", "Busstation_ce2/Busstation_ce2_gt.txt", 395,
     "Busstation_ce2/img/0006.jpg", "Busstation_ce2/img/0400.jpg"),
    ("tc128ce", "Yo-yos_ce1", "Yo-yos_ce1/Yo-yos_ce1_gt.txt", 235,
     "Yo-yos_ce1/img/0001.jpg", "Yo-yos_ce1/img/0235.jpg"),
    ("vasttrack", "Aardwolf-1", "Aardwolf/Aardwolf-1/Groundtruth.txt", 60,
     "Aardwolf/Aardwolf-1/imgs/00001.jpg", "Aardwolf/Aardwolf-1/imgs/00060.jpg"),
]
# Benchmark, sequence, box file, boxes, folder of the pictures, format of a picture's name.
LISTED = [
    ("tnl2k", "HaiBao_video_06-done", "HaiBao_video_06-done/groundtruth.txt", 46, "HaiBao_video_06-done/imgs",
     "x{}.png"),
    ("itb", "NFS-parkour", "Human_part/NFS-parkour/groundtruth.txt", 58, "Human_part/NFS-parkour", "{:05d}.jpg"),
    ("vasttrack", "Football-1", "Football/Football-1/Groundtruth.txt", 5, "Football/Football-1/imgs", "f{}.jpg"),
    ("got10k_val", "GOT-10k_Val_000001", "val/GOT-10k_Val_000001/groundtruth.txt", 4, "val/GOT-10k_Val_000001",
     "{:08d}.jpg"),
    ("got10k_train", "a", "train/a/groundtruth.txt", 4, "train/a", "{:08d}.jpg"),
    ("got10k_test", "b", "test/b/groundtruth.txt", 1, "test/b", "{:08d}.jpg"),
    ("trackingnet", "c_0", "TEST/anno/c_0.txt", 1, "TEST/frames/c_0", "{}.jpg"),
    ("vot18", "ants1", "ants1/groundtruth.txt", 4, "ants1/color", "{:08d}.jpg"),
    ("vot2019", "agility", "agility/groundtruth.txt", 4, "agility/color", "{:08d}.jpg"),
    ("vot22", "animal", "animal/groundtruth.txt", 4, "animal", "{:08d}.jpg"),
]


def env_for(name, root):
    return SimpleNamespace(**{BENCHMARKS[ALIASES.get(name, name)].field: str(root)})


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def labels(folder, count, hidden=()):
    for name, frames in (("full_occlusion.txt", hidden[:1]), ("out_of_view.txt", hidden[1:])):
        write(folder / name, ",".join(str(int(i in frames)) for i in range(count)))


@pytest.mark.parametrize("name", COUNTS)
def test_lists_have_the_published_size(name):
    spec, counts = load_spec(name), COUNTS[name]
    assert len(spec.sequences) == counts["sequences"]
    if counts["frames"] is not None:
        assert sum(entry.length for entry in spec.sequences.values()) == counts["frames"]


def test_every_list_is_counted():
    assert set(COUNTS) == {name for name in BENCHMARKS if load_spec(name).sequences}
    assert all(count["source"] for count in COUNTS.values())


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_data_files_agree_with_themselves(name):
    spec = load_spec(name)
    assert spec.title and spec.sources and spec.layout and spec.download.startswith("http")
    assert spec.field in fields_of_tests()
    assert not set(spec.aliases) & set(BENCHMARKS)
    for entry in spec.sequences.values():
        assert set(entry.attributes.split()) <= set(spec.attributes)
        assert entry.last is None or 0 <= entry.skip < entry.length
    assert not spec.attributes or any(entry.attributes for entry in spec.sequences.values())
    assert (SPECS / f"{name}.json").read_text().isascii()


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_table_of_the_documentation_is_true(root, name):
    page = (root / "docs" / "evaluation.md").read_text()
    row, = (line for line in page.splitlines() if line.startswith(f"| `{name}` ") and line.count("|") == 7)
    spec = load_spec(name)
    names, place, sequences, frames, source, scores = (cell.strip() for cell in row.strip("|").split("|"))
    assert all(f"`{alias}`" in names for alias in spec.aliases)
    folder = Path(fields_of_tests("/w", "/data")[spec.field]).name
    assert place == f"`{spec.field}`: `{folder}`" and f"({spec.download})" in source
    assert sequences == (str(len(spec.sequences)) if spec.sequences else "as on disk")
    lengths = [entry.length for entry in spec.sequences.values()]
    assert frames == (f"{sum(lengths):,}" if lengths and None not in lengths else "as on disk")
    assert scores == ("its server" if spec.first_box_only else f"here, convention `{convention_for(name).name}`")


def test_names_do_not_clash():
    """Names of sequences that two data sets use need folders of their own for the results."""
    shared = [spec for spec in map(load_spec, BENCHMARKS) if dataset_folder(spec.dataset) == ""]
    owners = {}
    for spec in shared:
        for sequence in spec.sequences:
            assert owners.setdefault(spec.prefix + sequence, spec.dataset) == spec.dataset
    assert dataset_folder("tc128") == "tc128" and dataset_folder("vot:mine") == "vot_mine"
    assert len({alias for name in BENCHMARKS for alias in load_spec(name).aliases}) == len(ALIASES)


def test_results_of_a_name_are_not_taken_for_another_benchmark(tmp_path):
    write(tmp_path / "Basketball.txt", "1\t2\t3\t4\n")
    folder = ResultFolder("mine", tmp_path)
    assert folder.locate(SimpleNamespace(name="Basketball", dataset="otb"))
    assert folder.locate(SimpleNamespace(name="Basketball", dataset="tc128")) is None
    write(tmp_path / "tc128" / "Basketball.txt", "1\t2\t3\t4\n")
    assert folder.locate(SimpleNamespace(name="Basketball", dataset="tc128"))


@pytest.mark.parametrize(("name", "sequence", "box_file", "boxes", "first", "last"), NUMBERED,
                         ids=[f"{case[0]}-{case[1]}" for case in NUMBERED])
def test_numbered_frames(tmp_path, monkeypatch, name, sequence, box_file, boxes, first, last):
    trees.write_boxes(tmp_path / box_file, boxes, separator="\t" if "nfs" in name else ",")
    if "lasot" in name:
        labels((tmp_path / box_file).parent, boxes, hidden=(2, 3))
    trees.write_picture(tmp_path / first, 3)
    trees.write_picture(tmp_path / last, 11)

    def listing(*_):
        raise AssertionError("numbered frames are not to be listed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", listing)
        patch.setattr(os, "scandir", listing)
        found, = get_dataset(name, env_for(name, tmp_path), sequence)
    skipped = 5 if sequence == "Tiger1" else 0
    assert found.name == sequence and found.dataset == load_spec(ALIASES.get(name, name)).dataset
    assert found.length == len(found.ground_truth) == boxes - skipped
    assert found.first_box() == trees.box(skipped) and found.ground_truth[-1] == pytest.approx(trees.box(boxes - 1))
    assert found.frames.path(0) == str(tmp_path / first) and number_of(found.frames[0]) == 3
    assert found.frames.path(found.length - 1) == str(tmp_path / last) and number_of(found.frames[-1]) == 11
    if "lasot" in name:
        assert np.flatnonzero(~found.visible).tolist() == [2, 3]
        assert found.object_class == sequence.rpartition("-")[0]


@pytest.mark.parametrize(("name", "sequence", "box_file", "boxes", "folder", "picture"), LISTED,
                         ids=[f"{case[0]}-{case[1]}" for case in LISTED])
def test_listed_frames(tmp_path, name, sequence, box_file, boxes, folder, picture):
    trees.write_boxes(tmp_path / box_file, boxes)
    frames = max(boxes, 3)
    for i in range(frames):
        trees.write_picture(tmp_path / folder / picture.format(i + 1), i % 30, size=(32, 24))
    found, = get_dataset(name, env_for(name, tmp_path), sequence)
    assert found.name == sequence and found.length == frames
    assert found.first_box() == trees.box(0)
    assert np.isfinite(found.ground_truth).all(axis=1).sum() == boxes, "only annotated frames have boxes"
    assert found.frames.path(2) == str(tmp_path / folder / picture.format(3))
    assert found.frames[2].shape == (24, 32, 3)


def test_attributes_and_classes(tmp_path):
    trees.write_boxes(tmp_path / "Tiger1" / "groundtruth_rect.txt", 354)
    for number in (6, 354):
        trees.write_picture(tmp_path / "Tiger1" / "img" / f"{number:04d}.jpg", 1)
    tiger, = get_dataset("otb", env_for("otb", tmp_path), "Tiger1")
    assert tiger.attributes == ("IV", "OCC", "DEF", "MB", "FM", "IPR", "OPR")
    assert BENCHMARKS["otb"].attributes["IPR"] == "In-Plane Rotation"
    assert asdict(load_spec("uav").sequences["bird1_2"])["object_class"] == "bird"


def vatic(count):
    rows = [trees.box(i) for i in range(count)]
    return "".join(f"0 {x:.0f} {y:.0f} {x + w:.0f} {y + h:.0f} {i + 1} 0 1 0 \"ball\"\n"
                   for i, (x, y, w, h) in enumerate(rows))


@pytest.mark.parametrize(("lines", "frames"), [(40, 5), (33, 5), (41, 6), (48, 5), (5, 5), (6, 5)])
def test_nfs_as_downloaded(tmp_path, lines, frames):
    """30 FPS: a box for each frame at 240 FPS, or for each frame, and perhaps one too many."""
    write(tmp_path / "airboard_1" / "30" / "airboard_1.txt", vatic(lines))
    for i in range(frames):
        trees.write_picture(tmp_path / "airboard_1" / "30" / "airboard_1" / f"{i + 1:05d}.jpg", i)
    found, = get_dataset("nfs30", env_for("nfs", tmp_path), "nfs_airboard_1")
    step = 8 if lines > 6 else 1
    assert found.length == frames and found.dataset == "nfs" and found.visible is None
    assert found.ground_truth.tolist() == [trees.box(i * step) for i in range(frames)]


def test_nfs_with_boxes_of_neither_rate(tmp_path):
    write(tmp_path / "airboard_1" / "30" / "airboard_1.txt", vatic(12))
    for i in range(5):
        trees.write_picture(tmp_path / "airboard_1" / "30" / "airboard_1" / f"{i + 1:05d}.jpg", i)
    with pytest.raises(UserError, match="12 boxes but there are only 5 frames"):
        get_dataset("nfs", env_for("nfs", tmp_path), "nfs_airboard_1")


def test_nfs_at_240_frames(tmp_path):
    write(tmp_path / "airboard_1" / "240" / "airboard_1.txt", vatic(7))
    for i in range(6):
        trees.write_picture(tmp_path / "airboard_1" / "240" / "airboard_1" / f"{i + 1:05d}.jpg", i)
    env = env_for("nfs240", tmp_path)
    found, = get_dataset("nfs240", env, "nfs_airboard_1")
    assert found.length == 6 and found.ground_truth[5].tolist() == trees.box(5)
    write(tmp_path / "airboard_1" / "240" / "airboard_1.txt", vatic(8))
    with pytest.raises(UserError, match="8 boxes but there are only 6 frames"):
        get_dataset("nfs240", env, "nfs_airboard_1")
    write(tmp_path / "airboard_1" / "240" / "airboard_1.txt", "0 1 2 3 4 1 0 0 0 x\n1,2,3,4\n")
    with pytest.raises(UserError, match="airboard_1.txt, line 2: expected <track>"):
        get_dataset("nfs240", env, "nfs_airboard_1")
    write(tmp_path / "airboard_1" / "240" / "airboard_1.txt", "")
    with pytest.raises(UserError, match="empty file"):
        get_dataset("nfs240", env, "nfs_airboard_1")


def test_absent_targets(tmp_path):
    """NaN lines of UAV123; zero boxes of VastTrack, which are its visibility labels too."""
    uav, vast = tmp_path / "uav", tmp_path / "vast"
    trees.write_boxes(uav / "anno" / "UAV20L" / "bike1.txt", 3085, absent=(7,))
    for number in (1, 3085):
        trees.write_picture(uav / "data_seq" / "UAV123" / "bike1" / f"{number:06d}.jpg", 1)
    bike, = get_dataset("uav20l", env_for("uav20l", uav), "bike1")
    assert np.flatnonzero(np.isnan(bike.ground_truth).all(axis=1)).tolist() == [7] and bike.visible is None
    write(vast / "Football" / "Football-1" / "Groundtruth.txt", "1,2,3,4\n0,0,0,0\n" + "1,2,3,4\n" * 3)
    for number in (1, 5):
        trees.write_picture(vast / "Football" / "Football-1" / "imgs" / f"{number:05d}.jpg", 1)
    football, = get_dataset("vasttrack", env_for("vasttrack", vast), "Football-1")
    assert football.visible.tolist() == [True, False, True, True, True]
    assert football.object_class == "Football" and football.attributes == ("LR", "SV", "FM", "ROT", "BC", "MB")


def regions(tmp_path, text):
    """Boxes of a VOT sequence whose groundtruth.txt holds `text`."""
    write(tmp_path / "vot" / "one" / "groundtruth.txt", text)
    for i in range(len(text.splitlines())):
        trees.write_picture(tmp_path / "vot" / "one" / "color" / f"{i + 1:08d}.jpg", i, size=(16, 12))
    return get_dataset(f"vot:{tmp_path / 'vot'}", None)[0].ground_truth.tolist()


def mask_line(mask, x, y):
    """VOT's text of a mask: its window and run lengths, the first outside."""
    runs, inside = [0], False
    for pixel in mask.ravel():
        if bool(pixel) != inside:
            runs.append(0)
            inside = not inside
        runs[-1] += 1
    return "m" + ",".join(map(str, [x, y, mask.shape[1], mask.shape[0], *runs]))


def test_vot_regions(tmp_path):
    boxes = regions(tmp_path, "1,2,30,40\n10,20,14,30,4,33,0,23\n1,1,9,1,5,7.5\n")
    assert boxes == [[1, 2, 30, 40], [0, 20, 14, 13], [1, 1, 8, 6.5]]
    boxes = regions(tmp_path, "1,2,30,40\nnan,nan,nan,nan\n0\n5,5,0,0\n")
    assert boxes[0] == [1, 2, 30, 40] and np.isnan(boxes[1:]).all()


@pytest.mark.parametrize("seed", range(20))
def test_vot_masks(tmp_path, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((7, 9), bool)
    top, left = rng.integers(0, 4, 2)
    bottom, right = top + rng.integers(1, 4), left + rng.integers(1, 6)
    mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.7
    expected = [np.nan] * 4
    if mask.any():
        y, x = np.nonzero(mask)
        expected = [20 + x.min(), 5 + y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    assert regions(tmp_path, mask_line(mask, 20, 5) + "\n")[0] == pytest.approx(expected, nan_ok=True)


def test_vot_mask_that_fills_its_window(tmp_path):
    assert regions(tmp_path, mask_line(np.ones((3, 4)), 2, 1) + "\n")[0] == [2, 1, 4, 3]


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,4,5", "1,2,3,4,5,6,7", "a,b,c,d", "m1,2,3", "m1,2,2,2,0,5", "mx", ""])
def test_bad_vot_regions(tmp_path, line):
    with pytest.raises(UserError, match="groundtruth.txt, line 2: expected a rectangle, a polygon or a mask"):
        regions(tmp_path, f"1,2,3,4\n{line}\n5,6,7,8\n")


def test_vot_folders(tmp_path, monkeypatch):
    inner = tmp_path / "mine" / "sequences"
    for name in ("s2", "s10", "unlisted"):
        trees.write_boxes(inner / name / "groundtruth.txt", 3)
        for i in range(3):
            trees.write_picture(inner / name / "color" / f"{i + 1:08d}.jpg", i)
    monkeypatch.chdir(tmp_path)
    assert [s.name for s in get_dataset("vot:mine", None)] == ["s2", "s10", "unlisted"]
    write(inner / "list.txt", "s10\ns2\n")
    assert [(s.name, s.dataset) for s in get_dataset("VOT:mine", None)] == [("s10", "vot:mine"), ("s2", "vot:mine")]
    assert get_dataset("vot:mine", None, "s2")[0].length == 3
    with pytest.raises(UserError, match="no sequence 'unlisted'"):
        get_dataset("vot:mine", None, "unlisted")
    with pytest.raises(UserError, match="folder of VOT sequences not found: .*elsewhere"):
        get_dataset("vot:elsewhere", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no sequence in .*empty"):
        get_dataset("vot:empty", None)
    write(inner / "list.txt", "s10\ngone\n")
    with pytest.raises(UserError, match=r"1 of 2 sequences in .*list.txt, line 2, names 'gone'"):
        get_dataset("vot:mine", None)


@pytest.mark.parametrize("name", [*sorted(BENCHMARKS), *sorted(ALIASES)])
def test_a_missing_benchmark_says_where_to_get_it(tmp_path, name):
    benchmark = BENCHMARKS[ALIASES.get(name, name)]
    for path in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UserError) as error:
            get_dataset(name.upper(), SimpleNamespace(**{benchmark.field: path}))
        for part in (benchmark.title, benchmark.field, benchmark.download, benchmark.layout, "local.py",
                     f"COMPRESSTRACKER_{benchmark.field.upper()}"):
            assert part in str(error.value)


def test_missing_sequences_are_counted(tmp_path):
    trees.write_boxes(tmp_path / "Basketball" / "groundtruth_rect.txt", 725)
    with pytest.raises(UserError, match=r"99 of 100 sequences of OTB-100 have no box file in .*: Biker, Bird1, .*, "
                                        r"\.\.\.; expected <sequence>/img/0001.jpg .* get them from http"):
        get_dataset("otb", env_for("otb", tmp_path))
    (tmp_path / "TEST" / "anno").mkdir(parents=True)
    with pytest.raises(UserError, match="data set trackingnet has no sequence in"):
        get_dataset("trackingnet", env_for("trackingnet", tmp_path))
    with pytest.raises(UserError, match="data set got10k_val is not whole: no .*val; get it from http"):
        get_dataset("got10k_val", env_for("got10k_val", tmp_path))


def test_boxes_of_another_length(tmp_path):
    trees.write_boxes(tmp_path / "Deer" / "groundtruth_rect.txt", 70)
    with pytest.raises(UserError, match="groundtruth_rect.txt holds 70 boxes, but Deer of OTB-100 has 71 frames"):
        get_dataset("otb", env_for("otb", tmp_path), "Deer")


def test_missing_frames(tmp_path):
    env = env_for("otb", tmp_path)
    trees.write_boxes(tmp_path / "Deer" / "groundtruth_rect.txt", 71)
    with pytest.raises(UserError, match=r"no frames of Deer \(OTB-100\): there is no .*0001.jpg and no .*0001.png"):
        get_dataset("otb", env, "Deer")
    trees.write_picture(tmp_path / "Deer" / "img" / "0001.jpg", 1)
    with pytest.raises(UserError, match="frames of Deer are missing: .* 71 boxes, but there is no .*0071.jpg"):
        get_dataset("otb", env, "Deer")
    trees.write_picture(tmp_path / "Deer" / "img" / "0071.jpg", 1)
    deer, = get_dataset("otb", env, "Deer")
    with pytest.raises(UserError, match=r"frame 30 \(counted from 0\).*0031.jpg"):
        deer.frames[30]


def test_missing_frames_in_a_listed_folder(tmp_path):
    env = env_for("tnl2k", tmp_path)
    folder = tmp_path / "HaiBao_video_06-done"
    trees.write_boxes(folder / "groundtruth.txt", 46)
    with pytest.raises(UserError, match="no frames of HaiBao_video_06-done .*imgs"):
        get_dataset("tnl2k", env, "HaiBao_video_06-done")
    for i in range(45):
        trees.write_picture(folder / "imgs" / f"{i:05d}.jpg", i, size=(16, 12))
    with pytest.raises(UserError, match="46 boxes but there are only 45 frames"):
        get_dataset("tnl2k", env, "HaiBao_video_06-done")


def test_labels_of_lasot_are_checked(tmp_path):
    folder = tmp_path / "atv" / "atv-1"
    trees.write_boxes(folder / "groundtruth.txt", 3)
    for i in (1, 3):
        trees.write_picture(folder / "img" / f"{i:08d}.jpg", i)
    env = env_for("lasot_ext", tmp_path)
    assert get_dataset("lasot_ext", env, "atv-1")[0].visible is None
    labels(folder, 2)
    with pytest.raises(UserError, match="full_occlusion.txt holds 2 labels for 3 boxes"):
        get_dataset("lasot_ext", env, "atv-1")


@pytest.mark.parametrize(("name", "file"), [
    ("lasot", "lasot/lasot_test_gt.npz"), ("otb", "otb100/otb100_gt.npz"), ("uav", "uav123/uav123_gt.npz")])
def test_lists_and_lengths_are_those_of_published_annotations(shared_dir, name, file):
    def plain(text):
        return text.lower().replace("_", "-")

    with np.load(shared_dir / "results" / file) as packed:
        lengths = dict(zip(map(plain, packed["names"].tolist()), np.diff(packed["offsets"]).tolist(), strict=True))
    assert {plain(key): entry.length for key, entry in load_spec(name).sequences.items()} == lengths


def test_order_of_got10k_is_that_of_published_annotations(shared_dir, tmp_path):
    with np.load(shared_dir / "results" / "got10k_val" / "got10k_val_gt.npz") as packed:
        names = packed["names"].tolist()
    for name in reversed(names):
        write(tmp_path / "val" / name / "groundtruth.txt", "1,2,3,4\n")
    assert BENCHMARKS["got10k_val"].names(tmp_path) == names and len(names) == 180
