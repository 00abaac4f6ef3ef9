"""OSTrack's configuration keys, with the names and defaults of its repository."""

from ...config.schema import NOT_BUILT, Key
from .. import one_stream

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""ViT size -> (embedding width, layers, attention heads), as in timm."""

TYPES = tuple(f"vit_{size}_patch16_224{suffix}" for size in SIZES for suffix in ("", "_ce", "_compress"))

KEYS = {
    **one_stream.KEYS,
    "MODEL.NUM_CHANNELS": Key(256, "int", "Width of the CORNER head (the official code reads it here).", low=8),
    "MODEL.EXTRA_MERGER": Key(False, "bool", "Official key without effect.", fixed=NOT_BUILT),
    "MODEL.RETURN_INTER": Key(False, "bool", "Official key: output of inner layers.", fixed=NOT_BUILT),
    "MODEL.RETURN_STAGES": Key((), "ints", "Official key: layers whose output is returned.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.TYPE": Key("vit_base_patch16_224", "str", "ViT size; _ce eliminates candidates, _compress names "
                               "the compressed form (script compresstracker).", choices=TYPES),
    "MODEL.BACKBONE.IMG_SIZE": Key(224, "int", "Image size that the raw position embedding's grid belongs to.", low=1),
    "MODEL.BACKBONE.MID_PE": Key(False, "bool", "Official key: positions added in inner layers.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.SEP_SEG": Key(False, "bool", "Official key: segment embeddings.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.CAT_MODE": Key("direct", "str", "Official key: order of the tokens.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.MERGE_LAYER": Key(0, "int", "Official key: layers before the images meet.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.ADD_CLS_TOKEN": Key(False, "bool", "Official key: class token in the sequence.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.CLS_TOKEN_USE_MODE": Key("ignore", "str", "Official key: use of the class token.",
                                             fixed=NOT_BUILT),
}
