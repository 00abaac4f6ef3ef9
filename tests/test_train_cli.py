"""`tracking/train.py` as a user runs it: one process, two processes, stopped, failing, and with wrong arguments."""

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.train.launch import launch
from lib.train.state import newest_state
from lib.train.trainer import Trainer
from lib.utils.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sequences of a bright square that moves over noise."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        frames = folder / name / "img"
        frames.mkdir(parents=True)
        boxes = []
        for number in range(24):
            image = rng.integers(0, 80, (60, 80, 3), dtype=np.uint8)
            x, y = 15 + 2 * number, 12 + number
            image[y:y + 16, x:x + 20] = 230
            cv2.imwrite(str(frames / f"{number + 1:04d}.jpg"), image)
            boxes.append(f"{x},{y},20,16")
        (folder / name / "groundtruth_rect.txt").write_text("\n".join(boxes) + "\n")
    return folder


@pytest.fixture
def config(tmp_path, data) -> Path:
    """A configuration of a tracker of 2 layers and 24 channels on that data."""
    path = tmp_path / "tiny.yaml"
    path.write_text(f"""
DATA:
  MAX_SAMPLE_INTERVAL: 5
  SEARCH: {{SIZE: 64, FACTOR: 4.0, CENTER_JITTER: 1, SCALE_JITTER: 0.1}}
  TEMPLATE: {{SIZE: 32, FACTOR: 2.0}}
  TRAIN: {{DATASETS_NAME: ["FOLDER:{data}"], DATASETS_RATIO: [1], SAMPLE_PER_EPOCH: 12}}
  VAL: {{DATASETS_NAME: ["FOLDER:{data}"], DATASETS_RATIO: [1], SAMPLE_PER_EPOCH: 7}}
MODEL:
  PRETRAIN_FILE: ''
  BACKBONE: {{TYPE: vit_tiny_patch16_224, EMBED_DIM: 24, DEPTH: 2, NUM_HEADS: 2}}
  HEAD: {{NUM_CHANNELS: 16}}
TRAIN: {{BATCH_SIZE: 2, EPOCH: 2, LR: 0.001, LR_DROP_EPOCH: 2, NUM_WORKER: 0, PRINT_INTERVAL: 2, DEVICE: cpu,
        VAL_EPOCH_INTERVAL: 2, SAVE_EPOCH_INTERVAL: 1, DROP_PATH_RATE: 0.1, THREADS: 1}}
TEST: {{EPOCH: 2, SEARCH_SIZE: 64, TEMPLATE_SIZE: 32}}
""")
    return path


@pytest.fixture
def arguments(config, tmp_path):
    """`arguments(*more)`: the command line of a training of the tiny configuration."""
    def line(*more):
        return ["--script", "ostrack", "--config", str(config), "--save_dir", str(tmp_path / "out"), *more]
    return line


