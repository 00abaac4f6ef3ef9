"""Combinations of keys that cannot work."""

from typing import TYPE_CHECKING

from ..utils.errors import UserError
from .schema import show

if TYPE_CHECKING:
    from .config import Config


def check_combinations(cfg: "Config") -> None:
    """Raise a `UserError` that lists every impossible combination of `cfg` with its keys and values."""
    problems = [*_layers(cfg), *cfg.family.check(cfg), *_sizes(cfg), *_data(cfg), *_training(cfg)]
    if cfg.compresses:
        problems += _compression(cfg)
        if not problems:            # else the student's configuration would only say them again
            problems += _student(cfg)
    if problems:
        raise UserError("\n".join(f"{cfg.origin()}: {problem}" for problem in problems))


def _layers(cfg):
    shape = cfg.shape
    if shape.embed_dim % shape.num_heads:
        yield (f"the backbone's width {shape.embed_dim} is not a multiple of its {shape.num_heads} attention heads; "
               "set MODEL.BACKBONE.EMBED_DIM and MODEL.BACKBONE.NUM_HEADS so that it is")


def _sizes(cfg):
    stride = cfg.MODEL.BACKBONE.STRIDE
    for part in ("SEARCH", "TEMPLATE"):
        size, test_size = getattr(cfg.DATA, part).SIZE, getattr(cfg.TEST, f"{part}_SIZE")
        if size % stride:
            yield f"DATA.{part}.SIZE is {size}; expected a multiple of MODEL.BACKBONE.STRIDE ({stride})"
        if size != test_size:
            yield (f"TEST.{part}_SIZE is {test_size}; expected DATA.{part}.SIZE ({size}), to which the model's "
                   "positions belong")


def _data(cfg):
    try:
        cfg.family.clips(cfg)
    except UserError as error:
        yield str(error)
    template = cfg.DATA.TEMPLATE
    if template.LATER_CENTER_JITTER or template.LATER_SCALE_JITTER:
        if template.NUMBER == 1:
            yield ("DATA.TEMPLATE.LATER_CENTER_JITTER or LATER_SCALE_JITTER is not 0, but DATA.TEMPLATE.NUMBER is 1: "
                   "there is no template after the first; set them to 0, or the number to 2")
        if cfg.DATA.LOADER == "crops":
            yield ("DATA.TEMPLATE.LATER_CENTER_JITTER or LATER_SCALE_JITTER is not 0, but packed crops hold templates "
                   "without it; set DATA.LOADER to frames or gpu, or both to 0")
    if cfg.DATA.SCALED_DECODE and (cfg.DATA.LOADER != "frames" or cfg.DATA.DECODER == "opencv"):
        yield (f"DATA.SCALED_DECODE is true, but DATA.LOADER {cfg.DATA.LOADER} with DATA.DECODER {cfg.DATA.DECODER} "
               "does not decode at a smaller scale; use LOADER frames with DECODER auto or simplejpeg")
    for part in ("TRAIN", "VAL"):
        section = getattr(cfg.DATA, part)
        names, ratios = section.DATASETS_NAME, section.DATASETS_RATIO
        if len(names) != len(ratios):
            yield (f"DATA.{part}.DATASETS_NAME has {len(names)} entries and DATA.{part}.DATASETS_RATIO {len(ratios)}; "
                   "expected one ratio for each data set")
        elif names and not sum(ratios) > 0:
            yield f"DATA.{part}.DATASETS_RATIO is {show(ratios)}; expected at least one ratio above 0"
    if cfg.TRAIN.TRACK_EPOCH_INTERVAL and not cfg.DATA.VAL.TRACK:
        yield (f"TRAIN.TRACK_EPOCH_INTERVAL is {cfg.TRAIN.TRACK_EPOCH_INTERVAL}, but DATA.VAL.TRACK is empty; name the "
               "test set that is tracked, for example got10k_val")


