"""Ablation ladders: the file, the runs, and what is made of them."""

import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from square_runs import end, load_script, wait_until
from test_families import small
from tiny_models import scramble

from lib.families.build import build_tracker
from lib.models.checkpoint import save_slim
from lib.pipeline import ladder as ladder_module
from lib.pipeline import provenance
from lib.pipeline.ladder import Ladder, LadderRun, ReferenceRun, climb
from lib.pipeline.ladder_report import LadderReport, collect
from lib.pipeline.scoring import ScoreRecord, TestSet
from lib.utils.errors import UserError
from lib.utils.statistics import student_quantile, summarise

RUNGS = {"naive": {"TRAIN.SUP_LOGIT": False, "TRAIN.SUP_FEAT": False, "TRAIN.SUP_REPLACE": False}, "full": None}


@pytest.fixture
def tiny_ladder(tmp_path, square_data):
    """`tiny_ladder(**changes)`: the file of a ladder of two rungs, a tiny student on the moving squares."""
    cfg = small("ostrack")
    cfg.save(tmp_path / "teacher.yaml")
    weights = tmp_path / "teacher.pth.tar"
    save_slim(weights, scramble(build_tracker(cfg)), cfg)
    keys = {"MODEL.PRETRAIN_FILE": str(weights), "MODEL.BACKBONE.EMBED_DIM": 32, "MODEL.BACKBONE.NUM_HEADS": 2,
            "MODEL.BACKBONE.DEPTH": 4, "MODEL.BACKBONE.IMG_SIZE": 64, "MODEL.HEAD.NUM_CHANNELS": 16,
            "MODEL.BACKBONE.DISTILL_LAYER": 2, "DATA.TEMPLATE.SIZE": 32, "DATA.SEARCH.SIZE": 64,
            "TEST.TEMPLATE_SIZE": 32, "TEST.SEARCH_SIZE": 64, "DATA.TRAIN.DATASETS_NAME": [f"FOLDER:{square_data}"],
            "DATA.TRAIN.DATASETS_RATIO": [1], "DATA.VAL.DATASETS_NAME": [], "DATA.VAL.DATASETS_RATIO": [],
            "TRAIN.TOTAL_BATCH": 0, "TRAIN.BATCH_SIZE": 4, "DATA.TRAIN.SAMPLE_PER_EPOCH": 8, "TRAIN.EPOCH": 1,
            "TRAIN.NUM_WORKER": 0}

    def write(**changes):
        content = {"config": "compresstracker_vitb_256_2", "dataset": f"folder:{square_data}", "seeds": 2, "set": keys,
                   "rungs": RUNGS} | changes
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None},
                                       sort_keys=False))
        return path
    return write


@pytest.fixture
def ablation(root, monkeypatch, tmp_path):
    """`ablation(file, *more)`: tracking/ablation.py's main in this process, on the CPU."""
    def run(file, *more):
        line = ["--ladder", str(file), "--output", str(tmp_path / "out"), "--device", "cpu", *more]
        monkeypatch.setattr("sys.argv", ["ablation.py", *line])
        return load_script(root / "tracking" / "ablation.py").main()
    return run


def record(auc: float) -> ScoreRecord:
    return ScoreRecord("set", {"AUC": auc, "AO": auc / 2}, {"one": auc}, {"train": 2.0, "test": 1.0})


def report(scores: dict[str, list[float]], **keys) -> LadderReport:
    rungs = {rung: {} for rung in scores}
    ladder = Ladder(SimpleNamespace(stem="made"), "compresstracker", "x", "set", (0, 1, 2), {}, rungs, **keys)
    return LadderReport(ladder, {rung: {seed: record(value) for seed, value in enumerate(values)}
                                 for rung, values in scores.items()}, {"AUC": 80.0} if keys.get("reference") else None)


# ---- numbers

@pytest.mark.parametrize("freedom, value", [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (29, 2.0452)])
def test_students_quantile_is_that_of_the_tables(freedom, value):
    assert student_quantile(freedom, 0.975) == pytest.approx(value, abs=1e-3)
    assert student_quantile(freedom, 0.025) == pytest.approx(-value, abs=1e-3)


