"""An average of the weights over the steps (TRAIN.EMA), which is validated and kept as the result."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .state import check_fit, net_state


class WeightAverage:
    """Exponential moving average of what changes in a model: its trainable parameters and its buffers.

    After `n` steps a step's weights enter with 1 - min(decay, (1 + n) / (10 + n)), so that the beginning is soon
    forgotten. BatchNorm's running statistics are averaged like weights; whole numbers (its counters) are copied.

    Args:
        model: what the training results in. The average starts from its present weights.
        decay: share of the average that a step keeps, in 0..1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._average = {name: tensor.detach().clone() for name, tensor in net_state(model).items()}

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Take in the model's present weights, which are those after step number `done` of the run (from 1)."""
        current = net_state(self._model)
        names = [name for name, tensor in self._average.items() if tensor.is_floating_point()]
        average = get_ema_multi_avg_fn(min(self._decay, (1 + done) / (10 + done)))
        average([self._average[name] for name in names], [current[name] for name in names], None)
        for name in self._average.keys() - set(names):
            self._average[name].copy_(current[name])

    def state(self) -> dict[str, Tensor]:
        """The average by name (not copied)."""
        return self._average

    def load(self, state: Mapping[str, Tensor], source: Path) -> None:
        """Go on from what `state` gave.

        Raises:
            UserError: the names or shapes differ (another configuration).
        """
        check_fit(self._average, state, source)
        for name, tensor in self._average.items():
            tensor.copy_(state[name])

    def restart(self) -> None:
        """Start again from the model's present weights."""
        self.load(net_state(self._model), Path())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average's weights inside, and its own again afterwards."""
        current = net_state(self._model)
        own = {name: tensor.clone() for name, tensor in current.items()}
        try:
            for name, tensor in current.items():
                tensor.copy_(self._average[name])
            yield
        finally:
            for name, tensor in current.items():
                tensor.copy_(own[name])
