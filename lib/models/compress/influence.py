"""How much each layer of a tracker does, measured on frames."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..base import Inputs, StagedTracker, evaluating


@torch.no_grad()
def layer_influence(tracker: StagedTracker, batches: Iterable[Inputs]) -> list[float]:
    """Block influence (Men et al., ShortGPT, arXiv 2403.03853) of each layer: 1 less the mean cosine similarity between
    a token's features before and after the layer. 0 for a layer that does nothing, at most 2.

    Layers that drop tokens are made to keep all (`StagedTracker.all_tokens`).

    Args:
        tracker: put in evaluation mode for it.
        batches: on the tracker's device; each sample counts alike.
    """
    sums, samples = torch.zeros(tracker.depth, dtype=torch.float64), 0
    with evaluating(tracker):
        for templates, search, further in batches:
            tokens = tracker.embed(Inputs(templates, search, {**further, **tracker.all_tokens}))
            for index in range(tracker.depth):
                before, tokens = tokens.x.float(), tracker.run_layer(index, tokens)
                sums[index] += F.cosine_similarity(before, tokens.x.float(), dim=-1).mean(1).sum().item()
            samples += len(search)
    return (1 - sums / samples).tolist()
