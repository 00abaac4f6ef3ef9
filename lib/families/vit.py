"""What the families share whose backbone is a ViT as in OSTrack (`lib.models.vit`): its sizes, keys, checks, and MAE's
weights to start from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.schema import NOT_BUILT, Key
from . import one_stream
from .base import Shape

if TYPE_CHECKING:
    from torch import nn

    from ..config import Config
    from ..models.one_stream import OneStreamTracker
    from ..models.vit import ViTBackbone

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""ViT size -> (embedding width, layers, attention heads), as in timm."""
SUFFIXES = {"_ce": "eliminates candidates", "_compress": "names the compressed form (script compresstracker)"}
"""What the ends of MODEL.BACKBONE.TYPE mean."""

KEYS = {
    **one_stream.KEYS,
    "MODEL.EXTRA_MERGER": Key(False, "bool", "Official key without effect.", fixed=NOT_BUILT),
    "MODEL.RETURN_INTER": Key(False, "bool", "Official key: output of inner layers.", fixed=NOT_BUILT),
    "MODEL.RETURN_STAGES": Key((), "ints", "Official key: layers whose output is returned.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.IMG_SIZE": Key(224, "int", "Image size that the raw position embedding's grid belongs to.", low=1),
    "MODEL.BACKBONE.MID_PE": Key(False, "bool", "Official key: positions added in inner layers.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.SEP_SEG": Key(False, "bool", "Official key: segment embeddings.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.CAT_MODE": Key("direct", "str", "Official key: order of the tokens.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.MERGE_LAYER": Key(0, "int", "Official key: layers before the images meet.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.CLS_TOKEN_USE_MODE": Key("ignore", "str", "Official key: use of the class token.",
                                             fixed=NOT_BUILT),
}
"""Names and defaults are OSTrack's."""


def type_key(*suffixes: str) -> Key:
    """MODEL.BACKBONE.TYPE with the ends that a family knows."""
    meaning = ", ".join(f"{suffix} {SUFFIXES[suffix]}" for suffix in suffixes)
    types = tuple(f"vit_{size}_patch16_224{suffix}" for size in SIZES for suffix in ("", *suffixes))
    return Key("vit_base_patch16_224", "str", f"ViT size; {meaning}.", choices=types)


class ViTFamily(one_stream.OneStreamFamily):
    """A family of one-stream trackers on a ViT. Its keys hold `KEYS` and a `type_key`."""

    def shape(self, cfg: "Config") -> Shape:
        """From MODEL.BACKBONE.TYPE, where EMBED_DIM, DEPTH, NUM_HEADS or MLP_RATIO do not set it."""
        backbone = cfg.MODEL.BACKBONE
        return Shape(*SIZES[backbone.TYPE.split("_")[1]], 4.0).with_keys(backbone)

    def check(self, cfg: "Config") -> Iterator[str]:
        yield from super().check(cfg)
        backbone = cfg.MODEL.BACKBONE
        if backbone.IMG_SIZE % backbone.STRIDE:
            yield (f"MODEL.BACKBONE.IMG_SIZE is {backbone.IMG_SIZE}; expected a multiple of MODEL.BACKBONE.STRIDE "
                   f"({backbone.STRIDE})")
        if backbone.CE_LOC and not backbone.TYPE.endswith(("_ce", "_compress")):
            yield (f"MODEL.BACKBONE.CE_LOC is {list(backbone.CE_LOC)}, but MODEL.BACKBONE.TYPE {backbone.TYPE} "
                   "eliminates no candidates; choose a TYPE that ends in _ce, or set CE_LOC and CE_KEEP_RATIO to []")

    def eliminating(self, cfg: "Config", layer: int, kept: float) -> dict[str, Any] | None:
        own = cfg.MODEL.BACKBONE.TYPE.removesuffix("_ce").removesuffix("_compress")
        return {**super().eliminating(cfg, layer, kept), "MODEL.BACKBONE.TYPE": f"{own}_ce"}

    def load_start(self, model: "OneStreamTracker", path: Path) -> None:
        from ..models.vit_weights import load_mae

        load_mae(model, path)


def vit_parts(cfg: "Config", shape: Shape, drop_rates: Sequence[float], backbone: "type[ViTBackbone] | None" = None
              ) -> tuple["ViTBackbone", "nn.Module"]:
    """Backbone and box head that a configuration asks for.

    Args:
        shape, drop_rates: see `Family`.
        backbone: a class derived from `ViTBackbone`; None for itself.
    """
    from ..models.heads import build_head
    from ..models.vit import ViTBackbone

    keys, data, head = cfg.MODEL.BACKBONE, cfg.DATA, cfg.MODEL.HEAD
    vit = (backbone or ViTBackbone)(one_stream.one_stream_layers(cfg, shape, drop_rates), shape.embed_dim,
                                    patch_size=keys.STRIDE, image_size=keys.IMG_SIZE,
                                    template_size=data.TEMPLATE.SIZE, search_size=data.SEARCH.SIZE)
    channels = cfg.MODEL.NUM_CHANNELS if head.TYPE == "CORNER" else head.NUM_CHANNELS
    return vit, build_head(head.TYPE, shape.embed_dim, channels)
