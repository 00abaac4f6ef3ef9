"""tracking/compare_trackers.py: trackers on one test set, scored and timed side by side."""

import json
import shutil

import cv2
import numpy as np
import pytest
from matplotlib.text import Text
from square_runs import load_script
from tiny_models import require_packages, scramble, tiny

from lib.families.build import build_tracker
from lib.models.checkpoint import save_slim
from lib.pipeline import comparison as module
from lib.pipeline.comparison import FrameTimes, Run, choose_runs
from lib.pipeline.comparison_report import Comparison
from lib.pipeline.scoring import ScoreRecord, TestSet
from lib.test.tracker.choice import choose_tracker, parse_tracker
from lib.utils.errors import UserError
from lib.vis import charts


@pytest.fixture
def seeds(tmp_path):
    """A tiny OSTrack's configuration, and two files with weights of it."""
    cfg = tiny("ostrack", MODEL__BACKBONE__DEPTH=2)
    cfg.save(tmp_path / "tiny.yaml")
    files = [tmp_path / f"seed{seed}.pth.tar" for seed in (0, 1)]
    for seed, file in enumerate(files):
        save_slim(file, scramble(build_tracker(cfg), seed), cfg)
    return tmp_path / "tiny.yaml", files


@pytest.fixture
def compare(root, monkeypatch, tmp_path, square_data):
    """`compare(*arguments)`: the script's main in this process, on the squares with few timed frames."""
    monkeypatch.setattr(module, "PASSES", 6)
    monkeypatch.setattr(module, "WARMUP", 1)

    def run(*arguments):
        line = [*arguments, "--dataset", f"folder:{square_data}", "--threads", "1", "--output", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", ["compare_trackers.py", *line])
        return load_script(root / "tracking" / "compare_trackers.py").main()
    return run


def made(scores: dict[str, list[dict[str, float]]], **keys) -> Comparison:
    """A report of made-up runs: label -> AUC by sequence of each run."""
    runs = {}
    for label, records in scores.items():
        runs[label] = []
        for by_sequence in records:
            auc = float(np.mean(list(by_sequence.values())))
            run = Run(label, "a/b", None, {"checkpoint": {"file": "w"}}, None, False)
            runs[label].append((run, ScoreRecord("set", {"AUC": auc, "Precision": auc, "OP50": auc}, by_sequence,
                                                 {"test": 1.0})))
    return Comparison("set", runs, **{"times": {}, "sizes": {}} | keys)


# ---- the words that name a tracker

def test_a_tracker_in_one_word(tmp_path):
    weights = tmp_path / "a=b@c.pth"
    weights.touch()
    label, options = parse_tracker(f"ostrack/x=my label@{weights}", "cpu")
    assert (label, options.tracker_name, options.tracker_param) == ("my label", "ostrack", "x")
    assert options.checkpoint == weights and options.exported is None and options.device == "cpu"
    label, options = parse_tracker(f"ostrack/x@{tmp_path}")
    assert label == "" and options.exported == tmp_path and options.checkpoint is None
    assert parse_tracker("ostrack/my/x.yaml")[1].tracker_param == "my/x.yaml"


def test_all_files_of_an_exported_tracker_count(student, exported, tmp_path):
    """OpenVINO keeps the weights beside the graph, which may be the same with others."""
    require_packages("torchscript")
    student.cfg.save(tmp_path / f"{student.cfg.name}.yaml")
    folder = shutil.copytree(exported("torchscript", take_pixels=True)[0], tmp_path / "out")
    name = f"{student.cfg.script}/{tmp_path / student.cfg.name}.yaml@{folder}"

    def made_with():
        return choose_tracker(parse_tracker(name, "cpu")[1]).made_with()

    records = [made_with()]
    (folder / "search.bin").write_bytes(b"weights")
    records.append(made_with())
    (folder / "search.bin").write_bytes(b"other weights")
    records.append(made_with())
    with open(folder / "template.pt", "ab") as file:
        file.write(b"another")
    records.append(made_with())
    assert len({json.dumps(record) for record in records}) == 4 and made_with() == records[-1]
    assert "TEST.SEARCH_FACTOR" in records[0]["settings"] and "exported.rules" not in records[0]["settings"]
    content = json.loads((folder / "manifest.json").read_text()) | {"search_factor": 3.25, "window": False}
    (folder / "manifest.json").write_text(json.dumps(content))
    settings = made_with()["settings"]
    assert (settings["TEST.SEARCH_FACTOR"], settings["TEST.WINDOW"]) == (3.25, False), "what it tracks with"
    assert {name for name, value in settings.items() if records[-1]["settings"].get(name) != value} == {
        "TEST.SEARCH_FACTOR", "TEST.WINDOW"}


@pytest.mark.parametrize("text, message", [
    ("nano", "expected a tracker as SCRIPT/CONFIG"), ("/nano", "expected a tracker"), ("opencv/", "expected a tracker"),
    ("opencv/mil=", "expected a tracker"), ("opencv/mil@", "expected a tracker"),
    ("opencv/nano@none.onnx", "there is nothing at .*none.onnx")])
def test_a_wrong_word_is_explained(text, message):
    with pytest.raises(UserError, match=message):
        parse_tracker(text)


# ---- numbers

def test_differences_are_paired_by_sequence():
    report = made({"teacher": [{"a": 50.0, "b": 60.0, "c": 70.0}],
                   "student": [{"a": 45.0, "b": 56.0, "c": 67.0}, {"a": 47.0, "b": 56.0, "c": 65.0}]},
                  reference="teacher")
    difference = report.difference("student")     # -4, -4, -4
    assert difference.number == 3 and difference.mean == -4 and difference.half == 0
    assert report.difference("teacher") is None
    teacher, student = report.rows()
    assert teacher["AUC"] == "60.0" and teacher["of teacher"] == "100.0 %" and teacher["AUC difference"] == ""
    assert student["AUC"] == "56.0 +- 0.0" and student["of teacher"] == "93.3 %" and student["runs"] == "2"
    assert student["AUC difference"] == "-4.0 [-4.0, -4.0]"


def test_intervals_are_those_of_the_runs_and_only_theirs():
    report = made({"one": [{"a": 50.0}], "three": [{"a": 50.0}, {"a": 52.0}, {"a": 54.0}], "none": []},
                  times={"three": FrameTimes(20.0, 30.0, 240)}, sizes={"three": (4, 1_234_567)})
    one, three, none = report.rows()
    assert one["95 %"] == "" and three["AUC"] == "52.0 +- 2.0" and three["95 %"] == "[47.0, 57.0]"    # t is 4.303
    assert (three["layers"], three["params (M)"], three["ms"], three["FPS"]) == ("4", "1.23", "20.0", "50.0")
    assert none["AUC"] == none["ms"] == "-" and "of teacher" not in one
    assert any("single run has no interval" in note for note in report.notes())
    assert "95 %" not in made({"one": [{"a": 50.0}]}).rows()[0]


def test_a_sequence_without_annotations_is_left_out_of_the_differences():
    report = made({"a": [{"x": 50.0, "y": float("nan")}], "b": [{"x": 40.0, "y": 30.0}]}, reference="a")
    assert report.difference("b").mean == -10 and report.difference("b").number == 1


def test_a_target_never_jumps_while_it_is_timed():
    seen = []

    class Tracker:
        def start(self, image, box):
            return box

        def step(self, images, targets):
            seen.append((targets[0], images[0]))
    stream = module._Stream(Tracker(), [([0, 1, 2], "a"), ([5, 6], "b")])
    for _ in range(9):
        stream()
    assert seen == [("a", 1), ("a", 2), ("a", 1), ("a", 0), ("b", 6), ("b", 5), ("a", 1), ("a", 2), ("a", 1)]


# ---- the command

def test_seeds_beside_opencv(compare, seeds, tmp_path, capsys, caplog):
    config, files = seeds
    words = ["opencv/mil", *(f"ostrack/{config}=ours@{file}" for file in files)]
    assert compare(*words, "--reference", "ours") == 0
    shown = capsys.readouterr().out
    out = tmp_path / "out"
    assert (out / "table.txt").read_text() in shown + "\n" and (out / "speed.png").is_file()
    head, mil, ours = shown.strip().splitlines()[:3]
    assert "of ours" in head and mil.startswith("opencv/mil ") and ours.split()[:3] == ["ours", "2", "2"]
    assert "100.0 %" in ours and "+-" in ours and "+-" not in mil and "1 CPU threads" in shown
    assert len((out / "runs.csv").read_text().splitlines()) == 4
    assert (out / "table.md").read_text().startswith("| tracker | runs | layers |")
    times = json.loads((out / "times.json").read_text())
    assert set(times["trackers"]) == {"opencv/mil", "ours"} and times["trackers"]["ours"]["frames"] == 6

    written = {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*.txt")}
    assert written and compare(*words[1:], "opencv/mil=MIL", "--report") == 0
    assert written == {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*.txt")}
    assert json.loads((out / "times.json").read_text()) == times
    ours, mil = (out / "table.txt").read_text().splitlines()[1:3]
    assert mil.startswith("MIL ") and mil.split()[-3:] == ["-", "-", "-"], "timed under another label"


def test_nothing_is_tracked_twice_and_other_weights_are_others(compare, seeds, tmp_path, monkeypatch):
    config, files = seeds
    assert compare(f"ostrack/{config}@{files[0]}") == 0
    with pytest.raises(UserError, match=r"none of these trackers is done"):
        compare(f"ostrack/{config}@{files[1]}", "--report")
    scored = []
    original = TestSet.score
    monkeypatch.setattr(TestSet, "score", lambda *given: scored.append(given[3]) or original(*given))
    assert compare(f"ostrack/{config}=a@{files[0]}", f"ostrack/{config}=b@{files[1]}") == 0
    assert len(scored) == 1 and len(list((tmp_path / "out/results/ostrack").iterdir())) == 2
    assert compare(f"ostrack/{config}@{files[0]}", "--convention", "ostrack") == 0
    assert len(scored) == 2, "the scores of another convention were taken"


def test_an_export_beside_its_weights(compare, student, exported, tmp_path):
    require_packages("onnx")
    folder, _ = exported("onnx")
    student.cfg.save(tmp_path / f"{student.cfg.name}.yaml")
    config = tmp_path / f"{student.cfg.name}.yaml"
    assert compare(f"compresstracker/{config}=student@{student.checkpoint}",
                   f"compresstracker/{config}=exported@{folder}", "--reference", "student", "--device", "cpu") == 0
    lines = (tmp_path / "out/table.txt").read_text().splitlines()
    assert lines[1].split()[:2] == ["student", "2"] and lines[2].split()[0] == "exported"
    assert lines[2].split()[1] != "2", "the size of an export is not known"


@pytest.mark.parametrize("words, message", [
    (["opencv/mil", "opencv/mil=again"], r"opencv/mil=again has the weights and settings of opencv/mil"),
    (["opencv/mil", "--reference", "teacher"], "--reference teacher is no label; there are opencv/mil"),
    (["opencv/kcf"], "no tracker 'kcf'"), (["ostrack/none"], "none")])
def test_wrong_input_is_refused_before_the_work(compare, monkeypatch, words, message):
    monkeypatch.setattr(TestSet, "score", lambda *_: pytest.fail("tracked"))
    with pytest.raises(UserError, match=message):
        compare(*words)


def test_a_failure_names_its_tracker(compare, monkeypatch):
    def refuse(*_):
        raise cv2.error("no samples")
    monkeypatch.setattr(cv2, "TrackerMIL_create", lambda: type("Broken", (), {"init": refuse})())
    with pytest.raises(UserError, match="opencv/mil: one failed: OpenCV's MIL refuses"):
        compare("opencv/mil")


def test_a_damaged_record_is_named(tmp_path, square_data):
    test_set = TestSet(f"folder:{square_data}")
    run, = choose_runs(["opencv/mil"], test_set, tmp_path)
    assert run.record(test_set) is None and run.size() is None
    run.folder.mkdir(parents=True)
    (run.folder / "score.json").write_text("{")
    with pytest.raises(UserError, match="score.json is damaged"):
        run.record(test_set)


def test_labels_of_close_points_stand_apart():
    figure = charts.new_figure(7, 4.5)
    axes = figure.subplots()
    points = {"compressed, int8": (2.0, 54.8), "compressed, float32": (2.6, 54.6), "teacher": (7.3, 66.8),
              "compressed": (6.6, 54.5), "naive": (6.6, 54.4)}
    for point in points.values():
        axes.plot(*point, "o")
    axes.margins(x=0.18, y=0.12)
    charts._label_points(axes, points)
    assert [text.get_text() for text in axes.texts] == list(points)
    figure.draw_without_rendering()
    extents = [Text.get_window_extent(text) for text in axes.texts]      # without the lines to the points
    assert not any(extent.count_overlaps(extents[:place]) for place, extent in enumerate(extents))
