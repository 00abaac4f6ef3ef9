"""What every tracker family offers: `embed -> layers -> predict`.

Compression, training, testing and export need nothing else. A family implements `StagedTracker`; a student is the same
class with fewer layers.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Tokens:
    """The sequence that the layers work on: template tokens first, then search tokens.

    Attributes:
        x: (B, Lz + Lk, C) features; Lk search tokens are still there.
        template_length: Lz.
        kept: (B, Lk) position of each search token in the full search grid; None while all are there, in order.
        removed: per elimination, (B, n) sorted grid positions of the search tokens it removed.
        template_mask: (B, Lz) bool, template tokens whose attention votes in candidate elimination; None = all.
        keep_rate: share of search tokens an eliminating layer keeps; None = its own rate.
    """

    x: Tensor
    template_length: int
    kept: Tensor | None = None
    removed: tuple[Tensor, ...] = ()
    template_mask: Tensor | None = None
    keep_rate: float | None = None


class Prediction(NamedTuple):
    """What a tracker says about one batch of search crops; S is the side of the search grid.

    Attributes:
        boxes: (B, 1, 4) cxcywh, in 0..1 of the search crop.
        score_map: (B, 1, S, S) in 0..1, or None for heads without one.
        size_map: (B, 2, S, S) width and height in 0..1 of the crop, or None.
        offset_map: (B, 2, S, S) x and y offset within the cell, in cells, or None.
    """

    boxes: Tensor
    score_map: Tensor | None = None
    size_map: Tensor | None = None
    offset_map: Tensor | None = None


class StagedTracker(nn.Module, ABC):
    """A tracker that is a chain of layers between an embedding and a prediction."""

    part_prefixes: ClassVar[dict[str, tuple[str, ...]]]
    """Role (embed, layers, norm, head) -> prefixes of its state-dict names."""

    checkpoint_layers = False
    """Keep only the layers' inputs for the backward pass and compute the rest again: less memory, more time."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Each maps `Tokens` to `Tokens`."""

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Width C of the tokens."""

    @abstractmethod
    def embed(self, template: Tensor, search: Tensor, template_mask: Tensor | None = None,
              keep_rate: float | None = None) -> Tokens:
        """Crops (B, 3, h, w) and (B, 3, H, W), normalised, to tokens with positions."""

    @abstractmethod
    def predict(self, tokens: Tokens) -> Prediction:
        """Final norm and head."""

    def run_layer(self, index: int, tokens: Tokens) -> Tokens:
        """One layer, in the way that `checkpoint_layers` says."""
        if self.checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(self.layers[index], tokens, use_reentrant=False)
        return self.layers[index](tokens)

    def compile_layers(self) -> None:
        """Have torch.compile make the layers' code when they first run; the names in the state dict stay."""
        for layer in self.layers:
            layer.compile()

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by role (what COMPRESS.TRAINABLE names)."""
        return {part: [parameter for name, parameter in self.named_parameters() if name.startswith(prefixes)]
                for part, prefixes in self.part_prefixes.items()}

    def part_tensors(self, part: str) -> dict[str, Tensor]:
        """The parameters and buffers of one part, by name."""
        tensors = itertools.chain(self.named_parameters(), self.named_buffers())
        return {name: tensor for name, tensor in tensors if name.startswith(self.part_prefixes[part])}

    def load_part(self, part: str, state: Mapping[str, Tensor]) -> None:
        """Copy one part's entries from the state dict of a tracker of the same family and width."""
        prefixes = self.part_prefixes[part]
        chosen = {name: value for name, value in state.items() if name.startswith(prefixes)}
        unknown = self.load_state_dict(chosen, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"{type(self).__name__} has no {unknown[0]}")

    def read_foreign(self, path: Path) -> dict[str, Tensor] | None:
        """The weights in a file of a format that only this family has; None for any other file."""
        return None

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def forward(self, template: Tensor, search: Tensor, template_mask: Tensor | None = None,
                keep_rate: float | None = None) -> Prediction:
        """One batch of crop pairs: (B, 3, h, w) template, (B, 3, H, W) search, both normalised.

        Args:
            template_mask: (B, Lz) bool and
            keep_rate: in 0..1, both for candidate elimination only (see `Tokens`).
        """
        tokens = self.embed(template, search, template_mask, keep_rate)
        for index in range(self.depth):
            tokens = self.run_layer(index, tokens)
        return self.predict(tokens)
