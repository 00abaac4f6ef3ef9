"""SeqTrack (Chen et al., CVPR 2023): a ViT encoder, and a decoder that says the box as a sequence of tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base import Family, Shape
from .keys import ALIASES, KEYS, SIZES

if TYPE_CHECKING:
    from ...config import Config
    from ..objective import Objective
    from ..rules import Rules
    from .model import SeqTrackModel


class SeqTrack(Family):
    """The family of microsoft/VideoX, folder SeqTrack. The encoder's layers are the stages of a compression."""

    name, title, keys, aliases, last_pixel = "seqtrack", "SeqTrack", KEYS, ALIASES, True

    def shape(self, cfg: "Config") -> Shape:
        """Of the encoder: from MODEL.BACKBONE.TYPE, where EMBED_DIM, DEPTH, NUM_HEADS or MLP_RATIO do not set it."""
        backbone = cfg.MODEL.BACKBONE
        return Shape(*SIZES[backbone.TYPE], 4.0).with_keys(backbone)

    def check(self, cfg: "Config") -> Iterator[str]:
        model = cfg.MODEL
        if model.HIDDEN_DIM % model.DECODER.NHEADS:
            yield (f"MODEL.HIDDEN_DIM is {model.HIDDEN_DIM}; expected a multiple of MODEL.DECODER.NHEADS "
                   f"({model.DECODER.NHEADS})")

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "SeqTrackModel":
        from .model import build

        return build(cfg, self.shape(cfg), drop_rates)

    def objective(self, cfg: "Config") -> "Objective":
        from .objective import SequenceObjective

        return SequenceObjective(cfg)

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        return {"intervals": cfg.TEST.UPDATE_INTERVALS.to_dict(), "thresholds": cfg.TEST.UPDATE_THRESHOLD.to_dict()}

    def rules(self, benchmark: str = "", *, intervals: dict[str, int], thresholds: dict[str, float]) -> "Rules":
        from ..templates import of_benchmark
        from .runtime import SureTemplate

        return SureTemplate(of_benchmark(intervals, benchmark), of_benchmark(thresholds, benchmark))

    def load_start(self, model: "SeqTrackModel", path: Path) -> None:
        from .weights import load_start

        load_start(model, path)


FAMILY = SeqTrack()
