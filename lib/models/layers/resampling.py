"""Values on a square grid of another side."""

import torch.nn.functional as F
from torch import Tensor


def resize(pictures: Tensor, side: int, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Square pictures of another side.

    Args:
        pictures: (N, C, s, s).
        side: of the result; what has it already is returned as it is.
        mode: `bilinear`, whose triangle is widened where the picture shrinks, so that every pixel has its share
            (antialiasing); `bicubic` looks at 4 x 4 pixels in any case.
        align_corners: centres of the corner pixels on each other (`bicubic` alone), not edges on edges.

    Returns:
        (N, C, side, side), computed in float32.
    """
    if pictures.shape[-1] == side:
        return pictures
    resized = F.interpolate(pictures.float(), size=(side, side), mode=mode, align_corners=align_corners,
                            antialias=mode == "bilinear")
    return resized.to(pictures.dtype)


def resample(tokens: Tensor, source: int, target: int, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Tokens of another grid; see `resize`.

    Args:
        tokens: (B, n * source**2, C), of n pictures one behind the other, each row by row.
        source, target: side of a picture's grid.

    Returns:
        (B, n * target**2, C).
    """
    if source == target:
        return tokens
    return _tokens(resize(_pictures(tokens, source), target, mode, align_corners), len(tokens))


def cut(tokens: Tensor, source: int, target: int) -> Tensor:
    """The tokens in the middle of a grid: (B, n * source**2, C) -> (B, n * target**2, C), see `resample`.

    Raises:
        ValueError: there is none of that side in the middle.
    """
    border, odd = divmod(source - target, 2)
    if border < 0 or odd:
        raise ValueError(f"no grid of side {target} lies in the middle of one of side {source}")
    middle = slice(border, border + target)
    return _tokens(_pictures(tokens, source)[:, :, middle, middle], len(tokens))


def _pictures(tokens: Tensor, side: int) -> Tensor:
    """(B, n * side**2, C) -> (B * n, C, side, side)."""
    return tokens.reshape(-1, side, side, tokens.shape[2]).permute(0, 3, 1, 2)


def _tokens(pictures: Tensor, batch: int) -> Tensor:
    """(batch * n, C, side, side) -> (batch, n * side**2, C)."""
    return pictures.flatten(2).transpose(1, 2).reshape(batch, -1, pictures.shape[1])
