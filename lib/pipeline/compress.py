"""What follows the choice of a student: train it, test it, export it, and say what was kept."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..budget.choose import Choice, Request, compression_of
from ..budget.costs import Bench
from ..config import Config, load_config
from ..deploy.export import export_model
from ..deploy.formats import PRECISIONS
from ..deploy.manifest import MANIFEST
from ..families.build import build_for_test
from ..models.base import StagedTracker
from ..models.checkpoint import load_weights
from ..test.evaluation import manifest
from ..test.tracker.tracker import Tracker
from ..train.run import run_training
from ..utils.files import write_text
from .provenance import claim
from .scoring import TestSet
from .tracking import TrackingValidation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A student that was made to a budget.

    Attributes:
        checkpoint: its weights.
        export: the exported folder; None for a runtime that takes the weights.
        ms: of a pass on the runtime: of `teacher`, `student` and the `reference` of costs, timed in turn.
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
        device: of the training; passes are timed, and the test set is tracked, on the runtime's.

    Raises:
        UserError: see the parts; or the folder holds a student of other settings, another teacher or other data.
    """
    cfg, runtime, output = load_config("compresstracker", str(choice.config)), request.runtime, request.output
    teacher_cfg = load_config(*request.teacher)
    claim(output, cfg)
    sequences = TrackingValidation(cfg) if cfg.TRAIN.TRACK_EPOCH_INTERVAL else None
    checkpoint = run_training(cfg, output, device=device, sequences=sequences)
    student = _loaded(cfg, checkpoint)
    made_with, export = manifest.describe(cfg, checkpoint), None
    if runtime.backend in PRECISIONS:
        export, made_with = _export(request, student, cfg, checkpoint, made_with)
        deployed: Callable[..., Tracker] = partial(Tracker.from_export, export)
        one_pass = runtime.pass_of_export(export, cfg)
    else:
        made_with["settings"] |= {"runtime": f"{runtime.backend} {runtime.precision}"}
        deployed = partial(Tracker.from_checkpoint, checkpoint, cfg, backend=runtime.backend,
                           fast=(f"dtype={runtime.precision}",) if runtime.backend == "fast" else ())
        one_pass = runtime.one_pass(student, cfg)
    teacher = _loaded(teacher_cfg, request.checkpoint)
    ms = Bench(compression_of(request), runtime).milliseconds({"teacher": runtime.one_pass(teacher, teacher_cfg),
                                                               "student": one_pass})
    auc = {}
    if test_set is not None:
        trackers = {"teacher": (partial(Tracker.from_checkpoint, request.checkpoint, teacher_cfg),
                                manifest.describe(teacher_cfg, request.checkpoint)),
                    "student": (partial(Tracker.from_checkpoint, checkpoint, cfg), manifest.describe(cfg, checkpoint))}
        if not runtime.as_trained:
            trackers["deployed"] = deployed, made_with
        for name, (make, record) in trackers.items():
            logger.info("-- tracking %s with the %s", test_set.name, name)
            auc[name] = test_set.score(make, record, output / "results" / name, str(runtime.device))[0]["AUC"]
    made = Made(checkpoint, export, ms, auc, _report(request, choice, ms, auc, test_set),
                auc["student"] - auc["deployed"] if "deployed" in auc else 0.0)
    write_text(output / "report.txt", made.report + "\n")
    write_text(output / "report.json", json.dumps(_facts(request, choice, made), indent=1) + "\n")
    return made


def _loaded(cfg: Config, path: Path) -> StagedTracker:
    """A configuration's model for the test with the weights of a file."""
    model = build_for_test(cfg)
    load_weights(model, path, role="test")
    return model.eval()


def _export(request: Request, student: StagedTracker, cfg: Config, checkpoint: Path, made_with: dict[str, Any]
            ) -> tuple[Path, dict[str, Any]]:
    """The student's exported folder, made where it is not there with these weights, settings and frames; and what it is
    made with."""
    runtime = request.runtime
    name = f"{runtime.backend}_{runtime.precision}"
    folder, record = request.output / "export" / name, request.output / "export" / f"{name}.json"
    made_with["settings"] |= {"runtime": f"{runtime.backend} {runtime.precision}", "frames": runtime.frames}
    text = json.dumps(made_with, indent=1) + "\n"
    if (folder / MANIFEST).is_file() and record.is_file() and record.read_text(encoding="utf-8") == text:
        logger.info("exported before: %s", folder)
    else:
        logger.info("exporting to %s %s", runtime.backend, runtime.precision)
        record.unlink(missing_ok=True)
        export_model(student, cfg, checkpoint, folder, runtime.export_options())
        write_text(record, text)
    return folder, made_with


def _report(request: Request, choice: Choice, ms: dict[str, float], auc: dict[str, float], test_set: TestSet | None
            ) -> str:
    budget, runtime, found = request.budget, request.runtime, choice.found
    now = found.cost.ms * ms["reference"] / choice.timed.reference_ms
    lines = [f"budget {budget.text()}; {runtime.backend} {runtime.precision} on {runtime.device}",
             f"with random weights predicted {found.cost.ms:.1f} ms, measured {choice.timed.ms:.1f} ms; trained, at "
             f"the speed that the machine has now, predicted {now:.1f} ms, measured {ms['student']:.1f} ms",
             f"the teacher takes {ms['teacher']:.1f} ms, {ms['teacher'] / ms['student']:.2f} times as long"]
    if auc:
        lines.append(f"AUC on {test_set.name}: teacher {auc['teacher']:.1f}, student {auc['student']:.1f} "
                     f"({100 * auc['student'] / auc['teacher']:.1f} %; {100 * found.kept:.1f} % were expected)"
                     + (f", as deployed {auc['deployed']:.1f}" if "deployed" in auc else ""))
    return "\n".join(lines)


def _facts(request: Request, choice: Choice, made: Made) -> dict[str, Any]:
    """For JSON."""
    return {"teacher": "/".join(request.teacher), "config": str(choice.config), "checkpoint": str(made.checkpoint),
            "export": made.export and str(made.export), "budget": request.budget._asdict(),
            "predicted": choice.found.cost._asdict(), "random_weights": choice.timed._asdict(),
            "measured_ms": made.ms, "auc": made.auc, "drop": made.drop}
