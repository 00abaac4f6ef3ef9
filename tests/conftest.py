"""Fixtures that all tests share."""

import multiprocessing
import os
import pickle
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the larger reference data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found: {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def no_environment_overrides(monkeypatch):
    """A test never sees the paths that the user's shell overrides."""
    for name in list(os.environ):
        if name.startswith("COMPRESSTRACKER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def twice(tmp_path):
    """Run a function in two processes that torchrun might have started; gives both results, or what they raised."""
    import torch

    from lib.train.failures import TrainingInterrupted
    from lib.utils.errors import UserError

    def child(function, rank, port, result):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(port))
        torch.set_num_threads(1)
        try:
            outcome = function()
        except (UserError, TrainingInterrupted) as error:
            outcome = f"{type(error).__name__}: {error}"
        result.write_bytes(pickle.dumps(outcome))
        os._exit(0)

    def go(function):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        results = [tmp_path / f"result{rank}" for rank in (0, 1)]
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=child, args=(function, rank, port, results[rank])) for rank in (0, 1)]
        for process in children:
            process.start()
        for process in children:
            process.join(120)
            assert process.exitcode == 0
        return [pickle.loads(result.read_bytes()) for result in results]
    return go
