"""Candidate elimination (OSTrack, ECCV 2022, section 3.3): drop search tokens that the template does not attend to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..base import Tokens


@dataclass(frozen=True)
class Candidates:
    """What layers that eliminate candidates hand on (`Tokens.extra`).

    Attributes:
        kept: (B, Lk) position of each search token in the full search grid; None while all are there, in order.
        removed: per elimination, (B, n) sorted grid positions of the search tokens it removed.
        template_mask: (B, Lz) bool, tokens of all templates whose attention votes; None = all.
        keep_rate: share of search tokens an eliminating layer keeps; None = its own rate.
    """

    kept: Tensor | None = None
    removed: tuple[Tensor, ...] = ()
    template_mask: Tensor | None = None
    keep_rate: float | None = None

    @classmethod
    def of(cls, further: Mapping[str, Any]) -> "Candidates":
        """All of them, before any layer; mask, (B, Lz) or (B, T, Lz) of several templates, and rate as `Inputs.further`
        has them."""
        mask = further.get("template_mask")
        return cls(template_mask=None if mask is None else mask.flatten(1), keep_rate=further.get("keep_rate"))


def template_attention(attention, tokens: Tokens) -> Tensor:
    """How much the template attends to each search token.

    Only the template's rows of the attention matrix are computed, so the layer itself can stay fused.

    Args:
        attention: a timm `Attention` (its qkv projection, heads and scale are read).
        tokens: the attention's input (already normalised), with `Candidates`.

    Returns:
        (B, Lk) attention, mean over heads and voting rows.
    """
    batch, length, _ = tokens.x.shape
    heads, template, search = attention.num_heads, tokens.place("template"), tokens.place("search")
    qkv = attention.qkv(tokens.x).reshape(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(qkv[0][:, :, template]), attention.k_norm(qkv[1])   # (B, heads, Lz | N, C / heads)
    return template_votes(q, k, attention.scale, search, tokens.extra.template_mask)


def template_votes(q: Tensor, k: Tensor, scale: float, search: slice, template_mask: Tensor | None) -> Tensor:
    """`template_attention` from the template's queries (B, heads, Lz, d) and all keys (B, heads, N, d), those of the
    search tokens at `search`."""
    weights = (q * scale @ k.transpose(-2, -1)).softmax(dim=-1)                        # (B, heads, Lz, N)
    votes = weights[..., search].mean(dim=1)                                           # (B, Lz, Lx)
    if template_mask is None:
        return votes.mean(dim=1)
    share = template_mask.to(votes.dtype)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
    return (votes * share.unsqueeze(-1)).sum(dim=1)


def eliminate(tokens: Tokens, attention: Tensor, keep_rate: float) -> Tokens:
    """Keep the ceil(keep_rate * Lk) search tokens with the most attention.

    Args:
        tokens: with `Candidates`.
        attention: (B, Lk) from `template_attention`.
        keep_rate: in 0..1.
    """
    batch, current = attention.shape
    number = math.ceil(keep_rate * current)
    if number >= current:
        return tokens
    candidates = tokens.extra
    kept = candidates.kept
    if kept is None:
        kept = torch.arange(current, device=attention.device).expand(batch, -1)
    order = attention.argsort(dim=1, descending=True)  # (B, Lk)
    best = order[:, :number]
    search = tokens.part("search").gather(1, best.unsqueeze(-1).expand(-1, -1, tokens.x.shape[-1]))
    removed = kept.gather(1, order[:, number:]).sort(dim=1).values
    candidates = replace(candidates, kept=kept.gather(1, best), removed=(*candidates.removed, removed))
    return replace(tokens.with_part("search", search), extra=candidates)


def restore(tokens: Tokens, grid_length: int) -> Tensor:
    """The search tokens in grid order, (B, grid_length, C), zeros where tokens were eliminated."""
    search, kept = tokens.part("search"), tokens.extra.kept
    if kept is None:
        return search
    batch, _, channels = search.shape
    index = kept.unsqueeze(-1).expand(-1, -1, channels)
    return search.new_zeros(batch, grid_length, channels).scatter(1, index, search)


def template_mask(mode: str | None, grid: int, boxes: Tensor, stride: int = 16) -> Tensor | None:
    """Which template tokens vote (MODEL.BACKBONE.CE_TEMPLATE_RANGE).

    Args:
        mode: None for a model without elimination, ALL, CTR_POINT (the token left above the centre), CTR_REC (the
            central 2x2, or 1 for an odd grid), GT_BOX (tokens whose middle lies in the target's box; all of them where
            the box is too small for any).
        grid: side of the template grid.
        boxes: (B, 4) xywh in 0..1 of the template crop; only GT_BOX reads the values.
        stride: side of a token in pixels.

    Returns:
        (B, grid * grid) bool, or None for ALL and without elimination.
    """
    if mode in (None, "ALL"):
        return None
    if mode == "GT_BOX":
        # OSTrack paints the box, cut to whole pixels and one pixel short, and shrinks the picture bilinearly, which
        # reads the middle pixel row and column of each token (the two middle ones where the side is even).
        pixels = boxes * grid * stride
        low, high = pixels[:, None, :2].trunc(), (pixels[:, :2] + pixels[:, 2:] - 1)[:, None].trunc()  # (B, 1, 2)
        start = (torch.arange(grid, device=boxes.device) * stride).view(1, -1, 1)                      # (1, grid, 1)
        before, after = start + (stride - 1) // 2, start + stride // 2
        inside = ((before >= low) & (before < high)) | ((after >= low) & (after < high))               # (B, grid, 2)
        mask = inside[..., 1].unsqueeze(2) & inside[..., 0].unsqueeze(1)                               # (B, y, x)
        mask = mask | ~mask.any(dim=(1, 2), keepdim=True)
    else:
        first = (grid - 1) // 2
        last = first if mode == "CTR_POINT" else grid // 2
        mask = torch.zeros(len(boxes), grid, grid, dtype=torch.bool, device=boxes.device)
        mask[:, first:last + 1, first:last + 1] = True
    return mask.flatten(1)


def keep_rate_at(epoch: int, start: int, warm: int, final: float) -> float:
    """Share of search tokens kept in training: 1 before epoch `start`, then a cosine to `final` over `warm` epochs.

    The schedule of OSTrack (TRAIN.CE_START_EPOCH, TRAIN.CE_WARM_EPOCH).
    """
    if epoch < start:
        return 1.0
    if epoch >= start + warm:
        return final
    return final + (1 - final) * (1 + math.cos(math.pi * (epoch - start) / warm)) / 2
