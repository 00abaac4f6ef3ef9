"""How much each layer of a teacher matters, measured on frames without labels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.base import Inputs, StagedTracker, Tokens, evaluating
from ..models.compress.influence import layer_influence
from ..utils.boxes import box_iou, cxcywh_to_xyxy
from ..utils.errors import UserError

SAMPLED_TOKENS = 512
"""Tokens on which the similarity of two layers is measured."""


class Importance(NamedTuple):
    """Of the layers of a tracker, in their order.

    Attributes:
        influence: block influence, see `layer_influence`.
        skipped: 1 less the mean IoU between the boxes with all layers and without this one.
        similarity: (depth + 1) x (depth + 1) linear CKA between the tokens before the first layer and behind each.
        pairs: of crops that it was measured on.
    """

    influence: list[float]
    skipped: list[float]
    similarity: list[list[float]]
    pairs: int


@torch.inference_mode()
def measure_importance(tracker: StagedTracker, batches: Sequence[Inputs]) -> Importance:
    """Measure all layers of a tracker, which keep all tokens for it.

    The box with all layers stands in for the annotation: what counts is what a layer changes.

    Args:
        tracker: on the device of the batches; in evaluation mode for it.
        batches: of crops around any places of any frames.

    Raises:
        UserError: a layer cannot be measured: its output does not fit the layer after the next (it changes the number
            or the width of the tokens), or is not finite.
    """
    influence = layer_influence(tracker, batches)
    lost, samples, similarity = torch.zeros(tracker.depth, dtype=torch.float64), 0, []
    with evaluating(tracker):
        for batch in batches:
            chain = [tracker.embed(batch._replace(further={**batch.further, **tracker.all_tokens}))]
            for index in range(tracker.depth):
                chain.append(tracker.run_layer(index, chain[-1]))
            whole = _boxes(tracker, chain[-1])
            for index in range(tracker.depth):
                lost[index] += (1 - box_iou(_boxes(tracker, _without(tracker, index, chain)), whole)[0]).sum().item()
            samples += len(batch.search)
            similarity.append(_similarities(chain))
    result = Importance(influence, (lost / samples).tolist(), torch.stack(similarity).mean(0).tolist(), samples)
    numbers = torch.tensor([*influence, *result.skipped])
    if not torch.isfinite(numbers).all():
        layer = int((~torch.isfinite(numbers)).nonzero()[0]) % tracker.depth
        raise UserError(f"layer {layer} of the teacher gives numbers that are not finite: its importance cannot "
                        "be measured; is the checkpoint the right one?")
    return result


def _without(tracker: StagedTracker, skipped: int, chain: Sequence[Tokens]) -> Tokens:
    """What the layers give when one is left out; `chain` is what they give with it."""
    tokens = chain[skipped]
    try:
        for index in range(skipped + 1, tracker.depth):
            tokens = tracker.run_layer(index, tokens)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(f"layer {skipped} of the teacher cannot be left out, so its importance cannot be measured: "
                        f"the layers after it do not take its input ({error})") from error
    return tokens


def _boxes(tracker: StagedTracker, tokens: Tokens) -> Tensor:
    """(B, 4) predicted corners in 0..1."""
    return cxcywh_to_xyxy(tracker.predict(tokens).boxes.squeeze(1).float())


def _similarities(chain: Sequence[Tokens]) -> Tensor:
    """(n, n) linear CKA (Kornblith et al., arXiv 1905.00414) between the tokens at the borders of layers."""
    rows = []
    for tokens in chain:
        x = tokens.x.flatten(0, 1).double()
        x = x[:: max(1, len(x) // SAMPLED_TOKENS)]
        x = x - x.mean(0)
        gram = x @ x.T
        rows.append((gram / gram.norm()).flatten())
    features = torch.stack(rows)
    return features @ features.T
