"""Start the processes of a distributed run with torchrun's agent, and report how they ended in one message."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from ..utils.errors import UserError
from ..utils.signals import kept_handlers, killed_by
from .failures import FOLLOWS, LAUNCHER

logger = logging.getLogger(__name__)

OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Environment variable that gives every start of the processes a store of its own to meet in. Without it PyTorch's
agent (2.11) keeps one over restarts, and a new process may read the address of one that is gone and wait for it in
vain."""


@dataclass(frozen=True)
class Machines:
    """The machines of a run, a fixed number, and how they find each other.

    Attributes:
        number: how many there are.
        endpoint: HOST:PORT of machine 0, where they meet; one machine alone needs none.
        rank: this machine's number, from 0.
    """

    number: int = 1
    endpoint: str = ""
    rank: int = 0

    def rendezvous(self) -> dict[str, Any]:
        """What torchrun's agent needs to know of it."""
        size = {"min_nodes": self.number, "max_nodes": self.number}
        if not self.endpoint:
            return size | {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost",
                           "run_id": uuid.uuid4().hex}
        return size | {"rdzv_backend": "static", "rdzv_endpoint": self.endpoint, "run_id": "compresstracker",
                       "rdzv_configs": {"rank": self.rank}}


class _Starts(DefaultLogsSpecs):
    """Says on every machine which processes start there; the agent asks before each start where their output goes."""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        first, last = envs[min(envs)], envs[max(envs)]
        logger.info("machines that have met: %s; this one is number %s and starts processes %s to %s of %s",
                    first["GROUP_WORLD_SIZE"], first["GROUP_RANK"], first["RANK"], last["RANK"], first["WORLD_SIZE"])
        return super().reify(envs)


def launch(command: Sequence[str], processes: int, machines: Machines | None = None, restarts: int = 0) -> int:
    """Run `command` (arguments of this Python) in `processes` processes here, as one of the `machines`.

    Each gets torchrun's environment (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). When one fails, the
    others are ended; all are started again, `restarts` times. SIGINT and SIGTERM go to all of them, which have 30
    seconds to save; afterwards these signals do what they did before.

    Args:
        machines: None is this one alone.
        restarts: for one machine; several do not hear of each other's failures.

    Returns:
        0, or 128 + the signal that stopped the run.

    Raises:
        UserError: a process failed (the message is that of the first one), or the machines do not find each other.
    """
    machines = machines or Machines()
    _silence_agent()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ[OWN_STORE] = "1"
    config = LaunchConfig(nproc_per_node=processes, max_restarts=restarts, monitor_interval=0.2,
                          logs_specs=_Starts() if machines.endpoint else DefaultLogsSpecs(), **machines.rendezvous())
    if machines.endpoint:
        logger.info("waiting at %s for the %d machines of the run", machines.endpoint, machines.number)
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        with kept_handlers():
            launch_agent(config, sys.executable, ["-u", *command])
        return 0
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = first_failure(error)
        if failure.exitcode in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            return failure.exitcode  # it was asked to stop by itself, and has said so
        raise UserError(describe_failure(rank, failure)) from error
    except (torch.distributed.DistError, RendezvousError, ConnectionError, TimeoutError) as error:
        raise UserError(f"the {machines.number} machines did not meet at {machines.endpoint or 'localhost'}; check "
                        "--ip and --port, --world-size and --rank, and that machine 0 can be reached") from error
    finally:
        del os.environ[LAUNCHER]


def first_failure(error: ChildFailedError) -> tuple[int, ProcessFailure]:
    """Rank and failure of the process that failed by itself first: one that recorded a cause, else one that was killed;
    then those that lost the connection to it, and last those that were ended after it."""
    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, bool, int]:
        failure = item[1]
        recorded = isinstance(failure.message, dict)
        extra = failure.message["extraInfo"] if recorded else {}
        return (failure.exitcode == -signal.SIGTERM, bool(extra.get(FOLLOWS)), not recorded,
                extra.get("order", 0) or failure.timestamp * 10**9)
    return min(error.failures.items(), key=order)


def describe_failure(rank: int, failure: ProcessFailure) -> str:
    """One message with the cause: what the process recorded, or how it was killed."""
    recorded = _recorded(failure)
    if recorded:
        return f"process {rank}: {recorded}"
    if failure.exitcode < 0:
        return (f"process {rank} was {killed_by(-failure.exitcode)}; the other processes were ended. "
                "Run the same command again to go on from the last saved state.")
    return f"process {rank} ended with status {failure.exitcode}; the other processes were ended"


def _silence_agent() -> None:
    """The agent's own reports repeat, at length, what is reported here."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _recorded(failure: ProcessFailure) -> str | None:
    """What `lib.train.failures.record_failure` wrote for a process."""
    return failure.message.get("message") if isinstance(failure.message, dict) else None
