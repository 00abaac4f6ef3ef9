"""Size, work and speed of the model of a configuration, beside its teacher and beside the paper's table.

Weights are random: neither counts nor speed depend on them. All models are timed in the same run, in turn, so that a
slow phase of the machine hits all of them.
"""

import json
import platform
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.config import Config
from lib.deploy.counting import count
from lib.deploy.timing import Timings, time_alternately
from lib.utils.device import pick_device
from lib.utils.errors import UserError

PUBLISHED = Path(__file__).with_name("published.json")
"""The paper's table."""

_TOLERANCE = 0.1  # one unit of the last digit the table prints: it rounds some entries and cuts others
_DEFAULTS = {"cpu": (30, 3), "cuda": (1000, 100)}  # iterations, warm-up


def profile_config(
    cfg: Config,
    *,
    against: Sequence[Config] = (),
    device: str = "auto",
    threads: int | None = None,
    batch: int = 1,
    iterations: int | None = None,
    warmup: int | None = None,
) -> dict[str, Any]:
    """Profile the test model of a configuration; for a student, its teacher too.

    Args:
        cfg: script ostrack (one model) or compresstracker (student and teacher).
        against: further configurations whose test models take part.
        device: cpu, cuda, cuda:N or auto.
        threads: CPU threads of PyTorch; None leaves them as they are.
        batch: image pairs per forward pass in the timing; the counts are always for one pair.
        iterations, warmup: timed and untimed forward passes of each model; None: 30 and 3 on a CPU, 1000 and 100 on
            CUDA.

    Returns:
        A report that JSON can hold; `report_text` makes it readable. `models` has one entry per model: name, layers,
        crop sizes, counts, latency_ms (median, p95), fps, speed_up (over the teacher, or else over the first of
        `against`; None where there is neither) and published (the paper's entry and what agrees with it, or None).

    Raises:
        UserError: an argument out of range, no such device, thop missing, or memory runs out.
    """
    target = pick_device(device)
    for name, value, low in (("threads", threads, 1), ("batch", batch, 1), ("iterations", iterations, 1),
                             ("warmup", warmup, 0)):
        if value is not None and value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    default_iterations, default_warmup = _DEFAULTS.get(target.type, _DEFAULTS["cuda"])
    iterations = default_iterations if iterations is None else iterations
    warmup = default_warmup if warmup is None else warmup
    contestants, reference = _contestants(cfg, against)
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        environment = describe_environment(target)
        timings = _time(contestants, target, iterations=iterations, warmup=warmup, batch=batch)
    finally:
        torch.set_num_threads(before)
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    models = []
    for name, (model, config) in contestants.items():
        entry = _describe(name, model, config, timings[name], published)
        if reference is not None:
            middle, low, high = timings[name].speed_up(timings[reference])
            entry["speed_up"] = {"over": reference, "median": middle, "p10": low, "p90": high}
        models.append(entry)
    return {
        "script": cfg.script, "config": cfg.name, "batch": batch, "iterations": iterations, "warmup": warmup,
        "precision": "float32", "environment": environment, "models": models,
        "published": {"source": published["source"], "note": published["note"]},
    }


def _contestants(cfg: Config, against: Sequence[Config]) -> tuple[dict[str, tuple[nn.Module, Config]], str | None]:
    """Name -> (model, its configuration), and the name of the model that the others are compared with."""
    from lib.models.build import build_for_test, build_student, build_teacher

    if cfg.script == "compresstracker":
        found = {"student": (build_student(cfg), cfg), "teacher": (build_teacher(cfg), cfg)}
        reference = "teacher"
    else:
        found = {"model": (build_for_test(cfg), cfg)}
        reference = f"{against[0].script}/{against[0].name}" if against else None
    for other in against:
        found[f"{other.script}/{other.name}"] = build_for_test(other), other
    return found, reference


def _time(contestants: dict[str, tuple[nn.Module, Config]], device: torch.device, *, iterations: int, warmup: int,
          batch: int) -> dict[str, Timings]:
    """Time the forward passes of all models in turn."""
    try:
        calls = {name: partial(model.to(device).eval(), *_inputs(cfg, batch, device))
                 for name, (model, cfg) in contestants.items()}
        with torch.inference_mode():
            return time_alternately(calls, device, iterations=iterations, warmup=warmup, batch=batch)
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is too small for batch {batch}; try a smaller --batch") from error