def test_summary_by_hand():
    whole = summarise([1.0, 2.0, 3.0, 6.0])
    assert whole.mean == 3 and whole.deviation == pytest.approx((14 / 3) ** 0.5)
    assert whole.half == pytest.approx(3.1824 * (14 / 3 / 4) ** 0.5, abs=1e-3)
    assert whole.interval == (whole.mean - whole.half, whole.mean + whole.half)
    assert summarise([5.0])[:2] == (1, 5.0) and summarise([5.0]).half != summarise([5.0]).half     # NaN


def test_differences_are_paired_by_seed():
    made = report({"a": [50.0, 60.0, 70.0], "b": [51.0, 62.0, 73.0], "c": [40.0, 50.0]})
    assert made.gain("a") is None
    assert made.gain("b").mean == 2 and made.gain("b").deviation == 1
    assert made.gain("c").mean == pytest.approx(-11.5) and made.gain("c").number == 2     # the seeds that both have
    against_first = report({"a": [50.0, 60.0, 70.0], "b": [51.0, 62.0, 73.0], "c": [40.0, 50.0]}, compare="first")
    assert against_first.gain("c").mean == -10


def test_the_table_and_the_files(tmp_path):
    made = report({"a": [50.0, 60.0, 70.0], "b": [51.0, 62.0, 73.0], "c": []}, reference="ostrack/x")
    rows = made.rows()
    assert [row["rung"] for row in rows] == ["ostrack/x", "a", "b", "c"]
    assert rows[2]["AUC"] == "62.0 +- 11.0" and rows[2]["of the reference"] == "77.5 %"
    assert rows[2]["to the rung before"] == "+2.0 [-0.5, +4.5]" and rows[3]["AUC"] == "-"
    files = made.write(tmp_path)
    assert {path.name for path in files} == {"table.txt", "table.md", "runs.csv", "ladder.png", "ladder.pdf"}
    assert (tmp_path / "table.txt").read_text() == made.table() + "\n"
    assert (tmp_path / "table.md").read_text().splitlines()[4].startswith("| b | 3 | 62.0 +- 11.0 | +2.0 [-0.5, +4.5]")
    assert (tmp_path / "runs.csv").read_text().splitlines()[1] == "a,0,50.0,25.0,2.0,1.0"


# ---- the file

@pytest.mark.parametrize("changes, message", [
    ({"rungs": None}, "rungs is missing"), ({"rung": {}}, "unknown key rung"), ({"seeds": 0}, "seeds is 0"),
    ({"seeds": [1, 1]}, r"seeds is \[1, 1\]"), ({"seeds": "two"}, "seeds is 'two'"),
    ({"set": [1]}, "of the wrong kind"), ({"score": "auc"}, "expected one of AUC"),
    ({"compare": "last"}, "compare is last; expected one of previous, first"),
    ({"rungs": {"a/b": {}}}, "rung a/b"), ({"convention": "mine"}, "convention is mine"),
    ({"seeds": [[1]]}, "seeds is"),
    ({"rungs": {"a": []}}, "rung a"), ({"rungs": {"-a": {}}}, "rung -a"), ({"rungs": {"a": {"TRAIN.SEED": 1}}},
                                                                          "the seeds are those of the key seeds")])
def test_wrong_files(tiny_ladder, changes, message):
    with pytest.raises(UserError, match=message):
        Ladder.read(tiny_ladder(**changes))


def test_a_missing_file_and_a_wrong_rung(tiny_ladder, tmp_path):
    with pytest.raises(UserError, match="no ladder .*none.yaml.*experiments/ladders"):
        Ladder.read(tmp_path / "none.yaml")
    ladder = Ladder.read(tiny_ladder(rungs={"good": {}, "bad": {"TRAIN.EPOCHS": 3}}))
    with pytest.raises(UserError, match=r"tiny.yaml, rung bad: .*TRAIN.EPOCHS.*TRAIN.EPOCH"):
        climb(ladder, tmp_path / "out", command=pytest.fail)
    assert not (tmp_path / "out").exists()