def _training(cfg):
    schedule = cfg.TRAIN.SCHEDULER
    milestones = list(schedule.MILESTONES)
    if milestones != sorted(set(milestones)):
        yield f"TRAIN.SCHEDULER.MILESTONES is {show(milestones)}; expected rising epochs"
    if schedule.TYPE == "Mstep" and not milestones:
        yield "TRAIN.SCHEDULER.TYPE is Mstep, but TRAIN.SCHEDULER.MILESTONES is empty; name the epochs of the drops"
    if cfg.TRAIN.WARMUP_EPOCH > cfg.TRAIN.EPOCH:
        yield (f"TRAIN.WARMUP_EPOCH is {cfg.TRAIN.WARMUP_EPOCH:g}; expected at most TRAIN.EPOCH ({cfg.TRAIN.EPOCH})")
    frozen = cfg.TRAIN.FROZEN_LAYERS
    if frozen and cfg.compresses:
        yield (f"TRAIN.FROZEN_LAYERS is {frozen}, which is for a tracker's own training; what of a student learns is "
               "said by COMPRESS.TRAINABLE")
    elif frozen > cfg.shape.depth:
        yield f"TRAIN.FROZEN_LAYERS is {frozen}; the tracker has only {cfg.shape.depth} layers"
    elif frozen and not cfg.MODEL.PRETRAIN_FILE:
        yield (f"TRAIN.FROZEN_LAYERS is {frozen}, but MODEL.PRETRAIN_FILE is empty: these layers would stay random; "
               "name the weights, or set it to 0")
    if cfg.TRAIN.TOTAL_BATCH and "TRAIN.BATCH_SIZE" in cfg.overrides:
        yield (f"TRAIN.BATCH_SIZE has no effect, because TRAIN.TOTAL_BATCH is {cfg.TRAIN.TOTAL_BATCH}; set TOTAL_BATCH "
               "alone (pairs per step of all processes), or TRAIN.TOTAL_BATCH=0 with TRAIN.BATCH_SIZE")


def _compression(cfg):
    compress, depth, student = cfg.COMPRESS, cfg.shape.depth, cfg.MODEL.BACKBONE.DISTILL_LAYER
    if student > depth:
        yield f"MODEL.BACKBONE.DISTILL_LAYER is {student}; the teacher has only {depth} layers"
    if compress.STAGES and (len(compress.STAGES) != student or sum(compress.STAGES) != depth):
        yield (f"COMPRESS.STAGES is {show(compress.STAGES)} ({len(compress.STAGES)} stages, {sum(compress.STAGES)} "
               f"layers); expected MODEL.BACKBONE.DISTILL_LAYER ({student}) stages with the teacher's {depth} layers "
               "in all, or [] for an even division")
    if len(set(compress.FEAT_STAGES)) < len(compress.FEAT_STAGES) or any(i >= student for i in compress.FEAT_STAGES):
        yield (f"COMPRESS.FEAT_STAGES is {show(compress.FEAT_STAGES)}; expected numbers from 0 to {student - 1}, each "
               "once, or [] for all stages")
    if (compress.INIT == "layers") != bool(compress.INIT_LAYERS):
        yield (f"COMPRESS.INIT is {compress.INIT} and COMPRESS.INIT_LAYERS {show(compress.INIT_LAYERS)}; expected INIT "
               "layers with one number for each student layer, or INIT_LAYERS []")
    elif compress.INIT_LAYERS and (len(compress.INIT_LAYERS) != student or max(compress.INIT_LAYERS) >= depth):
        yield (f"COMPRESS.INIT_LAYERS is {show(compress.INIT_LAYERS)}; expected {student} numbers from 0 to "
               f"{depth - 1}, one for each student layer (MODEL.BACKBONE.DISTILL_LAYER)")
    if compress.ALPHA1 + compress.ALPHA2 > 1:
        yield (f"COMPRESS.ALPHA1 {compress.ALPHA1:g} and COMPRESS.ALPHA2 {compress.ALPHA2:g} make more than the whole "
               "training; expected a sum of at most 1")
    if compress.SCHEDULE == "stagewise" and cfg.TRAIN.EPOCH < student:
        yield (f"COMPRESS.SCHEDULE is stagewise, but TRAIN.EPOCH {cfg.TRAIN.EPOCH} is less than the {student} stages: "
               "the last would never be trained; set TRAIN.EPOCH to that number at least")
    if len(set(compress.TRAINABLE)) != len(compress.TRAINABLE):
        yield f"COMPRESS.TRAINABLE is {show(compress.TRAINABLE)}; expected each part once"
    if compress.HEAD_INIT == "random" and "head" not in compress.TRAINABLE:
        yield "COMPRESS.HEAD_INIT is random, but head is not in COMPRESS.TRAINABLE: it would stay random"
    if compress.INIT == "none" and "layers" not in compress.TRAINABLE:
        yield "COMPRESS.INIT is none, but layers is not in COMPRESS.TRAINABLE: they would stay random"
    if compress.TEACHER_FACTOR:
        yield from _wide_teacher(cfg)


