"""The evaluation at the end of a training: `tracking/train.py --evaluate ... --pack ...`."""

import logging
import shutil
import zipfile

import pytest
from square_runs import checkpoints
from tiny_models import scramble

from lib.config import load_config
from lib.families.build import build_tracker
from lib.models.checkpoint import save_slim
from lib.pipeline.evaluation import Evaluation
from lib.test.utils.packing import SERVERS
from lib.train.run_paths import RunPaths
from lib.train.trainer import Trainer
from lib.utils.errors import UserError


@pytest.fixture
def got10k(square_data, tmp_path, monkeypatch):
    """GOT-10k's test set with one sequence, and a server that wants no more."""
    monkeypatch.setitem(SERVERS, "got10k", SERVERS["got10k"]._replace(sequences=1))
    sequence = tmp_path / "got10k" / "test" / "GOT-10k_Test_000001"
    shutil.copytree(square_data / "one" / "img", sequence)
    (sequence / "groundtruth.txt").write_text("15,12,20,16\n")
    (sequence.parent / "list.txt").write_text("GOT-10k_Test_000001\n")
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_PATH", str(tmp_path / "got10k"))
    return sequence


@pytest.fixture
def trained(square_config, tmp_path):
    """The tiny configuration, with a checkpoint as if it had been trained."""
    cfg = load_config("ostrack", str(square_config))
    save_slim(RunPaths.of(tmp_path / "out", cfg).slim(2), build_tracker(cfg), cfg, {"epoch": 2})
    return cfg


@pytest.fixture
def results(tmp_path):
    return tmp_path / "out" / "test" / "tracking_results" / "ostrack" / "tiny"


def test_train_track_score_and_pack_in_one_command(train_script, train_arguments, square_data, got10k, tmp_path,
                                                   results, caplog):
    line = train_arguments("--evaluate", f"folder:{square_data}", "--pack", "got10k_test", "--set", "TRAIN.EPOCH=1")
    with caplog.at_level(logging.INFO):
        assert train_script(line) == 0
    assert caplog.text.index("finished: ") < caplog.text.index("evaluating OSTrack_ep0001.pth.tar on folder:")
    boxes = results / f"folder_{square_data.name}"
    assert sorted(path.name for path in boxes.iterdir()) == ["one.txt", "one_time.txt", "two.txt", "two_time.txt"]
    plots = tmp_path / "out" / "test" / "result_plots" / f"folder_{square_data.name}"
    assert "tiny" in (plots / "scores.csv").read_text() and "AUC" in caplog.text
    with zipfile.ZipFile(results / "got10k_submit.zip") as archive:
        assert len(archive.read("GOT-10k_Test_000001/GOT-10k_Test_000001_001.txt").splitlines()) == 24
    assert "1 sequences in " in caplog.text


def test_a_finished_run_does_only_what_is_missing(train_script, train_arguments, trained, square_data, results,
                                                  monkeypatch, caplog):
    line = train_arguments("--evaluate", f"folder:{square_data}")
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    assert train_script(line) == 0
    one, two = (results / f"folder_{square_data.name}" / f"{name}.txt" for name in ("one", "two"))
    written, old = two.stat().st_mtime_ns, one.read_text()
    one.unlink()
    with caplog.at_level(logging.INFO):
        assert train_script(line) == 0
    assert "already finished" in caplog.text and "1 of 2 sequences are done already" in caplog.text
    assert one.read_text() == old and two.stat().st_mtime_ns == written


def test_results_of_an_earlier_training_are_moved_away_and_tracked_again(trained, square_data, tmp_path, results):
    evaluation = Evaluation([f"folder:{square_data}"], [])
    paths, boxes = RunPaths.of(tmp_path / "out", trained), results / f"folder_{square_data.name}" / "one.txt"
    assert evaluation.run(trained, paths.slim(2), tmp_path / "out", device="cpu") == 0
    old, time = boxes.read_text(), boxes.stat().st_mtime_ns
    assert evaluation.run(trained, paths.slim(2), tmp_path / "out", device="cpu") == 0
    assert boxes.stat().st_mtime_ns == time
    save_slim(paths.slim(2), scramble(build_tracker(trained)), trained, {"epoch": 2})
    assert evaluation.run(trained, paths.slim(2), tmp_path / "out", device="cpu") == 0
    assert (results / "previous_1" / boxes.parent.name / "one.txt").read_text() == old
    assert boxes.stat().st_mtime_ns > time


def test_worker_processes_give_the_same_results(trained, square_data, tmp_path, results):
    evaluation = Evaluation([f"folder:{square_data}"], [])
    checkpoint = checkpoints(tmp_path) / "OSTrack_ep0002.pth.tar"
    assert evaluation.run(trained, checkpoint, tmp_path / "out", device="cpu") == 0
    here = (results / f"folder_{square_data.name}" / "one.txt").read_text()
    shutil.rmtree(results)
    assert evaluation.run(trained, checkpoint, tmp_path / "out", device="cpu", threads=1) == 0
    assert (results / f"folder_{square_data.name}" / "one.txt").read_text() == here


def test_a_failing_sequence_is_named_and_nothing_is_packed(train_script, train_arguments, trained, got10k, results,
                                                           caplog):
    (got10k / "0007.jpg").write_bytes(b"no picture")
    assert train_script(train_arguments("--pack", "got10k_test")) == 1
    assert "GOT-10k_Test_000001 failed" in caplog.text and "1 of 1 sequences failed" in caplog.text
    assert not (results / "got10k_submit.zip").exists()


def test_a_server_set_is_tracked_without_scores(train_script, train_arguments, trained, got10k, results, caplog):
    with caplog.at_level(logging.INFO):
        assert train_script(train_arguments("--evaluate", "got10k_test")) == 0
    assert "name it after --pack" in caplog.text
    assert (results / "got10k" / "GOT-10k_Test_000001.txt").is_file()


def test_only_the_first_machine_evaluates(train_script, train_arguments, trained, results):
    assert train_script(train_arguments("--mode", "multi_node", "--world-size", "2", "--rank", "1", "--evaluate",
                                        "lasot")) == 0
    assert not results.exists()


@pytest.mark.parametrize("options, message", [
    (("--evaluate", "nosuch"), "unknown data set 'nosuch'"),
    (("--evaluate", "folder:/no/such/place"), "/no/such/place"),
    (("--pack", "lasot"), "--pack lasot: no evaluation server.*got10k_test"),
    (("--pack", "trackingnet"), "data set trackingnet .* not found"),
])
@pytest.mark.parametrize("mode", [("--mode", "single"), ("--mode", "multiple", "--nproc_per_node", "2")])
def test_what_is_missing_is_found_before_the_training(train_script, train_arguments, tmp_path, monkeypatch, mode,
                                                      options, message):
    monkeypatch.setenv("COMPRESSTRACKER_TRACKINGNET_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=message):
        train_script(train_arguments(*mode, *options))
    assert not (tmp_path / "out").exists()