def test_what_takes_the_place_of_the_file(tiny_ladder):
    assert Ladder.read(tiny_ladder()).seeds == (0, 1)
    changed = Ladder.read(tiny_ladder(), {"seeds": 3, "dataset": "lasot", "config": None}, ["TRAIN.EPOCH=7"])
    assert changed.seeds == (0, 1, 2) and changed.dataset == "lasot" and changed.load("full", 2).TRAIN.EPOCH == 7
    runs = list(Ladder.read(tiny_ladder()).runs())
    assert runs == [("naive", 0), ("full", 0), ("naive", 1), ("full", 1)]


def test_every_ladder_of_the_project_can_be_read(root):
    files = sorted((root / "experiments" / "ladders").glob("*.yaml"))
    assert files
    for file in files:
        ladder = Ladder.read(file)
        for rung in ladder.rungs:
            assert ladder.load(rung, 0).compresses


# ---- the runs

def test_a_ladder_is_climbed_stopped_and_gone_on_with(tiny_ladder, ablation, tmp_path, capsys, square_data):
    file = tiny_ladder(reference=f"ostrack/{tmp_path / 'teacher.yaml'}")
    assert ablation(file, "--only", "naive", "--seed", "0") == 0        # as a cluster's job would
    first = tmp_path / "out" / "runs" / "naive_seed0" / "score.json"
    written = first.stat().st_mtime_ns
    assert ablation(file, "--report") == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("full")).split() == ["full", "0", "-"]
    assert ablation(file, "--jobs", "2", "--seeds", "2") == 0
    assert first.stat().st_mtime_ns == written, "a run that was done was done again"
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("naive") and " 2 " in line for line in lines)
    assert any(line.startswith("full") and " 2 " in line and "[" in line for line in lines)
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").rglob("score.json"))]
    assert len(records) == 1 + 4 and {one["test_set"] for one in records} == {TestSet(f"folder:{square_data}").digest}
    assert set(records[0]["sequences"]) == {"one", "two"}
    for name in ("table.txt", "table.md", "runs.csv", "ladder.png", "ladder.pdf"):
        assert (tmp_path / "out" / name).is_file()


def test_the_reference_is_one_of_the_runs(tiny_ladder, ablation, tmp_path, capsys):
    name = f"ostrack/{tmp_path / 'teacher.yaml'}"
    file = tiny_ladder(reference=name, rungs={"full": {}}, seeds=1)
    assert ablation(file, "--only", name) == 0
    record, weights = tmp_path / "out" / "reference" / "score.json", tmp_path / "teacher.pth.tar"
    first = record.read_text()
    assert ablation(file) == 0      # the rung, in a process of its own; the reference is done
    assert record.read_text() == first
    log = (tmp_path / "out" / "runs" / "full_seed0" / "run.log").read_text()
    assert "full, seed 0: AUC" in log and "2 sequences at a time" in log
    content = torch.load(weights, weights_only=True)
    content["net"]["box_head.conv5_size.bias"] += 1.0
    torch.save(content, weights)
    ladder = Ladder.read(file)
    assert ReferenceRun(ladder, tmp_path / "out", TestSet(ladder.dataset)).record() is None
    ReferenceRun(ladder, tmp_path / "out", TestSet(ladder.dataset)).execute("cpu")
    assert json.loads(record.read_text())["scores"] != json.loads(first)["scores"]
    assert any((tmp_path / "out" / "reference" / "results").glob("previous_*"))