@pytest.fixture
def script(root, monkeypatch):
    """`script(arguments)`: run tracking/train.py's main in this process; gives its status."""
    spec = importlib.util.spec_from_file_location("train_script", root / "tracking" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(line):
        monkeypatch.setattr(sys, "argv", ["train.py", *line])
        return module.main()
    return run


@pytest.fixture
def start(root, tmp_path):
    """`start(arguments)`: tracking/train.py in a process of its own, from another folder."""
    def run(line):
        environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
        return subprocess.Popen([sys.executable, str(root / "tracking" / "train.py"), *line], cwd=tmp_path,
                                env={**environment, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)
    return run


def checkpoints(folder: Path) -> Path:
    return folder / "out" / "checkpoints" / "train" / "ostrack" / "tiny"


def slim(folder: Path, epoch: int) -> dict:
    return torch.load(checkpoints(folder) / f"OSTrack_ep{epoch:04d}.pth.tar", weights_only=True)["net"]


TWO = ("--mode", "multiple", "--nproc_per_node", "2")


def test_two_processes_stopped_continued_finished(start, script, arguments, tmp_path, caplog):
    line = arguments(*TWO, "--set", "TRAIN.PRINT_INTERVAL=1")
    log = tmp_path / "out" / "logs" / "ostrack-tiny.log"
    with start([*line, "--set", "TRAIN.EPOCH=500"]) as process:
        deadline = time.monotonic() + 300
        while not (log.is_file() and "[train: 1/500, 2/3]" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.is_file(), "the processes did not start to train"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.count("Run the same command again") == 1 and "Traceback" not in stderr
    assert "2 x 2 pairs per step" in stderr
    position, state = newest_state(checkpoints(tmp_path))

    line += ["--set", f"TRAIN.EPOCH={state.epoch + 1}"]
    with start(line) as process:
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert f"from epoch {state.epoch}, step {state.step} of {position}" in stderr
    assert stderr.count("finished:") == 1 and f"[val: {state.epoch + 1}/" in stderr
    assert all(bool(torch.isfinite(value).all()) for value in slim(tmp_path, state.epoch + 1).values())

    with caplog.at_level(logging.INFO):
        assert script(line) == 0  # returns at once, starts nothing
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


def test_stopped_by_sigterm_and_continued_is_bit_identical(script, arguments, tmp_path, monkeypatch):
    """One process, worker processes, the real model and data: stopped within an epoch, continued from that step."""
    options = ("--set", "TRAIN.NUM_WORKER=1")
    assert script(arguments(*options)) == 0
    whole = slim(tmp_path, 2)
    (tmp_path / "out").rename(tmp_path / "whole")
    steps = []

    def stop_in_the_fourth(self, *args):
        steps.append(args)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    step = Trainer._train_step
    monkeypatch.setattr(Trainer, "_train_step", stop_in_the_fourth)
    assert script(arguments(*options)) == 128 + signal.SIGTERM
    assert newest_state(checkpoints(tmp_path))[1].step == 4
    assert script(arguments(*options)) == 0
    assert len(steps) == 4 + 2 + 6  # two epochs of six steps, none done twice
    parts = slim(tmp_path, 2)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("more, message", [
    (("--set", "MODEL.PRETRAIN_FILE=no_such_file.pth"), "no_such_file.pth"),
    (("--set", "DATA.TRAIN.DATASETS_NAME=['FOLDER:/no/such/folder']"), "/no/such/folder"),
    (("--set", "TRAIN.BATCHSIZE=3"), "TRAIN.BATCHSIZE"),
    (("--set", "TRAIN.BATCH_SIZE=300"), "SAMPLE_PER_EPOCH"),
    (("--use_lmdb", "1", "--set", "DATA.TRAIN.DATASETS_NAME=['LASOT']"), "no LMDB at .*lasot_lmdb"),
])
@pytest.mark.parametrize("mode", [("--mode", "single"), TWO])
def test_wrong_input_fails_before_anything_is_started_or_written(script, arguments, tmp_path, mode, more, message):
    with pytest.raises(UserError, match=message):
        script(arguments(*mode, *more))
    assert not (tmp_path / "out").exists()


def test_official_command_lines_are_understood(root, script, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        script(["--help"])
    assert ended.value.code == 0 and "--nproc_per_node" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        script(arguments("--mode", "multi_node", "--rank", "2", "--world-size", "2"))
    assert ended.value.code == 2 and "--rank" in capsys.readouterr().err
    with pytest.raises(UserError, match="no LMDB at"):  # every option was taken
        script(arguments("--mode", "multi_node", "--rank", "1", "--world-size", "2", "--ip", "10.0.0.1", "--port",
                         "20000", "--nproc_per_node", "8", "--use_wandb", "0", "--distill", "0", "--script_prv", "x",
                         "--config_prv", "y", "--script_teacher", "z", "--config_teacher", "z", "--use_lmdb", "1",
                         "--set", "DATA.TRAIN.DATASETS_NAME=['LASOT']"))
