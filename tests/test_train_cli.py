"""`tracking/train.py` as a user runs it: one process, two processes, stopped, failing, and with wrong arguments."""

import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from square_runs import TWO, checkpoints, end, free_port, load_script, slim, wait_until
from tiny_models import same
from torch.distributed.elastic.rendezvous.api import RendezvousTimeoutError
from torch.distributed.run import parse_args as torchrun_arguments

from lib.config import load_config
from lib.train.distributed import read_place
from lib.train.launch import Machines, first_failure, launch
from lib.train.state import newest_state
from lib.train.trainer import Trainer
from lib.utils.errors import UserError

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
    command, handlers = ["-c", WORKER.format(root=str(root), body=body)], signal_handlers()
    if isinstance(outcome, int):
        assert launch(command, 2) == outcome
    else:
        with pytest.raises(UserError, match=outcome):
            launch(command, 2)
    assert signal_handlers() == handlers, "Ctrl-C would go to the launcher still"


def signal_handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)]


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

@pytest.fixture
def torchrun(train_arguments, root, tmp_path):
    """`torchrun(module, processes, *options)`: tracking/train.py under a launcher of PyTorch's own, run to its end."""
    def run(module, processes, *options):
        command = [sys.executable, "-m", module, "--standalone", "--nproc-per-node", processes,
                   str(root / "tracking" / "train.py"), "--mode", "single", *train_arguments(*options)]
        return subprocess.run(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
                              text=True, timeout=120)
    return run


def test_plain_torchrun_starts_a_run(torchrun):
    done = torchrun("torch.distributed.run", "2", "--set", "TRAIN.EPOCH=1")
    assert done.returncode == 0, done.stderr
    assert "4 pairs per step (2 processes x 2 pairs)" in done.stderr and done.stderr.count("finished: ") == 1


@pytest.mark.slow
def test_the_older_launcher_of_pytorch(torchrun):
    done = torchrun("torch.distributed.launch", "1", "--set", "TRAIN.EPOCH=1")
    assert done.returncode == 0 and done.stderr.count("finished: ") == 1, done.stderr


@pytest.mark.parametrize("option", ["--local-rank=0", "--local_rank=0"])
def test_the_older_launchers_option_is_taken(root, train_arguments, option):
    script = load_script(root / "tracking" / "train.py")
    given, plain = (script.parse_arguments(train_arguments(*more)) for more in ((option,), ()))
    assert script.worker_command(given) == script.worker_command(plain)


@pytest.mark.slow
@pytest.mark.parametrize("more, message", [("TRAIN.TOTAL_BATCH=3", "TOTAL_BATCH 3 cannot be divided"),
                                           ("DATA.TRAIN.DATASETS_NAME=['FOLDER:/no/such']", "/no/such")])
def test_wrong_input_under_plain_torchrun(torchrun, more, message):
    """Each process says it and ends with 2; none aborts."""
    done = torchrun("torch.distributed.run", "2", "--set", more)
    assert done.returncode == 1 and message in done.stderr.partition("Traceback")[0]
    assert re.search(r"failed \(exitcode: 2\)", done.stderr) and "terminate called" not in done.stderr


def test_wrong_input_under_a_launcher(twice, train_arguments, train_script, monkeypatch, tmp_path):
    """Before the processes meet where that can be, else with the group left."""
    def failing(option):
        def run():
            try:
                train_script(train_arguments("--set", option))
            except UserError as error:
                return str(error), met, dist.is_initialized()
        return run

    met, init = [], dist.init_process_group
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **kwargs: (met.append(1), init(*args, **kwargs)))
    for option, message, meetings in (("TRAIN.TOTAL_BATCH=3", "TOTAL_BATCH 3 cannot be divided", []),
                                      ("DATA.TRAIN.DATASETS_NAME=['FOLDER:/no/such']", "/no/such", [1]),
                                      ("TRAIN.SYNC_BN=true", "SYNC_BN with several processes needs GPUs", [1])):
        for text, meeting, left in twice(failing(option)):
            assert message in text and meeting == meetings and not left


