"""Worker processes that track sequences.

Each worker holds one tracker and gets its sequences, one or a few at a time, through its own pipe, so the parent always
knows what a worker was doing when it died. Workers write nothing: results travel back and the parent writes them, so
that stopping the workers at any moment leaves no half-written file.
"""

import contextlib
import logging
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ...utils.errors import UserError
from ...utils.signals import killed_by
from ...utils.threads import set_compute_threads
from .lockstep import track_in_lockstep
from .single import Failure, Tracked, attempt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ready:
    """The worker's tracker is built."""


@dataclass(frozen=True)
class _Unable:
    """The worker's tracker could not be built."""

    message: str
    trace: str
    user_error: bool


@dataclass(frozen=True)
class _Frames:
    """That many more frames of a job are tracked."""

    job: int
    number: int


@dataclass(frozen=True)
class _Done:
    """A job is finished, well or not."""

    job: int
    outcome: Tracked | Failure


@dataclass
class _Worker:
    """The parent's view of one worker."""

    device: str
    process: multiprocessing.process.BaseProcess
    connection: Connection
    jobs: dict[int, Any] = field(default_factory=dict)
    """Number -> sequence that it has and has not finished."""
    ready: bool = False


def run(
    sequences: Sequence[Any],
    tracker_factory: Callable[..., Any],
    devices: Sequence[str],
    threads: int,
    batch: int,
    debug_dir: Path | None,
    read_ahead: int,
    *,
    on_frames: Callable[[Any, int], None],
    on_outcome: Callable[[Any, Any], None],
) -> None:
    """Track `sequences` in the order given with one process per entry of `devices`.

    Args:
        tracker_factory, debug_dir, read_ahead: see `run_dataset`.
        threads: CPU threads of each process.
        batch: sequences that each process tracks side by side.
        on_frames: called with a sequence and a number of newly tracked frames.
        on_outcome: called with a sequence and its `Tracked` or `Failure`.

    Raises:
        UserError: the tracker cannot be built, or a device has no memory for the batch.
        RuntimeError: no worker could start, for another reason than the user's.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(enumerate(sequences))
    workers: list[_Worker] = []
    unable: _Unable | None = None

    def start(device: str) -> None:
        parent_end, worker_end = context.Pipe()
        process = context.Process(target=_work, daemon=True,
                                  args=(worker_end, tracker_factory, device, threads, batch, debug_dir, read_ahead))
        with _interrupts_held():
            process.start()
        worker_end.close()
        workers.append(_Worker(device, process, parent_end))

    def next_job(worker: _Worker) -> None:
        job = waiting.popleft() if waiting else None
        if job is not None:
            worker.jobs[job[0]] = job[1]
        try:
            worker.connection.send(job)
        except BrokenPipeError:
            logger.debug("worker on %s is gone; its pipe says so next", worker.device)

    def drop(worker: _Worker) -> None:
        workers.remove(worker)
        worker.connection.close()
        worker.process.join()

    try:
        for device in devices:
            start(device)
        while workers:
            for connection in wait([worker.connection for worker in workers]):
                worker = next(w for w in workers if w.connection is connection)
                try:
                    message = connection.recv()
                except (EOFError, OSError):  # the pipe is closed, perhaps within a message
                    drop(worker)
                    if worker.jobs:
                        if waiting:
                            start(worker.device)
                        for sequence in worker.jobs.values():
                            on_outcome(sequence, Failure(sequence.name, _obituary(worker)))
                    elif not worker.ready and unable is None:
                        unable = _Unable(_obituary(worker), "", False)
                    continue
                if isinstance(message, _Frames):
                    on_frames(worker.jobs[message.job], message.number)
                elif isinstance(message, _Unable):
                    if message.user_error:
                        raise UserError(message.message)
                    unable = message
                    logger.warning("a worker on %s could not build its tracker: %s", worker.device, message.message)
                elif isinstance(message, _Ready):
                    worker.ready = True
                    for _ in range(batch):
                        next_job(worker)
                else:
                    done = worker.jobs.pop(message.job)
                    next_job(worker)  # before the result is written, so that the worker does not wait for the disk
                    on_outcome(done, message.outcome)
        reason = unable or _Unable("the worker processes ended", "", False)
        if len(waiting) == len(sequences):
            raise RuntimeError(f"no worker process could start: {reason.message}\n{reason.trace}")
        for _, sequence in waiting:
            on_outcome(sequence, Failure(sequence.name, f"no worker process is left: {reason.message}", reason.trace))
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and a process started in it never gets one: the parent stops it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, tracker_factory: Callable[..., Any], device: str, threads: int, batch: int,
          debug_dir: Path | None, read_ahead: int) -> None:
    """What a worker process does: build the tracker, then track what comes until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops the workers
    set_compute_threads(threads)    # PyTorch is loaded with the factory, unless its tracker does without
    try:
        tracker = tracker_factory(device=device)
    except Exception as error:
        is_user_error = isinstance(error, UserError)
        text = str(error) if is_user_error else f"{type(error).__name__}: {error}"
        connection.send(_Unable(text, traceback.format_exc(), is_user_error))
        return
    connection.send(_Ready())
    try:
        if batch > 1:
            _work_in_lockstep(connection, tracker, batch, debug_dir, read_ahead)
            return
        for job, sequence in iter(connection.recv, None):
            outcome = attempt(tracker, sequence, debug_dir,
                              lambda number, job=job: connection.send(_Frames(job, number)), read_ahead)
            connection.send(_Done(job, outcome))
    except UserError as error:  # no memory for the batch
        connection.send(_Unable(str(error), "", True))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone


def _work_in_lockstep(connection: Connection, tracker: Any, batch: int, debug_dir: Path | None,
                      read_ahead: int) -> None:
    """Track what comes, several side by side. Whoever has sent an outcome gets the next sequence, or None."""
    jobs: dict[int, int] = {}

    def sequences() -> Iterator[Any]:
        for job, sequence in iter(connection.recv, None):
            jobs[id(sequence)] = job
            yield sequence

    track_in_lockstep(tracker, sequences(), batch, debug_dir, read_ahead,
                      on_frames=lambda sequence, number: connection.send(_Frames(jobs[id(sequence)], number)),
                      on_outcome=lambda sequence, outcome: connection.send(_Done(jobs[id(sequence)], outcome)))


def _obituary(worker: _Worker) -> str:
    """Why a worker process that said nothing is gone."""
    exit_code, who = worker.process.exitcode, f"its worker process {worker.process.pid} on {worker.device}"
    if exit_code is not None and exit_code < 0:
        return f"{who} was {killed_by(-exit_code, 'use fewer --threads')}"
    return f"{who} ended with exit status {exit_code}"
