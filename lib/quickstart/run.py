"""The quickstart: compress a 12-layer tracker to 4 layers on the embedded benchmark, and see what that keeps."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pandas as pd

from ..config import load_config
from ..deploy.profile import profile_config
from ..pipeline.ladder import Ladder, LadderRun, ReferenceRun, climb
from ..pipeline.scoring import TestSet
from ..test.analysis.plots import save_plots
from ..test.analysis.results import BenchmarkReport, ResultFolder, boxes_of, evaluate_benchmark
from ..test.evaluation.datasets import Sequence as TestSequence
from ..test.evaluation.running import run_dataset
from ..train.run import run_training
from ..train.run_paths import RunPaths
from ..utils.errors import UserError
from ..utils.files import resolve, write_text
from ..utils.ownership import own
from ..utils.statistics import summarise
from ..vis.draw import VideoWriter, draw_boxes, image_strip, save_image
from .baseline import MatchTemplateTracker
from .render import render_benchmark

logger = logging.getLogger(__name__)

TEACHER = ("ostrack", "quickstart_teacher")
LADDER = "experiments/ladders/quickstart.yaml"
"""Its trainings."""
STUDENTS = {"naive student": "naive", "compressed student": "compressed"}
"""Row of the table -> rung of that ladder. The naive student has the same start and the same pairs, but nothing of the
teacher in its training."""
RECORDED = Path(__file__).with_name("recorded.csv")
"""What that ladder gave with its own seeds: its `runs.csv`."""

SEED, FRAMES, TIMED_PASSES = 0, (24, 80), 200
TRAIN_SEQUENCES, TEACHER_SEQUENCES, VAL_SEQUENCES, TEST_SEQUENCES = 70, 1000, 40, 60


@dataclass(frozen=True)
class Row:
    """One line of the quickstart's table.

    Attributes:
        name: what it is.
        auc: AUC in per cent, one per training seed (a single one where there is no training).
        layers, parameters, macs, fps: of the network; None for one without.
        recorded: AUC of recorded runs of the same training, by seed; empty for none.
    """

    name: str
    auc: list[float]
    layers: int | None = None
    parameters: int | None = None
    macs: int | None = None
    fps: float | None = None
    recorded: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """What the quickstart made.

    Attributes:
        rows: the table's lines: template matching, teacher, naive student, compressed student.
        speed_up: of the student over the teacher, measured in turn in one run.
        files: what to look at, name -> path.
        seconds: duration by step.
    """

    rows: list[Row]
    speed_up: float
    files: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        """The line called `name`."""
        return next(row for row in self.rows if row.name == name)

    def table(self) -> str:
        """The table as text; AUC with its standard deviation over the seeds where there are several, and with the
        interval of recorded runs where there are any."""
        teacher = mean(self.row("teacher").auc)
        with_recorded = any(row.recorded for row in self.rows)
        lines = [f"{'':24}{'layers':>7}{'params M':>10}{'MACs M':>9}{'FPS':>8}{'AUC':>14}{'of teacher':>12}"
                 + f"{'recorded AUC':>22}" * with_recorded]
        for row in self.rows:
            auc = f"{mean(row.auc):.1f}" + (f" +- {stdev(row.auc):.1f}" if len(row.auc) > 1 else "")
            share = f"{100 * mean(row.auc) / teacher:.1f} %" if row.layers else "-"
            numbers = ([str(row.layers), f"{row.parameters / 1e6:.2f}", f"{row.macs / 1e6:.0f}", f"{row.fps:.0f}"]
                       if row.layers else ["-"] * 4)
            recorded = ""
            if row.recorded:
                whole = summarise(row.recorded)
                recorded = "{:.1f} [{:.1f}, {:.1f}]".format(whole.mean, *whole.interval)
            lines.append((f"{row.name:24}{numbers[0]:>7}{numbers[1]:>10}{numbers[2]:>9}{numbers[3]:>8}{auc:>14}"
                          f"{share:>12}{recorded:>22}").rstrip())
        lines.append(f"the student is {self.speed_up:.2f} times as fast as the teacher (model only, batch 1, one "
                     "CPU thread or the GPU, measured in turn)")
        if with_recorded:
            naive, compressed = (self.row(name).recorded for name in STUDENTS)
            gain = summarise([ours - theirs for ours, theirs in zip(compressed, naive, strict=True)])
            lines.append(f"recorded: mean of {gain.number} trainings with its 95 % interval (docs/quickstart.md); "
                         "compressed over naive {:+.1f} [{:+.1f}, {:+.1f}]".format(gain.mean, *gain.interval))
        return "\n".join(lines)

    def csv(self) -> str:
        """The table for programs; one line per model and seed."""
        rows = [{"model": row.name, "layers": row.layers, "parameters": row.parameters, "macs": row.macs,
                 "fps": row.fps and round(row.fps, 1), "seed": seed, "auc": round(auc, 3)}
                for row in self.rows for seed, auc in enumerate(row.auc)]
        whole = dict.fromkeys(("layers", "parameters", "macs"), "Int64")
        return pd.DataFrame(rows).astype(whole).to_csv(index=False, lineterminator="\n")


def run_quickstart(output: str | Path, *, data: str | Path = "data/quickstart", seeds: int = 1,
                   train_teacher: bool = False, teacher: str | Path | None = None, device: str = "auto",
                   workers: int = 2, overrides: Sequence[str] = ()) -> Outcome:
    """Render, compress, test, compare.

    Args:
        output: folder of everything that is made; a second call takes up what is there.
        data: folder of the benchmark; rendered when missing.
        seeds: trainings of either student; the table gives mean and standard deviation.
        train_teacher: train the teacher too (about 50 minutes on 2 CPU cores) instead of using the shipped checkpoint.
        teacher: another teacher checkpoint of the same shape.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that render, train and test side by side.
        overrides: `KEY=VALUE` for both students' training.

    Raises:
        UserError: see the parts.
    """
    output, data = resolve(output, Path.cwd()), resolve(data)
    outcome = Outcome([], 0.0)
    step = _Steps(4 + train_teacher, outcome.seconds)
    paths = [f"DATA.{part.upper()}.DATASETS_NAME=['FOLDER:{data / part}@list.txt']" for part in ("train", "val")]
    if train_teacher:
        full = load_config(*TEACHER, paths)
        teacher = RunPaths.of(output / "teacher", full).slim(full.TRAIN.EPOCH)
    if teacher is not None:
        overrides = [f"MODEL.PRETRAIN_FILE={resolve(teacher, Path.cwd())}", *overrides]
    ladder = Ladder.read(LADDER, {"seeds": seeds, "dataset": f"folder:{data / 'test'}@list.txt"},
                         [*paths, *overrides])
    student = ladder.load("compressed", 0)
    if not train_teacher:
        ladder.find_reference()

    recorded = {} if overrides else recorded_runs()
    with step("render", "rendering the benchmark"):
        render(data, workers, train_teacher)
    if train_teacher:
        with step("teacher", f"training the teacher, {full.MODEL.BACKBONE.DEPTH} layers from random weights"):
            run_training(full, output / "teacher", device=device)
    layers = student.MODEL.BACKBONE.DISTILL_LAYER
    with step("train and test", f"training students of {layers} layers, and testing them and the teacher"):
        failed = climb(ladder, output, jobs=max(1, workers), device=device)
        if failed:
            raise UserError(failed[0])
        report = _report(ladder, output, workers)
    with step("profile", "measuring speed"):
        profile = profile_config(student, device=device, threads=1, iterations=TIMED_PASSES)
    with step("draw", "drawing"):
        outcome.rows, outcome.speed_up = _rows(report, profile, seeds, recorded)
        outcome.files = _write(outcome, report, output)
    return outcome


def render(data: str | Path = "data/quickstart", workers: int = 2, train_teacher: bool = False) -> None:
    """Draw the benchmark, as far as it is not there.

    Args:
        data: its folder, from the repository's root.
        workers: processes that draw.
        train_teacher: with the teacher's training sequences.
    """
    data = resolve(data)
    with own(data):
        render_benchmark(data, seed=SEED, train=TEACHER_SEQUENCES if train_teacher else TRAIN_SEQUENCES,
                         val=VAL_SEQUENCES, test=TEST_SEQUENCES, frames=FRAMES, workers=max(1, workers))


class _Steps:
    """Announces the steps and takes their time."""

    def __init__(self, total: int, seconds: dict[str, float]):
        self._total, self._seconds, self._number = total, seconds, 0

    def __call__(self, key: str, text: str) -> "_Steps":
        self._number += 1
        logger.info("== %d/%d %s", self._number, self._total, text)
        self._key = key
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_) -> None:
        self._seconds[self._key] = time.perf_counter() - self._start


def match_template_tracker(device: str) -> MatchTemplateTracker:
    """The baseline, built as test workers build trackers; it needs no device."""
    return MatchTemplateTracker()


def _label(name: str, seed: int) -> str:
    return f"{name}, seed {seed}" if seed else name


def _report(ladder: Ladder, output: Path, workers: int) -> BenchmarkReport:
    """The scores of all trackers, of which template matching is yet to be tested."""
    test_set = TestSet(ladder.dataset, ladder.convention)
    logger.info("-- template matching")
    baseline = output / "template_matching"
    summary = run_dataset(test_set.sequences, match_template_tracker, baseline, threads=workers, device="cpu",
                          sub_pixel=True, force=True)
    if summary.failures:
        raise UserError(f"template matching failed on {summary.failures[0].sequence}: {summary.failures[0].message}")
    places = {"template matching": baseline, "teacher": ReferenceRun(ladder, output, test_set).results}
    for name, rung in STUDENTS.items():
        places |= {_label(name, seed): LadderRun(ladder, output, rung, seed, test_set).results
                   for seed in ladder.seeds}
    sources = [ResultFolder(label, place, form="xywh") for label, place in places.items()]
    return evaluate_benchmark(sources, test_set.sequences, "quickstart", test_set.convention)


def recorded_runs() -> dict[str, list[float]]:
    """Row of the table -> AUC of its recorded runs, by seed."""
    runs = pd.read_csv(RECORDED).sort_values("seed")
    return {row: runs[runs.rung == rung].AUC.tolist() for row, rung in STUDENTS.items()}


def _rows(report: BenchmarkReport, profile: dict, seeds: int, recorded: dict[str, list[float]]
          ) -> tuple[list[Row], float]:
    """The table's lines, and the student's speed-up over the teacher."""
    auc = {tracker.label: tracker.scores.as_dict()["AUC"] for tracker in report.trackers}
    models = {model["layers"]: model for model in profile["models"]}
    student = models[min(models)]

    def row(name: str, model: dict | None, scores: list[float]) -> Row:
        if model is None:
            return Row(name, scores)
        return Row(name, scores, model["layers"], model["parameters"], model["macs"], model["fps"],
                   recorded.get(name, []))

    rows = [row("template matching", None, [auc["template matching"]]),
            row("teacher", models[max(models)], [auc["teacher"]])]
    rows += [row(name, student, [auc[_label(name, seed)] for seed in range(seeds)])
             for name in STUDENTS]
    return rows, student["speed_up"]["median"]


def _write(outcome: Outcome, report: BenchmarkReport, output: Path) -> dict[str, Path]:
    """Table, plots, drawn video and picture strip."""
    write_text(output / "table.txt", outcome.table() + "\n")
    write_text(output / "table.csv", outcome.csv())
    save_plots(report, output / "plots", ("png", "pdf"))
    shown = _typical(report)
    tracks = {"ground truth": shown.ground_truth}
    tracks |= {label: boxes_of(report.sources[label], shown, report.convention) for label in ("teacher", *STUDENTS)}
    pictures = []
    height, width = shown.frames[0].shape[:2]
    with VideoWriter(output / f"{shown.name}.mp4", 20, (2 * width, 2 * height)) as video:
        for number in range(shown.length):
            image = np.ascontiguousarray(np.repeat(np.repeat(shown.frames[number], 2, axis=0), 2, axis=1))
            boxes = {label: boxes[number] * 2 for label, boxes in tracks.items()}
            image = draw_boxes(image, boxes, text=f"{shown.name} {number + 1}/{shown.length}", legend=True)
            video.write(image)
            pictures.append(image)
    chosen = np.linspace(0, shown.length - 1, 6).round().astype(int)
    save_image(output / f"{shown.name}.png", image_strip([pictures[number] for number in chosen], 3))
    return {"table": output / "table.txt", "plot": output / "plots", "video": video.path,
            "pictures": output / f"{shown.name}.png"}


def _typical(report: BenchmarkReport) -> TestSequence:
    """The sequence on which the compressed student comes closest to its mean."""
    tracker = next(tracker for tracker in report.trackers if tracker.label == "compressed student")
    average = mean(scores.auc for scores in tracker.sequences.values())
    return min(report.benchmark, key=lambda sequence: abs(tracker.sequences[sequence.name].auc - average))
