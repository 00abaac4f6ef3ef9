"""The training loop: epochs of steps, validation, checkpoints. It knows no tracker, no data set and no loss."""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models.layers.drop_path import drawn_paths
from ..utils.errors import UserError
from ..utils.signals import StopRequest
from .actors import Prepared
from .admin.logs import Clock, RunLog, progress_text
from .admin.stats import StatSums, format_duration, format_stats, means, merge, sum_up
from .average import WeightAverage
from .batch import BatchPlan
from .distributed import World
from .gradients import GradientAverage
from .interfaces import Actor, Loader, TrackedSequences
from .schedule import LearningRate
from .seeds import draw_generator, path_generator, seed_step

MOST_LEFT_OUT = 40
"""Steps in a row that float16's scale may be too large for; it begins at 2 ** 16."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What the loop needs from the configuration.

    Attributes:
        epochs: length of the run.
        seed: of everything random.
        clip_norm: largest gradient norm; 0 does not clip.
        amp: type of automatic mixed precision, None for full precision.
        draws_per_process: each process draws its own stages in each pass, instead of one draw per step.
        print_interval: steps between log lines.
        val_interval: epochs between validations (the last epoch always validates); 0 never validates.
        track_interval: the same for the validation by tracking.
        save_interval: steps between two saves within an epoch; 0 saves after epochs only.
    """

    epochs: int
    seed: int = 42
    clip_norm: float = 0.1
    amp: torch.dtype | None = None
    draws_per_process: bool = False
    print_interval: int = 50
    val_interval: int = 20
    track_interval: int = 0
    save_interval: int = 0


