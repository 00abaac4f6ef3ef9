"""Run exported trackers: each backend loads a graph's file and maps named tensors to named tensors."""

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..models.base import Prediction
from ..utils.device import choose_dtype
from ..utils.errors import UserError
from .formats import ENGINES, own_backend
from .manifest import Manifest, Part

Runner = Callable[[Mapping[str, Tensor]], list[Tensor]]
"""Named input tensors -> output tensors, in the order of the part's outputs."""


class ExportedModel:
    """An exported tracker as a model of the run-time tracker: `prepare` once per target, then a call per frame.

    Args:
        folder: what tracking/export_model.py wrote.
        backend: a key of `ENGINES`; None takes the format's own.
        device: where PyTorch's and TensorRT's graphs run. ONNX Runtime takes CUDA where its package has it; OpenVINO
            runs on the CPU.

    Attributes:
        takes_pixels, takes_window: see `FastTracker`.
        host_inputs: the engine reads its inputs in the CPU's memory, whatever the device.

    Raises:
        UserError: the folder is unusable, the backend cannot run its format or is not installed, or the device does
            not have its precision.
    """

    def __init__(self, folder: str | Path, backend: str | None = None, device: torch.device | str = "cpu"):
        folder = Path(folder).expanduser()
        self.manifest = manifest = Manifest.read(folder)
        if backend is None:
            backend = own_backend(manifest.format)
        if backend not in ENGINES:
            raise UserError(f"unknown backend {backend!r}; choose one of {', '.join(ENGINES)}")
        if manifest.format not in ENGINES[backend]:
            able = [name for name, formats in ENGINES.items() if manifest.format in formats]
            raise UserError(f"backend {backend} runs {' and '.join(ENGINES[backend])}, but {folder} holds "
                            f"{manifest.format}; choose {' or '.join(able)}, or export again")
        self.backend, self.takes_pixels = backend, manifest.take_pixels
        self.host_inputs = backend in _READ_ON_HOST
        main = manifest.parts[manifest.main]
        self.takes_window = "window" in main.inputs and "boxes" in main.outputs
        self._device = torch.device(device)
        choose_dtype(manifest.precision, self._device, f"the precision of {folder}")
        self._runners: dict[str, Runner] = {}
        for name, part in manifest.parts.items():
            try:
                self._runners[name] = _LOADERS[backend](folder / part.file, part, self._device, manifest.precision)
            except UserError:
                raise
            except Exception as error:  # damaged files make the engines fail in any way
                raise UserError(f"{backend} cannot load {folder / part.file}: it is damaged, or written for another "
                                f"version of {backend}; export again here") from error

    def prepare(self, template: Tensor) -> Tensor:
        """Template crops -> what the calls take as `template`: what the graph `template` gives (`FastTracker.prepare`),
        or the crops where one graph does all; a single one may come without a dimension for their number."""
        if "template" not in self.manifest.parts:
            several = len(self.manifest.parts["tracker"].inputs["template"].shape) == 5
            return template.unsqueeze(1) if several and template.dim() == 4 else template
        return self._run("template", {"template": template})["tokens"]

    def __call__(self, template: Tensor, search: Tensor, further: Mapping[str, Tensor] | None = None,
                 window: Tensor | None = None) -> Prediction:
        """One batch: see `FastTracker.forward`. Graphs for one image run once for each."""
        further = further or {}
        if self.manifest.batch == 1 and len(template) == len(search) > 1:
            single = [self(template[row:row + 1], search[row:row + 1],
                           {name: tensor[row:row + 1] for name, tensor in further.items()}, window).tensors()
                      for row in range(len(search))]
            return _prediction({name: torch.cat([tensors[name] for tensors in single]) for name in single[0]})
        main = self.manifest.main
        inputs = {**further, "tokens" if main == "search" else "template": template, "search": search}
        port = self.manifest.parts[main].inputs.get("window")
        if port is not None:
            inputs["window"] = torch.ones(port.shape, device=search.device) if window is None else window
        outputs = self._run(main, inputs)
        if "boxes" not in outputs:                 # a foreign graph that leaves the decoding to the tracker
            outputs["boxes"] = search.new_full((len(search), 1, 4), torch.nan, dtype=torch.float32)
        return _prediction(outputs)

    def _run(self, name: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        part = self.manifest.parts[name]
        feeds = {}
        for role, port in part.inputs.items():
            if role not in inputs:
                raise UserError(f"the exported graph {part.file} needs {role}, which was not given")
            tensor = inputs[role]
            fits = len(tensor.shape) == len(port.shape) and all(
                isinstance(want, str) or want == size for want, size in zip(port.shape, tensor.shape, strict=True))
            if not fits:
                raise UserError(f"the exported graph {part.file} takes {role} of shape {_shape(port.shape)}, not "
                                f"{_shape(tensor.shape)}; export with the sizes and the batch that you need")
            feeds[port.name] = tensor
        outputs = self._runners[name](feeds)
        return {role: output.to(self._device) for role, output in zip(part.outputs, outputs, strict=True)}


def _prediction(tensors: Mapping[str, Tensor]) -> Prediction:
    """The opposite of `Prediction.tensors`."""
    fields = {name: tensors.get(name) for name in Prediction._fields[:-1]}
    return Prediction(**fields, further={name: tensors[name] for name in tensors if name not in fields} or None)


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def require(packages: str, purpose: str) -> ModuleType:
    """Import packages of the `export` extra.

    Args:
        packages: names with spaces between them.
        purpose: what needs them, for the message.

    Returns:
        the last one.

    Raises:
        UserError: some are not installed.
    """
    absent, cause = [], None
    for name in packages.split():
        try:
            module = import_module(name)
        except ImportError as error:
            absent, cause = [*absent, name], error
    if absent:
        names = " ".join(absent)
        raise UserError(f"{purpose} needs the package {names}; install it with: pip install {names}") from cause
    return module


def check_backend(backend: str, device: torch.device) -> None:
    """Refuse a backend of `ENGINES` that cannot run here, before the work for it.

    Raises:
        UserError: its package is not installed, or does not run on `device`.
    """
    if backend in _PACKAGES:
        _PACKAGES[backend](device)


def _onnxruntime_for(device: torch.device) -> ModuleType:
    onnxruntime = require("onnxruntime", "backend onnxruntime")
    if device.type == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UserError("backend onnxruntime on CUDA needs the package onnxruntime-gpu instead of onnxruntime; install "
                        "it, or use --device cpu")
    return onnxruntime


def _openvino_for(device: torch.device) -> ModuleType:
    openvino = require("openvino", "backend openvino")
    if device.type != "cpu":
        raise UserError(f"backend openvino runs on the CPU, not on {device}; use --device cpu")
    return openvino


def _tensorrt_for(device: torch.device) -> ModuleType:
    tensorrt = require("tensorrt", "backend tensorrt")
    if device.type != "cuda":
        raise UserError(f"backend tensorrt needs a CUDA device, not {device}")
    return tensorrt


def session_options(onnxruntime: ModuleType) -> Any:
    """How ONNX Runtime is to run a graph: silent, with PyTorch's number of threads, and with exact sums of 8-bit
    products on x86 CPUs without VNNI instructions, too, where its usual ones overflow (`session.x64quantprecision`)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _onnxruntime(path: Path, part: Part, device: torch.device, precision: str) -> Runner:
    onnxruntime = _onnxruntime_for(device)
    options = session_options(onnxruntime)
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": 0}))
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if len(providers) > len(session.get_providers()):     # it falls back to the CPU without an error
        raise UserError("onnxruntime found no CUDA and cuDNN libraries that it can load; install those its package "
                        "onnxruntime-gpu names, or use --device cpu")
    names = [port.name for port in part.outputs.values()]

    def run(feeds: Mapping[str, Tensor]) -> list[Tensor]:
        outputs = session.run(names, {name: tensor.cpu().numpy() for name, tensor in feeds.items()})
        return [torch.from_numpy(output) for output in outputs]

    return run


@functools.cache
def _the_core(openvino: ModuleType) -> Any:
    """OpenVINO's one core of this process. It is never given up: its CPU plugin makes a signal stack of its own the
    thread's and frees it in the end, so that the next signal would kill the process."""
    return openvino.Core()


def _openvino(path: Path, part: Part, device: torch.device, precision: str) -> Runner:
    core = _the_core(_openvino_for(device))
    float_hint = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"  # beside int8
    hint = {"bfloat16": "bf16", "float16": "f16", "int8": float_hint}.get(precision, "f32")
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    ports = [compiled.output(port.name) for port in part.outputs.values()]

    def run(feeds: Mapping[str, Tensor]) -> list[Tensor]:
        outputs = request.infer({name: tensor.numpy() for name, tensor in feeds.items()})
        return [torch.from_numpy(outputs[port].copy()) for port in ports]

    return run


def _torch_graph(load: Callable[[Path, torch.device], Callable[..., Any]]) -> Callable[..., Runner]:
    """The loader of a format that PyTorch runs itself."""

    def make(path: Path, part: Part, device: torch.device, precision: str) -> Runner:
        module = load(path, device)

        def run(feeds: Mapping[str, Tensor]) -> list[Tensor]:
            return list(module(*(tensor.to(device) for tensor in feeds.values())))

        return run

    return make


def _load_torchscript(path: Path, device: torch.device) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # PyTorch advises torch.export, the other format
        module = torch.jit.load(str(path), device)
    _made_on(module, device)
    return module


def _made_on(module: torch.jit.ScriptModule, device: torch.device) -> None:
    """What a traced graph makes on its way, an `arange` for example, it makes where it was traced: here on `device`."""
    for part in module.modules():
        if hasattr(part, "forward"):
            for constant in part.graph.findAllNodes("prim::Constant"):
                if constant.output().type().kind() == "DeviceObjType":
                    constant.s_("value", str(device))


def _load_torchexport(path: Path, device: torch.device) -> Callable[..., Any]:
    from torch.export.passes import move_to_device_pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # PyTorch's own reader warns of its buffers
        program = torch.export.load(str(path))
    return (program if device.type == "cpu" else move_to_device_pass(program, device)).module()


def _tensorrt(path: Path, part: Part, device: torch.device, precision: str) -> Runner:
    tensorrt = _tensorrt_for(device)
    with torch.cuda.device(device):     # an engine belongs to the device that is current when it is made
        engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise UserError(f"tensorrt cannot load {path}; an engine only runs on the kind of GPU and the TensorRT "
                            "version that built it: export again here")
        context = engine.create_execution_context()

    def run(feeds: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.cuda.device(device):
            held = {name: tensor.to(device).contiguous() for name, tensor in feeds.items()}
            for name, tensor in held.items():
                context.set_input_shape(name, tuple(tensor.shape))
                context.set_tensor_address(name, tensor.data_ptr())
            outputs = []
            for port in part.outputs.values():
                outputs.append(torch.empty(tuple(context.get_tensor_shape(port.name)), device=device))
                context.set_tensor_address(port.name, outputs[-1].data_ptr())
            context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream)
            return outputs

    return run


_LOADERS: dict[str, Callable[..., Runner]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torchscript": _torch_graph(_load_torchscript),
    "torchexport": _torch_graph(_load_torchexport),
    "tensorrt": _tensorrt,
}
_PACKAGES = {"onnxruntime": _onnxruntime_for, "openvino": _openvino_for, "tensorrt": _tensorrt_for}
"""Backend -> gives its package for a device; PyTorch runs the others."""
_READ_ON_HOST = ("onnxruntime", "openvino")
"""Backends that read their inputs in the CPU's memory."""
