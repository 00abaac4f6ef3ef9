"""What the parts of a student cost on a device: measured on small models with random weights, then added up."""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config import Config
from ..deploy.backends import ExportedModel, check_backend
from ..deploy.counting import exact_macs
from ..deploy.export import check_packages, export_model
from ..deploy.fast import FastOptions, build_fast
from ..deploy.formats import PRECISIONS, ExportOptions, own_backend
from ..deploy.paths import example_inputs, one_pass
from ..deploy.timing import SETTLE, Timings, time_alternately
from ..families.build import build_for_test
from ..models.base import Inputs, StagedTracker
from ..models.checkpoint import save_slim
from ..utils.device import choose_dtype, torch_threads
from ..utils.errors import UserError
from ..utils.progress import progress
from ..utils.sequences import find_in_spec
from .options import BACKENDS
from .space import Candidate, Kind, elimination_layer, kind_of, overrides

logger = logging.getLogger(__name__)

ITERATIONS, BLOCKS, WARMUP, SECONDS = 150, 15, 3, 0.5
"""Timed passes of each model, in how many blocks, and untimed ones; and about the longest time for each. The passes of
a small model must not all fall into one of the phases, of tenths of a second, in which a machine is slower."""
ROUGH, FINE = 1, 4
"""Times that effort: for each kind, and for those of the students that the search finds best."""
FEW_LAYERS = 2
"""Of the smaller one of the two students by which a kind is measured, and of the reference (`Measured`)."""


