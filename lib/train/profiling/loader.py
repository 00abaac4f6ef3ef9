"""How many training pairs per second one core makes, by each loader, beside the plain variant of the OSTrack family.

Each variant runs alone in this process with one thread; all make the same pairs in turn, round after round, so that a
slow phase of the machine hits all of them. The plain variant is written anew here to be compared with: both frames
decoded whole by OpenCV, colours reordered, grey and mirroring on the whole frame, crop with its mask, augmentation and
normalisation in float on the CPU (lib/train/data/{image_loader,transforms,processing_utils}.py of the OSTrack
repository).
"""

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ...config import FOLDER_PREFIX, Config
from ...utils.crop import Normaliser
from ...utils.device import pick_device, synchronize, torch_threads
from ...utils.errors import UserError
from ...utils.parts import PartTimes
from ...utils.progress import progress
from ..data.crops import PackedPixels, open_packed
from ..data.decode import Picture, find_turbojpeg
from ..data.device import to_device
from ..data.gpu import DevicePixels
from ..data.loader import Loader, Pairs
from ..data.packing import Packing, Recipe
from ..data.pixels import VIEWS, FramePixels, Key, Pixels, Sample, by_view, views_of
from ..data.processing import CropParams, Numbers, PairProcessing, numbers_of
from ..data.sampler import PairSampler
from ..dataset import TrackingDataset, build_dataset
from .frames import render_frames

logger = logging.getLogger(__name__)

PLAIN = "plain"
BATCH = 16
WARM, MEASURED = 3, 12
"""Batches of each worker before the measuring of several workers begins, and until it ends."""
PARTS = ("read", "decode", "crop", "rest")
"""Reading files; decoding; what is done with the pixels then; drawing, headers, collating."""


