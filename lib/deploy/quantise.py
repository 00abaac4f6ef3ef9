"""int8 by static quantisation of an ONNX graph, with the ranges of its activations measured on a user's frames."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lib.deploy.backends import missing

PRODUCTS = ("Conv", "Gemm", "MatMul")
PERCENTILE = 99.99
"""Share of an activation's values, in percent, that its 8 bits cover; the rest is clipped (docs/performance.md)."""


def quantise_onnx(source: Path, target: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write the int8 form of an ONNX graph.

    The products with weights (linear layers, convolutions) become int8: weights by output channel, symmetric;
    activations by tensor, in 0..255. The last products before the outputs, norms, softmax, attention's own products and
    the rest stay float32: they are little work, and a map's last layer shows every rounding. The graph holds
    QuantizeLinear/DequantizeLinear pairs, which ONNX Runtime and OpenVINO turn into int8 kernels.

    Args:
        source: a float32 graph.
        target: the file to write.
        feeds: the graph's named inputs for each calibration pass.

    Raises:
        UserError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
    except ImportError as error:
        raise missing("onnx onnxruntime", "precision int8") from error

    class Reader(CalibrationDataReader):
        """One pass at a time: the values of many would fill the memory."""

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._iterator = iter(feeds[start_index:end_index])

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self._iterator, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)    # it advises a pre-processing that the exporter has done
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=list(PRODUCTS),
                nodes_to_exclude=last_products(onnx.load(str(source)).graph),
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1, "MatMulConstBOnly": True,
                               "WeightSymmetric": True})
    finally:
        logging.getLogger().setLevel(level)


def last_products(graph) -> list[str]:
    """Names of the nodes of `PRODUCTS` from which an ONNX graph's outputs are reached through no other such node."""
    reached, found = {output.name for output in graph.output}, []
    for node in reversed(graph.node):              # nodes stand in the order of computation
        if reached.intersection(node.output):
            if node.op_type in PRODUCTS:
                found.append(node.name)
            else:
                reached.update(node.input)
    return found
