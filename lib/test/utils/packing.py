"""Archives for the evaluation servers of GOT-10k and TrackingNet, from result files that stay as they are."""

import argparse
import logging
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib.test.evaluation.datasets import BENCHMARKS
from lib.test.evaluation.results import boxes_file, times_file, tracker_folder
from lib.utils.errors import UserError
from lib.utils.files import atomic_write, resolve
from lib.utils.sequences import open_frames

logger = logging.getLogger(__name__)

SHOWN = 10
"""Problems that an error lists."""


class Server(NamedTuple):
    """What an evaluation server wants."""

    title: str
    dataset: str
    """Name for `lib.test.evaluation.get_dataset`, and..."""
    folder: str
    """...of the sub-folder of its results."""
    sequences: int
    """How many sequences its test set has."""
    others: str
    """Regular expression of the names of other splits' sequences, whose results may lie in the same folder."""
    listing: str
    """What the data set's folder holds when the data set is there, and..."""
    frames: str
    """...the folder of the sequences' frames in it."""
    with_times: bool
    """Whether it wants the seconds per frame."""


SERVERS = {
    "got10k": Server("GOT-10k", "got10k_test", "got10k", 180, r"GOT-10k_(Val|Train)_.*", "test/list.txt", "test",
                     True),
    "trackingnet": Server("TrackingNet", "trackingnet", "trackingnet", 511, r"(?!)", "TEST/anno", "TEST/frames", False),
}


def pack(server: Server, folder: Path, lengths: Mapping[str, int] | None, archive: Path) -> int:
    """Write the archive of one tracker's results.

    GOT-10k: `<sequence>/<sequence>_001.txt` and `<sequence>/<sequence>_time.txt`. TrackingNet: `<sequence>.txt`. One
    comma separated box per line. The numbers are those of the result files.

    Args:
        folder: the tracker's results.
        lengths: frames of every sequence of the test set; None packs what is there, for want of the data set.
        archive: the zip file; written whole or not at all.

    Returns:
        Number of sequences packed.

    Raises:
        UserError: results are missing, of the wrong length or damaged; all are named (up to ten), nothing is written.
    """
    names = list(lengths) if lengths is not None else _found(server, folder)
    files: dict[str, str] = {}
    problems = []
    for name in names:
        try:
            files |= _members(server, folder, name, None if lengths is None else lengths[name])
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"the results in {folder} cannot be submitted to {server.title}, {len(problems)} of "
                        f"{len(names)} sequences are not right:\n  " + "\n  ".join(problems[:SHOWN]) + more
                        + f"\nfinish them with tracking/test.py ... --dataset {server.dataset}")
    with atomic_write(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in sorted(files):
            zipped.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)  # no dates: same in, same out
    return len(names)


def frame_counts(server: Server, env: Any) -> dict[str, int] | None:
    """Frames of every sequence of the test set; None when the data set is not on this machine."""
    benchmark = BENCHMARKS[server.dataset]
    path = getattr(env, benchmark.field, "")
    root = resolve(path) if path else None
    if root is None or not (root / server.listing).exists():
        return None
    return {name: len(open_frames(root / server.frames / name)) for name in benchmark.names(root)}


def script(server: Server, arguments: list[str] | None = None) -> None:
    """The command line of a packing script."""
    from lib.test.evaluation.environment import env_settings

    parser = argparse.ArgumentParser(
        description=f"Pack the results of tracking/test.py --dataset {server.dataset} for the {server.title} server. "
                    "The results themselves are not changed.")
    parser.add_argument("--tracker_name", required=True, metavar="SCRIPT", help="ostrack or compresstracker")
    parser.add_argument("--cfg_name", required=True, metavar="CONFIG", help="the configuration that was tested")
    parser.add_argument("--runid", type=int, help="number of a repeated run")
    parser.add_argument("--save_dir", type=Path, help="as given to tracking/test.py; default: the environment file's")
    parser.add_argument("--output", type=Path,
                        help=f"the archive; default: {server.folder}_submit.zip beside the results")
    options = parser.parse_args(arguments)
    env = env_settings()
    results = options.save_dir / "test" / "tracking_results" if options.save_dir else Path(env.results_path)
    folder = tracker_folder(results, options.tracker_name, options.cfg_name, options.runid)
    archive = options.output or folder / f"{server.folder}_submit.zip"
    lengths = frame_counts(server, env)
    number = pack(server, folder, lengths, archive)
    if lengths is None:
        logger.warning("the %s test set is not on this machine, so the lengths were not checked", server.title)
    if number != server.sequences:
        logger.warning("%d sequences were packed; the test set of %s has %d", number, server.title, server.sequences)
    logger.info("%d sequences in %s", number, archive)


def _members(server: Server, folder: Path, name: str, frames: int | None) -> dict[str, str]:
    """What one sequence adds to the archive: name in it -> text."""
    boxes = boxes_file(folder, server.folder, name)
    rows = _read_rows(boxes, columns=4)
    if frames is not None and len(rows) != frames:
        raise UserError(f"{boxes} has {len(rows)} lines, the sequence has {frames} frames")
    text = "".join(f"{','.join(row)}\n" for row in rows)
    if not server.with_times:
        return {f"{name}.txt": text}
    times = _read_rows(times_file(boxes), columns=1)
    if len(times) != len(rows):
        raise UserError(f"{times_file(boxes)} has {len(times)} lines, {boxes.name} has {len(rows)}")
    return {f"{name}/{name}_001.txt": text, f"{name}/{name}_time.txt": "".join(f"{row[0]}\n" for row in times)}


def _found(server: Server, folder: Path) -> list[str]:
    """Names of the sequences with results, without those of other splits."""
    inner = folder / server.folder
    names = sorted(file.stem for file in inner.glob("*.txt")
                   if not file.stem.endswith("_time") and not re.fullmatch(server.others, file.stem))
    if not names:
        raise UserError(f"no results of the {server.title} test set in {inner}; make them with tracking/test.py ... "
                        f"--dataset {server.dataset}")
    return names


def _read_rows(file: Path, columns: int) -> list[list[str]]:
    """The lines of a result file, split at tabs, commas or spaces, as text.

    Raises:
        UserError: the file is missing or empty, or a line does not hold `columns` finite numbers.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing")
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        row = re.split(r"[,\s]+", line.strip())
        try:
            good = len(row) == columns and all(math.isfinite(float(value)) for value in row)
        except ValueError:
            good = False
        if not good:
            raise UserError(f"{file}, line {number}: {line!r} is not {columns} finite number{'s' * (columns > 1)}")
        rows.append(row)
    if not rows:
        raise UserError(f"{file} is empty")
    return rows
