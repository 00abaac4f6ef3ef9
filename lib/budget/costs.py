"""What the parts of a student cost on a device: measured on small models with random weights, then added up."""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..config import Config
from ..deploy.backends import ExportedModel, check_backend
from ..deploy.counting import exact_macs
from ..deploy.export import check_packages, export_model
from ..deploy.fast import FastOptions, build_fast
from ..deploy.formats import PRECISIONS, ExportOptions, own_backend
from ..deploy.paths import example_inputs, one_pass
from ..deploy.timing import Timings, time_alternately
from ..families.build import build_for_test
from ..models.base import Inputs, StagedTracker
from ..models.checkpoint import save_slim
from ..utils.device import choose_dtype
from ..utils.errors import UserError
from ..utils.progress import progress
from ..utils.sequences import find_in_spec
from .options import BACKENDS
from .space import Candidate, Kind, elimination_layer, overrides

logger = logging.getLogger(__name__)

ITERATIONS, WARMUP, SECONDS = 20, 3, 1.5
"""Timed and untimed passes of each model, and about the longest time for each."""


class Cost(NamedTuple):
    """Of a part or a whole: milliseconds of a pass, multiply-accumulates (attention's products among them) and
    parameters."""

    ms: float
    macs: float
    parameters: float

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """This and `times` another one."""
        return Cost(*(own + times * value for own, value in zip(self, other, strict=True)))

    def text(self) -> str:
        """In words."""
        return f"{self.ms:.1f} ms, {self.macs / 1e9:.3g} G MACs, {self.parameters / 1e6:.2f} M parameters"


@dataclass(frozen=True)
class KindCosts:
    """Costs of the parts of students of one kind.

    Attributes:
        fixed: embedding, final norm and head together; None for kinds that eliminate candidates, which have those of
            the kind without.
        layer: each layer; with elimination, each after the one that eliminates.
        eliminating: that layer; None without elimination.
        embedding_share: the embedding's part in the time of embedding and prediction, each by itself in PyTorch.
    """

    layer: Cost
    fixed: Cost | None = None
    eliminating: Cost | None = None
    embedding_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "KindCosts":
        """From `to_dict`."""
        return cls(**{name: Cost(*value) if isinstance(value, list | tuple) else value
                      for name, value in values.items()})


