"""The forms in which a tracker can be exported, and what runs them."""

from dataclasses import dataclass

from ..utils.errors import UserError

PRECISIONS = {
    "onnx": ("float32", "float16", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "torchscript": ("float32", "bfloat16", "float16"),
    "torchexport": ("float32", "bfloat16", "float16"),
    "tensorrt": ("float32", "float16", "int8"),
}
"""Format -> precisions that can be written."""
ENGINES = {
    "onnxruntime": ("onnx",),
    "openvino": ("openvino", "onnx"),
    "torchscript": ("torchscript",),
    "torchexport": ("torchexport",),
    "tensorrt": ("tensorrt",),
}
"""Backend -> the formats it runs, the format's own backend first."""
WRITERS = {"onnx": "onnx onnxscript", "openvino": "onnx onnxscript openvino", "tensorrt": "onnx onnxscript"}
"""Format -> the packages that write it, but for TensorRT's own, in whose place there is a program; PyTorch alone writes
the others."""
INT8_WRITERS = "onnx onnxruntime"
"""The packages that make a graph int8."""


def own_backend(format: str) -> str:
    """The backend that runs a format where none is named; empty for an unknown format."""
    return next((name for name, formats in ENGINES.items() if format in formats), "")


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    Attributes:
        format: a key of `PRECISIONS`.
        precision: one of its values.
        batch: images per call; 0 for any number.
        joint: one graph (template, search -> prediction) instead of two.
        take_pixels: uint8 crops in, the normalisation inside.
        maps: give the maps of size and offset of a CENTER head, too; score map and box alone are less work
            (`FastOptions.peak_only`).
        frames: sequences whose crops the export is checked on, and the int8 ranges measured on (see `crop_pairs`).
        calibration_crops, check_crops: how many.
    """

    format: str = "onnx"
    precision: str = "float32"
    batch: int = 1
    joint: bool = False
    take_pixels: bool = False
    maps: bool = False
    frames: str | None = None
    calibration_crops: int = 64
    check_crops: int = 8

    def __post_init__(self):
        if self.format not in PRECISIONS:
            raise UserError(f"format is {self.format!r}; choose one of {', '.join(PRECISIONS)}")
        if self.precision not in PRECISIONS[self.format]:
            raise UserError(f"precision {self.precision} cannot be written as {self.format}; choose one of "
                            f"{', '.join(PRECISIONS[self.format])}")
        if self.batch < 0:
            raise UserError(f"batch is {self.batch}; it must be 1 or more, or 0 for any number")
        if self.precision == "int8" and self.frames is None:
            raise UserError("int8 measures the ranges of its numbers on your frames: name a folder of sequences with "
                            "--frames")
