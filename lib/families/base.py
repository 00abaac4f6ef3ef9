"""What a tracker family tells the rest of the code about itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from ..config import Config
    from ..config.config import Section
    from ..config.schema import Key
    from ..models.base import StagedTracker
    from .clips import ClipRule
    from .objective import Objective
    from .rules import Rules


class Shape(NamedTuple):
    """Width of the tokens, layers (of the teacher, where a configuration compresses), heads and the MLP's relative
    width."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.embed_dim // self.num_heads

    def with_keys(self, backbone: "Section") -> "Shape":
        """This shape with what the keys EMBED_DIM, DEPTH, NUM_HEADS and MLP_RATIO of MODEL.BACKBONE set."""
        stated = (backbone.EMBED_DIM, backbone.DEPTH, backbone.NUM_HEADS, backbone.MLP_RATIO)
        return Shape(*(value or own for value, own in zip(stated, self, strict=True)))


class Family(ABC):
    """A tracker family. One object each, without state.

    Attributes:
        name: of its folder; also the script that trains it and the value of MODEL.FAMILY.
        title: in names of checkpoints and in messages.
        keys: configuration keys of its own, and keys of the schema for which it has another default or other choices.
        aliases: names that its official configurations have for keys of these.
        last_pixel: boxes in its crops are divided by the distance of the crop's first and last pixel, not by its side.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    keys: ClassVar[Mapping[str, "Key"]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    last_pixel: ClassVar[bool] = False

    @abstractmethod
    def shape(self, cfg: "Config") -> Shape:
        """The shape of the (teacher's) layers."""

    def check(self, cfg: "Config") -> Iterator[str]:
        """A message for each impossible combination of keys, on top of those that are impossible for every family."""
        yield from ()

    @abstractmethod
    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "StagedTracker":
        """A tracker with random weights.

        Args:
            drop_rates: drop-path rate of each layer; their number is the depth.
        """

    def objective(self, cfg: "Config") -> "Objective":
        """What its models learn; OSTrack's loss where a family has no other."""
        from .objective import Objective

        return Objective(cfg)

    def clips(self, cfg: "Config") -> "ClipRule":
        """Which frames of a video make a training sample; by DATA.SAMPLER_MODE where a family has no other rule. It
        draws DATA.TEMPLATE.NUMBER templates and DATA.SEARCH.NUMBER search frames.

        Raises:
            UserError: the rule cannot draw what the configuration asks for.
        """
        from .clips import ModeClips, OrderClips

        data, numbers = cfg.DATA, (cfg.DATA.TEMPLATE.NUMBER, cfg.DATA.SEARCH.NUMBER)
        if data.SAMPLER_MODE == "order":
            return OrderClips(data.MAX_SAMPLE_INTERVAL, *numbers)
        return ModeClips(data.SAMPLER_MODE, data.MAX_SAMPLE_INTERVAL, *numbers)

    def as_teacher(self, cfg: "Config") -> dict[str, Any]:
        """The keys of a configuration that have to change for its tracker to be the teacher of a compression, with
        their new values."""
        return {}

    def eliminating(self, cfg: "Config", layer: int, kept: float) -> dict[str, Any] | None:
        """The keys with which the student of a compression keeps a share of its search tokens behind one of its layers;
        None where the family has no such students.

        Args:
            layer: of the student, from 0.
            kept: the share.
        """
        return None

    def narrows(self, cfg: "Config") -> bool:
        """Whether the student of a compression, if it is narrower than its teacher, can start from that's weights: the
        layers of both say what they add to the tokens (`branches`), which nothing else reads but through the final
        norm and the first maps of the head."""
        return False

    def sees_middle(self, cfg: "Config") -> bool:
        """Whether its trackers can take over weights for search crops that show more of the picture at the same
        resolution (COMPRESS.TEACHER_FACTOR; `OneStreamTracker.load_middle`)."""
        return False

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        """What `rules` takes, as plain values (an export keeps them in its manifest)."""
        return {}

    def rules(self, benchmark: str = "", **values: Any) -> "Rules":
        """How its models are used from frame to frame; one template that stays where a family has no other.

        Args:
            benchmark: that is tracked (a name of tracking/test.py --dataset), for rules that differ; empty elsewhere.
            values: see `rule_values`.
        """
        from .rules import Rules

        return Rules(**values)

    def rules_of(self, cfg: "Config", benchmark: str = "") -> "Rules":
        """The rules of a configuration."""
        return self.rules(benchmark, **self.rule_values(cfg))

    def load_start(self, model: "StagedTracker", path: Path) -> None:
        """Load the weights that training starts from (MODEL.PRETRAIN_FILE, COMPRESS.INIT mae), in place: a checkpoint
        of the same model, where a family reads no others.

        Raises:
            UserError: the file cannot be read or does not fit.
        """
        from ..models.checkpoint import load_weights

        load_weights(model, path)
