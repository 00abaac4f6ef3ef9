"""Results of other projects: names, files and forms that other toolkits write, and what is wrong with some of them."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
import trees

from lib.test.analysis.conventions import get_convention
from lib.test.analysis.names import match_names
from lib.test.analysis.reading import align, fitting_form, suspected
from lib.test.analysis.report import remarks
from lib.test.analysis.results import ResultFolder, evaluate_benchmark
from lib.test.analysis.run import choose_trackers, external_runs
from lib.test.evaluation import get_dataset, manifest
from lib.utils.box_forms import to_xywh
from lib.utils.errors import UserError
from lib.utils.files import ROOT

FRAMES = 8
SIZE = (320, 240)


def boxes(start=(20, 30), frames=FRAMES):
    """(N, 4) xywh, moving."""
    return np.array([[start[0] + 7.0 * i, start[1] + 5 * i, 30, 24] for i in range(frames)])


def sequence(name, dataset="folder:mine", gt=None, **fields):
    gt = boxes() if gt is None else gt
    return SimpleNamespace(name=name, dataset=dataset, ground_truth=gt, visible=None, **fields)


@pytest.fixture
def benchmark():
    return [sequence("s0"), sequence("s1", gt=boxes((40, 60)))]


def write(path, rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(f"{value:g}" for value in row) + "\n" for row in rows))


def fill(folder, benchmark, name="{}.txt", shift=0.0, convert=lambda rows: rows):
    """Result files of all sequences: the annotations, or the first where there is none, moved after the first frame."""
    for seq in benchmark:
        gt = np.where(np.isnan(seq.ground_truth), seq.ground_truth[0], seq.ground_truth)
        rows = gt + np.outer(np.arange(len(seq.ground_truth)) > 0, [shift, 0, 0, 0])
        write(folder / name.format(seq.name), convert(rows))
    return folder


def corners(rows):
    return np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]])


def centers(rows):
    return np.hstack([rows[:, :2] + rows[:, 2:] / 2, rows[:, 2:]])


def score(benchmark, *results, formats=(), partial=False, dataset="folder:mine"):
    sources, _ = choose_trackers(ROOT, [], results, box_formats=formats)
    return evaluate_benchmark(sources, benchmark, dataset, get_convention("plain"), partial,
                              runs=external_runs(sources))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "stored", "dataset"), [
    ("uav_bike1", "bike1", "uav"), ("bike1", "uav_bike1", "uav123"), ("nfs_Gymnastics", "gymnastics", "nfs"),
    ("Jogging_1", "Jogging.1", "otb"), ("Jogging_1", "jogging-1", "otb"), ("Basketball", "OTB_basketball", "otb"),
    ("Basketball", "otb100-Basketball", "otb50"), ("Human4_2", "Human4", "otb"), ("Human4_2", "human4-2", "otb"),
    ("GOT-10k_Val_000001", "got_10k_val_000001", "got10k"), ("s0", "otb_s0", "folder:mine"),
    ("a b", "A_b", "folder:x")])
def test_names_of_other_toolkits(wanted, stored, dataset):
    assert match_names([wanted], [stored], dataset) == {wanted: [stored]}
    assert match_names([wanted], [stored], dataset, exact=True) == {}


@pytest.mark.parametrize(("wanted", "stored", "dataset", "expected"), [
    (["car", "Car"], ["Car"], "otb", {"Car": ["Car"]}),  # not also that of car
    (["car", "Car"], ["CAR"], "otb", {}),
    (["car"], ["Car", "CAR"], "otb", {"car": ["Car", "CAR"]}),
    (["car"], ["Car", "otb_car"], "otb", {"car": ["Car"]}),
    (["Car1"], ["uav_car1", "car11", "car_1"], "otb", {}),
    (["airplane-1", "airplane-11"], ["airplane_11"], "lasot", {"airplane-11": ["airplane_11"]})])
def test_names_that_could_be_others(wanted, stored, dataset, expected):
    assert match_names(wanted, stored, dataset) == expected


@pytest.mark.parametrize("name", ["{}.csv", "{}.txt", "otb_{}.txt", "OTB-{}.CSV", "{0}/{0}_001.txt"])
def test_files_of_other_toolkits(tmp_path, benchmark, name):
    tracker, = score(benchmark, f"X={fill(tmp_path, benchmark, name)}").trackers
    assert tracker.scores.AO == 100 and not tracker.notes


def test_one_json_file_for_all_sequences(tmp_path, benchmark):
    path = tmp_path / "all.json"
    content = {"S0": boxes().tolist(), "s1": {"res": boxes((40, 60)).tolist(), "type": "rect"}}
    path.write_text(json.dumps(content))
    assert score(benchmark, f"X={path}").trackers[0].scores.AO == 100
    path.write_text(json.dumps(content | {"s1": "none"}))
    tracker = score(benchmark, f"X={path}", partial=True).trackers[0]
    assert tracker.missing == ["s1"] and "list of boxes" in tracker.unusable["s1"]
    path.write_text("[1]")
    with pytest.raises(UserError, match="all.json: expected"):
        score(benchmark, f"X={path}")


def test_runs_in_folders_are_scored_by_their_mean(tmp_path, benchmark):
    for run, shift in enumerate((0, 3)):
        fill(tmp_path / f"atom_{run:03d}", benchmark, shift=shift)
    (tmp_path / "readme.txt").write_text("of 2019")
    report = score(benchmark, f"X={tmp_path}")
    single = [score(benchmark, f"X={tmp_path}/atom_{run:03d}").trackers[0].scores.AO for run in (0, 1)]
    tracker, = report.trackers
    assert tracker.label == "X" and tracker.runs == 2 and single[0] == 100 > single[1]
    assert tracker.scores.AO == pytest.approx(np.mean(single)) and tracker.deviation["AO"] > 0
    fill(tmp_path / "dimp_000", benchmark)
    with pytest.raises(UserError, match="runs of several trackers: atom, dimp"):
        score(benchmark, f"X={tmp_path}")


def test_sequences_called_like_runs_are_no_runs(tmp_path):
    videos = [sequence("GOT-10k_Val_000001", "got10k"), sequence("GOT-10k_Val_000002", "got10k")]
    fill(tmp_path, videos, "{0}/{0}_001.txt")
    assert score(videos, f"X={tmp_path}", dataset="got10k_val").trackers[0].runs == 1


def test_lines_and_headers_as_other_programs_write_them(tmp_path, benchmark):
    path = fill(tmp_path, benchmark) / "s1.txt"
    content = path.read_text()
    for text in (f"# x y w h\n{content}", f"%x,y,w,h\n{content}", content.replace("\n", "\r")):
        path.write_text(text, newline="")
        assert score(benchmark, f"X={tmp_path}").trackers[0].scores.AO == 100
    write(path, corners(benchmark[1].ground_truth))
    path.write_text("x_min,y_min,x_max,y_max\n" + path.read_text())
    assert score(benchmark, f"X={tmp_path}").trackers[0].scores.AO == 100


@pytest.mark.parametrize(("content", "problem"), [
    ("", "the file is empty"), ("[[1, 2, 3, 4],", "line 1, column 15"), (b"\xff", "no text in UTF-8"),
    ("[[1, 2, 3, 4], null]", "entry 2 is null"), ('[{"x": 1}, 2]', 'entry 1 is {"x": 1}')])
def test_json_that_is_wrong_is_named(tmp_path, benchmark, content, problem):
    fill(tmp_path, benchmark[:1])
    (tmp_path / "s1.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    reason = score(benchmark, f"X={tmp_path}", partial=True).trackers[0].unusable["s1"]
    assert problem in reason and "Expecting" not in reason


def test_two_files_for_one_sequence(tmp_path, benchmark):
    fill(tmp_path, benchmark, "otb_{}.txt")
    fill(tmp_path, benchmark[:1], "OTB-{}.txt")
    tracker = score(benchmark, f"X={tmp_path}", partial=True).trackers[0]
    assert tracker.missing == ["s0"] and "OTB-s0.txt and otb_s0.txt could both be meant" in tracker.unusable["s0"]
    fill(tmp_path, benchmark[:1])
    assert score(benchmark, f"X={tmp_path}").complete, "equal names go before others"


def test_equal_names_go_before_others_of_any_ending(tmp_path, benchmark):
    fill(tmp_path, benchmark, "{}.csv")
    fill(tmp_path, benchmark, "OTB_{}.TXT", shift=5)
    tracker, = score(benchmark, f"X={tmp_path}").trackers
    assert tracker.scores.AO == 100 and not tracker.notes
    fill(tmp_path, benchmark, shift=5)
    tracker, = score(benchmark, f"X={tmp_path}").trackers
    assert tracker.scores.AO < 100 and {note.what for note in tracker.notes} == {
        "a .csv file of the same name is left out"}


def test_what_was_looked_for_and_what_is_there(tmp_path, benchmark):
    for name in ("a.mat", "b.mat", "videos/s0.txt"):
        write(tmp_path / name, boxes())
    source = choose_trackers(ROOT, [], [f"X={tmp_path}"])[0][0]
    message = source.lacking(benchmark)
    for part in ("s0, s1", "<sequence>.txt", str(tmp_path), "2 .mat files (a.mat, b.mat)", "1 folders (videos)"):
        assert part in message
    assert "tracking/test.py" not in message and "tracking/test.py" in ResultFolder("mine", tmp_path).lacking(benchmark)
    write(tmp_path / "s0.txt", boxes())
    with pytest.raises(UserError, match="is one file; name the folder"):
        choose_trackers(ROOT, [], [f"X={tmp_path}/s0.txt"])


# --- forms of boxes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "convert"), [("xyxy", corners), ("cxcywh", centers)])
def test_boxes_in_another_form_are_refused_and_can_be_converted(tmp_path, benchmark, form, convert):
    fill(tmp_path, benchmark, convert=convert)
    with pytest.raises(UserError, match=f"s0.txt: .*read as {form} the first box is the given one.*X={form}"):
        score(benchmark, f"X={tmp_path}")
    for option in (form, f"X={form}"):
        assert score(benchmark, f"X={tmp_path}", formats=[option]).trackers[0].scores.AO == pytest.approx(100)
    assert score(benchmark, f"X={tmp_path}", formats=["xywh"]).trackers[0].scores.AO < 50


@pytest.mark.parametrize("form", ["xywh", "xyxy", "cxcywh"])
def test_parts_of_the_picture(tmp_path, form):
    videos = trees.folder(tmp_path / "videos", frames=FRAMES)
    data = get_dataset(f"folder:{videos}", None)
    height, width = data[0].frames[0].shape[:2]
    convert = {"xywh": lambda rows: rows, "xyxy": corners, "cxcywh": centers}[form]
    folder = fill(tmp_path / "res", data, convert=lambda rows: convert(rows) / [width, height, width, height])
    with pytest.raises(UserError, match=f"lie within 0..1.*X=normalised-{form}"):
        score(data, f"X={folder}")
    tracker = score(data, f"X={folder}", formats=[f"normalised-{form}"]).trackers[0]
    assert tracker.scores.AO == pytest.approx(100, abs=0.1)
    without = [sequence(video.name, gt=video.ground_truth) for video in data]
    with pytest.raises(UserError, match="need the size of the pictures"):
        score(without, f"X={folder}", formats=["normalised-xywh"])


def test_only_the_first_row_is_in_the_stated_form(tmp_path, benchmark):
    """A tracker that writes the given box as it came and its own as corners."""
    fill(tmp_path, benchmark, convert=lambda rows: np.vstack([rows[:1], corners(rows[1:])]))
    with pytest.raises(UserError, match="overlap the annotations far better.*X=xyxy"):
        score(benchmark, f"X={tmp_path}")
    tracker, = score(benchmark, f"X={tmp_path}", formats=["xyxy"]).trackers
    assert tracker.scores.AO == 100 and not tracker.notes
    fill(tmp_path, benchmark, convert=lambda rows: np.vstack([rows[:1], rows[1:] / 320]))
    with pytest.raises(UserError, match="lie within 0..1.*X=normalised-xywh"):
        score(benchmark, f"X={tmp_path}")


def test_one_file_in_another_form_takes_all_of_its_tracker_and_nothing_else(tmp_path, benchmark):
    fill(tmp_path / "good", benchmark)
    fill(tmp_path / "X", benchmark[:1])
    fill(tmp_path / "X", benchmark[1:], convert=corners)
    for partial in (False, True):
        report = score(benchmark, f"good={tmp_path / 'good'}", f"X={tmp_path / 'X'}", partial=partial)
        good, other = report.trackers
        assert good.scores.AO == 100 and other.scores is None and set(other.unusable) == {"s0", "s1"}
        assert any("X on s0, s1 cannot be used" in line for line in remarks(report))


@pytest.mark.parametrize("adapt", [np.trunc, lambda rows: rows + [1, 1, 0, 0], lambda rows: rows * [1, 1, 0.1, 0.1],
                                   lambda rows: np.vstack([rows[:1], 0 * rows[1:]]), lambda rows: rows + [9, 9, 0, 0]])
def test_what_trackers_may_write(tmp_path, benchmark, adapt):
    """Cut to integers, counted from 1, with small boxes, lost at once, without the given box."""
    fill(tmp_path, benchmark, convert=adapt)
    assert score(benchmark, f"X={tmp_path}").trackers[0].scores


def test_a_box_at_the_corner_fits_two_forms():
    seq = sequence("s", gt=np.array([[0, 0, 30, 24.0]] * FRAMES))
    assert suspected(seq.ground_truth, seq, lambda: SIZE) is None
    assert suspected(corners(seq.ground_truth), seq, lambda: SIZE) is None
    assert fitting_form(centers(seq.ground_truth), seq.ground_truth) == "cxcywh"


@pytest.mark.parametrize(("header", "convert", "form"), [
    ("x,y,w,h", corners, "xyxy"), ("x1,y1,x2,y2", lambda rows: corners(rows) / 640, "normalised-xyxy"),
    ("cx,cy,w,h", lambda rows: centers(rows) / 640, "normalised-cxcywh")])
def test_a_header_that_is_not_true(tmp_path, benchmark, header, convert, form):
    for seq in benchmark:
        rows = convert(seq.ground_truth).tolist()
        (tmp_path / f"{seq.name}.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    with pytest.raises(UserError, match=f"X={form}"):
        score(benchmark, f"X={tmp_path}")


def test_forms_that_do_not_exist(tmp_path, benchmark):
    fill(tmp_path, benchmark)
    for text, message in (("ltrb", "unknown form 'ltrb'"), ("Y=xyxy", "called 'Y'; there are X")):
        with pytest.raises(UserError, match=message):
            choose_trackers(ROOT, [], [f"X={tmp_path}"], box_formats=[text])


def test_no_form_is_seen_in_poor_results():
    rng = np.random.default_rng(0)
    gt = np.column_stack([rng.uniform(0, 300, (500, 2)), rng.uniform(10, 80, (500, 2))])
    assert fitting_form(gt[::-1], gt) is None and fitting_form(gt, gt) is None
    assert fitting_form(corners(gt), gt) == "xyxy" and (to_xywh(corners(gt), "xyxy") - gt).max() < 1e-9


# --- lengths --------------------------------------------------------------------------------------------------------


def test_frames_before_the_first_that_is_tracked():
    """As OTB's Tiger1 (its earlier frames are annotated) and David (they are not)."""
    gt, earlier = boxes((41, 45), FRAMES), boxes((20, 30), 3)
    tiger, david = sequence("t", gt=gt, earlier=earlier), sequence("d", gt=gt, earlier=np.full((3, 4), np.nan))
    whole = np.vstack([earlier, gt]) + np.outer(np.arange(FRAMES + 3) > 0, [2, 0, 0, 0])
    pred, truth, _, note = align(whole, tiger, "file")
    assert len(pred) == len(truth) == FRAMES and (pred == whole[3:]).all() and "3 rows" in note
    assert align(gt, tiger, "file")[3] is None and align(gt, david, "file")[3] is None
    from_there = np.vstack([0 * earlier, gt])
    assert (align(from_there, david, "file")[0] == gt).all()
    with pytest.raises(UserError, match="11 boxes for the 8"):  # given the first tracked frame's box in frame 1
        align(np.vstack([gt, gt[-3:]]), david, "file")


