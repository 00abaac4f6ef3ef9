"""Batches made ahead: in this process, by threads or by processes; always in order, and always the same ones."""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import cv2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...utils.errors import UserError
from ...utils.threads import map_in_threads

AHEAD = 2
"""Batches that each worker makes ahead."""
GONE_WITHIN = 2.0
"""Seconds in which a worker whose connection broke is gone."""
_ENDED = "DataLoader worker"
"""How PyTorch's error begins that a worker has ended."""


class Failure:
    """A `UserError` on its way from a worker to the main process, which raises it with the same message."""

    def __init__(self, message: str):
        self.message = message


class Fetcher(Dataset):
    """Batches by their keys, for the workers of a `DataLoader`; user errors arrive as a `Failure`."""

    def __init__(self, fetch: Callable[[Any], Any]):
        self._fetch = fetch

    def __getitem__(self, keys: Any) -> Any:
        try:
            return self._fetch(keys)
        except UserError as error:
            return Failure(str(error))


class Processes:
    """Batches made by processes.

    Args:
        fetch: makes a batch (a dict with tensors) of its keys.
        keys: the keys of the batches of an epoch; iterated anew for each.
        workers: processes, at least 1; they live as long as this object.
        pin: deliver tensors in pinned memory.

    Raises (when iterated):
        UserError: `fetch` raised one, or a worker was killed.
    """

    def __init__(self, fetch: Callable[[Any], dict[str, Any]], keys: Iterable[Any], workers: int, pin: bool):
        with _own_warning():
            self._batches = DataLoader(
                Fetcher(fetch), sampler=keys, batch_size=None, collate_fn=_unchanged, num_workers=workers,
                pin_memory=pin, persistent_workers=True, prefetch_factor=AHEAD, worker_init_fn=_start_worker,
            )
        self._workers: list[BaseProcess] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches = self._begin()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, ConnectionError) as error:
                cause = self._ending(error)
                if cause is None:
                    raise
                raise UserError(f"a process that loads data {cause}. Mostly the system kills one for want of memory: "
                                "lower TRAIN.NUM_WORKER or the batch, or set TRAIN.WORKER_KIND to thread") from error
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            yield batch

    def _ending(self, error: Exception) -> str | None:
        """How a worker ended that `error` may tell of; None where all go on.

        A worker that is killed in the middle of a delivery breaks the connection a moment before it is gone.
        """
        ended = not isinstance(error, RuntimeError) or str(error).startswith(_ENDED)
        if ended:
            wait([worker.sentinel for worker in self._workers], timeout=GONE_WITHIN)
        codes = [code for worker in self._workers if (code := worker.exitcode)]
        if codes:
            return _cause(codes[0])
        return f"ended ({str(error).strip() or type(error).__name__})" if ended else None

    def _begin(self) -> Iterator[Any]:
        """The next epoch of the `DataLoader`; the first one starts its processes, which we keep an eye on.

        PyTorch's handler of SIGCHLD, which raises an error wherever the main thread is when a worker ends, is taken
        out again: who asks for the next batch is told within seconds anyway.
        """
        before, handler = set(active_children()), signal.getsignal(signal.SIGCHLD)
        with _own_warning():
            batches = iter(self._batches)
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)
        started = [child for child in active_children() if child not in before]
        if started:
            self._workers = started
            Finalize(None, _kill, args=(started,), exitpriority=0)
        return batches


class Threads:
    """Batches made by threads of this process; arguments as for :class:`Processes`.

    Reading, decoding and cropping leave Python's global lock free, the rest does not: a few threads do what as many
    processes do, many do less. They need no copies between processes and no shared memory.
    """

    def __init__(self, fetch: Callable[[Any], dict[str, Any]], keys: Iterable[Any], workers: int, pin: bool):
        self._fetch, self._keys, self._workers, self._pin = fetch, keys, workers, pin

    def __iter__(self) -> Iterator[dict[str, Any]]:
        cv2.setNumThreads(0)
        return map_in_threads(self._make, self._keys, self._workers, AHEAD)

    def _make(self, keys: Any) -> dict[str, Any]:
        batch = self._fetch(keys)
        if self._pin:
            batch = {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in batch.items()}
        return batch


def batches(fetch: Callable[[Any], dict[str, Any]], keys: Iterable[Any], *, workers: int, kind: str, pin: bool
            ) -> Iterable[dict[str, Any]]:
    """The batches of the epochs of `keys`, made by `workers` of a `kind` (process or thread; see TRAIN.WORKER_KIND);
    0 workers: in this process, when asked for."""
    if workers == 0:
        return _Inline(fetch, keys)
    return (Threads if kind == "thread" else Processes)(fetch, keys, workers, pin)


class _Inline:
    def __init__(self, fetch: Callable[[Any], dict[str, Any]], keys: Iterable[Any]):
        self._fetch, self._keys = fetch, keys

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._fetch, self._keys)


def _cause(code: int) -> str:
    """Why a process ended, from its exit code."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _kill(workers: Sequence[BaseProcess]) -> None:
    """End what is left of the workers when Python ends, which would wait for ever: they ignore SIGTERM."""
    for worker in workers:
        worker.kill()


@contextmanager
def _own_warning() -> Iterator[None]:
    """Without PyTorch's warning that there are more workers than CPUs: `lib.train.run` says it once, by the key."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """One thread per worker; Ctrl-C and SIGTERM are the main process's to handle (they may come to the whole group)."""
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
