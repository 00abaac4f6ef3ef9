"""Size, work and speed of the model of a configuration, beside its teacher, beside what the device could do, and beside
the paper's table.

Weights are random: neither counts nor speed depend on them. All variants of a batch size are timed in the same run,
in turn, so that a slow phase of the machine hits all of them.
"""

import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..utils.device import choose_dtype, pick_device
from ..utils.errors import UserError
from ..utils.parts import PartTimes
from .counting import count
from .energy import joules_per_call
from .fast import DTYPES
from .paths import (
    PLAIN,
    PRECISIONS,
    ProfiledModel,
    Subject,
    exported_path,
    fast_path,
    plain_path,
    switch_paths,
    torch_path,
)
from .rates import matrix_rate, memory_rate
from .timing import Timings, time_alternately

PUBLISHED = Path(__file__).with_name("published.json")
"""The paper's table."""

_TOLERANCE = 0.1  # one unit of the last digit the table prints: it rounds some entries and cuts others
_DEFAULTS = {"cpu": (30, 3), "cuda": (1000, 100)}  # iterations, warm-up
_LIBRARIES = ("torch", "timm", "thop", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "openvino")


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
    options: ProfileOptions | None = None,
    floors: bool = False,
    end_to_end: EndToEnd | None = None,
) -> dict[str, Any]:
    """Profile the test model of a configuration; for a student, its teacher too.

    Args:
        cfg: script ostrack (one model) or compresstracker (student and teacher).
        against: further configurations whose test models take part.
        device: cpu, cuda, cuda:N or auto.
        threads: CPU threads of PyTorch; None leaves them as they are.
        iterations, warmup: timed and untimed forward passes of each model; None: 30 and 3 on a CPU, 1000 and 100 on
            CUDA.
        options: None runs plain PyTorch in float32, one image at a time.
        floors: measure the device's rates, for the time that each pass takes at least.
        end_to_end: also time whole frames.

    Returns:
        A report that JSON can hold; `lib.deploy.report` makes it readable. `models` has one entry per model, path and
        batch size: name, layers, crop sizes, counts (for one image), backend, precision, batch, template_cached,
        latency_ms (median, p95), fps; speed_up over the teacher, or else over the first of `against`, on the same path,
        and over_plain, over the same model on backend plain in float32, each where that took part; memory, energy_j,
        floor and end_to_end, each None where not known or not asked for; and published (the paper's entry and what
        agrees with it, or None).

    Raises:
        UserError: an argument out of range, no such device, thop missing, a path or precision that cannot run here, or
            memory runs out.
    """
    target = pick_device(device)
    options = ProfileOptions() if options is None else options
    precisions = [choose_dtype(name, target, "--precision") for name in options.precisions]
    options = replace(options, precisions=list(dict.fromkeys(precisions)))
    for name, value, low in (("threads", threads, 1), ("iterations", iterations, 1), ("warmup", warmup, 0),
                             *(("batch", batch, 1) for batch in options.batches)):
        if value is not None and value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    default_iterations, default_warmup = _DEFAULTS.get(target.type, _DEFAULTS["cuda"])
    iterations = default_iterations if iterations is None else iterations
    warmup = default_warmup if warmup is None else warmup
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        environment = describe_environment(target)
        variants, reference = _variants(cfg, against, options, target)
        rates = _rates(target, variants) if floors else None
        published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
        models = []
        for batch in options.batches:
            models += _measure(variants, reference, batch, target, iterations, warmup, rates, end_to_end, published)
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is too small for batch {max(options.batches)}; try a smaller --batch"
                        ) from error
    finally:
        torch.set_num_threads(before)
    if sys.platform == "linux":
        import resource

        environment["process_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "script": cfg.script, "config": cfg.name, "iterations": iterations, "warmup": warmup,
        "environment": environment, "rates": rates, "frames": end_to_end.name if end_to_end else None,
        "models": models, "published": {"source": published["source"], "note": published["note"]},
    }


def _subjects(cfg: Config, against: Sequence[Config]) -> tuple[list[Subject], str | None]:
    """The models, `cfg`'s first, and the name of the one that the others are compared with."""
    from ..models.build import build_for_test, build_student, build_teacher

    if cfg.script == "compresstracker":
        found = {"student": (build_student(cfg), cfg), "teacher": (build_teacher(cfg), cfg)}
        reference = "teacher"
    else:
        found = {"model": (build_for_test(cfg), cfg)}
        reference = f"{against[0].script}/{against[0].name}" if against else None
    for other in against:
        found[f"{other.script}/{other.name}"] = build_for_test(other), other
    subjects = [Subject(name, model.eval(), config, count(model, *_shapes(config, 1)))
                for name, (model, config) in found.items()]
    return subjects, reference


def _variants(cfg: Config, against: Sequence[Config], options: ProfileOptions, device: torch.device
                 ) -> tuple[list[ProfiledModel], str | None]:
    """Every model on every path, and the name of the model that the others are compared with."""
    subjects, reference = _subjects(cfg, against)
    make = {"plain": plain_path, "torch": torch_path, "fast": partial(fast_path, options=options.fast)}
    unknown = [*(set(options.backends) - set(make)), *(set(options.precisions) - set(DTYPES))]
    if unknown:
        raise UserError(f"unknown backend or precision {unknown[0]!r}; choose backends of {', '.join(make)} and "
                        f"precisions of {', '.join(DTYPES)}")
    chosen = [make[backend](subject, precision, device)
              for backend in options.backends for precision in options.precisions for subject in subjects]
    if options.switches:
        chosen += [path for precision in options.precisions for path in switch_paths(subjects[0], precision, device)]
    chosen += [exported_path(subjects[0], folder, device) for folder in options.exports]
    names = [one.name(1) for one in chosen]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"two of the paths to time are called {double!r}; name each once, and give exported folders "
                        "different names")
    return chosen, reference


