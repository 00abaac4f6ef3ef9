"""ODTrack's configuration keys, with the names and defaults of its repository (lib/config/odtrack/config.py)."""

from ...config.schema import NOT_BUILT, Key
from .. import vit

ONLY_ATTENTION = "the temporal token has no place in a picture, which other kinds of layers need"
ONLY_WITH_TOKEN = "the official code crashes without the temporal token"

KEYS = {
    **vit.KEYS,
    "MODEL.BACKBONE.TYPE": vit.type_key("_ce"),
    "MODEL.BACKBONE.LAYER": Key("attention", "str", "Kind of the layers.", fixed=ONLY_ATTENTION),
    "STUDENT.MODEL.BACKBONE.LAYER": Key("", "str", "Kind of the student's layers.", fixed=ONLY_ATTENTION),
    "MODEL.BACKBONE.ADD_CLS_TOKEN": Key(True, "bool", "Temporal token in the sequence (false in the official defaults, "
                                        "true in all official files).", fixed=ONLY_WITH_TOKEN),
    "MODEL.BACKBONE.TOKEN_LEN": Key(1, "int", "Official key: number of temporal tokens.", fixed=NOT_BUILT),
    "MODEL.BACKBONE.ATTN_TYPE": Key("concat", "str", "Official key: attention over all tokens, or among fewer of them; "
                                    "without effect, in the official code too, where TYPE ends in _ce.",
                                    choices=("concat", "separate")),
    "MODEL.HEAD.TYPE": Key("CENTER", "str", "Prediction head.", choices=("CENTER",)),
    "TRAIN.BBOX_TASK": Key(False, "bool", "Official key that the official code never reads."),
    "TRAIN.CARRY_TOKEN": Key(False, "bool", "As the official code: a batch starts with the temporal token of the batch "
                             "before it, of other videos (a resumed training with none); false starts with none. Not "
                             "for script compresstracker."),
    "TEST.TEMPLATE_NUMBER": Key(1, "int", "N: of a frame number f up to N all earlier frames are templates, then the "
                                "first and the middle ones of N equal parts of the earlier frames (N = 1: the first).",
                                low=1),
    "TEST.MEMORY_THRESHOLD": Key(1000, "int", "Template crops of later frames than this one wait in the CPU's memory.",
                                 low=0),
    "TEST.MEMORY_FRAMES": Key(5000, "int", "Most template crops kept of a target (442 KB each at 192 pixels). Where "
                              "the rule needs more, every second one goes and the nearest stands in; 0 keeps all, as "
                              "the official code.", low=0),
}
