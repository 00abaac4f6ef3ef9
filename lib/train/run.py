"""One training run from a configuration: model, data, loop, checkpoints, and where to continue."""

import contextlib
import logging
import math
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ..config import Config
from ..families.build import build_for_train, find_pretrained
from ..families.objective import search_frames
from ..models.base import Inputs
from ..models.checkpoint import read_checkpoint, save_slim
from ..models.safe_load import write_tensors
from ..utils.device import torch_threads
from ..utils.errors import UserError
from ..utils.files import remove_unfinished, set_aside
from ..utils.ownership import own
from ..utils.signals import StopRequest, TrainingInterrupted
from ..utils.threads import usable_cpus
from .admin.logs import RunLog
from .admin.pictures import prediction_picture
from .batch import BatchPlan, describe_rule, plan_batch
from .data import build_loader
from .data.device import to_device
from .distributed import World, join_world, read_place
from .interfaces import Loader, TrackedSequences
from .learner import build_learner
from .run_paths import RunPaths
from .speed import cuda_products, resolve_precision
from .state import (
    TrainingState,
    frozen_checksum,
    list_states,
    load_net_state,
    load_state,
    net_state,
    newest_state,
    save_state,
)
from .trainer import Position, Recipe, Trainer

logger = logging.getLogger(__name__)

ALREADY_FINISHED = "already finished: {} (start anew with --resume none, train longer with --set TRAIN.EPOCH=N)"


def run_training(cfg: Config, save_dir: str | Path, *, resume: str | Path = "auto", device: str = "auto",
                 log_to_console: bool = True, use_wandb: bool = False,
                 sequences: TrackedSequences | None = None) -> Path:
    """Train what `cfg` describes, or go on with it, and return the final slim checkpoint.

    Runs in this process; under torchrun (RANK, WORLD_SIZE, LOCAL_RANK set) it is one of several. A run that is already
    finished returns at once. May be called again and again in one process.

    Args:
        save_dir: the outputs go below it: `checkpoints/train/<script>/<config>/`, `logs/`, `tensorboard/`.
        resume: `auto` (continue the newest readable state of this run, if any), `none` (start anew; earlier
            checkpoints of the run are moved aside), or the path of a state.
        device: `auto` (then TRAIN.DEVICE decides), `cpu`, `cuda` or `cuda:N`.
        log_to_console: progress on the console too; the log file is always written.
        use_wandb: report to Weights & Biases as well.
        sequences: of the validation by tracking, which TRAIN.TRACK_EPOCH_INTERVAL asks for (see `lib.pipeline`).

    Raises:
        UserError: missing data or weights, a state that does not fit, NaN loss, out of memory, a full disk, or a folder
            that cannot be written or that another run is writing.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved and the message says where.
    """
    if cfg.TRAIN.TRACK_EPOCH_INTERVAL and sequences is None:
        raise ValueError("TRAIN.TRACK_EPOCH_INTERVAL asks for a validation by tracking, but no sequences are given")
    paths = RunPaths.of(save_dir, cfg)
    finished = find_finished(cfg, paths, resume)
    if finished is not None:
        if log_to_console:
            logger.info("%s", ALREADY_FINISHED.format(finished))
        return finished
    rank, _, processes = read_place()
    batch = plan_batch(cfg, processes)  # before the processes meet
    with own(paths.checkpoints) if rank == 0 else contextlib.nullcontext():
        world, chosen = join_world(cfg.TRAIN.DEVICE if device == "auto" else device)
        try:
            with _global_settings(cfg, chosen), cuda_products(cfg, chosen), StopRequest() as stop:
                _Run(cfg, paths, world, chosen, batch, stop, sequences).execute(resume, log_to_console, use_wandb)
                world.wait()
        except (Exception, TrainingInterrupted) as error:
            world.close(failed=True)
            if isinstance(error, torch.OutOfMemoryError):
                raise UserError(describe_memory(cfg, batch, chosen)) from error
            raise
        world.close()
    return paths.slim(cfg.TRAIN.EPOCH)


def find_finished(cfg: Config, paths: RunPaths, resume: str | Path = "auto") -> Path | None:
    """The final slim checkpoint, if the run has nothing left to do."""
    final = paths.slim(cfg.TRAIN.EPOCH)
    if str(resume) != "auto" or not final.is_file():
        return None
    newest = newest_state(paths.checkpoints)
    if newest is None:
        return final
    validates = bool(cfg.DATA.VAL.DATASETS_NAME) or cfg.TRAIN.TRACK_EPOCH_INTERVAL > 0
    done = newest[1].validated if validates else newest[1].epoch
    return final if done >= cfg.TRAIN.EPOCH else None