def test_tiger1_in_both_lengths(tmp_path):
    trees.write_boxes(tmp_path / "otb" / "Tiger1" / "groundtruth_rect.txt", 354)
    for number in (6, 354):
        trees.write_picture(tmp_path / "otb" / "Tiger1" / "img" / f"{number:04d}.jpg", 1)
    tiger = get_dataset("otb", SimpleNamespace(otb_path=str(tmp_path / "otb")), "Tiger1")
    for first in (0, 5):
        trees.write_boxes(tmp_path / "res" / "Tiger1.txt", 354)
        lines = (tmp_path / "res" / "Tiger1.txt").read_text().splitlines(keepends=True)
        (tmp_path / "res" / "Tiger1.txt").write_text("".join(lines[first:]))
        tracker, = score(tiger, f"X={tmp_path / 'res'}", dataset="otb").trackers
        assert tracker.scores.AO == pytest.approx(100) and len(tracker.notes) == (first == 0)


def test_vot_writes_a_code_for_the_given_box(tmp_path, benchmark):
    fill(tmp_path, benchmark, "{0}/{0}_001.txt")
    for seq in benchmark:
        path = tmp_path / seq.name / f"{seq.name}_001.txt"
        path.write_text("1\n" + "".join(path.read_text().splitlines(keepends=True)[1:]))
    tracker, = score(benchmark, f"X={tmp_path}").trackers
    assert tracker.scores.AO == 100 and "no box in the first row" in tracker.notes[0].what


