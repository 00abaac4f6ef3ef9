"""Analysis from result files to reports, on a small folder made here."""

import csv
import importlib.util
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from small_benchmark import FRAMES, sequence, two_sequences, two_trackers, write

from lib.test.analysis import plots, run
from lib.test.analysis.conventions import CONVENTIONS
from lib.test.analysis.packed import PackedResults, PackedSequence, read_benchmark
from lib.test.analysis.plots import PLOTS, draw_plot
from lib.test.analysis.report import attribute_table, csv_table, latex_table, markdown_table, text_table
from lib.test.analysis.results import ResultFolder, evaluate_benchmark, find_trackers, image_size, parse_tracker
from lib.utils.errors import UserError
from lib.utils.frames import ImageFrames
from tests.trees import write_picture


@pytest.fixture
def benchmark():
    return two_sequences()


@pytest.fixture
def results(tmp_path, benchmark):
    return two_trackers(tmp_path, benchmark)


@pytest.fixture
def env(results, benchmark, monkeypatch):
    """Settings, and a `get_dataset` that knows only the small benchmark."""
    def get_dataset(name, env):
        if name != "lasot":
            raise UserError(f"data set {name} not found")
        return benchmark

    monkeypatch.setattr(run, "get_dataset", get_dataset)
    listed = run.BENCHMARKS["lasot"]._replace(names=lambda root: [s.name for s in benchmark])
    monkeypatch.setitem(run.BENCHMARKS, "lasot", listed)
    return SimpleNamespace(results_path=str(results), result_plot_path=str(results / "plots"), lasot_path="",
                           got10k_path="", trackingnet_path="")


# --- trackers and scores --------------------------------------------------------------------------------------------


def test_trackers_are_found(results):
    (results / "ours" / "empty").mkdir()
    write(results / "ours" / "only_times" / "a_time.txt", [[0.1]])
    assert [(t.label, t.folder.parent.name) for t in find_trackers(results)] == [
        ("good", "ours"), ("bad_003", "theirs")]
    write(results / "theirs" / "good" / "got10k" / "a.txt", [[1, 2, 3, 4]])
    assert [t.label for t in find_trackers(results)] == ["ours/good", "bad_003", "theirs/good"]
    assert find_trackers(results / "nowhere") == []


def test_tracker_names(results):
    assert parse_tracker("theirs:bad:3=Rival", results).label == "Rival"
    assert parse_tracker("ours:good", results).folder == results / "ours" / "good"
    with pytest.raises(UserError, match="theirs:bad_003"):
        parse_tracker("theirs:bad", results)
    with pytest.raises(UserError, match="expected script:config"):
        parse_tracker("ours", results)


def test_own_subfolder_of_got10k_and_of_plain_folders(results):
    folder = ResultFolder("good", results / "ours" / "good")
    assert folder.locate(sequence("car-1", "got10k")) == str(folder.folder / "car-1.txt")
    write(folder.folder / "got10k" / "car-1.txt", [[1, 2, 3, 4]])
    assert folder.locate(sequence("car-1", "got10k")) == str(folder.folder / "got10k" / "car-1.txt")
    assert folder.locate(sequence("car-1", "folder:mine")) is None  # car-1 of another data set
    folder.external = True
    assert folder.locate(sequence("car-1", "folder:mine")) == str(folder.folder / "car-1.txt")


def test_scores_and_speed(results, benchmark):
    report = evaluate_benchmark(find_trackers(results), benchmark, "lasot")
    good, bad = report.trackers
    assert good.scores.AUC == pytest.approx(100 * 20 / 21) and good.scores.AO == 100
    assert good.fps == pytest.approx(10) and bad.fps is None  # the first frame's time is the initialisation
    assert bad.scores.AO == pytest.approx(100 / 6 * (1 + 30 / 50 + 20 / 60 + 10 / 70))
    assert bad.scores.Precision == pytest.approx(50) and report.complete and report.scored == 2


def test_missing_sequences_are_never_dropped_silently(results, benchmark):
    sources = find_trackers(results)
    (results / "ours" / "good" / "cat-2.txt").unlink()
    report = evaluate_benchmark(sources, benchmark, "lasot")
    good, bad = report.trackers
    assert good.scores is None and good.missing == ["cat-2"] and bad.scores is not None and not report.complete
    assert "good lacks 1 of 2 sequences: cat-2" in text_table(report)
    report = evaluate_benchmark(sources, benchmark, "lasot", partial=True)
    assert report.scored == 1 and all(tracker.scores for tracker in report.trackers)
    assert "PARTIAL: scores over the 1 sequences" in markdown_table(report)
    (results / "theirs" / "bad_003" / "car-1.txt").unlink()
    with pytest.raises(UserError, match="no sequence has results of all"):
        evaluate_benchmark(sources, benchmark, "lasot", partial=True)
    (results / "ours" / "good" / "car-1.txt").unlink()
    good, bad = evaluate_benchmark(sources, benchmark, "lasot", partial=True).trackers
    assert good.scores is None and bad.scores, "a tracker without anything takes nothing from the others"


