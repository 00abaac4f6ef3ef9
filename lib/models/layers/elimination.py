"""Candidate elimination (OSTrack, ECCV 2022, section 3.3): drop search tokens that the template does not attend to."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...config import Config
from ..base import Tokens


def template_attention(attention, x: Tensor, template_length: int, template_mask: Tensor | None) -> Tensor:
    """How much the template attends to each search token.

    Only the template's rows of the attention matrix are computed, so the layer itself can stay fused.

    Args:
        attention: a timm `Attention` (its qkv projection, heads and scale are read).
        x: (B, N, C) the attention's input (already normalised), template tokens first.
        template_length: Lz.
        template_mask: (B, Lz) bool, rows that vote; None = all.

    Returns:
        (B, N - Lz) attention, mean over heads and voting rows.
    """
    batch, length, _ = x.shape
    heads = attention.num_heads
    qkv = attention.qkv(x).reshape(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(qkv[0][:, :, :template_length]), attention.k_norm(qkv[1])  # (B, heads, Lz | N, C / heads)
    return template_votes(q, k, attention.scale, template_mask)


def template_votes(q: Tensor, k: Tensor, scale: float, template_mask: Tensor | None) -> Tensor:
    """`template_attention` from the template's queries (B, heads, Lz, d) and all keys (B, heads, N, d)."""
    template_length = q.shape[2]
    weights = (q * scale @ k.transpose(-2, -1)).softmax(dim=-1)                        # (B, heads, Lz, N)
    votes = weights[..., template_length:].mean(dim=1)                                 # (B, Lz, Lx)
    if template_mask is None:
        return votes.mean(dim=1)
    share = template_mask.to(votes.dtype)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
    return (votes * share.unsqueeze(-1)).sum(dim=1)


def eliminate(tokens: Tokens, attention: Tensor, keep_rate: float) -> Tokens:
    """Keep the ceil(keep_rate * Lk) search tokens with the most attention.

    Args:
        tokens: with x (B, Lz + Lk, C).
        attention: (B, Lk) from `template_attention`.
        keep_rate: in 0..1.
    """
    batch, current = attention.shape
    number = math.ceil(keep_rate * current)
    if number >= current:
        return tokens
    lz = tokens.template_length
    kept = tokens.kept
    if kept is None:
        kept = torch.arange(current, device=attention.device).expand(batch, -1)
    order = attention.argsort(dim=1, descending=True)  # (B, Lk)
    best = order[:, :number]
    channels = tokens.x.shape[-1]
    search = tokens.x[:, lz:].gather(1, best.unsqueeze(-1).expand(-1, -1, channels))
    removed = kept.gather(1, order[:, number:]).sort(dim=1).values
    return replace(tokens, x=torch.cat([tokens.x[:, :lz], search], dim=1), kept=kept.gather(1, best),
                   removed=(*tokens.removed, removed))


def restore(tokens: Tokens, grid_length: int) -> Tensor:
    """The search tokens in grid order, (B, grid_length, C), zeros where tokens were eliminated."""
    search = tokens.x[:, tokens.template_length:]
    if tokens.kept is None:
        return search
    batch, _, channels = search.shape
    index = tokens.kept.unsqueeze(-1).expand(-1, -1, channels)
    return search.new_zeros(batch, grid_length, channels).scatter(1, index, search)


def elimination_range(cfg: Config) -> str | None:
    """Which template tokens vote in a configuration's model (a mode of `template_mask`); None without elimination."""
    backbone = cfg.MODEL.BACKBONE
    return backbone.CE_TEMPLATE_RANGE if backbone.CE_LOC else None


def configured_mask(cfg: Config, boxes: Tensor) -> Tensor | None:
    """`template_mask` of a configuration's model for boxes (B, 4) xywh in 0..1 of the template crop."""
    stride = cfg.MODEL.BACKBONE.STRIDE
    return template_mask(elimination_range(cfg), cfg.DATA.TEMPLATE.SIZE // stride, boxes, stride)


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
