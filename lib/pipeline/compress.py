"""What follows the choice of a student: train it, test it, export it, and say what was kept."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..budget.choose import Choice, Request
from ..budget.costs import ITERATIONS, SECONDS, WARMUP
from ..config import Config, load_config
from ..deploy.export import export_model
from ..deploy.formats import PRECISIONS, ExportOptions
from ..deploy.manifest import MANIFEST, Manifest
from ..deploy.timing import time_alternately
from ..families.build import build_for_test, build_teacher
from ..models.base import StagedTracker
from ..models.checkpoint import load_weights
from ..test.evaluation import manifest
from ..test.tracker.tracker import Tracker
from ..train.run import run_training
from ..utils.files import file_hash, write_text
from .scoring import TestSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A student that was made to a budget.

    Attributes:
        checkpoint: its weights.
        export: the exported folder; None for a runtime that takes the weights.
        ms: of a pass on the runtime: of `teacher` and `student`, timed in turn.
        auc: in per cent, of `teacher`, `student` and, where its runtime computes otherwise, the student as `deployed`;
            empty without a test set.
        report: all of it, as text.
        drop: AUC lost from student to deployed student; 0 where nothing differs.
    """

    checkpoint: Path
    export: Path | None
    ms: dict[str, float]
    auc: dict[str, float]
    report: str
    drop: float


def make_student(request: Request, choice: Choice, test_set: TestSet | None, device: str = "auto") -> Made:
    """Train the chosen student to the end (or go on), export it for its runtime, time it, and test it beside its
    teacher.

    Args:
        test_set: on which; None for no test.
        device: of the training.

    Raises:
        UserError: see the parts.
    """
    cfg, runtime = load_config("compresstracker", str(choice.config)), request.runtime
    teacher_cfg = load_config(*request.teacher)
    checkpoint = run_training(cfg, request.output, device=device)
    student = _loaded(build_for_test(cfg), checkpoint, "test")
    export = None
    if runtime.backend in PRECISIONS:
        export = _export(request, student, cfg, checkpoint)
        deployed: Callable[..., Tracker] = partial(Tracker.from_export, export)
    else:
        deployed = partial(Tracker.from_checkpoint, checkpoint, cfg, backend=runtime.backend,
                           fast=(f"dtype={runtime.precision}",) if runtime.backend == "fast" else ())
    teacher = _loaded(build_teacher(cfg), request.checkpoint, "teacher")
    calls = {"teacher": runtime.one_pass(teacher, cfg, of_teacher=True), "student": runtime.one_pass(student, cfg)}
    with torch.inference_mode():
        timings = time_alternately(calls, runtime.device, iterations=ITERATIONS, warmup=WARMUP,
                                   seconds=SECONDS * len(calls), label="timing teacher and student in turn")
    auc = {}
    if test_set is not None:
        place, run_on = request.output / "results", str(runtime.device)
        trackers = {"teacher": (partial(Tracker.from_checkpoint, request.checkpoint, teacher_cfg),
                                manifest.describe(teacher_cfg, request.checkpoint)),
                    "student": (partial(Tracker.from_checkpoint, checkpoint, cfg), manifest.describe(cfg, checkpoint))}
        if (runtime.backend, runtime.precision) not in (("torch", "float32"), ("fast", "float32")):
            made_with = manifest.describe(cfg, checkpoint)
            made_with["settings"] |= {"runtime": f"{runtime.backend} {runtime.precision}"}
            trackers["deployed"] = deployed, made_with
        for name, (make, made_with) in trackers.items():
            logger.info("-- tracking %s with the %s", test_set.name, name)
            auc[name] = test_set.score(make, made_with, place / name, run_on)[0]["AUC"]
    ms = {name: timing.median_ms for name, timing in timings.items()}
    made = Made(checkpoint, export, ms, auc, _report(request, choice, ms, auc, test_set),
                auc["student"] - auc["deployed"] if "deployed" in auc else 0.0)
    write_text(request.output / "report.txt", made.report + "\n")
    write_text(request.output / "report.json", json.dumps(_facts(request, choice, made), indent=1) + "\n")
    return made


def _loaded(model: StagedTracker, path: Path, role: str) -> StagedTracker:
    load_weights(model, path, role=role)
    return model.eval()


def _export(request: Request, student: StagedTracker, cfg: Config, checkpoint: Path) -> Path:
    """The student's exported folder, made where it is not there with these weights."""
    runtime = request.runtime
    folder = request.output / "export" / f"{runtime.backend}_{runtime.precision}"
    if (folder / MANIFEST).is_file() and Manifest.read(folder).checkpoint.get("sha256") == file_hash(checkpoint):
        logger.info("exported before: %s", folder)
        return folder
    logger.info("exporting to %s %s", runtime.backend, runtime.precision)
    export_model(student, cfg, checkpoint, folder,
                 ExportOptions(format=runtime.backend, precision=runtime.precision, frames=runtime.frames))
    return folder


def _report(request: Request, choice: Choice, ms: dict[str, float], auc: dict[str, float], test_set: TestSet | None
            ) -> str:
    budget, runtime, found = request.budget, request.runtime, choice.found
    lines = [f"budget {budget.text()}; {runtime.backend} {runtime.precision} on {runtime.device}",
             f"predicted {found.cost.ms:.1f} ms, measured with random weights {choice.measured_ms:.1f} ms, trained "
             f"{ms['student']:.1f} ms; the teacher takes {ms['teacher']:.1f} ms, {ms['teacher'] / ms['student']:.2f} "
             "times as long"]
    if auc:
        lines.append(f"AUC on {test_set.name}: teacher {auc['teacher']:.1f}, student {auc['student']:.1f} "
                     f"({100 * auc['student'] / auc['teacher']:.1f} %; {100 * found.kept:.1f} % were expected)"
                     + (f", as deployed {auc['deployed']:.1f}" if "deployed" in auc else ""))
    return "\n".join(lines)


def _facts(request: Request, choice: Choice, made: Made) -> dict[str, Any]:
    """For JSON."""
    return {"teacher": "/".join(request.teacher), "config": str(choice.config), "checkpoint": str(made.checkpoint),
            "export": made.export and str(made.export), "budget": request.budget._asdict(),
            "predicted": choice.found.cost._asdict(), "measured_ms": made.ms, "auc": made.auc, "drop": made.drop}
