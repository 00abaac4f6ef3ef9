"""The students that a teacher can be compressed to: what is varied, and the configuration of each."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch

from ..config import Config
from ..families.base import Shape
from ..families.build import build_for_test
from ..utils.errors import UserError

logger = logging.getLogger(__name__)

WIDTHS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the teacher's attention heads, which keep their width."""
MLP_RATIOS = (1.0, 0.5, 0.25)
"""Shares of the teacher's MLP ratio."""
KEPT = (1.0, 0.7, 0.5)
"""Shares of the search tokens that stay after the elimination."""
RESOLUTIONS = (1.0, 0.75, 0.5)
"""Shares of the sides of the teacher's crops."""
MIN_ELIMINATING = 3
"""Layers of the shallowest student that eliminates candidates."""


class Kind(NamedTuple):
    """Everything about a student but its layers' number; equal kinds have equal layers.

    Attributes:
        width, heads, mlp_ratio: of the layers.
        kept: share of the search tokens that stay behind the layer `elimination_layer`; 1 for all.
        search, template: sides of the crops in pixels.
    """

    width: int
    heads: int
    mlp_ratio: float
    kept: float
    search: int
    template: int

    @property
    def whole(self) -> "Kind":
        """The same without elimination."""
        return self._replace(kept=1.0)


@dataclass(frozen=True)
class Candidate:
    """A student.

    Attributes:
        kind: of its layers.
        stages: teacher layers that each of its layers stands for.
    """

    kind: Kind
    stages: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Their number."""
        return len(self.stages)

    def to_list(self) -> list[Any]:
        """For JSON: kind and stages."""
        return [list(self.kind), list(self.stages)]


def elimination_layer(layers: int) -> int:
    """The layer (from 0) in which a student of so many layers eliminates candidates: after a quarter of them, as
    OSTrack does first, but not in the first."""
    return max(1, layers // 4)


def kind_of(cfg: Config) -> Kind:
    """The teacher's own kind, with all tokens."""
    shape = cfg.shape
    return Kind(shape.embed_dim, shape.num_heads, shape.mlp_ratio, 1.0, cfg.DATA.SEARCH.SIZE, cfg.DATA.TEMPLATE.SIZE)


def overrides(base: Config, kind: Kind, layers: int, stages: Sequence[int] = ()) -> dict[str, Any]:
    """The keys that make a compression configuration `base` one of this student; only those that differ from the
    teacher's.

    Raises:
        UserError: the family has no such students.
    """
    teacher, backbone = kind_of(base), "STUDENT.MODEL.BACKBONE."
    keys: dict[str, Any] = {"MODEL.BACKBONE.DISTILL_LAYER": layers}
    if stages:
        keys["COMPRESS.STAGES"] = list(stages)
    if kind.width != teacher.width:
        keys |= {backbone + "EMBED_DIM": kind.width, backbone + "NUM_HEADS": kind.heads}
        if not base.family.narrows(base):
            keys |= {"COMPRESS.INIT": "none", "COMPRESS.HEAD_INIT": "random"}
    if kind.mlp_ratio != teacher.mlp_ratio:
        keys[backbone + "MLP_RATIO"] = kind.mlp_ratio
    if kind.search != teacher.search:
        keys |= {"STUDENT.DATA.SEARCH.SIZE": kind.search, "STUDENT.DATA.TEMPLATE.SIZE": kind.template}
    if kind.kept < 1:
        eliminating = base.family.eliminating(base, elimination_layer(layers), kind.kept)
        if eliminating is None:
            raise UserError(f"students of family {base.family.name} eliminate no candidates")
        # the shares of OSTrack's training at which its elimination begins and is complete
        keys |= {**eliminating, "TRAIN.CE_START_EPOCH": round(base.TRAIN.EPOCH / 15),
                 "TRAIN.CE_WARM_EPOCH": round(base.TRAIN.EPOCH * 4 / 15)}
    return keys


def kinds(base: Config, varied: Iterable[str]) -> Iterator[Kind]:
    """All kinds of students to look at, the teacher's own first; those that its family cannot be made into are left
    out.

    Args:
        base: a compression configuration.
        varied: some of `lib.budget.options.VARIED`.

    Raises:
        UserError: not even the teacher's own kind can be built.
    """
    teacher, depth = kind_of(base), base.shape.depth
    varied = set(varied)
    values = [_widths(base.shape) if "width" in varied else [(teacher.width, teacher.heads)],
              [share * teacher.mlp_ratio for share in MLP_RATIOS] if "mlp" in varied else [teacher.mlp_ratio],
              KEPT if "tokens" in varied else KEPT[:1],
              _sides(base) if "resolution" in varied else [(teacher.search, teacher.template)]]
    refused: dict[str, str] = {}
    for (width, heads), mlp, kept, (search, template) in product(*values):
        kind = Kind(width, heads, mlp, kept, search, template)
        new = _differences(kind, teacher)
        if any(name in refused for name in new) and len(new) > 1:
            continue
        try:
            _probe(base, kind, depth)
        except UserError as error:
            if not new:
                raise
            refused.setdefault(" and ".join(new), str(error))
            continue
        yield kind
    for name, reason in refused.items():
        logger.info("%s is not varied: %s", name, reason)


def _differences(kind: Kind, teacher: Kind) -> list[str]:
    """In which ways they differ, as `lib.budget.options.VARIED` calls them."""
    same = {"width": kind.width == teacher.width, "mlp": kind.mlp_ratio == teacher.mlp_ratio, "tokens": kind.kept == 1,
            "resolution": kind.search == teacher.search}
    return [name for name, equal in same.items() if not equal]


def _probe(base: Config, kind: Kind, depth: int) -> None:
    """UserError where a student of this kind cannot be built."""
    if kind.kept < 1 and depth < MIN_ELIMINATING:
        raise UserError(f"the teacher has {depth} layers, and a student that eliminates candidates needs "
                        f"{MIN_ELIMINATING}")
    layers = min(depth, MIN_ELIMINATING if kind.kept < 1 else 2)
    cfg = base.with_overrides(overrides(base, kind, layers))
    with torch.device("meta"):
        student = build_for_test(cfg)
    if kind.search != kind_of(base).search and not student.token_grids:
        raise UserError(f"models of family {base.family.name} have no positions that could be resampled")


def _widths(teacher: Shape) -> list[tuple[int, int]]:
    """(width, heads), the widest first."""
    heads = dict.fromkeys(max(1, round(share * teacher.num_heads)) for share in WIDTHS)
    return [(number * teacher.head_dim, number) for number in heads]


def _sides(base: Config) -> list[tuple[int, int]]:
    """(search, template) in whole tokens, the largest first."""
    stride, teacher = base.MODEL.BACKBONE.STRIDE, kind_of(base)
    sides = dict.fromkeys(tuple(max(1, round(share * side / stride)) * stride
                                for side in (teacher.search, teacher.template)) for share in RESOLUTIONS)
    return list(sides)


def describe(kind: Kind, teacher: Kind) -> str:
    """What is special about a kind, in words; "as the teacher" where nothing is."""
    words: Mapping[str, str] = {"width": f"width {kind.width}", "mlp": f"MLP {kind.mlp_ratio:g}",
                                "tokens": f"{100 * kind.kept:.0f} % of the tokens", "resolution": f"{kind.search} px"}
    return ", ".join(words[name] for name in _differences(kind, teacher)) or "as the teacher"