def test_secret_annotations_are_explained(results):
    hidden = sequence("car-1", "trackingnet")
    hidden.ground_truth[1:] = np.nan
    with pytest.raises(UserError, match="transform_trackingnet"):
        evaluate_benchmark(find_trackers(results), [hidden], "trackingnet")


def test_lasot_without_flags_warns(results, caplog):
    with caplog.at_level(logging.WARNING):
        evaluate_benchmark(find_trackers(results), [sequence("car-1"), sequence("cat-2")], "lasot")
    assert "no visibility flags" in caplog.text


def test_what_a_convention_lacks_is_said_below_the_table(results, benchmark, caplog):
    for seq in benchmark:
        seq.visible = None
    benchmark[0].frames = ImageFrames(results, ["missing.jpg"])
    report = evaluate_benchmark(find_trackers(results), benchmark, "got10k_val")
    text = text_table(report)
    assert "No visibility flags found, so every annotated frame" in text
    assert "not clipped to the image in 2 of 2 sequences" in text and "missing.jpg" in caplog.text


def test_the_size_of_pictures_comes_from_the_first(tmp_path):
    for name in ("a.jpg", "a.png"):
        write_picture(tmp_path / name, 1, (90, 50))
        assert image_size(SimpleNamespace(name="s", frames=ImageFrames(tmp_path, [name]))) == (90, 50)
    assert image_size(SimpleNamespace(name="s")) is None


@pytest.mark.parametrize("convention", ["ostrack", "plain", "got10k", "got10k_first"])
def test_sequences_without_anything_to_measure_are_left_out(tmp_path, benchmark, convention):
    """Only the first frame has a box, or the target is hidden in all others: neither a perfect score nor an error."""
    first_only, hidden = sequence("first-1", visible=np.ones(FRAMES, bool)), sequence("hidden-1")
    first_only.ground_truth[1:] = np.nan
    hidden.visible = np.arange(FRAMES) == 0
    for name in ("first-1", "hidden-1"):
        write(tmp_path / "r" / f"{name}.txt", np.full((FRAMES, 4), 7.0))
    for seq in benchmark:
        write(tmp_path / "r" / f"{seq.name}.txt", seq.ground_truth + np.arange(FRAMES)[:, None])
    source = ResultFolder("r", tmp_path / "r")
    chosen = CONVENTIONS[convention]
    alone = evaluate_benchmark([source], benchmark, "lasot", chosen)
    both = evaluate_benchmark([source], [first_only, *benchmark, hidden], "lasot", chosen)
    assert both.trackers[0].scores.as_dict() == alone.trackers[0].scores.as_dict() and both.total == alone.total == 2
    assert any("first-1, hidden-1: left out" in lack for lack in both.notes)
    with pytest.raises(UserError, match="no sequence has a box of a visible target after its first frame"):
        evaluate_benchmark([source], [first_only, hidden], "lasot", chosen)


# --- packed files ---------------------------------------------------------------------------------------------------


def pack(path, benchmark, boxes=None, **more):
    lengths = [len(seq.ground_truth) for seq in benchmark]
    np.savez(path, names=[seq.name for seq in benchmark], offsets=np.cumsum([0, *lengths]),
             boxes=np.concatenate([seq.ground_truth for seq in benchmark]) if boxes is None else boxes, **more)
    return path


def test_packed_benchmark(tmp_path, benchmark):
    absent = np.zeros(2 * FRAMES)
    absent[FRAMES] = 1
    path = pack(tmp_path / "toy_gt.npz", benchmark, absent=absent)
    first, second = read_benchmark(path)
    assert isinstance(first, PackedSequence) and (first.name, first.dataset) == ("car-1", "toy")
    assert first.visible.all() and second.visible.tolist() == [False] + [True] * (FRAMES - 1)
    np.testing.assert_array_equal(second.ground_truth, benchmark[1].ground_truth)
    source = PackedResults("same", path)
    assert source.find([sequence("dog-3")]) == [None] and source.find([first])[0].times() is None
    report = evaluate_benchmark([source], [first, second], "toy", CONVENTIONS["plain"])
    assert report.trackers[0].scores.AO == 100