@dataclass
class Position:
    """Where the loop is: finished epochs, finished steps of the next one, and that one's totals so far.

    `validated` is the last epoch after which everything that was due has been validated.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    validated: int = 0


class Trainer:
    """Runs a recipe from a position to its end.

    Args:
        net: the module that trains; its trainable parameters are clipped together.
        batch: how a step's pairs are divided.
        save: called with the position after every epoch, after a validation, every `save_interval` steps, and when
            the run is stopped within an epoch.
        save_batch: called with epoch, step (from 0) and rank of a loss or gradient that was no number; writes
            that process's pairs of the step to a file and gives its path.
        scaler: gradient scaler, enabled for float16 only.
        average: the weights' average, where there is one; it is what is validated.
        sequences: for the validation by tracking; None does without.
        keep_best: called with the epoch and its validation's scores by name, while the model has the weights that were
            validated.
        draw: makes a picture (H, W, 3) RGB uint8 of what the network says about a batch of the validation; None draws
            nothing.
    """

    def __init__(self, recipe: Recipe, actor: Actor, net: nn.Module, optimizer: torch.optim.Optimizer,
                 learning_rate: LearningRate, train_loader: Loader, val_loader: Loader | None, *,
                 device: torch.device, world: World, log: RunLog, stop: StopRequest, batch: BatchPlan,
                 scaler: torch.amp.GradScaler, save: Callable[[Position], None],
                 save_batch: Callable[[int, int, int], Path], average: WeightAverage | None = None,
                 sequences: TrackedSequences | None = None,
                 keep_best: Callable[[int, Mapping[str, float]], None] = lambda epoch, scores: None,
                 draw: Callable[[dict, int], np.ndarray] | None = None) -> None:
        self._recipe, self._actor, self._optimizer, self._learning_rate = recipe, actor, optimizer, learning_rate
        self._train_loader, self._val_loader, self._batch = train_loader, val_loader, batch
        self._device, self._world, self._log, self._stop = device, world, log, stop
        self._scaler, self._save, self._save_batch, self._average = scaler, save, save_batch, average
        self._sequences, self._keep_best, self._draw = sequences, keep_best, draw
        self._net = net
        self._parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._gradients = GradientAverage(self._parameters, world)
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self._clock = Clock(batch.total, device)
        self._recent: dict[str, list[float]] = {}
        self._left_out = torch.zeros((), dtype=torch.long, device=device)

    def run(self, position: Position) -> bool:
        """Train from `position` (changed in place) to the end. False if a signal stopped it; the state is saved then.

        Raises:
            UserError: a loss or gradient was not finite (names epoch, step and a file with the batch; the state saved
                last is good).
        """
        while self._validate_due(position):
            if position.epoch >= self._recipe.epochs:
                return True
            if not self._train_epoch(position):
                return False
        return False

    def _validate_due(self, position: Position) -> bool:
        """Do the validations that are due after the epoch before `position`, once. False if stopped within them."""
        epoch, recipe = position.epoch, self._recipe
        if position.step or position.validated >= epoch:
            return True
        pairs = self._val_loader is not None and _due(epoch, recipe.val_interval, recipe.epochs)
        tracking = self._sequences is not None and _due(epoch, recipe.track_interval, recipe.epochs)
        if not pairs and not tracking:
            return True
        scores: dict[str, float] = {}
        with self._average.in_place() if self._average is not None else contextlib.nullcontext():
            self._world.share_tensors(self._net.buffers())  # without SYNC_BN each has statistics of its own
            for due, validate in ((pairs, self._validate), (tracking, self._track)):
                new_scores = validate(epoch) if due else {}
                if new_scores is None:
                    return False
                scores |= new_scores
            self._keep_best(epoch, scores)
        position.validated = epoch
        self._save(position)
        return True

    def _train_epoch(self, position: Position) -> bool:
        """Finish the epoch that `position` is in and save. False if stopped within it."""
        epoch, steps, recipe = position.epoch + 1, self._batch.steps(len(self._train_loader)), self._recipe
        self._actor.train()
        self._train_loader.set_epoch(epoch)
        batches = self._batches(self._train_loader, position.step, steps, self._batch.accumulate)
        sums, started = StatSums(self._device), time.perf_counter()
        self._clock.restart()
        self._log.start_progress(f"epoch {epoch}/{recipe.epochs}", steps, position.step)
        try:
            for parts in batches:
                self.train_step(parts, epoch, position.step, steps, sums)
                position.step += 1
                self._clock.step()
                self._log.advance()
                if position.step % recipe.print_interval == 0 and position.step < steps:
                    self._report(position, steps, sums)
                if recipe.save_interval and position.step % recipe.save_interval == 0 and position.step < steps:
                    self._collect(position, steps, sums)
                    self._save(position)
            if not sums.empty:
                self._report(position, steps, sums)
        finally:
            batches.close()
            self._log.end_progress()
        if position.step < steps:
            self._save(position)
            return False
        usage = self._clock.usage(self._clock.epoch) | {"EpochTime": time.perf_counter() - started}
        self._log.scalars("train", {**means(position.sums), "LearningRate": self._rate(), **usage}, epoch)
        position.epoch, position.step, position.sums = epoch, 0, {}
        self._save(position)
        return not self._world.any(self._stop.requested)

    def train_step(self, parts: Sequence[dict], epoch: int, step: int, steps: int, sums: StatSums,
                   mark: Callable[[str], None] = lambda part: None) -> None:
        """One step of the optimiser; a backward pass for each part of this process's batch.

        Each pass brings its part to the device and leaves gradients only, so that the device's memory does not grow
        with the number of passes. What has to be made of all parts before, waits in the host's memory.

        Args:
            parts: the loader's batches, one for each pass.
            epoch: from 1.
            step, steps: place in the epoch, from 0, and its length.
            sums: take the statistics.
            mark: called with the name of each part of the work when that has been queued: input, targets, forward and
                backward for each pass (before them, with several, targets for the counts of all), and optimiser.
        """
        recipe = self._recipe
        factor = self._learning_rate.factor(epoch, step, steps)
        for group, rate in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        seed_step(recipe.seed, epoch, step, self._world.rank)
        self._optimizer.zero_grad(set_to_none=True)  # a stage that did not run keeps no gradient and is not decayed
        share, ready = None, [None] * len(parts)
        if len(parts) > 1:
            counts, ready = zip(*(self._count(part, epoch, step, number) for number, part in enumerate(parts)),
                                strict=True)
            share = self._share(torch.stack(counts).sum(0))
            mark("targets")
        for number, (part, prepared) in enumerate(zip(parts, ready, strict=True)):
            self._pass(part, prepared, number, share, epoch, step, sums, mark)
        sums.add({"GradNorm": self._clip(sums, step)})
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update((epoch - 1) * steps + step + 1)
        mark("optimiser")

    def _pass(self, part: dict, prepared: Prepared | None, number: int, share: Tensor | None, epoch: int, step: int,
              sums: StatSums, mark: Callable[[str], None]) -> None:
        """Forward and backward pass `number` of a step; what it needs is gone with its end.

        Args:
            prepared: what is prepared of the part, if that was done before.
            share: see `_share`; None where the part is all of this process's batch.
        """
        batch = self._train_loader.to_device(part, self._device)
        mark("input")
        prepared = self._prepare(batch, epoch, step, number) if prepared is None else prepared.to(self._device)
        prepared = prepared._replace(counts=self._share(prepared.counts) if share is None else share)
        mark("targets")
        passes, draws = self._batch.accumulate, self._draws(epoch, step, self._batch.unit(self._world.rank, number))
        with self._paths(epoch, step, number, "loss"):
            with self._autocast():
                loss, stats = self._actor(batch, epoch, draws, prepared)
            mark("forward")
            with self._averaging(epoch, step) if number + 1 == passes else contextlib.nullcontext():
                self._scaler.scale(loss / passes).backward()
            mark("backward")
        sums.watch(loss, step)
        sums.add(stats)

    def _count(self, part: dict, epoch: int, step: int, number: int) -> tuple[Tensor, Prepared | None]:
        """The counts of a part before its pass, and what had to be prepared for them, in the host's memory."""
        batch = self._train_loader.to_device(part, self._device)
        counts = self._actor.counts(batch, epoch)
        if counts is not None:
            return counts, None
        prepared = self._prepare(batch, epoch, step, number)
        return prepared.counts, prepared.to(torch.device("cpu"))

    def _prepare(self, batch: dict, epoch: int, step: int, number: int) -> Prepared:
        """What the loss of a part needs."""
        with self._paths(epoch, step, number, "targets"), self._autocast():
            return self._actor.prepare(batch, epoch)

    def _share(self, counts: Tensor) -> Tensor:
        """One part's share of the whole batch's counts, from this process's."""
        return self._world.sum_on_device(counts).clamp(min=1) / self._batch.units

    def _clip(self, sums: StatSums, step: int) -> Tensor:
        """Take the loss's scale out of the gradients and clip them. Returns their norm before the clipping, which is
        watched like the loss: a bad one makes bad weights."""
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        if self._recipe.clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self._parameters, self._recipe.clip_norm, norm)
        if not self._scaler.is_enabled():
            sums.watch_gradient(norm, step)
            return norm
        # A step with too large a scale is left out; here it counts as one of norm 0. The scale is halved each time.
        good = torch.isfinite(norm)
        self._left_out = torch.where(good, 0, self._left_out + 1)
        sums.watch_gradient(torch.where(self._left_out > MOST_LEFT_OUT, norm, 0), step)
        return torch.where(good, norm, 0)

    def _draws(self, epoch: int, step: int, unit: int) -> torch.Generator:
        """The generator of the stage draws of a part of the batch."""
        return draw_generator(self._recipe.seed, epoch, step, unit if self._recipe.draws_per_process else None)

    def _averaging(self, epoch: int, step: int) -> contextlib.AbstractContextManager:
        """Around the last backward pass of a step: the gradients become those of all processes."""
        if self._world.size == 1:
            return contextlib.nullcontext()
        units = range(self._batch.units) if self._recipe.draws_per_process else (0,)
        draws = [self._draws(epoch, step, unit) for unit in units]
        return self._gradients.averaging(self._actor.idle_parameters(epoch, draws))

    def _paths(self, epoch: int, step: int, number: int, use: str) -> contextlib.AbstractContextManager:
        """Around a pass: its drop path, drawn for the whole batch."""
        return drawn_paths(self._net, path_generator(self._recipe.seed, epoch, step, use), self._batch.total,
                           self._batch.rows(self._world.rank, number), self._device)

    def _validate(self, epoch: int) -> dict[str, float] | None:
        """Average statistics over the validation pairs (the same in every epoch). None if stopped within them."""
        assert self._val_loader is not None
        self._actor.eval()
        self._val_loader.set_epoch(0)
        steps = self._world.min(len(self._val_loader))  # the last, smaller batch may be missing on some processes
        sums, picture = StatSums(self._device), None
        clock = Clock(self._batch.size * self._world.size, self._device)
        self._log.start_progress(f"validation {epoch}/{self._recipe.epochs}", steps, 0)
        batches, done = self._batches(self._val_loader, 0, steps), 0
        try:
            for (batch,) in batches:
                batch = self._val_loader.to_device(batch, self._device)
                with torch.no_grad(), self._autocast():
                    sums.add(self._actor.validate(batch, epoch), weight=_pairs(batch))
                    if done == 0 and self._draw is not None:
                        picture = self._draw(batch, epoch)  # on all processes: the network may talk to the others
                done += 1
                clock.step()
                self._log.advance()
        finally:
            batches.close()
            self._log.end_progress()
        totals, _, _ = sum_up(*sums.take(), self._world)
        averages = means(totals)
        if done < steps:
            return None
        text, _ = progress_text("val", epoch, self._recipe.epochs, done, steps, rates=clock.lap(), averages=averages)
        self._log.line(text)
        self._log.scalars("val", averages, epoch)
        if picture is not None:
            self._log.picture("val", picture, epoch)
        return averages

    def _track(self, epoch: int) -> dict[str, float] | None:
        """Average scores of tracking, each process its share of the sequences. None if stopped within them."""
        sequences, world = self._sequences, self._world
        assert sequences is not None
        self._actor.eval()
        model, started = self._actor.model_for_saving(), time.perf_counter()
        totals: dict[str, list[float]] = {name: [0.0, 0] for name in sequences.names}
        self._log.start_progress(f"tracking {epoch}/{self._recipe.epochs}", len(sequences), 0)
        try:
            for first in range(0, len(sequences), world.size):  # in rounds: nobody waits longer than for one sequence
                if first + world.rank < len(sequences):
                    merge(totals, sequences.score(first + world.rank, model, self._device,
                                                  lambda: self._stop.requested))
                if world.any(self._stop.requested):
                    return None
                self._log.advance(min(world.size, len(sequences) - first))
        finally:
            self._log.end_progress()
        totals, _, _ = sum_up(totals, None, self._world)
        averages, good = means(totals), int(totals[sequences.names[0]][1])
        failed = f", {len(sequences) - good} failed" if good < len(sequences) else ""
        self._log.line(f"[track: {epoch}/{self._recipe.epochs}, {good} sequences{failed}] "
                       f"{format_duration(time.perf_counter() - started)}, {format_stats(averages)}")
        self._log.scalars("track", averages, epoch)
        return averages

    def _batches(self, loader: Loader, start: int, end: int, passes: int = 1) -> Iterator[list[dict]]:
        """The batches of steps `start` to `end` (not included), `passes` for each, until a process is asked to stop."""
        loader.skip(start * passes)
        iterator = iter(loader)
        for _ in range(start, end):
            try:
                with self._clock.waiting():
                    parts = list(itertools.islice(iterator, passes))
            except RuntimeError:  # the loader's own workers may have died of the signal that asks us to stop
                if not self._stop.requested:
                    raise
                parts = []
            else:
                if len(parts) < passes:
                    raise UserError(f"the loader ended before its {end * passes} batches; check the data sets")
            if self._world.any(self._stop.requested):
                return
            yield parts

    def _report(self, position: Position, steps: int, sums: StatSums) -> None:
        """Say how it goes: the epoch's averages as a line, those since the last report as points of the curves."""
        self._collect(position, steps, sums)
        epoch = position.epoch + 1
        rates = self._clock.lap()
        left = self._clock.remaining((self._recipe.epochs - epoch) * steps + steps - position.step)
        usage = self._clock.usage(self._clock.last)
        text, details = progress_text("train", epoch, self._recipe.epochs, position.step, steps, rates=rates,
                                      averages=means(position.sums), left=left, waiting=usage["DataWait"],
                                      lr=self._rate())
        if position.step == steps:
            self._log.line(text)
        else:
            self._log.progress(text, details)
        self._log.scalars("step", {**means(self._recent), "LearningRate": self._rate(), **usage},
                          position.epoch * steps + position.step)
        self._recent = {}

    def _collect(self, position: Position, steps: int, sums: StatSums) -> None:
        """Add what has been summed up to the epoch's totals, and end the run where a loss or gradient was no number."""
        totals, bad_step, rank = sum_up(*sums.take(), self._world)
        if bad_step is not None:
            epoch = position.epoch + 1
            raise UserError(f"the loss or its gradient became NaN or infinite in epoch {epoch}, step {bad_step + 1} of "
                            f"{steps} ({format_stats(means(totals))}); {self._keep_bad_batch(epoch, bad_step, rank)}. "
                            "Lower TRAIN.LR, raise TRAIN.WARMUP_EPOCH, check the boxes of the data, or turn TRAIN.AMP "
                            "off. The state saved before it is kept.")
        merge(position.sums, totals)
        merge(self._recent, totals)

    def _keep_bad_batch(self, epoch: int, step: int, rank: int) -> str:
        """Have the main process write the pairs of a step; says where they are, on every process."""
        text = ""
        if self._world.is_main:
            try:
                whose = "its pairs" if self._world.size == 1 else f"the pairs of process {rank}"
                text = f"{whose} are in {self._save_batch(epoch, step, rank)}"
            except UserError as error:
                text = f"its pairs could not be saved ({error})"
        return str(self._world.share(text))

    def _rate(self) -> float:
        return self._optimizer.param_groups[0]["lr"]

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self._recipe.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._recipe.amp)


def _pairs(batch: dict) -> int:
    """Number of pairs in a batch: the length of its tensors."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim)


def _due(epoch: int, interval: int, epochs: int) -> bool:
    """Whether something that happens every `interval` epochs (0: never) and after the last of `epochs` is due."""
    return interval > 0 and (epoch % interval == 0 or epoch == epochs)
