"""int8 by static quantisation of an ONNX graph, with the ranges of its activations measured on a user's frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Kinds of products. Gemm is a linear layer of single rows, which is little work and stays as it is."""
SMALLEST = 1e-5
"""Width of the range of an activation that is always 0."""


def quantise_onnx(source: Path, target: Path, feeds: Sequence[Mapping[str, np.ndarray]], symmetric: bool = False
                  ) -> None:
    """Write the int8 form of an ONNX graph.

    The inputs of the products with weights (linear layers, convolutions) become int8: weights by output channel,
    symmetric; activations by tensor. What a product gives stays a floating-point number, and so do norms, softmax,
    attention's own products, residuals, the last products before the outputs, whose roundings a map shows as they are,
    and the embedding of pixels, unless it reads bytes, which lose nothing. The mean error that rounded weights leave in
    each output channel is taken from its bias (Nagel et al., ICCV 2019, section 4.2). The graph holds pairs of
    QuantizeLinear and DequantizeLinear, which the engines turn into int8 kernels.

    Args:
        source: a float32 or float16 graph (float16: opset 19 or later).
        target: the file to write.
        feeds: the graph's named inputs for each calibration pass.
        symmetric: activations in -128..127 around zero, the only ones that TensorRT takes, instead of 0..255 with a
            zero point, which lose less.
    """
    import onnx

    model = onnx.load(str(source))
    weights = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    last, first = last_products(model.graph), embedding(model.graph)
    products = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in weights
                and node.name not in last]
    activations = _measure(model, products, feeds)
    chosen = {node.name for node in products
              if node.name not in first or activations[node.input[0]].bytes and not symmetric}
    model.graph.CopyFrom(_rewritten(model.graph, chosen, weights, activations, symmetric))
    onnx.save(model, str(target))


def last_products(graph: Any) -> list[str]:
    """Names of the nodes of `PRODUCTS` from which an ONNX graph's outputs are reached through no other such node."""
    reached, products = {output.name for output in graph.output}, []
    for node in reversed(graph.node):              # nodes stand in the order of computation
        if reached.intersection(node.output):
            if node.op_type in PRODUCTS:
                products.append(node.name)
            else:
                reached.update(node.input)
    return products


def embedding(graph: Any) -> list[str]:
    """Names of the convolutions that no MatMul precedes: those that make tokens of pixels."""
    after_product, convolutions = set(), []
    for node in graph.node:
        if node.op_type == "MatMul" or after_product.intersection(node.input):
            after_product.update(node.output)
        elif node.op_type == "Conv":
            convolutions.append(node.name)
    return convolutions


@dataclass
class Activation:
    """What the calibration passes saw of an activation.

    Attributes:
        low, high: smallest and largest value; 0 is always between them.
        bytes: whether all values were whole numbers in 0..255.
        total, number: per channel, the sum of the values and how many there were.
        rank: number of dimensions.
    """

    low: float = 0.0
    high: float = 0.0
    bytes: bool = True
    total: np.ndarray | float = 0.0
    number: int = 0
    rank: int = 0

    def add(self, values: np.ndarray, channel: int) -> None:
        """Take the values of a pass into account; `channel` is the dimension of the channels."""
        values = values.astype(np.float32)
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        self.bytes = self.bytes and bool((values == np.rint(values).clip(0, 255)).all())
        self.total += values.sum(tuple(i for i in range(values.ndim) if i != channel), dtype=np.float64)
        self.number += values.size // values.shape[channel]
        self.rank = values.ndim

    def quantisation(self, symmetric: bool) -> tuple[float, int]:
        """Scale and zero point of the 8-bit numbers from the smallest to the largest value."""
        if symmetric:
            return max(-self.low, self.high, SMALLEST) / 127, 0
        if self.bytes:
            return 1.0, 0
        scale = max(self.high - self.low, SMALLEST) / 255
        return scale, round(-self.low / scale)

    def lost(self, weights: np.ndarray, axis: int) -> np.ndarray:
        """What weights, with their output channels along `axis`, make of the mean value: a mean for each channel."""
        mean = self.total / self.number
        if axis == 1:
            return mean @ weights
        by_group = weights.reshape(len(mean) // weights.shape[1], -1, *weights.shape[1:])  # (groups, O, I, h, w)
        return np.einsum("goihw,gi->go", by_group, mean.reshape(len(by_group), -1)).reshape(-1)


def _measure(model: Any, products: Sequence[Any], feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Activation]:
    """Run a graph over the feeds and watch the inputs of its products."""
    import onnx
    import onnxruntime

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    activations = {node.input[0]: Activation() for node in products}
    graph_inputs = {value.name for value in model.graph.input}
    watched = [name for name in activations if name not in graph_inputs]
    outputs = {value.name for value in model.graph.output}
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name)
                               for name in watched if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        values = {**feed, **dict(zip(watched, session.run(watched, dict(feed)), strict=True))}
        for node in {node.input[0]: node for node in products}.values():
            value = values[node.input[0]]
            activations[node.input[0]].add(value, 1 if node.op_type == "Conv" else value.ndim - 1)
    return activations


