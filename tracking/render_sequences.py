#!/usr/bin/env python
"""Draw sequences with ground truth to train on: objects cut out of photographs move over photographs, or drawn ones."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

EXAMPLES = """examples:
  python tracking/render_sequences.py --output data/rendered --photographs data/coco/images/train2017 \\
      --outlines data/coco/annotations/instances_train2017.json
  python tracking/render_sequences.py --output data/rendered --sequences 100

A yaml file trains on them as FOLDER:data/rendered/train@list.txt.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", required=True, help="folder that gets train/list.txt and train/<sequence>/, as GOT-10k has them; "
        "what it holds already is not drawn again")
    add("--sequences", type=int, default=400, help="how many (default: %(default)s)")
    add("--photographs", metavar="FOLDER", help="pictures to take as backgrounds (default: drawn ones)")
    add("--outlines", metavar="JSON", help="COCO instances file of the photographs, whose objects are cut out "
        "(default: drawn objects)")
    add("--frames", type=int, default=24, help="pictures of a sequence (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(400, 300), metavar=("WIDTH", "HEIGHT"), help="of the pictures (default: "
        "400 300)")
    add("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    add("--workers", type=int, default=2, help="processes that draw (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Draw what is missing."""
    args = parse(arguments)
    check_output(args.output, "--output")
    from lib.quickstart.render import render_benchmark

    render_benchmark(args.output, seed=args.seed, train=args.sequences, val=0, test=0, frames=(args.frames, 2),
                     size=tuple(args.size), workers=args.workers, backgrounds=args.photographs, outlines=args.outlines)
    return 0


if __name__ == "__main__":
    run_script(main)
