"""Size, work and speed of the model of a configuration, beside its teacher, beside what the device could do, and beside
the paper's table.

Weights are random: neither counts nor speed depend on them. Counts need no weights at all and come first. All variants
of a batch size are timed in the same run, in turn, so that a slow phase of the machine hits all of them.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..models.base import StagedTracker
from ..utils.device import choose_dtype, pick_device, torch_threads
from ..utils.errors import UserError
from ..utils.machine import describe_environment
from ..utils.parts import PartTimes
from ..utils.progress import progress
from .counting import count
from .energy import joules_per_call
from .fast import DTYPES
from .paths import (
    PLAIN,
    PRECISIONS,
    ProfiledModel,
    Subject,
    example_inputs,
    exported_path,
    fast_path,
    plain_path,
    switch_paths,
    torch_path,
)
from .rates import matrix_rate, memory_rate
from .report import closing_text, conditions_text, frames_text, passes_text, sizes_text
from .timing import SETTLE, Timings, time_alternately

logger = logging.getLogger(__name__)

PUBLISHED = Path(__file__).with_name("published.json")
"""The paper's table."""

_TOLERANCE = 0.1  # one unit of the last digit the table prints: it rounds some entries and cuts others
_DEFAULTS = {"cpu": (30, 3), "cuda": (1000, 100)}  # iterations, warm-up
SECONDS = 15.0
"""For timing one variant, where no number of passes is asked for."""


@dataclass(frozen=True)
class EndToEnd:
    """What a frame costs beside the network, for `profile_config`.

    Attributes:
        make_tracker: called as `make_tracker(run, cfg, device=device)`; gives an object with `start(image, box_xywh)`,
            `step(images, targets)` and `parts`, such as `lib.test.tracker.Tracker.from_model`.
        read: number -> RGB uint8 (H, W, 3), frame of that number (counted on and on) read and decoded.
        name: of the frames, for the report.
    """

    make_tracker: Callable[..., Any]
    read: Callable[[int], np.ndarray]
    name: str


@dataclass(frozen=True)
class ProfileOptions:
    """How the models run, for `profile_config`.

    Attributes:
        backends: plain, the model as the official code runs it (attention written out); torch, as this project does;
            fast.
        precisions: float32, bfloat16, float16, or auto (see `choose_dtype`), each with each backend.
        batches: images per pass.
        fast: "NAME=VALUE" options of backend fast.
        exports: folders of tracking/export_model.py that hold the configuration's tracker.
        switches: also the configuration's model with each switch of backend fast (`switch_paths`), in each precision.
    """

    backends: Sequence[str] = ("torch",)
    precisions: Sequence[str] = ("float32",)
    batches: Sequence[int] = (1,)
    fast: Sequence[str] = ()
    exports: Sequence[str | Path] = ()
    switches: bool = False


