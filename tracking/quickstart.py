"""Compress a tracker in ten minutes on data that is rendered here: the main job from end to end."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/quickstart", help="folder of everything that is made; a second run "
                        "takes up what is there (default: %(default)s)")
    parser.add_argument("--data", default="data/quickstart", help="folder of the rendered benchmark, from the "
                        "repository's root (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of either student; the table then gives mean "
                        "and standard deviation (default: %(default)s)")
    parser.add_argument("--train-teacher", action="store_true", help="train the teacher too, about 50 minutes on 2 CPU "
                        "cores, instead of using the shipped checkpoint")
    parser.add_argument("--teacher", help="another checkpoint of the teacher")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that render, train and test side "
                        "by side (default: %(default)s)")
    parser.add_argument("--only-render", action="store_true", help="draw the benchmark and do no more")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the "
                        "students' configuration; may be repeated")
    return parser.parse_args()


def main() -> int:
    """Run the quickstart and say what it gave."""
    args = parse()
    check_output(args.output, "--output")
    load_torch()
    from lib.quickstart.run import render, run_quickstart

    if args.only_render:
        render(args.data, args.workers, args.train_teacher)
        return 0

    outcome = run_quickstart(args.output, data=args.data, seeds=args.seeds, train_teacher=args.train_teacher,
                             teacher=args.teacher, device=args.device, workers=args.workers, overrides=args.set)
    print(f"\n{outcome.table()}\n")
    for name, path in outcome.files.items():
        print(f"{name:10}{path}")
    print(f"{'time':10}" + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items()))
    return 0


if __name__ == "__main__":
    run_script(main)
