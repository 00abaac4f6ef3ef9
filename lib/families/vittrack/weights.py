"""The zoo's ONNX file as weights of the model here.

BatchNorm is folded into the convolutions there, so it does nothing here: mean and shift 0, variance and scale such that
the output is the input. The matrices of the layers and the convolutions have no names in the file; they are found by
the order in which the graph uses them.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.file_kinds import begins_as_onnx
from ...models.one_stream import OneStreamTracker
from ...utils.errors import UserError


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX model, by how it begins; one that cannot be opened is none."""
    try:
        with open(path, "rb") as file:
            return begins_as_onnx(file.read(3))
    except OSError:
        return False


def read_onnx(path: Path, model: OneStreamTracker) -> dict[str, Tensor]:
    """The state dict for `model` from VitTrack's ONNX file.

    Raises:
        UserError: the package onnx is missing, or the file is damaged or another graph.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError(f"{path} is an ONNX file; reading it needs the package onnx: pip install onnx") from error
    try:
        graph = onnx.load(str(path)).graph
    except (DecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as an ONNX file: it is truncated or damaged; download it "
                        "again") from error
    values = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    state = {"backbone." * (not name.startswith("box_head.")) + name: value for name, value in values.items()
             if not name.isdigit()}
    convolutions, products = _unnamed(graph, "Conv", values), _unnamed(graph, "MatMul", values)
    places = [name for name, module in model.named_modules()
              if isinstance(module, nn.Conv2d) and f"{name}.weight" not in state]
    branches = ("backbone.patch_embed", "ctr", "offset", "size")  # the graph's order
    order = [name for branch in branches for name in places if branch in name]
    linears = [f"backbone.blocks.{index}.{part}.weight" for index in range(model.depth)
               for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    if len(convolutions) != len(order) or len(products) != len(linears):
        raise UserError(f"{path} is not VitTrack's graph: it has {len(convolutions)} convolutions and {len(products)} "
                        f"matrices, the configured model {len(order)} and {len(linears)}. Expected the file "
                        "object_tracking_vittrack_2023sep.onnx of the OpenCV zoo and a configuration of its shape")
    for name, (weight, bias) in zip(order, convolutions, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    state |= {name: weight.T.contiguous() for name, (weight,) in zip(linears, products, strict=True)}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            ones, zeros = torch.ones(module.num_features), torch.zeros(module.num_features)
            state |= {f"{name}.weight": ones, f"{name}.bias": zeros, f"{name}.running_mean": zeros.clone(),
                      f"{name}.running_var": ones * (1 - module.eps), f"{name}.num_batches_tracked": torch.tensor(0)}
    return state


def _unnamed(graph: Any, kind: str, values: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
    """The unnamed constants of the nodes of a kind, in the graph's order, each once."""
    names = [tuple(name for name in node.input if name in values and name.isdigit())
             for node in graph.node if node.op_type == kind]
    return [tuple(values[name] for name in of_node) for of_node in dict.fromkeys(names) if of_node]
