"""The embedded benchmark: synthetic sequences with ground truth in the directory layout of GOT-10k."""

import configparser
import io
import json
import logging
import multiprocessing
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..utils.errors import UserError
from ..utils.files import cannot_write, write_text
from ..utils.progress import progress
from .photographs import Outline, cut_out, list_photographs, read_outlines, read_photograph
from .scene import CUTOUTS, Sequence, generator, sprite_side

logger = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the pictures change: rendered benchmarks of an older version are then rendered again."""

SPLITS = ("train", "val", "test")
TRAIN_PACE = 3.0
"""Time between two training pictures; in evaluation sequences it is 1."""

_STATE = "render.json"
_QUALITY = 90


@dataclass(frozen=True)
class _Job:
    """What one sequence's pictures depend on, and where they go."""

    folder: str
    seed: int
    split: str
    index: int
    length: int
    size: tuple[int, int]
    photo: str | None
    outlines: tuple[Outline, ...]


def render_benchmark(out_dir: str | Path, *, seed: int, train: int, val: int, test: int,
                     frames: tuple[int, int] = (24, 80), size: tuple[int, int] = (320, 240), workers: int = 1,
                     backgrounds: str | Path | None = None, outlines: str | Path | None = None) -> None:
    """Render a benchmark, or complete one that an interruption left unfinished; at once when nothing is missing.

    Writes `<out_dir>/{train,val,test}/<sequence>/` with `00000001.jpg`.., `groundtruth.txt` (x,y,w,h of the whole
    object, cut off at the border), `absence.label`, `cover.label` (0 hidden .. 8 fully visible) and `meta_info.ini`,
    and `<split>/list.txt`, which names the split's sequences: a folder that was rendered with more keeps them all, and
    a later call with more draws only those that it lacks. Sequence i of a split depends only on the seed, the split,
    i, the size and number of its pictures and the photographs: not on the number of sequences or workers. No two
    sequences share a texture or shape.

    Args:
        out_dir: folder of the benchmark; created when missing.
        seed: any integer from 0.
        train, val, test: numbers of sequences; 0 leaves a split's list empty.
        frames: pictures per training sequence (further apart in time) and per val or test sequence.
        size: width and height of the pictures in pixels.
        workers: processes that draw; 1 draws in this process.
        backgrounds: folder with photographs (jpg, png, bmp; at least 3) to use instead of procedural backgrounds; each
            photograph belongs to one split, and a split without sequences gets none.
        outlines: COCO instances file of the photographs: the objects of a split are then cut out of its photographs.

    Raises:
        UserError: a bad argument, a folder that holds something else, unreadable photographs, a full disk.
    """
    out_dir, counts = Path(out_dir), dict(zip(SPLITS, (train, val, test), strict=True))
    _check(seed, counts, frames, size, workers)
    photos = _split_photos(backgrounds, [split for split in SPLITS if counts[split]])
    objects = _split_objects(outlines, photos)
    jobs: list[_Job] = []
    lists: dict[Path, str] = {}
    for split, count in counts.items():
        length = frames[0] if split == "train" else frames[1]
        state = {"version": VERSION, "seed": seed, "frames": length, "size": list(size),
                 "photographs": [[Path(p).name, Path(p).stat().st_size] for p in photos[split]]}
        if outlines:
            state["outlines"] = len(objects[split])
        folder = out_dir / split
        names = [f"{split}_{index:05d}" for index in range(count)]
        listing = "".join(f"{name}\n" for name in names)
        done = _prepare(folder, state, names, listing)
        lists[folder / "list.txt"] = listing
        for index, name in enumerate(names):
            if name not in done:
                photo = photos[split][index % len(photos[split])] if photos[split] else None
                picked = generator(seed, split, index, "target").permutation(len(objects[split]))[:CUTOUTS]
                cutouts = tuple(objects[split][i] for i in picked)
                jobs.append(_Job(str(folder / name), seed, split, index, length, tuple(size), photo, cutouts))
    if jobs:
        logger.info("rendering %d synthetic sequences into %s", len(jobs), out_dir)
        _run(jobs, workers)
    for path, listing in lists.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != listing:
            write_text(path, listing)


def _check(seed: int, counts: dict[str, int], frames: tuple[int, int], size: tuple[int, int], workers: int) -> None:
    """Refuse arguments that cannot work."""
    numbers = {"seed": (seed, 0), **{name: (count, 0) for name, count in counts.items()}, "workers": (workers, 1),
               "frames[0]": (frames[0], 2), "frames[1]": (frames[1], 2),
               "width": (size[0], 96), "height": (size[1], 96)}
    for name, (value, least) in numbers.items():
        if int(value) != value or value < least:
            raise UserError(f"render_benchmark: {name} must be an integer of at least {least}, found {value!r}")


