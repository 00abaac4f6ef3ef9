"""`tracking/train.py` as a user runs it: one process, two processes, stopped, failing, and with wrong arguments."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from square_runs import TWO, checkpoints, end, load_train_script, run_log, same, slim, wait_until
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousTimeoutError,
)
from torch.distributed.run import parse_args as torchrun_arguments

from lib.config import load_config
from lib.pipeline.evaluation import Evaluation
from lib.train.launch import Ended, Machines, launch
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
        assert launch(command, 2) == Ended(outcome, main=outcome == 0)
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
            "--set", "DATA.TRAIN.DATASETS_NAME=['LASOT']", "--set", "DATA.TRAIN.SAMPLE_PER_EPOCH=32"))


# ---------------------------------------------------------------- several machines

def test_plain_torchrun_starts_a_run(train_arguments, root, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(root / "tracking" / "train.py"), "--mode", "single", *train_arguments("--set", "TRAIN.EPOCH=1")]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "4 pairs per step (2 processes x 2 pairs)" in done.stderr and done.stderr.count("finished: ") == 1


@pytest.fixture
def start_machine(start_training, train_arguments):
    """`start_machine(*options)`: a launcher of one process on this machine; each stands for a machine of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = []

    def start(*options):
        machines.append(start_training(train_arguments("--mode", "multi_node", "--nproc_per_node", "1",
                                                       "--rdzv_endpoint", f"localhost:{port}", *options)))
        return machines[-1]
    yield start
    for machine in machines:
        end(machine)


def test_two_machines_meet_by_themselves_and_one_evaluates(start_machine, square_data, tmp_path):
    options = ("--world-size", "2", "--max_restarts", "1", "--set", "TRAIN.EPOCH=1", "--evaluate",
               f"folder:{square_data}")
    machines = [start_machine(*options) for _ in (1, 2)]
    reports = [machine.communicate(timeout=120)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], reports
    assert "4 pairs per step (2 processes x 2 pairs)" in "".join(reports) and "".join(reports).count("finished: ") == 1
    main, other = sorted(reports, key=lambda report: "this one is number 1" in report)
    assert "this one is number 0" in main and "evaluating OSTrack_ep0001.pth.tar" in main and "AUC" in main
    assert "this one is number 1" in other and "evaluating" not in other


