"""Where a run tells how it goes: console, log file, TensorBoard and, if asked, Weights & Biases."""

import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lib.train.admin.stats import format_duration, format_stats
from lib.utils.errors import UserError

logger = logging.getLogger(__name__)


class RunLog:
    """Context manager that reports one run; on processes that are not the main one it says nothing (`active` False).

    The log file and TensorBoard's files are appended to, so a resumed run continues them. On a terminal a progress bar
    shows the running epoch and only its end is a line; elsewhere every print interval is a line.
    """

    def __init__(self, name: str, log_file: Path, tensorboard: Path, *, active: bool = True, console: bool = True,
                 wandb: Mapping[str, Any] | None = None) -> None:
        self._name, self._log_file, self._tensorboard = name, log_file, tensorboard
        self._active, self._console, self._wandb_config = active, console and active, wandb
        self._file: logging.FileHandler | None = None
        self._writer: Any = None
        self._wandb: Any = None
        self._bar: Any = None

    def __enter__(self) -> "RunLog":
        if self._active:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            self._file = logging.FileHandler(self._log_file, encoding="utf-8")
            self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            self._file.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == "run")
            logging.getLogger("lib").addHandler(self._file)
            self._writer = _open_tensorboard(self._tensorboard)
            if self._wandb_config is not None:
                self._wandb = _open_wandb(self._name, self._tensorboard, self._wandb_config)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end_progress()
        if self._file is not None and error is not None:
            self.line(f"ended by {type(error).__name__}: {error}", console=False)
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)
        if self._file is not None:
            logging.getLogger("lib").removeHandler(self._file)
            self._file.close()
        self._writer = self._wandb = self._file = None

    def line(self, text: str, console: bool = True) -> None:
        """One line in the log file and, unless `console` is False, on the console."""
        if self._file is not None:
            self._file.handle(logging.LogRecord("run", logging.INFO, __file__, 0, text, None, None))
        if self._console and console:
            logger.info("%s", text)

    def scalars(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        """One epoch's averages for TensorBoard and Weights & Biases."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{name}/{split}", value, epoch)
            self._writer.flush()
        if self._wandb is not None:
            self._wandb.log({f"{split}/{name}": value for name, value in values.items()} | {"epoch": epoch})

    def start_progress(self, title: str, total: int, done: int) -> None:
        """A bar of `total` steps, on a terminal."""
        if self._console and sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self._bar = tqdm(total=total, initial=done, desc=title, leave=False, dynamic_ncols=True, unit="step")

    def advance(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update()

    def progress(self, text: str, details: str) -> None:
        """A print interval is over: `details` beside the bar, or `text` as a line where there is no bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(details)
        self.line(text, console=self._bar is None)

    def end_progress(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Clock:
    """Pairs per second, and the time a run still needs, from the steps this process has seen."""

    def __init__(self, pairs_per_step: int) -> None:
        self._pairs = pairs_per_step
        self._busy, self._steps = 0.0, 0
        self._mark, self._marked_steps = time.perf_counter(), 0

    def restart(self) -> None:
        """Leave out what happened since the last `lap` (saving, validation)."""
        self._mark, self._marked_steps = time.perf_counter(), self._steps

    def step(self) -> None:
        """One more step is done."""
        self._steps += 1

    def lap(self) -> tuple[float, float]:
        """Pairs per second: over the whole run, and since the last lap."""
        now = time.perf_counter()
        elapsed, steps = max(now - self._mark, 1e-9), self._steps - self._marked_steps
        self._busy += elapsed
        self._mark, self._marked_steps = now, self._steps
        return self._pairs * self._steps / max(self._busy, 1e-9), self._pairs * steps / elapsed

    def remaining(self, steps: int) -> float:
        """Seconds that `steps` more steps will take at the average rate."""
        return steps * self._busy / max(self._steps, 1)


def progress_text(split: str, epoch: int, epochs: int, step: int, steps: int, *, rates: tuple[float, float],
                  left: float | None, lr: float | None, averages: Mapping[str, float]) -> tuple[str, str]:
    """The line of a print interval, and its part for beside a progress bar. `rates`: pairs per second, all and last."""
    details = [f"{rates[0]:.1f} pairs/s ({rates[1]:.1f} last)"]
    if left is not None:
        details.append(f"{format_duration(left)} left")
    if lr is not None:
        details.append(f"lr {lr:.3g}")
    details.append(format_stats(averages))
    text = ", ".join(details)
    return f"[{split}: {epoch}/{epochs}, {step}/{steps}] {text}", text


def _open_tensorboard(folder: Path) -> Any:
    """A TensorBoard writer, or None (with a word of warning) where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed; no curves are written (pip install tensorboard)")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return SummaryWriter(str(folder))


def check_wandb() -> None:
    """Raise `UserError` where Weights & Biases is asked for and not installed."""
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError("--use_wandb 1 needs the wandb package: pip install wandb, or leave the option away; "
                        "TensorBoard files are always written") from error


def _open_wandb(name: str, folder: Path, config: Mapping[str, Any]) -> Any:
    """A Weights & Biases run that resumes under the same name."""
    check_wandb()
    import wandb

    return wandb.init(project="compresstracker", name=name, id=name.replace("/", "-"), resume="allow",
                      dir=str(folder), config=dict(config))