def _inputs(cfg: Config, batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Template, search and, for candidate elimination, the template mask of a target that fills its box."""
    from lib.models.layers.elimination import template_mask

    generator = torch.Generator().manual_seed(0)
    shapes = _shapes(cfg, batch)
    template, search = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    backbone = cfg.MODEL.BACKBONE
    if not backbone.CE_LOC:
        return template, search, None
    side = 1 / cfg.TEST.TEMPLATE_FACTOR
    boxes = torch.tensor([[0.5 - side / 2, 0.5 - side / 2, side, side]]).expand(batch, -1).to(device)
    mask = template_mask(backbone.CE_TEMPLATE_RANGE, cfg.TEST.TEMPLATE_SIZE // backbone.STRIDE, boxes, backbone.STRIDE)
    return template, search, mask


def _shapes(cfg: Config, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the template and search batches."""
    z, x = cfg.TEST.TEMPLATE_SIZE, cfg.TEST.SEARCH_SIZE
    return (batch, 3, z, z), (batch, 3, x, x)


def _describe(name: str, model: nn.Module, cfg: Config, timings: Timings, published: dict[str, Any]) -> dict[str, Any]:
    """One model's entry of the report."""
    counts = count(model, *_shapes(cfg, 1))
    architecture = {
        "embed_dim": model.embed_dim, "patch_size": cfg.MODEL.BACKBONE.STRIDE, "head": cfg.MODEL.HEAD.TYPE,
        "template_size": cfg.TEST.TEMPLATE_SIZE, "search_size": cfg.TEST.SEARCH_SIZE,
    }
    return {
        "name": name, "script": cfg.script, "config": cfg.name, "layers": model.depth, **architecture,
        "parameters": counts.parameters, "thop_parameters": counts.thop_parameters,
        "thop_macs": counts.thop_macs, "macs": counts.macs,
        "latency_ms": {"median": timings.median_ms, "p95": timings.p95_ms}, "fps": timings.fps, "speed_up": None,
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
        "libraries": {name: metadata.version(name) for name in ("torch", "timm", "thop", "numpy")
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


def report_text(report: dict[str, Any]) -> str:
    """A report of `profile_config` as a table: one column per model, the paper's numbers beside ours."""
    facts = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    lines = [
        f"{report['script']}/{report['config']}",
        f"{facts['device_name']} ({facts['device']}), {facts['threads']} CPU threads, {report['precision']}, "
        f"batch {report['batch']}, {report['iterations']} timed passes after {report['warmup']}",
        f"Python {facts['python']}, {versions}",
    ]
    if "cuda" in facts:
        lines.append(f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}, matrix products {facts['matmul_precision']}, "
                     f"TF32 convolutions {'on' if facts['tf32_convolutions'] else 'off'}")
    rows = [("", lambda m: m["name"]), ("layers", lambda m: str(m["layers"])),
            ("parameters, M", lambda m: _beside_paper(m["thop_parameters"] / 1e6, m, "params_m", "params_match")),
            ("  with unused embeddings", lambda m: f"{m['parameters'] / 1e6:.3f}"),
            ("MACs by thop, G", lambda m: _beside_paper(m["thop_macs"] / 1e9, m, "macs_g", "macs_match")),
            ("MACs with attention, G", lambda m: f"{m['macs'] / 1e9:.3f}"),
            ("latency median, ms", lambda m: f"{m['latency_ms']['median']:.2f}"),
            ("latency p95, ms", lambda m: f"{m['latency_ms']['p95']:.2f}"),
            ("FPS", lambda m: f"{m['fps']:.1f}" + (f"  (paper, RTX 2080 Ti: {m['published']['fps']})"
                                                   if m["published"] else ""))]
    reference = next((m["speed_up"]["over"] for m in report["models"] if m["speed_up"]), None)
    if reference:
        rows.append((f"times faster than {reference}", _speed_up_text))
    cells = [[label, *(value(model) for model in report["models"])] for label, value in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines += [""] + ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    if any(model["published"] for model in report["models"]):
        lines += ["", f"Paper: {report['published']['source']}.", report["published"]["note"]]
    return "\n".join(lines)


def _beside_paper(value: float, model: dict[str, Any], key: str, match: str) -> str:
    """A count with the paper's beside it and a mark that says whether they agree."""
    paper = model["published"]
    return f"{value:.3f}" + (f"  (paper {paper[key]}: {'match' if paper[match] else 'DIFFERS'})" if paper else "")


def _speed_up_text(model: dict[str, Any]) -> str:
    """The ratio with its spread over the blocks, and the paper's."""
    ratio = model["speed_up"]
    if ratio["over"] == model["name"]:
        return "1"
    text = f"{ratio['median']:.2f} (p10-p90 {ratio['p10']:.2f}-{ratio['p90']:.2f})"
    return text + (f"  (paper {model['published']['speed_up']:.2f})" if model["published"] else "")
