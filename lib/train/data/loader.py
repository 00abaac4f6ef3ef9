"""Batches of training pairs.

Sample i of epoch e depends on nothing but (seed, split, e, i): neither on the number of workers and processes nor on
what was drawn before. What differs from OSTrack's loader, and why:

- its samples come from global generators, so that a run cannot be repeated; here each sample has its own generator;
- validation draws the same pairs after every epoch, so that its curve shows the model and not the draw;
- validation keeps the last, smaller batch; training leaves it out as OSTrack does;
- an image that cannot be read is replaced by another draw, as there, but it is logged, and the search ends.
"""

import logging
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lib.train.admin.environment import env_settings
from lib.train.data.device import to_device
from lib.train.data.processing import PairProcessing
from lib.train.data.sampler import PairSampler
from lib.train.dataset import TrackingDataset, build_dataset
from lib.utils.errors import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
MAX_TRIES = 50
"""Draws for one sample before giving up."""

Key = tuple[int, int]
"""(epoch, index of the sample within it)"""


class Pairs(Dataset):
    """Samples by (epoch, index).

    Args:
        sampler: draws frames.
        processing: makes a sample of them.
        seed: of the whole run.
        split: "train" or "val".
    """

    def __init__(self, sampler: PairSampler, processing: PairProcessing, *, seed: int, split: str):
        self.sampler = sampler
        self.processing = processing
        self.seed = seed
        self.split = split
        self._unreadable: set[str] = set()

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """A sample as :class:`PairProcessing` makes it, with "dataset" (name) and "replaced" (draws whose image could
        not be read).

        Raises:
            UserError: 50 draws in a row gave no sample, or annotations are missing or wrong.
        """
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), *key])
        failures: list[str] = []
        for _ in range(MAX_TRIES):
            dataset, sequence, *frames = self.sampler.draw(rng)
            images = self._read(dataset, sequence, frames, failures)
            if images is None:
                continue
            boxes = dataset.annotation(sequence).boxes[frames]
            sample = self.processing(images[0], boxes[0], images[1], boxes[1], rng)
            if sample is not None:
                return {**sample, "dataset": dataset.name, "replaced": len(failures)}
        raise UserError(
            f"{MAX_TRIES} draws in a row gave no training pair: {len(failures)} had an image that cannot be read, the "
            "others a crop without content (box outside the frame, or a jitter too large). "
            + (f"Unreadable for instance: {'; '.join(sorted(set(failures))[:3])}" if failures else
               f"Last: sequence {sequence} of {dataset.name}, boxes {boxes.tolist()}")
        )

    def _read(
        self, dataset: TrackingDataset, sequence: int, frames: Sequence[int], failures: list[str]
    ) -> list[np.ndarray] | None:
        """The template's and the search region's frame; None, logged once per file, when one cannot be read."""
        images: dict[int, np.ndarray] = {}
        for frame in sorted(set(frames)):
            try:
                images[frame] = dataset.frame(sequence, frame)
            except UserError as error:
                path = dataset.frame_path(sequence, frame)
                if path not in self._unreadable:
                    self._unreadable.add(path)
                    logger.warning("%s; another pair is drawn instead", error)
                failures.append(path)
                return None
        return [images[frame] for frame in frames]


class Failure:
    """A `UserError` on its way from a worker to the main process, which raises it with the same message."""

    def __init__(self, message: str):
        self.message = message


