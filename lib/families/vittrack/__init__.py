"""VitTrack of the OpenCV zoo: a one-stream tracker small enough for a CPU."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...config.schema import Key
from ..base import Shape
from ..one_stream import KEYS, OneStreamFamily

if TYPE_CHECKING:
    from ...config import Config
    from ...models.one_stream import OneStreamTracker


class VitTrack(OneStreamFamily):
    """A convolutional stem, 3 layers of width 48 with one head each, and a CENTER head."""

    name, title = "vittrack", "VitTrack"
    keys = {
        **KEYS,
        "MODEL.PRETRAIN_FILE": Key("", "str", "Weights to start from, '' for a random start; script compresstracker: "
                                   "the teacher's. A checkpoint, or the zoo's ONNX file. Tried from the repository "
                                   "root, then in pretrained_models/."),
        "MODEL.HEAD.NUM_CHANNELS": Key(32, "int", "Width of the CENTER head's first convolutions.", low=8),
    }

    def shape(self, cfg: "Config") -> Shape:
        return Shape(48, 3, 1, 4.0).with_keys(cfg.MODEL.BACKBONE)

    def check(self, cfg: "Config") -> Iterator[str]:
        yield from super().check(cfg)
        width, stride = self.shape(cfg).embed_dim, cfg.MODEL.BACKBONE.STRIDE
        if stride != 16:
            yield f"MODEL.BACKBONE.STRIDE is {stride}; expected 16, the stride of the four convolutions of the stem"
        if width % 8:
            yield (f"MODEL.BACKBONE.EMBED_DIM is {width}; expected a multiple of 8: the stem's first convolution has "
                   "an eighth of the width")

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "OneStreamTracker":
        from .model import build

        return build(cfg, self.shape(cfg), drop_rates)


FAMILY = VitTrack()