def profile_config(
    cfg: Config,
    *,
    against: Sequence[Config] = (),
    device: str = "auto",
    threads: int | None = None,
    iterations: int | None = None,
    warmup: int | None = None,
    seconds: float | None = None,
    options: ProfileOptions | None = None,
    floors: bool = False,
    end_to_end: EndToEnd | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Profile the test model of a configuration; for a student, its teacher too.

    Args:
        cfg: script ostrack (one model) or compresstracker (student and teacher).
        against: further configurations whose test models take part.
        device: cpu, cuda, cuda:N or auto.
        threads: CPU threads of PyTorch; None leaves them as they are.
        iterations, warmup: timed and untimed forward passes of each variant; None: 30 and 3 on a CPU, 1000 and 100 on
            CUDA.
        seconds: about the longest time for each variant of a batch size; what does not fit is left out of `iterations`
            (see `time_alternately`). None: `SECONDS`, or no limit where `iterations` are given.
        options: None runs plain PyTorch in float32, one image at a time.
        floors: measure the device's rates, for the time that each pass takes at least.
        end_to_end: also time whole frames.
        tell: gets each part of `report_text` as soon as it is known.

    Returns:
        A report that JSON can hold; `lib.deploy.report` makes it readable. `sizes` has one entry per model: model,
        layers, crop sizes, counts (for one image) and published (the paper's entry and what agrees with it, or None).
        `models` has one entry per model, path and batch size: the same, and name, backend, precision, batch,
        template_cached, iterations (that were timed), latency_ms (median, p95), fps; speed_up over the teacher, or else
        over the first of `against`, on the same path, and over_plain, over the same model on backend plain in float32,
        each where that took part; memory, energy_j, floor and end_to_end, each None where not known or not asked for.

    Raises:
        UserError: an argument out of range, no such device, thop missing, a path or precision that cannot run here, or
            memory runs out.
    """
    target = pick_device(device)
    options = ProfileOptions() if options is None else options
    precisions = [choose_dtype(name, target, "--precision") for name in options.precisions]
    options = replace(options, precisions=list(dict.fromkeys(precisions)))
    for name, value, low in (("threads", threads, 1), ("iterations", iterations, 1), ("warmup", warmup, 0),
                             ("seconds", seconds, 0),
                             *(("batch", batch, 1) for batch in options.batches)):
        if value is not None and value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    usual_iterations, usual_warmup = _DEFAULTS.get(target.type, _DEFAULTS["cuda"])
    if seconds is None and iterations is None:
        seconds = SECONDS
    effort = _Effort(iterations or usual_iterations, usual_warmup if warmup is None else warmup, seconds,
                     SETTLE if options.exports else 0.0)
    try:
        with torch_threads(threads):
            published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
            report: dict[str, Any] = {
                "script": cfg.script, "config": cfg.name, "warmup": effort.warmup,
                "environment": describe_environment(target),
                "published": {"source": published["source"], "note": published["note"]},
            }
            tell(conditions_text(report))
            _check_paths(options)
            builders, reference = _builders(cfg, against)
            outlines = [_outline(name, build, config) for name, (build, config) in builders.items()]
            report["sizes"] = _sizes(outlines, published)
            tell(sizes_text(report))
            logger.info("building the models with random weights, then timing them")
            subjects = [outline._replace(model=builders[outline.name][0](outline.cfg).eval())
                        for outline in progress(outlines, len(outlines), "building models", "models")]
            variants = _variants(subjects, options, target)
            report["rates"] = _rates(target, variants) if floors else None
            report["frames"] = end_to_end.name if end_to_end else None
            report["models"] = []
            with torch.inference_mode():
                for batch in options.batches:
                    runs = _Runs(variants, batch, target)
                    entries = _measure(runs, report, reference, effort)
                    report["models"] += entries
                    tell(passes_text(report, entries))
                    if end_to_end is not None:
                        _add_frames(entries, runs, effort, end_to_end)
                        tell(frames_text(report, entries))
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is too small for batch {max(options.batches)}; try a smaller --batch"
                        ) from error
    if sys.platform == "linux":
        import resource

        report["environment"]["process_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell(closing_text(report))
    return report


@dataclass(frozen=True)
class _Effort:
    """How long everything is timed: the arguments of `time_alternately`, `seconds` for each variant."""

    iterations: int
    warmup: int
    seconds: float | None
    settle: float


class _Runs:
    """The variants of one batch size, ready to be timed.

    Attributes:
        names: variant -> its name.
        calls: name -> one pass.
    """

    def __init__(self, variants: Sequence[ProfiledModel], batch: int, device: torch.device):
        self.batch, self.device = batch, device
        self.names = {variant: variant.name(batch) for variant in variants}
        self.calls = {name: variant.call(batch, device) for variant, name in self.names.items()}


def _builders(cfg: Config, against: Sequence[Config]
              ) -> tuple[dict[str, tuple[Callable[[Config], StagedTracker], Config]], str | None]:
    """Name -> how a model is built and of what, `cfg`'s first, and the name of the one that the others are compared
    with."""
    from ..families.build import build_for_test, build_teacher

    if cfg.compresses:
        builders = {"student": (build_for_test, cfg.student), "teacher": (build_teacher, cfg.teacher)}
        reference = "teacher"
    else:
        builders = {"model": (build_for_test, cfg)}
        reference = f"{against[0].script}/{against[0].name}" if against else None
    for other in against:
        builders[f"{other.script}/{other.name}"] = build_for_test, other.student
    return builders, reference


def _outline(name: str, build: Callable[[Config], StagedTracker], cfg: Config) -> Subject:
    """A model's shapes, without numbers, and its counts."""
    with torch.device("meta"):
        model = build(cfg).eval()
    templates, search, further = example_inputs(cfg, 1, torch.device("cpu"), takes_pixels=False)
    return Subject(name, model, cfg, count(model, templates.shape, search.shape, further))


def _size(outline: Subject, published: dict[str, Any]) -> dict[str, Any]:
    """What is known of a model before it runs."""
    name, model, cfg, counts = outline
    architecture = {
        "family": cfg.family.name, "layer": type(model.layers[0]).__name__, "embed_dim": model.embed_dim,
        "num_heads": cfg.shape.num_heads, "mlp_ratio": cfg.shape.mlp_ratio,
        "patch_size": cfg.MODEL.BACKBONE.STRIDE, "head": cfg.MODEL.HEAD.TYPE,
        "template_size": cfg.TEST.TEMPLATE_SIZE, "search_size": cfg.TEST.SEARCH_SIZE,
    }
    return {
        "model": name, "script": cfg.script, "config": cfg.name, "layers": model.depth, **architecture,
        **asdict(counts),
        "published": compare_with_paper(architecture, model.depth, counts.thop_macs, counts.thop_parameters, published),
    }


def _sizes(outlines: Sequence[Subject], published: dict[str, Any]) -> list[dict[str, Any]]:
    """`_size` of all; a student has the paper's numbers beside it only if its teacher is the paper's."""
    sizes = {outline.name: _size(outline, published) for outline in outlines}
    if "teacher" in sizes and sizes["teacher"]["published"] is None:
        sizes["student"]["published"] = None
    return list(sizes.values())


def _check_paths(options: ProfileOptions) -> None:
    """Refuse backends and precisions that nobody knows, before anything is built."""
    unknown = [*(set(options.backends) - set(_PATHS)), *(set(options.precisions) - set(DTYPES))]
    if unknown:
        raise UserError(f"unknown backend or precision {unknown[0]!r}; choose backends of {', '.join(_PATHS)} and "
                        f"precisions of {', '.join(DTYPES)}")
    if options.fast and "fast" not in options.backends:
        raise UserError("--fast needs --backend fast")


_PATHS = {"plain": plain_path, "torch": torch_path, "fast": fast_path}


def _variants(subjects: Sequence[Subject], options: ProfileOptions, device: torch.device) -> list[ProfiledModel]:
    """Every model on every path."""
    make = _PATHS | {"fast": partial(fast_path, options=options.fast)}
    combinations = [(backend, precision, subject)
                    for backend in options.backends for precision in options.precisions for subject in subjects]
    variants = [make[backend](subject, precision, device) for backend, precision, subject in
                progress(combinations, len(combinations), "preparing models", "variants")]
    if options.switches:
        variants += [path for precision in options.precisions for path in switch_paths(subjects[0], precision, device)]
    variants += [exported_path(subjects[0], folder, device) for folder in options.exports]
    names = [variant.name(1) for variant in variants]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"two of the paths to time are called {double!r}; name each once, and give exported folders "
                        "different names")
    return variants


def _measure(runs: _Runs, report: dict[str, Any], reference: str | None, effort: _Effort) -> list[dict[str, Any]]:
    """The entries of one batch size, without whole frames."""
    batch, calls, rates = runs.batch, runs.calls, report["rates"]
    sizes = {size["model"]: size for size in report["sizes"]}
    timings = _in_turn(calls, runs, effort, f"timing {len(calls)} in turn" + f", batch {batch}" * (batch != 1))
    entries = []
    for variant, name in runs.names.items():

        def ratio(model: str | None, path: tuple[str, str], name: str = name) -> dict[str, Any] | None:
            label = next((label for variant, label in runs.names.items()
                          if (variant.subject.name, variant.path) == (model, path)), None)
            return None if label is None else _ratio(timings[name], timings[label], label)

        joules = joules_per_call(calls[name], runs.device)
        entries.append(sizes[variant.subject.name] | {
            "name": name, "backend": variant.backend, "precision": variant.precision, "note": variant.note,
            "batch": batch, "path_macs": variant.macs, "template_cached": variant.template_cached,
            "iterations": timings[name].seconds.size,
            "latency_ms": {"median": timings[name].median_ms, "p95": timings[name].p95_ms}, "fps": timings[name].fps,
            "speed_up": ratio(reference, variant.path), "over_plain": ratio(variant.subject.name, PLAIN),
            "floor": None if rates is None else _floor(variant, batch, rates, timings[name]),
            "memory": {"weights_mib": variant.weight_bytes / 2**20,
                       "pass_mib": _extra_mib(calls[name], runs.device)},
            "energy_j": None if joules is None else joules / batch,
            "end_to_end": None,
        })
    return entries


def _in_turn(calls: Mapping[str, Callable[[], object]], runs: _Runs, effort: _Effort, label: str
             ) -> dict[str, Timings]:
    """`time_alternately` with the time that all variants have together."""
    seconds = None if effort.seconds is None else effort.seconds * len(runs.calls)
    return time_alternately(calls, runs.device, iterations=effort.iterations, warmup=effort.warmup, batch=runs.batch,
                            seconds=seconds, settle=effort.settle, label=label)


def _ratio(timings: Timings, reference: Timings, name: str) -> dict[str, Any]:
    """How many times faster than the reference, which is called `name`."""
    middle, low, high = timings.speed_up(reference)
    return {"over": name, "median": middle, "p10": low, "p90": high}


def _rates(device: torch.device, variants: Sequence[ProfiledModel]) -> dict[str, Any]:
    """Operations per second of the precisions that take part, and bytes per second, as the device does them now."""
    used = {variant.precision for variant in variants}
    return {"operations_per_s": {name: matrix_rate(device, PRECISIONS[name]) for name in PRECISIONS if name in used},
            "bytes_per_s": memory_rate(device)}


def _floor(variant: ProfiledModel, batch: int, rates: dict[str, Any], timings: Timings) -> dict[str, float]:
    """The time that a pass takes at least: its operations at the device's matrix rate, or its weights at the rate of
    the memory, whichever is longer."""
    rate = rates["operations_per_s"][variant.precision]
    compute, memory = 2e3 * variant.macs * batch / rate, 1e3 * variant.weight_bytes / rates["bytes_per_s"]
    floor = max(compute, memory)
    return {"operations_ms": compute, "bytes_ms": memory, "ms": floor, "times": timings.median_ms / floor}


def _extra_mib(call: Callable[[], object], device: torch.device) -> float | None:
    """Memory that a pass takes at its peak beside the weights; None on a CPU, which does not tell."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _add_frames(entries: Sequence[dict[str, Any]], runs: _Runs, effort: _Effort, end_to_end: EndToEnd) -> None:
    """Time whole frames, for the entries: read and decode, crop, network, box, and the same from a decoded picture;
    `batch` streams side by side. The target stays where it is, so that all crops are alike (random weights would let it
    grow or shrink)."""
    streams = {name: _Frames(end_to_end.make_tracker(variant.run, variant.subject.cfg, device=runs.device),
                             end_to_end.read, runs.batch) for variant, name in runs.names.items()}
    whole_frames = {name: stream.frame for name, stream in streams.items()}
    from_decoded = {f"{name}, decoded": stream.decoded_frame for name, stream in streams.items()}
    effort = replace(effort, iterations=max(1, effort.iterations // 5), warmup=min(effort.warmup, 10))
    timings = _in_turn(whole_frames | from_decoded, runs, effort, "timing whole frames")
    for entry in progress(entries, len(entries), "timing the parts of a frame", "variants"):
        name = entry["name"]
        whole, decoded = timings[name], timings[f"{name}, decoded"]
        parts = streams[name].parts(runs.device, max(1, effort.iterations // 2))
        entry["end_to_end"] = {"median_ms": whole.median_ms, "p95_ms": whole.p95_ms, "fps": whole.fps,
                               "decoded_median_ms": decoded.median_ms, "decoded_fps": decoded.fps, "parts_ms": parts}


class _Frames:
    """Frames through one tracker."""

    def __init__(self, tracker: Any, read: Callable[[int], np.ndarray], batch: int):
        self._tracker, self._read, self._batch = tracker, read, batch
        self._number = 0
        first = read(0)
        self._decoded = [first] * batch
        height, width = first.shape[:2]
        self._box = [0.44 * width, 0.4 * height, 0.12 * width, 0.2 * height]
        self._targets = [tracker.start(first, self._box) for _ in range(batch)]

    def frame(self) -> None:
        """One frame of each stream."""
        self._track(self._decode())

    def decoded_frame(self) -> None:
        """One frame of each stream, which is there as a picture already."""
        self._track(self._decoded)

    def parts(self, device: torch.device, frames: int) -> dict[str, float]:
        """Median milliseconds of the parts of a frame."""
        self._tracker.parts = parts = PartTimes(device)
        for _ in range(frames):
            with parts.measure("decode"):
                images = self._decode()
            self._track(images)
        self._tracker.parts = None
        return {name: 1e3 * float(np.median(seconds)) for name, seconds in parts.seconds.items()}

    def _decode(self) -> list[np.ndarray]:
        images = [self._read(self._number + stream) for stream in range(self._batch)]
        self._number += self._batch
        return images

    def _track(self, images: list[np.ndarray]) -> None:
        for target in self._targets:
            target.box_xywh = list(self._box)
        self._tracker.step(images, self._targets)  # waits for the device to read the boxes


def compare_with_paper(architecture: dict[str, Any], depth: int, macs: int, parameters: int,
                       published: dict[str, Any]) -> dict[str, Any] | None:
    """The paper's entry for a model of this architecture and depth, and whether the counts agree with it.

    Args:
        architecture: the keys of `architecture` in published.json.
        depth: number of layers.
        macs, parameters: by thop's rule.
        published: the content of published.json.

    Returns:
        The entry with `macs_match` and `params_match` (within one unit of the last digit printed), or None where the
        paper's table has no such model.
    """
    if architecture != published["architecture"]:
        return None
    entry = next((model for model in published["models"] if model["depth"] == depth), None)
    if entry is None:
        return None
    return entry | {"macs_match": abs(macs / 1e9 - entry["macs_g"]) < _TOLERANCE,
                    "params_match": abs(parameters / 1e6 - entry["params_m"]) < _TOLERANCE}
