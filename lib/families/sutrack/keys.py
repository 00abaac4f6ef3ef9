"""SUTrack's configuration keys, with the names and defaults of its repository."""

from typing import NamedTuple

from ...config.schema import DATA_PREFIXES, DATASETS, NOT_BUILT, SAMPLER_MODES, Key

WITHOUT_WORDS = "Official key without effect: the constant text token stands for the words of every data set."


class Size(NamedTuple):
    """Width, main blocks, heads, and blocks of the two early stages."""

    embed_dim: int
    depth: int
    num_heads: int
    early: tuple[int, int]


SIZES = {"fastitpnt": Size(384, 12, 6, (1, 1)), "fastitpns": Size(384, 20, 6, (2, 2)),
         "fastitpnb": Size(512, 24, 8, (3, 3)), "fastitpnl": Size(768, 40, 12, (2, 2))}

OTHER_DATASETS = ("DepthTrack_train", "VisEvent", "LasHeR_train")
"""Named by the official configurations; with a second kind of picture, which is not read here."""

ALIASES = {
    "MODEL.ENCODER.TYPE": "MODEL.BACKBONE.TYPE",
    "MODEL.ENCODER.STRIDE": "MODEL.BACKBONE.STRIDE",
    "MODEL.ENCODER.PRETRAIN_TYPE": "MODEL.PRETRAIN_FILE",
    "MODEL.ENCODER.USE_CHECKPOINT": "TRAIN.CHECKPOINT_ACTIVATIONS",
    "MODEL.DECODER.TYPE": "MODEL.HEAD.TYPE",
    "MODEL.DECODER.NUM_CHANNELS": "MODEL.HEAD.NUM_CHANNELS",
    "TRAIN.ENCODER_MULTIPLIER": "TRAIN.BACKBONE_MULTIPLIER",
}

