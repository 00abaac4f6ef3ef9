"""How fast a configuration trains, beside the plain way, and beside what the device could do at best.

Both ways take real steps of the trainer, with random weights, in turn: the configured one, and the plain one, which is
float32, attention written out as matrix products, and, where the pairs come from JPEG files, the loader of the OSTrack
family (:class:`lib.train.profiling.loader.PlainPixels`).
"""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from ...config import FOLDER_PREFIX, Config
from ...deploy.rates import matrix_rate, memory_rate
from ...families.build import build_for_train
from ...models.compress.initialise import initialise_student
from ...models.compress.replacement import replacement_probability
from ...models.layers.plain_attention import write_out_attention
from ...utils.device import choose_dtype, pick_device, torch_threads
from ...utils.errors import UserError
from ...utils.files import resolve
from ...utils.local_files import VARIABLE_PREFIX
from ...utils.machine import describe_environment
from ...utils.parts import PartMarks, PartTimes
from ...utils.progress import Progress, progress
from ...utils.signals import StopRequest
from ..admin.environment import env_settings
from ..admin.logs import RunLog
from ..admin.stats import StatSums
from ..batch import plan_batch
from ..data import build_loader
from ..data.packing import Packing, Recipe
from ..data.processing import PairProcessing, numbers_of
from ..dataset import build_dataset
from ..distributed import World
from ..learner import build_learner
from ..run import build_recipe, describe_memory
from ..speed import cuda_products, resolve_precision
from ..trainer import Trainer
from .floor import optimizer_bytes, step_work
from .frames import render_frames
from .loader import PlainPixels

logger = logging.getLogger(__name__)

PARTS = ("wait", "input", "targets", "forward", "backward", "optimiser")
"""Waiting for the loader; moving and normalising; the teacher's pass; the mixed pass; its gradients; the update."""
RANDOM, RENDERED, CONFIGURED = "random", "rendered", "config"
"""Where pairs come from: one batch of noise; rendered JPEG frames; the configuration's data sets."""
_PLAIN = {"TRAIN.AMP": False, "TRAIN.TF32": False, "TRAIN.COMPILE": False, "TRAIN.FUSED_OPTIMIZER": False,
          "TRAIN.CHANNELS_LAST": False, "TRAIN.CHECKPOINT_ACTIVATIONS": False, "COMPRESS.TEACHER_DTYPE": "same",
          "COMPRESS.SHARE_PREFIX": False, "DATA.LOADER": "frames", "DATA.DECODER": "opencv",
          "DATA.SCALED_DECODE": False}
FRAMES = 200
"""Frames that are rendered."""
_DEFAULTS = {"cpu": (3, 1), "cuda": (40, 10)}  # steps of a round, and steps before that are not timed


