"""Batches of training pairs.

Sample i of epoch e depends on nothing but (seed, split, e, i): neither on the number and kind of workers and processes
nor on what was drawn before. What differs from OSTrack's loader, and why:

- its samples come from global generators, so that a run cannot be repeated; here each sample has its own generator;
- validation draws the same pairs after every epoch, so that its curve shows the model and not the draw;
- validation keeps the last, smaller batch; training leaves it out as OSTrack does;
- an image that cannot be read is replaced by another draw, as there, but it is logged, counted, and the search ends.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...utils.crop import Normaliser
from ...utils.errors import UserError
from ..admin.environment import env_settings
from ..dataset import TrackingDataset, build_dataset
from .crops import PackedDataset, PackedPixels, open_packed
from .device import Upload, to_device
from .gpu import DevicePixels, Undecodable
from .pixels import VIEWS, FramePixels, Key, Pixels, Sample, Unreadable, by_view, too_many
from .processing import PairProcessing, numbers_of
from .sampler import PairSampler
from .workers import batches

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
MAX_TRIES = 50
"""Draws for one sample before giving up."""
NOWHERE = np.zeros(4, np.float32)
"""The box of a target that a crop does not show."""

_ONE_DRAWS = threading.Lock()  # the data sets keep what they read last; reading and decoding happen outside


class Pairs:
    """Samples by (epoch, index): a template and a search region, or as many of each as the configuration asks for.

    Args:
        sampler: draws frames.
        processing: draws how crops are made of them.
        pixels: makes the crops.
        seed: of the whole run.
        split: "train" or "val".
    """

    def __init__(self, sampler: PairSampler, processing: PairProcessing, pixels: Pixels, *, seed: int, split: str):
        self.sampler = sampler
        self.processing = processing
        self.pixels = pixels
        self.seed = seed
        self.split = split

    def __getitem__(self, key: Key) -> Sample:
        """A sample whose frames could be read.

        Raises:
            UserError: 50 draws in a row gave no sample, or annotations are missing or wrong.
        """
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), *key])
        failures: list[Unreadable] = []
        for _ in range(MAX_TRIES):
            with _ONE_DRAWS:
                dataset, sequence, frames, boxes = clip = self._clip(rng)
                negative = self.sampler.rule.negatives > 0 and rng.random() < self.sampler.rule.negatives
                other = self._clip(rng) if negative else clip
            if negative and other[:2] == clip[:2]:
                continue            # the same video: it may show the target
            state = rng.bit_generator.state
            try:
                pictures = self.pixels.open(dataset, sequence, frames)
                if negative:
                    templates = self.pixels.numbers[0]
                    pictures = [*pictures[:templates], *self.pixels.open(*other[:3])[templates:]]
                    boxes = np.concatenate([boxes[:templates], other[3][templates:]])
                sizes = [(frame.width, frame.height) for frame in pictures]
                params = self.processing(sizes, boxes, rng)
                payload = None if params is None else self.pixels.make(pictures, params)
                if negative and params is not None:
                    params = (*params[:templates], *(crop._replace(box_xywh=NOWHERE) for crop in params[templates:]))
            except Unreadable as error:
                rng.bit_generator.state = state  # the next draw is the same wherever the damage is noticed
                failures.append(error)
                continue
            if payload is not None:
                return Sample(key, dataset.name, params, payload, tuple(failures))
        raise UserError(
            f"{MAX_TRIES} draws in a row gave no training pair: {len(failures)} had an image that cannot be read, the "
            "others a crop without content (box outside the frame, or a jitter too large). "
            + (f"Unreadable for instance: {_examples(error.file for error in failures)}" if failures else
               f"Last: sequence {sequence} of {dataset.name}, boxes {boxes.tolist()}")
        )

    def _clip(self, rng: np.random.Generator) -> tuple[Any, int, list[int], np.ndarray]:
        """A data set, the number of a sequence, numbers of frames and their boxes (T + S, 4)."""
        dataset, sequence, *frames = self.sampler.draw(rng)
        return dataset, sequence, frames, dataset.annotation(sequence).boxes[frames]

    def exact(self) -> "Pairs":
        """The same samples with crops that are made of whole frames in this process."""
        pixels = FramePixels(self.processing.template.size, self.processing.search.size, self.pixels.numbers)
        return Pairs(self.sampler, self.processing, pixels, seed=self.seed, split=self.split)

    def batch(self, keys: Sequence[Key]) -> dict[str, Any]:
        """The samples of `keys` as a worker delivers them: what `pixels` collates; of all crops the boxes
        (B, T + S, 4) float32, xywh divided by the crop's side, and, in training, the gains (B, T + S) float32 of the
        brightness; dataset and failures, lists."""
        samples = [self[key] for key in keys]
        batch = {**self.pixels.collate(samples), "dataset": [sample.dataset for sample in samples],
                 "boxes": torch.from_numpy(np.array([[crop.box_xywh for crop in sample.params] for sample in samples])),
                 "failures": [(error.file, str(error)) for sample in samples for error in sample.failures]}
        if self.processing.augment:
            batch["gains"] = torch.tensor([[crop.light / 255.0 for crop in sample.params] for sample in samples],
                                          dtype=torch.float32)
        return batch


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
        indices = range(self.rank, self.samples, self.world_size)
        first, self.skipped = self.skipped, 0
        for number in range(first, len(self)):
            yield [(self.epoch, i) for i in indices[number * self.batch_size : (number + 1) * self.batch_size]]


class Loader:
    """Iterates over the batches of an epoch.

    What it yields is for :meth:`to_device`, which makes of it what the network takes. See :func:`build_loader`.

    Attributes:
        pairs: the samples.
        replaced: draws so far whose image could not be read.
    """

    def __init__(self, pairs: Pairs, samples: int, *, batch_size: int, rank: int, world_size: int, num_workers: int,
                 worker_kind: str, pin_memory: bool, copy_ahead: bool = True, normaliser: Normaliser,
                 max_unreadable: float):
        self.pairs = pairs
        self.replaced = 0
        self._draws = 0
        self._max_unreadable = max_unreadable
        self._unreadable: set[str] = set()
        self._normaliser = normaliser
        self._keys = _BatchKeys(samples, batch_size, rank, world_size, drop_last=pairs.split == "train")
        self._batches = batches(pairs.batch, self._keys, workers=num_workers, kind=worker_kind, pin=pin_memory)
        self._copy_ahead = copy_ahead and pairs.pixels.uploads
        self._device: torch.device | None = None
        self._stream: torch.cuda.Stream | None = None

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration draws. Validation pairs are the same in every epoch."""
        if self.pairs.split == "train":
            self._keys.epoch = epoch

    def skip(self, batches: int) -> None:
        """Leave out the first `batches` batches of the next iteration (a run that goes on within an epoch)."""
        self._keys.skipped = batches

    def to_device(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """A batch of this loader, ready for the network. It may be asked for again, unless it was copied ahead.

        With DATA.LOADER gpu, a batch with an image that turns out to be damaged only here is made again from frames in
        this process, where the sample is replaced as every loader replaces it; so is the content of `batch`.

        Returns:
            template (B, T, 3, h, w), search (B, S, 3, H, W) normalised float32; template_box (B, T, 4), search_box
            (B, S, 4) float32 xywh divided by the crop's side, all on `device`, without the second dimension where T or
            S is 1; dataset, a list of B names.
        """
        self._device = device
        upload = batch.get("upload")
        if upload is not None:
            batch = {**batch, **upload.take()}
        pairs = self.pairs.exact() if "exact" in batch else self.pairs
        try:
            crops = pairs.pixels.crops(batch, device)
        except Undecodable as error:
            logger.warning("%s; its batch is made from frames on the CPU", error)
            pairs = pairs.exact()
            again = pairs.batch(batch["keys"])
            self._count(again.pop("failures"), 0)
            batch.clear()
            batch.update(again, exact=True)
            crops = pairs.pixels.crops(batch, device)
        numbers = pairs.pixels.numbers
        boxes = by_view(to_device(batch["boxes"], device), numbers)
        gains = by_view(to_device(batch["gains"], device), numbers) if "gains" in batch else (None, None)
        ready: dict[str, Any] = {"dataset": batch["dataset"]}
        for view, crop, box, gain in zip(VIEWS, crops, boxes, gains, strict=True):
            ready[view] = crop if pairs.pixels.normalised else self._normaliser(crop, gain)
            ready[f"{view}_box"] = box
        return ready

    def samples(self, epoch: int, indices: Sequence[int]) -> dict[str, Any]:
        """Samples of an epoch by their index, made in this process: a batch as `to_device` gives it, on the CPU."""
        batch = self.pairs.batch([(epoch, index) for index in indices])
        return self.to_device(batch, torch.device("cpu"))

    def __len__(self) -> int:
        """Batches of an epoch on this rank. In training the same on every rank."""
        return len(self._keys)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises `UserError` for what :class:`Pairs` raises, for a dead worker, and where more than
        DATA.MAX_UNREADABLE of the draws had an unreadable image."""
        return self._ahead(self._received())

    def _received(self) -> Iterator[dict[str, Any]]:
        """The workers' batches, their failures logged once per file and counted."""
        for batch in self._batches:
            self._count(batch.pop("failures"), len(batch["dataset"]))
            yield batch

    def _count(self, failures: Sequence[tuple[str, str]], pairs: int) -> None:
        """Log unreadable files, once each, and raise where they are too many for the draws of so many more `pairs`."""
        for file, message in failures:
            if file not in self._unreadable:
                self._unreadable.add(file)
                logger.warning("%s; another pair is drawn instead", message)
        self.replaced += len(failures)
        self._draws += pairs + len(failures)
        if too_many(self.replaced, self._draws, self._max_unreadable):
            raise UserError(
                f"{self.replaced} of {self._draws} draws ({self.replaced / self._draws:.1%}) had an image that cannot "
                f"be read; DATA.MAX_UNREADABLE allows {self._max_unreadable:.1%}. Copy or extract the files again, or "
                f"raise the limit. For instance: {_examples(self._unreadable)}")

    def _ahead(self, received: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same batches; once a CUDA device is known, the next one's copy to it begins before one is handed out."""
        waiting: dict[str, Any] | None = None
        for batch in received:
            if self._device is not None and self._device.type == "cuda" and self._copy_ahead:
                if self._stream is None:
                    self._stream = torch.cuda.Stream(self._device)
                tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
                batch["upload"] = Upload(tensors, self._device, self._stream)
                if waiting is not None:
                    yield waiting
                waiting = batch
            else:
                yield batch
        if waiting is not None:
            yield waiting


def build_loader(cfg: Any, split: str, *, seed: int, rank: int = 0, world_size: int = 1, batch_size: int,
                 num_workers: int, pixels: Pixels | None = None, device: torch.device | None = None) -> Loader:
    """The loader of DATA.TRAIN or DATA.VAL.

    Args:
        cfg: configuration.
        split: "train" or "val".
        seed: of the run.
        rank, world_size: this process takes samples rank, rank + world_size, ...; the ranks' batches k together are
            the batch k of one process with world_size times the batch size.
        batch_size: of this process.
        num_workers: workers of the kind TRAIN.WORKER_KIND; 0 loads in this process.
        pixels: makes the crops, of whole frames; None is what DATA.LOADER asks for.
        device: where the batches go; None where none is used.

    Raises:
        UserError: a data set (or, with DATA.LOADER crops, its packed crops) is not there or cannot be used, an epoch
            has less than one batch, or the device cannot do what DATA.LOADER asks it for.
    """
    data = cfg.DATA
    part = data.TRAIN if split == "train" else data.VAL
    if split == "train" and part.SAMPLE_PER_EPOCH < batch_size * world_size:
        raise UserError(f"DATA.TRAIN.SAMPLE_PER_EPOCH ({part.SAMPLE_PER_EPOCH}) is less than one batch of "
                        f"{batch_size} on {world_size} process(es); raise it or lower TRAIN.BATCH_SIZE")
    processing = PairProcessing.of(cfg, augment=split == "train")
    datasets = open_datasets(cfg, split)
    sampler = PairSampler(datasets, part.DATASETS_RATIO, cfg.family.clips(cfg))
    pairs = Pairs(sampler, processing, pixels or build_pixels(cfg, device), seed=seed, split=split)
    if rank == 0:
        logger.info("%s data: %s", split, ", ".join(f"{d.name} ({len(d)})" for d in datasets))
    return Loader(pairs, part.SAMPLE_PER_EPOCH, batch_size=batch_size, rank=rank, world_size=world_size,
                  num_workers=num_workers, worker_kind=cfg.TRAIN.WORKER_KIND,
                  pin_memory=device is not None and device.type == "cuda",
                  copy_ahead=cfg.TRAIN.ACCUMULATE == 1,  # else the crops of all passes would be on the device at once
                  normaliser=Normaliser(data.MEAN, data.STD), max_unreadable=data.MAX_UNREADABLE)


def open_datasets(cfg: Any, split: str) -> list[TrackingDataset | PackedDataset]:
    """The data sets of DATA.TRAIN or DATA.VAL, in the form that DATA.LOADER reads.

    Raises:
        UserError: one (or its packed crops) is not there or cannot be used.
    """
    env, data = env_settings(), cfg.DATA
    names = (data.TRAIN if split == "train" else data.VAL).DATASETS_NAME
    if data.LOADER != "crops":
        return [build_dataset(name, env, data.STORAGE) for name in names]
    processing = PairProcessing.of(cfg, augment=split == "train")
    return [open_packed(name, env.crops_dir, (processing.template, processing.search)) for name in names]


def build_pixels(cfg: Any, device: torch.device | None = None) -> Pixels:
    """How the crops are made, by DATA.LOADER, on the way to `device`."""
    data = cfg.DATA
    sizes, numbers = (data.TEMPLATE.SIZE, data.SEARCH.SIZE), numbers_of(cfg)
    if data.LOADER == "crops":
        return PackedPixels(*sizes, numbers)
    if data.LOADER == "gpu":
        return DevicePixels(*sizes, device, numbers)
    return FramePixels(*sizes, numbers, decoder=data.DECODER, scaled=data.SCALED_DECODE)


def _examples(files: Iterable[str]) -> str:
    return "; ".join(sorted(set(files))[:3])
