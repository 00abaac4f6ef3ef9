"""What a compressed tracker learns from its teacher besides replacement (paper section 3.4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.base import Segment


def mimic_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], segments: Sequence[Sequence[Segment]],
               form: str) -> Tensor:
    """Feature mimicking: mean squared error between the outputs of matching stages, mean over the stages.

    Args:
        student, teacher: per stage, (B, L, C).
        segments: what the tokens are, per stage.
        form: `tokens` weighs every token alike (paper); `halves` is the mean of the segments' means (of template and
            search tokens in the released code).

    Returns:
        scalar.
    """
    losses = []
    for output, target, kinds in zip(student, teacher, segments, strict=True):
        if form == "tokens":
            losses.append(F.mse_loss(output, target))
        else:
            parts = [tokens.split([segment.length for segment in kinds], dim=1) for tokens in (output, target)]
            losses.append(torch.stack([F.mse_loss(*pair) for pair in zip(*parts, strict=True)]).mean())
    return torch.stack(losses).mean()
