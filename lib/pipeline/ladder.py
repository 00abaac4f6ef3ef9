"""Ablation ladders: one configuration trained with several settings ("rungs") and seeds, tested, and compared."""

import datetime
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..config import Config, load_config, parse_override, read_yaml
from ..config.schema import show
from ..families.build import find_pretrained
from ..test.analysis.conventions import CONVENTIONS
from ..test.analysis.metrics import SCORE_NAMES
from ..test.evaluation import manifest
from ..test.tracker.tracker import Tracker
from ..train.run import check_inputs, run_training
from ..utils.device import pick_device
from ..utils.errors import UserError
from ..utils.files import ROOT
from ..utils.progress import Progress
from ..utils.signals import StopRequest, TrainingInterrupted, killed_by
from ..utils.threads import usable_cpus
from .provenance import check_provenance, claim
from .scoring import SCORE, ScoreRecord, TestSet
from .tracking import TrackingValidation

logger = logging.getLogger(__name__)

KEYS = {"script": str, "config": str, "dataset": str, "seeds": (int, list), "set": dict, "rungs": dict, "compare": str,
        "score": str, "convention": str, "reference": str}
"""Keys of a ladder's file and their types."""
COMPARE = ("previous", "first")
SCRIPT = ROOT / "tracking" / "ablation.py"
WAIT = 60.0
"""Seconds that the runs have to save and end when the ladder is stopped."""
SAY_EVERY = 60.0
"""Seconds between two looks at what the runs say."""
SIDE_BY_SIDE = 8
"""Sequences that a run tracks at once."""