def test_runs_of_other_settings_are_not_taken(tiny_ladder, ablation, tmp_path, square_data):
    assert ablation(tiny_ladder(seeds=1), "--only", "full", "--seed", "0") == 0
    out, path = tmp_path / "out", tmp_path / "out" / "runs" / "full_seed0" / "score.json"
    changed = Ladder.read(tiny_ladder(rungs={"full": {"COMPRESS.FEAT_WEIGHT": 3.0}}, seeds=1))
    with pytest.raises(UserError, match=r"full_seed0 was made with other settings: COMPRESS.FEAT_WEIGHT 0.2 instead of "
                                        r"3.0. Choose another --output"):
        collect(changed, out)
    for change in ({"convention": "ostrack"}, {"dataset": f"folder:{square_data / 'one'}"}):
        with pytest.raises(UserError, match="was tested on another folder:"):
            collect(Ladder.read(tiny_ladder(seeds=1, **change)), out)
    scored = path.read_text()
    path.unlink()       # as if it had been stopped
    with pytest.raises(UserError, match="was made with other settings"):
        LadderRun(changed, out, "full", 0, TestSet(changed.dataset)).execute("cpu")
    again = Ladder.read(tiny_ladder(seeds=1))
    path.write_text("{")
    with pytest.raises(UserError, match="score.json is damaged.*delete it"):
        collect(again, out)
    path.write_text(scored)
    weights = tmp_path / "teacher.pth.tar"
    torch.save({**torch.load(weights, weights_only=True), "epoch": 99}, weights)
    with pytest.raises(UserError, match="other weights in .*teacher.pth.tar"):
        collect(again, out)


def test_runs_of_other_training_data_are_not_taken(tiny_ladder, tmp_path, square_data, monkeypatch):
    """Sequences and boxes count, wherever they lie; not pictures, nor a record of a version that did not look."""
    data, out = shutil.copytree(square_data, tmp_path / "videos"), tmp_path / "run"
    keys = yaml.safe_load(tiny_ladder().read_text())["set"] | {"DATA.TRAIN.DATASETS_NAME": [f"FOLDER:{data}"]}
    cfg = Ladder.read(tiny_ladder(set=keys)).load("full", 0)

    def check():
        monkeypatch.setattr(provenance, "_digests", {})     # as another process would
        provenance.check_provenance(out, cfg)

    provenance.claim(out, cfg)
    file, picture = data / "one" / "groundtruth_rect.txt", next((data / "one").rglob("*.jpg"))
    boxes = file.read_text()
    shutil.copy(next((data / "two").rglob("*.jpg")), picture)
    check()
    for change in (lambda: file.write_text(boxes.replace("15,12,20,16", "15,12,21,16")),
                   lambda: (data / "two").rename(data / "three"), lambda: shutil.rmtree(data / "three")):
        change()
        with pytest.raises(UserError, match=f"other sequences or boxes in FOLDER:{data}"):
            check()
        file.write_text(boxes)
    record = json.loads((out / provenance.NAME).read_text())
    del record["data"]
    (out / provenance.NAME).write_text(json.dumps(record))
    check()
    with pytest.raises(UserError, match="was made with other settings"):
        provenance.check_provenance(out, Ladder.read(tiny_ladder(set=keys)).load("naive", 0))


def test_runs_whose_training_data_are_gone_are_kept(tiny_ladder, tmp_path, square_data, monkeypatch):
    data, out = shutil.copytree(square_data, tmp_path / "videos"), tmp_path / "run"
    keys = yaml.safe_load(tiny_ladder().read_text())["set"] | {"DATA.TRAIN.DATASETS_NAME": [f"FOLDER:{data}"]}
    cfg = Ladder.read(tiny_ladder(set=keys)).load("full", 0)
    provenance.claim(out, cfg)
    shutil.rmtree(data)
    monkeypatch.setattr(provenance, "_digests", {})
    provenance.check_provenance(out, cfg)
    with pytest.raises(UserError, match="videos"):
        provenance.made_with(cfg)


def test_a_run_that_fails_does_not_stop_the_others(tiny_ladder, tmp_path, root, caplog):
    ladder = Ladder.read(tiny_ladder(seeds=1))
    script = str(root / "tracking" / "ablation.py")

    def command(run):
        if run.rung == "naive":
            return ["-c", "import sys; sys.exit('error: no such thing')"]
        return [script, "--ladder", str(ladder.source), "--output", str(tmp_path / "out"), "--only", run.rung, "--seed",
                "0"]

    failed = climb(ladder, tmp_path / "out", device="cpu", command=command)
    assert len(failed) == 1 and "naive, seed 0 failed: error: no such thing" in failed[0] and "run.log" in failed[0]
    report = collect(ladder, tmp_path / "out", "cpu")
    assert report.score("naive") is None and report.score("full").number == 1


