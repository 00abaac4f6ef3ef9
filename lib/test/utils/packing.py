"""Archives for the evaluation servers of GOT-10k and TrackingNet, from result files that stay as they are.

Of the benchmarks that `tracking/test.py` knows, only these two keep their annotations secret and take archives of
boxes. The VOT challenges are run and packed by their own toolkit (`lib/test/toolkits`).
"""

import argparse
import logging
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ...utils.errors import UserError
from ...utils.files import atomic_write, check_output_file
from ..evaluation.datasets import get_dataset
from ..evaluation.results import boxes_file, results_root, times_file, tracker_folder

logger = logging.getLogger(__name__)

SHOWN = 10
"""Problems that an error lists."""


class Server(NamedTuple):
    """What an evaluation server wants; `servers.yaml` says it for each."""

    title: str
    dataset: str
    """Name for `lib.test.evaluation.get_dataset`, and..."""
    folder: str
    """...of the sub-folder of its results."""
    sequences: int
    """How many sequences its test set has."""
    others: str
    """Regular expression of the names of other splits' sequences, whose results may lie in the same folder."""
    members: dict[str, str]
    """Name in the archive, with `{name}` for the sequence's, -> `boxes` or `times`."""


SERVERS = {key: Server(**values) for key, values in
           yaml.safe_load((Path(__file__).parent / "servers.yaml").read_text(encoding="utf-8")).items()}


def pack(server: Server, folder: Path, lengths: Mapping[str, int] | None, archive: Path, partial: bool = False) -> int:
    """Write the archive of one tracker's results: a text file for each of `server.members` and each sequence, one comma
    separated box, or time, per line. The numbers are those of the result files.

    Args:
        folder: the tracker's results.
        lengths: frames of every sequence of the test set; None takes the sequences that have results, for want of the
            data set.
        archive: the zip file; written whole or not at all.
        partial: leave out the sequences that have no results, instead of refusing.

    Returns:
        Number of sequences packed.

    Raises:
        UserError: results are missing, of the wrong length or damaged; all are named (up to ten), nothing is written.
    """
    names = list(lengths) if lengths is not None else _found(server, folder)
    if partial:
        names = [name for name in names if boxes_file(folder, server.folder, name).is_file()]
    elif len(names) != server.sequences:
        raise UserError(f"the test set of {server.title} has {server.sequences} sequences, but there are "
                        f"{'results in ' + str(folder) if lengths is None else 'frames'} of {len(names)}; the server "
                        "refuses such an archive. Finish the results (or the data set), or give --partial to pack it "
                        "all the same")
    if not names:
        raise UserError(_nothing(server, folder))
    files: dict[str, str] = {}
    problems = []
    for name in names:
        try:
            files |= _members(server, folder, name, None if lengths is None else lengths[name])
        except UserError as error:
            problems.append(str(error))
    if problems:
        suffix = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"the results in {folder} cannot be submitted to {server.title}, {len(problems)} of "
                        f"{len(names)} sequences are not right:\n  " + "\n  ".join(problems[:SHOWN]) + suffix
                        + f"\nfinish them with tracking/test.py ... --dataset {server.dataset}")
    with atomic_write(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in sorted(files):
            zipped.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)  # no dates: same in, same out
    return len(names)


def frame_counts(server: Server, env: Any) -> dict[str, int] | None:
    """Frames of every sequence of the test set; None, with a warning, when the data set cannot be read here."""
    try:
        return {sequence.name: sequence.length for sequence in get_dataset(server.dataset, env)}
    except UserError as error:
        logger.warning("the lengths of the results are not checked: %s", error)
        return None


def script(server: Server, arguments: list[str] | None = None) -> None:
    """The command line of a packing script."""
    from ..evaluation.environment import env_settings

    parser = argparse.ArgumentParser(
        description=f"Pack the results of tracking/test.py --dataset {server.dataset} for the {server.title} server. "
                    "The results themselves are not changed.")
    parser.add_argument("--tracker_name", required=True, metavar="SCRIPT", help="a tracker family or compresstracker")
    parser.add_argument("--cfg_name", required=True, metavar="CONFIG", help="the configuration that was tested")
    parser.add_argument("--runid", type=int, help="number of a repeated run")
    parser.add_argument("--save_dir", type=Path, help="as given to tracking/test.py; default: the environment file's")
    parser.add_argument("--output", type=Path,
                        help=f"the archive; default: {server.folder}_submit.zip beside the results")
    parser.add_argument("--partial", action="store_true",
                        help="pack the sequences that have results, although the test set has more")
    options = parser.parse_args(arguments)
    env = env_settings()
    folder = tracker_folder(results_root(options.save_dir, env), options.tracker_name, options.cfg_name, options.runid)
    archive = options.output or folder / f"{server.folder}_submit.zip"
    check_output_file(archive, "--output" if options.output else "--save_dir")
    number = pack(server, folder, frame_counts(server, env), archive, options.partial)
    logger.info("%d of %d sequences in %s", number, server.sequences, archive)


def _members(server: Server, folder: Path, name: str, frames: int | None) -> dict[str, str]:
    """What one sequence adds to the archive: name in it -> text."""
    boxes = boxes_file(folder, server.folder, name)
    rows = {"boxes": _read_rows(boxes, columns=4)}
    if frames is not None and len(rows["boxes"]) != frames:
        raise UserError(f"{boxes} has {len(rows['boxes'])} lines, the sequence has {frames} frames")
    if "times" in server.members.values():
        rows["times"] = _read_rows(times_file(boxes), columns=1)
        if len(rows["times"]) != len(rows["boxes"]):
            raise UserError(f"{times_file(boxes)} has {len(rows['times'])} lines, {boxes.name} has "
                            f"{len(rows['boxes'])}")
    return {member.format(name=name): "".join(f"{','.join(row)}\n" for row in rows[kind])
            for member, kind in server.members.items()}


def _found(server: Server, folder: Path) -> list[str]:
    """Names of the sequences with results, without those of other splits."""
    names = sorted(file.stem for file in (folder / server.folder).glob("*.txt")
                   if not file.stem.endswith("_time") and not re.fullmatch(server.others, file.stem))
    if not names:
        raise UserError(_nothing(server, folder))
    return names


def _nothing(server: Server, folder: Path) -> str:
    """The message when there is nothing to pack."""
    return (f"no results of the {server.title} test set in {folder / server.folder}; make them with tracking/test.py "
            f"... --dataset {server.dataset}")


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