class PlainPixels(Pixels):
    """Crops as OSTrack's loader makes them: on the CPU, in float, of whole frames."""

    normalised = True

    def __init__(self, mean: Sequence[float], std: Sequence[float], watch: PartTimes, numbers: Numbers = (1, 1)):
        super().__init__(numbers)
        self._mean, self._std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, std))
        self._watch = watch

    def open(self, dataset: TrackingDataset, sequence: int, frames: Sequence[int]) -> list[Picture]:
        pictures = []
        for frame in frames:
            data = dataset.encoded(sequence, frame)
            with self._watch.measure("decode"):
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                pictures.append(_Whole(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
        return pictures

    def make(self, frames: Sequence["_Whole"], params: Sequence[CropParams]) -> list[Tensor]:
        with self._watch.measure("crop"):
            return [self._crop(frame.image, crop) for frame, crop in zip(frames, params, strict=True)]

    def _crop(self, image: np.ndarray, crop: CropParams) -> Tensor:
        square = crop.square
        if crop.gray:
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            image = np.stack([gray, gray, gray], axis=2)
        if crop.mirror:
            image = np.fliplr(image).copy()
            square = square.mirrored(image.shape[1])
        left, top, right, bottom = square.padding
        first, upper, last, lower = square.inside
        padded = cv2.copyMakeBorder(image[upper:lower, first:last], top, bottom, left, right, cv2.BORDER_CONSTANT)
        mask = np.ones((square.side, square.side))
        mask[top : square.side - bottom, left : square.side - right] = 0
        resized = cv2.resize(padded, (crop.size, crop.size))
        mask = cv2.resize(mask, (crop.size, crop.size)).astype(bool)  # not used here, but part of its work
        values = torch.from_numpy(resized.transpose(2, 0, 1)).float()
        values = values / 255 if crop.light is None else values.mul(crop.light / 255.0).clamp(0.0, 1.0)
        if crop.flip:
            values = values.flip(2)
            mask = mask[:, ::-1]
        return values.sub(self._mean).div(self._std)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        views = views_of(self.numbers)
        crops = {view: torch.stack([crop for sample in samples for kind, crop in zip(views, sample.payload, strict=True)
                                    if kind == view]) for view in VIEWS}
        return {view: stacked.unflatten(0, (len(samples), -1)).squeeze(1) for view, stacked in crops.items()}

    def crops(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """Normalised already, float32."""
        return batch["template"].to(device), batch["search"].to(device)


class _Whole:
    """A decoded frame."""

    def __init__(self, image: np.ndarray):
        self.image = image
        self.height, self.width = image.shape[:2]


class _TimedDataset:
    """A data set whose reading is timed."""

    def __init__(self, dataset: Any, watch: PartTimes):
        self._dataset, self._watch = dataset, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def encoded(self, *place: Any) -> bytes | None:
        with self._watch.measure("read"):
            return self._dataset.encoded(*place)


class _TimedPicture(Picture):
    """A picture whose decoding is timed."""

    def __init__(self, picture: Picture, watch: PartTimes):
        self._picture, self._watch = picture, watch
        self.name, self.width, self.height = picture.name, picture.width, picture.height

    def region(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        with self._watch.measure("decode"):
            return self._picture.region(left, top, right, bottom)

    def shrunk(self, factor: int) -> "Picture | None":
        small = self._picture.shrunk(factor)
        return None if small is None else _TimedPicture(small, self._watch)


def _timed(kind: type[Pixels], watch: PartTimes) -> type[Pixels]:
    """`kind` with its pictures and its work on them timed."""

    class Timed(kind):
        def _picture(self, *place: Any) -> Picture:
            return _TimedPicture(super()._picture(*place), watch)

        def make(self, frames: Sequence[Any], params: Sequence[CropParams]) -> Any:
            with watch.measure("crop"):
                return super().make(frames, params)

    return Timed


class LoaderVariant:
    """One loader on one core."""

    def __init__(self, pairs: Pairs, cfg: Config, watch: PartTimes):
        self._pairs, self.watch = pairs, watch
        self._normaliser = Normaliser(cfg.DATA.MEAN, cfg.DATA.STD)
        self.std = torch.tensor(cfg.DATA.STD).view(3, 1, 1)
        self.rates: list[float] = []

    def round(self, pairs: int) -> None:
        """Make `pairs` pairs and note the pairs per second."""
        start = time.perf_counter()
        for first in range(0, pairs, BATCH):
            self._pairs.batch([(0, index) for index in range(first, min(pairs, first + BATCH))])
        self.rates.append(pairs / (time.perf_counter() - start))

    def milliseconds(self, pairs: int) -> dict[str, float]:
        """Milliseconds of each of `PARTS` per pair, over all rounds of `pairs` so far."""
        total = sum(pairs / rate for rate in self.rates)
        parts = {part: self.watch.total(part) for part in PARTS[:-1]}
        parts["rest"] = total - sum(parts.values())
        return {part: 1000 * seconds / (pairs * len(self.rates)) for part, seconds in parts.items()}

    def crops(self, keys: Sequence[Key]) -> tuple[list[Tensor], Tensor]:
        """Template and search crops as the network takes them, and the boxes (B, T + S, 4)."""
        batch = self._pairs.batch(keys)
        return self._finish(batch, torch.device("cpu")), batch["boxes"]

    def device_milliseconds(self, keys: Sequence[Key], device: torch.device, rounds: int) -> float:
        """Milliseconds per pair of what is done on `device`: the median over `rounds`."""
        batch, seconds = self._pairs.batch(keys), []
        for _ in range(rounds + 1):  # the first one is not counted
            synchronize(device)
            start = time.perf_counter()
            self._finish(batch, device)
            synchronize(device)
            seconds.append(time.perf_counter() - start)
        return float(1000 * np.median(seconds[1:]) / len(keys))

    def workers_rate(self, workers: int, kind: str, device: torch.device) -> float:
        """Pairs per second of the whole loader with several workers, as `device` gets them."""
        count = MEASURED * workers
        loader = Loader(self._pairs, count * BATCH, batch_size=BATCH, rank=0, world_size=1, num_workers=workers,
                        worker_kind=kind, pin_memory=device.type == "cuda", normaliser=self._normaliser,
                        max_unreadable=0.0)
        for number, batch in enumerate(loader):
            loader.to_device(batch, device)
            if number == WARM * workers:
                synchronize(device)
                start = time.perf_counter()
        synchronize(device)
        return (count - WARM * workers - 1) * BATCH / (time.perf_counter() - start)

    def _finish(self, batch: dict[str, Any], device: torch.device) -> list[Tensor]:
        crops = self._pairs.pixels.crops(batch, device)
        if self._pairs.pixels.normalised:
            return list(crops)
        gains = by_view(to_device(batch["gains"], device), self._pairs.pixels.numbers)
        return [self._normaliser(crop, gain) for crop, gain in zip(crops, gains, strict=True)]


def profile_loader(cfg: Config, *, frames: str | None = None, count: int = 100, width: int = 1280, height: int = 720,
                   kilobytes: int = 370, pairs: int = 64, rounds: int = 5, work_dir: str | Path | None = None,
                   device: str = "auto", workers: int = 0) -> dict[str, Any]:
    """Measure every loader on one core, what it leaves to the device, and with several workers if asked.

    Args:
        cfg: the recipe; its data sets are not used.
        frames: a folder of sequences (as ``FOLDER:`` in the yaml); None renders some.
        count, width, height, kilobytes: of the rendered frames.
        pairs: per round.
        rounds: of every variant, in turn.
        work_dir: where rendered frames and packed crops go and stay; None uses a folder that is removed.
        device: cpu, cuda, cuda:N or auto: where the device's part is done.
        workers: of the kind TRAIN.WORKER_KIND for the whole loaders; 0 leaves these out.

    Returns:
        A report that JSON can hold; :func:`report_text` makes it readable.

    Raises:
        UserError: `frames` is no folder of sequences, a number is out of range, or there is no such device.
    """
    target = pick_device(device)
    for name, value, low in (("pairs", pairs, 1), ("rounds", rounds, 1), ("count", count, 1), ("workers", workers, 0)):
        if value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    cv_threads = cv2.getNumThreads()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary if work_dir is None else work_dir).absolute()
        if frames is None:
            frames = str(render_frames(work / f"frames-{width}x{height}-{kilobytes}kB", count=count, width=width,
                                       height=height, kilobytes=kilobytes))
        try:
            cv2.setNumThreads(0)
            with torch_threads(1):
                return _measure(cfg, f"{FOLDER_PREFIX}{frames}", work, pairs, rounds, target, workers)
        finally:
            cv2.setNumThreads(cv_threads)


def _measure(cfg: Config, name: str, work: Path, pairs: int, rounds: int, device: torch.device, workers: int
             ) -> dict[str, Any]:
    dataset = build_dataset(name, None)
    processing = PairProcessing.of(cfg, augment=True)
    recipe = Recipe(name, processing.template, processing.search)
    packing = Packing(recipe, dataset, work)
    packing.run(0, 0.0)
    packed = open_packed(name, work, (processing.template, processing.search))
    variants = _variants(cfg, dataset, packed, processing, device)
    for variant in progress(variants.values(), len(variants), "warm-up", "loaders"):
        variant.round(min(pairs, BATCH))  # not counted: caches fill
        variant.rates.clear()
        variant.watch.seconds.clear()
    in_turn = [variant for number in range(rounds) for variant in list(variants.values())[:: 1 if number % 2 else -1]]
    for variant in progress(in_turn, len(in_turn), "timing loaders in turn", "rounds"):
        variant.round(pairs)
    keys = [(0, index) for index in range(BATCH)]
    entries = {key: _describe(variant, variants[PLAIN], pairs) for key, variant in variants.items()}
    for key, variant in progress(variants.items(), len(variants), "timing the device's part", "loaders"):
        entries[key]["device_milliseconds"] = variant.device_milliseconds(keys, device, rounds)
        if workers and key != PLAIN:
            entries[key]["workers_pairs_per_second"] = variant.workers_rate(workers, cfg.TRAIN.WORKER_KIND, device)
    files = [len(dataset.encoded(sequence, 0) or b"") for sequence in range(len(dataset))]
    size = dataset.frame(0, 0).shape
    return {
        "frames": {"data": name, "width": size[1], "height": size[0], "kilobytes": round(np.mean(files) / 1000, 1)},
        "recipe": {"template": processing.template._asdict(), "search": processing.search._asdict()},
        "pairs": pairs, "rounds": rounds, "device": str(device), "workers": workers, "kind": cfg.TRAIN.WORKER_KIND,
        "partial_decode": getattr(find_turbojpeg(), "path", None),
        "crops": {"kilobytes_per_frame": round(sum(f.stat().st_size for f in packing.folder.glob("*.bin")) / 1000
                                               / packing.frames, 1)},
        "variants": entries,
    }


def _variants(cfg: Config, dataset: TrackingDataset, packed: Any, processing: PairProcessing, device: torch.device
              ) -> dict[str, LoaderVariant]:
    sizes, numbers = (processing.template.size, processing.search.size), numbers_of(cfg)
    data, rule = cfg.DATA, cfg.family.clips(cfg)

    def variant(source: Any, make_pixels: Any) -> LoaderVariant:
        watch = PartTimes()
        sampler = PairSampler([_TimedDataset(source, watch)], None, rule)
        return LoaderVariant(Pairs(sampler, processing, make_pixels(watch), seed=0, split="train"), cfg, watch)

    variants = {
        PLAIN: variant(dataset, lambda watch: PlainPixels(data.MEAN, data.STD, watch, numbers)),
        "frames": variant(dataset, lambda watch: _timed(FramePixels, watch)(*sizes, numbers)),
        "frames, whole decode": variant(dataset, lambda watch: _timed(FramePixels, watch)(*sizes, numbers,
                                                                                          decoder="simplejpeg")),
        "frames, scaled decode": variant(dataset, lambda watch: _timed(FramePixels, watch)(*sizes, numbers,
                                                                                           scaled=True)),
        "crops": variant(packed, lambda watch: _timed(PackedPixels, watch)(*sizes, numbers)),
    }
    try:
        variants["gpu (the CPU's part)"] = variant(dataset, lambda watch: DevicePixels(*sizes, device, numbers))
    except UserError as error:
        logger.warning("left out: %s", error)
    return variants


def _describe(variant: LoaderVariant, plain: LoaderVariant, pairs: int) -> dict[str, Any]:
    ratios = np.array(variant.rates) / np.array(plain.rates)
    return {"pairs_per_second": float(np.median(variant.rates)), "over_plain": float(np.median(ratios)),
            "over_plain_range": [float(ratios.min()), float(ratios.max())],
            "milliseconds": variant.milliseconds(pairs), **_difference(variant, plain)}


def _difference(variant: LoaderVariant, plain: LoaderVariant) -> dict[str, Any]:
    """Grey levels between the crops of a variant and those of the plain variant, over the pairs that are the same."""
    keys = [(0, index) for index in range(BATCH * 2)]
    (crops, boxes), (plain_crops, plain_boxes) = variant.crops(keys), plain.crops(keys)
    same = (boxes - plain_boxes).abs().amax((1, 2)) < 1e-6
    std = variant.std
    levels = [(a - b)[same].abs() * std * 255 for a, b in zip(crops, plain_crops, strict=True)]
    return {"same_pairs": float(same.float().mean()), "max_difference": max(float(level.max()) for level in levels),
            "mean_difference": {view: float(level.mean()) for view, level in zip(VIEWS, levels, strict=True)}}


def report_text(report: dict[str, Any]) -> str:
    """A report of `profile_loader` as a table."""
    frames = report["frames"]
    partial = report["partial_decode"] or "none: frames are decoded whole"
    lines = [
        f"{frames['data']}: {frames['width']} x {frames['height']} pixels, {frames['kilobytes']:.0f} kB per frame",
        f"one core, {report['pairs']} pairs a round, median of {report['rounds']} rounds in turn; difference in grey "
        "levels from the plain variant",
        f"partial decode by {partial}; packed crops {report['crops']['kilobytes_per_frame']:.0f} kB per frame", "",
        f"{'':24}{'pairs/s':>8}{'ratio':>7}" + "".join(f"{part:>8}" for part in (*PARTS, "device"))
        + f"{'max':>7}{'mean':>7}" + (f"{'workers':>9}" if report["workers"] else ""),
    ]
    for name, variant in report["variants"].items():
        mean = np.mean(list(variant["mean_difference"].values()))
        rate = variant.get("workers_pairs_per_second")
        lines.append(f"{name:24}{variant['pairs_per_second']:8.1f}{variant['over_plain']:7.2f}"
                     + "".join(f"{variant['milliseconds'][part]:8.2f}" for part in PARTS)
                     + f"{variant['device_milliseconds']:8.2f}{variant['max_difference']:7.1f}{mean:7.2f}"
                     + (f"{rate:9.0f}" if rate else ""))
    lines += ["", f"read, decode, crop, rest: milliseconds per pair in the worker; device: on {report['device']}"]
    if report["workers"]:
        lines.append(f"workers: pairs per second that {report['workers']} workers ({report['kind']}) deliver to it")
    return "\n".join(lines)
