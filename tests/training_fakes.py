"""A tiny network, actor and loader that stand for the real ones in tests of the training loop."""

import math
from pathlib import Path

import torch
from torch import nn

from lib.config import load_config
from lib.train.data.device import to_device

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

    def __call__(self, batch, epoch, draws):
        pattern = (torch.rand(2, generator=draws) < 0.5).tolist()
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


class TinyLoader:
    """Batches that depend on seed, epoch and index alone; rank r takes its share of each."""

    def __init__(self, seed=0, rank=0, world_size=1, batch=BATCH, bad=None):
        self.seed, self.rank, self.world_size, self.batch, self.bad = seed, rank, world_size, batch, bad
        self.epoch, self.skipped, self.pairs = None, 0, {(1, 0): None}

    def set_epoch(self, epoch):
        self.epoch = epoch

    def skip(self, batches):
        self.skipped = batches

    def to_device(self, batch, device):
        return to_device(batch, device)

    def __len__(self):
        return STEPS

    def __iter__(self):
        first, self.skipped = self.skipped, 0
        for step in range(first, STEPS):
            generator = torch.Generator().manual_seed(self.seed * 10007 + self.epoch * 101 + step)
            x = torch.randn(self.batch * self.world_size, WIDTH, generator=generator)[self.rank::self.world_size]
            scale = math.nan if (self.epoch, step) == self.bad else 1.0
            yield {"x": x, "y": x.sum(1, keepdim=True), "scale": scale, "step": step}


def tiny_config(folder: Path, **overrides):
    """A real configuration for the fakes (they read none of its model keys)."""
    path = folder / "tiny.yaml"
    path.write_text("TRAIN: {EPOCH: 4, LR_DROP_EPOCH: 2, LR: 0.01, PRINT_INTERVAL: 2, VAL_EPOCH_INTERVAL: 2, "
                    "SAVE_EPOCH_INTERVAL: 2, BATCH_SIZE: 4, NUM_WORKER: 0, DEVICE: cpu, PICTURES: 0}\n"
                    "MODEL: {PRETRAIN_FILE: ''}\n")
    texts = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return load_config("compresstracker", str(path), texts)
