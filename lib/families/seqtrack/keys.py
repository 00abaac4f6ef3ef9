"""SeqTrack's configuration keys, with the names and defaults of its repository (lib/config/seqtrack)."""

from ...config.schema import NOT_BUILT, SAMPLER_MODES, Key

SIZES = {"vit_base_patch16": (768, 12, 12), "vit_large_patch16": (1024, 24, 16)}
"""Encoder -> width, layers, heads."""

ALIASES = {
    "MODEL.ENCODER.TYPE": "MODEL.BACKBONE.TYPE",
    "MODEL.ENCODER.STRIDE": "MODEL.BACKBONE.STRIDE",
    "MODEL.ENCODER.DROP_PATH": "TRAIN.DROP_PATH_RATE",
    "MODEL.ENCODER.USE_CHECKPOINT": "TRAIN.CHECKPOINT_ACTIVATIONS",
    "TRAIN.ENCODER_MULTIPLIER": "TRAIN.BACKBONE_MULTIPLIER",
}

_INTERVALS = {"DEFAULT": 9999, "LASOT": 450, "LASOT_EXTENSION_SUBSET": 9999, "GOT10K_TEST": 1, "TRACKINGNET": 25,
              "TNL2K": 25, "OTB": 9999, "NFS": 9999, "UAV": 9999, "VOT20": 10, "VOT21": 10, "VOT22": 10}
_THRESHOLDS = {"DEFAULT": 0.6, "VOT20": 0.475, "VOT21": 0.475, "VOT22": 0.475}

KEYS = {
    # ---- the model
    "MODEL.BACKBONE.TYPE": Key("vit_base_patch16", "str", "The encoder's size.", choices=tuple(SIZES)),
    "MODEL.ENCODER.PRETRAIN_TYPE": Key("mae", "str", "Official key; MODEL.PRETRAIN_FILE names the weights.",
                                       choices=("mae", "default", "scratch")),
    "MODEL.HEAD.TYPE": Key("SEQUENCE", "str", "Prediction head: the decoder of tokens.",
                           fixed="the one head of this family"),
    "MODEL.HIDDEN_DIM": Key(256, "int", "Width of the decoder.", low=8),
    "MODEL.BINS": Key(4000, "int", "Places of a coordinate.", low=2),
    "MODEL.FEATURE_TYPE": Key("x", "str", "Official key: the tokens that the decoder sees.", fixed=NOT_BUILT),
    "MODEL.DECODER.NHEADS": Key(8, "int", "Heads of the decoder.", low=1),
    "MODEL.DECODER.DROPOUT": Key(0.1, "float", "Dropout in the decoder.", low=0, high=0.99),
    "MODEL.DECODER.DIM_FEEDFORWARD": Key(1024, "int", "Hidden width of the decoder's MLPs.", low=1),
    "MODEL.DECODER.DEC_LAYERS": Key(6, "int", "Layers of the decoder.", low=1),
    "MODEL.DECODER.PRE_NORM": Key(False, "bool", "Official key: norms before the decoder's parts.", fixed=NOT_BUILT),
    # ---- training
    "TRAIN.DROP_PATH_RATE": Key(0.0, "float", "Drop path of the encoder's last layer; it grows linearly from 0.", low=0,
                                high=0.99),
    "TRAIN.CE_WEIGHT": Key(1.0, "float", "Weight of the tokens' cross-entropy.", low=0),
    "TRAIN.FREEZE_ENCODER": Key(False, "bool", "Official key: the encoder does not learn.", fixed=NOT_BUILT),
    "TRAIN.ENCODER_OPEN": Key((), "strs", "Official key: layers that learn in spite of it.", fixed=NOT_BUILT),
    "DATA.SEQ_FORMAT": Key("xywh", "str", "Order of the tokens: xywh, the centre and then width and height; whxy; "
                           "corner, left, top, right, bottom.", choices=("xywh", "whxy", "corner")),
    "DATA.SAMPLER_MODE": Key("order", "str", "How the frames of a sample are drawn (lib/families/clips.py).",
                             choices=("order", *SAMPLER_MODES)),
    "DATA.TEMPLATE.NUMBER": Key(2, "int", "Template frames per sample.", low=2, high=2),
    "DATA.TEMPLATE.SIZE": Key(256, "int", "Side of the template crop in pixels.", low=16, high=2048),
    "DATA.TEMPLATE.FACTOR": Key(4.0, "float", "Side of the template crop over the square root of the box area.",
                                above=0),
    "DATA.SEARCH.NUMBER": Key(1, "int", "Search frames per sample.", low=1, high=1),
    # ---- test
    "TEST.TEMPLATE_SIZE": Key(256, "int", "As DATA.TEMPLATE.SIZE, when tracking.", low=16, high=2048),
    "TEST.TEMPLATE_FACTOR": Key(4.0, "float", "As DATA.TEMPLATE.FACTOR, when tracking.", above=0),
    "TEST.WINDOW": Key(False, "bool", "Weigh the places of the centre with a Hann window."),
    "TEST.NUM_TEMPLATES": Key(2, "int", "Templates that are held: the first and the latest sure one.", low=2, high=2),
    **{f"TEST.UPDATE_INTERVALS.{name}": Key(value, "int", "Frames between two looks whether the second template is cut "
                                            "anew" + (", where no other name fits." if name == "DEFAULT" else
                                                      f", on {name}."), low=1)
       for name, value in _INTERVALS.items()},
    **{f"TEST.UPDATE_THRESHOLD.{name}": Key(value, "float", "It is where 10 times the sum of the tokens' "
                                            "probabilities is above" + ("." if name == "DEFAULT" else f", on {name}."))
       for name, value in _THRESHOLDS.items()},
}
