"""What trainings of the tiny configuration (fixture `train_arguments`) leave behind, and helpers to disturb them."""

import importlib.util
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

TWO = ("--mode", "multiple", "--nproc_per_node", "2")


def load_script(path: Path):
    """A script of tracking/ as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    """A port to meet at, below those that the system hands out by itself: nobody is given it in the meantime."""
    for port in random.SystemRandom().sample(range(15000, 32000), 100):
        with socket.socket() as trial:
            try:
                trial.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("of 100 ports none is free")


def become_rank(rank: int, port: int) -> None:
    """Make this process one of two, as torchrun's environment does, with one thread."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))
    torch.set_num_threads(1)


def checkpoints(folder: Path) -> Path:
    """The folder of the checkpoints of a run that was given `folder` / "out" as --save_dir."""
    return folder / "out" / "checkpoints" / "train" / "ostrack" / "tiny"


def slim(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    """The weights of an epoch's slim checkpoint."""
    return torch.load(checkpoints(folder) / f"OSTrack_ep{epoch:04d}.pth.tar", weights_only=True)["net"]


def best(folder: Path) -> dict:
    """The content of the best checkpoint."""
    return torch.load(checkpoints(folder) / "OSTrack_best.pth.tar", weights_only=True)


def run_log(folder: Path) -> str:
    """What the run's log says so far."""
    path = folder / "out" / "logs" / "ostrack-tiny.log"
    return path.read_text() if path.is_file() else ""


def wait_until(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for something, or fail."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def children(process: int) -> list[int]:
    """The processes that a process has started and that still run (Linux)."""
    try:
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(process: int) -> bool:
    """Whether a process is there and no zombie (Linux)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def end(process: subprocess.Popen) -> None:
    """Leave nothing of a started training behind, whatever the test made of it."""
    for number in [*children(process.pid), process.pid]:
        if alive(number):
            os.kill(number, signal.SIGKILL)
    process.wait()
    process.stderr.close()
