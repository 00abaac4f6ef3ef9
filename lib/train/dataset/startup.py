"""Time and memory of a training's start on a large data set, measured on annotations without images (in zip archives,
with images of no bytes, whose list is part of the work)."""

import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ...families.clips import ModeClips
from ...utils.errors import UserError
from ...utils.files import ROOT
from ..data.sampler import PairSampler
from . import build_dataset
from .trackingnet import CHUNKS

FRAMES = 467
"""Frames of a sequence: TrackingNet's 14.1 million over its 30132 sequences."""
DRAWS = 5000
FORMS = ("directory", "zip")
STATUS = Path("/proc/self/status")
TEXTS = 64
"""Different box files; the sequences take turns."""


def measure_startup(sequences: int, frames: int = FRAMES, draws: int = DRAWS, form: str = "directory") -> str:
    """Make the annotations of a TrackingNet-like data set in a temporary folder, start on it twice, each time in a new
    process, and draw pairs: the first start builds the index, the second one finds it.

    Args:
        sequences: how many.
        frames: of each.
        draws: pairs that are drawn.
        form: "directory", or "zip" for one archive per chunk, with an entry for each frame.

    Returns:
        A table: seconds, and resident memory of the two processes. Shared are mapped files, which other processes use
        too; own is the rest.

    Raises:
        UserError: this system does not tell the memory of a process, or it is another form.
    """
    if form not in FORMS:
        raise UserError(f"a start can be measured for {' and '.join(FORMS)}, not for {form}")
    if not STATUS.is_file():
        raise UserError(f"{STATUS}, which tells the memory of a process, is not there: the measurement needs Linux")
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), sequences, frames, form)
        runs = [_start(folder, draws) for _ in range(2)]
    lines = [f"{form}: {sequences} sequences, {sequences * frames} frames, {draws} draws; memory in MB",
             f"{'':30}{'builds the index':>18}{'finds it':>12}"]
    for key, words, digits in (
        ("start", "seconds to start", 2), ("draw", "seconds to draw", 2), ("before", "resident before the start", 0),
        ("own", "the data set's part, own", 0), ("shared", "the data set's part, shared", 0)):
        lines.append(f"{words:30}{runs[0][key]:>18.{digits}f}{runs[1][key]:>12.{digits}f}")
    return "\n".join(lines)


def start_and_draw(folder: str, draws: int) -> dict[str, float]:
    """What one process does: seconds of start and draws, and its memory in MB before and after."""
    before = _memory()
    env = SimpleNamespace(trackingnet_dir=f"{folder}/data", index_dir=f"{folder}/index")
    begin = time.perf_counter()
    dataset = build_dataset("TRACKINGNET", env)
    sampler = PairSampler([dataset], [1], ModeClips("causal", 200))
    rng = np.random.default_rng(0)
    sampler.draw(rng)
    started = time.perf_counter()
    for _ in range(draws):
        dataset, sequence, template, search = sampler.draw(rng)
        dataset.annotation(sequence).boxes[[template, search]].sum()
    drawn = time.perf_counter()
    after = _memory()
    return {"start": started - begin, "draw": drawn - started, "before": sum(before), "own": after[0] - before[0],
            "shared": after[1] - before[1]}


def _write(folder: Path, sequences: int, frames: int, form: str = "directory") -> None:
    """Box files of TrackingNet's layout; in archives also the images, without content."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(TEXTS):
        boxes = np.abs(rng.normal(200, 60, (frames, 4))) + 1
        texts.append("\n".join(",".join(f"{value:.2f}" for value in row) for row in boxes) + "\n")
    for place, chunk in enumerate(CHUNKS):
        numbers = range(place, sequences, len(CHUNKS))
        if form == "zip":
            (folder / "data").mkdir(exist_ok=True)
            with zipfile.ZipFile(folder / "data" / f"{chunk}.zip", "w") as archive:
                for number in numbers:
                    archive.writestr(f"anno/{_name(number)}.txt", texts[number % TEXTS])
                    for frame in range(frames):
                        archive.writestr(zipfile.ZipInfo(f"frames/{_name(number)}/{frame}.jpg"), b"")
            continue
        path = folder / "data" / chunk / "anno"
        path.mkdir(parents=True)
        for number in numbers:
            (path / f"{_name(number)}.txt").write_text(texts[number % TEXTS])


def _name(number: int) -> str:
    """Of a sequence, as long as TrackingNet's."""
    return f"sequence{number:06d}_0"


def _start(folder: str, draws: int) -> dict[str, float]:
    code = ("import json, sys; from lib.train.dataset.startup import start_and_draw; "
            "print(json.dumps(start_and_draw(sys.argv[1], int(sys.argv[2]))))")
    run = subprocess.run([sys.executable, "-c", code, folder, str(draws)], cwd=ROOT, check=True, text=True,
                         stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def _memory() -> tuple[float, float]:
    """Resident memory of this process in MB: what is its own, and what is mapped from files."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if line.startswith("Rss")}
    return sizes["RssAnon"], sizes["RssFile"] + sizes["RssShmem"]