@dataclass(frozen=True)
class Runtime:
    """How students will run.

    Attributes:
        backend: one of `BACKENDS`.
        precision: number format; of an export one that its format has.
        device: that the passes are timed on.
        threads: of PyTorch on the CPU while they are; None leaves its number.
        frames: such as will be tracked: a video, a folder of pictures or of sequences; for int8 sequences, on which
            the ranges of its numbers are measured. None for none.
    """

    backend: str
    precision: str
    device: torch.device
    threads: int | None = None
    frames: str | None = None

    def check(self) -> "Runtime":
        """This with `auto` precision decided.

        Raises:
            UserError: no such combination, int8 without sequences, or a package that is missing or does not run on the
                device.
        """
        if self.backend not in BACKENDS:
            raise UserError(f"unknown backend {self.backend!r}; choose one of {', '.join(BACKENDS)}")
        if self.backend in PRECISIONS:
            if self.precision not in PRECISIONS[self.backend]:
                raise UserError(f"format {self.backend} has no {self.precision}; choose one of "
                                f"{', '.join(PRECISIONS[self.backend])}")
            if self.precision == "int8":
                if self.frames is None:
                    raise UserError("int8 measures the ranges of its numbers on your frames: name a folder of "
                                    "sequences with boxes (--frames)")
                find_in_spec(self.frames, Path.cwd())
            check_packages(self.export_options())
            check_backend(own_backend(self.backend), self.device)
        if self.backend == "torch" and self.precision != "float32":
            raise UserError(f"backend torch runs a student as it was trained, in float32, not {self.precision}; use "
                            "backend fast")
        return replace(self, precision=choose_dtype(self.precision, self.device, "--precision"))

    @property
    def as_trained(self) -> bool:
        """Whether it computes what PyTorch computes in training, but for rounding in float32."""
        return self.backend in ("fast", "torch") and self.precision == "float32"

    def export_options(self, **effort: int) -> ExportOptions:
        """Of an export for it."""
        return ExportOptions(format=self.backend, precision=self.precision,
                             frames=self.frames if self.precision == "int8" else None, **effort)

    def one_pass(self, model: StagedTracker, cfg: Config) -> Callable[[], object]:
        """One pass of one image, to be timed.

        Args:
            cfg: that the model was built of for the test: of a compression the student's.

        Raises:
            UserError: it cannot run here.
        """
        cfg = cfg.student
        if self.backend == "torch":
            run = copy.deepcopy(model).to(self.device)
        elif self.backend == "fast":
            run = build_fast(model, FastOptions.parse([f"dtype={self.precision}"], self.device), device=self.device,
                             mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
        else:
            run = self._export(model, cfg)
        return one_pass(run, cfg, 1, self.device)

    def pass_of_export(self, folder: Path, cfg: Config) -> Callable[[], object]:
        """As `one_pass`, of a folder that a model was exported to."""
        return one_pass(ExportedModel(folder, None, self.device), cfg.student, 1, self.device)

    def time(self, calls: Mapping[str, Callable[[], object]], effort: float = 1.0) -> dict[str, Timings]:
        """Time passes in turn; on engines with threads of their own one after the other, since the threads of several
        disturb each other.

        Args:
            effort: times the usual number of passes, and the usual longest time.
        """
        before = torch.get_num_threads()
        try:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            alone = [{name: call} for name, call in calls.items()]
            timings = {}
            with torch.inference_mode():
                for group in alone if self.backend in PRECISIONS else [calls]:
                    timings |= time_alternately(group, self.device, iterations=round(effort * ITERATIONS),
                                                warmup=WARMUP, seconds=effort * SECONDS * len(group))
            return timings
        finally:
            torch.set_num_threads(before)

    def _export(self, model: StagedTracker, cfg: Config) -> Any:
        """The model on its engine, by way of an export that is not kept."""
        speaker = logging.getLogger(export_model.__module__)
        level = speaker.level
        speaker.setLevel(logging.ERROR)     # it would say of each that random weights are hard to round
        try:
            with tempfile.TemporaryDirectory() as folder:
                weights = Path(folder) / "random.pth.tar"
                save_slim(weights, model, cfg)
                export_model(model, cfg, weights, Path(folder) / "export",
                             self.export_options(check_crops=1, calibration_crops=8))
                return ExportedModel(Path(folder) / "export", None, self.device)
        finally:
            speaker.setLevel(level)


def build_student(base: Config, kind: Kind, layers: int, stages: tuple[int, ...] = ()) -> tuple[StagedTracker, Config]:
    """A student of a kind with random weights, on the CPU in evaluation mode, and its compression's configuration."""
    cfg = base.with_overrides(overrides(base, kind, layers, stages))
    return build_for_test(cfg).eval(), cfg


def predict(costs: Mapping[Kind, KindCosts], kind: Kind, layers: int) -> Cost:
    """The cost of a student with so many layers: the sum of its parts'."""
    whole, own = costs[kind.whole], costs[kind]
    if own.eliminating is None:
        return whole.fixed.plus(whole.layer, layers)
    before = elimination_layer(layers)
    return whole.fixed.plus(whole.layer, before).plus(own.eliminating).plus(own.layer, layers - before - 1)


def measure_costs(base: Config, kinds: Iterable[Kind], runtime: Runtime, known: Mapping[Kind, KindCosts],
                  keep: Callable[[Kind, KindCosts], None]) -> dict[Kind, KindCosts]:
    """Costs of the parts of each kind.

    Two students of a kind, with few and with more layers, are timed in turn; their difference is the cost of the layers
    between them, and what is left that of embedding and head. So every way of running a model can be measured, and what
    it does between the layers is in it.

    Args:
        base: a compression configuration.
        kinds: to measure; kinds that eliminate candidates after those without.
        known: costs that need not be measured again.
        keep: called with each new result.

    Raises:
        UserError: the teacher's layers cannot be measured: it has a single one, or they take no time.
    """
    costs, kinds = dict(known), list(kinds)
    missing = sorted({*kinds, *(kind.whole for kind in kinds)} - costs.keys(), key=lambda kind: -kind.kept)
    for kind in progress(missing, len(missing), "measuring costs", "kinds of layers"):
        costs[kind] = _measure(base, kind, runtime, costs.get(kind.whole))
        keep(kind, costs[kind])
    return costs


def _measure(base: Config, kind: Kind, runtime: Runtime, whole: KindCosts | None) -> KindCosts:
    """The costs of one kind, `whole` those of the kind without elimination."""
    depth = base.shape.depth
    if depth < 2:
        raise UserError(f"the teacher has {depth} layer, so that the cost of a layer cannot be told from that of the "
                        "rest, and there is nothing to leave out")
    few = min(2 if kind.kept == 1 else 3, depth - 1)
    more = min(few + 2, depth)
    models = {layers: build_student(base, kind, layers) for layers in (few, more)}
    calls = {str(layers): runtime.one_pass(*pair) for layers, pair in models.items()}
    if whole is None:
        calls |= _ends(*models[few])
    counted = {layers: _counted(*pair) for layers, pair in models.items()}
    for effort in (1, 2, 4):        # a busy machine may need more passes
        timings = runtime.time(calls, effort)
        between = _difference(timings[str(more)], timings[str(few)])
        if between > 0:
            break
    layer = Cost(*((last - first) / (more - few) for first, last in
                   zip(Cost(0, *counted[few]), Cost(between, *counted[more]), strict=True)))
    if layer.ms <= 0:
        raise UserError(f"the layers of {base.family.name} cannot be measured: {more} take no longer than {few} "
                        f"({timings[str(more)].median_ms:.2f} and {timings[str(few)].median_ms:.2f} ms). Is the "
                        "machine busy? Stop what else runs and start again")
    total = Cost(timings[str(few)].median_ms, *counted[few])
    if whole is None:
        fixed = total.plus(layer, -few)
        embed, head = timings["embed"].median_ms, timings["predict"].median_ms
        return KindCosts(layer, fixed._replace(ms=max(0.0, fixed.ms)), embedding_share=embed / (embed + head))
    before = elimination_layer(few)
    eliminating = total.plus(whole.fixed, -1).plus(whole.layer, -before).plus(layer, -(few - before - 1))
    return KindCosts(layer, eliminating=eliminating)


def _ends(model: StagedTracker, cfg: Config) -> dict[str, Callable[[], object]]:
    """Embedding and prediction by themselves, in PyTorch on the CPU."""
    templates, search, further = example_inputs(cfg.student, 1, torch.device("cpu"), takes_pixels=False)
    inputs = Inputs.of(templates, search, further)
    with torch.inference_mode():
        tokens = model.embed(inputs)
        for index in range(model.depth):
            tokens = model.run_layer(index, tokens)
    return {"embed": lambda: model.embed(inputs), "predict": lambda: model.predict(tokens)}


def _counted(model: StagedTracker, cfg: Config) -> tuple[int, int]:
    """MACs of a pass, and parameters."""
    templates, search, further = example_inputs(cfg.student, 1, torch.device("cpu"), takes_pixels=False)
    with torch.device("meta"):
        twin = build_for_test(cfg).eval()
    further = {name: value.to("meta") for name, value in further.items()}
    macs = exact_macs(twin, templates.to("meta"), search.to("meta"), further)
    return macs, sum(parameter.numel() for parameter in model.parameters())


def _difference(more: Timings, few: Timings) -> float:
    """Milliseconds between two: the median over the blocks, each of which is compared with its neighbour in time (where
    the two were timed in turn)."""
    blocks = [np.median(timing.seconds, axis=1) for timing in (more, few)]
    both = min(map(len, blocks))
    return float(np.median(blocks[0][:both] - blocks[1][:both]) * 1e3)


def time_students(base: Config, students: Mapping[str, Candidate], runtime: Runtime) -> dict[str, float]:
    """Milliseconds of a pass of whole students."""
    calls = {name: runtime.one_pass(*build_student(base, student.kind, student.layers, student.stages))
             for name, student in students.items()}
    return {name: timing.median_ms for name, timing in runtime.time(calls, effort=2).items()}
