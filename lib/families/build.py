"""Models from a configuration, of any family."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import torch

from ..config import Config
from ..models.base import Inputs, StagedTracker
from ..models.checkpoint import load_weights
from ..models.compress import Compressor, divide
from ..models.compress.influence import layer_influence
from ..models.compress.initialise import initialise_student, source_layers
from ..utils.errors import UserError
from ..utils.files import ROOT, resolve

logger = logging.getLogger(__name__)


def build_tracker(cfg: Config, drop_rates: Sequence[float] | None = None) -> StagedTracker:
    """A tracker of the configuration's family with random weights.

    Args:
        cfg: any run's configuration.
        drop_rates: drop-path rate of each layer, whose number is the depth; None: the full depth, rising linearly from
            0 to TRAIN.DROP_PATH_RATE.
    """
    if drop_rates is None:
        drop_rates = _drop_rates(cfg.TRAIN.DROP_PATH_RATE, cfg.shape.depth)
    return cfg.family.build(cfg, drop_rates)


def _drop_rates(last: float, depth: int) -> list[float]:
    """0 at the first layer, `last` at the last."""
    return torch.linspace(0, last, depth, device="cpu").tolist()


def build_teacher(cfg: Config) -> StagedTracker:
    """The full-depth model (the compression's teacher), random weights."""
    return build_tracker(cfg)


def build_student(cfg: Config) -> StagedTracker:
    """The student of a compresstracker configuration, random weights.

    A student layer's drop-path rate is that of its stage's first teacher layer (as in the released code).
    """
    stages = divide(cfg.shape.depth, cfg.MODEL.BACKBONE.DISTILL_LAYER, cfg.COMPRESS.STAGES)
    rates = _drop_rates(cfg.TRAIN.DROP_PATH_RATE, cfg.shape.depth)
    return build_tracker(cfg.student, [rates[stage[0]] for stage in stages])


def build_for_test(cfg: Config) -> StagedTracker:
    """What the configuration's checkpoint holds: the student where it compresses, else the tracker. Its sizes and rules
    are those of `cfg.student`."""
    return build_student(cfg) if cfg.compresses else build_tracker(cfg)


def build_for_train(cfg: Config, frames: Callable[[], Iterable[Inputs]] | None = None, load: bool = True
                    ) -> StagedTracker | Compressor:
    """What the configuration trains.

    Args:
        load: with its initial weights; else random ones, for profiles.
        frames: gives batches of the training data, all on one device, for COMPRESS.INIT influence and for students
            whose layers have not the teacher's shape.

    Raises:
        UserError: a weights file is missing or does not fit.
    """
    if cfg.compresses:
        return build_compressor(cfg, load, frames)
    model = build_tracker(cfg)
    if cfg.MODEL.PRETRAIN_FILE and load:
        path = find_pretrained(cfg.MODEL.PRETRAIN_FILE, "MODEL.PRETRAIN_FILE")
        cfg.family.load_start(model, path)
        logger.info("training starts from %s", path)
    if cfg.TRAIN.FROZEN_LAYERS:
        parts = model.parts()
        for parameter in (*parts["embed"], *model.layers[:cfg.TRAIN.FROZEN_LAYERS].parameters()):
            parameter.requires_grad_(False)
    return model


def build_compressor(cfg: Config, load: bool = True, frames: Callable[[], Iterable[Inputs]] | None = None
                     ) -> Compressor:
    """Teacher and student of a compresstracker configuration.

    Args:
        load: read the teacher's checkpoint (and the MAE file for COMPRESS.INIT mae) and initialise the student from it.
        frames: see `build_for_train`.
    """
    compress = cfg.COMPRESS
    trainable = [part for part in compress.TRAINABLE if part != "head" or compress.HEAD_INIT != "teacher_frozen"]
    if not trainable:
        raise UserError(f"{cfg.source}: nothing learns: COMPRESS.TRAINABLE is [head], which COMPRESS.HEAD_INIT: "
                        "teacher_frozen freezes; add embed, layers or norm to COMPRESS.TRAINABLE")
    drawn = cfg.TRAIN.SUP_REPLACE and compress.SCHEDULE != "stagewise"
    if trainable == ["layers"] and drawn and not compress.FORCED_STUDENT:
        raise UserError(f"{cfg.source}: with nothing but `layers` in COMPRESS.TRAINABLE, a draw that is all teacher "
                        "leaves nothing to learn; add embed, norm or head, or set COMPRESS.FORCED_STUDENT: true")
    teacher, student = build_teacher(cfg), build_student(cfg)
    stages = divide(teacher.depth, student.depth, compress.STAGES)
    axes, batches = None, frames and cache(lambda: list(frames()))       # read once, where they are needed
    if load:
        logger.info("teacher: %d layers from %s", teacher.depth, load_teacher(cfg, teacher))
        if compress.INIT == "mae":
            start = find_pretrained(cfg.MODEL.BACKBONE.PRETRAIN_FILE, "MODEL.BACKBONE.PRETRAIN_FILE")
            cfg.family.load_start(student, start)
        sources = compress.INIT_LAYERS or source_layers(compress.INIT, stages, _influence(cfg, teacher, batches))
        axes = initialise_student(student, teacher, sources=sources, embed=compress.INIT != "mae",
                                  head=compress.HEAD_INIT, frames=batches)
    data = cfg.student.DATA
    sizes = data.TEMPLATE.SIZE, data.SEARCH.SIZE
    if sizes != (cfg.DATA.TEMPLATE.SIZE, cfg.DATA.SEARCH.SIZE) and not student.token_grids:
        raise UserError(f"{cfg.source}: the student's crops have another size than the teacher's, but models of family "
                        f"{cfg.family.name} have no `token_grids` to resample; leave STUDENT.DATA.*.SIZE at 0")
    net = Compressor(teacher, student, stages, teacher_mode=compress.TEACHER_MODE, trainable=trainable,
                     teacher_dtype=_teacher_dtype(cfg), crop_sizes=sizes)
    if axes is not None:
        net.bridges.start(axes)
    if compress.SHARE_PREFIX and net.share_prefix():
        logger.info("the embedding is the teacher's: what the teacher's pass and the mixed pass share is computed once")
    return net


def load_teacher(cfg: Config, teacher: StagedTracker) -> Path:
    """Load the weights of MODEL.PRETRAIN_FILE into a compression's teacher, in place; they may be those of a tracker
    with a wider view (COMPRESS.TEACHER_FACTOR).

    Returns:
        the file.

    Raises:
        UserError: there is none, or it does not fit.
    """
    path = find_pretrained(cfg.MODEL.PRETRAIN_FILE, "MODEL.PRETRAIN_FILE", "the teacher's checkpoint")
    own = cfg.teacher
    if own is cfg:
        load_weights(teacher, path, role="teacher")
    else:
        wide = build_teacher(own)
        load_weights(wide, path, role="teacher")
        teacher.load_middle(wide, cfg.DATA.SEARCH.FACTOR, own.DATA.SEARCH.FACTOR)
    return path


def _influence(cfg: Config, teacher: StagedTracker, frames: Callable[[], Sequence[Inputs]] | None) -> list[float]:
    """Of each teacher layer, where the configuration asks for it."""
    if cfg.COMPRESS.INIT != "influence":
        return []
    if frames is None:
        raise ValueError("COMPRESS.INIT influence needs frames")
    batches = frames()
    influence = layer_influence(teacher.to(batches[0].search.device), batches)
    teacher.cpu()
    logger.info("influence of the teacher's layers on %d training pairs: %s", sum(len(b.search) for b in batches),
                ", ".join(f"{index}: {value:.3f}" for index, value in enumerate(influence)))
    return influence


def _teacher_dtype(cfg: Config) -> torch.dtype | None:
    """COMPRESS.TEACHER_DTYPE where it differs from the number format of the training, else None; neither is `auto` on
    two sides that may differ (the training asks its device first)."""
    training = cfg.TRAIN.AMP_DTYPE if cfg.TRAIN.AMP else "float32"
    name = cfg.COMPRESS.TEACHER_DTYPE
    return None if name in ("same", training) else getattr(torch, name)


def find_pretrained(name: str, key: str, description: str = "the file with the pre-trained weights") -> Path:
    """Path of a weights file: `name` itself (from the repository root when relative), else in `pretrained_models/`.

    Raises:
        UserError: it is in neither place.
    """
    if not name:
        raise UserError(f"{key} is empty, but {description} is needed; name the file")
    places = [resolve(name), ROOT / "pretrained_models" / Path(name).name]
    for place in places:
        if place.is_file():
            return place
    tried = ", ".join(dict.fromkeys(str(place) for place in places))
    raise UserError(f"{description} ({key}: {name}) was not found; looked for {tried}. Put the file there, or name "
                    f"its path in the yaml or with --set {key}=PATH.")
