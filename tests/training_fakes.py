"""A tiny network, actor and loader that stand for the real ones in tests of the training loop; real ones on noise."""

import math
from pathlib import Path

import torch
from tiny_models import scramble, tiny, tiny_batch
from torch import nn

import lib.train.learner as learner
import lib.train.run as run
from lib.config import load_config
from lib.families.build import build_compressor, build_tracker
from lib.train.actors import Prepared
from lib.train.admin.stats import StatSums
from lib.train.data.device import to_device
from lib.utils.files import atomic_write

WIDTH, BATCH, STEPS = 6, 4, 5


class TinyNet(nn.Module):
    """Two stages that may be skipped, dropout (PyTorch's own generator), BatchNorm (buffers) and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.drop, self.last = nn.BatchNorm1d(WIDTH), nn.Dropout(0.3), nn.Linear(WIDTH, 1)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)

    def forward(self, x, pattern):
        for stage, used in zip((self.first, self.second), pattern, strict=True):
            x = torch.tanh(stage(x)) if used else self.frozen(x)
        return self.last(self.drop(self.norm(x)))


class TinyActor:
    """Squared error; the stages are drawn from the step's generator, which is remembered."""

    def __init__(self, net, on_step=None):
        self.net, self.on_step, self.patterns = net, on_step, []

    @property
    def module(self):
        return getattr(self.net, "module", self.net)

    def train(self):
        self.net.train()

    def eval(self):
        self.net.eval()

    def counts(self, batch, epoch):
        return torch.ones(1)

    def prepare(self, batch, epoch):
        return Prepared(self.counts(batch, epoch))

    def draw(self, draws):
        return (torch.rand(2, generator=draws) < 0.5).tolist()

    def idle_parameters(self, epoch, draws):
        used = [any(stage) for stage in zip(*(self.draw(each) for each in draws), strict=True)]
        return [parameter for stage, ran in zip((self.net.first, self.net.second), used, strict=True) if not ran
                for parameter in stage.parameters()]

    def __call__(self, batch, epoch, draws, prepared):
        pattern = self.draw(draws)
        self.patterns.append((epoch, pattern))
        if self.on_step is not None:
            self.on_step(self, epoch, batch)
        loss = (self.net(batch["x"], pattern) - batch["y"]).square().mean() * batch["scale"]
        return loss, {"Loss/total": loss.detach(), "IoU": 1 / (1 + loss.detach()), "p": torch.tensor(0.5)}

    def validate(self, batch, epoch):
        return {"Loss/total": (self.net(batch["x"], (True, True)) - batch["y"]).square().mean()}

    def parameter_groups(self):
        return [{"params": [p for p in self.module.parameters() if p.requires_grad], "lr": 0.01}]

    def model_for_saving(self):
        return self.module


class TinyPairs:
    """Samples that depend on seed, epoch and index alone."""

    def __init__(self, seed):
        self.seed = seed

    def __getitem__(self, key):
        epoch, index = key
        generator = torch.Generator().manual_seed(self.seed * 10007 + epoch * 1009 + index)
        x = torch.randn(WIDTH, generator=generator)
        return {"x": x, "y": x.sum(0, keepdim=True)}


class TinyLoader:
    """Batches of `TinyPairs`; rank r of n takes every n-th pair. The loss of step `bad` (epoch, step) is NaN.

    An epoch has STEPS steps of the optimiser, each of `parts` batches.
    """

    def __init__(self, seed=0, rank=0, world_size=1, batch=BATCH, bad=None, parts=1):
        self.rank, self.world_size, self.batch, self.bad, self.parts = rank, world_size, batch, bad, parts
        self.epoch, self.skipped, self.pairs = None, 0, TinyPairs(seed)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def skip(self, batches):
        self.skipped = batches

    def to_device(self, batch, device):
        return to_device(batch, device)

    def samples(self, epoch, indices):
        samples = [self.pairs[epoch, index] for index in indices]
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def __len__(self):
        return STEPS * self.parts

    def __iter__(self):
        first, self.skipped = self.skipped, 0
        for number in range(first, STEPS * self.parts):
            step = number // self.parts
            indices = range(number * self.batch * self.world_size + self.rank,
                            (number + 1) * self.batch * self.world_size, self.world_size)
            scale = math.nan if (self.epoch, step) == self.bad else 1.0
            yield {**self.samples(self.epoch, indices), "scale": scale, "step": step}


def tiny_config(folder: Path, **overrides):
    """A real configuration for the fakes (they read none of its model keys)."""
    path = folder / "tiny.yaml"
    path.write_text("TRAIN: {EPOCH: 4, LR_DROP_EPOCH: 2, LR: 0.01, PRINT_INTERVAL: 2, VAL_EPOCH_INTERVAL: 2, "
                    "SAVE_EPOCH_INTERVAL: 2, BATCH_SIZE: 4, NUM_WORKER: 0, DEVICE: cpu, PICTURES: 0}\n"
                    "MODEL: {PRETRAIN_FILE: ''}\n")
    texts = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return load_config("compresstracker", str(path), texts)


