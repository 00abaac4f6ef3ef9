"""What a compressed tracker learns from its teacher besides replacement (paper section 3.4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def mimic_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], template_length: int, form: str) -> Tensor:
    """Feature mimicking: mean squared error between the outputs of matching stages, mean over the stages.

    Args:
        student, teacher: per stage, (B, Lz + Lx, C).
        template_length: Lz.
        form: `tokens` weighs every token alike (paper); `halves` is the mean of the search tokens' and the template
            tokens' means (released code).

    Returns:
        scalar.
    """
    losses = []
    for output, target in zip(student, teacher, strict=True):
        if form == "tokens":
            losses.append(F.mse_loss(output, target))
        else:
            search = F.mse_loss(output[:, template_length:], target[:, template_length:])
            losses.append((search + F.mse_loss(output[:, :template_length], target[:, :template_length])) / 2)
    return torch.stack(losses).mean()
