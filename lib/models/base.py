"""What every tracker family offers: `embed -> layers -> predict`.

Compression, training, testing and export need nothing else. A family implements `StagedTracker`; a student is the same
class with fewer layers. Modules hold no state of a target: what one frame hands to the next goes through `Inputs` and
`Prediction`.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers.resampling import cut, resample


class Inputs(NamedTuple):
    """What a tracker sees of one batch.

    Attributes:
        templates: (B, T, 3, h, w) crops, normalised, the first frame's first.
        search: (B, 3, H, W) crops, normalised.
        further: what only some families take, by name: (B, ...) tensors that a family's run-time rules make (masks,
            boxes of the templates, the memory of earlier frames), and in training numbers of its objective.
    """

    templates: Tensor
    search: Tensor
    further: Mapping[str, Any]

    @classmethod
    def of(cls, templates: Tensor, search: Tensor, further: Mapping[str, Any] | None = None) -> "Inputs":
        """The inputs; a single template may come as (B, 3, h, w)."""
        return cls(templates if templates.dim() == 5 else templates.unsqueeze(1), search, further or {})


class Segment(NamedTuple):
    """Neighbouring tokens of one kind.

    Attributes:
        name: `template` and `search` are every family's; others are its own.
        length: number of tokens.
        grid: side of the square grid that the tokens fill row by row (of each picture, where several stand one behind
            the other); None for tokens without a place in a picture.
    """

    name: str
    length: int
    grid: int | None = None


@dataclass(frozen=True)
class Tokens:
    """The sequence that the layers work on.

    Attributes:
        x: (B, L, C) features.
        segments: what the tokens are, in their order; the lengths add up to L.
        extra: what the layers of a family hand on besides (see for instance `layers.elimination.Candidates`).
    """

    x: Tensor
    segments: tuple[Segment, ...]
    extra: Any = None

    def place(self, name: str) -> slice:
        """Where a segment's tokens are."""
        start = 0
        for segment in self.segments:
            if segment.name == name:
                return slice(start, start + segment.length)
            start += segment.length
        raise KeyError(f"no segment {name}; there are {', '.join(segment.name for segment in self.segments)}")

    def part(self, name: str) -> Tensor:
        """(B, length, C) tokens of a segment."""
        return self.x[:, self.place(name)]

    def with_part(self, name: str, part: Tensor) -> "Tokens":
        """The same with other tokens (B, n, C) in a segment's place, which may be fewer than there were."""
        place = self.place(name)
        segments = tuple(segment._replace(length=part.shape[1]) if segment.name == name else segment
                         for segment in self.segments)
        return replace(self, x=torch.cat([self.x[:, :place.start], part, self.x[:, place.stop:]], dim=1),
                       segments=segments)


class Branch(NamedTuple):
    """A part of a pre-norm layer: it reads the normed tokens and adds to the tokens what its inner values say. The
    names are those of modules in the layer.

    Attributes:
        norm: a LayerNorm.
        read, write: linear maps, from the tokens to the inner values and back.
        unit: inner values that belong together (of an attention head).
        copies: what `read` gives is so many times the number of inner values (queries, keys, values), each in their
            order.
    """

    norm: str
    read: str
    write: str
    unit: int = 1
    copies: int = 1


