"""Every key that all families have: its type, default, range and one line of documentation. A family adds its own
(`lib.families.Family.keys`).

The names and defaults of the official OSTrack and CompressTracker repositories are kept, so that their yaml files load
unchanged. Keys that select things that are not built here are kept too and accept only the official default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ..families import FAMILIES, get_family

ADAMW_ONLY = "other optimisers are not built"
NOT_BUILT = "the official code's other values are not built here"

DATASETS = ("LASOT", "GOT10K_vottrain", "GOT10K_votval", "GOT10K_train_full", "GOT10K_official_val", "COCO17",
            "TRACKINGNET", "VID", "VASTTRACK", "TNL2K", "TNL2K_train", "LASOT_EXT")
FOLDER_PREFIX = "FOLDER:"
COCO_PREFIX = "COCO:"
DATA_PREFIXES = {FOLDER_PREFIX: "<path>[@<list file>]", COCO_PREFIX: "<annotation json>[@<image folder>]"}
"""What may stand beside `DATASETS`: the start of a text, and what follows in words."""

SAMPLER_MODES = ("causal", "interval", "trident", "trident_pro", "stark")

TRAINABLE_PARTS = ("embed", "layers", "norm", "head")

KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text",
         "ints": "a list of whole numbers", "floats": "a list of numbers", "strs": "a list of texts"}


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
        default: the value where the yaml does not set it (a tuple for the list kinds).
        kind: one of `KINDS`.
        doc: one line of documentation.
        low, high: inclusive range of the number, or of each number of a list; None is unbounded.
        above: exclusive lower bound.
        choices: the allowed texts (of each entry, for "strs").
        prefixes: a text that starts with one of these is allowed beside the choices (its rest is free); what follows,
            in words.
        pattern: regular expression that the whole text must match.
        length: (smallest, largest or None) number of entries of a list.
        fixed: when set, only the default is accepted; the text says why.
        stands_for: values of official files that mean another one.
    """

    default: Any
    kind: str
    doc: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] | None = None
    prefixes: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None
    length: tuple[int, int | None] | None = None
    fixed: str | None = None
    stands_for: Mapping[Any, Any] = field(default_factory=dict)

    def allowed(self) -> str:
        """What the key accepts, in words."""
        if self.fixed is not None:
            return f"only {show(self.default)} ({self.fixed})"
        text = KINDS[self.kind]
        if self.length is not None:
            low, high = self.length
            entries = f"{low}" if low == high else f"at least {low}" if high is None else f"{low} to {high}"
            text += f" with {entries} entries" if entries != "at least 1" else " with at least 1 entry"
        if self.choices is not None:
            free = "".join(f", or {prefix}{completion}" for prefix, completion in self.prefixes.items())
            text = f"{'each' if self.kind == 'strs' else 'one'} of {', '.join(self.choices)}{free}"
        elif self.pattern is not None:
            text = "one of " + self.pattern.replace("|", ", ").replace(r"\d+", "N")
        bounds = []
        if self.above is not None:
            bounds.append(f"above {self.above:g}")
        if self.low is not None:
            bounds.append(f"at least {self.low:g}")
        if self.high is not None:
            bounds.append(f"at most {self.high:g}")
        if not bounds:
            return text
        return f"{text}{', each ' if self.kind in ('ints', 'floats') else ' '}{' and '.join(bounds)}"


