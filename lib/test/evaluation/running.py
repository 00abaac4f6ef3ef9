"""Run a tracker over sequences: here, or in worker processes on CPU cores or GPUs."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...utils.device import pick_device
from ...utils.errors import UserError
from ...utils.ownership import own
from ...utils.threads import usable_cpus
from . import manifest, pool
from .datasets import Sequence as TestSequence
from .lockstep import track_in_lockstep
from .progress import Progress
from .readahead import FRAMES_AHEAD
from .results import boxes_file, holds_sub_pixels, is_done, is_of, write_result
from .single import Failure, Tracked, attempt

logger = logging.getLogger(__name__)

@dataclass
class RunSummary:
    """What `run_dataset` did.

    Attributes:
        finished, skipped, failures: the sequences by what became of them.
        frames, seconds: frames tracked, and the time from the first sequence's start to the end.
        tracking, waited: seconds of all processes together, in finished sequences: in the tracker, and without
            anything to do but to wait for frames.
    """

    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0
    tracking: float = 0.0
    waited: float = 0.0

    @property
    def waiting_share(self) -> float:
        """Part of the trackers' time that went into waiting for frames, 0..1."""
        return self.waited / max(self.tracking + self.waited, 1e-9)


def run_dataset(
    sequences: Sequence[TestSequence],
    tracker_factory: Callable[..., Any],
    out_dir: str | Path,
    *,
    threads: int = 0,
    batch: int = 1,
    num_gpus: int = 0,
    device: str = "auto",
    sub_pixel: bool = False,
    force: bool = False,
    debug: int = 0,
    read_ahead: int = FRAMES_AHEAD,
    made_with: Mapping[str, Any] | None = None,
    progress_bar: bool | None = None,
) -> RunSummary:
    """Track every sequence that has no whole result yet and write the results as OSTrack does.

    A failure in one sequence, or the death of a worker process, is kept for the summary and does not stop the others.

    Args:
        sequences: what to track.
        tracker_factory: called as `tracker_factory(device="cuda:1")` once per process; gives a `Tracker`, or anything
            with its `initialize` and `track`. With worker processes it must be picklable (a module's function or a
            `functools.partial` of one).
        out_dir: the tracker's folder of results, `tracker_folder(...)`.
        threads: worker processes; 0 tracks in this process. Never more than sequences are left.
        batch: sequences that each process tracks side by side, one batched pass for a frame of each. More than 1 needs
            a tracker with `start` and `step`.
        num_gpus: with `device` auto or cuda: worker i uses GPU i modulo this number, or modulo those that exist.
        device: auto, cpu, cuda or cuda:N.
        sub_pixel: write boxes with four decimals.
        force: track again what is done.
        debug: with 1 or more, track again and leave each frame with its boxes in `<out_dir>/debug/<sequence>`.
        read_ahead: most frames that are read while the tracker works on those before; 0 for none.
        made_with: weights and settings of the tracker, from `manifest.describe`, to keep results of others apart; None
            keeps no record.
        progress_bar: None draws a bar on a terminal only.

    Raises:
        UserError: two sequences would write the same file, no such device, the tracker cannot be made, the device has
            no memory for `batch`, `out_dir` holds results that were made with something else, in the other number
            format, or of other sequences with these names, and `force` is not given, or another run writes such
            results there just now.
        KeyboardInterrupt: Ctrl-C; results that are written stay.
    """
    out_dir = Path(out_dir)
    targets = _targets(sequences, out_dir)
    if made_with is not None:
        manifest.check(out_dir, made_with, force)
    for folder in {target.parent for target in targets.values()} if not (force or debug) else ():
        if holds_sub_pixels(folder) not in (None, sub_pixel):
            held, go_on = ("whole pixels", "without") if sub_pixel else ("fractions of pixels", "with")
            raise UserError(f"the results in {folder} have {held}: go on {go_on} --float, keep both with --runid N or "
                            "another --save_dir, or track again with --force")
    summary = RunSummary()
    todo = []
    for sequence in sequences:
        if not (force or debug) and np.isfinite(sequence.ground_truth[0]).all() \
                and not is_of(targets[id(sequence)], sequence.ground_truth[0]):
            raise UserError(f"{targets[id(sequence)]} does not begin with the first box of {sequence.name}: it is "
                            "of another data set with these names, or the annotation was changed. Keep both with "
                            "--runid N or another --save_dir, or track again with --force")
        if not (force or debug) and is_done(targets[id(sequence)], sequence.length):
            summary.skipped.append(sequence.name)
        else:
            todo.append(sequence)
    if summary.skipped:
        logger.info("%d of %d sequences are done already", len(summary.skipped), len(sequences))
    if not todo:
        return summary

    devices = worker_devices(device, num_gpus, max(1, min(threads, len(todo))))
    batch = min(batch, -(-len(todo) // len(devices)))  # no process takes what others could begin with
    logger.info("tracking %d sequences (%d frames) with %s", len(todo), sum(s.length for s in todo), _crew(
        devices, threads, batch))
    debug_dir = out_dir / "debug" if debug else None
    tracked: Counter[int] = Counter()
    with own(out_dir, share=True) as hold, Progress(len(todo), sum(s.length for s in todo), progress_bar) as progress:
        if made_with is not None:
            manifest.check(out_dir, made_with, force, hold.others)
        replace = made_with is not None and force and manifest.replaces(out_dir, made_with)
        if not replace:     # else nobody may join: what is there stays until the first result
            if made_with is not None and hold.alone:
                manifest.claim(out_dir, made_with)
            hold.admit()

        def count(sequence: TestSequence, frames: int) -> None:
            tracked[id(sequence)] += frames
            progress.advance(frames)

        def keep(sequence: TestSequence, outcome: Tracked | Failure) -> None:
            if isinstance(outcome, Tracked):
                try:
                    if replace and not summary.finished:
                        manifest.claim(out_dir, made_with, force)
                    write_result(targets[id(sequence)], outcome.boxes_xywh, outcome.seconds, sub_pixel)
                except UserError as error:
                    outcome = Failure(sequence.name, str(error))
            if isinstance(outcome, Failure):
                summary.failures.append(outcome)
            else:
                summary.finished.append(sequence.name)
                summary.tracking += sum(outcome.seconds)
                summary.waited += outcome.waited
            progress.finish_sequence(lost=sequence.length - tracked[id(sequence)])

        try:
            longest_first = sorted(todo, key=lambda s: -s.length)
            if threads == 0 and batch == 1:
                tracker = tracker_factory(device=devices[0])
                for sequence in todo:
                    keep(sequence, attempt(tracker, sequence, debug_dir, functools.partial(count, sequence),
                                           read_ahead))
            elif threads == 0:
                track_in_lockstep(tracker_factory(device=devices[0]), longest_first, batch, debug_dir, read_ahead,
                                  on_frames=count, on_outcome=keep)
            else:
                threads_each = max(1, usable_cpus() // len(devices))
                pool.run(longest_first, tracker_factory, devices, threads_each, batch, debug_dir, read_ahead,
                         on_frames=count, on_outcome=keep)
        except KeyboardInterrupt:
            logger.warning("%d of %d sequences were tracked and are kept; the same command tracks the rest",
                           len(summary.finished), len(todo))
            raise
        summary.frames, summary.seconds = progress.frames_done, progress.seconds
    return summary


def worker_devices(device: str, num_gpus: int, workers: int) -> list[str]:
    """The device of each of `workers` processes: `auto` and `cuda` are spread over the GPUs, others taken as they are.

    Raises:
        UserError: no such device.
    """
    gpus = min(num_gpus, torch.cuda.device_count()) if torch.cuda.is_available() else 0
    if device == "auto":
        return [f"cuda:{i % gpus}" if gpus else "cpu" for i in range(workers)]
    pick_device(device)
    return [f"cuda:{i % max(gpus, 1)}" if device == "cuda" else device for i in range(workers)]


def _targets(sequences: Sequence[TestSequence], out_dir: Path) -> dict[int, Path]:
    """id(sequence) -> its file of boxes."""
    targets = {id(sequence): boxes_file(out_dir, sequence.dataset, sequence.name) for sequence in sequences}
    if len(set(targets.values())) < len(sequences):
        files = [boxes_file(out_dir, s.dataset, s.name) for s in sequences]
        double = next(file for file in files if files.count(file) > 1)
        raise UserError(f"two sequences are called {double.stem!r} and would both write {double}; rename one")
    return targets


def _crew(devices: Sequence[str], threads: int, batch: int) -> str:
    """Who tracks, for the log."""
    where = ", ".join(sorted(set(devices)))
    who = f"{len(devices)} processes on {where}" if threads else where
    return f"{who}, {batch} sequences at a time" + " each" * (threads > 0) if batch > 1 else who