class Prediction(NamedTuple):
    """What a tracker says about one batch of search crops; S is the side of the search grid.

    Attributes:
        boxes: (B, 1, 4) cxcywh, in 0..1 of the search crop.
        score_map: (B, 1, S, S) in 0..1, or None for heads without one.
        size_map: (B, 2, S, S) width and height in 0..1 of the crop, or None.
        offset_map: (B, 2, S, S) x and y offset within the cell, in cells, or None.
        further: what only some families give, by name, (B, ...) each; their objective and run-time rules read it. A
            head without a score map may give `score` (B,) in 0..1.
    """

    boxes: Tensor
    score_map: Tensor | None = None
    size_map: Tensor | None = None
    offset_map: Tensor | None = None
    further: Mapping[str, Tensor] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that there are, by name."""
        named = {name: value for name, value in self._asdict().items() if isinstance(value, Tensor)}
        return named | dict(self.further or {})

    def map(self, function: Callable[[Tensor], Tensor]) -> "Prediction":
        """The same with a function of each of its tensors."""
        *fields, further = self
        return Prediction(*(None if value is None else function(value) for value in fields),
                          None if further is None else {name: function(value) for name, value in further.items()})


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have it in evaluation mode, and then as it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def rest_frozen(net: nn.Module) -> None:
    """Eval mode for the modules of a network whose parameters are all frozen, with all that is inside them: they drop
    no paths, and their BatchNorms keep their statistics."""
    for module in net.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


class StagedTracker(nn.Module, ABC):
    """A tracker that is a chain of layers between an embedding and a prediction."""

    part_prefixes: Mapping[str, tuple[str, ...]]
    """Role (embed, layers, norm, head) -> prefixes of its state-dict names. Of the prefixes of a name, the longest
    decides."""

    student_layers: ClassVar[str] = ""
    """In files, what stands for the layers' prefix in the names of a student's layers; empty for the same."""

    teacher_prefix: ClassVar[str] = ""
    """In files that hold a student and its frozen teacher, what stands in front of the teacher's names; empty where no
    such files are known."""

    unused: ClassVar[tuple[str, ...]] = ()
    """Entries that files hold and that may be missing or of another shape: the tracker never reads them, or its own
    will do."""

    position_names: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Names of learned positions in the embedding -> the segments whose `token_grids` they are of, one behind the
    other: (..., side * side of each, C). Those of another grid are resampled."""

    all_tokens: ClassVar[Mapping[str, Any]] = {}
    """Further inputs with which no layer drops tokens."""

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

    @property
    def token_grids(self) -> dict[str, int]:
        """Segment -> side of its grid, of those that another resolution of the crops changes."""
        return {}

    @abstractmethod
    def embed(self, inputs: Inputs) -> Tokens:
        """Crops to tokens with positions."""

    @abstractmethod
    def predict(self, tokens: Tokens) -> Prediction:
        """Final norm and head."""

    def token_places(self, tokens: Tokens) -> Tensor | None:
        """(B, L) the place of each token in the sequence before any layer dropped some; None where all are there, in
        order."""
        return None

    def run_layer(self, index: int, tokens: Tokens) -> Tokens:
        """One layer, in the way that `checkpoint_layers` says."""
        if self.checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(self.layers[index], tokens, use_reentrant=False)
        return self.layers[index](tokens)

    def compile_layers(self) -> None:
        """Have torch.compile make the layers' code when they first run; the names in the state dict stay."""
        for layer in self.layers:
            layer.compile()

    def part_of(self, name: str) -> str:
        """Role of a state-dict name; empty for none."""
        fitting = ((len(prefix), part) for part, prefixes in self.part_prefixes.items() for prefix in prefixes
                   if name.startswith(prefix))
        return max(fitting, default=(0, ""))[1]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by role (what COMPRESS.TRAINABLE names)."""
        return {part: [parameter for name, parameter in self.named_parameters() if self.part_of(name) == part]
                for part in self.part_prefixes}

    def part_tensors(self, part: str) -> dict[str, Tensor]:
        """The parameters and buffers of one part, by name."""
        tensors = itertools.chain(self.named_parameters(), self.named_buffers())
        return {name: tensor for name, tensor in tensors if self.part_of(name) == part}

    def load_part(self, part: str, state: Mapping[str, Tensor], grids: Mapping[str, int] | None = None,
                  middle: bool = False) -> None:
        """Copy one part's entries from the state dict of a tracker of the same family and width.

        Positions of another grid are resampled bicubically, as OSTrack resamples those of its ViT; of `unused` entries,
        those of another shape are left out.

        Args:
            grids: `token_grids` of that tracker; None where they are this one's.
            middle: positions of another grid are those in its middle instead of resampled ones.
        """
        shapes = {name: self.state_dict()[name].shape for name in self.unused if name in self.state_dict()}
        chosen = {name: value for name, value in state.items()
                  if self.part_of(name) == part and value.shape == shapes.get(name, value.shape)}
        own, grids = self.token_grids, self.token_grids if grids is None else grids
        for name in chosen.keys() & self.position_names.keys() if grids != own else ():
            kinds = self.position_names[name]
            pieces = chosen[name].flatten(0, -3).split([grids[kind] ** 2 for kind in kinds], dim=1)
            sides = [(grids[kind], own[kind]) for kind in kinds]
            pieces = [cut(piece, *side) if middle else resample(piece, *side, mode="bicubic")
                      for piece, side in zip(pieces, sides, strict=True)]
            chosen[name] = torch.cat(pieces, dim=1).unflatten(0, chosen[name].shape[:-2])
        unknown = self.load_state_dict(chosen, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"{type(self).__name__} has no {unknown[0]}")

    def read_foreign(self, path: Path) -> dict[str, Tensor] | None:
        """The weights in a file of a format that only this family has; None for any other file."""
        return None

    def adapt(self, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        """The entries of a checkpoint as the model's own: for families whose official files hold what the model keeps
        in another form.

        Raises:
            UserError: what is needed of them is not there.
        """
        return state

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def forward(self, templates: Tensor, search: Tensor, further: Mapping[str, Any] | None = None) -> Prediction:
        """One batch; see `Inputs`. A single template may come as (B, 3, h, w)."""
        tokens = self.embed(Inputs.of(templates, search, further))
        for index in range(self.depth):
            tokens = self.run_layer(index, tokens)
        return self.predict(tokens)


class SplitTracker(StagedTracker):
    """A tracker whose templates pass the layers without a look at the search region, so that what search regions read
    of them can be made once per target. Its fast module, exports and profiles do so."""

    @abstractmethod
    def read_templates(self, templates: Tensor) -> Tensor:
        """What search regions need of templates (B, T, 3, h, w), in one tensor (B, ...)."""

    @abstractmethod
    def read_search(self, read: Tensor, search: Tensor) -> Prediction:
        """As `forward`, with what `read_templates` gave; further inputs there are none."""
