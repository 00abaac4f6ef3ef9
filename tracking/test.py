#!/usr/bin/env python
"""Run a trained tracker over a data set and write its boxes."""

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.evaluation import get_dataset  # noqa: E402
from lib.test.evaluation.environment import env_settings  # noqa: E402
from lib.test.evaluation.readahead import FRAMES_AHEAD  # noqa: E402
from lib.test.evaluation.results import results_root, tracker_folder  # noqa: E402
from lib.test.tracker.choice import add_tracker_options, check_tracker_options, choose_tracker  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

if TYPE_CHECKING:
    from lib.test.evaluation.running import RunSummary

logger = logging.getLogger("test")

EXAMPLES = """examples:
  python tracking/test.py compresstracker compresstracker_vitb_256_4 --dataset lasot --threads 64 --num_gpus 8
  python tracking/test.py ostrack vitb_256_mae_32x4_ep300 --dataset got10k_val --device cpu --threads 4
  python tracking/test.py compresstracker compresstracker_vitb_256_4 --dataset folder:data/my_videos --float
  python tracking/test.py compresstracker compresstracker_vitb_256_4 --dataset lasot --backend fast --device cpu
  python tracking/test.py compresstracker compresstracker_vitb_256_4 --dataset lasot --exported my_export
  python tracking/test.py opencv nano --dataset folder:data/my_videos
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_tracker_options(parser)
    add("--dataset", "--dataset_name", dest="dataset", required=True,
        help="lasot, got10k_test, got10k_val, got10k_train, trackingnet, or folder:<path>[@<file with names>]")
    add("--sequence", help="only this sequence: its name, or its number from 0")
    add("--runid", type=int, help="number of a repeated run; its results get a folder of their own")
    add("--runs", type=int, default=1, metavar="N",
        help="track everything N times, as runs --runid (default 1), --runid + 1, ...")
    add("--threads", type=int, default=0, help="worker processes; 0 (default) tracks in this process")
    add("--batch", type=int, default=1, metavar="N",
        help="track N sequences side by side in each process, one batched pass of the model for a frame of each; for "
             "throughput, with the same boxes (default %(default)s)")
    add("--num_gpus", type=int, default=8, help="spread the processes over at most so many GPUs (default 8)")
    add("--float", dest="sub_pixel", action="store_true", help="write boxes with four decimals, not whole pixels")
    add("--force", action="store_true",
        help="track again what has results already; results of other weights or settings move to a folder previous_N")
    add("--read_ahead", type=int, default=FRAMES_AHEAD, metavar="FRAMES",
        help="read so many frames while the tracker works, as far as they fit into 64 MiB per process; 0 reads each "
             "frame when it is needed (default %(default)s)")
    add("--debug", type=int, default=0, metavar="LEVEL",
        help="1: track again and save every frame with its boxes below the results")
    options = parser.parse_args(arguments)
    for name, least in (("threads", 0), ("num_gpus", 0), ("debug", 0), ("read_ahead", 0), ("runs", 1),
                        ("batch", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be {least} or more")
    check_tracker_options(parser, options)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run and report; 1 when a sequence failed."""
    options = parse(arguments)
    env = env_settings()
    results_path = results_root(options.save_dir, env)
    check_output(results_path, "--save_dir")
    load_torch()
    choice = choose_tracker(options, options.dataset)
    if options.batch > 1 and choice.batch != "batch":
        raise UserError(f"--batch {options.batch} needs graphs for any batch, and those in {options.exported} are for "
                        f"{choice.batch}; export again with --batch 0")
    made_with = choice.made_with()
    sequences = get_dataset(options.dataset, env, options.sequence)
    from lib.test.evaluation.running import run_dataset

    status = 0
    for run_id in run_ids(options.runid, options.runs):
        folder = tracker_folder(results_path, options.tracker_name, choice.name, run_id)
        summary = run_dataset(sequences, choice.make, folder, threads=options.threads, batch=options.batch,
                              num_gpus=options.num_gpus, device=options.device, sub_pixel=options.sub_pixel,
                              force=options.force, debug=options.debug, read_ahead=options.read_ahead,
                              made_with=made_with)
        status = max(status, report(summary, folder))
    return status


def run_ids(first: int | None, runs: int) -> Iterable[int | None]:
    """Numbers of the repeated runs to track; None is a run without a number."""
    if runs == 1:
        return [first]
    logger.info("%d runs of the same weights: the trackers of this project draw nothing at random, so theirs differ "
                "by the device's rounding at most", runs)
    first = 1 if first is None else first
    return range(first, first + runs)


def report(summary: "RunSummary", folder: Path) -> int:
    """Say what happened, failures last; 1 when there are any."""
    if summary.finished:
        logger.info("%d sequences tracked, %d frames in %.1f s (%.1f frames/s with reading; %.0f %% of the trackers' "
                    "time went into waiting for frames)", len(summary.finished), summary.frames, summary.seconds,
                    summary.frames / max(summary.seconds, 1e-9), 100 * summary.waiting_share)
    logger.info("results: %s", folder)
    for failure in summary.failures:
        logger.error("%s failed: %s%s", failure.sequence, failure.message,
                     f"\n{failure.trace.rstrip()}" if failure.trace else "")
    if summary.failures:
        logger.error("%d of %d sequences failed; the same command again tracks only what is missing",
                     len(summary.failures), len(summary.failures) + len(summary.finished) + len(summary.skipped))
    return 1 if summary.failures else 0


if __name__ == "__main__":
    run_script(main)
