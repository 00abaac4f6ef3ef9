"""How a process of a training ends early: left alone by its launcher, or failed, which the launcher of several must
learn."""

import json
import logging
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from ..utils.errors import UserError

logger = logging.getLogger(__name__)

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable in which torchrun names the file for a process's cause of failure."""

FOLLOWS = "follows"
"""In that file: whether the failure only follows that of another process."""

_LOST_PEER = re.compile(r"Connection (closed|reset) by peer|Broken pipe|remote process exited|ncclRemoteError")
"""What gloo and NCCL say where a process at the other end is gone."""
_LOST_PEER_MEANS = ("the connection to another process of the run was lost: it has ended, which its own output or the "
                    "system's log explains, or its machine cannot be reached. Run the same command again to go on from "
                    "the last saved state")

UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that torchrun gives to the processes that it starts."""


def record_failure(error: BaseException, environ: Mapping[str, str] = os.environ) -> bool:
    """Write why this process fails where its launcher looks for it. True where that launcher says it: this project's,
    unless it will start the processes again.

    A `UserError` is recorded as its message, a lost connection to another process as what it means, anything else with
    its traceback.
    """
    path = environ.get(ERROR_FILE)
    if not path:
        return False
    known = isinstance(error, UserError)
    lost = isinstance(error, RuntimeError) and not known and _LOST_PEER.search(str(error)) is not None
    text = (_LOST_PEER_MEANS if lost else
            str(error) if known else "".join(traceback.format_exception(error)).rstrip())
    content = {"message": {"message": text, "extraInfo": {
        "timestamp": str(int(time.time())), "order": time.time_ns(), FOLLOWS: lost}}}
    Path(path).write_text(json.dumps(content), encoding="utf-8")
    return LAUNCHER in environ and not restarts_left(environ)


def restarts_left(environ: Mapping[str, str] = os.environ) -> int:
    """How often the launcher of this process will start the processes again after a failure."""
    return int(environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) - int(environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


LAUNCHER = "TRAIN_LAUNCHER"
"""Environment variable with the process number of the launcher, where it is this project's."""

WATCH_EVERY = 1.0
"""Seconds between two looks at the launcher."""

GRACE = 30.0
"""Seconds that a process has to save and end after its launcher has died."""


def end_with_launcher(environ: Mapping[str, str] = os.environ) -> None:
    """Do not train on alone when the launcher dies without a word (SIGKILL): nobody could see or stop the processes.

    A process that torchrun's agent started gets SIGTERM then, which saves the state and stops. If it is not gone after
    `GRACE` seconds, it is ended whatever it does. Without a launcher nothing is watched.
    """
    if UNDER_TORCHRUN not in environ:
        return
    launcher = int(environ.get(LAUNCHER, os.getppid()))

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == launcher:
            pause.wait(WATCH_EVERY)
        logger.error("the launcher of process %s is gone; stopping", environ.get("RANK", "?"))
        os.kill(os.getpid(), signal.SIGTERM)
        pause.wait(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()
