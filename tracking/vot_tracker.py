#!/usr/bin/env python
"""Track for the VOT toolkit, which starts this script itself.

python tracking/vot_tracker.py compresstracker compresstracker_vitb_256_4 --ini >> trackers.ini

writes the entry that the toolkit needs into the `trackers.ini` of a VOT workspace; `vot test LABEL` then tries it.
Needs the package vot-trax.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.toolkits.vot import serve, trackers_ini  # noqa: E402
from lib.test.tracker.choice import (  # noqa: E402
    absolute_path,
    add_tracker_options,
    check_tracker_options,
    choose_tracker,
)
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

logger = logging.getLogger("vot_tracker")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_tracker_options(parser)
    add = parser.add_argument
    add("--label", help="the tracker's name there; default: the config's")
    add("--ini", action="store_true", help="print the entry for trackers.ini, with these options, and end")
    options = parser.parse_args(arguments)
    check_tracker_options(parser, options)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Serve until the toolkit is done, or print the entry."""
    options = parse(arguments)
    label = options.label or Path(options.tracker_param).stem
    if options.ini:
        config = options.tracker_param
        config = str(absolute_path(config)) if config.endswith(".yaml") else config
        print(trackers_ini(label, options.tracker_name, config, {
            "checkpoint": options.checkpoint, "epoch": options.epoch, "save_dir": options.save_dir,
            "device": options.device, "set": options.overrides, "backend": options.backend, "fast": options.fast,
            "exported": options.exported, "label": label}))
        return 0
    if sys.stdin.isatty():
        raise UserError("this script is started by the VOT toolkit and talks to it over standard input and output; "
                        "--ini prints the entry for trackers.ini")
    tracker = choose_tracker(options, "vot").make(device=options.device)
    logger.info("%d frames answered", serve(tracker, label))
    return 0


if __name__ == "__main__":
    run_script(main)
