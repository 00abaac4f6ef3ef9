"""SeqTrack's model: an encoder over search and templates, and a decoder of box tokens (section 3 of the paper)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ...models.base import Inputs, Prediction, Segment, StagedTracker, Tokens
from ...models.layers.encoder import EncoderLayer
from ..base import Shape
from .sequence import Vocabulary

if TYPE_CHECKING:
    from ...config import Config

LENGTH = 4
"""Tokens of a box."""


def build(cfg: "Config", shape: Shape, drop_rates: Sequence[float]) -> "SeqTrackModel":
    """See `lib.families.Family.build`."""
    model, decoder, data = cfg.MODEL, cfg.MODEL.DECODER, cfg.DATA
    stride = model.BACKBONE.STRIDE
    grids = data.SEARCH.SIZE // stride, data.TEMPLATE.SIZE // stride
    return SeqTrackModel(
        Encoder(shape, drop_rates, stride, *grids),
        Decoder(model.HIDDEN_DIM, decoder.NHEADS, decoder.DIM_FEEDFORWARD, decoder.DEC_LAYERS, decoder.DROPOUT,
                Vocabulary(model.BINS, data.SEQ_FORMAT)),
        window=cfg.TEST.WINDOW)


class ViT(nn.Module):
    """Patch embedding, positions, layers and final norm, under the official names.

    Args:
        shape: of the layers, one for each of the `drop_rates`.
        patch: side of a patch in pixels.
        search, template: sides of the grids.
    """

    def __init__(self, shape: Shape, drop_rates: Sequence[float], patch: int, search: int, template: int):
        super().__init__()
        dim = shape.embed_dim
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, search**2 + template**2, dim))
        self.blocks = nn.ModuleList(EncoderLayer(dim, shape.num_heads, shape.mlp_ratio, rate) for rate in drop_rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        trunc_normal_(self.pos_embed, std=0.02)


class Encoder(nn.Module):
    """The official names have the ViT in a module of its own (`encoder.body`)."""

    def __init__(self, shape: Shape, drop_rates: Sequence[float], patch: int, search: int, template: int):
        super().__init__()
        self.body = ViT(shape, drop_rates, patch, search, template)
        self.grids = search, template


class Attention(nn.Module):
    """Multi-head attention with the names of PyTorch's `MultiheadAttention`, in parts that can be kept."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, x: Tensor, part: int) -> Tensor:
        """(B, N, C) -> (B, heads, N, d) queries (0), keys (1) or values (2)."""
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        made = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return made.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        """What `project` gives -> (B, queries, C)."""
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout * self.training, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class Memory(NamedTuple):
    """Keys and values of the search features in a layer, (B, heads, Lx, d) each."""

    keys: Tensor
    values: Tensor