def test_bad_packed_files(tmp_path, benchmark):
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(UserError, match="cannot be read"):
        read_benchmark(tmp_path / "text.npz")
    with pytest.raises(UserError, match="no such file"):
        read_benchmark(tmp_path / "none.npz")
    np.savez(tmp_path / "keys.npz", names=["a"])
    with pytest.raises(UserError, match="names, offsets and boxes"):
        read_benchmark(tmp_path / "keys.npz")
    with pytest.raises(UserError, match="shape"):
        read_benchmark(pack(tmp_path / "rows.npz", benchmark, boxes=np.zeros((3, 4))))
    np.savez(tmp_path / "pickle.npz", names=np.array([{}], dtype=object), offsets=[0, 1], boxes=np.zeros((1, 4)))
    with pytest.raises(UserError, match="cannot be read"):
        read_benchmark(tmp_path / "pickle.npz")
    for name, offsets in (("half", [0, 1.5]), ("words", ["0", "1"]), ("few", [0]), ("falling", [0, -1])):
        np.savez(tmp_path / f"{name}.npz", names=["a"], offsets=offsets, boxes=np.zeros((1, 4)))
        with pytest.raises(UserError, match="offsets must be 2 whole numbers"):
            read_benchmark(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "twice.npz", names=["a", "a"], offsets=[0.0, 1.0, 2.0], boxes=np.zeros((2, 4)))
    with pytest.raises(UserError, match="two sequences are called a"):
        read_benchmark(tmp_path / "twice.npz")
    packed = pack(tmp_path / "gt.npz", benchmark)
    with pytest.raises(UserError, match="no visibility flag"):
        read_benchmark(packed, absent=packed)


# --- repeated runs and attributes -----------------------------------------------------------------------------------


def test_repeated_runs_become_one_row(env, results, benchmark):
    for run_id, shift in ((0, 0), (1, 10), (1000, 20)):
        for seq in benchmark:
            write(results / "ours" / f"net_{run_id:03d}" / f"{seq.name}.txt",
                  seq.ground_truth + np.outer(np.arange(FRAMES) > 0, [shift, 0, 0, 0]), times=[1] * FRAMES)
    single = {t.label: t.scores for t in run.analyse(env, datasets=["lasot"], script="ours")[0].trackers}
    (report,) = run.analyse(env, datasets=["lasot"], merge_runs=True)
    assert [t.label for t in report.trackers] == ["good", "net", "bad"]
    net = report.trackers[1]
    values = [single[f"net_{i:03d}"].AUC for i in (0, 1, 1000)]
    assert net.runs == 3 and net.scores.AUC == pytest.approx(np.mean(values)) and net.fps == 1
    assert net.deviation["AUC"] == pytest.approx(np.std(values, ddof=1))
    assert report.trackers[2].runs == 1 and report.trackers[2].deviation is None  # bad_003 is alone
    text = text_table(report)
    assert f"{np.mean(values):.2f} +- {np.std(values, ddof=1):.2f}" in text and "net: mean of 3 runs" in text
    rows = list(csv.DictReader(csv_table(report).splitlines()))
    assert float(rows[1]["AUC std"]) == pytest.approx(net.deviation["AUC"], abs=1e-4) and rows[0]["AUC std"] == ""
    (results / "ours" / "net_001" / "car-1.txt").unlink()
    net = run.analyse(env, datasets=["lasot"], merge_runs=True)[0].trackers[1]
    assert net.scores is None and net.missing == ["car-1"]


def test_scores_by_attribute(results, benchmark):
    benchmark[0].attributes, benchmark[1].attributes = ("fast",), ("fast", "small")
    report = evaluate_benchmark(find_trackers(results), benchmark, "lasot")
    assert report.attributes == {"fast": ["car-1", "cat-2"], "small": ["cat-2"]}
    table = attribute_table(report)
    assert list(table.columns) == ["Attribute", "Sequences", "good", "bad_003"]
    assert table.Attribute.tolist() == ["fast", "small"] and table.Sequences.tolist() == [2, 1]
    assert table.bad_003[1] == pytest.approx(100 * report.trackers[1].sequences["cat-2"].auc)
    assert "AUC by attribute" in text_table(report) and "| small | 1 |" in markdown_table(report)


def test_attributes_from_a_file(env, tmp_path):
    path = tmp_path / "attributes.json"
    path.write_text('{"car-1": ["night"], "unknown": ["day"]}')
    assert run.analyse(env, datasets=["lasot"], attributes=path)[0].attributes == {"night": ["car-1"]}
    for content, message in (("{", "cannot be read as JSON"), ('["a"]', "attributes are expected"),
                             ('{"a": "b"}', "attributes are expected")):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            run.analyse(env, datasets=["lasot"], attributes=path)
    with pytest.raises(UserError, match="cannot be read"):
        run.analyse(env, datasets=["lasot"], attributes=tmp_path / "none.json")