def _split_photos(folder: str | Path | None, splits: list[str]) -> dict[str, list[str]]:
    """Deal a folder's photographs to the splits: every eighth to val and to test, the others to train."""
    dealt: dict[str, list[str]] = {split: [] for split in SPLITS}
    if folder is None:
        return dealt
    photos = list_photographs(folder)
    if len(photos) < len(SPLITS):
        raise UserError(f"backgrounds: {folder} holds {len(photos)} pictures (jpg, png, bmp); at least 3 are needed, "
                        "because each belongs to one split only")
    for number, photo in enumerate(photos):
        split = {0: "val", 1: "test"}.get(number % 8, "train")
        dealt[split if split in splits else splits[0]].append(photo)
    return dealt


def _split_objects(path: str | Path | None, photos: dict[str, list[str]]) -> dict[str, list[Outline]]:
    """The objects of each split's photographs."""
    if path is None:
        return {split: [] for split in SPLITS}
    if not any(photos.values()):
        raise UserError("outlines: they belong to photographs; give backgrounds, too")
    by_photo = read_outlines(path, [photo for dealt in photos.values() for photo in dealt])
    objects = {split: [item for photo in photos[split] for item in by_photo.get(photo, [])] for split in SPLITS}
    for split, items in objects.items():
        if photos[split] and len(items) < CUTOUTS:
            raise UserError(f"outlines: {path} outlines {len(items)} usable objects in the photographs for {split}; at "
                            f"least {CUTOUTS} are needed. Give more photographs")
    return objects


def _prepare(folder: Path, state: dict, names: list[str], listing: str) -> set[str]:
    """Make `folder` ready for a split with the parameters `state`; the names of the sequences that it holds already."""
    path = folder / _STATE
    stored_state = None
    if path.is_file():
        try:
            stored_state = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            logger.warning("%s cannot be read; the split is rendered again", path)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files but no {_STATE}, so it is not a rendered split; choose another folder")
    present = {p.name for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else set()
    whole = {name for name in present if name.startswith(f"{folder.name}_")}
    listed = folder / "list.txt"
    if stored_state == state:
        if listed.is_file() and listed.read_text(encoding="utf-8") == listing and whole.issuperset(names):
            return whole
        stale = present - whole
    else:
        whole, stale = set(), present
    listed.unlink(missing_ok=True)
    if stored_state != state:
        write_text(path, json.dumps(state, indent=1) + "\n")
    for name in stale:
        if name.startswith((f"{folder.name}_", f".{folder.name}_")):
            shutil.rmtree(folder / name)
    return whole


def _run(jobs: list[_Job], workers: int) -> None:
    """Draw all sequences, with progress in the log."""
    if workers == 1 or len(jobs) == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            _report((_render(job) for job in jobs), len(jobs))
        finally:
            cv2.setNumThreads(threads)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"),
                               initializer=cv2.setNumThreads, initargs=(1,))
    try:
        _report(pool.map(_render, jobs, chunksize=2), len(jobs))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _report(results: Iterable[None], total: int) -> None:
    """Show how far it is while `results` come in."""
    for _ in progress(results, total, "rendering", "sequences"):
        pass


def _render(job: _Job) -> None:
    """Draw one sequence into a hidden folder beside its place, then move it there."""
    final = Path(job.folder)
    partial = final.with_name(f".{final.name}.part")
    photo = None if job.photo is None else read_photograph(job.photo)
    cutouts = [cut_out(outline, sprite_side(job.size)) for outline in job.outlines]
    pace = TRAIN_PACE if job.split == "train" else 1.0
    sequence = Sequence(job.seed, job.split, job.index, length=job.length, size=job.size, pace=pace, photo=photo,
                        cutouts=cutouts)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        boxes, visible = [], []
        for number, frame in enumerate(sequence.frames(), start=1):
            _, data = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            (partial / f"{number:08d}.jpg").write_bytes(data)
            boxes.append(frame.box)
            visible.append(frame.visible)
        _write_labels(partial, job, boxes, visible)
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(cannot_write(final, error)) from error


def _write_labels(folder: Path, job: _Job, boxes: list[tuple[float, ...]], visible: list[float]) -> None:
    """The annotation files of one sequence, as GOT-10k has them."""
    (folder / "groundtruth.txt").write_text("".join(",".join(f"{v:.4f}" for v in box) + "\n" for box in boxes))
    seen = np.array(visible) * (np.array(boxes)[:, 2] > 0)
    cover = np.where(seen <= 0, 0, np.where(seen >= 0.995, 8, np.clip(np.ceil(seen * 100 / 15), 1, 7))).astype(int)
    (folder / "cover.label").write_text("".join(f"{level}\n" for level in cover))
    (folder / "absence.label").write_text("".join(f"{int(level == 0)}\n" for level in cover))
    info = configparser.ConfigParser()
    info.optionxform = str
    info["METAINFO"] = {"url": "synthetic", "begin": "00:00:00", "end": "00:00:00", "anno_fps": "10Hz",
                        "object_class": "synthetic object", "motion_class": "random", "major_class": "synthetic",
                        "root_class": "synthetic", "motion_adverb": "randomly",
                        "resolution": f"({job.size[0]}, {job.size[1]})"}
    text = io.StringIO()
    info.write(text)
    (folder / "meta_info.ini").write_text(text.getvalue())