@dataclass(frozen=True)
class Ladder:
    """What a ladder's file says.

    Attributes:
        source: the file; its name is the ladder's.
        script, config: of the configuration that all rungs share.
        dataset: that is tracked, a name of tracking/test.py --dataset.
        seeds: each rung is trained with each.
        settings: dotted key -> value, of all rungs.
        rungs: name -> the settings that make it, over those of all.
        compare: each rung is compared with the `previous` one, or all with the `first`.
        score: of the table, one of `SCORE_NAMES`.
        convention: of the scores (lib/test/analysis/conventions.py); empty for the test set's own.
        reference: script/config of a trained tracker that is tested beside them, with the configuration's
            MODEL.PRETRAIN_FILE as its weights (the teacher); empty for none.
        arguments: of tracking/ablation.py that give the same ladder.
    """

    source: Path
    script: str
    config: str
    dataset: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    rungs: Mapping[str, Mapping[str, Any]]
    compare: str = "previous"
    score: str = "AUC"
    convention: str = ""
    reference: str = ""
    arguments: Sequence[str] = field(default=(), compare=False)

    @classmethod
    def read(cls, path: str | Path, instead: Mapping[str, Any] | None = None, settings: Sequence[str] = ()
             ) -> "Ladder":
        """Read a ladder's file (relative to the working directory, else to the repository's root).

        Args:
            instead: values that take the place of the file's; None leaves those.
            settings: "KEY=VALUE" of all rungs, over the file's.

        Raises:
            UserError: no such file, an unknown or missing key, or a wrong value.
        """
        source = next((place for place in (Path(path).expanduser(), ROOT / path) if place.is_file()), None)
        if source is None:
            raise UserError(f"no ladder {path}; those that come with the project are in experiments/ladders")
        content = read_yaml(source)
        if not isinstance(content, dict):
            raise UserError(f"{source} holds no keys; expected {', '.join(KEYS)}")
        content |= {name: value for name, value in (instead or {}).items() if value is not None}
        for name, value in content.items():
            if name not in KEYS:
                raise UserError(f"{source}: unknown key {name}; expected {', '.join(KEYS)}")
            if not isinstance(value, KEYS[name]) or isinstance(value, bool):
                raise UserError(f"{source}: {name} is {value!r}, which is of the wrong kind")
        missing = [name for name in ("config", "dataset", "rungs") if not content.get(name)]
        if missing:
            raise UserError(f"{source}: {missing[0]} is missing")
        given = content.get("seeds", 1)
        chosen = list(range(given)) if isinstance(given, int) else given
        if not chosen or not all(type(seed) is int and seed >= 0 for seed in chosen) or len(set(chosen)) < len(chosen):
            raise UserError(f"{source}: seeds is {show(given)}; expected a number from 1, or different numbers from 0")
        rungs = {str(name): {} if keys is None else keys for name, keys in content["rungs"].items()}
        for name, keys in {"set": content.get("set") or {}, **rungs}.items():
            if not isinstance(keys, dict) or not re.fullmatch(r"\w[\w.-]*", name):
                raise UserError(f"{source}: rung {name}: expected a name of letters, digits, '_', '-' and '.', and "
                                "keys with values under it")
            wrong = [key for key in keys if key == "TRAIN.SEED" or isinstance(keys[key], datetime.date)]
            if wrong:
                raise UserError(f"{source}, {name}: {wrong[0]} cannot be set here; "
                                f"{'the seeds are those of the key seeds' if wrong[0] == 'TRAIN.SEED' else 'quote it'}")
        for name, choices in (("compare", COMPARE), ("score", SCORE_NAMES), ("convention", ("", *CONVENTIONS))):
            if content.get(name, choices[0]) not in choices:
                raise UserError(f"{source}: {name} is {content[name]}; expected one of {', '.join(choices)}")
        if any(parse_override(text)[0] == "TRAIN.SEED" for text in settings):
            raise UserError("--set TRAIN.SEED: the seeds are those of --seeds, or of the ladder's file")
        common = {**(content.get("set") or {}), **dict(map(parse_override, settings))}
        arguments = ["--ladder", str(source)]
        for name, value in (instead or {}).items():
            arguments += [f"--{name}", str(value)] if value is not None else []
        for text in settings:
            arguments += ["--set", text]
        return cls(source, content.get("script", "compresstracker"), content["config"], content["dataset"],
                   tuple(chosen), common, rungs,
                   **{name: content[name] for name in ("compare", "score", "convention", "reference")
                      if name in content}, arguments=arguments)

    @property
    def name(self) -> str:
        """Of its file."""
        return self.source.stem

    def runs(self) -> Iterator[tuple[str, int]]:
        """(rung, seed) of all runs, every rung with the first seed first, so that an early look sees all of them."""
        return ((rung, seed) for seed in self.seeds for rung in self.rungs)

    def load(self, rung: str, seed: int) -> Config:
        """The configuration of a run.

        Raises:
            UserError: its settings are wrong.
        """
        settings = {**self.settings, **self.rungs[rung], "TRAIN.SEED": seed}
        try:
            return load_config(self.script, self.config,
                               [f"{name}={json.dumps(value)}" for name, value in settings.items()])
        except UserError as error:
            raise UserError(f"{self.source}, rung {rung}: {error}") from error

    def find_reference(self) -> tuple[Config, Path]:
        """Configuration and weights of the reference tracker.

        Raises:
            UserError: they are missing.
        """
        script, slash, config = self.reference.partition("/")
        if not slash:
            raise UserError(f"{self.source}: reference is {self.reference}; expected script/config of the teacher")
        weights = self.load(next(iter(self.rungs)), self.seeds[0]).MODEL.PRETRAIN_FILE
        return (load_config(script, config),
                find_pretrained(weights, "MODEL.PRETRAIN_FILE", "the reference's checkpoint"))

    def before(self, rung: str) -> str | None:
        """The rung that one is compared with; None for the first."""
        names = list(self.rungs)
        place = names.index(rung)
        return None if place == 0 else names[place - 1 if self.compare == "previous" else 0]


