"""MixFormerV2's configuration keys, with the names and defaults of its repository (lib/config/mixformer2_vit and
mixformer2_vit_online, mixformer2_vit_stu). What its scripts for distillation read stands in other places here; the keys
say where."""

from ...config.schema import NOT_BUILT, Key

UNREAD = "Official key that decides nothing."

INTERVALS = {"LASOT": 200, "GOT10K_TEST": 200, "TRACKINGNET": 200, "VOT20": 200, "VOT22STB": 10, "VOT20LT": 200,
             "TNL2K": 200, "DEFAULT": 200}
"""Benchmark -> frames between two updates of the online template."""
ONLINE_SIZES = ("LASOT", "GOT10K_TEST", "TRACKINGNET", "VOT20", "VOT20LT", "OTB", "VOT22STB", "UAV", "TNL2K")

MOVED = {"TRAIN.FEAT_WEIGHT": "COMPRESS.FEAT_WEIGHT", "TRAIN.DISTILL_LAYERS_STUDENT": "COMPRESS.FEAT_STAGES",
         "TRAIN.DISTILL_LAYERS_TEACHER": "COMPRESS.STAGES", "MODEL.BACKBONE.DEPTH_TEACHER": "MODEL.BACKBONE.DEPTH"}
"""Keys of the official distillation -> what script compresstracker reads in their place."""


def _moved(default, kind: str, doc: str, name: str) -> Key:
    return Key(default, kind, f"Official key of the distillation: {doc}. Script compresstracker has {MOVED[name]}.")


