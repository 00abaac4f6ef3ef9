"""Write a trained tracker in the format of an inference engine, and prove that it computes the same."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Config
from ..models.base import StagedTracker
from ..models.heads import decode
from ..utils.device import full_float32
from ..utils.errors import UserError
from ..utils.files import atomic_folder, file_hash
from ..utils.ownership import own
from .backends import ExportedModel, require
from .crops import CropPair, changing_sizes, crop_pairs, model_inputs, score_weights
from .fast import FastOptions, FastTracker, PlainTracker, build_fast
from .formats import INT8_WRITERS, WRITERS, ExportOptions
from .manifest import MANIFEST, Manifest, Part, Port
from .quantise import quantise_onnx

logger = logging.getLogger(__name__)

WITHOUT_BATCH = ("window",)
"""Roles of the inputs that all images share."""
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt", "torchexport": ".pt2", "tensorrt": ".engine"}
OPSET = 20
LIBRARIES = ("torch", "timm", "onnx", "onnxruntime", "openvino", "tensorrt")
MOST_TENSORRT = 16
"""Largest number of images, or of templates, of a TensorRT engine that takes any."""
TOLERANCE = 1e-3
"""Largest difference of a float32 export; one beyond it means other arithmetic, not other rounding."""
SUSPICIOUS = 0.1
"""Difference from which a warning is given for the other precisions."""


class _Graph(nn.Module):
    """One part of a tracker, with its outputs as a tuple of float32 tensors."""

    def __init__(self, fast: FastTracker | PlainTracker, part: str, roles: Iterable[str]):
        super().__init__()
        self.fast, self.part, self.further = fast, part, list(roles)[2:]

    def forward(self, template: Tensor, search: Tensor | None = None, *extra_inputs: Tensor) -> tuple[Tensor, ...]:
        """`template` alone for the part template; its tokens stand in its place for the part search. `extra_inputs` are
        further inputs and the window, as far as the model takes them."""
        if self.part == "template":
            return (self.fast.embed_template(template).float(),)
        if self.part == "search":
            template = template.to(self.fast.dtype)
        further = dict(zip(self.further, extra_inputs, strict=True))
        window = {"window": further.pop("window")} if "window" in further else {}
        outputs = self.fast(template, search, further, **window).tensors()
        self.roles = list(outputs)
        return tuple(output.float() for output in outputs.values())


def export_model(model: StagedTracker, cfg: Config, checkpoint: Path, target: Path, options: ExportOptions
                 ) -> Manifest:
    """Write the folder `target` with the graphs of a model and their manifest; it appears whole or not at all.

    Args:
        model: with its trained weights, on the CPU.
        cfg: the configuration that it was trained with.
        checkpoint: the file the weights are from.
        target: an older export there is replaced; anything else is left alone.

    Returns:
        the manifest, with the largest difference from `model` on the check's crops.

    Raises:
        UserError: a package is missing, no such frames, another folder in the way, another export to it that is still
            being made, or a full disk.
        RuntimeError: a float32 export differs from the model by more than `TOLERANCE`.
    """
    target, cfg = Path(target).expanduser().absolute(), cfg.student
    check_packages(options)
    model.eval()
    pairs = crop_pairs(options.frames, options.check_crops, cfg)
    device = torch.device("cuda" if options.format == "tensorrt" else "cpu")
    with own(target.with_name(f".{target.name}.export")), atomic_folder(target, MANIFEST) as folder:
        parts = _write_parts(model, cfg, folder, options, pairs[0])
        manifest = _manifest(cfg, options, parts, checkpoint)
        manifest.write(folder)
        with full_float32():
            logger.info("comparing with PyTorch on %d crops", len(pairs))
        difference = compare(model, ExportedModel(folder, device=device), pairs, cfg)
        worst = np.max(list(difference.values()))      # NaN where there is one
        if options.precision == "float32" and not worst <= TOLERANCE:
            raise RuntimeError(f"the export differs from the PyTorch model by {difference}; nothing was written")
        if not worst <= SUSPICIOUS:
            logger.warning("the export differs much from the PyTorch model; measure what it tracks like before you use "
                           "it (tracking/test.py --exported)")
        manifest = replace(manifest, largest_difference=difference)
        manifest.write(folder)
    return manifest


def check_packages(options: ExportOptions) -> None:
    """Refuse an export that cannot be written here, before the work for it.

    Raises:
        UserError: a package is missing. What runs the export has a check of its own (`check_backend`).
    """
    if options.format in WRITERS:
        require(WRITERS[options.format], f"format {options.format}")
    if options.precision == "int8":
        require(INT8_WRITERS, "precision int8")


def compare(model: StagedTracker, exported: ExportedModel, pairs: Sequence[CropPair], cfg: Config
            ) -> dict[str, float]:
    """Largest absolute difference of each field of the predictions on crops. The boxes are compared at the cell that
    the export chose, since two cells whose scores are nearly equal may change places by rounding."""
    size = exported.manifest.batch
    largest: dict[str, float] = {}
    weights = score_weights(cfg)
    for pair in _batches(pairs, 2 if isinstance(size, str) else size):
        with torch.inference_mode():
            expected = model(*model_inputs(pair, cfg, False))
            templates, *inputs = model_inputs(pair, cfg, exported.takes_pixels)
            extra_inputs = {"window": weights} if exported.takes_window else {}
            prediction = exported(exported.prepare(templates), *inputs, **extra_inputs).map(Tensor.cpu)
        if expected.size_map is not None:
            scores = prediction.score_map * weights if exported.takes_window else prediction.score_map
            boxes = decode(scores, expected.size_map, expected.offset_map).unsqueeze(1)
            expected = expected._replace(boxes=boxes)
        wanted = expected.tensors()
        for name, value in prediction.tensors().items():
            difference = (value - wanted[name]).abs().max().item()
            largest[name] = float(np.maximum(difference, largest.get(name, 0.0)))
    return largest


def _batches(pairs: Sequence[CropPair], size: int) -> Iterator[CropPair]:
    """The pairs in batches; the last is filled up with its last pair."""
    for start in range(0, len(pairs), size):
        chunk = list(pairs[start:start + size])
        chunk += chunk[-1:] * (size - len(chunk))
        yield CropPair(*(torch.cat(tensors) for tensors in zip(*chunk, strict=True)))


def _write_parts(model: StagedTracker, cfg: Config, folder: Path, options: ExportOptions, pair: CropPair
                 ) -> dict[str, Part]:
    """Write every graph into `folder`."""
    fast = build_fast(model, FastOptions(cache_template=not options.joint, take_pixels=options.take_pixels,
                                         peak_only=not options.maps, dtype=_graph_dtype(options)),
                      mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    names = ("template", "search") if fast.options.cache_template else ("tracker",)
    inputs = _part_inputs(fast, next(_batches([pair], options.batch or 2)), cfg)
    graphs = {name: _Graph(fast, name, inputs[name]).eval() for name in names}
    changing = changing_sizes(cfg)
    parts = {name: _describe(graph, inputs[name], name, options, changing) for name, graph in graphs.items()}
    if options.format == "tensorrt":
        _require_tensorrt(parts, options.precision)
    for name, graph in graphs.items():
        logger.info("writing %s (%s)", parts[name].file, options.precision)
        feeds = None
        if options.precision == "int8" and name != "template":          # the template's part runs once per target
            crops = crop_pairs(options.frames, options.calibration_crops, cfg)
            feeds = [{port.name: tensor.numpy() for port, tensor in
                      zip(parts[name].inputs.values(), _part_inputs(fast, group, cfg)[name].values(), strict=True)}
                     for group in _batches(crops, options.batch or 1)]
        _write_graph(graph, parts[name], inputs[name], folder / parts[name].file, options, feeds)
    return parts


def _graph_dtype(options: ExportOptions) -> str:
    """Number format of what PyTorch writes; OpenVINO lowers it itself, and int8 comes later."""
    if options.precision == "int8" and options.format == "tensorrt":
        return "float16"                # TensorRT computes what is not int8 in the format of the graph
    return "float32" if options.precision == "int8" or options.format == "openvino" else options.precision


@torch.inference_mode()
def _part_inputs(fast: FastTracker | PlainTracker, pair: CropPair, cfg: Config) -> dict[str, dict[str, Tensor]]:
    """Part -> its inputs by role."""
    template, search, further = model_inputs(pair, cfg, fast.takes_pixels)
    search_inputs = {"search": search, **further, **({"window": score_weights(cfg)} if fast.takes_window else {})}
    inputs = {"template": {"template": template}, "tracker": {"template": template, **search_inputs}}
    if fast.options.cache_template:
        inputs["search"] = {"tokens": fast.embed_template(template).float(), **search_inputs}
    return {part: {role: tensor.clone() for role, tensor in tensors.items()} for part, tensors in inputs.items()}


@torch.inference_mode()
def _describe(graph: _Graph, inputs: dict[str, Tensor], name: str, options: ExportOptions,
              changing: Mapping[str, Sequence[int]]) -> Part:
    """The manifest's entry of a part; for `changing` see `changing_sizes`."""

    def port(role: str, tensor: Tensor, name: str = "") -> Port:
        sizes: list[int | str] = list(tensor.shape)
        if not options.batch and role not in WITHOUT_BATCH:
            sizes[0] = "batch"
        for axis in changing.get(role, ()):
            sizes[axis] = "templates"
        return Port(name or role, tuple(sizes), str(tensor.dtype).removeprefix("torch."))

    outputs = graph(*inputs.values())
    roles = ["tokens"] if name == "template" else graph.roles
    # what goes out and into the next call has two names in the graph
    return Part(name + ENDINGS[options.format], {role: port(role, tensor) for role, tensor in inputs.items()},
                {role: port(role, tensor, f"{role}_out" if role in inputs else role)
                 for role, tensor in zip(roles, outputs, strict=True)})


