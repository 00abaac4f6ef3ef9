"""Box heads of OSTrack: CENTER (the default), CORNER (STARK's) and MLP. Attribute names give the official keys."""

import math

import torch
from torch import Tensor, nn

from ..utils.boxes import xyxy_to_cxcywh
from .base import Prediction


def _stack(branch: str, in_channels: int, channels: int, outputs: int) -> dict[str, nn.Module]:
    """A branch: four [3x3 conv, BatchNorm, ReLU] that halve the width, then a 1x1 conv; named conv1_<branch>..."""
    widths = [in_channels, channels, channels // 2, channels // 4, channels // 8]
    modules: dict[str, nn.Module] = {}
    for number, (i, o) in enumerate(zip(widths, widths[1:], strict=False), 1):
        modules[f"conv{number}_{branch}"] = nn.Sequential(
            nn.Conv2d(i, o, kernel_size=3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
    modules[f"conv5_{branch}"] = nn.Conv2d(widths[-1], outputs, kernel_size=1)
    return modules


class _BranchHead(nn.Module):
    """Convolutional branches side by side on one feature map."""

    def __init__(self, in_channels: int, channels: int, branches: dict[str, int]):
        super().__init__()
        for branch, outputs in branches.items():
            for name, module in _stack(branch, in_channels, channels, outputs).items():
                self.add_module(name, module)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def run_branch(self, branch: str, features: Tensor) -> Tensor:
        for number in range(1, 6):
            features = getattr(self, f"conv{number}_{branch}")(features)
        return features


def decode(score_map: Tensor, size_map: Tensor, offset_map: Tensor) -> Tensor:
    """Box at the cell with the highest score.

    Args:
        score_map: (B, 1, S, S); size_map, offset_map: (B, 2, S, S) (see `Prediction`).

    Returns:
        (B, 4) cxcywh in 0..1 of the crop.
    """
    side = score_map.shape[-1]
    cell = score_map.flatten(1).argmax(dim=1)                      # (B,)
    index = cell.view(-1, 1, 1).expand(-1, 2, 1)
    size, offset = (values.flatten(2).gather(2, index).squeeze(2) for values in (size_map, offset_map))    # (B, 2)
    return box_at(cell, side, size, offset)


def box_at(cell: Tensor, side: int, size: Tensor, offset: Tensor) -> Tensor:
    """Box that a cell tells of.

    Args:
        cell: (B,) number of the cell, row by row.
        side: S, cells in a row.
        size, offset: (B, 2) values of the maps there (see `Prediction`).

    Returns:
        (B, 4) cxcywh in 0..1 of the crop.
    """
    corner = torch.stack([cell % side, cell // side], dim=1).to(offset.dtype)
    return torch.cat([(corner + offset) / side, size], dim=1)


def weighted(scores: Tensor, window: Tensor | None) -> Tensor:
    """(B, 1, S, S) scores times a window (S, S); None weighs all the same."""
    return scores if window is None else scores * window


def bounded(logits: Tensor) -> Tensor:
    """Sigmoid in float32, kept away from 0 and 1 (scores and sizes)."""
    return logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)


class CenterHead(_BranchHead):
    """Score, offset and size maps (CenterNet's parametrisation)."""

    def __init__(self, in_channels: int, channels: int = 256):
        super().__init__(in_channels, channels, {"ctr": 1, "offset": 2, "size": 2})

    def forward(self, features: Tensor, window: Tensor | None = None) -> Prediction:
        """(B, C, S, S) -> maps and the best cell's box; (S, S) weights of the scores when it is looked for."""
        return self.read(*(self.run_branch(branch, features) for branch in ("ctr", "offset", "size")), window)

    @staticmethod
    def read(score: Tensor, offset: Tensor, size: Tensor, window: Tensor | None) -> Prediction:
        """The branches' outputs, (B, 1 | 2 | 2, S, S), as a prediction in float32."""
        score, size, offset = bounded(score), bounded(size), offset.float()
        return Prediction(decode(weighted(score, window), size, offset).unsqueeze(1), score, size, offset)

    @torch.no_grad()
    def rescale(self, before: float, after: float) -> None:
        """Say `after` where the size was `before`, in shares of the crop's side, and other sizes by about their ratio
        more."""
        self.conv5_size.bias += math.log(after / (1 - after)) - math.log(before / (1 - before))


class CornerHead(_BranchHead):
    """Both corners, each the expectation of a softmax over the grid (STARK, ICCV 2021, section 3.1)."""

    def __init__(self, in_channels: int, channels: int = 256):
        super().__init__(in_channels, channels, {"tl": 1, "br": 1})

    def forward(self, features: Tensor) -> Prediction:
        """(B, C, S, S) -> the box; there is no score map."""
        side = features.shape[-1]
        corners = [self._expected_cell(self.run_branch(branch, features).float()) for branch in ("tl", "br")]
        return Prediction(xyxy_to_cxcywh(torch.cat(corners, dim=1) / side).unsqueeze(1))

    def rescale(self, before: float, after: float) -> None:
        """Nothing changes (see `CenterHead.rescale`): the corners are places on the grid."""

    @staticmethod
    def _expected_cell(logits: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 2) expected x and y, in cells."""
        steps = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
        cells = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)  # (S * S, 2)
        return (logits.flatten(1).softmax(dim=1).unsqueeze(2) * cells).sum(1)   # no product that autocast would lower


class MLPHead(nn.Module):
    """Three linear layers on the mean search feature, sigmoid to a cxcywh box."""

    def __init__(self, in_channels: int):
        super().__init__()
        sizes = [in_channels, in_channels, in_channels, 4]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, sizes[1:], strict=False))

    def forward(self, features: Tensor) -> Prediction:
        """(B, C, S, S) -> the box; there is no score map."""
        x = features.mean(dim=(2, 3))
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return Prediction(self.layers[-1](x).float().sigmoid().unsqueeze(1))


def build_head(kind: str, in_channels: int, channels: int) -> nn.Module:
    """`kind` is MODEL.HEAD.TYPE: CENTER, CORNER or MLP."""
    if kind == "MLP":
        return MLPHead(in_channels)
    return {"CENTER": CenterHead, "CORNER": CornerHead}[kind](in_channels, channels)