class FixedBatch:
    """A loader that gives one random batch again and again, ready on the device: what is left is the step itself."""

    def __init__(self, cfg: Config, pairs: int, steps: int, device: torch.device):
        generator = torch.Generator().manual_seed(0)
        views = {"template": cfg.DATA.TEMPLATE, "search": cfg.DATA.SEARCH}
        self._batch: dict[str, Any] = {"dataset": [RANDOM] * pairs}
        for name, view in views.items():
            crops = torch.randn(pairs, view.NUMBER, 3, view.SIZE, view.SIZE, generator=generator).squeeze(1)
            boxes = torch.tensor([0.4, 0.4, 0.2, 0.2]).repeat(pairs, view.NUMBER, 1).squeeze(1)
            self._batch |= {name: crops.to(device), f"{name}_box": boxes.to(device)}
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self._batch

    def set_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def skip(self, batches: int) -> None:
        """The same at every place."""

    def to_device(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """It is there already."""
        return batch


class TrainingVariant:
    """One way to train, ready to take steps."""

    def __init__(self, cfg: Config, data: str, device: torch.device, plain: bool):
        self.cfg, self._device = cfg, device
        self.batch = plan_batch(cfg)
        torch.manual_seed(cfg.TRAIN.SEED)
        learner = build_learner(cfg, _network(cfg), self.batch, World(), device)
        if plain:
            write_out_attention(learner.net)
        self.net = learner.net
        self._steps = cfg.DATA.TRAIN.SAMPLE_PER_EPOCH // self.batch.total
        self._loader = _loader(cfg, data, self.batch.size, device, plain)
        self._trainer = Trainer(
            build_recipe(cfg), learner.actor, learner.net, learner.optimizer, learner.learning_rate, self._loader, None,
            device=device, world=World(), log=RunLog("profile", Path(), Path(), active=False), stop=StopRequest(),
            batch=self.batch, scaler=learner.scaler, average=learner.average, save=_nothing, save_batch=_nothing)
        self._epoch = 1 + cfg.TRAIN.EPOCH // 2  # where the share of the student's stages is its mean
        self._batches: Iterator[dict] = iter(())
        self._sums, self._timer = StatSums(device), PartMarks(device)
        self.seconds: list[float] = []
        self.parts: list[dict[str, float]] = []
        self._done = 0
        learner.actor.train()

    def round(self, steps: int, warm: int, shown: Progress) -> None:
        """Take `steps` timed steps after `warm` others, each `shown`."""
        self._take(warm, shown)
        self._timer.take()
        start = time.perf_counter()
        self._timer.mark("start")
        self._take(steps, shown)
        parts = self._timer.take()
        self.seconds.append((time.perf_counter() - start) / steps)
        self.parts.append({part: parts[part] / steps for part in PARTS})

    def _take(self, steps: int, shown: Progress) -> None:
        with cuda_products(self.cfg, self._device):
            for _ in range(steps):
                passes = [self._next() for _ in range(self.batch.accumulate)]
                self._timer.mark("wait")
                self._trainer.train_step(passes, self._epoch, self._done % self._steps, self._steps, self._sums,
                                         self._timer.mark)
                self._done += 1
                shown.advance()

    def _next(self) -> dict:
        """The loader's next batch; a new epoch begins where one ends."""
        for batch in self._batches:
            return batch
        self._loader.set_epoch(self._epoch)
        self._batches = iter(self._loader)
        return next(self._batches)

    @property
    def loss(self) -> float:
        """Mean total loss so far: a number, if the steps were real ones."""
        totals, _ = self._sums.take()
        return totals["Loss/total"][0] / totals["Loss/total"][1]


def _nothing(*_: Any) -> Any:
    """A profile leaves no files."""


def _network(cfg: Config) -> nn.Module:
    """What the configuration trains, with random weights. A student has its teacher's embedding and head as in
    training, because the embedding decides on what the two passes share."""
    net = build_for_train(cfg, load=False)
    if not cfg.compresses:
        return net
    initialise_student(net.student, net.teacher, sources=None, embed=cfg.COMPRESS.INIT != "mae",
                       head=cfg.COMPRESS.HEAD_INIT)
    if cfg.COMPRESS.SHARE_PREFIX:
        net.share_prefix()
    return net


def _loader(cfg: Config, data: str, pairs: int, device: torch.device, plain: bool) -> Any:
    if data == RANDOM:
        return FixedBatch(cfg, pairs, cfg.DATA.TRAIN.SAMPLE_PER_EPOCH // pairs, device)
    workers = cfg.TRAIN.NUM_WORKER
    if plain:
        pixels = PlainPixels(cfg.DATA.MEAN, cfg.DATA.STD, PartTimes(), numbers_of(cfg))
        return build_loader(cfg, "train", seed=cfg.TRAIN.SEED, batch_size=pairs, num_workers=workers, pixels=pixels,
                            device=device)
    return build_loader(cfg, "train", seed=cfg.TRAIN.SEED, batch_size=pairs, num_workers=workers, device=device)


def profile_training(cfg: Config, *, data: str = RANDOM, plain: bool = True, device: str = "auto", rounds: int = 3,
                     steps: int | None = None, warmup: int | None = None, threads: int | None = None,
                     work_dir: str | Path | None = None) -> dict[str, Any]:
    """Take steps of a configuration's training on one process and say how long they take.

    Args:
        cfg: the recipe with its batch; weights are random, so no checkpoint is needed.
        data: `random` (one batch, no loading), `rendered` (JPEG frames of 1280 x 720 pixels and 370 kB), `config` (the
            configuration's own data sets) or a folder of sequences.
        plain: take steps of the plain way too, in turn.
        device: auto, cpu, cuda or cuda:N.
        rounds: of every way, in turn.
        steps, warmup: timed and other steps of a round; None: 3 and 1 on a CPU, 40 and 10 on CUDA.
        threads: CPU threads of PyTorch; None leaves them as they are.
        work_dir: keeps rendered frames and crops packed of them; None uses a folder that is removed.

    Returns:
        A report that JSON can hold; :func:`report_text` makes it readable.

    Raises:
        UserError: a number out of range, no such device, missing data, or memory runs out.
    """
    target = pick_device(device)
    cfg = resolve_precision(cfg, target)
    default_steps, default_warmup = _DEFAULTS[target.type]
    steps, warmup = default_steps if steps is None else steps, default_warmup if warmup is None else warmup
    for name, value, low in (("rounds", rounds, 1), ("steps", steps, 1), ("warmup", warmup, 0),
                             ("threads", threads, 1)):
        if value is not None and value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    with tempfile.TemporaryDirectory() as temporary, torch_threads(threads):
        with _stored(cfg, data, Path(temporary if work_dir is None else work_dir).absolute()) as cfg:
            configs = {"configured": (cfg, False)}
            if plain:
                configs["plain"] = cfg.with_overrides(_PLAIN), True
            variants = _compete(configs, data, target, rounds, steps, warmup)
        rates = {str(dtype).removeprefix("torch."): matrix_rate(target, dtype)
                 for dtype in (torch.float32, getattr(torch, choose_dtype("auto", target, "")))}
        floor = _floor(cfg, variants["configured"], rates, memory_rate(target))
        return {"script": cfg.script, "config": cfg.name, "data": data, "rounds": rounds, "steps": steps,
                "environment": describe_environment(target), "batch": str(variants["configured"].batch),
                "loader": "none" if data == RANDOM else cfg.DATA.LOADER, "rates": rates, "floor": floor,
                "variants": {name: _describe(variant, variants.get("plain"), floor, rates)
                         for name, variant in variants.items()}}


def _compete(configs: Mapping[str, tuple[Config, bool]], data: str, device: torch.device, rounds: int, steps: int,
             warmup: int) -> dict[str, "TrainingVariant"]:
    """Let all configurations take their steps, in turn."""
    variants: dict[str, TrainingVariant] = {}
    try:
        for name, (config, plain) in progress(configs.items(), len(configs), "building", "models"):
            variants[name] = TrainingVariant(config, data, device, plain)
        with Progress(rounds * len(variants) * (steps + warmup), "training in turn", "steps") as shown:
            for number in range(rounds):
                for name in list(variants)[:: -1 if number % 2 else 1]:
                    variants[name].round(steps, warmup, shown)
    except torch.OutOfMemoryError as error:
        cfg = configs["configured"][0]
        raise UserError(describe_memory(cfg, plan_batch(cfg), device)) from error
    return variants


@contextlib.contextmanager
def _stored(cfg: Config, data: str, work: Path) -> Iterator[Config]:
    """The configuration with the data sets that `data` names; what is made for them lies in `work`."""
    if data in (RANDOM, CONFIGURED):
        yield cfg
        return
    folder = render_frames(work / "frames", count=FRAMES, width=1280, height=720, kilobytes=370) \
        if data == RENDERED else resolve(data, Path.cwd())
    name = f"{FOLDER_PREFIX}{folder}"
    cfg = cfg.with_overrides({"DATA.TRAIN.DATASETS_NAME": [name], "DATA.TRAIN.DATASETS_RATIO": [1]})
    places = {f"{VARIABLE_PREFIX}{field.upper()}_DIR": str(work / field) for field in ("index", "crops")}
    with mock.patch.dict(os.environ, places):
        if cfg.DATA.LOADER == "crops":
            env, processing = env_settings(), PairProcessing.of(cfg, augment=True)
            recipe = Recipe(name, processing.template, processing.search)
            Packing(recipe, build_dataset(name, env), env.crops_dir).run(cfg.TRAIN.NUM_WORKER, 0.0)
        yield cfg


def _floor(cfg: Config, variant: TrainingVariant, rates: dict[str, float], memory: float) -> dict[str, float]:
    """What a step cannot be faster than: its operations at the measured rate of matrices, its update's bytes at that of
    the memory."""
    probability = 1.0
    if cfg.compresses and cfg.TRAIN.SUP_REPLACE:
        compress = cfg.COMPRESS
        probability = float(np.mean([
            replacement_probability(epoch, cfg.TRAIN.EPOCH, compress.SCHEDULE, compress.P_INIT, compress.ALPHA1,
                                    compress.ALPHA2) for epoch in range(1, cfg.TRAIN.EPOCH + 1)]))
    operations = step_work(cfg).at(probability)
    size, total = optimizer_bytes(variant.net), variant.batch.total
    return {"student_share": probability, "operations_per_pair": operations, "update_bytes": float(size),
            "memory_rate": memory, "matrix_seconds": operations * total / max(rates.values()),
            "update_seconds": size / memory}


def _describe(variant: TrainingVariant, plain: TrainingVariant | None, floor: dict[str, float],
              rates: dict[str, float]) -> dict[str, Any]:
    cfg, total = variant.cfg, variant.batch.total
    seconds = float(np.median(variant.seconds))
    speed = total / seconds
    epochs_pairs = cfg.TRAIN.EPOCH * cfg.DATA.TRAIN.SAMPLE_PER_EPOCH
    achieved = speed * floor["operations_per_pair"]
    report: dict[str, Any] = {
        "precision": cfg.TRAIN.AMP_DTYPE if cfg.TRAIN.AMP else "float32", "pairs_per_second": speed,
        "step_ms": {"median": 1e3 * seconds,
                    **{part: 1e3 * float(np.median([parts[part] for parts in variant.parts])) for part in PARTS}},
        "operations_per_second": achieved, "utilisation": achieved / max(rates.values()), "loss": variant.loss,
        "hours": epochs_pairs / speed / 3600, "over_plain": None}
    if plain is not None:
        ratios = np.array(plain.seconds) / np.array(variant.seconds) * total / plain.batch.total
        report["over_plain"] = {"median": float(np.median(ratios)), "low": float(ratios.min()),
                                "high": float(ratios.max())}
    return report


def report_text(report: dict[str, Any]) -> str:
    """A report of `profile_training` as a table."""
    facts, floor, rates = report["environment"], report["floor"], report["rates"]
    best = max(rates, key=rates.get)
    lines = [
        f"{report['script']}/{report['config']}, data: {report['data']}, loader: {report['loader']}, {report['batch']}",
        f"{facts['device_name']} ({facts['device']}), {facts['threads']} CPU threads, torch "
        f"{facts['libraries']['torch']}; {report['rounds']} rounds of {report['steps']} steps, median",
        "", f"{'':12}{'pairs/s':>9}{'ratio':>7}{'step ms':>10}" + "".join(f"{part:>10}" for part in PARTS)
        + f"{'TFLOP/s':>9}{'MFU':>7}{'hours':>8}"]
    for name, way in report["variants"].items():
        ratio = f"{way['over_plain']['median']:.2f}" if way["over_plain"] else "-"
        lines.append(f"{name:12}{way['pairs_per_second']:9.1f}{ratio:>7}{way['step_ms']['median']:10.1f}"
                     + "".join(f"{way['step_ms'][part]:10.1f}" for part in PARTS)
                     + f"{way['operations_per_second'] / 1e12:9.3f}{100 * way['utilisation']:6.1f}%{way['hours']:8.1f}")
    rated = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items())
    lines += [
        "", f"hours: projected for all epochs of the configuration. MFU: of the measured {best} matrix rate ({rated}).",
        f"floor of a step: {1e3 * floor['matrix_seconds']:.1f} ms for {floor['operations_per_pair'] / 1e9:.1f} GFLOP a "
        f"pair (mean share of student stages {floor['student_share']:.2f}) at that rate, and "
        f"{1e3 * floor['update_seconds']:.1f} ms for the optimiser's {floor['update_bytes'] / 1e6:.0f} MB at "
        f"{floor['memory_rate'] / 1e9:.0f} GB/s"]
    return "\n".join(lines)
