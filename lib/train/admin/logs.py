"""Where a run tells how it goes: console, log file, TensorBoard and, if asked, Weights & Biases."""

import contextlib
import logging
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ...utils.errors import UserError
from ...utils.files import write_text
from ...utils.progress import LINE_EVERY
from .stats import format_duration, format_stats

logger = logging.getLogger(__name__)

LONGEST_SILENCE = 60.0
"""Seconds without a line on the console, but for a step that takes longer."""
PACKAGE = __name__.partition(".")[0]
"""The logger above all of this package."""


class RunLog:
    """Context manager that reports one run; on processes that are not the main one it says nothing (`active` False).

    The log file and TensorBoard's files are appended to, so a resumed run continues them. On a terminal a progress bar
    shows the running epoch and only its end is a line; elsewhere every print interval is a line.

    Args:
        name: of the run.
        log_file, tensorboard: file of the log, folder of the curves.
        active: False says nothing at all.
        console: show the log and the bar on the console too.
        wandb: settings to show at Weights & Biases; None does not report there.
        wandb_id: file that keeps the run's identity there, so that a resumed run goes on with the same curves.
    """

    def __init__(self, name: str, log_file: Path, tensorboard: Path, *, active: bool = True, console: bool = True,
                 wandb: Mapping[str, Any] | None = None, wandb_id: Path | None = None) -> None:
        self._name, self._log_file, self._tensorboard = name, log_file, tensorboard
        self._active, self._console, self._wandb_config = active, console and active, wandb
        self._wandb_id = wandb_id
        self._file: logging.FileHandler | None = None
        self._writer: Any = None
        self._wandb: Any = None
        self._bar: Any = None
        self._title, self._done, self._total = "", 0, 0
        self._last_line, self._silence = time.monotonic(), LINE_EVERY

    def __enter__(self) -> "RunLog":
        if self._active:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            self._file = logging.FileHandler(self._log_file, encoding="utf-8")
            self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            self._file.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == "run")
            logging.getLogger(PACKAGE).addHandler(self._file)
            self._writer = _open_tensorboard(self._tensorboard)
            if self._wandb_config is not None:
                self._wandb = _open_wandb(self._name, self._tensorboard, self._wandb_config, self._wandb_id)
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
            logging.getLogger(PACKAGE).removeHandler(self._file)
            self._file.close()
        self._writer = self._wandb = self._file = None

    def line(self, text: str, console: bool = True) -> None:
        """One line in the log file and, unless `console` is False, on the console."""
        if self._file is not None:
            self._file.handle(logging.LogRecord("run", logging.INFO, __file__, 0, text, None, None))
        if self._console and console:
            self._last_line = time.monotonic()
            logger.info("%s", text)

    def scalars(self, split: str, values: Mapping[str, float], when: int) -> None:
        """Numbers for TensorBoard and Weights & Biases.

        Args:
            split: `train`, `val` or `track`, averages of epoch `when`; or `step`, averages up to step `when` of the
                run.
        """
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{name}/{split}", value, when)
            self._writer.flush()
        if self._wandb is not None:
            self._wandb.log({f"{split}/{name}": value for name, value in values.items()} | {_axis(split): when})

    def picture(self, split: str, image: np.ndarray, epoch: int) -> None:
        """An RGB uint8 picture (H, W, 3) of an epoch for TensorBoard and Weights & Biases."""
        if self._writer is not None:
            self._writer.add_image(f"predictions/{split}", image, epoch, dataformats="HWC")
            self._writer.flush()
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"{split}/predictions": wandb.Image(image), _axis(split): epoch})

    def start_progress(self, title: str, total: int, done: int) -> None:
        """A bar of `total` steps, on a terminal. Elsewhere a line on the console where no other comes for long: for 5
        seconds at first, then for twice as long each time, up to a minute."""
        self._title, self._total, self._done = title, total, done
        if self._console and sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self._bar = tqdm(total=total, initial=done, desc=title, leave=False, dynamic_ncols=True, unit="step")

    def advance(self, steps: int = 1) -> None:
        """So many more steps are done."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)
        elif self._console and time.monotonic() - self._last_line >= self._silence:
            self._last_line, self._silence = time.monotonic(), min(2 * self._silence, LONGEST_SILENCE)
            logger.info("%s: %d of %d", self._title, self._done, self._total)

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


@dataclass
class Span:
    """Seconds of training, the steps in them, and how many of the seconds went by waiting for the loader."""

    seconds: float = 0.0
    steps: int = 0
    waited: float = 0.0

    def add(self, other: "Span") -> None:
        """Lengthen this span by another one."""
        self.seconds += other.seconds
        self.steps += other.steps
        self.waited += other.waited


class Clock:
    """Pairs per second, the share of waiting for data, and the time a run still needs, from the steps it has seen.

    Attributes:
        last: the span of the last `lap`.
        epoch: since `restart`.
    """

    def __init__(self, pairs_per_step: int, device: torch.device) -> None:
        self._pairs, self._device = pairs_per_step, device
        self._run, self.epoch, self.last = Span(), Span(), Span()
        self._open, self._mark = Span(), time.perf_counter()

    def restart(self) -> None:
        """An epoch begins: leave out what happened since the last `lap` (saving, validation)."""
        self.epoch, self._open, self._mark = Span(), Span(), time.perf_counter()

    def step(self) -> None:
        """One more step is done."""
        self._open.steps += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a batch."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._open.waited += time.perf_counter() - start

    def lap(self) -> tuple[float, float]:
        """Pairs per second: over the whole run, and since the last lap."""
        now = time.perf_counter()
        self._open.seconds = now - self._mark
        self.last, self._open, self._mark = self._open, Span(), now
        self.epoch.add(self.last)
        self._run.add(self.last)
        return self._rate(self._run), self._rate(self.last)

    def usage(self, span: Span) -> dict[str, float]:
        """For the curves: pairs per second, share of waiting for data (0..1), and on CUDA the most memory in GiB."""
        usage = {"Throughput": self._rate(span), "DataWait": span.waited / max(span.seconds, 1e-9)}
        if self._device.type == "cuda":
            usage["Memory"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        return usage

    def remaining(self, steps: int) -> float:
        """Seconds that `steps` more steps will take at the average rate."""
        return steps * self._run.seconds / max(self._run.steps, 1)

    def _rate(self, span: Span) -> float:
        return self._pairs * span.steps / max(span.seconds, 1e-9)


def progress_text(split: str, epoch: int, epochs: int, step: int, steps: int, *, rates: tuple[float, float],
                  averages: Mapping[str, float], left: float | None = None, waiting: float | None = None,
                  lr: float | None = None) -> tuple[str, str]:
    """The line of a print interval, and its part for beside a progress bar.

    Args:
        rates: pairs per second, of the run and of the interval.
        averages: statistics to show.
        left: seconds that the run still needs.
        waiting: share of the interval (0..1) in which the loader was waited for.
        lr: learning rate.
    """
    details = [f"{rates[0]:.1f} pairs/s ({rates[1]:.1f} last)"]
    if waiting is not None:
        details.append(f"{100 * waiting:.0f} % waiting for data")
    if left is not None:
        details.append(f"{format_duration(left)} left")
    if lr is not None:
        details.append(f"lr {lr:.3g}")
    details.append(format_stats(averages))
    text = ", ".join(details)
    return f"[{split}: {epoch}/{epochs}, {step}/{steps}] {text}", text


def _axis(split: str) -> str:
    """What the curves of a split are drawn over."""
    return "step" if split == "step" else "epoch"


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


def _open_wandb(name: str, folder: Path, config: Mapping[str, Any], id_file: Path | None) -> Any:
    """A Weights & Biases run; with the identity in `id_file`, which is written where it is not there yet."""
    check_wandb()
    import wandb

    if id_file is not None and id_file.is_file():
        identity = id_file.read_text(encoding="utf-8").strip()
    else:
        identity = uuid.uuid4().hex[:12]
        if id_file is not None:
            write_text(id_file, identity + "\n")
    run = wandb.init(project="compresstracker", name=name, id=identity, resume="allow", dir=str(folder),
                     config=dict(config))
    for split in ("train", "val", "track", "step"):
        run.define_metric(f"{split}/*", step_metric=_axis(split))
    return run