def show(value: Any) -> str:
    """A value as one writes it in a yaml file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return "''" if value == "" else str(value)


def _jitter(default: float, doc: str) -> Key:
    return Key(default, "float", doc, low=0)


def _names(default: tuple[str, ...], doc: str, length: tuple[int, None] | None = None) -> Key:
    return Key(default, "strs", doc, choices=DATASETS, prefixes=DATA_PREFIXES, length=length)


KEYS: dict[str, Key] = {
    # ---- the model
    "MODEL.FAMILY": Key(FAMILIES[0], "str", "Tracker family; a family's own script needs not name it.",
                        choices=FAMILIES),
    "MODEL.PRETRAIN_FILE": Key("mae_pretrain_vit_base.pth", "str", "Weights to start from, '' for a random start; "
                               "script compresstracker: the teacher's checkpoint. Tried from the repository root, then "
                               "in pretrained_models/."),
    "MODEL.BACKBONE.PRETRAIN_FILE": Key("mae_pretrain_vit_base.pth", "str", "MAE weights for COMPRESS.INIT mae; tried "
                                        "as MODEL.PRETRAIN_FILE is."),
    "MODEL.BACKBONE.STRIDE": Key(16, "int", "Patch size in pixels; image sizes are multiples of it.", low=1, high=64),
    "MODEL.BACKBONE.EMBED_DIM": Key(0, "int", "Width of the tokens; 0 is the family's (of its TYPE).", low=0),
    "MODEL.BACKBONE.DEPTH": Key(0, "int", "Layers of the model, for compresstracker of the teacher; 0 is the "
                                "family's.", low=0),
    "MODEL.BACKBONE.NUM_HEADS": Key(0, "int", "Attention heads; 0 is the family's.", low=0),
    "MODEL.BACKBONE.MLP_RATIO": Key(0.0, "float", "Hidden width of a layer's MLP over EMBED_DIM; 0 is 4.", low=0),
    "MODEL.BACKBONE.DISTILL_LAYER": Key(4, "int", "Layers of the student (script compresstracker).", low=1),
    "MODEL.HEAD.TYPE": Key("CENTER", "str", "Prediction head.", choices=("CENTER", "CORNER", "MLP")),
    "MODEL.HEAD.NUM_CHANNELS": Key(256, "int", "Width of the CENTER head's first convolutions.", low=8),
    # ---- compression (script compresstracker)
    "STUDENT.MODEL.BACKBONE.TYPE": Key("", "str", "TYPE of the student's layers; '' is the teacher's. It sets their "
                                       "width, heads and MLP, where the keys below do not."),
    "STUDENT.MODEL.BACKBONE.EMBED_DIM": Key(0, "int", "Width of the student; 0 is that of its TYPE, or the teacher's.",
                                            low=0),
    "STUDENT.MODEL.BACKBONE.NUM_HEADS": Key(0, "int", "Heads of the student's layers; 0 as EMBED_DIM.", low=0),
    "STUDENT.MODEL.BACKBONE.MLP_RATIO": Key(0.0, "float", "MLP ratio of the student's layers; 0 as EMBED_DIM.", low=0),
    "STUDENT.MODEL.HEAD.NUM_CHANNELS": Key(0, "int", "Width of the student's head; 0 is the teacher's.", low=0),
    "STUDENT.DATA.SEARCH.SIZE": Key(0, "int", "Side of the student's search crop in pixels, in training and test; 0 is "
                                    "the teacher's.", low=0),
    "STUDENT.DATA.TEMPLATE.SIZE": Key(0, "int", "Side of its template crop; 0 is the teacher's.", low=0),
    "COMPRESS.STAGES": Key((), "ints", "Teacher layers that each student layer replaces, e.g. [2, 2, 6, 2]; [] divides "
                           "evenly.", low=1),
    "COMPRESS.INIT": Key("skip", "str", "Student layers start from: skip, the last teacher layer of the stage; first, "
                         "the teacher's first layers; influence, the stage's layer that changes the tokens of "
                         "training pairs most; layers, those of INIT_LAYERS; none, random; mae, the first layers of "
                         "the MAE weights.", choices=("skip", "first", "influence", "layers", "none", "mae")),
    "COMPRESS.INIT_LAYERS": Key((), "ints", "For INIT layers: which teacher layer (from 0) each student layer "
                                "copies.", low=0),
    "COMPRESS.HEAD_INIT": Key("teacher", "str", "Student head: the teacher's, the teacher's and never trained, or "
                              "random.", choices=("teacher", "teacher_frozen", "random")),
    "COMPRESS.SCHEDULE": Key("progressive", "str", "Probability p of a student stage over the epochs: the paper's "
                             "ramp, constant P_INIT, or the ramp exactly as the released code computes it; stagewise "
                             "draws nothing: one stage after the other becomes the student's.",
                             choices=("progressive", "constant", "released", "stagewise")),
    "COMPRESS.P_INIT": Key(0.5, "float", "p at the start (for constant: always).", low=0, high=1),
    "COMPRESS.ALPHA1": Key(0.1, "float", "Share of the epochs before the ramp, with p = P_INIT.", low=0, high=1),
    "COMPRESS.ALPHA2": Key(0.1, "float", "Share of the epochs after the ramp, with p = 1.", low=0, high=1),
    "COMPRESS.FORCED_STUDENT": Key(False, "bool", "Released rule: a draw never is all teacher, and exactly one stage "
                                   "is the student's while p < 0.5."),
    "COMPRESS.DRAWS": Key("batch", "str", "One draw for the whole batch, or one for each process in each pass.",
                          choices=("batch", "process")),
    "COMPRESS.TEACHER_MODE": Key("eval", "str", "Mode of the frozen teacher; train leaves its drop path and batch "
                                 "statistics active as the released code does.", choices=("eval", "train")),
    "COMPRESS.TEACHER_DTYPE": Key("same", "str", "Number format of the teacher's own pass, which makes the targets; "
                                  "same is that of the training; auto as in TRAIN.AMP_DTYPE.",
                                  choices=("same", "auto", "float32", "bfloat16", "float16")),
    "COMPRESS.TEACHER_FACTOR": Key(0.0, "float", "DATA.SEARCH.FACTOR that the teacher's checkpoint was trained with, "
                                   "where teacher and student are to see the middle of that view alone, at the same "
                                   "resolution; 0 is DATA.SEARCH.FACTOR.", low=0),
    "COMPRESS.SHARE_PREFIX": Key(True, "bool", "Compute what the teacher's pass and the mixed pass have in common "
                                 "once, where that changes nothing."),
    "COMPRESS.TRAINABLE": Key(TRAINABLE_PARTS, "strs", "Parts of the student that learn.", choices=TRAINABLE_PARTS,
                              length=(1, 4)),
    "COMPRESS.TRACK_WEIGHT": Key(1.0, "float", "Weight of the loss against the ground truth.", low=0),
    "COMPRESS.PRED_WEIGHT": Key(1.0, "float", "Weight of the prediction guidance.", low=0),
    "COMPRESS.FEAT_WEIGHT": Key(0.2, "float", "Weight of the feature mimicking.", low=0),
    "COMPRESS.PRED_FORM": Key("full", "str", "Prediction guidance: focal, GIoU and L1 (paper) or the boxes' GIoU and "
                              "L1 only (released code).", choices=("full", "boxes")),
    "COMPRESS.FEAT_STAGES": Key((), "ints", "Stages (from 0) whose features are compared; [] compares all.", low=0),
    "COMPRESS.FEAT_FORM": Key("tokens", "str", "Feature mimicking: mean over all tokens, or half the search tokens' "
                              "mean and half the template tokens' (released code).", choices=("tokens", "halves")),
    # ---- training
    "TRAIN.LR": Key(0.0001, "float", "Learning rate of everything but the backbone; compresstracker multiplies all "
                    "with BACKBONE_MULTIPLIER.", above=0),
    "TRAIN.BACKBONE_MULTIPLIER": Key(0.1, "float", "Backbone learning rate over LR.", low=0),
    "TRAIN.WEIGHT_DECAY": Key(0.0001, "float", "AdamW weight decay.", low=0),
    "TRAIN.EPOCH": Key(500, "int", "Number of epochs.", low=1),
    "TRAIN.LR_DROP_EPOCH": Key(400, "int", "Scheduler step: the learning rate drops every so many epochs.", low=1),
    "TRAIN.WARMUP_EPOCH": Key(0.0, "float", "Epochs of linear learning-rate warm-up; may be a fraction.", low=0),
    "TRAIN.SCHEDULER.TYPE": Key("step", "str", "Learning-rate schedule.", choices=("step", "Mstep", "cosine")),
    "TRAIN.SCHEDULER.DECAY_RATE": Key(0.1, "float", "Factor of each drop of step.", above=0, high=1),
    "TRAIN.SCHEDULER.MILESTONES": Key((), "ints", "Epochs of the drops of Mstep.", low=1),
    "TRAIN.SCHEDULER.GAMMA": Key(0.1, "float", "Factor of each drop of Mstep.", above=0, high=1),
    "TRAIN.TOTAL_BATCH": Key(0, "int", "Pairs per optimiser step of all processes together; each process takes its "
                             "share, in ACCUMULATE parts. 0: BATCH_SIZE decides.", low=0),
    "TRAIN.BATCH_SIZE": Key(16, "int", "Pairs per forward pass and process; only read where TOTAL_BATCH is 0.", low=1),
    "TRAIN.ACCUMULATE": Key(1, "int", "Forward and backward passes of an optimiser step.", low=1),
    "TRAIN.LR_RULE": Key("fixed", "str", "How LR follows the total batch: not at all, or times total batch / LR_BATCH "
                         "(linear) or the square root of it (sqrt).", choices=("fixed", "linear", "sqrt")),
    "TRAIN.LR_BATCH": Key(128, "int", "Total batch that LR belongs to, for LR_RULE.", low=1),
    "TRAIN.NUM_WORKER": Key(8, "int", "Workers that load data, per training process; 0 loads in the training "
                            "process itself.", low=0),
    "TRAIN.WORKER_KIND": Key("process", "str", "What a worker is. The samples are the same.",
                             choices=("process", "thread")),
    "TRAIN.OPTIMIZER": Key("ADAMW", "str", "Optimiser.", fixed=ADAMW_ONLY),
    "TRAIN.GRAD_CLIP_NORM": Key(0.1, "float", "Largest gradient norm; 0 does not clip.", low=0),
    "TRAIN.GIOU_WEIGHT": Key(2.0, "float", "Weight of the GIoU loss.", low=0),
    "TRAIN.L1_WEIGHT": Key(5.0, "float", "Weight of the L1 loss.", low=0),
    "TRAIN.FOCAL_WEIGHT": Key(1.0, "float", "Weight of the focal loss on the score map.", low=0),
    "TRAIN.DROP_PATH_RATE": Key(0.1, "float", "Drop path of the last layer; it grows linearly from 0.", low=0,
                                high=0.99),
    "TRAIN.SUP_LOGIT": Key(False, "bool", "compresstracker: prediction guidance by the teacher."),
    "TRAIN.SUP_FEAT": Key(False, "bool", "compresstracker: feature mimicking of the teacher's stages."),
    "TRAIN.SUP_REPLACE": Key(False, "bool", "compresstracker: replacement training (mixed teacher and student)."),
    "TRAIN.FROZEN_LAYERS": Key(0, "int", "A tracker's own training: the embedding and so many first layers keep the "
                               "weights of MODEL.PRETRAIN_FILE; 0: all learns.", low=0),
    "TRAIN.FREEZE_LAYERS": Key((0,), "ints", "Official key that the official code never reads.", fixed=NOT_BUILT),
    "TRAIN.AMP": Key(False, "bool", "Mixed precision."),
    "TRAIN.AMP_DTYPE": Key("auto", "str", "Number format of the mixed precision; auto is bfloat16 where the device has "
                           "it (GPUs from compute capability 8.0, CPUs with AVX-512), else float16 on GPUs; on CPUs "
                           "without it there is no mixed precision.",
                           choices=("auto", "bfloat16", "float16")),
    "TRAIN.TF32": Key(False, "bool", "TF32 for float32 products on CUDA; false leaves PyTorch's default."),
    "TRAIN.COMPILE": Key(False, "bool", "Compile the layers with torch.compile."),
    "TRAIN.FUSED_OPTIMIZER": Key(False, "bool", "AdamW as one fused kernel."),
    "TRAIN.CHECKPOINT_ACTIVATIONS": Key(False, "bool", "Compute the layers again in the backward pass instead of "
                                        "keeping their insides: less memory, more time."),
    "TRAIN.CHANNELS_LAST": Key(False, "bool", "Memory order of the convolutions: channels last."),
    "TRAIN.SYNC_BN": Key(False, "bool", "BatchNorm statistics over the batches of all processes, on GPUs."),
    "TRAIN.FIX_BN": Key(False, "bool", "BatchNorm keeps the statistics that it starts with; its weights learn."),
    "TRAIN.EMA": Key(0.0, "float", "Decay per step of an average of the weights (less at the start), which is then "
                     "validated and kept as the result; 0 for none.", low=0, high=0.999999),
    "TRAIN.DEVICE": Key("auto", "str", "Where to train; auto is CUDA where there is any.",
                        pattern=r"auto|cpu|cuda|cuda:\d+"),
    "TRAIN.THREADS": Key(0, "int", "Threads of PyTorch on the CPU; 0 leaves its default.", low=0),
    "TRAIN.SEED": Key(42, "int", "Seed of everything random.", low=0, high=2**31 - 1),
    "TRAIN.PRINT_INTERVAL": Key(50, "int", "Steps between two log lines.", low=1),
    "TRAIN.VAL_EPOCH_INTERVAL": Key(20, "int", "Epochs between two validations.", low=1),
    "TRAIN.SAVE_EPOCH_INTERVAL": Key(10, "int", "Epochs between two kept checkpoints; the last is always kept.",
                                     low=1),
    "TRAIN.SAVE_STEP_INTERVAL": Key(0, "int", "Steps between two full states within an epoch; 0 saves after epochs "
                                    "only.", low=0),
    "TRAIN.KEEP_BEST": Key(True, "bool", "Keep the checkpoint that validates best, as *_best.pth.tar."),
    "TRAIN.TRACK_EPOCH_INTERVAL": Key(0, "int", "Epochs between two validations by tracking DATA.VAL.TRACK; 0 for "
                                      "none.", low=0),
    "TRAIN.PICTURES": Key(4, "int", "Pairs of each validation whose boxes are drawn for TensorBoard.", low=0),
    "TRAIN.KEEP_STATES": Key(2, "int", "Full training states (for resuming) that stay on the disk.", low=1),
    # ---- data
    "DATA.SAMPLER_MODE": Key("causal", "str", "How the frames of a pair are drawn (lib/families/clips.py).",
                             choices=SAMPLER_MODES),
    "DATA.STORAGE": Key("auto", "str", "Form in which the data sets lie: auto takes what is there (folder, then LMDB, "
                        "then zip).", choices=("auto", "directory", "lmdb", "zip")),
    "DATA.LOADER": Key("frames", "str", "Where crops come from: whole frames, packed crops (tracking/make_crops.py), "
                       "or frames decoded and cropped on the GPU.", choices=("frames", "crops", "gpu")),
    "DATA.DECODER": Key("auto", "str", "JPEG decoder of loader frames, all with the same pixels: auto decodes only "
                        "what a crop needs where there is a libturbojpeg, else whole frames as simplejpeg does.",
                        choices=("auto", "simplejpeg", "opencv")),
    "DATA.SCALED_DECODE": Key(False, "bool", "Decode JPEG files at 1/2, 1/4 or 1/8 where the crop is larger than its "
                              "output anyway: faster, other pixels."),
    "DATA.MAX_UNREADABLE": Key(0.01, "float", "Share of the draws whose image may be missing or damaged (each is "
                               "replaced); above it the run ends.", low=0, high=1),
    "DATA.MEAN": Key((0.485, 0.456, 0.406), "floats", "Mean of the images' red, green, blue (0..1).", length=(3, 3)),
    "DATA.STD": Key((0.229, 0.224, 0.225), "floats", "Standard deviation of red, green, blue.", above=0,
                    length=(3, 3)),
    "DATA.MAX_SAMPLE_INTERVAL": Key(200, "int", "Largest distance in frames of a training pair.", low=1),
    "DATA.GRAYSCALE_PROB": Key(0.05, "float", "Probability that a pair becomes grey.", low=0, high=1),
    "DATA.FLIP_PROB": Key(0.5, "float", "Probability that a pair is mirrored.", low=0, high=1),
    "DATA.BRIGHTNESS_JITTER": Key(0.2, "float", "Largest relative change of brightness.", low=0, high=1),
    "DATA.TRAIN.DATASETS_NAME": _names(("LASOT", "GOT10K_vottrain"), "Training data sets.", (1, None)),
    "DATA.TRAIN.DATASETS_RATIO": Key((1.0, 1.0), "floats", "Their shares of the pairs.", low=0),
    "DATA.TRAIN.SAMPLE_PER_EPOCH": Key(60000, "int", "Pairs per epoch, of all processes together.", low=1),
    "DATA.VAL.DATASETS_NAME": _names(("GOT10K_votval",), "Validation data sets; [], with a ratio of [], trains without "
                                      "validation."),
    "DATA.VAL.DATASETS_RATIO": Key((1.0,), "floats", "Their shares of the pairs.", low=0),
    "DATA.VAL.TRACK": Key("", "str", "Test set of the validation by tracking (a name of tracking/test.py --dataset)."),
    "DATA.VAL.TRACK_SEQUENCES": Key(20, "int", "How many of its sequences, evenly spread; 0 for all.", low=0),
    "DATA.VAL.SAMPLE_PER_EPOCH": Key(10000, "int", "Pairs per validation, of all processes together.", low=1),
    "DATA.SEARCH.SIZE": Key(320, "int", "Side of the search crop in pixels.", low=16, high=2048),
    "DATA.SEARCH.FACTOR": Key(5.0, "float", "Side of the search crop over the square root of the box area.", above=0),
    "DATA.SEARCH.CENTER_JITTER": _jitter(4.5, "Range of the search crop's random shift (full width), in box sides."),
    "DATA.SEARCH.SCALE_JITTER": _jitter(0.5, "Spread (log-normal) of the search crop's scale."),
    "DATA.SEARCH.NUMBER": Key(1, "int", "Search frames of a pair; the loss is summed over them.", low=1),
    "DATA.TEMPLATE.SIZE": Key(128, "int", "Side of the template crop in pixels.", low=16, high=2048),
    "DATA.TEMPLATE.FACTOR": Key(2.0, "float", "Side of the template crop over the square root of the box area.",
                                above=0),
    "DATA.TEMPLATE.CENTER_JITTER": _jitter(0.0, "Range of the template crop's random shift (full width), in box "
                                           "sides."),
    "DATA.TEMPLATE.SCALE_JITTER": _jitter(0.0, "Spread (log-normal) of the template crop's scale."),
    "DATA.TEMPLATE.LATER_CENTER_JITTER": _jitter(0.0, "As CENTER_JITTER, of the templates after the first, which a "
                                                 "tracker cuts around boxes of its own; where this or the next is not "
                                                 "0, the box it is cut around is what the model is told of such a "
                                                 "template. With 0 and 0 they are as the first."),
    "DATA.TEMPLATE.LATER_SCALE_JITTER": _jitter(0.0, "As SCALE_JITTER, of the templates after the first."),
    "DATA.TEMPLATE.NUMBER": Key(1, "int", "Template frames of a pair.", low=1),
    # ---- test
    "TEST.TEMPLATE_FACTOR": Key(2.0, "float", "As DATA.TEMPLATE.FACTOR, when tracking.", above=0),
    "TEST.TEMPLATE_SIZE": Key(128, "int", "As DATA.TEMPLATE.SIZE, when tracking.", low=16, high=2048),
    "TEST.SEARCH_FACTOR": Key(5.0, "float", "As DATA.SEARCH.FACTOR, when tracking.", above=0),
    "TEST.SEARCH_SIZE": Key(320, "int", "As DATA.SEARCH.SIZE, when tracking.", low=16, high=2048),
    "TEST.CHECKPOINT": Key("", "str", "Weights that are tested where the command names none and training left none; "
                           "tried from the repository root, then in pretrained_models/."),
    "TEST.EPOCH": Key(500, "int", "Epoch of the checkpoint that is tested.", low=0),
    "TEST.WINDOW": Key(True, "bool", "Multiply the score map with a Hann window."),
}


class Schema(dict[str, Key]):
    """The keys of one family by dotted name: those of all families, and its own.

    Attributes:
        aliases: other names of keys (`Family.aliases`).
        sections: the dotted names of all sections.
    """

    def __init__(self, keys: Mapping[str, Key], aliases: Mapping[str, str]):
        super().__init__(keys)
        self.aliases = aliases
        self.sections = frozenset(name[:dot] for name in (*keys, *aliases) for dot, letter in enumerate(name)
                                  if letter == ".")

    def canonical(self, name: str) -> str:
        """The key that has this name or alias; another name as it is."""
        return self.aliases.get(name, name)


@cache
def schema_of(family: str) -> Schema:
    """The schema of a family's configurations."""
    name = "MODEL.FAMILY"
    own = get_family(family)
    return Schema({**KEYS, **own.keys, name: replace(KEYS[name], default=family)}, own.aliases)