KEYS = {
    "MODEL.PRETRAIN_FILE": Key("", "str", "Weights to start from, '' for a random start: Fast-iTPN's, or a checkpoint; "
                               "script compresstracker: the teacher's checkpoint. Tried from the repository root, then "
                               "in pretrained_models/."),
    "MODEL.BACKBONE.PRETRAIN_FILE": Key("", "str", "Fast-iTPN's weights for COMPRESS.INIT mae; tried as "
                                        "MODEL.PRETRAIN_FILE is."),
    "MODEL.BACKBONE.TYPE": Key("fastitpnb", "str", "Fast-iTPN's size.", choices=tuple(SIZES)),
    "MODEL.BACKBONE.MLP_RATIO": Key(0.0, "float", "Hidden width of a layer's MLP over EMBED_DIM; 0 is 3.", low=0),
    "MODEL.HEAD.TYPE": Key("CENTER", "str", "Prediction head.", fixed=NOT_BUILT),
    "MODEL.ENCODER.DROP_PATH": Key(0.0, "float", "Official key that the official code never reads; see "
                                   "TRAIN.DROP_PATH_RATE.", low=0),
    "MODEL.ENCODER.PATCHEMBED_INIT": Key("halfcopy", "str", "Official key: the start of the six channels of the patch "
                                         "convolution, here half of Fast-iTPN's twice.", fixed=NOT_BUILT),
    "MODEL.ENCODER.POS_TYPE": Key("index", "str", "Official key: positions of a smaller grid are the top left ones of "
                                  "Fast-iTPN's, of a larger one they are interpolated.", fixed=NOT_BUILT),
    "MODEL.ENCODER.TOKEN_TYPE_INDICATE": Key(True, "bool", "Official key: tokens learn what they are of.",
                                             fixed=NOT_BUILT),
    "MODEL.ENCODER.CLASS_TOKEN": Key(True, "bool", "Official key: class token in the sequence.", fixed=NOT_BUILT),
    "MODEL.TEXT_ENCODER.TYPE": Key("ViT-L/14", "str", "Official key: the CLIP whose answer is the text token.",
                                   fixed=NOT_BUILT),
    "MODEL.DECODER.CONV_TYPE": Key("normal", "str", "Official key: convolutions of the head.", fixed=NOT_BUILT),
    "MODEL.DECODER.XAVIER_INIT": Key(True, "bool", "Official key: the head's initial weights.", fixed=NOT_BUILT),
    "MODEL.TASK_DECODER.NUM_CHANNELS": Key(256, "int", "Official key that the official code never reads: the task "
                                           "head has the width of the box head.", low=1),
    "MODEL.TASK_DECODER.FEATURE_TYPE": Key("average", "str", "Official key: what the task head sees.",
                                           fixed=NOT_BUILT),
    "MODEL.TASK_NUM": Key(5, "int", "Number of tasks.", low=1),
    **{f"MODEL.TASK_INDEX.{name}": Key(number, "int", f"Number of the task of {name}'s samples"
                                       + ("; also of data sets without a key." if name == "LASOT" else "."), low=0)
       for name, number in (("VASTTRACK", 0), ("LASOT", 0), ("TRACKINGNET", 0), ("GOT10K", 0), ("COCO", 0),
                            ("TNL2K", 1), ("DEPTHTRACK", 2), ("LASHER", 3), ("VISEVENT", 4))},
    "TRAIN.TASK_CE_WEIGHT": Key(1.0, "float", "Weight of the task head's cross-entropy.", low=0),
    "TRAIN.CE_WEIGHT": Key(1.0, "float", "Official key of other trackers' loss.", fixed=NOT_BUILT),
    "TRAIN.TYPE": Key("text_frozen", "str", "Official key: what learns; all but CLIP.", fixed=NOT_BUILT),
    "TRAIN.FREEZE_ENCODER": Key(False, "bool", "Official key: the encoder does not learn.", fixed=NOT_BUILT),
    "TRAIN.ENCODER_OPEN": Key((), "strs", "Official key: layers that learn in spite of it.", fixed=NOT_BUILT),
    "DATA.MULTI_MODAL_VISION": Key(True, "bool", "Official key: six channels, here the picture twice.",
                                   fixed=NOT_BUILT),
    "DATA.MULTI_MODAL_LANGUAGE": Key(True, "bool", "The sequence ends with a text token. Without words it is a "
                                     "constant, which an official checkpoint gives by its CLIP; false does without."),
    **{f"DATA.USE_NLP.{name}": Key(False, "bool", WITHOUT_WORDS)
       for name in ("LASOT", "GOT10K", "COCO", "TRACKINGNET", "VASTTRACK", "REFCOCOG", "TNL2K", "OTB99", "DEPTHTRACK",
                    "LASHER", "VISEVENT")},
    "DATA.TRAIN.DATASETS_NAME": Key(("LASOT", "GOT10K_vottrain"), "strs", "Training data sets. Those of depth, heat "
                                    "and events are official names that cannot be trained on here.",
                                    choices=(*DATASETS, *OTHER_DATASETS), prefixes=DATA_PREFIXES, length=(1, None)),
    "DATA.VAL.DATASETS_NAME": Key((), "strs", "Validation data sets; [], with a ratio of [], trains without "
                                  "validation.", choices=DATASETS, prefixes=DATA_PREFIXES),
    "DATA.VAL.DATASETS_RATIO": Key((), "floats", "Their shares of the samples.", low=0),
    "DATA.SAMPLER_MODE": Key("order", "str", "How the frames of a sample are drawn (lib/families/clips.py).",
                             choices=("order", *SAMPLER_MODES)),
    "DATA.TEMPLATE.NUMBER": Key(1, "int", "Template frames per sample.", low=1, high=2),
    "TEST.NUM_TEMPLATES": Key(1, "int", "Templates that are held, as DATA.TEMPLATE.NUMBER: with two, the second is the "
                              "latest that was cut at a sure box.", low=1, high=2),
    "TEST.UPDATE_INTERVALS.DEFAULT": Key(999999, "int", "Frames between two looks whether a template is cut anew.",
                                         low=1),
    "TEST.UPDATE_THRESHOLD.DEFAULT": Key(1.0, "float", "It is where the highest weighted score is above."),
    "TEST.MULTI_MODAL_VISION.DEFAULT": Key(True, "bool", "As DATA.MULTI_MODAL_VISION.", fixed=NOT_BUILT),
    "TEST.MULTI_MODAL_LANGUAGE.DEFAULT": Key(True, "bool", "As DATA.MULTI_MODAL_LANGUAGE (officially false, but true "
                                             "in all its files)."),
    "TEST.USE_NLP.DEFAULT": Key(False, "bool", WITHOUT_WORDS),
    "TEST.USE_NLP.TNL2K": Key(True, "bool", WITHOUT_WORDS),
}
