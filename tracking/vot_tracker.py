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
from lib.test.tracker import Tracker  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

logger = logging.getLogger("vot_tracker")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("tracker_name", metavar="script", help="ostrack or compresstracker")
    add("tracker_param", metavar="config", help="name of a file in experiments/<script>, without .yaml, or its path")
    add("--checkpoint", type=_path, help="weights; default: the config's in <save_dir>/checkpoints/train")
    add("--epoch", type=int, help="epoch of the default checkpoint; default: TEST.EPOCH of the config")
    add("--save_dir", type=_path, help="folder that training wrote to; default: save_dir of the environment file")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of the config; may be repeated")
    add("--label", help="the tracker's name there; default: the config's")
    add("--ini", action="store_true", help="print the entry for trackers.ini, with these options, and end")
    return parser.parse_args(arguments)


def _path(text: str) -> Path:
    """An absolute path, since the toolkit starts the tracker in a folder of its own."""
    return Path(text).expanduser().absolute()


def main(arguments: list[str] | None = None) -> int:
    """Serve until the toolkit is done, or print the entry."""
    options = parse(arguments)
    label = options.label or Path(options.tracker_param).stem
    if options.ini:
        config = options.tracker_param
        print(trackers_ini(label, options.tracker_name, str(_path(config)) if config.endswith(".yaml") else config, {
            "checkpoint": options.checkpoint, "epoch": options.epoch, "save_dir": options.save_dir,
            "device": options.device, "set": options.overrides, "label": label}))
        return 0
    if sys.stdin.isatty():
        raise UserError("this script is started by the VOT toolkit and talks to it over standard input and output; "
                        "--ini prints the entry for trackers.ini")
    tracker = Tracker.from_config(options.tracker_name, options.tracker_param, checkpoint=options.checkpoint,
                                  epoch=options.epoch, save_dir=options.save_dir, device=options.device,
                                  overrides=options.overrides)
    logger.info("%d frames answered", serve(tracker, label))
    return 0


if __name__ == "__main__":
    run_script(main)