def test_a_long_run_is_not_silent(tiny_ladder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ladder_module, "SAY_EVERY", 0.1)
    ladder = Ladder.read(tiny_ladder(seeds=1, rungs={"full": {}}))
    with caplog.at_level("INFO"):
        climb(ladder, tmp_path / "out", device="cpu",
              command=lambda run: ["-c", "import time; print('epoch 7', flush=True); time.sleep(1.5); exit(1)"])
    assert "full, seed 0: epoch 7" in [record.getMessage().strip() for record in caplog.records]


def test_a_run_that_is_killed_is_named(tiny_ladder, tmp_path):
    ladder = Ladder.read(tiny_ladder(seeds=1, rungs={"full": {}}))
    failed = climb(ladder, tmp_path / "out", device="cpu",
                   command=lambda run: ["-c", "import os; os.kill(os.getpid(), 9)"])
    assert "killed by SIGKILL (often: out of memory" in failed[0]
    with pytest.raises(UserError, match="no run of tiny is done"):
        collect(ladder, tmp_path / "out")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_ladder_saves_its_runs(tiny_ladder, tmp_path, root, signum):
    keys = yaml.safe_load(tiny_ladder().read_text())["set"] | {"TRAIN.EPOCH": 5000, "TRAIN.SAVE_EPOCH_INTERVAL": 5000}
    file = tiny_ladder(set=keys, seeds=1, rungs={"full": {}})
    process = subprocess.Popen([sys.executable, str(root / "tracking" / "ablation.py"), "--ladder", str(file),
                                "--output", str(tmp_path / "out"), "--device", "cpu"], stderr=subprocess.PIPE,
                               text=True)
    states = tmp_path / "out" / "runs" / "full_seed0" / "checkpoints"
    try:
        wait_until(lambda: any(states.rglob("state_ep*.pth")))
        process.send_signal(signum)
        _, said = process.communicate(timeout=120)
    finally:
        end(process)
    assert process.returncode == 128 + signum and "the same command goes on" in said, said
    assert "stopped" in (tmp_path / "out" / "runs" / "full_seed0" / "run.log").read_text()


def test_missing_data_is_said_before_anything_starts(tiny_ladder, tmp_path, square_data):
    unscored = tmp_path / "unscored"
    shutil.copytree(square_data / "one", unscored / "one")
    (unscored / "one" / "groundtruth_rect.txt").write_text("15,12,20,16\n")
    for changes, message in (({"dataset": "folder:/nowhere"}, "nowhere"), ({"reference": "ostrack"}, "script/config"),
                             ({"reference": "ostrack/none"}, "none.yaml not found"),
                             ({"dataset": f"folder:{unscored}"}, "after its first frame")):
        with pytest.raises(UserError, match=message):
            climb(Ladder.read(tiny_ladder(**changes)), tmp_path / "out", command=pytest.fail)
    keys = yaml.safe_load(tiny_ladder().read_text())["set"] | {"DATA.TRAIN.DATASETS_NAME": ["FOLDER:/nowhere"]}
    with pytest.raises(UserError, match="nowhere"):
        climb(Ladder.read(tiny_ladder(set=keys)), tmp_path / "out", command=pytest.fail)
    assert not (tmp_path / "out").exists()


def test_options_that_go_together(ablation, tiny_ladder):
    for more in (("--jobs", "0"), ("--only", "full"), ("--seed", "1"), ("--only", "ostrack/x", "--seed", "1")):
        with pytest.raises(SystemExit):
            ablation(tiny_ladder(), *more)
    with pytest.raises(UserError, match="has no rung fool; it has naive, full$"):
        ablation(tiny_ladder(), "--only", "fool", "--seed", "0")
    with pytest.raises(UserError, match="has no rung ostrack/y; it has naive, full, and the reference ostrack/x"):
        ablation(tiny_ladder(reference="ostrack/x"), "--only", "ostrack/y")
    with pytest.raises(UserError, match=r"seed 9 is none of the ladder's \(0, 1\)"):
        ablation(tiny_ladder(), "--only", "full", "--seed", "9")
    with pytest.raises(UserError, match="--set TRAIN.SEED"):
        ablation(tiny_ladder(), "--set", "TRAIN.SEED=4")


