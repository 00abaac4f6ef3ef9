"""How a process of a distributed run tells its launcher why it fails."""

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
