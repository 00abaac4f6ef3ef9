"""Logging for the scripts, and the way they end."""

import logging
import os
import sys
from collections.abc import Callable

from .errors import UserError
from .signals import TrainingInterrupted

logger = logging.getLogger(__name__)


def setup_logging(level: int = logging.INFO, quiet: bool = False) -> None:
    """Plain lines on standard error; warnings and errors say so. `quiet` (other ranks) leaves only warnings."""

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            text = super().format(record)
            return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING if quiet else level, handlers=[handler], force=True)
    for library in ("fontTools", "matplotlib", "onnx_ir", "onnxscript"):  # these report their inner workings
        logging.getLogger(library).setLevel(logging.WARNING)


SPINS = "10000"
"""How often a thread of PyTorch looks for work before it sleeps (GOMP_SPINCOUNT). GNU OpenMP's own number is so high
that on a machine with other work the threads mostly wait for each other: see docs/performance.md."""


def load_torch() -> None:
    """Import PyTorch, which takes seconds, more on a busy machine: the script says so and is not silent."""
    if "torch" not in sys.modules:
        logger.info("loading PyTorch")
        import torch  # noqa: F401


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: 0 or its return value, 2 for a `UserError` (message only), 130 for Ctrl-C,
    that of `TrainingInterrupted` for one that saved its state."""
    setup_logging()
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when PyTorch is loaded
    try:
        status = main()
    except UserError as error:
        logger.error("%s", error)
        status = 2
    except TrainingInterrupted as stopped:
        logger.info("%s", stopped)
        status = stopped.exit_status
    except KeyboardInterrupt:
        logger.warning("interrupted")
        status = 130
    sys.exit(status or 0)
