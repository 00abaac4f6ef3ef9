"""SUTrack (Chen et al., AAAI 2025): one model for pictures, depth, heat, events and words, on Fast-iTPN."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base import Family, Shape
from .keys import ALIASES, KEYS, SIZES

if TYPE_CHECKING:
    from ...config import Config
    from ..objective import Objective
    from ..rules import Rules
    from .model import SUTrackModel


class SUTrack(Family):
    """The family of chenxin-dlut/SUTrack."""

    name, title, keys, aliases, last_pixel = "sutrack", "SUTrack", KEYS, ALIASES, True

    def shape(self, cfg: "Config") -> Shape:
        """Of the main blocks: from MODEL.BACKBONE.TYPE, where EMBED_DIM, DEPTH, NUM_HEADS or MLP_RATIO do not set
        it."""
        backbone, size = cfg.MODEL.BACKBONE, SIZES[cfg.MODEL.BACKBONE.TYPE]
        return Shape(size.embed_dim, size.depth, size.num_heads, 3.0).with_keys(backbone)

    def check(self, cfg: "Config") -> Iterator[str]:
        backbone, data, test = cfg.MODEL.BACKBONE, cfg.DATA, cfg.TEST
        width = cfg.shape.embed_dim
        if backbone.STRIDE != 16:
            yield f"MODEL.BACKBONE.STRIDE is {backbone.STRIDE}; expected 16, the stride of Fast-iTPN's convolutions"
        if width % 4:
            yield (f"MODEL.BACKBONE.EMBED_DIM is {width}; expected a multiple of 4: the first stage has a quarter of "
                   "the width")
        if data.TEMPLATE.NUMBER != test.NUM_TEMPLATES:
            yield (f"TEST.NUM_TEMPLATES is {test.NUM_TEMPLATES}; expected DATA.TEMPLATE.NUMBER "
                   f"({data.TEMPLATE.NUMBER}), which the model learns with")
        if data.MULTI_MODAL_LANGUAGE != test.MULTI_MODAL_LANGUAGE.DEFAULT:
            yield ("DATA.MULTI_MODAL_LANGUAGE and TEST.MULTI_MODAL_LANGUAGE.DEFAULT differ; expected both true (with "
                   "the text token) or both false")
        numbers = cfg.MODEL.TASK_INDEX.to_dict()
        beyond = [f"{name} {number}" for name, number in numbers.items() if number >= cfg.MODEL.TASK_NUM]
        if beyond:
            yield (f"MODEL.TASK_INDEX has {', '.join(beyond)}; expected numbers below MODEL.TASK_NUM "
                   f"({cfg.MODEL.TASK_NUM})")
        student = cfg.STUDENT.MODEL.BACKBONE
        kind = student.TYPE
        if cfg.compresses and (student.EMBED_DIM or (SIZES[kind].embed_dim if kind in SIZES else width)) == width:
            if kind in SIZES and SIZES[kind].early != SIZES[backbone.TYPE].early:
                yield (f"STUDENT.MODEL.BACKBONE.TYPE {kind} has the width of the teacher's {backbone.TYPE}, but other "
                       "early stages, so that it cannot start from it; leave it empty, or take a TYPE of another width")
            if student.MLP_RATIO not in (0, cfg.shape.mlp_ratio):
                yield (f"STUDENT.MODEL.BACKBONE.MLP_RATIO {student.MLP_RATIO:g} is not the teacher's "
                       f"{cfg.shape.mlp_ratio:g}, which the early stages have too, so that they cannot start from it; "
                       "leave it 0, or take a student of another width")

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "SUTrackModel":
        from .model import build

        return build(cfg, self.shape(cfg), drop_rates)

    def objective(self, cfg: "Config") -> "Objective":
        from .objective import SUTrackObjective

        return SUTrackObjective(cfg)

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        test = cfg.TEST
        return {"number": test.NUM_TEMPLATES, "interval": test.UPDATE_INTERVALS.DEFAULT,
                "threshold": test.UPDATE_THRESHOLD.DEFAULT}

    def rules(self, benchmark: str = "", **values: Any) -> "Rules":
        from .runtime import TypedTemplates

        return TypedTemplates(**values)

    def load_start(self, model: "SUTrackModel", path: Path) -> None:
        from .weights import load_fast_itpn

        load_fast_itpn(model, path)


FAMILY = SUTrack()
