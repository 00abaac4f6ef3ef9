"""`tracking/train.py` as a user runs it: one process, two processes, stopped, failing, and with wrong arguments."""

import logging
import os
import signal
import time

import pytest
import torch
from square_runs import TWO, checkpoints, same, slim

from lib.train.launch import launch
from lib.train.state import newest_state
from lib.train.trainer import Trainer
from lib.utils.errors import UserError


def test_two_processes_stopped_continued_finished(start_training, train_script, train_arguments, tmp_path, caplog):
    line = train_arguments(*TWO, "--set", "TRAIN.PRINT_INTERVAL=1")
    log = tmp_path / "out" / "logs" / "ostrack-tiny.log"
    with start_training([*line, "--set", "TRAIN.EPOCH=500"]) as process:
        deadline = time.monotonic() + 300
        while not (log.is_file() and "[train: 1/500, 2/3]" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.is_file(), "the processes did not start to train"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.count("Run the same command again") == 1 and "Traceback" not in stderr
    assert "4 pairs per step (2 processes x 2 pairs)" in stderr
    position, state = newest_state(checkpoints(tmp_path))

    line += ["--set", f"TRAIN.EPOCH={state.epoch + 1}"]
    with start_training(line) as process:
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert f"from epoch {state.epoch}, step {state.step} of {position}" in stderr
    assert stderr.count("finished:") == 1 and f"[val: {state.epoch + 1}/" in stderr
    assert all(bool(torch.isfinite(value).all()) for value in slim(tmp_path, state.epoch + 1).values())

    with caplog.at_level(logging.INFO):
        assert train_script(line) == 0  # returns at once, starts nothing
    assert "already finished" in caplog.text


WORKER = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from lib.train.failures import record_failure
from lib.utils.errors import UserError
rank = int(os.environ["RANK"])
{body}
"""


@pytest.mark.parametrize("body, outcome", [
    ("pass", 0),
    ("if rank == 1:\n    record_failure(UserError('no such file: x'))\n    sys.exit(2)\ntime.sleep(60)",
     "process 1: no such file: x"),
    ("record_failure(UserError(f'lost the others')) if rank == 0 and time.sleep(0.3) is None else "
     "record_failure(ValueError('the cause'))\nsys.exit(1)", r"(?s)process 1: .*ValueError: the cause"),
    ("os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else time.sleep(60)", "process 0 was killed by SIGKILL"),
    ("sys.exit(143)", 143),
])
def test_the_launcher_reports_the_cause(root, body, outcome):
    command = ["-c", WORKER.format(root=str(root), body=body)]
    if isinstance(outcome, int):
        assert launch(command, 2) == outcome
    else:
        with pytest.raises(UserError, match=outcome):
            launch(command, 2)


def test_stopped_by_sigterm_and_continued_is_bit_identical(train_script, train_arguments, tmp_path, monkeypatch):
    """One process, worker processes, the real model and data: stopped within an epoch, continued from that step."""
    options = ("--set", "TRAIN.NUM_WORKER=1")
    assert train_script(train_arguments(*options)) == 0
    whole = slim(tmp_path, 2)
    (tmp_path / "out").rename(tmp_path / "whole")
    steps = []

    def stop_in_the_fourth(self, *args):
        steps.append(args)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", stop_in_the_fourth)
    assert train_script(train_arguments(*options)) == 128 + signal.SIGTERM
    assert newest_state(checkpoints(tmp_path))[1].step == 4
    assert train_script(train_arguments(*options)) == 0
    assert len(steps) == 4 + 2 + 6  # two epochs of six steps, none done twice
    parts = slim(tmp_path, 2)
    assert same(whole, parts)


@pytest.mark.parametrize("more, message", [
    (("--set", "MODEL.PRETRAIN_FILE=no_such_file.pth"), "no_such_file.pth"),
    (("--set", "DATA.TRAIN.DATASETS_NAME=['FOLDER:/no/such/folder']"), "/no/such/folder"),
    (("--set", "TRAIN.BATCHSIZE=3"), "TRAIN.BATCHSIZE"),
    (("--set", "TRAIN.BATCH_SIZE=300"), "SAMPLE_PER_EPOCH"),
    (("--use_lmdb", "1", "--set", "DATA.TRAIN.DATASETS_NAME=['LASOT']"), "no LMDB at .*lasot_lmdb"),
])
@pytest.mark.parametrize("mode", [("--mode", "single"), TWO])
def test_wrong_input_fails_before_anything_is_started(train_script, train_arguments, tmp_path, mode, more, message):
    with pytest.raises(UserError, match=message):
        train_script(train_arguments(*mode, *more))
    assert not (tmp_path / "out").exists()


def test_official_command_lines_are_understood(root, train_script, train_arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        train_script(["--help"])
    assert ended.value.code == 0 and "--nproc_per_node" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        train_script(train_arguments("--mode", "multi_node", "--rank", "2", "--world-size", "2"))
    assert ended.value.code == 2 and "--rank" in capsys.readouterr().err
    with pytest.raises(UserError, match="no LMDB at"):  # every option was taken
        train_script(train_arguments(
            "--mode", "multi_node", "--rank", "1", "--world-size", "2", "--ip", "10.0.0.1", "--port", "20000",
            "--nproc_per_node", "8", "--use_wandb", "0", "--distill", "0", "--script_prv", "x", "--config_prv", "y",
            "--script_teacher", "z", "--config_teacher", "z", "--use_lmdb", "1",
            "--set", "DATA.TRAIN.DATASETS_NAME=['LASOT']"))