# --- one bad file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "problem"), [
    ("", "the file is empty"), ("1,2,3\n", "3 column"), ("nan,nan,nan,nan\n" * FRAMES, "the box of frame 2 is"),
    ("20,30,30,24\n" * 5, "5 boxes for the 8"), ("a b c d\n", "not numeric"), ("20,0\t30,0\t30,0\t24,0\n", "decimal"),
    ("1,2,-3,4\n" * FRAMES, "the box of frame 1 is"), (b"\xff\xfe\x00", "not a text file"), (None, "cannot be read")])
def test_one_bad_file_takes_its_sequence_only(tmp_path, benchmark, content, problem):
    fill(tmp_path / "good", benchmark)
    bad = fill(tmp_path / "X", benchmark) / "s1.txt"
    if content is None:
        bad.unlink()
        bad.mkdir()
    else:
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = [f"good={tmp_path / 'good'}", f"X={tmp_path / 'X'}"]
    report = score(benchmark, *arguments, partial=True)
    assert [tracker.scores.AO for tracker in report.trackers] == [100, 100] and report.scored == 1
    reason = report.trackers[1].unusable["s1"]
    assert str(bad) in reason and problem in reason and "from where these results come from" in reason
    assert "run the tracker" not in reason and any(reason in line for line in remarks(report))
    good, other = score(benchmark, *arguments).trackers
    assert good.scores.AO == 100 and other.scores is None and other.missing == ["s1"]


