"""What actors share: the wrapped network, the family's objective, and validation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...config import Config
from ...families.objective import mean_terms, search_frames
from ...models.base import Prediction, StagedTracker, rest_frozen
from ...models.compress import Targets


class Prepared(NamedTuple):
    """What is known of a part of a batch before its loss.

    Attributes:
        counts: see `Actor.counts`.
        targets: of each search frame the teacher's own pass, where there is a teacher.
    """

    counts: Tensor
    targets: tuple[Targets, ...] = ()

    def to(self, device: torch.device) -> "Prepared":
        """The same on another device, or parked in the host's memory, without waiting; what the targets share with the
        mixed pass, which is but a saving, does not come along."""
        if self.counts.device == device:
            return self

        def move(value: Tensor) -> Tensor:
            if device.type != "cpu":
                return value.to(device, non_blocking=True)
            return torch.empty_like(value, device=device, pin_memory=True).copy_(value, non_blocking=True)

        targets = (Targets(frame.prediction and frame.prediction.map(move), tuple(map(move, frame.features)))
                   for frame in self.targets)
        return Prepared(move(self.counts), tuple(targets))


class Actor(ABC):
    """Turns a batch into a loss.

    Args:
        cfg: the run's configuration.
        net: the network to call; may be wrapped in DistributedDataParallel.
    """

    def __init__(self, cfg: Config, net: nn.Module):
        self.cfg = cfg
        self.net = net
        self.objective = cfg.family.objective(cfg)

    @property
    def module(self) -> nn.Module:
        """The network without its distributed wrapper."""
        return getattr(self.net, "module", self.net)

    def train(self, mode: bool = True) -> None:
        """Put the network in training or evaluation mode; with TRAIN.FIX_BN its BatchNorms stay in the latter, and with
        TRAIN.FROZEN_LAYERS what these freeze."""
        self.net.train(mode)
        if self.cfg.TRAIN.FROZEN_LAYERS:
            rest_frozen(self.net)
        if self.cfg.TRAIN.FIX_BN:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def eval(self) -> None:
        """Put the network in evaluation mode."""
        self.train(False)

    def counts(self, batch: dict, epoch: int) -> Tensor | None:
        """What has to be known of every part of a batch before the loss of any: the numbers (n,) float32 that terms of
        it divide by (peaks of the heat maps), search frame by search frame. See `__call__` for the arguments.

        Returns:
            None where they take as much work as `prepare`, which gives them too.
        """
        return torch.cat([self.objective.counts(frame["search_box"]) for frame in search_frames(batch)])

    def prepare(self, batch: dict, epoch: int) -> Prepared:
        """What the loss of a part needs: its counts, and the teacher's targets."""
        return Prepared(self.counts(batch, epoch))

    @abstractmethod
    def __call__(self, batch: dict, epoch: int, draws: torch.Generator,
                 prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one training batch, or of a part of it.

        The mean of the parts' losses is the loss of the whole if `prepared` has the same counts for all: the whole
        batch's, divided by the number of parts.

        Args:
            batch: `template` (B, 3, h, w), `search` (B, 3, H, W), `template_box` and `search_box` (B, 4) xywh in 0..1
                of their crops; with a second dimension where a sample has several.
            epoch: 1..TRAIN.EPOCH.
            draws: CPU generator of the step's random draws.
            prepared: by `prepare`; None for a batch that is no part of another.

        Returns:
            scalar loss, and its terms (detached scalars) by name.
        """

    def idle_parameters(self, epoch: int, draws: Sequence[torch.Generator]) -> list[nn.Parameter]:
        """Those that learn, but take no part in any of the passes that have these generators."""
        return []

    @abstractmethod
    def deployed(self) -> Callable[..., Prediction]:
        """The model that will be deployed, called as `StagedTracker.forward` says."""

    def run(self, batch: dict, epoch: int) -> Iterator[tuple[dict, Prediction]]:
        """What `deployed` says about each search frame of a batch, with what the frame before hands on."""
        further = self.objective.further(batch, epoch)
        for frame in search_frames(batch):
            prediction = self.deployed()(frame["template"], frame["search"], further)
            yield frame, prediction
            further = {**further, **self.objective.carried(prediction)}

    def predict(self, batch: dict, epoch: int) -> Prediction:
        """What it says about the last search frame."""
        return list(self.run(batch, epoch))[-1][1]

    @abstractmethod
    def model_for_saving(self) -> StagedTracker:
        """The model that is the result of the training."""

    @abstractmethod
    def parameter_groups(self) -> list[dict]:
        """Groups `params`, `lr` for the optimiser."""

    @torch.no_grad()
    def validate(self, batch: dict, epoch: int) -> dict[str, Tensor]:
        """Terms of the loss on one batch, in evaluation mode."""
        return self.frames_loss(batch, epoch)[1]

    def frames_loss(self, batch: dict, epoch: int, counts: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of `deployed` against the ground truth, the sum over the search frames, and its terms, their means.

        Args:
            counts: as in `Prepared`.
        """
        losses, terms = [], []
        for (frame, prediction), known in zip(self.run(batch, epoch), by_frame(batch, counts), strict=True):
            loss, stats = self.objective.loss(prediction, frame["search_box"], known)
            losses.append(loss)
            terms.append(stats)
        return torch.stack(losses).sum(), mean_terms(terms)


def by_frame(batch: dict, counts: Tensor | None) -> Sequence[Tensor | None]:
    """A batch's counts for each of its search frames."""
    frames = len(search_frames(batch))
    return [None] * frames if counts is None else counts.view(frames, -1).unbind()
