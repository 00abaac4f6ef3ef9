"""What the families of one-stream trackers share (`lib.models.one_stream`): candidate elimination, with its keys, its
checks, the mask that steers it and its schedule in training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..config.schema import Key, show
from .base import Family

if TYPE_CHECKING:
    from ..config import Config
    from .objective import Objective
    from .rules import Rules

ELIMINATION_KEYS = {
    "MODEL.BACKBONE.CE_LOC": Key((), "ints", "Layers (counted from 0) in which candidates are eliminated.", low=0),
    "MODEL.BACKBONE.CE_KEEP_RATIO": Key((), "floats", "Share of the search tokens kept at each of CE_LOC.", above=0,
                                        high=1),
    "MODEL.BACKBONE.CE_TEMPLATE_RANGE": Key("ALL", "str", "Template tokens whose attention decides the elimination.",
                                            choices=("ALL", "CTR_POINT", "CTR_REC", "GT_BOX")),
    "TRAIN.CE_START_EPOCH": Key(20, "int", "Epoch in which candidate elimination begins.", low=0),
    "TRAIN.CE_WARM_EPOCH": Key(80, "int", "Epochs until it reaches CE_KEEP_RATIO.", low=0),
}
"""Names and defaults are OSTrack's."""


class OneStreamFamily(Family):
    """A family whose models are `OneStreamTracker`s. Its keys hold `ELIMINATION_KEYS`."""

    def check(self, cfg: "Config") -> Iterator[str]:
        """The one template, and where candidates are eliminated."""
        templates = cfg.DATA.TEMPLATE.NUMBER
        if templates != 1:
            yield f"DATA.TEMPLATE.NUMBER is {templates}; expected 1: a model of family {self.name} takes one template"
        backbone, depth = cfg.MODEL.BACKBONE, cfg.shape.depth
        where = backbone.CE_LOC
        if len(where) != len(backbone.CE_KEEP_RATIO):
            yield (f"MODEL.BACKBONE.CE_LOC has {len(where)} entries and MODEL.BACKBONE.CE_KEEP_RATIO "
                   f"{len(backbone.CE_KEEP_RATIO)}; expected one ratio for each layer")
        if list(where) != sorted(set(where)) or any(layer >= depth for layer in where):
            yield f"MODEL.BACKBONE.CE_LOC is {show(where)}; expected rising numbers of layers from 0 to {depth - 1}"
        if where and cfg.compresses:
            yield ("MODEL.BACKBONE.CE_LOC is set; replacement training needs the same tokens in every layer, so set "
                   "CE_LOC and CE_KEEP_RATIO to [] (weights of a teacher with elimination can be used without it)")

    def objective(self, cfg: "Config") -> "Objective":
        from .elimination import EliminationObjective

        return EliminationObjective(cfg)

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        backbone = cfg.MODEL.BACKBONE
        return {"ce_range": backbone.CE_TEMPLATE_RANGE if backbone.CE_LOC else None, "stride": backbone.STRIDE}

    def rules(self, benchmark: str = "", **values: Any) -> "Rules":
        from .elimination import EliminationRules

        return EliminationRules(**values)