@pytest.mark.parametrize("content", ["", "fast\n", "0.1\n-1\n", "5\n5\n5\n", None])
def test_a_bad_time_file_is_noted_and_decides_nothing(tmp_path, benchmark, content):
    fill(tmp_path, benchmark)
    (tmp_path / "s0_time.txt").write_text("0.1\n" * FRAMES)
    if content is not None:
        (tmp_path / "s1_time.txt").write_text(content)
    tracker, = score(benchmark, f"X={tmp_path}").trackers
    assert tracker.scores.AO == 100 and tracker.fps == pytest.approx(10) and not tracker.missing
    assert [note.what.startswith("its times are left out") for note in tracker.notes] == [True] * (content is not None)


def test_a_whole_file_that_cannot_be_read_takes_its_tracker_only(tmp_path, benchmark):
    fill(tmp_path / "good", benchmark)
    for name in ("bad.npz", "bad.json"):
        (tmp_path / name).write_text("no")
        report = score(benchmark, f"good={tmp_path / 'good'}", f"X={tmp_path / name}", partial=True)
        assert report.trackers[0].scores.AO == 100 and report.scored == 2
        assert f"{name}: cannot be read" in report.trackers[1].unusable["s1"]


def test_results_that_are_of_another_sequence_are_noted(tmp_path, benchmark):
    write(tmp_path / "s0.txt", boxes((200, 100)))
    write(tmp_path / "s1.txt", benchmark[1].ground_truth)
    tracker, = score(benchmark, f"X={tmp_path}").trackers
    assert [note.where for note in tracker.notes] == [str(tmp_path / "s0.txt")]
    assert "first row is not the box" in tracker.notes[0].what


