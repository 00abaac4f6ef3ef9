"""OSTrack (Ye et al., ECCV 2022): a one-stream ViT tracker. Teacher and student are one class at different depths."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..vit import ViTFamily, vit_parts
from .keys import KEYS

if TYPE_CHECKING:
    from ...config import Config
    from ...models.one_stream import OneStreamTracker


class OSTrack(ViTFamily):
    """The family of botaoye/OSTrack."""

    name, title, keys = "ostrack", "OSTrack", KEYS

    def check(self, cfg: "Config") -> Iterator[str]:
        yield from super().check(cfg)
        kind = cfg.MODEL.BACKBONE.TYPE
        if kind.endswith("_compress") and cfg.script == self.name:
            yield (f"MODEL.BACKBONE.TYPE is {kind}, a compressed model; use it with script compresstracker, "
                   f"or take {kind.removesuffix('_compress')} here")

    def narrows(self, cfg: "Config") -> bool:
        return (cfg.MODEL.HEAD.TYPE != "MLP"
                and cfg.MODEL.BACKBONE.LAYER == cfg.student.MODEL.BACKBONE.LAYER == "attention")

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "OneStreamTracker":
        from ...models.one_stream import OneStreamTracker

        return OneStreamTracker(*vit_parts(cfg, self.shape(cfg), drop_rates))


FAMILY = OSTrack()