KEYS = {
    # ---- the model
    "MODEL.PRETRAIN_FILE": Key("", "str", "Weights to start from, '' for a random start: a MixFormerV2, with or "
                               "without score head, or MAE's; script compresstracker: the teacher's. Tried from the "
                               "repository root, then in pretrained_models/."),
    "MODEL.VIT_TYPE": Key("base_patch16", "str", "Official key: size of the ViT.", fixed=NOT_BUILT),
    "MODEL.HEAD_TYPE": Key("MLP", "str", "Official key: prediction head.", fixed=NOT_BUILT),
    "MODEL.HEAD.TYPE": Key("MLP", "str", "Prediction head: distributions of the box's edges.",
                           fixed="the one head of this family"),
    "MODEL.HIDDEN_DIM": Key(768, "int", "Official key: width of the heads; here it is that of the tokens.",
                            fixed=NOT_BUILT),
    "MODEL.FEAT_SZ": Key(18, "int", "Places of an edge across the search crop (96 in the published models).", low=2),
    "MODEL.SCORE_HEAD": Key(True, "bool", "The score head, without which the online template never changes."),
    "MODEL.NUM_OBJECT_QUERIES": Key(1, "int", "Official key: boxes per crop.", fixed=NOT_BUILT),
    "MODEL.POSITION_EMBEDDING": Key("sine", "str", "Official key: kind of positions.", fixed=NOT_BUILT),
    "MODEL.PREDICT_MASK": Key(False, "bool", "Official key: masks.", fixed=NOT_BUILT),
    "MODEL.HEAD_FREEZE_BN": Key(False, "bool", UNREAD),
    "MODEL.PRETRAINED_STATIC": Key(False, "bool", f"{UNREAD} MODEL.PRETRAIN_FILE names what training starts from."),
    "MODEL.PRETRAINED_STAGE1": Key(False, "bool", UNREAD),
    "MODEL.BACKBONE.PRETRAINED": Key(False, "bool", f"{UNREAD} See MODEL.PRETRAIN_FILE."),
    "MODEL.BACKBONE.PRETRAINED_PATH": Key("mae_pretrain_vit_base.pth", "str", f"{UNREAD} See MODEL.PRETRAIN_FILE."),
    "MODEL.BACKBONE.DEPTH_TEACHER": _moved(12, "int", "layers of the teacher", "MODEL.BACKBONE.DEPTH_TEACHER"),
    # ---- training
    "TRAIN.TRAIN_SCORE": Key(False, "bool", "Train the score head, and nothing else."),
    "TRAIN.IOU_WEIGHT": Key(2.0, "float", "Weight of the CIoU loss.", low=0),
    "TRAIN.SCORE_WEIGHT": Key(1.0, "float", "Weight of the score's cross-entropy.", low=0),
    "TRAIN.CORNER_WEIGHT": Key(1.0, "float", "compresstracker: weight of the divergence from the teacher's edges.",
                               low=0),
    "TRAIN.REMOVE_LAYERS": Key((), "ints", "Layers (from 0) that fade out in the first 40 epochs and do not learn; "
                               "script compresstracker: STUDENT.TRAIN.REMOVE_LAYERS.", low=0),
    "STUDENT.TRAIN.REMOVE_LAYERS": Key((), "ints", "Layers of the student that fade out.", low=0),
    "TRAIN.INVALID_LAYERS": Key((), "ints", "Layers (from 0) of the file with the weights to start from that are left "
                                "out; the others close up.", low=0),
    "TRAIN.FEAT_WEIGHT": _moved(0.2, "float", "weight of the features", "TRAIN.FEAT_WEIGHT"),
    "TRAIN.DISTILL_LAYERS_STUDENT": _moved((1, 3, 5, 7), "ints", "layers whose features are compared",
                                           "TRAIN.DISTILL_LAYERS_STUDENT"),
    "TRAIN.DISTILL_LAYERS_TEACHER": _moved((2, 5, 8, 11), "ints", "the teacher's layers that they are compared with",
                                           "TRAIN.DISTILL_LAYERS_TEACHER"),
    "TRAIN.SCHEDULER.DECAY_RATE": Key(0.1, "float", "Factor of each drop of step. The 400 of some official files, "
                                      "which their code does not read, means 0.1.", above=0, high=1,
                                      stands_for={400.0: 0.1}),
    "TRAIN.ATTN_WEIGHT": Key(1.0, "float", "Official key: weight of a loss.", fixed=NOT_BUILT),
    "TRAIN.DEEP_SUPERVISION": Key(False, "bool", "Official key: losses of inner layers.", fixed=NOT_BUILT),
    "TRAIN.FREEZE_STAGE0": Key(False, "bool", "Official key of MixFormer's CvT.", fixed=NOT_BUILT),
    "TRAIN.DISTILL": Key(False, "bool", "Official key: distillation, for which there is script compresstracker.",
                         fixed=NOT_BUILT),
    "TRAIN.DISTILL_LOSS_TYPE": Key("KL", "str", "Official key: loss of the edges.", fixed=NOT_BUILT),
    "TRAIN.TEACHER_MODEL": Key(False, "bool", "Official key of the distillation.", fixed=NOT_BUILT),
    "TRAIN.FIND_UNUSED_PARAMETERS": Key(False, "bool", UNREAD),
    "COMPRESS.PRED_FORM": Key("boxes", "str", "Prediction guidance: CIoU and L1 against the teacher's box (as "
                              "CompressTracker), the divergence from its edges' distributions (as MixFormerV2's own "
                              "distillation), or both.", choices=("boxes", "edges", "full")),
    # ---- data and test
    "DATA.TEMPLATE.NUMBER": Key(2, "int", "Template frames per sample: the first and the online template.", low=2,
                                high=2),
    "DATA.SEARCH.SIZE": Key(288, "int", "Side of the search crop in pixels.", low=16, high=2048),
    "TEST.SEARCH_SIZE": Key(288, "int", "As DATA.SEARCH.SIZE, when tracking.", low=16, high=2048),
    **{f"TEST.UPDATE_INTERVALS.{name}": Key(frames, "int", "Frames between two updates of the online template"
                                            + (" elsewhere." if name == "DEFAULT" else " there."), low=1)
       for name, frames in INTERVALS.items()},
    **{f"TEST.ONLINE_SIZES.{name}": Key(1, "int", "Official key: online templates (3 where its files do not say 1).",
                                        fixed=NOT_BUILT) for name in ONLINE_SIZES},
}
