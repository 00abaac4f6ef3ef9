"""MixFormerV2 (Cui et al., NeurIPS 2023): a ViT with four prediction tokens, without convolutions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.schema import show
from ..base import Family, Shape
from .keys import INTERVALS, KEYS, MOVED

if TYPE_CHECKING:
    from ...config import Config
    from ..clips import ClipRule
    from .model import MixFormerV2Model
    from .objective import EdgeObjective
    from .runtime import BestOfInterval


class MixFormerV2(Family):
    """The family of MCG-NJU/MixFormerV2: B (8 layers) and S (4 layers, MLP ratio 1)."""

    name, title, keys = "mixformerv2", "MixFormerV2", KEYS

    def shape(self, cfg: "Config") -> Shape:
        """ViT-B, where EMBED_DIM, DEPTH, NUM_HEADS or MLP_RATIO do not say otherwise."""
        return Shape(768, 12, 12, 4.0).with_keys(cfg.MODEL.BACKBONE)

    def check(self, cfg: "Config") -> Iterator[str]:
        width, depth, train = self.shape(cfg).embed_dim, self.shape(cfg).depth, cfg.TRAIN
        if width % 4:
            yield (f"MODEL.BACKBONE.EMBED_DIM is {width}; expected a multiple of 4: the positions are sines and "
                   "cosines of columns and rows")
        if train.TRAIN_SCORE and not cfg.MODEL.SCORE_HEAD:
            yield "TRAIN.TRAIN_SCORE is true, but MODEL.SCORE_HEAD is false: there is no score head to train"
        if train.TRAIN_SCORE and cfg.compresses:
            yield ("TRAIN.TRAIN_SCORE is true, but a compression trains everything else; train the student's score "
                   f"head afterwards, with script {self.name}")
        if any(layer >= depth for layer in train.REMOVE_LAYERS):
            yield (f"TRAIN.REMOVE_LAYERS is {show(train.REMOVE_LAYERS)}; expected numbers of layers from 0 to "
                   f"{depth - 1}")
        if cfg.compresses:
            for name, own in MOVED.items():
                section, _, leaf = name.rpartition(".")
                value = getattr(cfg.MODEL.BACKBONE if section.startswith("MODEL") else train, leaf)
                if value != KEYS[name].default:
                    yield f"{name} is {show(value)}, which script compresstracker does not read; set {own}"

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "MixFormerV2Model":
        from .model import build

        return build(cfg, self.shape(cfg), drop_rates)

    def objective(self, cfg: "Config") -> "EdgeObjective":
        from .objective import EdgeObjective

        return EdgeObjective(cfg)

    def clips(self, cfg: "Config") -> "ClipRule":
        """By DATA.SAMPLER_MODE; where the score head learns, half of the samples do not show the target."""
        rule = super().clips(cfg)
        rule.negatives = 0.5 if cfg.TRAIN.TRAIN_SCORE else 0.0
        return rule

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        return {"intervals": {name: getattr(cfg.TEST.UPDATE_INTERVALS, name) for name in INTERVALS}}

    def rules(self, benchmark: str = "", **values: Mapping[str, int]) -> "BestOfInterval":
        from ..templates import of_benchmark
        from .runtime import BestOfInterval

        return BestOfInterval(of_benchmark(values["intervals"], benchmark))

    def load_start(self, model: "MixFormerV2Model", path: Path) -> None:
        from .weights import load_start

        load_start(model, path)


FAMILY = MixFormerV2()
