"""Train one configuration with several settings and seeds, test all, and compare them.

python tracking/ablation.py --ladder experiments/ladders/method.yaml --jobs 2

Run the same command again to go on where it stopped. What a ladder's file holds: docs/ablations.md. The ladders that
come with the project are for the quickstart's tracker; the same for another one:

python tracking/ablation.py --ladder experiments/ladders/method.yaml --config compresstracker_vitb_256_4 \\
    --dataset lasot --reference ostrack/vitb_256_mae_32x4_ep300 --set TRAIN.EPOCH=300 \\
    --output output/ladders/method_vitb
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

INSTEAD = ("seeds", "config", "dataset", "reference", "convention")
"""Options that take the place of keys of the ladder's file."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ladder", required=True, metavar="FILE", help="a yaml file such as those in experiments/ladders")
    add("--output", help="folder of all runs, the table and the plots (default: output/ladders/<name of the ladder>)")
    instead = parser.add_argument_group("in place of what the ladder's file says")
    instead.add_argument("--seeds", type=int, metavar="N", help="train each rung with the seeds 0 to N - 1")
    instead.add_argument("--config", metavar="NAME", help="configuration that the rungs are made of")
    instead.add_argument("--dataset", metavar="NAME", help="test set, as for tracking/test.py")
    instead.add_argument("--reference", metavar="SCRIPT/CONFIG", help="the teacher's configuration, to test it, too")
    instead.add_argument("--convention", metavar="NAME", help="of the scores, as for tracking/analysis_results.py; '' "
                         "for the test set's own")
    instead.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                         help="a key of all rungs, for example TRAIN.EPOCH=300; repeatable")
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time, on one device; on a CPU each gets its share "
        "of the CPUs (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add("--report", action="store_true", help="train nothing; table and chart of the runs that are done, and of "
        "the reference")
    add("--only", metavar="RUNG", help="execute one run in this process, with the seed of --seed, or the test of the "
        "reference")
    add("--seed", type=int, help="of --only RUNG")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        parser.error("--jobs must be at least 1")
    if (args.only is not None and "/" not in args.only) != (args.seed is not None):
        parser.error("--only RUNG and --seed N go together; --only SCRIPT/CONFIG, the reference, has no seed")
    return args


def main() -> int:
    args = parse_arguments()
    load_torch()
    from lib.pipeline.ladder import Ladder, LadderRun, ReferenceRun, climb
    from lib.pipeline.ladder_report import collect
    from lib.pipeline.scoring import TestSet

    instead = {name: getattr(args, name) for name in INSTEAD}
    ladder = Ladder.read(args.ladder, instead, args.settings)
    output = Path(args.output or f"output/ladders/{ladder.name}").expanduser().absolute()
    check_output(output, "--output")
    if args.only is not None and args.only not in (*ladder.rungs, ladder.reference):
        raise UserError(f"{ladder.source} has no rung {args.only}; it has {', '.join(ladder.rungs)}"
                        + f", and the reference {ladder.reference}" * bool(ladder.reference))
    if args.seed is not None and args.seed not in ladder.seeds:
        raise UserError(f"seed {args.seed} is none of the ladder's ({', '.join(map(str, ladder.seeds))}); give --seeds "
                        "as for the whole ladder")
    if args.only is not None:
        test_set = TestSet(ladder.dataset, ladder.convention)
        run = (ReferenceRun(ladder, output, test_set) if args.seed is None else
               LadderRun(ladder, output, args.only, args.seed, test_set))
        run.execute(args.device)
        return 0
    failed = [] if args.report else climb(ladder, output, jobs=args.jobs, device=args.device)
    report = collect(ladder, output, args.device)
    files = report.write(output)
    print(f"\n{report.table()}\n")
    for file in files:
        print(file)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
