"""Ctrl-C and SIGTERM ask a loop to stop after its current step; they do not break it."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

IMPATIENT_AFTER = 2.0
"""Seconds after the first signal from which a second one stops at once (one key press may arrive twice)."""


def killed_by(number: int, remedy: str = "see the system's log") -> str:
    """`killed by SIGKILL (often: out of memory; ...)`: how a signal ended a process.

    Args:
        number: of the signal.
        remedy: what to do about too little memory.
    """
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return f"killed by {name}" + (f" (often: out of memory; {remedy})" if name == "SIGKILL" else "")


class TrainingInterrupted(KeyboardInterrupt):
    """The run stopped because a signal asked for it, with its state saved; `signum` is the signal."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """What a shell reports for this signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class StopRequest:
    """Context manager that turns SIGINT and SIGTERM into a wish: `signum` is set, the old handlers come back after.

    Outside the main thread, where Python handles no signals, nothing is installed.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._first = 0.0
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._first = signum, time.monotonic()
            logger.info("%s: stopping after this step; once more to stop at once", signal.Signals(signum).name)
        elif time.monotonic() - self._first > IMPATIENT_AFTER:
            raise KeyboardInterrupt

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """What handles the signals that ask a process to end is, after the code inside, what it was before it.

    torchrun's agent leaves handlers of its own behind, and installs them in the main thread only.
    """
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP,
                                                               signal.SIGQUIT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
