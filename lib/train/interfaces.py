"""What the training loop asks of the parts that it is given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .actors import Prepared

Stats = Mapping[str, Tensor | float]


class Loader(Protocol):
    """Batches of one epoch of one process; `skip` leaves out the first ones of the next iteration.

    `samples` makes some of an epoch's samples, wherever they belong, as `to_device` would give them on the CPU.
    """

    def set_epoch(self, epoch: int) -> None: ...
    def skip(self, batches: int) -> None: ...
    def to_device(self, batch: dict, device: torch.device) -> dict: ...
    def samples(self, epoch: int, indices: Sequence[int]) -> dict: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict]: ...


class Actor(Protocol):
    """Turns a batch, or parts of one, into losses and the numbers to report (see `lib.train.actors.Actor`)."""

    def prepare(self, batch: dict, epoch: int) -> Prepared: ...
    def __call__(self, batch: dict, epoch: int, draws: torch.Generator, prepared: Prepared) -> tuple[Tensor, Stats]: ...
    def idle_parameters(self, epoch: int, draws: Sequence[torch.Generator]) -> list[nn.Parameter]: ...
    def validate(self, batch: dict, epoch: int) -> Stats: ...
    def model_for_saving(self) -> nn.Module: ...
    def train(self) -> Any: ...
    def eval(self) -> Any: ...


class TrackedSequences(Protocol):
    """Test sequences for the validation by tracking, in an order in which neighbours are about equally long.

    `names` are the scores that `score` gives, each as `[sum, count]` and in per cent; a sequence that failed adds
    nothing. `score` returns early when `stopped` says so.
    """

    names: tuple[str, ...]

    def __len__(self) -> int: ...
    def score(self, number: int, model: nn.Module, device: torch.device,
              stopped: Callable[[], bool]) -> dict[str, list[float]]: ...