# ---------------------------------------------------------------- the real models, on noise

class NoisePairs:
    """Crops and boxes of noise that depend on epoch and index alone."""

    def __init__(self, cfg):
        self.cfg = cfg

    def __getitem__(self, key):
        epoch, index = key
        return {name: value[0] for name, value in tiny_batch(self.cfg, size=1, seed=epoch * 1009 + index).items()}


class NoiseLoader(TinyLoader):
    """Batches of `NoisePairs`, divided as `TinyLoader` divides them; an epoch has SAMPLE_PER_EPOCH pairs."""

    def __init__(self, cfg, rank, world_size, batch):
        super().__init__(rank=rank, world_size=world_size, batch=batch)
        self.size, self.pairs = cfg.DATA.TRAIN.SAMPLE_PER_EPOCH, NoisePairs(cfg)

    def __len__(self):
        return self.size // (self.batch * self.world_size)

    def __iter__(self):
        first, self.skipped = self.skipped, 0
        for number in range(first, len(self)):
            start = number * self.batch * self.world_size
            indices = range(start + self.rank, start + self.batch * self.world_size, self.world_size)
            yield self.samples(self.epoch, indices)


def noise_config(kind="compresstracker", **overrides):
    """A tiny model of `tiny_models.BASES`, two epochs of three steps of eight pairs."""
    return tiny(kind, **({"TRAIN__TOTAL_BATCH": 8, "DATA__TRAIN__SAMPLE_PER_EPOCH": 24, "TRAIN__EPOCH": 2,
                          "TRAIN__LR": 0.01, "TRAIN__DEVICE": "cpu", "TRAIN__PRINT_INTERVAL": 1,
                          "TRAIN__VAL_EPOCH_INTERVAL": 2, "MODEL__BACKBONE__DEPTH": 4,
                          "MODEL__BACKBONE__DISTILL_LAYER": 2, "TRAIN__DROP_PATH_RATE": 0.3} | overrides))


def build_scrambled(cfg, frames=None):
    """What `cfg` trains, with weights that differ everywhere."""
    if cfg.script == "ostrack":
        return scramble(build_tracker(cfg), 2)
    net = build_compressor(cfg, load=False)
    scramble(net.teacher, 1)
    scramble(net.student, 2)
    return net


def fit(monkeypatch, folder, cfg, watch=True):
    """Train on noise; gives the final weights and (unless `watch` is False) the loss of each pass of this process."""
    losses = []

    def keep(self, loss, step):
        losses.append(loss.item())
        return watched(self, loss, step)

    watched = StatSums.watch
    with monkeypatch.context() as patch:
        if watch:
            patch.setattr(StatSums, "watch", keep)
        patch.setattr(run, "build_for_train", build_scrambled)
        patch.setattr(run, "build_loader", lambda cfg, split, *, seed, rank, world_size, batch_size, **rest:
                      NoiseLoader(cfg, rank, world_size, batch_size))
        path = run.run_training(cfg, folder, log_to_console=False)
    return torch.load(path, weights_only=True)["net"], losses


def tiny_training(monkeypatch, tmp_path):
    """Run the tiny training: `train(folder, on_step=..., bad=..., **config overrides)` gives weights and actor."""
    actors = []

    def go(folder="run", on_step=None, bad=None, resume="auto", **overrides):
        def save(path, model, cfg, extra):
            with atomic_write(path) as temporary:
                torch.save({"net": model.state_dict(), **extra}, temporary)

        def actor(cfg, net):
            actors.append(TinyActor(net, on_step))
            return actors[-1]

        monkeypatch.setattr(run, "build_for_train", lambda cfg, frames: TinyNet())
        monkeypatch.setattr(learner, "build_actor", actor)
        monkeypatch.setattr(run, "build_loader", lambda cfg, split, *, seed, rank, world_size, batch_size, **rest:
                            TinyLoader(seed, rank, world_size, batch_size, bad,
                                       parts=cfg.TRAIN.ACCUMULATE if split == "train" else 1))
        monkeypatch.setattr(run, "save_slim", save)
        cfg = tiny_config(tmp_path, **overrides)
        path = run.run_training(cfg, tmp_path / folder, resume=resume, log_to_console=False)
        return torch.load(path, weights_only=True)["net"], actors[-1] if actors else None

    go.folder = lambda name="run": tmp_path / name / "checkpoints" / "train" / "compresstracker" / "tiny"
    go.log = lambda name="run": (tmp_path / name / "logs" / "compresstracker-tiny.log").read_text()
    return go
