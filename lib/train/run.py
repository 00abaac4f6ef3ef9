"""One training run from a configuration: model, data, loop, checkpoints, and where to continue."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.config import Config
from lib.models.build import build_for_train, find_pretrained
from lib.models.checkpoint import save_slim
from lib.train.actors import build_actor
from lib.train.admin.logs import RunLog
from lib.train.data import build_loader
from lib.train.distributed import World, join_world, wrap_model
from lib.train.failures import TrainingInterrupted
from lib.train.schedule import build_learning_rate, build_optimizer
from lib.train.state import (
    TrainingState,
    frozen_checksum,
    list_states,
    load_net_state,
    load_state,
    net_state,
    newest_state,
    save_state,
)
from lib.train.trainer import Actor, Loader, Position, Recipe, Trainer
from lib.utils.errors import UserError
from lib.utils.files import set_aside
from lib.utils.signals import StopRequest

logger = logging.getLogger(__name__)

MODEL_NAMES = {"ostrack": "OSTrack", "compresstracker": "CompressTracker"}
"""Official names of the slim checkpoints, by script."""

ALREADY_FINISHED = "already finished: {} (start anew with --resume none, train longer with --set TRAIN.EPOCH=N)"


@dataclass(frozen=True)
class RunPaths:
    """Where a run's files are, in the official layout under `save_dir`."""

    save_dir: Path
    script: str
    config: str

    @property
    def checkpoints(self) -> Path:
        """Folder of the slim checkpoints, the training states and the resolved configuration."""
        return self.save_dir / "checkpoints" / "train" / self.script / self.config

    @property
    def log_file(self) -> Path:
        """The run's log."""
        return self.save_dir / "logs" / f"{self.script}-{self.config}.log"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.save_dir / "tensorboard" / "train" / self.script / self.config

    def slim(self, epoch: int) -> Path:
        """The slim checkpoint of an epoch."""
        return self.checkpoints / f"{MODEL_NAMES.get(self.script, self.script)}_ep{epoch:04d}.pth.tar"

    def slim_checkpoints(self) -> list[Path]:
        """All slim checkpoints there are."""
        return sorted(self.checkpoints.glob("*_ep*.pth.tar"))


def run_training(cfg: Config, save_dir: str | Path, *, resume: str | Path = "auto", device: str = "auto",
                 log_to_console: bool = True, use_wandb: bool = False) -> Path:
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

    Raises:
        UserError: missing data or weights, a state that does not fit, NaN loss, out of memory, full disk.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved and the message says how to go on.
    """
    paths = RunPaths(Path(save_dir).expanduser().absolute(), cfg.script, cfg.name)
    finished = find_finished(cfg, paths, resume)
    if finished is not None:
        if log_to_console:
            logger.info("%s", ALREADY_FINISHED.format(finished))
        return finished
    world, chosen = join_world(cfg.TRAIN.DEVICE if device == "auto" else device)
    with _global_settings(cfg, chosen), StopRequest() as stop:
        run = _Run(cfg, paths, world, chosen, stop)
        try:
            run.execute(resume, log_to_console, use_wandb)
        except torch.OutOfMemoryError as error:
            raise UserError(f"out of memory on {chosen} with TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} per process: "
                            "lower it, or turn TRAIN.AMP on") from error
        world.wait()
        world.close()
    return paths.slim(cfg.TRAIN.EPOCH)


def find_finished(cfg: Config, paths: RunPaths, resume: str | Path = "auto") -> Path | None:
    """The final slim checkpoint, if the run has nothing left to do."""
    final = paths.slim(cfg.TRAIN.EPOCH)
    if str(resume) != "auto" or not final.is_file():
        return None
    newest = newest_state(paths.checkpoints)
    return final if newest is None or newest[1].epoch >= cfg.TRAIN.EPOCH else None


def build_recipe(cfg: Config) -> Recipe:
    """The loop's part of the configuration."""
    return Recipe(epochs=cfg.TRAIN.EPOCH, seed=cfg.TRAIN.SEED, clip_norm=cfg.TRAIN.GRAD_CLIP_NORM,
                  amp=getattr(torch, cfg.TRAIN.AMP_DTYPE) if cfg.TRAIN.AMP else None,
                  draws_per_process=cfg.COMPRESS.DRAWS == "process", print_interval=max(1, cfg.TRAIN.PRINT_INTERVAL),
                  val_interval=cfg.TRAIN.VAL_EPOCH_INTERVAL)