def _wide_teacher(cfg):
    wide, search, stride = cfg.COMPRESS.TEACHER_FACTOR, cfg.DATA.SEARCH, cfg.MODEL.BACKBONE.STRIDE
    if wide != search.FACTOR and not cfg.family.sees_middle(cfg):
        yield (f"COMPRESS.TEACHER_FACTOR is {wide:g}, but models of family {cfg.family.name} with a MODEL.HEAD.TYPE of "
               f"{cfg.MODEL.HEAD.TYPE} cannot be made to see {search.FACTOR:g} times the target alone; set it to 0 and "
               "DATA.SEARCH as the teacher's")
    side = search.SIZE * wide / search.FACTOR
    border = (side - search.SIZE) / 2 / stride
    if border < 0 or abs(border - round(border)) > 1e-6:
        yield (f"COMPRESS.TEACHER_FACTOR is {wide:g}: with a DATA.SEARCH.SIZE of {search.SIZE} pixels for "
               f"{search.FACTOR:g} times the target the teacher's crops had {side:g} pixels, {border:g} tokens of "
               f"{stride} pixels more on each side; expected a whole number of at least 0")


def _student(cfg):
    compress, teacher, student = cfg.COMPRESS, cfg.shape, cfg.student.shape
    if student.embed_dim != teacher.embed_dim:
        yield from _other_width(cfg, teacher, student)
    if cfg.student.MODEL.HEAD.NUM_CHANNELS != cfg.MODEL.HEAD.NUM_CHANNELS and compress.HEAD_INIT != "random":
        yield (f"COMPRESS.HEAD_INIT is {compress.HEAD_INIT}, but the student's head has another width than the "
               "teacher's; expected random")


def _other_width(cfg, teacher, student):
    compress = cfg.COMPRESS
    impossible = f"a student of width {student.embed_dim} cannot start from layers of width {teacher.embed_dim}"
    if compress.INIT in ("none", "mae"):
        if compress.HEAD_INIT != "random":
            yield (f"COMPRESS.HEAD_INIT is {compress.HEAD_INIT}, but with COMPRESS.INIT {compress.INIT} the student's "
                   f"tokens of width {student.embed_dim} have nothing to do with the teacher's of width "
                   f"{teacher.embed_dim}; expected random")
    elif not cfg.family.narrows(cfg):
        yield (f"COMPRESS.INIT is {compress.INIT}, but {impossible} here (of family {cfg.family.name}); expected "
               "none, or mae with weights of its own width")
    elif student.embed_dim > teacher.embed_dim or student.head_dim != teacher.head_dim:
        yield (f"COMPRESS.INIT is {compress.INIT}, but {impossible} with {student.num_heads} heads; expected fewer "
               f"heads of the teacher's width {teacher.head_dim}, or none, or mae with weights of its own width")