def build_recipe(cfg: Config) -> Recipe:
    """The loop's part of a configuration without `auto` precision (`resolve_precision`)."""
    return Recipe(epochs=cfg.TRAIN.EPOCH, seed=cfg.TRAIN.SEED, clip_norm=cfg.TRAIN.GRAD_CLIP_NORM,
                  amp=getattr(torch, cfg.TRAIN.AMP_DTYPE) if cfg.TRAIN.AMP else None,
                  draws_per_process=cfg.COMPRESS.DRAWS == "process", print_interval=max(1, cfg.TRAIN.PRINT_INTERVAL),
                  val_interval=cfg.TRAIN.VAL_EPOCH_INTERVAL, track_interval=cfg.TRAIN.TRACK_EPOCH_INTERVAL,
                  save_interval=cfg.TRAIN.SAVE_STEP_INTERVAL)


def describe_memory(cfg: Config, batch: BatchPlan, device: torch.device) -> str:
    """What to do when the memory was not enough for a pass, with the total batch unchanged as far as that goes."""
    train = cfg.TRAIN
    settings = [f"TRAIN.{name}=true" for name in ("AMP", "CHECKPOINT_ACTIVATIONS") if not getattr(train, name)]
    if batch.size > 1:
        factor = next(factor for factor in range(2, batch.size + 1) if batch.size % factor == 0)
        parts = "" if train.TOTAL_BATCH else f"TRAIN.BATCH_SIZE={batch.size // factor} with "
        settings.append(f"{parts}TRAIN.ACCUMULATE={batch.accumulate * factor}")
    keep = f" Without changing the batch: --set {' or '.join(settings)}." if settings else ""
    return (f"out of memory on {device} with {batch.size} pairs per pass and process, {batch}.{keep} "
            f"Otherwise lower {'TRAIN.TOTAL_BATCH' if train.TOTAL_BATCH else 'TRAIN.BATCH_SIZE'} (see TRAIN.LR_RULE)")


def check_inputs(cfg: Config, processes: int = 1) -> None:
    """Raise `UserError` for missing weights or data sets, or a batch that so many processes cannot divide.

    Before any process is started or file written.
    """
    batch = plan_batch(cfg, processes)
    if cfg.MODEL.PRETRAIN_FILE or cfg.compresses:
        find_pretrained(cfg.MODEL.PRETRAIN_FILE, "MODEL.PRETRAIN_FILE")
    for split in ("train", "val") if cfg.DATA.VAL.DATASETS_NAME else ("train",):
        _draw_one(build_loader(cfg, split, seed=cfg.TRAIN.SEED, batch_size=batch.size, num_workers=0))


def _draw_one(loader: Loader) -> None:
    """Raise `UserError` now, not in the first step, where a loader has nothing to draw from."""
    loader.samples(1, [0])


MEASURED_PAIRS = 32
"""Training pairs on which COMPRESS.INIT influence measures the teacher's layers."""


