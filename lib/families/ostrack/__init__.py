"""OSTrack (Ye et al., ECCV 2022): a one-stream ViT tracker. Teacher and student are one class at different depths."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import Shape
from ..one_stream import OneStreamFamily
from .keys import KEYS, SIZES

if TYPE_CHECKING:
    from ...config import Config
    from ...models.one_stream import OneStreamTracker


class OSTrack(OneStreamFamily):
    """The family of botaoye/OSTrack."""

    name, title, keys = "ostrack", "OSTrack", KEYS

    def shape(self, cfg: "Config") -> Shape:
        """From MODEL.BACKBONE.TYPE, where EMBED_DIM, DEPTH, NUM_HEADS or MLP_RATIO do not set it."""
        backbone = cfg.MODEL.BACKBONE
        width, depth, heads = SIZES[backbone.TYPE.split("_")[1]]
        return Shape(backbone.EMBED_DIM or width, backbone.DEPTH or depth, backbone.NUM_HEADS or heads,
                     backbone.MLP_RATIO or 4.0)

    def check(self, cfg: "Config") -> Iterator[str]:
        yield from super().check(cfg)
        backbone = cfg.MODEL.BACKBONE
        if backbone.IMG_SIZE % backbone.STRIDE:
            yield (f"MODEL.BACKBONE.IMG_SIZE is {backbone.IMG_SIZE}; expected a multiple of MODEL.BACKBONE.STRIDE "
                   f"({backbone.STRIDE})")
        if backbone.TYPE.endswith("_compress") and cfg.script == self.name:
            yield (f"MODEL.BACKBONE.TYPE is {backbone.TYPE}, a compressed model; use it with script compresstracker, "
                   f"or take {backbone.TYPE.removesuffix('_compress')} here")
        if backbone.CE_LOC and not backbone.TYPE.endswith(("_ce", "_compress")):
            yield (f"MODEL.BACKBONE.CE_LOC is {list(backbone.CE_LOC)}, but MODEL.BACKBONE.TYPE {backbone.TYPE} "
                   "eliminates no candidates; choose a TYPE that ends in _ce, or set CE_LOC and CE_KEEP_RATIO to []")

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "OneStreamTracker":
        from .model import build

        return build(cfg, self.shape(cfg), drop_rates)

    def load_start(self, model: "OneStreamTracker", path: Path) -> None:
        from .weights import load_mae

        load_mae(model, path)


FAMILY = OSTrack()