def check_inputs(cfg: Config) -> None:
    """Raise `UserError` for missing weights or data sets, before any process is started or file written."""
    if cfg.MODEL.PRETRAIN_FILE or cfg.script == "compresstracker":
        find_pretrained(cfg.MODEL.PRETRAIN_FILE, "MODEL.PRETRAIN_FILE")
    for split in ("train", "val") if cfg.DATA.VAL.DATASETS_NAME else ("train",):
        _draw_one(build_loader(cfg, split, seed=cfg.TRAIN.SEED, batch_size=cfg.TRAIN.BATCH_SIZE, num_workers=0))


def _draw_one(loader: Loader) -> None:
    """Raise `UserError` now, not in the first step, where a loader has nothing to draw from."""
    loader.pairs[1, 0]


class _Run:
    """The parts of one run, put together."""

    def __init__(self, cfg: Config, paths: RunPaths, world: World, device: torch.device, stop: StopRequest) -> None:
        self._cfg, self._paths, self._world, self._device, self._stop = cfg, paths, world, device, stop
        self._recipe = build_recipe(cfg)
        torch.manual_seed(cfg.TRAIN.SEED)  # the same initial weights on every process
        self._train_loader = self._loader("train")
        self._val_loader = self._loader("val") if cfg.DATA.VAL.DATASETS_NAME else None
        self._net: nn.Module = build_for_train(cfg).to(device)
        wrapped = wrap_model(self._net, world, device, unused_parameters=cfg.script == "compresstracker")
        self._actor: Actor = build_actor(cfg, wrapped)
        self._optimizer = build_optimizer(cfg, self._actor.parameter_groups())
        self._learning_rate = build_learning_rate(cfg)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._recipe.amp is torch.float16)
        self._checksum = frozen_checksum(self._net)
        self._changes: list[str] = []

    def _loader(self, split: str) -> Loader:
        cfg = self._cfg
        loader = build_loader(cfg, split, seed=cfg.TRAIN.SEED, rank=self._world.rank, world_size=self._world.size,
                              batch_size=cfg.TRAIN.BATCH_SIZE, num_workers=cfg.TRAIN.NUM_WORKER)
        _draw_one(loader)
        return loader

    def execute(self, resume: str | Path, log_to_console: bool, use_wandb: bool) -> None:
        """Resume, train to the end, write the final checkpoint."""
        cfg, paths, world = self._cfg, self._paths, self._world
        position, source = self._restore(resume)
        if world.is_main:
            paths.checkpoints.mkdir(parents=True, exist_ok=True)
            cfg.save(paths.checkpoints / "config.yaml")
        with RunLog(f"{cfg.script}/{cfg.name}", paths.log_file, paths.tensorboard, active=world.is_main,
                    console=log_to_console, wandb=cfg.to_dict() if use_wandb else None) as log:
            log.line(self._headline(position, source))
            if self._changes:
                log.line(f"settings changed since {source.name} was written, so the run does not go on exactly as it "
                         f"would have: {'; '.join(self._changes)}")
            trainer = Trainer(self._recipe, self._actor, self._net, self._optimizer, self._learning_rate,
                              self._train_loader, self._val_loader, device=self._device, world=world, log=log,
                              stop=self._stop, scaler=self._scaler, save=self._save,
                              pairs_per_step=cfg.TRAIN.BATCH_SIZE * world.size)
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
        return (f"{cfg.script}/{cfg.name} {start}: {trained / 1e6:.2f} M of {every / 1e6:.2f} M parameters train, "
                f"{self._recipe.epochs} epochs of {len(self._train_loader)} steps, {self._world.size} x "
                f"{cfg.TRAIN.BATCH_SIZE} pairs per step, {self._device}, {amp}, seed {self._recipe.seed}")

    def _restore(self, resume: str | Path) -> tuple[Position, Path | None]:
        """Where to start, and the state that it comes from (loaded into model, optimiser and scaler)."""
        folder = self._paths.checkpoints
        found: tuple[Path, TrainingState] | None = None
        if self._world.is_main:
            if str(resume) == "auto":
                found = newest_state(folder)
            elif str(resume) != "none":
                path = Path(resume).expanduser().absolute()
                found = path, load_state(path)
        source = self._world.share(found[0] if found else None)
        state = found[1] if found else load_state(source) if source else None
        if self._world.is_main and str(resume) != "auto":
            set_aside(self._abandoned(source))
        if state is None:
            return Position(), None
        return self._load(state, source), source

    def _abandoned(self, source: Path | None) -> list[Path]:
        """Checkpoints of this run that are not part of what continues from `source`: they would be found later."""
        folder = self._paths.checkpoints
        states = list_states(folder)
        if source is None:
            return states + self._paths.slim_checkpoints()
        return states[:states.index(source)] if source in states else states

    def _load(self, state: TrainingState, source: Path) -> Position:
        load_net_state(self._net, state.net, source)
        if state.frozen != self._checksum:
            raise UserError(f"{source} was trained with other frozen weights (the teacher) than "
                            f"MODEL.PRETRAIN_FILE {self._cfg.MODEL.PRETRAIN_FILE!r} gives now; "
                            "put the original file back, or start anew with --resume none")
        options = [{key: value for key, value in group.items() if key not in ("params", "lr")}
                   for group in self._optimizer.param_groups]
        rates = [group["lr"] for group in self._optimizer.param_groups]
        try:
            self._optimizer.load_state_dict(state.optimizer)
        except (ValueError, KeyError) as error:
            raise UserError(f"{source} holds another optimiser than the configuration asks for ({error}); "
                            "resume with the original configuration, or start anew with --resume none") from error
        for group, option, rate in zip(self._optimizer.param_groups, options, rates, strict=True):
            group.update(option, lr=rate)  # the configuration decides, the state gives the moments
        if state.scaler and self._scaler.is_enabled():
            self._scaler.load_state_dict(state.scaler)
        self._changes = self._changed_settings(state)
        step, steps = state.step, len(self._train_loader)
        if step and steps != state.steps_per_epoch:
            step = step * steps // state.steps_per_epoch
            logger.warning("an epoch has %d steps now, not %d: going on at %d", steps, state.steps_per_epoch, step)
        return Position(state.epoch, step, {name: list(entry) for name, entry in state.sums.items()})

    def _changed_settings(self, state: TrainingState) -> list[str]:
        """The settings that differ from those of the state."""
        old, new = _flatten(state.config), _flatten(self._cfg.to_dict())
        changed = [f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(old.keys() | new.keys())
                   if old.get(key) != new.get(key) and not key.startswith("TEST.")]
        if state.world_size != self._world.size:
            changed.append(f"processes {state.world_size} -> {self._world.size}")
        return changed

    def _save(self, position: Position) -> None:
        """Write the training state and, where one is due, the slim checkpoint."""
        if not self._world.is_main:
            return
        cfg, epoch = self._cfg, position.epoch
        if position.step == 0 and epoch and (epoch % cfg.TRAIN.SAVE_EPOCH_INTERVAL == 0 or epoch == cfg.TRAIN.EPOCH):
            self._save_slim(epoch)
        state = TrainingState(epoch=epoch, step=position.step, steps_per_epoch=len(self._train_loader),
                              world_size=self._world.size, net=net_state(self._net), frozen=self._checksum,
                              optimizer=self._optimizer.state_dict(), scaler=self._scaler.state_dict(),
                              sums=position.sums, config=cfg.to_dict())
        save_state(self._paths.checkpoints, state, cfg.TRAIN.KEEP_STATES)

    def _save_slim(self, epoch: int) -> None:
        save_slim(self._paths.slim(epoch), self._actor.model_for_saving(), self._cfg, {"epoch": epoch})

    def _interrupted(self, position: Position) -> TrainingInterrupted:
        """What to raise when a signal stopped the run (on any process)."""
        where = f"epoch {position.epoch} of {self._recipe.epochs}"
        if position.step:
            where += f" and {position.step} steps"
        return TrainingInterrupted(f"stopped after {where}; the state is saved in {self._paths.checkpoints}. "
                                   "Run the same command again to go on.", self._stop.signum or signal.SIGTERM)


@contextlib.contextmanager
def _global_settings(cfg: Config, device: torch.device) -> Iterator[None]:
    """PyTorch's generators and number of threads belong to the run inside, and to the caller again after it."""
    threads = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if cfg.TRAIN.THREADS > 0:
            torch.set_num_threads(cfg.TRAIN.THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _flatten(tree: dict, prefix: str = "") -> dict[str, object]:
    """`{"TRAIN": {"LR": 1}}` as `{"TRAIN.LR": 1}`."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
