"""OSTrack's configuration keys, with the names and defaults of its repository."""

from ...config.schema import NOT_BUILT, Key
from .. import vit

KEYS = {
    **vit.KEYS,
    "MODEL.NUM_CHANNELS": Key(256, "int", "Width of the CORNER head (the official code reads it here).", low=8),
    "MODEL.BACKBONE.TYPE": vit.type_key("_ce", "_compress"),
    "MODEL.BACKBONE.ADD_CLS_TOKEN": Key(False, "bool", "Official key: class token in the sequence.", fixed=NOT_BUILT),
}
