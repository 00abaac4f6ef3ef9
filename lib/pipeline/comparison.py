"""Several trackers on one test set, side by side: what they score, and how long a frame takes."""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..deploy.timing import SETTLE, time_alternately
from ..families.build import build_for_test
from ..test.evaluation.results import tracker_folder
from ..test.evaluation.sequence import Sequence as TestSequence
from ..test.tracker.choice import Choice, choose_tracker, parse_tracker
from ..utils.device import pick_device
from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.machine import describe_environment
from .scoring import ScoreRecord, TestSet

logger = logging.getLogger(__name__)

TIMES = "times.json"
CLIPS, FRAMES = 4, 30
"""Sequences, and first frames of each, that are timed."""
PASSES, ROUNDS, WARMUP = 240, 40, 10
"""Timed frames of each tracker, about once forth and back through all clips; in how many rounds, short ones, so that a
busy moment of the machine hits all alike; and frames before."""
SECONDS = 60.0
"""About the longest time that a tracker's frames take; slower ones are timed on fewer."""

Clip = tuple[list[np.ndarray], list[float]]
"""Frames, (H, W, 3) RGB uint8, and the box [x, y, w, h] in the first, pixels."""


class FrameTimes(NamedTuple):
    """Milliseconds per frame of one tracker: the median, what 95 % stay under, and how many frames were timed."""

    median_ms: float
    p95_ms: float
    frames: int


@dataclass(frozen=True)
class Run:
    """One tracker that is compared: one training of what its label stands for.

    Attributes:
        label: those with the same are several trainings of one kind.
        title: script and name of its results.
        choice: the tracker.
        made_with: manifest of its results.
        folder: of its results, whose name tells its weights and settings.
        sized: whether the configuration tells its size; that of an exported folder may have been changed by options.
    """

    label: str
    title: str
    choice: Choice
    made_with: dict[str, Any]
    folder: Path
    sized: bool

    def size(self) -> tuple[int, int] | None:
        """Numbers of layers and parameters; None where they are not known."""
        if not self.sized:
            return None
        model = build_for_test(self.choice.cfg)
        return len(model.layers), sum(parameter.numel() for parameter in model.parameters())

    def record(self, test_set: TestSet) -> ScoreRecord | None:
        """What it scored; None where it was not scored on this set.

        Raises:
            UserError: the record is damaged.
        """
        record = ScoreRecord.read(self.folder)
        return record if record is not None and record.test_set == test_set.digest else None

    def score(self, test_set: TestSet, device: str) -> None:
        """Track what is not tracked yet, and score.

        Raises:
            UserError: a sequence failed.
        """
        if self.record(test_set) is not None:
            logger.info("-- %s is done already: %s", self.label, self.folder)
            return
        logger.info("-- tracking %s with %s", test_set.name, self.label)
        start = time.monotonic()
        try:
            scores, by_sequence = test_set.score(self.choice.make, self.made_with, self.folder, device)
        except UserError as error:
            raise UserError(f"{self.label}: {error}") from error
        ScoreRecord(test_set.digest, scores, by_sequence, {"test": time.monotonic() - start}).write(self.folder)


def choose_runs(trackers: Sequence[str], test_set: TestSet, output: Path, device: str = "auto") -> list[Run]:
    """The trackers of a command line.

    Args:
        trackers: see `parse_tracker`; without a label one is called by its script and the name of its results.
        output: results get a folder each in `results` below it.
        device: of all.

    Raises:
        UserError: one cannot be had, or is named twice.
    """
    runs: list[Run] = []
    for text in trackers:
        label, options = parse_tracker(text, device)
        choice = choose_tracker(options, test_set.name)
        made_with = choice.made_with()
        facts = [made_with["rules"], made_with["checkpoint"]["sha256"], made_with["settings"]]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        title = f"{options.tracker_name}/{choice.name}"
        folder = tracker_folder(output / "results", options.tracker_name, f"{choice.name}_{digest}")
        twin = next((run for run in runs if run.folder == folder), None)
        if twin is not None:
            raise UserError(f"{text} has the weights and settings of {twin.label}; name a tracker once. Several "
                            "trainings under one label each have weights of their own")
        runs.append(Run(label or title, title, choice, made_with, folder, choice.cfg is not None
                        and not options.exported))
    return runs


def time_runs(runs: Sequence[Run], test_set: TestSet, device: str, output: Path) -> None:
    """Time a frame end to end (array in, box out; no reading) of the first run of each label, in turn on the same
    frames in this process, with the threads that it computes with, and write `times.json`.

    Raises:
        UserError: no sequence can be timed, or a tracker fails.
    """
    chosen: dict[str, Run] = {}
    for run in runs:
        chosen.setdefault(run.label, run)
    clips, place = _clips(test_set.sequences), pick_device(device)
    calls = {label: _Stream(run.choice.make(device=device), clips) for label, run in chosen.items()}
    timings = time_alternately(calls, place, iterations=PASSES, blocks=ROUNDS, warmup=WARMUP,
                               seconds=SECONDS * len(calls), settle=SETTLE, label="timing whole frames")
    times = {label: {"run": chosen[label].folder.name,
                     **FrameTimes(timing.median_ms, timing.p95_ms, timing.seconds.size)._asdict()}
             for label, timing in timings.items()}
    content = {"environment": describe_environment(place), "trackers": times}
    write_text(output / TIMES, json.dumps(content, indent=1) + "\n")


def read_times(runs: Sequence[Run], output: Path) -> tuple[dict[str, FrameTimes], str]:
    """What `time_runs` wrote of these trackers, by label, and on what they ran; nothing where they were not timed.

    Raises:
        UserError: the file is damaged.
    """
    path = output / TIMES
    if not path.is_file():
        return {}, ""
    names = {(run.label, run.folder.name) for run in runs}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        times = {label: FrameTimes(*(entry[name] for name in FrameTimes._fields))
                 for label, entry in content["trackers"].items() if (label, entry["run"]) in names}
        machine = content["environment"]
        where = machine["device_name"] + ("" if machine["device"] == "cpu" else ", OpenCV's trackers on the CPU")
        return times, f"{where}, {machine['threads']} CPU threads"
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and frames are timed again") from error


def _clips(sequences: Sequence[TestSequence]) -> list[Clip]:
    """The first frames of some sequences, spread over all."""
    usable = [sequence for sequence in sequences
              if sequence.length > 1 and np.isfinite(sequence.ground_truth[0]).all()]
    if not usable:
        raise UserError("no sequence has a first box and a second frame, so nothing can be timed")
    clips = []
    for sequence in usable[::-(-len(usable) // CLIPS)]:
        clips.append(([sequence.frames[number] for number in range(min(FRAMES, sequence.length))],
                      sequence.first_box()))
        sequence.frames.close()
    return clips


class _Stream:
    """A tracker that is given one frame with each call, on and on: each clip forth and back, so that its target never
    jumps, then the next clip."""

    def __init__(self, tracker: Any, clips: Sequence[Clip]):
        self._tracker = tracker
        self._steps = cycle([(image, target) for frames, box in clips for target in [tracker.start(frames[0], box)]
                             for image in (*frames[1:], *frames[-2::-1])])

    def __call__(self) -> None:
        image, target = next(self._steps)
        self._tracker.step([image], [target])
