"""int8 by static quantisation of an ONNX graph, with the ranges of its activations measured on a user's frames."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lib.deploy.backends import missing


def quantise_onnx(source: Path, target: Path, feeds: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write the int8 form of an ONNX graph.

    The products with weights (linear layers, convolutions) become int8: weights by output channel, symmetric;
    activations by tensor, in 0..255. Norms, softmax, attention's own products and the rest stay float32. The graph
    holds QuantizeLinear/DequantizeLinear pairs, which ONNX Runtime and OpenVINO turn into int8 kernels.

    Args:
        source: a float32 graph.
        target: the file to write.
        feeds: the graph's named inputs for each calibration pass.

    Raises:
        UserError: onnx or onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise missing("onnx onnxruntime", "precision int8") from error

    class Reader(CalibrationDataReader):
        def __init__(self, iterator: Iterator[Mapping[str, np.ndarray]]):
            self._iterator = iterator

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self._iterator, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)    # it advises a pre-processing that the exporter has done
    try:
        quantize_static(
            str(source), str(target), Reader(iter(feeds)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True})
    finally:
        logging.getLogger().setLevel(level)
