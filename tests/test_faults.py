"""A training that loses a process, a worker, its launcher or the disk ends soon, says why, and can be continued."""

import json
import logging
import multiprocessing
import os
import resource
import signal
import time

import pytest
import torch
from square_runs import TWO, alive, checkpoints, children, end, run_log, slim, wait_until
from tiny_models import same
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from lib.train.data.workers import Processes
from lib.train.failures import ERROR_FILE, LAUNCHER, end_with_launcher, record_failure, restarts_left
from lib.train.launch import describe_failure, first_failure
from lib.train.state import newest_state
from lib.train.trainer import Trainer
from lib.utils.errors import UserError
from lib.utils.files import atomic_write, remove_unfinished

LONG = ("--set", "TRAIN.EPOCH=500", "--set", "TRAIN.PRINT_INTERVAL=1")


@pytest.fixture
def running(start_training, train_arguments, tmp_path):
    """A run of two processes that has begun to train."""
    process = start_training(train_arguments(*TWO, *LONG))
    wait_until(lambda: "[train: 1/500, 2/3]" in run_log(tmp_path) or process.poll() is not None)
    yield process
    end(process)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_message(running):
    processes, start = children(running.pid), time.monotonic()
    assert len(processes) == 2
    os.kill(processes[0], signal.SIGKILL)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 2 and time.monotonic() - start < 60
    assert "process 0 was killed by SIGKILL" in stderr and stderr.count("error: ") == 1
    assert "Run the same command again" in stderr
    assert not any(map(alive, processes))


@pytest.mark.slow
def test_processes_do_not_outlive_their_launcher(running, tmp_path):
    processes = children(running.pid)
    running.kill()
    wait_until(lambda: not any(map(alive, processes)), seconds=40)
    assert "is gone; stopping" in running.communicate()[1]
    assert newest_state(checkpoints(tmp_path)) is not None
    assert "ended by TrainingInterrupted: stopped after epoch" in run_log(tmp_path)


def test_without_a_launcher_nothing_is_watched(monkeypatch):
    started = []
    monkeypatch.setattr("lib.train.failures.threading.Thread", lambda **options: started.append(options))
    end_with_launcher({})
    assert started == []


def test_a_process_that_cannot_stop_is_ended_after_its_launcher():
    """One that has lost its launcher before it could look, and that hangs."""
    def hang():
        import lib.train.failures as failures

        failures.GRACE = failures.WATCH_EVERY = 0.1
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_with_launcher({"TORCHELASTIC_RUN_ID": "x", failures.LAUNCHER: "1", "RANK": "3"})
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=hang)
    process.start()
    process.join(10)
    assert process.exitcode == 1


def test_a_killed_loader_worker_ends_the_run(train_script, train_arguments, monkeypatch):
    step = Trainer.train_step

    def kill_the_worker(self, *args):
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "train_step", kill_the_worker)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="(?i)worker"):
        train_script(train_arguments(*LONG, "--set", "TRAIN.NUM_WORKER=1"))
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("limit, file", [(100_000, "OSTrack_ep0002.pth.tar"), (300_000, "state_ep0002.pth")])
def test_a_full_disk_keeps_the_last_good_checkpoint(train_script, train_arguments, tmp_path, limit, file):
    """A limit on the size of files stands for the disk's end."""
    assert train_script(train_arguments("--set", "TRAIN.EPOCH=1")) == 0
    folder = checkpoints(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth*")}
    message = tmp_path / "message"

    def fill():
        torch.set_num_threads(1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            os._exit(train_script(train_arguments()))
        except UserError as error:
            message.write_text(str(error))
            os._exit(2)

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    process.join(60)
    assert process.exitcode == 2
    assert f"cannot write {folder / file}" in message.read_text() and "free disk space" in message.read_text()
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not list(folder.glob(".*.part")) and newest_state(folder)[1].epoch == 1
    assert train_script(train_arguments()) == 0
    again = slim(tmp_path, 2)
    (tmp_path / "out").rename(tmp_path / "other")
    assert train_script(train_arguments()) == 0
    assert same(again, slim(tmp_path, 2))


def test_more_workers_than_cpus_are_not_pytorchs_matter(recwarn):
    Processes(list, [], 10_000, False)
    assert not list(recwarn)


@pytest.mark.parametrize("error, cause", [
    (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:13218"), 1),
    (ValueError("a fault of its own"), 0),
    (UserError("cannot write to it: Broken pipe"), 0),
])
def test_a_process_that_lost_a_killed_one_is_not_the_cause(tmp_path, error, cause):
    files = [str(tmp_path / name) for name in ("0.json", "1.json")]
    record_failure(error, {ERROR_FILE: files[0]})
    failures = {rank: ProcessFailure(rank, 10 + rank, status, files[rank])
                for rank, status in enumerate((1, -signal.SIGKILL))}
    rank, failure = first_failure(ChildFailedError("train.py", failures))
    assert rank == cause
    assert ("was killed by SIGKILL" in describe_failure(rank, failure)) == (cause == 1)


def test_who_says_the_cause(tmp_path):
    """This project's launcher, unless it starts the processes again; otherwise the process itself."""
    file = tmp_path / "error.json"
    environment = {ERROR_FILE: str(file), "TORCHELASTIC_MAX_RESTARTS": "2", LAUNCHER: "1"}
    for count, launcher_does in ((0, False), (1, False), (2, True)):
        environment["TORCHELASTIC_RESTART_COUNT"] = str(count)
        assert restarts_left(environment) == 2 - count
        assert record_failure(UserError("no such file: x"), environment) == launcher_does
        assert json.loads(file.read_text())["message"]["message"] == "no such file: x"
    assert not record_failure(UserError("x"), {ERROR_FILE: str(file)})
    assert restarts_left({}) == 0 and not record_failure(UserError("x"), {})


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    def die():
        with atomic_write(tmp_path / "state.pth") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join(20)
    kept = tmp_path / "state_ep0001.pth"
    kept.write_bytes(b"whole")
    found = remove_unfinished(tmp_path)
    assert len(found) == 1 and found[0].name.startswith(".state.pth.")
    assert list(tmp_path.iterdir()) == [kept]


def test_restarts_and_a_start_anew_exclude_each_other(train_script, train_arguments, tmp_path, monkeypatch, caplog):
    with pytest.raises(UserError, match="--resume none cannot be used.*started again"):
        train_script(train_arguments(*TWO, "--max_restarts", "1", "--resume", "none"))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")  # as another torchrun sets it
    with pytest.raises(UserError, match="--resume none cannot be used"):
        train_script(train_arguments("--resume", "none"))
    assert not (tmp_path / "out").exists()


def test_another_number_of_processes_is_said(train_script, train_arguments, tmp_path, monkeypatch, caplog):
    """A state of two processes goes on with one; without TRAIN.TOTAL_BATCH a step has other pairs then."""
    assert train_script(train_arguments("--set", "TRAIN.EPOCH=1")) == 0
    path, state = newest_state(checkpoints(tmp_path))
    content = torch.load(path, weights_only=True)
    torch.save({**content, "world_size": 2}, path)
    with caplog.at_level(logging.INFO):
        assert train_script(train_arguments()) == 0
    assert "processes 2 -> 1" in caplog.text and "pairs per step 4 -> 2 (set TRAIN.TOTAL_BATCH" in caplog.text