def test_a_machine_that_comes_later_takes_part(start_machine, tmp_path):
    """The run goes on with its state and its batch, no step is lost or done twice; it stops when a machine goes that no
    restart makes up for."""
    options = ("--world-size", "1:2", "--rdzv_wait", "1", "--set", "TRAIN.TOTAL_BATCH=4", "--set", "TRAIN.EPOCH=100000",
               "--set", "TRAIN.VAL_EPOCH_INTERVAL=100000", "--set", "TRAIN.SAVE_EPOCH_INTERVAL=100000", "--set",
               "TRAIN.PRINT_INTERVAL=1")
    first = start_machine(*options)
    wait_until(lambda: "[train: 2/100000, 2/3]" in run_log(tmp_path) or first.poll() is not None)
    second = start_machine(*options)
    wait_until(lambda: "[train:" in run_log(tmp_path).partition("(2 processes x 2 pairs)")[2]
               or None not in (first.poll(), second.poll()))
    second.terminate()
    reports = [machine.communicate(timeout=120)[1] for machine in (first, second)]
    assert [first.returncode, second.returncode] == [143, 143], reports
    assert "machines that have met: 1; " in reports[0] and "machines that have met: 2; " in reports[0]
    assert [report.count("Run the same command again") for report in reports] == [1, 1]
    log = run_log(tmp_path)
    alone, both = re.findall(r"tiny from (.*): .* 4 pairs per step \((.*?)\)", log)
    assert alone == ("the start", "1 process x 4 pairs") and both[1] == "2 processes x 2 pairs"
    assert "processes 1 -> 2" in log and "pairs per step 4 ->" not in log
    steps = [(int(epoch), int(step)) for epoch, step in re.findall(r"\[train: (\d+)/100000, (\d)/3\]", log)]
    assert steps == [(1 + number // 3, 1 + number % 3) for number in range(len(steps))]


@pytest.mark.parametrize("main", [True, False])
def test_elastic_machines_meet_to_evaluate_a_finished_run(root, train_script, train_arguments, square_data, monkeypatch,
                                                          main):
    """Which of them evaluates is known by that alone."""
    assert train_script(train_arguments("--set", "TRAIN.EPOCH=1")) == 0
    script, calls = load_train_script(root), []
    monkeypatch.setattr("lib.train.launch.launch", lambda *_: calls.append("met") or Ended(0, main))
    monkeypatch.setattr(Evaluation, "run", lambda *_, **__: calls.append("evaluated") or 1)
    line = train_arguments("--set", "TRAIN.EPOCH=1", "--mode", "multi_node", "--rdzv_endpoint", "localhost:1")
    assert script.train(script.parse_arguments(line)) == 0 and calls == []
    status = script.train(script.parse_arguments([*line, "--evaluate", f"folder:{square_data}"]))
    assert (status, calls) == ((1, ["met", "evaluated"]) if main else (0, ["met"]))


def test_every_number_of_machines_must_divide_the_batch(train_script, train_arguments, tmp_path):
    with pytest.raises(UserError, match="TOTAL_BATCH 4 cannot be divided among 3 process"):
        train_script(train_arguments("--mode", "multi_node", "--nproc_per_node", "1", "--world-size", "1:4",
                                     "--rdzv_endpoint", "localhost:1", "--set", "TRAIN.TOTAL_BATCH=4"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options, expected", [
    ({}, {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}),
    ({"least": 2, "most": 2, "endpoint": "10.0.0.1:20000", "number": 1},
     {"min_nodes": 2, "max_nodes": 2, "rdzv_backend": "static", "rdzv_endpoint": "10.0.0.1:20000",
      "rdzv_configs": {"rank": 1}}),
    ({"least": 1, "most": 4, "endpoint": "host:29400", "run_id": "job7"},
     {"min_nodes": 1, "max_nodes": 4, "rdzv_backend": "c10d", "rdzv_endpoint": "host:29400", "run_id": "job7",
      "local_addr": None}),
])
def test_machines(options, expected):
    found = Machines(**options).rendezvous()
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("options, message", [
    (("--mode", "multi_node", "--world-size", "0"), "no number of machines"),
    (("--mode", "multi_node", "--world-size", "3:2"), "no number of machines"),
    (("--mode", "multi_node", "--world-size", "two"), "--world-size"),
    (("--mode", "multi_node", "--world-size", "1:4"), "need --rdzv_endpoint"),
    (("--mode", "multi_node", "--world-size", "2", "--max_restarts", "1"), "need --rdzv_endpoint"),
    (("--mode", "multi_node", "--rdzv_endpoint", "nowhere"), "expected HOST:PORT"),
    (("--mode", "multiple", "--rdzv_endpoint", "here:29400"), "--rdzv_endpoint needs --mode multi_node"),
    (("--mode", "single", "--max_restarts", "1"), "--max_restarts"),
    (("--mode", "multiple", "--max_restarts", "-1"), "--max_restarts"),
    (("--mode", "multi_node", "--rdzv_endpoint", "here:29400", "--rdzv_wait", "0"), "--rdzv_wait must be at least 1"),
])
def test_options_that_do_not_go_together(train_script, train_arguments, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        train_script(train_arguments(*options))
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("error, message", [
    (RendezvousTimeoutError("nobody came"),
     r"the 2 to 3 machines did not meet at host:1: nobody came; check .*--rdzv_endpoint"),
    (RendezvousConnectionError(), "the machine at host:1 cannot be reached: .* or the run is over there"),
    (RendezvousClosedError(), "the run compresstracker at host:1 is over: .*another --rdzv_id"),
    (AttributeError(name="is_failed", obj=None), "the run compresstracker at host:1 is over: .*another --rdzv_id"),
])
def test_machines_that_do_not_meet_say_where(monkeypatch, error, message):
    def nobody(*_):
        raise error

    monkeypatch.setattr("lib.train.launch.launch_agent", nobody)
    with pytest.raises(UserError, match=message):
        launch(["-c", "pass"], 1, Machines(2, 3, "host:1"))


def test_another_missing_attribute_is_no_machine_that_waits(monkeypatch):
    monkeypatch.setattr("lib.train.launch.launch_agent", lambda *_: ().is_failed)
    with pytest.raises(AttributeError, match="tuple"):
        launch(["-c", "pass"], 1, Machines(2, 3, "host:1"))


# ---------------------------------------------------------------- the Slurm script

@pytest.fixture
def slurm(root, tmp_path):
    """`slurm(srun)`: start docs/slurm_train.sh where `srun` is that shell script, and `scontrol` notes its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def write(name, text):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)

    def run(srun):
        write("srun", srun)
        write("scontrol", f'echo "$@" >> {tmp_path}/scontrol; [ "$1" = show ] && printf "node7\\nnode8\\n"; true')
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]",
                       "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "123"}
        return subprocess.Popen(["bash", str(root / "docs" / "slurm_train.sh")], cwd=tmp_path, env=environment)
    return run


def test_slurm_script_is_understood_by_torchrun_and_the_script(slurm, root, tmp_path, monkeypatch):
    assert slurm(f'printf "%s\\n" "$@" > {tmp_path}/words; exit 5').wait(20) == 5
    words = (tmp_path / "words").read_text().splitlines()
    assert words[1] == "torchrun"
    options = torchrun_arguments(words[2:])
    assert (options.nnodes, options.rdzv_endpoint, options.rdzv_id) == ("2", "node7:29400", "123-0")
    assert options.rdzv_backend == "c10d" and options.max_restarts == 3 and options.nproc_per_node == "8"
    assert (root / options.training_script).is_file()
    script = load_train_script(root).parse_arguments(options.training_script_args)
    assert script.mode == "single" and load_config(script.script, script.config).name == script.config
    assert "requeue" not in (tmp_path / "scontrol").read_text()


def test_slurm_script_passes_the_signal_on_and_queues_again(slurm, tmp_path):
    job = slurm(f'trap "echo saved > {tmp_path}/saved; exit 143" TERM; touch {tmp_path}/started; '
                'for i in {1..200}; do sleep 0.1; done')
    wait_until((tmp_path / "started").exists)
    job.terminate()
    assert job.wait(20) == 0
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert (tmp_path / "scontrol").read_text().splitlines()[-1] == "requeue 123"
