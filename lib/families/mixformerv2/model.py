"""MixFormerV2's model (Cui et al., NeurIPS 2023): template, search and prediction tokens pass a ViT without
convolutions; four prediction tokens say where the box's edges are, and together how sure that is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, trunc_normal_
from torch import Tensor, nn

from ...models.base import Inputs, Prediction, Segment, SplitTracker, Tokens
from ...models.layers.encoder import EncoderLayer
from ...models.layers.start import start_linear
from ...utils.boxes import xyxy_to_cxcywh
from ..base import Shape

if TYPE_CHECKING:
    from ...config import Config

EDGES = 4
"""Prediction tokens, in the order of the official weights: left, right, top, bottom."""


def build(cfg: "Config", shape: Shape, drop_rates: Sequence[float]) -> "MixFormerV2Model":
    """See `lib.families.Family.build`. Only what the configuration's stage trains may learn: the score head with
    TRAIN.TRAIN_SCORE, else everything but the score head and the layers that fade out."""
    backbone = MixBackbone(shape, drop_rates, patch_size=cfg.MODEL.BACKBONE.STRIDE,
                           template_size=cfg.DATA.TEMPLATE.SIZE, search_size=cfg.DATA.SEARCH.SIZE,
                           faded=cfg.TRAIN.REMOVE_LAYERS)
    model = MixFormerV2Model(backbone, EdgeHead(shape.embed_dim, cfg.MODEL.FEAT_SZ),
                             ScoreHead(shape.embed_dim) if cfg.MODEL.SCORE_HEAD else None)
    model.left_out = cfg.TRAIN.INVALID_LAYERS
    for name, parameter in model.named_parameters():
        learns = name.startswith("score_head.") == cfg.TRAIN.TRAIN_SCORE
        parameter.requires_grad_(parameter.requires_grad and learns)
    return model


@dataclass(frozen=True)
class Fading:
    """What layers that fade out read of `Tokens.extra`.

    Attributes:
        rate: what is left of their residual branches, 1..0; outside of training nothing.
    """

    rate: float = 0.0


class MixLayer(EncoderLayer):
    """A pre-norm layer with asymmetric attention (section 3.1): template tokens see the templates alone, all others see
    everything. So what the templates are in a layer depends on no search region.

    Args:
        faded: both residual branches are scaled by `Fading.rate`, and the parameters do not learn (section 3.2).
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, faded: bool = False):
        super().__init__(dim, num_heads, mlp_ratio, drop_path)
        self.faded = faded
        if faded:
            self.requires_grad_(False)

    def forward(self, tokens: Tokens) -> Tokens:
        q, k, v = self.project(tokens.x)
        seen = tokens.place("template")
        mixed = torch.cat([self.attend(q[:, :, seen], k[:, :, seen], v[:, :, seen]),
                           self.attend(q[:, :, seen.stop:], k, v)], dim=1)
        return replace(tokens, x=self.finish(tokens.x, mixed, tokens.extra))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, C) tokens -> their queries, keys and values, (B, heads, L, C / heads) each."""
        qkv = self.attn.qkv(self.norm1(x)).unflatten(2, (3, self.attn.num_heads, -1))
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries (B, heads, n, d) read of keys and values (B, heads, m, d): (B, n, C)."""
        if self.attn.fused_attn:
            read = F.scaled_dot_product_attention(q, k, v)
        else:
            read = (q * self.attn.scale @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return read.transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, mixed: Tensor, fading: Fading) -> Tensor:
        """The tokens (B, L, C) after the layer, from what their queries read (B, L, C)."""
        rate = fading.rate if self.faded else 1.0
        x = x + rate * self.drop_path1(self.attn.proj(mixed))
        return x + rate * self.drop_path2(self.mlp(self.norm2(x)))


class MixBackbone(nn.Module):
    """Patch embedding, fixed positions, prediction tokens and layers; there is no final norm.

    Args:
        shape: of the ViT; the depth is the number of `drop_rates`.
        drop_rates: drop-path rate of each layer.
        patch_size: side of a patch in pixels, also the stride.
        template_size, search_size: sides of the crops in pixels.
        faded: layers (from 0) that fade out.
    """

    def __init__(self, shape: Shape, drop_rates: Sequence[float], *, patch_size: int, template_size: int,
                 search_size: int, faded: Collection[int] = ()):
        super().__init__()
        dim = shape.embed_dim
        self.template_grid, self.search_grid = template_size // patch_size, search_size // patch_size
        self.pos_embed_s = nn.Parameter(_positions(self.search_grid, dim), requires_grad=False)
        self.pos_embed_t = nn.Parameter(_positions(self.template_grid, dim), requires_grad=False)
        self.reg_tokens = nn.Parameter(torch.zeros(1, EDGES, dim))
        self.pos_embed_reg = nn.Parameter(torch.zeros(1, EDGES, dim))
        self.patch_embed = PatchEmbed(img_size=None, patch_size=patch_size, embed_dim=dim)
        self.blocks = nn.ModuleList(MixLayer(dim, shape.num_heads, shape.mlp_ratio, rate, index in faded)
                                    for index, rate in enumerate(drop_rates))
        trunc_normal_(self.reg_tokens, std=0.02)
        start_linear(self)

    def embed(self, inputs: Inputs) -> Tokens:
        """Crops -> tokens (B, T * Lz + Lx + 4, C): the templates in their order, search, prediction."""
        z, rest = self.embed_templates(inputs.templates), self.embed_search(inputs.search)
        segments = (Segment("template", z.shape[1], self.template_grid), *rest.segments)
        return Tokens(torch.cat([z, rest.x], dim=1), segments, Fading(inputs.further.get("remove_rate", 0.0)))

    def embed_templates(self, crops: Tensor) -> Tensor:
        """(B, T, 3, h, w) -> (B, T * Lz, C)."""
        z = self.patch_embed(crops.flatten(0, 1)) + self.pos_embed_t                # (B * T, Lz, C)
        return z.unflatten(0, crops.shape[:2]).flatten(1, 2)

    def embed_search(self, crops: Tensor) -> Tokens:
        """(B, 3, H, W) -> search and prediction tokens (B, Lx + 4, C)."""
        x = self.patch_embed(crops) + self.pos_embed_s
        edges = (self.reg_tokens + self.pos_embed_reg).expand(len(x), -1, -1)
        return Tokens(torch.cat([x, edges], dim=1),
                      (Segment("search", x.shape[1], self.search_grid), Segment("prediction", EDGES)))