# --- reports --------------------------------------------------------------------------------------------------------


def test_text_table_is_aligned_and_sorted(results, benchmark):
    lines = text_table(evaluate_benchmark(find_trackers(results), benchmark, "lasot")).splitlines()
    header, good, bad = lines[2], lines[4], lines[5]
    assert good.startswith("good") and bad.startswith("bad_003")
    assert len(header) == len(good) == len(bad)
    assert good.split()[1:3] == ["95.24", "100.00"] and good.split()[-1] == "2/2"


def test_files(results, benchmark, tmp_path):
    report = evaluate_benchmark(find_trackers(results), benchmark, "folder:a b")
    folder = run.report_folder(tmp_path / "out", report)
    assert folder.name == "folder_a_b"
    paths = run.write_report(report, folder, run.FORMATS)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in paths)
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert [row["Tracker"] for row in rows] == ["good", "bad_003"]
    assert float(rows[1]["AUC"]) == pytest.approx(report.trackers[1].scores.AUC, abs=1e-4) and rows[1]["FPS"] == ""
    assert (folder / "success.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "norm_precision.pdf").read_bytes().startswith(b"%PDF")
    assert "| good |" in (folder / "scores.md").read_text()
    content = json.loads((folder / "scores.json").read_text())
    assert content["trackers"][1]["scores"] == report.trackers[1].scores.as_dict()
    assert content["trackers"][0]["sequences"]["cat-2"]["AO"] == 100 and len(content["thresholds"]["precision"]) == 51
    rows = list(csv.DictReader((folder / "sequences.csv").open()))
    assert [(row["Sequence"], row["Tracker"]) for row in rows[:2]] == [("car-1", "good"), ("car-1", "bad_003")]
    assert float(rows[0]["AO"]) == 100 and rows[0]["Frames"] == str(FRAMES)


def test_plots_that_are_up_to_date_are_left_alone(results, benchmark, tmp_path, monkeypatch):
    def report():
        return evaluate_benchmark(find_trackers(results), benchmark, "lasot")

    drawn = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda *arguments: drawn.append(arguments[1].name) or save(*arguments))
    monkeypatch.setattr(plots, "PLOTS", PLOTS[:1])
    plots.save_plots(report(), tmp_path / "out", ["png", "pdf"])
    assert drawn == ["success.png", "success.pdf"]
    assert len(plots.save_plots(report(), tmp_path / "out", ["png", "pdf"])) == 2 and len(drawn) == 2
    (tmp_path / "out" / "success.pdf").write_text("something else")
    plots.save_plots(report(), tmp_path / "out", ["png", "pdf"])
    assert drawn[2:] == ["success.pdf"]
    write(results / "ours" / "good" / "car-1.txt", benchmark[0].ground_truth + np.outer(np.arange(FRAMES) > 0, [9] * 4))
    plots.save_plots(report(), tmp_path / "out", ["png"])
    assert drawn[3:] == ["success.png"]


def test_latex_table(results, benchmark):
    report = evaluate_benchmark(find_trackers(results), benchmark, "lasot")
    report.trackers[0].label = "A_b & 50% {x}"
    lines = latex_table(report).splitlines()
    body = lines[lines.index(r"\midrule") + 1:lines.index(r"\bottomrule")]
    assert body[0].startswith(r"A\_b \& 50\% \{x\} & \textbf{95.2} & \textbf{100.0}") and body[0].endswith(r"\\")
    assert body[1].startswith(r"bad\_003 & ") and "textbf" not in body[1]
    assert all(line.count(" & ") == body[1].count(" & ") for line in body[1:])


def test_legend_is_sorted_by_the_score_it_shows(results, benchmark):
    report = evaluate_benchmark(find_trackers(results)[::-1], benchmark, "lasot")
    axes = draw_plot(report, PLOTS[0]).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"good [{100 * 20 / 21:.1f}]", f"bad_003 [{report.trackers[0].scores.AUC:.1f}]"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [100] * 20 + [0])


def test_curves_of_many_trackers_can_be_told_apart(results, benchmark):
    source = find_trackers(results)[0]
    many = [ResultFolder(f"tracker {i}", source.folder) for i in range(12)]
    lines = draw_plot(evaluate_benchmark(many, benchmark, "lasot"), PLOTS[1]).axes[0].lines
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 12


