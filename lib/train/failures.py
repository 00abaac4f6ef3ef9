"""How a training ends early: stopped by a signal, or failed, which the launcher of several processes must learn."""

import json
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from lib.utils.errors import UserError

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable in which torchrun names the file for a process's cause of failure."""


def record_failure(error: BaseException, environ: Mapping[str, str] = os.environ) -> bool:
    """Write why this process fails where its launcher looks for it. False if no launcher waits for it.

    A `UserError` is recorded as its message, anything else with its traceback.
    """
    path = environ.get(ERROR_FILE)
    if not path:
        return False
    text = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error)).rstrip()
    content = {"message": {"message": text, "extraInfo": {"timestamp": str(int(time.time())), "order": time.time_ns()}}}
    Path(path).write_text(json.dumps(content), encoding="utf-8")
    return True


class TrainingInterrupted(KeyboardInterrupt):
    """The run stopped because a signal asked for it, with its state saved; `signum` is the signal."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """What a shell reports for this signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum
