"""One tracker on one test set, as numbers."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..test.analysis.conventions import convention_for
from ..test.analysis.results import ResultFolder, evaluate_benchmark, is_annotated
from ..test.evaluation import manifest
from ..test.evaluation.datasets import get_dataset
from ..test.evaluation.environment import env_settings
from ..test.evaluation.running import run_dataset
from ..utils.errors import UserError
from ..utils.files import write_text

SCORE = "score.json"


class ScoreRecord(NamedTuple):
    """What a run that was scored leaves in its folder (`score.json`).

    Attributes:
        test_set: what it was scored on, see `TestSet.digest`.
        scores: by name, in per cent.
        sequences: AUC of each sequence, in per cent.
        seconds: of the test, and of the training where that was part of it.
    """

    test_set: str
    scores: dict[str, float]
    sequences: dict[str, float]
    seconds: dict[str, float]

    @classmethod
    def read(cls, folder: Path) -> "ScoreRecord | None":
        """That of a run's folder; None where there is none.

        Raises:
            UserError: it is damaged.
        """
        path = folder / SCORE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it, and the run is scored again") from error

    def write(self, folder: Path) -> None:
        """Leave it in a run's folder."""
        write_text(folder / SCORE, json.dumps(self._asdict(), indent=1) + "\n")


class TestSet:
    """A test set that can be scored here.

    Args:
        name: for `get_dataset`.
        convention: of the scores (lib/test/analysis/conventions.py); empty for the set's own.

    Attributes:
        sequences: of it, those with something to measure.

    Raises:
        UserError: it is unknown, missing, or not public.
    """

    __test__ = False    # for pytest

    def __init__(self, name: str, convention: str = ""):
        self.name, self.convention = name, convention_for(name, convention or None)
        self.sequences = list(filter(is_annotated, get_dataset(name, env_settings())))
        if not self.sequences:
            raise UserError(f"no sequence of {name} has a box of a visible target after its first frame; choose a set "
                            "that can be scored here, such as got10k_val")

    @cached_property
    def digest(self) -> str:
        """Of what scores depend on besides the boxes: the sequences' names and annotations, and the convention."""
        digest = hashlib.sha256(repr(self.convention).encode())
        for sequence in self.sequences:
            digest.update(f"{sequence.name} {sequence.length}".encode())
            digest.update(np.ascontiguousarray(sequence.ground_truth, dtype=np.float64).tobytes())
            digest.update(b"" if sequence.visible is None else np.ascontiguousarray(sequence.visible).tobytes())
        return digest.hexdigest()

    def score(self, make: Callable[..., Any], made_with: Mapping[str, Any], folder: Path, device: str = "auto",
              batch: int = 1) -> tuple[dict[str, float], dict[str, float]]:
        """Track what is not tracked yet, in this process, and score it.

        Args:
            make: called as `make(device=..., benchmark=...)`; gives a `Tracker`.
            made_with: see `run_dataset`; results of something else are moved away.
            folder: of the boxes.
            batch: sequences that are tracked side by side, see `run_dataset`.

        Returns:
            scores by name, and the AUC of each sequence, both in per cent.

        Raises:
            UserError: a sequence failed.
        """
        summary = run_dataset(self.sequences, partial(make, benchmark=self.name), folder, batch=batch, num_gpus=1,
                              device=device, sub_pixel=True, made_with=made_with,
                              force=manifest.is_stale(folder, made_with))
        if summary.failures:
            failure = summary.failures[0]
            raise UserError(f"{failure.sequence} failed: {failure.message}")
        tracker, = evaluate_benchmark([ResultFolder("model", folder, form="xywh")], self.sequences, self.name,
                                      self.convention).trackers
        return tracker.scores.as_dict(), {name: 100 * scores.auc for name, scores in tracker.sequences.items()}
