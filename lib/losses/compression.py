"""What a compressed tracker learns from its teacher besides replacement (paper section 3.4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.base import Segment


def normalised(student: Tensor, teacher: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Features (B, L, C) of a stage on a scale that does not depend on the model.

    Args:
        kind: `none` leaves them as they are; `tokens` gives each token mean 0 and variance 1 over its channels, as the
            norm of the next layer does; `channels` divides each channel by the teacher's deviation over all tokens of
            the batch.
    """
    if kind == "tokens":
        return F.layer_norm(student, student.shape[-1:]), F.layer_norm(teacher, teacher.shape[-1:])
    if kind == "channels":
        scale = teacher.std(dim=(0, 1)).clamp_min(1e-6)
        return student / scale, teacher / scale
    return student, teacher


def mimic_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], segments: Sequence[Sequence[Segment]],
               form: str, norm: str = "none") -> Tensor:
    """Feature mimicking: mean squared error between the outputs of matching stages, mean over the stages.

    Args:
        student, teacher: per stage, (B, L, C).
        segments: what the tokens are, per stage.
        form: `tokens` weighs every token alike (paper); `halves` is the mean of the segments' means (of template and
            search tokens in the released code).
        norm: see `normalised`.

    Returns:
        scalar.
    """
    losses = []
    for output, target, kinds in zip(student, teacher, segments, strict=True):
        output, target = normalised(output, target, norm)
        if form == "tokens":
            losses.append(F.mse_loss(output, target))
        else:
            parts = [tokens.split([segment.length for segment in kinds], dim=1) for tokens in (output, target)]
            losses.append(torch.stack([F.mse_loss(*pair) for pair in zip(*parts, strict=True)]).mean())
    return torch.stack(losses).mean()