class _Run:
    """The parts of one run, put together."""

    def __init__(self, cfg: Config, paths: RunPaths, world: World, device: torch.device, batch: BatchPlan,
                 stop: StopRequest, sequences: TrackedSequences | None) -> None:
        self._asked, self._paths, self._world, self._device, self._stop = cfg, paths, world, device, stop
        self._sequences, self._batch = sequences, batch
        self._cfg = cfg = resolve_precision(cfg, device)
        self._recipe = build_recipe(cfg)
        torch.manual_seed(cfg.TRAIN.SEED)  # the same initial weights on every process
        cores = usable_cpus()
        if world.is_main and cfg.TRAIN.NUM_WORKER > cores:
            logger.warning("TRAIN.NUM_WORKER is %d, but there are %d CPUs for this process: more workers than "
                           "CPUs cost memory and rarely load faster", cfg.TRAIN.NUM_WORKER, cores)
        self._train_loader = self._loader("train")
        self._val_loader = self._loader("val") if cfg.DATA.VAL.DATASETS_NAME else None
        learner = build_learner(cfg, build_for_train(cfg, self._first_frames), self._batch, world, device)
        self._net, self._actor, self._optimizer, self._learning_rate, self._scaler, self._average = learner
        self._checksum = frozen_checksum(self._net)
        self._changes: list[str] = []
        self._best = -math.inf
        self._log: RunLog  # while the run is executed

    def _loader(self, split: str) -> Loader:
        cfg = self._cfg
        loader = build_loader(cfg, split, seed=cfg.TRAIN.SEED, rank=self._world.rank, world_size=self._world.size,
                              batch_size=self._batch.size, num_workers=cfg.TRAIN.NUM_WORKER, device=self._device)
        _draw_one(loader)
        return loader

    def _first_frames(self) -> Iterator[Inputs]:
        """The first training pairs in small batches on the device, whatever the number of processes."""
        objective = self._cfg.family.objective(self._cfg)
        for first in range(0, MEASURED_PAIRS, 8):
            batch = to_device(self._train_loader.samples(1, range(first, first + 8)), self._device)
            frame = search_frames(batch)[0]
            yield Inputs.of(frame["template"], frame["search"], objective.further(batch, 1))

    def execute(self, resume: str | Path, log_to_console: bool, use_wandb: bool) -> None:
        """Resume, train to the end, write the final checkpoint."""
        cfg, paths, world = self._cfg, self._paths, self._world
        position, source = self._restore(resume)
        world.share_tensors([*self._net.state_dict().values(), *self._averaged_weights().values()])
        if world.is_main:
            paths.checkpoints.mkdir(parents=True, exist_ok=True)
            remove_unfinished(paths.checkpoints)
            self._asked.save(paths.checkpoints / "config.yaml")
        with RunLog(f"{cfg.script}/{cfg.name}", paths.log_file, paths.tensorboard, active=world.is_main,
                    console=log_to_console, wandb=cfg.to_dict() if use_wandb else None,
                    wandb_id=paths.wandb_id) as log:
            self._log = log
            log.line(self._headline(position, source))
            if self._changes:
                log.line(f"settings changed since {source.name} was written, so the run does not go on exactly as it "
                         f"would have: {'; '.join(self._changes)}")
            trainer = Trainer(self._recipe, self._actor, self._net, self._optimizer, self._learning_rate,
                              self._train_loader, self._val_loader, device=self._device, world=world, log=log,
                              stop=self._stop, batch=self._batch, scaler=self._scaler, save=self._save,
                              save_batch=self._save_batch, average=self._average, sequences=self._sequences,
                              keep_best=self._keep_best, draw=self._draw if cfg.TRAIN.PICTURES else None)
            if not trainer.run(position):
                raise self._interrupted(position)
            if world.is_main:
                if not paths.slim(self._recipe.epochs).is_file():  # stopped between the last state and this file
                    self._save_slim(self._recipe.epochs)
                log.line(f"finished: {paths.slim(self._recipe.epochs)}")

    def _headline(self, position: Position, source: Path | None) -> str:
        cfg = self._cfg
        trained = sum(parameter.numel() for parameter in self._net.parameters() if parameter.requires_grad)
        every = sum(parameter.numel() for parameter in self._net.parameters())
        amp = f"autocast {self._recipe.amp}".replace("torch.", "") if self._recipe.amp else "full precision"
        start = "from the start" if source is None else f"from epoch {position.epoch}, step {position.step} of {source}"
        rates = ", ".join(dict.fromkeys(f"{group['lr']:.3g}" for group in self._optimizer.param_groups))
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if restarts:
            start += f" (restart {restarts} of {os.environ['TORCHELASTIC_MAX_RESTARTS']})"
        return (f"{cfg.script}/{cfg.name} {start}: {trained / 1e6:.2f} M of {every / 1e6:.2f} M parameters train, "
                f"{self._recipe.epochs} epochs of {self._steps} steps, {self._batch}, learning rate {rates} "
                f"({describe_rule(cfg, self._batch.total)}), {self._device}, {amp}, seed {self._recipe.seed}")

    @property
    def _steps(self) -> int:
        """Optimiser steps of an epoch."""
        return self._batch.steps(len(self._train_loader))

    def _restore(self, resume: str | Path) -> tuple[Position, Path | None]:
        """Where to start, and the state that it comes from (loaded into model, optimiser and scaler)."""
        folder = self._paths.checkpoints
        loaded: tuple[Path, TrainingState] | None = None
        if self._world.is_main:
            if str(resume) == "auto":
                loaded = newest_state(folder)
            elif str(resume) != "none":
                path = Path(resume).expanduser().absolute()
                loaded = path, load_state(path)
        source = self._world.share(loaded[0] if loaded else None)
        state = loaded[1] if loaded else load_state(source) if source else None
        if self._world.is_main:
            set_aside(self._abandoned(source, state) if str(resume) != "auto" else self._unreadable(source))
        if state is None:
            return Position(), None
        position = self._load(state, source)
        if self._world.is_main:
            self._best = self._best_before(position, str(resume) != "auto")
        return position, source

    def _unreadable(self, source: Path | None) -> list[Path]:
        """The states that were passed over for `source`: as the newest they would take the place of those to come."""
        states = list_states(self._paths.checkpoints)
        if source is None:
            return self._abandoned(None, None) if states else []
        return states[:states.index(source)]

    def _abandoned(self, source: Path | None, state: TrainingState | None) -> list[Path]:
        """Checkpoints of this run that are not part of what continues from `source`: they would be found later."""
        states = list_states(self._paths.checkpoints)
        own = [source is not None and path.samefile(source) for path in states]
        if state is not None and any(own):
            return [*states[:own.index(True)], *self._paths.slim_checkpoints(state.epoch)]
        everything = [*states, *self._paths.slim_checkpoints(), self._paths.best]
        return everything if source else [*everything, self._paths.wandb_id]

    def _load(self, state: TrainingState, source: Path) -> Position:
        load_net_state(self._net, state.net, source)
        if state.frozen != self._checksum:
            raise UserError(f"{source} was trained with other frozen weights (the teacher) than "
                            f"MODEL.PRETRAIN_FILE {self._cfg.MODEL.PRETRAIN_FILE!r} gives now; "
                            "put the original file back, or start anew with --resume none")
        self._load_optimizer(state.optimizer, source)
        if state.scaler and self._scaler.is_enabled():
            self._scaler.load_state_dict(state.scaler)
        if self._average is not None:
            if state.average:
                self._average.load(state.average, source)
            else:
                self._average.restart()
        self._changes = self._changed_settings(state)
        step, steps = state.step, self._steps
        if step and steps != state.steps_per_epoch:
            step = step * steps // state.steps_per_epoch
            logger.warning("an epoch has %d steps now, not %d: going on at %d", steps, state.steps_per_epoch, step)
        return Position(state.epoch, step, {name: list(entry) for name, entry in state.sums.items()}, state.validated)

    def _load_optimizer(self, saved: dict, source: Path) -> None:
        """Take the moments from the state; rates, decay and kernel stay as configured."""
        configured_groups, groups = self._optimizer.state_dict()["param_groups"], saved.get("param_groups", [])
        if len(configured_groups) == len(groups):
            groups = [{**configured, "params": stored["params"]}
                      for configured, stored in zip(configured_groups, groups, strict=True)]
        try:
            self._optimizer.load_state_dict({**saved, "param_groups": groups})
        except (ValueError, KeyError) as error:
            raise UserError(f"{source} holds an optimiser of other parameters than the configuration asks for; "
                            "resume with the original configuration, or start anew with --resume none") from error
        for parameter, moments in self._optimizer.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:  # in the parameter's memory order, which TRAIN.CHANNELS_LAST sets
                    moments[name] = torch.empty_like(parameter).copy_(value)

    def _changed_settings(self, state: TrainingState) -> list[str]:
        """The settings that differ from those of the state."""
        old, new = _flatten(state.config), _flatten(self._cfg.to_dict())
        changed = [f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(old.keys() | new.keys())
                   if old.get(key) != new.get(key) and not key.startswith("TEST.")]
        if state.world_size != self._world.size:
            changed.append(f"processes {state.world_size} -> {self._world.size}")
            if not self._cfg.TRAIN.TOTAL_BATCH:
                batch = self._cfg.TRAIN.BATCH_SIZE
                changed.append(f"pairs per step {state.world_size * batch} -> {self._world.size * batch} (set "
                               "TRAIN.TOTAL_BATCH to keep their number)")
        return changed

    def _save(self, position: Position) -> None:
        """Write the training state and, where one is due, the slim checkpoint."""
        if not self._world.is_main:
            return
        cfg, epoch = self._cfg, position.epoch
        fresh = position.step == 0 and position.validated < epoch  # not once more after the validation
        if fresh and (epoch % cfg.TRAIN.SAVE_EPOCH_INTERVAL == 0 or epoch == cfg.TRAIN.EPOCH):
            self._save_slim(epoch)
        state = TrainingState(epoch=epoch, step=position.step, steps_per_epoch=self._steps,
                              world_size=self._world.size, net=net_state(self._net), frozen=self._checksum,
                              optimizer=self._optimizer.state_dict(), scaler=self._scaler.state_dict(),
                              sums=position.sums, config=cfg.to_dict(),
                              average=self._averaged_weights(), validated=position.validated)
        save_state(self._paths.checkpoints, state, cfg.TRAIN.KEEP_STATES)

    def _averaged_weights(self) -> dict[str, torch.Tensor]:
        """The average of the weights by name; empty where there is none."""
        return self._average.state() if self._average is not None else {}

    def _save_slim(self, epoch: int) -> None:
        with self._average.in_place() if self._average is not None else contextlib.nullcontext():
            save_slim(self._paths.slim(epoch), self._actor.model_for_saving(), self._cfg, {"epoch": epoch})

    def _save_batch(self, epoch: int, step: int, rank: int) -> Path:
        """Write the pairs that process `rank` saw in a step; they are loaded again, by their place in the run."""
        indices = self._batch.samples(rank, step)
        path = self._paths.bad_batch(epoch, step)
        content = {"epoch": epoch, "step": step + 1, "rank": rank, "indices": list(indices),
                   "batch": self._train_loader.samples(epoch, indices)}
        write_tensors(path, content)
        return path

    def _keep_best(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Write the best checkpoint if this is it: by the AUC of tracking where that is validated, else by the IoU."""
        score = scores.get(self._measure, math.nan)
        if not self._cfg.TRAIN.KEEP_BEST or not self._world.is_main or not score > self._best:
            return
        self._best = score
        save_slim(self._paths.best, self._actor.model_for_saving(), self._cfg,
                  {"epoch": epoch, "measure": self._measure, "score": score})
        self._log.line(f"best so far: {self._measure} {score:.4g} after epoch {epoch}, in {self._paths.best.name}")

    @property
    def _measure(self) -> str:
        return "AUC" if self._cfg.TRAIN.TRACK_EPOCH_INTERVAL else "IoU"

    def _best_before(self, position: Position, forked: bool) -> float:
        """The score to beat: that of the best checkpoint there is, if it was written before `position`.

        A later one comes from a way that is not gone on; the same validation will write it again, unless the run is
        `forked`: then it is set aside.
        """
        best = self._paths.best
        if not best.is_file():
            return -math.inf
        try:
            content = read_checkpoint(best)
        except UserError as error:
            logger.warning("skipped: %s", error)
            return -math.inf
        if content.get("epoch", math.inf) > position.epoch:
            if forked:
                set_aside([best])
            return -math.inf
        return content["score"] if content.get("measure") == self._measure else -math.inf

    def _draw(self, batch: dict, epoch: int) -> np.ndarray:
        """A picture of the first pairs of a batch, of their last search frames, with what the model says about them."""
        number, data = self._cfg.TRAIN.PICTURES, self._cfg.DATA
        frame, boxes = search_frames(batch)[-1], self._actor.predict(batch, epoch).boxes
        return prediction_picture(frame["search"][:number], frame["search_box"][:number], boxes[:number], data.MEAN,
                                  data.STD)

    def _interrupted(self, position: Position) -> TrainingInterrupted:
        """What to raise when a signal stopped the run (on any process)."""
        where = f"epoch {position.epoch} of {self._recipe.epochs}"
        if position.step:
            where += f" and {position.step} steps"
        return TrainingInterrupted(f"stopped after {where}; the state is saved in {self._paths.checkpoints}",
                                   self._stop.signum or signal.SIGTERM)


@contextlib.contextmanager
def _global_settings(cfg: Config, device: torch.device) -> Iterator[None]:
    """PyTorch's generators and number of threads belong to the run inside, and to the caller again after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch_threads(cfg.TRAIN.THREADS or None):
        yield


def _flatten(tree: dict, prefix: str = "") -> dict[str, object]:
    """`{"TRAIN": {"LR": 1}}` as `{"TRAIN.LR": 1}`."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
