"""One owner at a time for a folder of outputs.

A lock on a file in the folder, which names its owner. The system drops it when the process ends, however that happens,
so what a killed process leaves is harmless. It is a record lock (`fcntl.lockf`), which Linux and NFS (with its lock
service) know, so that machines sharing a folder see each other's, too. Where the file system has no locks, or Python no
`fcntl` (Windows), nobody is kept out, and a warning says so.
"""

import contextlib
import datetime
import errno
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import UserError
from .files import cannot_write, made_folder

try:
    import fcntl
except ImportError:     # Windows
    fcntl = None        # type: ignore[assignment]

logger = logging.getLogger(__name__)

NAME = ".owner"
"""Of the file."""
_WAIT = 10.0
"""Seconds to wait for one who is about to let others in."""
_BUSY = (errno.EACCES, errno.EAGAIN)
_held: set[Path] = set()
"""What this process owns: record locks do not keep out the process that holds them."""


class Hold:
    """A folder that this process owns.

    Attributes:
        others: who else does; nothing for nobody.
        alone: nobody does, nor can join.
    """

    def __init__(self, file: IO[str] | None, others: str):
        self._file, self.others, self.alone = file, others, not others

    def admit(self) -> None:
        """Let others in who want to share the folder."""
        if self._file is not None and self.alone:
            fcntl.lockf(self._file, fcntl.LOCK_SH)
            self.alone = False


@contextlib.contextmanager
def own(folder: str | Path, *, share: bool = False) -> Iterator[Hold]:
    """Own a folder until the block ends; it is made where it is missing, and goes again if it stays empty.

    Args:
        share: be content with others who share it. Whoever comes first is `alone` until it calls `Hold.admit`.

    Raises:
        UserError: somebody else owns it (the message says who), or it cannot be written.
    """
    path = Path(folder).absolute() / NAME
    if path in _held:
        raise UserError(f"{path.parent} is being written by this process already")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(made_folder(path.parent))
            file, others = _open(path, share)
        except OSError as error:
            raise UserError(cannot_write(path.parent, error)) from error
        _held.add(path)
        stack.callback(_held.discard, path)
        if file is not None:
            stack.callback(_leave, file, path)
        yield Hold(file, others)


def _open(path: Path, share: bool) -> tuple[IO[str] | None, str]:
    """The locked file, None where there are no locks; and who else has it."""
    if fcntl is None:
        return None, ""
    until = time.monotonic() + _WAIT
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            alone = _lock(file, share)
            if alone is not None and not _same(file, path):
                alone = None    # its last owner took it away in between: there may be another one by now
            elif alone is None and (not share or time.monotonic() > until):
                raise UserError(f"{path.parent} is being written by {_owner(file)}; wait for its end, stop it, or "
                                "choose another folder")
        except OSError as error:
            file.close()
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            logger.warning("%s: this file system has no locks (%s); take care that nothing else writes there",
                           path.parent, error.strerror)
            return None, ""
        except UserError:
            file.close()
            raise
        if alone is not None:
            others = "" if alone else _owner(file)
            _sign(file, alone)
            return file, others
        file.close()
        time.sleep(0.05)


def _lock(file: IO[str], share: bool) -> bool | None:
    """Lock a file; whether for this process alone, None where others do not allow it."""
    for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH) if share else (fcntl.LOCK_EX,):
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
            return kind == fcntl.LOCK_EX
        except OSError as error:
            if error.errno not in _BUSY:
                raise
    return None


def _same(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: IO[str], alone: bool) -> None:
    """Add a line about who owns the file."""
    if alone:
        file.truncate(0)
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}: {' '.join(sys.argv)[:500]}\n")
    file.flush()


def _owner(file: IO[str]) -> str:
    """Who owns a locked file; of several, those that are not known to have left."""
    file.seek(0)
    lines = file.read().splitlines()
    on_this_host = re.compile(rf"process (\d+) on {re.escape(socket.gethostname())} ")
    lines = [line for line in lines if not (match := on_this_host.match(line)) or _runs(int(match[1]))]
    return "; ".join(lines) or "another process"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _leave(file: IO[str], path: Path) -> None:
    """Give a file up; the last to leave takes it away."""
    with contextlib.suppress(OSError):
        if _lock(file, share=False) and _same(file, path):
            path.unlink()
    file.close()
