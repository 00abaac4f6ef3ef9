"""The window that keeps a tracker near the target's last position."""

import torch
from torch import Tensor


def hann_window(size: int, device: torch.device | str = "cpu") -> Tensor:
    """(size, size) Hann window without its zero border: sample k = 1..size of a period of size + 1 in each direction.

    OSTrack multiplies its score map by this window, so that cells far from the last position need a higher score.
    """
    side = torch.hann_window(size + 2, periodic=False, dtype=torch.float32, device=device)[1:-1]
    return torch.outer(side, side)
