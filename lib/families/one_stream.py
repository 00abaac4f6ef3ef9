"""What the families of one-stream trackers share (`lib.models.one_stream`): the kinds of layers, and candidate
elimination with its keys, its checks, the mask that steers it and its schedule in training."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.schema import Key, show
from .base import Family, Shape

if TYPE_CHECKING:
    from torch import nn

    from ..config import Config
    from .objective import Objective
    from .rules import Rules

LAYERS = ("attention", "separable", "separable_block")

KEYS = {
    "MODEL.BACKBONE.LAYER": Key("attention", "str", "Kind of the layers; the separable ones are SMAT's.",
                                choices=LAYERS),
    "MODEL.BACKBONE.LAYER_PATCH": Key(1, "int", "Side of a separable layer's patches in tokens.", low=1),
    "STUDENT.MODEL.BACKBONE.LAYER": Key("", "str", "Kind of the student's layers; '' is the teacher's.",
                                        choices=("", *LAYERS)),
    "STUDENT.MODEL.BACKBONE.LAYER_PATCH": Key(0, "int", "LAYER_PATCH of the student's layers; 0 is the teacher's.",
                                              low=0),
    "MODEL.BACKBONE.CE_LOC": Key((), "ints", "Layers (counted from 0) in which candidates are eliminated.", low=0),
    "MODEL.BACKBONE.CE_KEEP_RATIO": Key((), "floats", "Share of the search tokens kept at each of CE_LOC.", above=0,
                                        high=1),
    "MODEL.BACKBONE.CE_TEMPLATE_RANGE": Key("ALL", "str", "Template tokens whose attention decides the elimination.",
                                            choices=("ALL", "CTR_POINT", "CTR_REC", "GT_BOX")),
    "STUDENT.MODEL.BACKBONE.CE_LOC": Key((), "ints", "Layers of the student (counted from 0) in which candidates are "
                                         "eliminated; the teacher eliminates none.", low=0),
    "STUDENT.MODEL.BACKBONE.CE_KEEP_RATIO": Key((), "floats", "As CE_KEEP_RATIO, for the student.", above=0, high=1),
    "STUDENT.MODEL.BACKBONE.CE_TEMPLATE_RANGE": Key("", "str", "As CE_TEMPLATE_RANGE, for the student; '' is the value "
                                                    "of that."),
    "TRAIN.CE_START_EPOCH": Key(20, "int", "Epoch in which candidate elimination begins.", low=0),
    "TRAIN.CE_WARM_EPOCH": Key(80, "int", "Epochs until it reaches CE_KEEP_RATIO.", low=0),
}
"""Names and defaults are OSTrack's."""


class OneStreamFamily(Family):
    """A family whose models are `OneStreamTracker`s. Its keys hold `KEYS`.

    Attributes:
        several_templates: its models take any number of them; else one.
    """

    several_templates: ClassVar[bool] = False

    def check(self, cfg: "Config") -> Iterator[str]:
        """The number of templates, the kind of the layers, and where candidates are eliminated."""
        templates = cfg.DATA.TEMPLATE.NUMBER
        if templates != 1 and not self.several_templates:
            yield f"DATA.TEMPLATE.NUMBER is {templates}; expected 1: a model of family {self.name} takes one template"
        backbone, depth = cfg.MODEL.BACKBONE, cfg.shape.depth
        where = backbone.CE_LOC
        if len(where) != len(backbone.CE_KEEP_RATIO):
            yield (f"MODEL.BACKBONE.CE_LOC has {len(where)} entries and MODEL.BACKBONE.CE_KEEP_RATIO "
                   f"{len(backbone.CE_KEEP_RATIO)}; expected one ratio for each layer")
        if list(where) != sorted(set(where)) or any(layer >= depth for layer in where):
            yield f"MODEL.BACKBONE.CE_LOC is {show(where)}; expected rising numbers of layers from 0 to {depth - 1}"
        if where and backbone.LAYER != "attention":
            yield (f"MODEL.BACKBONE.LAYER is {backbone.LAYER}, whose layers eliminate no candidates; set CE_LOC and "
                   "CE_KEEP_RATIO to []")
        for view in ("TEMPLATE", "SEARCH"):
            side = getattr(cfg.DATA, view).SIZE // backbone.STRIDE
            if backbone.LAYER != "attention" and side % backbone.LAYER_PATCH:
                yield (f"MODEL.BACKBONE.LAYER_PATCH is {backbone.LAYER_PATCH}; expected a divisor of the {side} tokens "
                       f"in a row of the {view.lower()} crop")
        student = cfg.STUDENT.MODEL.BACKBONE.LAYER or backbone.LAYER
        if cfg.compresses and student != backbone.LAYER and cfg.COMPRESS.INIT not in ("none", "mae"):
            yield (f"COMPRESS.INIT is {cfg.COMPRESS.INIT}, but {student} layers cannot copy {backbone.LAYER} layers; "
                   "expected none")
        if where and cfg.compresses:
            yield ("MODEL.BACKBONE.CE_LOC is set, but a teacher keeps all tokens while it is compressed; set CE_LOC "
                   "and CE_KEEP_RATIO to [] (weights of a teacher with elimination can be used without it). The keys "
                   "of the student are STUDENT.MODEL.BACKBONE.CE_LOC and CE_KEEP_RATIO")

    def sees_middle(self, cfg: "Config") -> bool:
        """With a head that looks at places, not at the whole crop (MLP)."""
        return cfg.MODEL.HEAD.TYPE != "MLP"

    def objective(self, cfg: "Config") -> "Objective":
        from .elimination import EliminationObjective

        return EliminationObjective(cfg)

    def as_teacher(self, cfg: "Config") -> dict[str, Any]:
        """A teacher keeps all tokens; the weights are the same."""
        return {"MODEL.BACKBONE.CE_LOC": [], "MODEL.BACKBONE.CE_KEEP_RATIO": []}

    def eliminating(self, cfg: "Config", layer: int, kept: float) -> dict[str, Any] | None:
        return {"STUDENT.MODEL.BACKBONE.CE_LOC": [layer], "STUDENT.MODEL.BACKBONE.CE_KEEP_RATIO": [kept]}

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        backbone = cfg.MODEL.BACKBONE
        return {"ce_range": backbone.CE_TEMPLATE_RANGE if backbone.CE_LOC else None, "stride": backbone.STRIDE}

    def rules(self, benchmark: str = "", **values: Any) -> "Rules":
        from .elimination import EliminationRules

        return EliminationRules(**values)


def one_stream_layers(cfg: "Config", shape: Shape, drop_rates: Sequence[float], eps: float = 1e-6
                      ) -> list["nn.Module"]:
    """The layers that a configuration asks for (see `lib.models.one_stream.build_layers`)."""
    from ..models.one_stream import build_layers

    backbone = cfg.MODEL.BACKBONE
    return build_layers(backbone.LAYER, drop_rates, embed_dim=shape.embed_dim, num_heads=shape.num_heads,
                        mlp_ratio=shape.mlp_ratio, patch=backbone.LAYER_PATCH, eps=eps,
                        keep_rates=dict(zip(backbone.CE_LOC, backbone.CE_KEEP_RATIO, strict=True)))