def _write_graph(graph: _Graph, part: Part, inputs: dict[str, Tensor], path: Path, options: ExportOptions,
                 feeds: Sequence[Mapping[str, np.ndarray]] | None) -> None:
    """Write one graph to `path`; with `feeds` in int8."""
    tensors = tuple(inputs.values())
    if options.format == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # it warns of each Python number, which are the fixed sizes here
            torch.jit.save(torch.jit.trace(graph, tensors, check_trace=False), str(path))
        return
    if options.format == "torchexport":
        program = torch.export.export(graph, tensors, dynamic_shapes=_dynamic(part))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # of weights that share their memory
            torch.export.save(program, str(path))
        return
    with TemporaryDirectory(dir=path.parent) as scratch:
        onnx = Path(scratch) / "graph.onnx"
        _write_onnx(graph, part, inputs, onnx)
        if feeds is not None:
            quantise_onnx(onnx, Path(scratch) / "int8.onnx", feeds, symmetric=options.format == "tensorrt")
            onnx = Path(scratch) / "int8.onnx"
        if options.format == "onnx":
            onnx.replace(path)
        elif options.format == "openvino":
            _write_openvino(onnx, path)
        else:
            _write_tensorrt(onnx, path, part)


def _dynamic(part: Part) -> tuple[Any, ...] | None:
    """The free sizes of the inputs for PyTorch's exporter."""
    dims: dict[str, Any] = {}
    sizes: list[Any] = [{axis: dims.setdefault(size, torch.export.Dim(size, min=1, max=1024))
                         for axis, size in enumerate(port.shape) if isinstance(size, str)}
                        for port in part.inputs.values()]
    return (*sizes[:2], tuple(sizes[2:]))[:len(sizes)] if dims else None     # the rest is one parameter of the graph's