class Run(ABC):
    """A part of a ladder's work that a process of its own can do.

    Args:
        ladder: it belongs to.
        folder: of all its files.
        test_set: of the ladder.

    Attributes:
        arguments: of tracking/ablation.py that choose it.
    """

    arguments: Sequence[str]

    def __init__(self, ladder: Ladder, folder: Path, test_set: TestSet):
        self.ladder, self.folder, self._test_set = ladder, folder, test_set

    @abstractmethod
    def __str__(self) -> str: ...

    @property
    def log(self) -> Path:
        """What its process says."""
        return self.folder / "run.log"

    @property
    def results(self) -> Path:
        """Folder of the boxes."""
        return self.folder / "results"

    def last_words(self) -> str:
        """The last line of its log; empty where there is none."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "")

    @abstractmethod
    def record(self) -> ScoreRecord | None:
        """What it gave; None where it is not done."""

    @abstractmethod
    def execute(self, device: str = "auto") -> ScoreRecord:
        """Do what is left of it; at once where all is done."""

    def _test(self, cfg: Config, checkpoint: Path, made_with: Mapping[str, Any], device: str,
              seconds: dict[str, float]) -> ScoreRecord:
        """Test and score; `made_with` as in `TestSet.score`, `seconds` of what was done before."""
        start = time.monotonic()
        scores, by_sequence = self._test_set.score(partial(Tracker.from_checkpoint, checkpoint, cfg), made_with,
                                                   self.results, device, SIDE_BY_SIDE)
        record = ScoreRecord(self._test_set.digest, scores, by_sequence,
                             {**seconds, "test": time.monotonic() - start})
        record.write(self.folder)
        logger.info("%s: %s %.2f", self, self.ladder.score, scores[self.ladder.score])
        return record


class LadderRun(Run):
    """One rung with one seed: its training, and the test of what that gave.

    Args:
        output: the ladder's folder.

    Attributes:
        cfg: its configuration.
    """

    def __init__(self, ladder: Ladder, output: Path, rung: str, seed: int, test_set: TestSet):
        super().__init__(ladder, output / "runs" / f"{rung}_seed{seed}", test_set)
        self.rung, self.seed, self.cfg = rung, seed, ladder.load(rung, seed)
        self.arguments = "--only", rung, "--seed", str(seed)

    def __str__(self) -> str:
        return f"{self.rung}, seed {self.seed}"

    def record(self) -> ScoreRecord | None:
        """As `Run.record`.

        Raises:
            UserError: it was made with other settings, weights or training data than the ladder has now, or tested on
                another set, or its record is damaged.
        """
        check_provenance(self.folder, self.cfg)
        record = ScoreRecord.read(self.folder)
        if record is not None and record.test_set != self._test_set.digest:
            raise UserError(f"{self.folder} was tested on another {self._test_set.name}, or scored by another "
                            f"convention; choose another --output, or delete {self.folder / SCORE} to test it again")
        return record

    def execute(self, device: str = "auto") -> ScoreRecord:
        """As `Run.execute`.

        Raises:
            UserError: see `record`, `run_training` and `run_dataset`.
        """
        done = self.record()
        if done is not None:
            return done
        claim(self.folder, self.cfg)
        start = time.monotonic()
        sequences = TrackingValidation(self.cfg) if self.cfg.TRAIN.TRACK_EPOCH_INTERVAL else None
        checkpoint = run_training(self.cfg, self.folder, device=device, sequences=sequences)
        trained = {"train": time.monotonic() - start}
        return self._test(self.cfg, checkpoint, manifest.describe(self.cfg, checkpoint), device, trained)


class ReferenceRun(Run):
    """The test of the reference, where the ladder has one.

    Args:
        output: the ladder's folder.

    Raises:
        UserError: it is missing.
    """

    def __init__(self, ladder: Ladder, output: Path, test_set: TestSet):
        super().__init__(ladder, output / "reference", test_set)
        self.arguments = "--only", ladder.reference
        self._cfg, self._weights = ladder.find_reference()
        self._made_with = manifest.describe(self._cfg, self._weights)

    def __str__(self) -> str:
        return self.ladder.reference

    def record(self) -> ScoreRecord | None:
        """As `Run.record`; what other weights, settings or sequences gave does not count.

        Raises:
            UserError: the record is damaged.
        """
        if manifest.is_stale(self.results, self._made_with):
            return None
        record = ScoreRecord.read(self.folder)
        return record if record is not None and record.test_set == self._test_set.digest else None

    def execute(self, device: str = "auto") -> ScoreRecord:
        """As `Run.execute`.

        Raises:
            UserError: see `record` and `run_dataset`.
        """
        return self.record() or self._test(self._cfg, self._weights, self._made_with, device, {})


def climb(ladder: Ladder, output: Path, *, jobs: int = 1, device: str = "auto",
          command: Callable[[Run], Sequence[str]] | None = None) -> list[str]:
    """Do all runs that are not done, the reference's test last, some side by side, each in a process of its own.

    Args:
        output: the ladder's folder.
        jobs: runs at a time; on the CPU each gets its share of the CPUs.
        device: of all runs.
        command: arguments of this Python that execute one run, which writes to its standard error; None for
            tracking/ablation.py.

    Returns:
        what went wrong, a sentence for each run that failed; the others are done.

    Raises:
        UserError: a rung's settings are wrong, or its run was made with others; data or weights are missing.
        TrainingInterrupted: Ctrl-C or SIGTERM; the runs have saved their states.
    """
    test_set = TestSet(ladder.dataset, ladder.convention)
    trainings = [LadderRun(ladder, output, rung, seed, test_set) for rung, seed in ladder.runs()]
    runs = [*trainings, *([ReferenceRun(ladder, output, test_set)] if ladder.reference else [])]
    left = [run for run in runs if run.record() is None]
    if len(left) < len(runs):
        logger.info("%d of %d runs are done already", len(runs) - len(left), len(runs))
    for cfg in {run.rung: run.cfg for run in trainings if run in left}.values():
        check_inputs(cfg)
    environment = dict(os.environ)
    if jobs > 1 and pick_device(device).type == "cpu":
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // jobs)))
    waiting, running, failed, said = list(left), {}, [], time.monotonic()
    with StopRequest() as stop, Progress(len(left), ladder.name, "runs") as shown:
        try:
            while (waiting or running) and not stop.requested:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    logger.info("-- %s", run)
                    line = command(run) if command else [SCRIPT, *ladder.arguments, "--output", output, *run.arguments]
                    running[run] = _start(run, [*map(str, line), "--device", device], environment)
                time.sleep(0.2)
                if time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    for run in running:
                        logger.info("   %s: %s", run, run.last_words())
                for run in [run for run, process in running.items() if process.poll() is not None]:
                    problem = _outcome(run, running.pop(run))
                    failed += [problem] * bool(problem)
                    shown.advance()
        finally:
            _stop(running.values())
    if stop.requested:
        raise TrainingInterrupted(f"stopped with {len(waiting) + len(running)} runs left; their states are saved, and "
                                  "the same command goes on", stop.signum)
    return failed


def _start(run: Run, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log:
        return subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, env=environment)


def _outcome(run: Run, process: subprocess.Popen) -> str:
    """Say how a run ended; what went wrong, empty for nothing."""
    if process.returncode == 0:
        record = run.record()
        logger.info("   %s: %s %.1f (%s)", run, run.ladder.score, record.scores[run.ladder.score],
                    ", ".join(f"{part} {seconds:.0f} s" for part, seconds in record.seconds.items()))
        return ""
    if process.returncode < 0:
        reason = killed_by(-process.returncode)
    else:
        reason = run.last_words() or f"status {process.returncode}"
    problem = f"{run} failed: {reason}. All that it said is in {run.log}; the same command goes on with it"
    logger.error("%s", problem)
    return problem


def _stop(processes: Iterable[subprocess.Popen]) -> None:
    """Let the runs that are left save their states and end."""
    processes = list(processes)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + WAIT
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