class DecoderLayer(nn.Module):
    """A post-norm layer: self-attention over the tokens so far, attention to the search features, MLP. Positions are
    added to the queries and keys, not to the values."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attn, self.multihead_attn = Attention(dim, heads, dropout), Attention(dim, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def remember(self, features: Tensor, positions: Tensor) -> Memory:
        """Of the search features (B, Lx, C) with their positions (1, Lx, C)."""
        return Memory(self.multihead_attn.project(features + positions, 1), self.multihead_attn.project(features, 2))

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, before: Memory | None = None
                ) -> tuple[Tensor, Memory]:
        """Tokens (B, n, C) with the positions (n, C) of their places.

        Args:
            memory: of the search features.
            before: of the tokens before these, whose keys and values then need not be made again; n is 1.

        Returns:
            (B, n, C), and the keys and values of all tokens so far.
        """
        own, cross = self.self_attn, self.multihead_attn
        placed = x + positions
        tokens = Memory(own.project(placed, 1), own.project(x, 2))
        if before is not None:
            tokens = Memory(*(torch.cat(pair, dim=2) for pair in zip(before, tokens, strict=True)))
        x = self.norm1(x + self.dropout(own.attend(own.project(placed, 0), *tokens, causal=before is None)))
        x = self.norm2(x + self.dropout(cross.attend(cross.project(x + positions, 0), *memory)))
        x = self.norm3(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))
        return x, tokens


class Decoder(nn.Module):
    """Tokens so far and search features -> features of the tokens to come.

    Args:
        dim, heads, hidden, layers, dropout: of the layers.
        vocabulary: the tokens.
    """

    def __init__(self, dim: int, heads: int, hidden: int, layers: int, dropout: float, vocabulary: Vocabulary):
        super().__init__()
        self.vocabulary = vocabulary
        self.embedding = nn.Module()
        self.embedding.word_embeddings = nn.Embedding(vocabulary.size, dim)
        self.embedding.position_embeddings = nn.Embedding(LENGTH + 1, dim)
        self.embedding.LayerNorm = nn.LayerNorm(dim)
        self.body = nn.Module()
        self.body.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden, dropout) for _ in range(layers))
        self.body.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def remember(self, features: Tensor, positions: Tensor) -> list[Memory]:
        """Of the search features, for each layer."""
        return [layer.remember(features, positions) for layer in self.body.layers]

    def forward(self, tokens: Tensor, first: int, memory: Sequence[Memory], before: Sequence[Memory | None]
                ) -> tuple[Tensor, list[Memory]]:
        """Tokens (B, n) from place `first` on -> features (B, n, C), and what the next call takes as `before`."""
        x = self.dropout(self.embedding.LayerNorm(self.embedding.word_embeddings(tokens)))
        positions = self.embedding.position_embeddings.weight[first:first + tokens.shape[1]].to(x.dtype)
        kept = []
        for layer, features, earlier in zip(self.body.layers, memory, before, strict=True):
            x, known = layer(x, positions, features, earlier)
            kept.append(known)
        return self.body.norm(x), kept


class SeqTrackModel(StagedTracker):
    """Encoder, bottleneck, decoder and vocabulary.

    With `sequence` (B, 5) among the further inputs, the tokens that the decoder is given, the prediction holds the
    `logits` (B, 5, V) of the tokens that follow each; without it the box is generated, token by token.

    Args:
        encoder, decoder: the parts.
        window: weigh the places of the centre with a Hann window when generating.
    """

    part_prefixes = {"embed": ("encoder.body.patch_embed.", "encoder.body.pos_embed"),
                     "layers": ("encoder.body.blocks.",), "norm": ("encoder.body.norm.",),
                     "head": ("bottleneck.", "pos_embed", "decoder.", "vocab_embed.")}

    def __init__(self, encoder: Encoder, decoder: Decoder, window: bool):
        super().__init__()
        dim, width = decoder.body.norm.normalized_shape[0], encoder.body.norm.normalized_shape[0]
        self.encoder, self.decoder = encoder, decoder
        self.bottleneck = nn.Linear(width, dim)
        self.pos_embed = nn.Parameter(_sines(encoder.grids[0]**2, dim))
        self.vocab_embed = nn.Module()
        self.vocab_embed.layers = nn.ModuleList(nn.Linear(dim, out) for out in (dim, dim, decoder.vocabulary.size))
        bins = decoder.vocabulary.bins
        weights = torch.hann_window(bins, periodic=False, dtype=torch.float64).float() if window else torch.ones(bins)
        self.register_buffer("window", weights, persistent=False)

    @property
    def layers(self) -> nn.ModuleList:
        return self.encoder.body.blocks

    @property
    def embed_dim(self) -> int:
        return self.encoder.body.norm.normalized_shape[0]

    def embed(self, inputs: Inputs) -> Tokens:
        """[search | first template | second template]; templates share their positions."""
        body, (search, template) = self.encoder.body, self.encoder.grids
        x, z = _patches(body.patch_embed.proj, inputs.search), _patches(body.patch_embed.proj,
                                                                        inputs.templates.flatten(0, 1))
        number = inputs.templates.shape[1]
        z = (z + body.pos_embed[:, search**2:]).unflatten(0, (-1, number)).flatten(1, 2)
        segments = (Segment("search", search**2, search), Segment("template", number * template**2, template))
        return Tokens(torch.cat([x + body.pos_embed[:, :search**2], z], dim=1), segments, inputs.further)

    def predict(self, tokens: Tokens) -> Prediction:
        features = self.bottleneck(self.encoder.body.norm(tokens.part("search")))       # (B, Lx, C)
        memory = self.decoder.remember(features, self.pos_embed)
        sequence = tokens.extra.get("sequence")
        return self._generate(memory, len(features)) if sequence is None else self._follow(memory, sequence)

    def _follow(self, memory: Sequence[Memory], sequence: Tensor) -> Prediction:
        """Teacher forcing: the likeliest tokens after each of a given sequence make the box."""
        vocabulary = self.decoder.vocabulary
        logits = self.logits(self.decoder(sequence, 0, memory, [None] * len(memory))[0]).float()    # (B, 5, V)
        boxes = vocabulary.boxes(logits[:, :LENGTH, :vocabulary.bins].argmax(dim=2))
        return Prediction(boxes.unsqueeze(1), further={"logits": logits})

    def _generate(self, memory: Sequence[Memory], batch: int) -> Prediction:
        """The likeliest token at each step; further: `confidence` (B, 4), its (weighted) probability, and `score`, a
        quarter of ten times their sum, at most 1."""
        vocabulary = self.decoder.vocabulary
        token = torch.full((batch, 1), vocabulary.start, device=memory[0].keys.device)
        before: Sequence[Memory | None] = [None] * len(memory)
        tokens, confidence = [], []
        for step in range(LENGTH):
            x, before = self.decoder(token, step, memory, before)
            likely = self.logits(x[:, -1]).float().softmax(dim=1)[:, :vocabulary.bins]              # (B, bins)
            if step in vocabulary.windowed:
                likely = likely * self.window.float()
            best, token = likely.max(dim=1, keepdim=True)
            tokens.append(token)
            confidence.append(best)
        sure = torch.cat(confidence, dim=1)
        return Prediction(vocabulary.boxes(torch.cat(tokens, dim=1)).unsqueeze(1),
                          further={"score": (2.5 * sure.sum(dim=1)).clamp(max=1), "confidence": sure})

    def logits(self, x: Tensor) -> Tensor:
        """(..., C) features of the decoder -> (..., V)."""
        *inner, last = self.vocab_embed.layers
        for layer in inner:
            x = layer(x).relu()
        return last(x)


def _patches(proj: nn.Conv2d, crops: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, L, C)."""
    return proj(crops).flatten(2).transpose(1, 2)


def _sines(length: int, dim: int) -> Tensor:
    """(1, length, dim) sine and cosine positions of a row of tokens (Vaswani et al., 2017)."""
    place, channel = torch.arange(length)[:, None], torch.arange(dim)[None]
    angles = place / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angles.sin(), angles.cos())[None]