def _write_onnx(graph: _Graph, part: Part, inputs: dict[str, Tensor], path: Path) -> None:
    names = [[port.name for port in ports.values()] for ports in (part.inputs, part.outputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(graph, tuple(inputs.values()), str(path), input_names=names[0], output_names=names[1],
                          dynamo=True, dynamic_shapes=_dynamic(part), opset_version=OPSET,
                          external_data=False, verbose=False)


def _write_openvino(onnx: Path, path: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)


def _require_tensorrt(parts: dict[str, Part], precision: str) -> None:
    """UserError, with the way around where there is one, where TensorRT's package or a GPU is missing."""
    if find_spec("tensorrt") is not None and torch.cuda.is_available():
        return
    needs = "format tensorrt needs the package tensorrt and a CUDA GPU; install it with: pip install tensorrt"
    if precision == "int8":
        raise UserError(f"{needs}. (An int8 export in format onnx is no way around: its numbers are not symmetric.)")
    commands = []
    for part in parts.values():
        file = Path(part.file)
        command = f"trtexec --onnx={file.with_suffix('.onnx')} --saveEngine={file} --stronglyTyped --noTF32"
        for flag, most in (("min", 1), ("opt", 1), ("max", MOST_TENSORRT)):
            shapes = [f"{port.name}:{'x'.join(str(most if isinstance(size, str) else size) for size in port.shape)}"
                      for port in part.inputs.values() if any(isinstance(size, str) for size in port.shape)]
            command += f" --{flag}Shapes={','.join(shapes)}" if shapes else ""
        commands.append(command)
    raise UserError(f"{needs}. With TensorRT's own program instead, export with --format onnx and run in that folder: "
                    + " && ".join(commands))


def _write_tensorrt(onnx: Path, path: Path, part: Part) -> None:
    """Build an engine for this machine's GPU; its number formats are those of the graph."""
    import tensorrt

    log = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(log)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        raise RuntimeError(f"TensorRT cannot read the graph: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)      # float32 of a graph is float32
    profile = builder.create_optimization_profile()
    for port in part.inputs.values():
        low, high = (tuple(free if isinstance(size, str) else size for size in port.shape)
                     for free in (1, MOST_TENSORRT))
        profile.set_shape(port.name, low, low, high)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("TensorRT could not build an engine; its log above says why")
    path.write_bytes(engine)


def _manifest(cfg: Config, options: ExportOptions, parts: dict[str, Part], checkpoint: Path) -> Manifest:
    test = cfg.TEST
    libraries = {name: metadata.version(name) for name in LIBRARIES if any(metadata.distributions(name=name))}
    return Manifest(
        script=cfg.script, config=cfg.name, format=options.format, precision=options.precision, parts=parts,
        template_size=test.TEMPLATE_SIZE, template_factor=test.TEMPLATE_FACTOR, search_size=test.SEARCH_SIZE,
        search_factor=test.SEARCH_FACTOR, stride=cfg.MODEL.BACKBONE.STRIDE, mean=cfg.DATA.MEAN, std=cfg.DATA.STD,
        window=test.WINDOW, take_pixels=options.take_pixels,
        family=cfg.family.name, rules=cfg.family.rule_values(cfg),
        checkpoint={"file": checkpoint.name, "sha256": file_hash(checkpoint)},
        checked_on=options.frames or "synthetic pictures", libraries=libraries)