@torch.inference_mode()
def _measure(variants: Sequence[ProfiledModel], reference: str | None, batch: int, device: torch.device,
             iterations: int, warmup: int, rates: dict[str, Any] | None, end_to_end: EndToEnd | None,
             published: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of one batch size."""
    names = {one: one.name(batch) for one in variants}
    calls = {name: one.call(batch, device) for one, name in names.items()}
    timings = time_alternately(calls, device, iterations=iterations, warmup=warmup, batch=batch)
    frames = {} if end_to_end is None else _time_frames(names, batch, device, max(1, iterations // 5), min(warmup, 10),
                                                       end_to_end)
    entries = []
    for one, name in names.items():

        def ratio(model: str | None, path: tuple[str, str], name: str = name) -> dict[str, Any] | None:
            other = next((label for one, label in names.items() if (one.subject.name, one.path) == (model, path)), None)
            return None if other is None else _ratio(timings[name], timings[other], other)

        joules = joules_per_call(calls[name], device)
        entries.append(_describe(one, name, timings[name], batch, published) | {
            "speed_up": ratio(reference, one.path), "over_plain": ratio(one.subject.name, PLAIN),
            "floor": None if rates is None else _floor(one, batch, rates, timings[name]),
            "memory": {"weights_mib": one.weight_bytes / 2**20, "pass_mib": _extra_mib(calls[name], device)},
            "energy_j": None if joules is None else joules / batch,
            "end_to_end": frames.get(name),
        })
    return entries


def _ratio(own: Timings, other: Timings, name: str) -> dict[str, Any]:
    """How many times faster than the other, which is called `name`."""
    middle, low, high = own.speed_up(other)
    return {"over": name, "median": middle, "p10": low, "p90": high}


def _rates(device: torch.device, variants: Sequence[ProfiledModel]) -> dict[str, Any]:
    """Operations per second of the precisions that take part, and bytes per second, as the device does them now."""
    used = {one.precision for one in variants}
    return {"operations_per_s": {name: matrix_rate(device, PRECISIONS[name]) for name in PRECISIONS if name in used},
            "bytes_per_s": memory_rate(device)}


def _floor(one: ProfiledModel, batch: int, rates: dict[str, Any], timings: Timings) -> dict[str, float]:
    """The time that a pass takes at least: its operations at the device's matrix rate, or its weights at the rate of
    the memory, whichever is longer."""
    rate = rates["operations_per_s"][one.precision]
    compute, memory = 2e3 * one.macs * batch / rate, 1e3 * one.weight_bytes / rates["bytes_per_s"]
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


def _time_frames(names: dict[ProfiledModel, str], batch: int, device: torch.device, iterations: int, warmup: int,
                 end_to_end: EndToEnd) -> dict[str, dict[str, Any]]:
    """Time whole frames: read and decode, crop, network, box, and the same from a decoded picture; `batch` streams side
    by side. The target stays where it is, so that all crops are alike (random weights would let it grow or shrink)."""
    runs = {name: _Frames(end_to_end.make_tracker(one.run, one.subject.cfg, device=device), end_to_end.read, batch)
            for one, name in names.items()}
    whole_frames = {name: run.frame for name, run in runs.items()}
    from_decoded = {f"{name}, decoded": run.decoded_frame for name, run in runs.items()}
    timings = time_alternately(whole_frames | from_decoded, device, iterations=iterations, warmup=warmup, batch=batch)
    found = {}
    for name, run in runs.items():
        whole, decoded = timings[name], timings[f"{name}, decoded"]
        parts = run.parts(device, max(1, iterations // 2))
        found[name] = {"median_ms": whole.median_ms, "p95_ms": whole.p95_ms, "fps": whole.fps,
                       "decoded_median_ms": decoded.median_ms, "decoded_fps": decoded.fps, "parts_ms": parts}
    return found


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


def _shapes(cfg: Config, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the template and search batches."""
    z, x = cfg.TEST.TEMPLATE_SIZE, cfg.TEST.SEARCH_SIZE
    return (batch, 3, z, z), (batch, 3, x, x)


def _describe(one: ProfiledModel, name: str, timings: Timings, batch: int, published: dict[str, Any]) -> dict[str, Any]:
    """What is known of one variant alone."""
    subject, model, cfg, counts = one.subject
    architecture = {
        "embed_dim": model.embed_dim, "patch_size": cfg.MODEL.BACKBONE.STRIDE, "head": cfg.MODEL.HEAD.TYPE,
        "template_size": cfg.TEST.TEMPLATE_SIZE, "search_size": cfg.TEST.SEARCH_SIZE,
    }
    return {
        "name": name, "model": subject, "script": cfg.script, "config": cfg.name,
        "layers": model.depth, **architecture,
        "parameters": counts.parameters, "thop_parameters": counts.thop_parameters,
        "thop_macs": counts.thop_macs, "macs": counts.macs, "path_macs": one.macs,
        "backend": one.backend, "precision": one.precision, "note": one.note, "batch": batch,
        "template_cached": one.template_cached,
        "latency_ms": {"median": timings.median_ms, "p95": timings.p95_ms}, "fps": timings.fps,
        "published": compare_with_paper(architecture, model.depth, counts.thop_macs, counts.thop_parameters, published),
    }


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


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What a timing depends on: device, threads, arithmetic and library versions."""
    cuda = device.type == "cuda"
    facts: dict[str, Any] = {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES
                      if any(metadata.distributions(name=name))},
    }
    if cuda:
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
                  "matmul_precision": torch.get_float32_matmul_precision(),
                  "tf32_convolutions": torch.backends.cudnn.allow_tf32}
    return facts


def _cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or "unknown CPU"