# --- the scripts ----------------------------------------------------------------------------------------------------


def main_of(script):
    spec = importlib.util.spec_from_file_location(script, ROOT / "tracking" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_scripts(tmp_path, capsys):
    videos = trees.folder(tmp_path / "videos", frames=FRAMES)
    data = get_dataset(f"folder:{videos}", None)
    folder = fill(tmp_path / "res", data, "OTB_{}.csv", convert=corners)
    common = ["--dataset", f"folder:{videos}", "--result", f"X={folder}", "--save_dir", str(tmp_path)]
    analysis = [*common, "--formats", "none"]
    with pytest.raises(UserError, match="--box-format X=xyxy"):
        main_of("analysis_results")(analysis)
    for _ in range(2):  # the second time from the cache
        assert main_of("analysis_results")([*analysis, "--box-format", "xyxy"]) == 0
        assert " 100.00 " in capsys.readouterr().out
    with pytest.raises(UserError, match="--box-format X=xyxy"):  # the kept scores are not those of another form
        main_of("analysis_results")(analysis)
    drawing = [*common, "--sequence", data[0].name, "--output", str(tmp_path / "x.png")]
    with pytest.raises(UserError, match="--box-format X=xyxy"):
        main_of("vis_results")(drawing)
    assert main_of("vis_results")([*drawing, "--box-format", "X=xyxy"]) == 0 and (tmp_path / "x.png").is_file()


def test_own_results_of_another_data_set_with_these_names_are_not_scored(benchmark, tmp_path):
    """`tracking/test.py` writes the given box first: where it is another, the file is of another sequence."""
    fill(tmp_path / "folder_mine", benchmark)
    good = evaluate_benchmark([ResultFolder("own", tmp_path)], benchmark, "folder:mine", get_convention("plain"), False)
    assert not good.trackers[0].unusable
    other = [sequence("s0", gt=boxes((200, 10))), benchmark[1]]
    report = evaluate_benchmark([ResultFolder("own", tmp_path)], other, "folder:mine", get_convention("plain"), True)
    assert list(report.trackers[0].unusable) == ["s0"]
    assert "its first row is not the first box of s0" in report.trackers[0].unusable["s0"]


@pytest.mark.parametrize("chosen", [{}, {"trackers": ["mine:bad"]}, {"results": ["bad={}/mine/bad"]}])
def test_own_results_are_xywh_whatever_they_look_like(tmp_path, benchmark, chosen):
    """A bad tracker's boxes may fit the annotations as corners; the manifest says who wrote them."""
    folder = tmp_path / "mine" / "bad"
    named = [text.format(tmp_path) for text in chosen.get("results", ())]

    def evaluate(*forms):
        sources, _ = choose_trackers(tmp_path, chosen.get("trackers", ()), named, box_formats=forms)
        return evaluate_benchmark(sources, benchmark, "lasot", get_convention("plain")).trackers[0]

    benchmark = [sequence(seq.name, "lasot", seq.ground_truth) for seq in benchmark]
    made_with = {"format": manifest.FORMAT, "rules": manifest.RULES, "settings": {},
                 "checkpoint": {"file": "bad.pth.tar", "sha256": "0"}}
    manifest.claim(folder, made_with)
    fill(folder, benchmark, convert=lambda rows: np.vstack([rows[:1], corners(rows)[1:]]))
    own = evaluate()
    assert not own.unusable and own.scores.AO < 40
    assert evaluate("bad=xyxy").scores.AO == pytest.approx(100), "a form that is stated counts"
    for spoil in (lambda file: file.write_text("damaged"), lambda file: file.unlink()):
        spoil(manifest.manifest_file(folder))
        with pytest.raises(UserError, match="--box-format bad=xyxy"):
            evaluate()
