"""ODTrack (Zheng et al., AAAI 2024): any number of templates, and a token that goes from frame to frame."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..vit import ViTFamily, vit_parts
from .keys import KEYS

if TYPE_CHECKING:
    from ...config import Config
    from ..clips import ClipRule
    from ..objective import Objective
    from ..rules import Rules
    from .model import ODTrackModel


class ODTrack(ViTFamily):
    """The family of GXNU-ZhongLab/ODTrack."""

    name, title, keys, several_templates = "odtrack", "ODTrack", KEYS, True

    def check(self, cfg: "Config") -> Iterator[str]:
        yield from super().check(cfg)
        backbone = cfg.MODEL.BACKBONE
        if backbone.ATTN_TYPE == "separate" and not backbone.TYPE.endswith("_ce"):
            yield (f"MODEL.BACKBONE.ATTN_TYPE is separate, which is not built, and TYPE {backbone.TYPE} would use it; "
                   "expected concat, or a TYPE that ends in _ce")
        if cfg.TRAIN.CARRY_TOKEN and cfg.compresses:
            yield ("TRAIN.CARRY_TOKEN is true, but the tokens of a teacher and of a student are not the same; expected "
                   "false with script compresstracker")

    def build(self, cfg: "Config", drop_rates: Sequence[float]) -> "ODTrackModel":
        from .model import ODTrackModel, TokenBackbone

        return ODTrackModel(*vit_parts(cfg, self.shape(cfg), drop_rates, TokenBackbone))

    def objective(self, cfg: "Config") -> "Objective":
        from .objective import TokenObjective

        return TokenObjective(cfg)

    def clips(self, cfg: "Config") -> "ClipRule":
        from .clips import OrderedClips

        data = cfg.DATA
        return OrderedClips(data.SAMPLER_MODE, data.MAX_SAMPLE_INTERVAL, data.TEMPLATE.NUMBER, data.SEARCH.NUMBER)

    def rule_values(self, cfg: "Config") -> dict[str, Any]:
        test = cfg.TEST
        return {**super().rule_values(cfg), "width": cfg.shape.embed_dim, "number": test.TEMPLATE_NUMBER,
                "on_device": test.MEMORY_THRESHOLD, "memory": test.MEMORY_FRAMES}

    def rules(self, benchmark: str = "", **values: Any) -> "Rules":
        from .runtime import MemoryRules

        return MemoryRules(**values)


FAMILY = ODTrack()
