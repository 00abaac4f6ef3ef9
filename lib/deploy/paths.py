"""The ways in which a model can be run, ready to be timed: plain PyTorch, the fast module and exported graphs, in
several precisions."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import Config
from ..models.base import Prediction, StagedTracker
from ..models.layers.plain_attention import write_out_attention
from ..utils.errors import UserError
from .backends import ExportedModel
from .counting import Counts, exact_macs
from .crops import usual_inputs
from .fast import DTYPES, HEAD_SWITCHES, FastOptions, build_fast, cast

PRECISIONS = DTYPES | {"int8": torch.int8}
"""Number formats that a path may have."""
USUAL = ("torch", "float32")
"""Backend and precision that names leave out."""
PLAIN = ("plain", "float32")
"""Backend and precision that the others are compared with: the official code's way."""


class Subject(NamedTuple):
    """A model that is profiled.

    Attributes:
        name: student, teacher, model or script/config.
        model: on the CPU, in eval mode; the paths run copies.
        cfg: its configuration.
        counts: its parameters, and the MACs of one image.
    """

    name: str
    model: StagedTracker
    cfg: Config
    counts: Counts


@dataclass(frozen=True, eq=False)
class ProfiledModel:
    """One model on one way of running it.

    Attributes:
        subject: the model.
        backend: plain, torch, fast, or the engine of an exported folder.
        precision: float32, bfloat16, float16, or int8 of an exported graph.
        run: (templates or what `run.prepare` gave, search, further inputs) -> `Prediction`.
        macs: multiply-accumulates of one image on this path.
        template_cached: the template is embedded once, not in every pass.
        note: what tells paths of one engine apart: the name of an exported folder, or of a switch.
    """

    subject: Subject
    backend: str
    precision: str
    run: Callable[..., Prediction]
    macs: int
    template_cached: bool
    note: str = ""

    @property
    def path(self) -> tuple[str, str]:
        """Backend and precision."""
        return self.backend, self.precision

    def name(self, batch: int) -> str:
        """The model's name, with path and batch behind it where they are not the usual ones."""
        path = [part for part, usual in zip(self.path, USUAL, strict=True) if part != usual]
        notes = [self.note] * bool(self.note) + [f"batch {batch}"] * (batch != 1)
        return " ".join([self.subject.name, *path, *notes])

    @property
    def weight_bytes(self) -> int:
        """Of the weights that a pass reads, in the path's precision."""
        return self.subject.counts.thop_parameters * PRECISIONS[self.precision].itemsize

    def call(self, batch: int, device: torch.device) -> Callable[[], Prediction]:
        """See `one_pass`."""
        return one_pass(self.run, self.subject.cfg, batch, device)


def one_pass(run: Callable[..., Prediction], cfg: Config, batch: int, device: torch.device
             ) -> Callable[[], Prediction]:
    """One pass over a batch of noise, with what is done once per target already done.

    Args:
        run: see `ProfiledModel`.
        cfg: of its model.
    """
    templates, search, further = example_inputs(cfg, batch, device, getattr(run, "takes_pixels", False))
    if hasattr(run, "prepare"):
        templates = run.prepare(templates)
    return partial(run, templates, search, further)