def round_weights(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8 in -127..127, and their scales, one for each output channel (dimension `axis`)."""
    largest = np.abs(weights).max(tuple(i for i in range(weights.ndim) if i != axis))
    scales = np.maximum(largest / 127, np.finfo(weights.dtype).tiny).astype(weights.dtype)
    return np.rint(weights / _along(scales, weights.ndim, axis)).clip(-127, 127).astype(np.int8), scales


def _along(vector: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A vector as an array of `rank` dimensions that lies along one of them."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def _rewritten(graph: Any, chosen: set[str], weights: Mapping[str, np.ndarray],
               activations: Mapping[str, Activation], symmetric: bool) -> Any:
    """The graph with a pair of nodes before each input of the chosen products, and with their new biases."""
    from onnx import helper, numpy_helper

    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes, values, quantised = [], {value.name: value for value in graph.initializer}, set()

    def hold(name: str, array: np.ndarray) -> str:
        values[name] = numpy_helper.from_array(array, name)
        return name

    for node in graph.node:
        if node.name in chosen:
            x, w, axis = *node.input[:2], 0 if node.op_type == "Conv" else 1
            rounded, scales = round_weights(weights[w], axis)
            if x not in quantised:
                scale, zero = activations[x].quantisation(symmetric)
                rule = [hold(f"{x}_scale", np.array(scale, scales.dtype)),
                        hold(f"{x}_zero", np.array(zero, np.int8 if symmetric else np.uint8))]
                nodes += [helper.make_node("QuantizeLinear", [x, *rule], [f"{x}_int8"], f"{x}_quantise"),
                          helper.make_node("DequantizeLinear", [f"{x}_int8", *rule], [f"{x}_back"], f"{x}_dequantise")]
            if w not in quantised:
                rule = [hold(f"{w}_int8", rounded), hold(f"{w}_scale", scales),
                        hold(f"{w}_zero", np.zeros(len(scales), np.int8))]
                nodes.append(helper.make_node("DequantizeLinear", rule, [f"{w}_back"], f"{w}_dequantise", axis=axis))
            quantised |= {x, w}
            node.input[0], node.input[1] = f"{x}_back", f"{w}_back"
            holder, place = _bias(node, readers, weights)
            if holder is not None:
                lost = weights[w] - rounded * _along(scales, rounded.ndim, axis)
                bias = weights[holder.input[place]] + activations[x].lost(lost, axis)
                # ONNX Runtime makes a Gemm of a MatMul with a bias of one dimension, and has no int8 kernel for that
                shape = [-1] if node.op_type == "Conv" else [1] * (activations[x].rank - 1) + [-1]
                holder.input[place] = hold(f"{node.name}_bias", bias.astype(scales.dtype).reshape(shape))
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    return helper.make_graph(nodes, graph.name, graph.input, graph.output,
                             [value for name, value in values.items() if name in used])


def _bias(product: Any, readers: Mapping[str, list[Any]], weights: Mapping[str, np.ndarray]) -> tuple[Any, int]:
    """The node that adds a product's bias, and which of its inputs that is; (None, 0) without a bias."""
    if product.op_type == "Conv":
        return (product, 2) if len(product.input) > 2 else (None, 0)
    adder, *other_readers = readers.get(product.output[0], [None])
    if adder is None or other_readers or adder.op_type != "Add":
        return None, 0
    return next(((adder, i) for i, name in enumerate(adder.input) if name in weights and weights[name].ndim == 1),
                (None, 0))
