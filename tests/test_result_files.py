"""Result files of every kind: read where they can mean one thing only, with a note; refused with file and line else."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lib.test.analysis.conventions import convention_for
from lib.test.analysis.packed import PackedResults
from lib.test.analysis.report import remarks
from lib.test.analysis.results import ResultFolder, align, evaluate_benchmark
from lib.test.analysis.textfiles import parse_boxes, parse_times, read_bytes
from lib.utils.errors import UserError
from lib.utils.numbers import parse_table

FRAMES = 8
NAN = float("nan")


@pytest.fixture
def sequence():
    """A box of 40 x 30 that moves by 10 pixels per frame."""
    gt = np.array([[10.0 * i + 5, 5, 40, 30] for i in range(FRAMES)])
    return SimpleNamespace(name="car-1", dataset="otb", ground_truth=gt, visible=None)


def score(tmp_path, sequence, text, convention=None):
    """The report of one result file."""
    (tmp_path / "car-1.txt").write_text(text)
    return evaluate_benchmark([ResultFolder("T", tmp_path)], [sequence], "otb", convention)


def lines(boxes, separator=","):
    return "".join(separator.join(f"{value:g}" for value in row) + "\n" for row in boxes)


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [
    ("1,2\n3,4\n", [[1, 2], [3, 4]]), ("1\t2\r\n3 ;4\r\n\r\n", [[1, 2], [3, 4]]), ("\ufeff 1  2\n", [[1, 2]]),
    ("-1 +2\n-.5 5.\n", [[-1, 2], [-0.5, 5]]), ("1e2,-2.5E-1", [[100, -0.25]]), ("nan inf", [[NAN, np.inf]]),
    ("1,2,\n3,4,\n", [[1, 2], [3, 4]]), ("0.1 0.30 1234.5678", [[0.1, 0.3, 1234.5678]]),
    ("12345678901234567890.5 1", [[12345678901234567890.5, 1]]), ("9007199254740993 1", [[9007199254740993.0, 1]])])
def test_numbers(text, expected):
    np.testing.assert_array_equal(parse_table(text.encode()), expected)


@pytest.mark.parametrize("text", ["1 2\n3\n", "1 2\n\n3 4", "\n1 2", "1 x", "1..2 3", "1.2.3 4", "1-2 3", "0x1 2",
                                  "- 1", ". 1", "1_0 2", "1 2\n3 4 5\n6"])
def test_what_is_no_table(text):
    assert parse_table(text.encode()) is None


def test_the_nearest_number_is_read():
    rng = np.random.default_rng(3)
    texts = [f"{value:.{digits}f}" for value, digits in zip(rng.normal(scale=300, size=4000), rng.integers(0, 12, 4000),
                                                            strict=True)]
    assert parse_table("\n".join(texts).encode())[:, 0].tolist() == [float(text) for text in texts]


# --- one file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1\t2\t3\t4\n5\t6\t7\t8\n", "1,2,3,4\n5,6,7,8", "1 2  3 4\r\n5 6 7 8\r\n\r\n",
                                  "1, 2, 3, 4\n5.0;6;7;8e0", "\ufeff1,2,3,4\n5,6,7,8\n"])
def test_every_usual_separator_is_read(tmp_path, text):
    path = tmp_path / "s.txt"
    path.write_text(text, encoding="utf-8", newline="")
    rows = parse_boxes(read_bytes(path), "s")
    assert rows.values.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]] and rows.notes == [] and rows.form is None


@pytest.mark.parametrize(("text", "message"), [
    ("", "empty"), ("\n \n", "empty"), ("1,2,3,4\n1,2,3\n", "line 2: 3 column"), ("1,2,3,4,5\n", "line 1: 5 column"),
    ("1,2,3,4\nx,y,w,h\n", "line 2: .*not numeric"),
    ("1,2,3,4\n\n1,2,3,4\n", "line 2: an empty line"),
    ("1:2:3:4\n", "line 1: 1 column"), ("0.5\n0.6\n", "line 1: 1 column"),
    ("x,y,w,h\n", "empty|expected one box"), ("x,y,w,h\n1,2,3,4\n1,2,x,4\n", "line 3: .*not numeric"),
    ("x1,y1,w,y2\n1,2,3,4\n", "line 1: .*not numeric"), ("1,5;2,5;3,5;4,5\n", "line 1: 8 column.*decimal commas"),
    ("1,5\t2,5\t3,5\t4,5\n", "line 1: 8 column.*decimal commas"),
    ("1\n1,2,3,4\n2\n", "line 3: .*VOT run with restarts"),
    ("frame,x,y,w,h\n1,1,2,3,4\n3,1,2,3,4\n", "column 'frame' does not rise"),
    ("1,2,3,4,5,6,7,8\n1,2,3,4\n", "line 1: 8 column")])
def test_bad_result_files_are_refused_with_file_and_line(text, message):
    with pytest.raises(UserError, match=f"sequence.txt.*{message}"):
        parse_boxes(text.encode(), "sequence.txt")


@pytest.mark.parametrize("header", ["x,y,w,h", "X\tY\tWidth\tHeight", "\ufeffleft top width height", "xmin;ymin;w;h"])
def test_a_header_line_is_left_out_and_noted(header):
    rows = parse_boxes(f"{header}\r\n1,2,3,4\r\n".encode(), "s")
    assert rows.values.tolist() == [[1, 2, 3, 4]] and rows.notes == ["a header line left out"] and rows.form == "xywh"


@pytest.mark.parametrize(("text", "form", "noted"), [
    ("x1,y1,x2,y2\n1,2,3,4\n", "xyxy", ""), ("cx;cy;w;h\n1;2;3;4\n", "cxcywh", ""),
    (",x,y,w,h,score\n0,1,2,3,4,0.5\n", "xywh", "without a name, score"),
    ('"frame","h","w","y","x"\n1,4,3,2,1\n', "xywh", "frame")])
def test_a_header_says_which_columns_are_the_boxes(text, form, noted):
    rows = parse_boxes(text.encode(), "s")
    assert rows.values.tolist() == [[1, 2, 3, 4]] and rows.form == form and noted in rows.notes[0]


@pytest.mark.parametrize("content", [
    [[1, 2, 3, 4], [5, 6, 7, None]], {"res": [[1, 2, 3, 4], [5, 6, 7, NAN]]},
    {"anything": [[1, 2, 3, 4], [5, 6, 7, NAN]]},
    [{"res": [[1, 2, 3, 4], [5, 6, 7, NAN]], "type": "rect", "len": 2}]])
def test_json(content):
    values = parse_boxes(json.dumps(content).encode(), "s.json").values
    np.testing.assert_array_equal(values, [[1, 2, 3, 4], [5, 6, 7, NAN]])


@pytest.mark.parametrize(("text", "message"), [
    ("{", "cannot be read as JSON"), ("[]", "list of boxes"), ('{"a": 1, "b": 2}', "list of boxes"),
    ('[{"res": [[1, 2, 3, 4]], "type": "ivtAff"}]', "type 'ivtAff'"), ("[[1, 2, 3]]", "list of boxes"),
    ('["a"]', "list of boxes")])
def test_json_that_holds_no_boxes(text, message):
    with pytest.raises(UserError, match=f"s.json.*{message}"):
        parse_boxes(text.encode(), "s.json")


def test_polygons_become_upright_boxes():
    rows = parse_boxes(b"10,0,20,10,10,20,0,10\n0 0 4 0 4 2 0 2\n", "s")
    assert rows.values.tolist() == [[0, 0, 20, 20], [0, 0, 4, 2]] and "four corners" in rows.notes[0]
    assert parse_boxes(b"1.5,0.5 4.5,0.5 4.5,2.5 1.5,2.5\n", "s").values.tolist() == [[1.5, 0.5, 3, 2]]


def test_binary_and_missing_result_files(tmp_path):
    with pytest.raises(UserError, match="not a text file"):
        parse_boxes(b"\xff\xfe\x00\x81", "a.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_bytes(tmp_path / "b.txt")


def test_times():
    assert parse_times(b"0.5\n0.25\n", "t.txt").tolist() == [0.5, 0.25]
    for text, message in (("0.5\n-1\n", "line 2"), ("0.5\nfast\n", "line 2"), ("0.5 0.5\n", "line 1"), ("", "empty"),
                          ("0.5\ninf\n", "line 2")):
        with pytest.raises(UserError, match=f"t.txt.*{message}"):
            parse_times(text.encode(), "t.txt")


# --- lengths --------------------------------------------------------------------------------------------------------


def test_rows_at_the_end_are_left_out(sequence):
    longer = np.vstack([sequence.ground_truth, sequence.ground_truth[:2]])
    pred, gt, _, note = align(longer, sequence, "file")
    assert len(pred) == len(gt) == FRAMES and "2 rows beyond" in note
    with pytest.raises(UserError, match="10 boxes for the 8"):  # the first row is not the given box: where to cut?
        align(longer[1:].repeat(2, axis=0)[:10], sequence, "file")


def test_a_late_start_is_seen(sequence):
    sequence.visible = np.arange(FRAMES) > 1
    pred, gt, visible, note = align(sequence.ground_truth[2:], sequence, "file")
    np.testing.assert_array_equal(pred, gt)
    assert visible.all() and "starts at frame 3" in note


def test_the_first_box_is_put_back_when_only_it_can_be_missing(sequence):
    pred, gt, _, note = align(sequence.ground_truth[1:] + 3, sequence, "file")
    np.testing.assert_array_equal(pred[0], sequence.ground_truth[0])
    np.testing.assert_array_equal(pred[1:], gt[1:] + 3)
    assert "one row short" in note


@pytest.mark.parametrize("rows", [slice(0, 7), slice(0, 5), slice(0, 0)])
def test_missing_rows_that_could_be_any_are_refused(sequence, rows):
    with pytest.raises(UserError, match=f"file: {len(range(8)[rows])} boxes for the 8 .*is not plain"):
        align(sequence.ground_truth[rows], sequence, "file")


def test_a_target_at_rest_fits_both_ends(sequence):
    sequence.ground_truth[:] = sequence.ground_truth[0]
    with pytest.raises(UserError, match="6 boxes"):
        align(sequence.ground_truth[2:], sequence, "file")
    with pytest.raises(UserError, match="6 boxes"):
        align(sequence.ground_truth[2:] + 5, sequence, "file")


# --- what a report says of it ---------------------------------------------------------------------------------------


def test_whatever_was_adapted_is_reported(tmp_path, sequence):
    report = score(tmp_path, sequence, "x,y,w,h\n" + lines([*sequence.ground_truth, [1, 2, 3, 4]]))
    notes = report.trackers[0].notes
    assert [note.what for note in notes] == ["a header line left out", "1 rows beyond the 8 annotated frames left out"]
    assert {note.where for note in notes} == {str(tmp_path / "car-1.txt")}
    assert any("header line" in line and "car-1.txt" in line for line in remarks(report))
    assert report.trackers[0].scores.AO == 100


def test_notes_of_many_files_are_one_line(tmp_path, sequence):
    sequences = []
    for name in ("a", "b", "c", "d"):
        sequences.append(SimpleNamespace(**vars(sequence) | {"name": name}))
        (tmp_path / f"{name}.txt").write_text("x,y,w,h\n" + lines(sequence.ground_truth))
    report = evaluate_benchmark([ResultFolder("T", tmp_path)], sequences, "otb")
    (line,) = [line for line in remarks(report) if "header" in line]
    assert "a.txt" in line and "and 2 more files" in line and len(report.trackers[0].notes) == 4


def test_invalid_boxes_are_repaired_and_reported_under_lasots_rules(tmp_path, sequence):
    text = lines(sequence.ground_truth[:5]) + "nan,nan,nan,nan\n" + lines(sequence.ground_truth[5:7])
    with pytest.raises(UserError, match=r"car-1.txt: the box of frame 6 is \[nan.*run the tracker on this"):
        score(tmp_path, sequence, text)
    report = score(tmp_path, sequence, text, convention_for("otb", "lasot"))
    assert "1 invalid boxes" in report.trackers[0].notes[0].what
    assert report.trackers[0].scores.AO < 100


def test_files_of_the_got10k_toolkit(tmp_path, sequence):
    sequence.dataset = "got10k"
    folder = tmp_path / "GOT-10k" / "car-1"
    folder.mkdir(parents=True)
    for run in (1, 2):
        (folder / f"car-1_{run:03d}.txt").write_text(lines(sequence.ground_truth))
    (folder / "car-1_time.txt").write_text("0.1\n" * FRAMES)
    source = ResultFolder("T", tmp_path / "GOT-10k", external=True)
    assert source.locate(sequence).endswith("car-1_001.txt")
    tracker = evaluate_benchmark([source], [sequence], "got10k_val").trackers[0]
    assert tracker.scores.AO == 100 and tracker.fps == pytest.approx(10)
    assert tracker.notes[0].what == "the first of 2 repetitions is scored"


def test_packed_results_with_invalid_boxes_name_the_sequence(tmp_path, sequence):
    boxes = sequence.ground_truth.copy()
    boxes[3] = NAN
    np.savez(tmp_path / "T.npz", names=["car-1"], offsets=[0, FRAMES], boxes=boxes)
    with pytest.raises(UserError, match=r"T.npz \[car-1\]: the box of frame 4"):
        evaluate_benchmark([PackedResults("T", tmp_path / "T.npz")], [sequence], "otb")