class Cost(NamedTuple):
    """Of a part or a whole: milliseconds of a pass, multiply-accumulates (attention's products among them) and
    parameters."""

    ms: float
    macs: float
    parameters: float

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """This and `times` another one."""
        return Cost(*(own + times * value for own, value in zip(self, other, strict=True)))

    def slowed(self, factor: float) -> "Cost":
        """This on a machine that takes so many times as long."""
        return self._replace(ms=factor * self.ms)

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
        effort: with which they were measured.
    """

    layer: Cost
    fixed: Cost | None = None
    eliminating: Cost | None = None
    embedding_share: float | None = None
    effort: int = ROUGH

    def slowed(self, factor: float) -> "KindCosts":
        """These on a machine that takes so many times as long."""
        return replace(self, **{name: cost.slowed(factor) for name, cost in vars(self).items()
                                if isinstance(cost, Cost)})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "KindCosts":
        """From `to_dict`."""
        return cls(**{name: Cost(*value) if isinstance(value, list | tuple) else value
                      for name, value in values.items()})


@dataclass
class Measured:
    """Costs as they were measured, all at the speed that the machine had in the beginning: each kind is timed in turn
    with one and the same small student, the reference, so that what makes all passes slower for a while drops out.

    Attributes:
        kinds: costs of the parts of each.
        began_ms: of a pass of the reference, before the first; None before.
        ended_ms: the same after the last; None before.
    """

    kinds: dict[Kind, KindCosts] = field(default_factory=dict)
    began_ms: float | None = None
    ended_ms: float | None = None

    def at_the_end(self) -> dict[Kind, KindCosts]:
        """The costs at the speed that the machine had after the last measurement."""
        return {kind: costs.slowed(self.ended_ms / self.began_ms) for kind, costs in self.kinds.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"kinds": [{"kind": list(kind), "costs": costs.to_dict()}
                                       for kind, costs in self.kinds.items()]}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Measured":
        """From `to_dict`."""
        return cls({Kind(*entry["kind"]): KindCosts.of(entry["costs"]) for entry in values["kinds"]},
                   values["began_ms"], values["ended_ms"])


@dataclass(frozen=True)
class Runtime:
    """How students will run.

    Attributes:
        backend: one of `BACKENDS`.
        precision: number format; of an export one that its format has.
        device: that the passes are timed on.
        threads: of PyTorch, or of the engine, on the CPU; None leaves PyTorch's number.
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
        with torch_threads(self.threads):
            if self.backend == "torch":
                run = copy.deepcopy(model).to(self.device)
            elif self.backend == "fast":
                run = build_fast(model, FastOptions.parse([f"dtype={self.precision}"], self.device),
                                 device=self.device, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
            else:
                run = self._export(model, cfg)
        return one_pass(run, cfg, 1, self.device)

    def pass_of_export(self, folder: Path, cfg: Config) -> Callable[[], object]:
        """As `one_pass`, of a folder that a model was exported to."""
        with torch_threads(self.threads):
            return one_pass(ExportedModel(folder, None, self.device), cfg.student, 1, self.device)

    def time(self, calls: Mapping[str, Callable[[], object]], effort: float = 1.0) -> dict[str, Timings]:
        """Time passes in turn.

        Args:
            effort: times the usual number of passes, and the usual longest time.
        """
        with torch_threads(self.threads), torch.inference_mode():
            return time_alternately(calls, self.device, iterations=round(effort * ITERATIONS),
                                    blocks=round(effort * BLOCKS), warmup=WARMUP,
                                    seconds=effort * SECONDS * len(calls),
                                    settle=SETTLE if self.backend in PRECISIONS else 0.0)

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


class Timed(NamedTuple):
    """Milliseconds of a pass of a student, and of one of the reference (`Measured`) in turn with it."""

    ms: float
    reference_ms: float


class Bench:
    """Where the students of a teacher are timed, each in turn with the reference (`Measured`).

    Args:
        base: a compression configuration of the teacher.
        runtime: how they will run.
    """

    def __init__(self, base: Config, runtime: Runtime):
        self._base, self._runtime = base, runtime

    @cached_property
    def _reference(self) -> Callable[[], object]:
        return self._runtime.one_pass(*build_student(self._base, kind_of(self._base), FEW_LAYERS))

    def time(self, calls: Mapping[str, Callable[[], object]], effort: float) -> dict[str, Timings]:
        """As `Runtime.time`, with the `reference`."""
        return self._runtime.time({**calls, "reference": self._reference}, effort)

    def milliseconds(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Of a pass of each and of the `reference`, all at the speed at which that one took its median: what a slow
        phase does to some of them drops out."""
        timings = self.time(calls, FINE)
        reference = timings["reference"]
        return {name: reference.median_ms / own.speed_up(reference)[0] for name, own in timings.items()}

    def time_students(self, students: Mapping[str, Candidate]) -> dict[str, Timed]:
        """Time a pass of whole students with random weights."""
        ms = self.milliseconds({name: self._runtime.one_pass(*build_student(self._base, student.kind, student.layers,
                                                                            student.stages))
                                for name, student in students.items()})
        return {name: Timed(ms[name], ms["reference"]) for name in students}

    def measure_costs(self, kinds: Iterable[Kind], known: Measured, keep: Callable[[Measured], None],
                      effort: int = ROUGH) -> Measured:
        """Costs of the parts of each kind.

        Two students of a kind, with few and with more layers, are timed in turn; their difference is the cost of the
        layers between them, and what is left that of embedding and head. So every way of running a model can be
        measured, and what it does between the layers is in it.

        Args:
            kinds: to measure; kinds that eliminate candidates after those without.
            known: need not be measured again, where it was with this effort; the new ones are added to it.
            keep: called with it after each.
            effort: times the usual one.

        Returns:
            `known`, in which nothing is missing any more.

        Raises:
            UserError: the teacher's layers cannot be measured: it has a single one, or they take no time.
        """
        depth, kinds = self._base.shape.depth, list(kinds)
        if depth < 2:
            raise UserError(f"the teacher has {depth} layer, so that the cost of a layer cannot be told from that of "
                            "the rest, and there is nothing to leave out")
        wanted = {*kinds, *(kind.whole for kind in kinds)}
        missing = sorted((kind for kind in wanted if kind not in known.kinds or known.kinds[kind].effort < effort),
                         key=lambda kind: -kind.kept)
        if missing or known.ended_ms is None:
            known.began_ms, known.ended_ms = known.began_ms or self._speed(), None
            for kind in progress(missing, len(missing), "measuring costs", "kinds of layers"):
                known.kinds[kind] = self._measure(kind, known, effort)
                keep(known)
            known.ended_ms = self._speed()
            keep(known)
        return known

    def _speed(self) -> float:
        return self.time({}, FINE)["reference"].median_ms

    def _measure(self, kind: Kind, known: Measured, effort: int) -> KindCosts:
        """The costs of one kind, at the speed of the beginning."""
        eliminates, depth = kind.kept < 1, self._base.shape.depth
        few = min(FEW_LAYERS + eliminates, depth - 1)
        more = min(few + 4, depth)
        models = {layers: build_student(self._base, kind, layers) for layers in (few, more)}
        calls = {str(layers): self._runtime.one_pass(*pair) for layers, pair in models.items()}
        rough = known.kinds.get(kind)
        if rough is not None:       # the same but for times
            counted = {layers: predict(known.kinds, kind, layers)[1:] for layers in models}
        else:
            counted = {layers: _counted(*pair) for layers, pair in models.items()}
            if not eliminates:
                calls |= _ends(*models[few])
        for times in (1, 2, 4):         # a busy machine may need more passes
            timings = self.time(calls, times * effort)
            first, last = (Cost(known.began_ms / timings[str(layers)].speed_up(timings["reference"])[0],
                                *counted[layers]) for layers in (few, more))
            layer = Cost(*((value - less) / (more - few) for less, value in zip(first, last, strict=True)))
            if layer.ms > 0:
                break
        else:
            raise UserError(f"the layers of {self._base.family.name} cannot be measured: {more} take no longer than "
                            f"{few} ({last.ms:.2f} and {first.ms:.2f} ms). Is the machine busy? Stop what else runs "
                            "and start again")
        if not eliminates:
            fixed = first.plus(layer, -few)
            if rough is not None:
                share = rough.embedding_share
            else:
                share = 1 / (1 + timings["predict"].median_ms / timings["embed"].median_ms)
            return KindCosts(layer, fixed._replace(ms=max(0.0, fixed.ms)), None, share, effort)
        before, whole = elimination_layer(few), known.kinds[kind.whole]
        eliminating = first.plus(whole.fixed, -1).plus(whole.layer, -before).plus(layer, -(few - before - 1))
        return KindCosts(layer, eliminating=eliminating, effort=effort)


def _ends(model: StagedTracker, cfg: Config) -> dict[str, Callable[[], object]]:
    """Embedding and prediction by themselves, in PyTorch on the CPU."""
    templates, search, further = example_inputs(cfg.student, 1, torch.device("cpu"), takes_pixels=False)
    inputs = Inputs.of(templates, search, further)
    with torch.inference_mode():
        tokens = model.embed(inputs)
        for index in range(model.depth):
            tokens = model.run_layer(index, tokens)
    return {"embed": lambda: model.embed(inputs), "predict": lambda: model.predict(tokens)}


def _counted(model: StagedTracker, cfg: Config) -> tuple[float, float]:
    """MACs of a pass, and parameters."""
    templates, search, further = example_inputs(cfg.student, 1, torch.device("cpu"), takes_pixels=False)
    twin = copy.deepcopy(model).to("meta")
    further = {name: value.to("meta") for name, value in further.items()}
    macs = exact_macs(twin, templates.to("meta"), search.to("meta"), further)
    return macs, sum(parameter.numel() for parameter in model.parameters())