def test_formats():
    assert run.parse_formats("pdf, csv") == ("csv", "pdf") and run.parse_formats("none") == ()
    with pytest.raises(UserError, match="docx"):
        run.parse_formats("docx")


# --- the whole ------------------------------------------------------------------------------------------------------


def test_everything_is_found_without_arguments(env):
    (report,) = run.analyse(env)
    assert report.dataset == "lasot" and [t.label for t in report.trackers] == ["good", "bad_003"]


def test_found_trackers_without_this_data_set_are_left_out_but_named_ones_are_not(env, results):
    write(results / "ours" / "other" / "dog-3.txt", [[1, 2, 3, 4]])
    assert len(run.analyse(env, datasets=["lasot"])[0].trackers) == 2
    report = run.analyse(env, datasets=["lasot"], trackers=["ours:good", "ours:other"])[0]
    assert report.trackers[1].missing == ["car-1", "cat-2"] and report.trackers[1].scores is None
    assert len(run.analyse(env, script="theirs")[0].trackers) == 1
    with pytest.raises(UserError, match="no results of other"):
        run.analyse(env, datasets=["lasot"], trackers=["ours:other"])


def test_what_cannot_be_scored_is_explained(env, results, monkeypatch):
    with pytest.raises(UserError, match="two trackers are called"):
        run.analyse(env, trackers=["ours:good", "ours:good"])
    with pytest.raises(UserError, match="no results below"):
        run.analyse(env, results_path=results / "nowhere")
    with pytest.raises(UserError, match="NAME=FILE"):
        run.analyse(env, results=["x.npz"])
    with pytest.raises(UserError, match="unknown convention"):
        run.analyse(env, convention="x")
    monkeypatch.setattr(run, "get_dataset", lambda name, env: (_ for _ in ()).throw(UserError(f"{name} is not there")))
    write(results / "ours" / "good" / "folder_mine" / "a.txt", [[1, 2, 3, 4]])
    with pytest.raises(UserError, match="lasot is not there(.|\n)*folder:PATH"):
        run.analyse(env)


def test_packed_benchmark_with_a_folder_of_results(env, results, benchmark, tmp_path):
    truth = pack(tmp_path / "lasot_gt.npz", benchmark)
    with pytest.raises(UserError, match="--absent"):
        run.analyse(env, ground_truth=truth, trackers=["ours:good"])
    report = run.analyse(env, ground_truth=truth, convention="plain",
                         results=[f"files={results / 'ours' / 'good'}", f"packed={truth}"])[0]
    assert [tracker.scores.AO for tracker in report.trackers] == [100, 100]


@pytest.fixture
def script(root):
    spec = importlib.util.spec_from_file_location("analysis_results", root / "tracking" / "analysis_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script(script, env, results, capsys, monkeypatch):
    monkeypatch.setattr(script, "env_settings", lambda: env)
    assert script.main(["--formats", "csv"]) == 0
    assert "good" in capsys.readouterr().out and (results / "plots" / "lasot" / "scores.csv").is_file()
    (results / "ours" / "good" / "cat-2.txt").unlink()
    assert script.main(["--formats", "none"]) == 1
    assert script.main(["--formats", "none", "--partial"]) == 0
    with pytest.raises(UserError, match="--config and --runid need"):
        script.main(["--config", "good"])
    assert script.main(["--script", "theirs", "--config", "bad", "--runid", "3", "--formats", "none"]) == 0
    with pytest.raises(UserError, match="--pictures -1"):
        script.main(["--pictures", "-1"])


def test_script_keeps_scores_unless_told_otherwise(script, env, results, monkeypatch):
    monkeypatch.setattr(script, "env_settings", lambda: env)
    assert script.main(["--formats", "none", "--no-cache"]) == 0
    assert not (results / "plots" / "lasot").exists()
    assert script.main(["--formats", "none"]) == 0
    assert len(list((results / "plots" / "lasot" / "cache").iterdir())) == 2


def test_script_times_the_scoring(script, env, capsys, monkeypatch):
    monkeypatch.setattr(script, "env_settings", lambda: env)
    assert script.main(["--benchmark", "--formats", "none"]) == 0
    assert "lasot: good: 2 sequences, 12 frames: vectorised" in capsys.readouterr().out


def test_script_in_a_save_dir(script, env, results, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "env_settings", lambda: env)
    save_dir = tmp_path / "save"
    (save_dir / "test").mkdir(parents=True)
    (save_dir / "test" / "tracking_results").symlink_to(results)
    assert script.main(["--save_dir", str(save_dir), "--formats", "md"]) == 0
    assert (save_dir / "test" / "result_plots" / "lasot" / "scores.md").is_file()