class _CastInputs(nn.Module):
    """A model whose weights have another precision than the crops."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype

    def forward(self, templates: Tensor, search: Tensor, further: Mapping[str, Tensor] | None = None) -> Prediction:
        return self.model(templates.to(self.dtype), search.to(self.dtype), cast(further, self.dtype))


def plain_path(subject: Subject, precision: str, device: torch.device) -> ProfiledModel:
    """As `torch_path`, with the attention written out as in the official repositories."""
    path = replace(torch_path(subject, precision, device), backend="plain")
    write_out_attention(path.run)
    return path


def torch_path(subject: Subject, precision: str, device: torch.device) -> ProfiledModel:
    """The model as it was trained, its weights turned to `precision`."""
    run: nn.Module = copy.deepcopy(subject.model)
    if precision != "float32":
        run = _CastInputs(run, DTYPES[precision])
    return ProfiledModel(subject, "torch", precision, run.to(device).eval(), subject.counts.macs, False)


def fast_path(subject: Subject, precision: str, device: torch.device, options: Sequence[str] = ()) -> ProfiledModel:
    """The fast module of a model, with `options` ("NAME=VALUE") over the best ones.

    Raises:
        UserError: an option that is unknown or that the device cannot do.
    """
    return _fast_path(subject, FastOptions.parse([f"dtype={precision}", *options], device), device)


def switch_paths(subject: Subject, precision: str, device: torch.device) -> list[ProfiledModel]:
    """The fast module with every switch of `FastOptions` that the device has: each alone over none at all, and each
    turned round in the best options for the device and precision; first none at all and the best."""
    none, best = replace(FastOptions.plain(), dtype=precision), FastOptions.best(device, precision)
    variants = {"no switch": none, "best": best}
    for field in fields(FastOptions):
        if isinstance(field.default, bool):
            variants[f"only {field.name}"] = _turned(none, field.name, True)
            on = getattr(best, field.name)
            variants[f"best {'without' if on else 'with'} {field.name}"] = _turned(best, field.name, not on)
    return [_fast_path(subject, options, device, note) for note, options in variants.items()
            if options is not None and options.unavailable(device) is None]


def _turned(options: FastOptions, name: str, value: bool) -> FastOptions | None:
    """The options with one switch turned; what it needs comes with it, and what needs it goes. None where the options
    exclude each other."""
    also = {}
    if value and name in HEAD_SWITCHES:
        also = {"fold_batchnorm": True} | {switch: False for switch in HEAD_SWITCHES if switch != name}
    if (name, value) == ("fold_batchnorm", False):
        also = dict.fromkeys(HEAD_SWITCHES, False)
    try:
        return replace(options, **also, **{name: value})
    except UserError:
        return None


def _fast_path(subject: Subject, options: FastOptions, device: torch.device, note: str = "") -> ProfiledModel:
    data = subject.cfg.DATA
    run = build_fast(subject.model, options, device=device, mean=data.MEAN, std=data.STD)
    return ProfiledModel(subject, "fast", options.dtype, run, _fast_macs(subject, options),
                         run.options.cache_template, note)


def exported_path(subject: Subject, folder: str | Path, device: torch.device) -> ProfiledModel:
    """A folder that the model was exported to, on its format's own engine.

    Raises:
        UserError: the folder is unusable, or holds another configuration's tracker.
    """
    run = ExportedModel(folder, None, device)
    facts, cfg = run.manifest, subject.cfg
    if (facts.script, facts.config) != (cfg.script, cfg.name):
        raise UserError(f"{folder} holds {facts.script}/{facts.config}, not {cfg.script}/{cfg.name}")
    cached = "template" in facts.parts
    options = FastOptions(cache_template=cached, peak_only="size_map" not in facts.parts[facts.main].outputs)
    macs = _fast_macs(subject, options)
    return ProfiledModel(subject, run.backend, facts.precision, run, macs, cached, Path(folder).resolve().name)


def _fast_macs(subject: Subject, options: FastOptions) -> int:
    """MACs of one image through the fast module, counted on shapes, without what the counter cannot see into."""
    visible = replace(options, dtype="float32", head_dtype=None, take_pixels=False, pack_linear=False, compile=False,
                      cuda_graph=False)
    fast = build_fast(subject.model, visible)
    templates, search, further = example_inputs(subject.cfg, 1, torch.device("cpu"), takes_pixels=False)
    fast, templates, search = (part.to("meta") for part in (fast, templates, search))
    further = {name: tensor.to("meta") for name, tensor in further.items()}
    return exact_macs(fast, fast.prepare(templates), search, further)


def example_inputs(cfg: Config, batch: int, device: torch.device, takes_pixels: bool
                   ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Templates, search and further inputs of a target that fills its box.

    Args:
        takes_pixels: crops as (B, h, w, 3) uint8 noise; else (B, 3, h, w) float32.
    """
    generator = torch.Generator().manual_seed(0)
    crops = []
    for side in (cfg.TEST.TEMPLATE_SIZE, cfg.TEST.SEARCH_SIZE):
        if takes_pixels:
            crop = torch.randint(0, 256, (batch, side, side, 3), generator=generator, dtype=torch.uint8)
        else:
            crop = torch.randn((batch, 3, side, side), generator=generator)
        crops.append(crop.to(device))
    side = 1 / cfg.TEST.TEMPLATE_FACTOR
    boxes = torch.tensor([[0.5 - side / 2, 0.5 - side / 2, side, side]]).expand(batch, -1).to(device)
    return usual_inputs(cfg, *crops, boxes)
