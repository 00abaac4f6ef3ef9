"""A trained head rearranged for speed: the same boxes from less work."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.base import Prediction
from ..models.heads import CenterHead, bounded, box_at, weighted

LAYERS = range(1, 6)
"""Numbers in the names of a CENTER head's convolutions: conv1_ctr to conv5_ctr."""


class MergedCenterHead(nn.Module):
    """A `CenterHead` (BatchNorm folded) with its three branches side by side in grouped convolutions."""

    outputs: ClassVar = {"ctr": 1, "offset": 2, "size": 2}

    def __init__(self, head: CenterHead):
        super().__init__()
        self.convolutions = nn.ModuleList(_side_by_side(head, list(self.outputs)))

    def forward(self, features: Tensor, window: Tensor | None = None) -> Prediction:
        """(B, C, S, S) -> maps and the best cell's box; see `CenterHead.forward`."""
        *hidden, final = self.convolutions
        for convolution in hidden:
            features = F.relu(convolution(features), inplace=True)
        maps = final(features).unflatten(1, (len(self.outputs), -1))      # (B, 3, 2, S, S)
        return CenterHead.read(*(maps[:, i, :number] for i, number in enumerate(self.outputs.values())), window)


class PeakHead(nn.Module):
    """A `CenterHead` (BatchNorm folded) that computes offset and size at the best cell only.

    The score map needs all cells; a cell's offset and size see 9 x 9 cells of the features, four 3 x 3 convolutions
    deep, so those of one cell cost a tenth of a map of 16 x 16.
    """

    reach = 4
    """Cells that a branch sees in each direction."""

    def __init__(self, head: CenterHead):
        super().__init__()
        self.score = nn.Sequential(*(getattr(head, f"conv{number}_ctr") for number in LAYERS))
        self.offset_size = nn.ModuleList(_side_by_side(head, ["offset", "size"]))
        for convolution in self.offset_size:
            convolution.padding = (0, 0)       # each takes one ring of cells off

    def forward(self, features: Tensor, window: Tensor | None = None) -> Prediction:
        """(B, C, S, S) -> score map and the best cell's box; see `CenterHead.forward`."""
        scores = bounded(self.score(features))                             # (B, 1, S, S)
        cell = weighted(scores, window).flatten(1).argmax(dim=1)           # (B,)
        around, inside = self._cut(features, cell)
        *hidden, final = self.offset_size
        for ring, convolution in enumerate(hidden, 1):
            # outside of the map there are zeros at every depth, where a convolution would leave its bias
            around = F.relu(convolution(around)) * inside[:, :, ring:-ring, ring:-ring]
        offset, size = final(around).flatten(1).split(2, dim=1)            # (B, 2) each
        return Prediction(box_at(cell, scores.shape[-1], bounded(size), offset.float()).unsqueeze(1), scores)

    def _cut(self, features: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The features around a cell of each image, zeros outside of the map.

        Args:
            features: (B, C, S, S).
            cell: (B,) number of the cell, row by row.

        Returns:
            (B, C, 9, 9) features, and (B, 1, 9, 9) of their type: 1 inside of the map, 0 outside.
        """
        batch, channels, side, _ = features.shape
        steps = torch.arange(-self.reach, self.reach + 1, device=features.device)
        rows, columns = (cell // side).unsqueeze(1) + steps, (cell % side).unsqueeze(1) + steps    # (B, 9)
        inside = (((rows >= 0) & (rows < side)).unsqueeze(2) & ((columns >= 0) & (columns < side)).unsqueeze(1))
        index = rows.clamp(0, side - 1).unsqueeze(2) * side + columns.clamp(0, side - 1).unsqueeze(1)   # (B, 9, 9)
        index = index + torch.arange(batch, device=features.device).view(-1, 1, 1) * side**2
        tokens = features.permute(0, 2, 3, 1).reshape(batch * side**2, channels)   # no copy where channels lie last
        around = tokens.index_select(0, index.flatten()).view(batch, len(steps), len(steps), channels)
        mask = inside.unsqueeze(1).to(features.dtype)
        return around.permute(0, 3, 1, 2) * mask, mask


@torch.no_grad()
def _side_by_side(head: CenterHead, branches: Sequence[str]) -> list[nn.Conv2d]:
    """The five convolutions of several branches with BatchNorm folded, each as one: a wide one, then grouped ones;
    outputs are filled up with zeros to the widest."""
    merged = []
    for number in LAYERS:
        blocks = [getattr(head, f"conv{number}_{branch}") for branch in branches]
        parts = [block[0] if isinstance(block, nn.Sequential) else block for block in blocks]
        first, width = parts[0], max(part.out_channels for part in parts)
        groups = 1 if number == 1 else len(parts)
        wide = nn.Conv2d(first.in_channels * groups, width * len(parts), first.kernel_size, padding=first.padding,
                         groups=groups)
        nn.init.zeros_(wide.weight)
        nn.init.zeros_(wide.bias)
        for index, part in enumerate(parts):
            rows = slice(index * width, index * width + part.out_channels)
            wide.weight[rows], wide.bias[rows] = part.weight, part.bias
        merged.append(wide)
    return merged


def fold_batchnorm(net: nn.Module) -> None:
    """Make each BatchNorm that follows a convolution in a sequence among the children of `net` part of it, in place."""
    for name, block in net.named_children():
        if isinstance(block, nn.Sequential):
            parts: list[nn.Module] = []
            for part in block:
                if isinstance(part, nn.BatchNorm2d) and parts and isinstance(parts[-1], nn.Conv2d):
                    parts[-1] = fuse_conv_bn_eval(parts[-1].eval(), part.eval())
                else:
                    parts.append(part)
            setattr(net, name, nn.Sequential(*parts))