class _Fetcher(Dataset):
    """`Pairs` whose user errors arrive as a `Failure` instead of a worker's traceback."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __getitem__(self, key: Key) -> dict[str, Any] | Failure:
        try:
            return self.pairs[key]
        except UserError as error:
            return Failure(str(error))


class _BatchKeys:
    """Keys of the batches of one rank: it takes every world_size-th sample, in order."""

    def __init__(self, samples: int, batch_size: int, rank: int, world_size: int, drop_last: bool):
        self.samples = samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.epoch = 0
        self.skipped = 0

    def __len__(self) -> int:
        if self.drop_last:
            return self.samples // (self.batch_size * self.world_size)
        return -(-len(range(self.rank, self.samples, self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        mine = range(self.rank, self.samples, self.world_size)
        first, self.skipped = self.skipped, 0
        for number in range(first, len(self)):
            yield [(self.epoch, i) for i in mine[number * self.batch_size : (number + 1) * self.batch_size]]


class Loader:
    """Iterates over the batches of an epoch.

    A batch is a dict: template (B, 3, h, w), search (B, 3, H, W) normalised float32; template_box, search_box (B, 4)
    xywh divided by the crop's side; dataset, a list of B names. See :func:`build_loader`.

    Attributes:
        pairs: the samples; ``loader.pairs[epoch, index]`` gives one.
        replaced: draws so far whose image could not be read.
    """

    def __init__(self, pairs: Pairs, samples: int, *, batch_size: int, rank: int, world_size: int, num_workers: int,
                 pin_memory: bool):
        self.pairs = pairs
        self.replaced = 0
        self._keys = _BatchKeys(samples, batch_size, rank, world_size, drop_last=pairs.split == "train")
        self._batches = DataLoader(
            _Fetcher(pairs), batch_sampler=self._keys, num_workers=num_workers, collate_fn=collate,
            pin_memory=pin_memory, persistent_workers=num_workers > 0, worker_init_fn=_start_worker,
        )

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration draws. Validation pairs are the same in every epoch."""
        if self.pairs.split == "train":
            self._keys.epoch = epoch

    def skip(self, batches: int) -> None:
        """Leave out the first `batches` batches of the next iteration (a run that goes on within an epoch)."""
        self._keys.skipped = batches

    def to_device(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """A batch of this loader, ready for the network: tensors on `device`, crops normalised float32."""
        return to_device(batch, device)

    def __len__(self) -> int:
        """Batches of an epoch on this rank. In training the same on every rank."""
        return len(self._keys)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            self.replaced += batch.pop("replaced")
            yield batch


def build_loader(cfg: Any, split: str, *, seed: int, rank: int = 0, world_size: int = 1, batch_size: int,
                 num_workers: int) -> Loader:
    """The loader of DATA.TRAIN or DATA.VAL.

    Args:
        cfg: configuration.
        split: "train" or "val".
        seed: of the run.
        rank, world_size: this process takes samples rank, rank + world_size, ...; the ranks' batches k together are
            the batch k of one process with world_size times the batch size.
        batch_size: of this process.
        num_workers: worker processes; 0 loads in this one.

    Raises:
        UserError: a data set is not there or cannot be used, an epoch has less than one batch, or the configuration
            asks for several templates or search frames.
    """
    part = cfg.DATA.TRAIN if split == "train" else cfg.DATA.VAL
    for key in ("TEMPLATE", "SEARCH"):
        if getattr(cfg.DATA, key).NUMBER != 1:
            raise UserError(f"DATA.{key}.NUMBER is {getattr(cfg.DATA, key).NUMBER}, but the tracker takes one")
    if split == "train" and part.SAMPLE_PER_EPOCH < batch_size * world_size:
        raise UserError(f"DATA.TRAIN.SAMPLE_PER_EPOCH ({part.SAMPLE_PER_EPOCH}) is less than one batch of "
                        f"{batch_size} on {world_size} process(es); raise it or lower TRAIN.BATCH_SIZE")
    env = env_settings()
    datasets = [build_dataset(name, env, cfg.DATA.STORAGE) for name in part.DATASETS_NAME]
    sampler = PairSampler(datasets, part.DATASETS_RATIO, cfg.DATA.SAMPLER_MODE, cfg.DATA.MAX_SAMPLE_INTERVAL)
    pairs = Pairs(sampler, PairProcessing.of(cfg, augment=split == "train"), seed=seed, split=split)
    if rank == 0:
        logger.info("%s data: %s", split, ", ".join(f"{d.name} ({len(d)})" for d in datasets))
    return Loader(pairs, part.SAMPLE_PER_EPOCH, batch_size=batch_size, rank=rank, world_size=world_size,
                  num_workers=num_workers, pin_memory=torch.cuda.is_available() and cfg.TRAIN.DEVICE != "cpu")


def collate(samples: Sequence[dict[str, Any] | Failure]) -> dict[str, Any] | Failure:
    """Stack samples to a batch; a failed one fails the batch."""
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
    batch: dict[str, Any] = {
        key: torch.stack([sample[key] for sample in samples])
        for key in ("template", "search", "template_box", "search_box")
    }
    batch["dataset"] = [sample["dataset"] for sample in samples]
    batch["replaced"] = sum(sample["replaced"] for sample in samples)
    return batch


def _start_worker(worker: int) -> None:
    """One thread per worker; Ctrl-C and SIGTERM are the main process's to handle (they may come to the whole group)."""
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