def _positions(side: int, dim: int) -> Tensor:
    """(1, side * side, C) sine-cosine positions as MAE has them: the first half of the channels for the column, the
    second for the row, in each the sines before the cosines."""
    bands = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(side).unsqueeze(1) * bands                                # (side, C / 4)
    line = torch.cat([angles.sin(), angles.cos()], dim=1).float()                   # (side, C / 2)
    return torch.cat([line.repeat(side, 1), line.repeat_interleave(side, dim=0)], dim=1).unsqueeze(0)


class EdgeHead(nn.Module):
    """Where the edges of the box are (section 3.1): of each a distribution over `bins` places across the crop.

    The LayerNorm over the logits is the official code's; the paper does not mention it.
    """

    def __init__(self, dim: int, bins: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()),
                                    nn.Sequential(nn.Linear(dim, bins), nn.LayerNorm(bins)))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 4, C) prediction tokens -> (B, 4, bins) float32 logits."""
        return self.layers(tokens).float()

    @staticmethod
    def boxes(logits: Tensor) -> Tensor:
        """(B, 4, bins) logits -> (B, 1, 4) cxcywh in 0..1: each edge at the mean of its distribution. Bin k stands for
        k / bins, and no rule keeps left from being right of right."""
        bins = logits.shape[-1]
        places = torch.arange(bins, device=logits.device, dtype=logits.dtype) / bins
        left, right, top, bottom = (logits.softmax(dim=-1) * places).sum(dim=-1).unbind(1)
        return xyxy_to_cxcywh(torch.stack([left, top, right, bottom], dim=1)).unsqueeze(1)


class ScoreHead(nn.Module):
    """How sure it is that the crop shows the target (section 3.1)."""

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, dim), nn.ReLU()), nn.Linear(dim, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 4, C) prediction tokens -> (B,) float32 logit."""
        return self.layers(tokens).float().mean(dim=(1, 2))


class MixFormerV2Model(SplitTracker):
    """MixFormerV2; the names in the state dict are those of the official checkpoints.

    `Prediction.further` holds `edges` (B, 4, bins), the logits of left, right, top and bottom, and, with a score head,
    `score_logit` and `score` (B,).
    """

    unused = ("backbone.pos_embed_s", "backbone.pos_embed_t")     # fixed: those of crops of another size are not read
    part_prefixes = {"embed": ("backbone.patch_embed.", "backbone.pos_embed", "backbone.reg_tokens"),
                     "layers": ("backbone.blocks.",), "norm": (), "head": ("box_head.", "score_head.")}

    left_out: Collection[int] = ()
    """Layers (from 0) that it does not take over from a file with weights to start from."""

    def __init__(self, backbone: MixBackbone, box_head: EdgeHead, score_head: ScoreHead | None):
        super().__init__()
        self.backbone, self.box_head, self.score_head = backbone, box_head, score_head

    @property
    def layers(self) -> nn.ModuleList:
        return self.backbone.blocks

    @property
    def embed_dim(self) -> int:
        """Width C of the tokens."""
        return self.backbone.reg_tokens.shape[-1]

    @property
    def token_grids(self) -> dict[str, int]:
        """See `StagedTracker.token_grids`."""
        return {"template": self.backbone.template_grid, "search": self.backbone.search_grid}

    def embed(self, inputs: Inputs) -> Tokens:
        return self.backbone.embed(inputs)

    def predict(self, tokens: Tokens) -> Prediction:
        prediction = tokens.part("prediction")
        logits = self.box_head(prediction)
        further = {"edges": logits}
        if self.score_head is not None:
            further["score_logit"] = self.score_head(prediction)
            further["score"] = further["score_logit"].sigmoid()
        return Prediction(self.box_head.boxes(logits), further=further)

    def read_templates(self, templates: Tensor) -> Tensor:
        """Keys and values of the template tokens in each layer: (B, 2 * layers, heads, T * Lz, C / heads)."""
        x, read = self.backbone.embed_templates(Inputs.of(templates, templates).templates), []
        for layer in self.layers:
            q, k, v = layer.project(x)
            read += [k, v]
            if layer is not self.layers[-1]:
                x = layer.finish(x, layer.attend(q, k, v), Fading())
        return torch.stack(read, dim=1)

    def read_search(self, read: Tensor, search: Tensor) -> Prediction:
        """See `SplitTracker`. Behind the last layer only the prediction tokens are read, so it gives no others."""
        tokens = self.backbone.embed_search(search)
        x = tokens.x
        for layer, keys, values in zip(self.layers, read[:, ::2].unbind(1), read[:, 1::2].unbind(1), strict=True):
            q, k, v = layer.project(x)
            if layer is self.layers[-1]:
                q, x = q[:, :, -EDGES:], x[:, -EDGES:]
            x = layer.finish(x, layer.attend(q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)), Fading())
        return self.predict(replace(tokens, x=x, segments=tokens.segments[1:]))