@pytest.mark.slow
def test_two_machines_meet_and_the_first_evaluates(start_training, train_arguments, square_data, tmp_path):
    port = str(free_port())
    machines = [start_training(train_arguments(
        "--mode", "multi_node", "--nproc_per_node", "1", "--world-size", "2", "--rank", rank, "--port", port,
        "--set", "TRAIN.EPOCH=1", "--evaluate", f"folder:{square_data}")) for rank in "01"]
    try:
        main, other = (machine.communicate(timeout=120)[1] for machine in machines)
    finally:
        for machine in machines:
            end(machine)
    assert [machine.returncode for machine in machines] == [0, 0], main + other
    assert "4 pairs per step (2 processes x 2 pairs)" in main and main.count("finished: ") == 1
    assert "this one is number 0" in main and "evaluating OSTrack_ep0001.pth.tar" in main and "AUC" in main
    assert "this one is number 1" in other and "evaluating" not in other


def test_all_machines_together_must_divide_the_batch(train_script, train_arguments, tmp_path):
    with pytest.raises(UserError, match="TOTAL_BATCH 4 cannot be divided among 3 process"):
        train_script(train_arguments("--mode", "multi_node", "--nproc_per_node", "1", "--world-size", "3",
                                     "--set", "TRAIN.TOTAL_BATCH=4"))
    assert not (tmp_path / "out").exists()


def test_machines():
    one, several = Machines().rendezvous(), Machines(2, "10.0.0.1:20000", 1).rendezvous()
    assert (one["min_nodes"], one["max_nodes"], one["rdzv_endpoint"]) == (1, 1, "localhost:0")
    assert several == {"min_nodes": 2, "max_nodes": 2, "rdzv_backend": "static", "rdzv_endpoint": "10.0.0.1:20000",
                       "run_id": "compresstracker", "rdzv_configs": {"rank": 1}}


@pytest.mark.parametrize("options, message", [
    (("--nproc_per_node", "2"), "--nproc_per_node 2 needs --mode multiple"),
    (("--mode", "multiple", "--rank", "1", "--world-size", "2"), "--world-size needs --mode multi_node"),
    (("--port", "1234"), "--port needs --mode multi_node"),
    (("--mode", "multi_node", "--world-size", "0"), "--rank must be in 0..world-size - 1"),
    (("--mode", "multi_node", "--world-size", "1:4"), "--world-size"),
    (("--mode", "multi_node", "--world-size", "2", "--max_restarts", "1"), "on several machines use torchrun"),
    (("--mode", "single", "--max_restarts", "1"), "--max_restarts"),
    (("--mode", "multiple", "--max_restarts", "-1"), "--max_restarts"),
])
def test_options_that_do_not_go_together(train_script, train_arguments, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        train_script(train_arguments(*options))
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_launcher_within_a_launcher_is_refused(train_script, train_arguments, capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(SystemExit) as ended:
        train_script(train_arguments(*TWO))
    assert ended.value.code == 2 and "use --mode single under torchrun" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RendezvousTimeoutError("nobody came"), ConnectionResetError("(104)")])
def test_machines_that_do_not_meet_say_where(monkeypatch, error):
    def nobody(*_):
        raise error

    monkeypatch.setattr("lib.train.launch.launch_agent", nobody)
    with pytest.raises(UserError, match=r"the 2 machines did not meet at host:1; check --ip and --port") as raised:
        launch(["-c", "pass"], 1, Machines(2, "host:1"))
    assert str(error) not in str(raised.value)


@pytest.mark.parametrize("environment, message", [
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but no RANK and no MASTER_ADDR and no MASTER_PORT; start the processes with"),
    ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "must be whole numbers"),
])
def test_an_incomplete_environment_of_a_launcher(environment, message):
    with pytest.raises(UserError, match=message):
        read_place(environment)
    assert read_place({}) == (0, 0, 1) and read_place({"WORLD_SIZE": "1"}) == (0, 0, 1)


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
    script = load_script(root / "tracking" / "train.py").parse_arguments(options.training_script_args)
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


def test_the_first_that_failed_is_the_cause_not_one_that_was_ended():
    def failure(code, message, when):
        extra = {"extraInfo": {"order": when}}
        return SimpleNamespace(exitcode=code, timestamp=0, message={"message": message, **extra} if message else "")

    failures = {0: failure(-signal.SIGTERM, None, 0), 1: failure(1, "later", 9), 2: failure(1, "first", 5),
                3: failure(-signal.SIGKILL, None, 0)}
    assert first_failure(SimpleNamespace(failures=failures))[0] == 2
