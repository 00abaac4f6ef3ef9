"""Compare trackers: what they score on one test set, and how long they take for a frame, in one table.

python tracking/compare_trackers.py opencv/nano opencv/vit ostrack/vitb_256_mae_32x4_ep300=teacher \\
    compresstracker/compresstracker_vitb_256_4=student --dataset lasot --reference teacher --threads 2

A tracker is SCRIPT/CONFIG[=LABEL][@PATH], with PATH the file of its weights or a folder that tracking/export_model.py
wrote; without, the weights are found as by tracking/test.py. Several with one label are trainings of one kind (seeds):
the table gives their mean. Run the same command again to go on where it stopped; what is tracked is not tracked again,
whatever the labels. More: docs/evaluation.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.analysis.conventions import CONVENTIONS  # noqa: E402
from lib.test.tracker.choice import SYNTAX  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402
from lib.utils.threads import set_compute_threads, usable_cpus  # noqa: E402


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("trackers", nargs="+", metavar=SYNTAX, help="a tracker, see above")
    add("--dataset", required=True, metavar="NAME", help="test set, as for tracking/test.py")
    add("--convention", default="", choices=("", *CONVENTIONS), help="of the scores (default: the test set's own)")
    add("--reference", default="", metavar="LABEL", help="the tracker that the others are compared with, a teacher for "
        "example: share of its AUC, and difference to it over the sequences")
    add("--threads", type=int, default=usable_cpus(), metavar="N", help="CPU threads that each tracker computes with "
        "(default: all, here %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N; OpenCV's trackers run on the CPU and take auto or "
        "cpu (default: %(default)s)")
    add("--output", default="output/comparison", help="folder of results, table and chart (default: %(default)s)")
    add("--report", action="store_true", help="track and time nothing; table and chart of what is done")
    args = parser.parse_args(arguments)
    if args.threads < 1:
        parser.error("--threads must be at least 1")
    return args


def main() -> int:
    args = parse_arguments()
    output = Path(args.output).expanduser().absolute()
    check_output(output, "--output")
    load_torch()
    from lib.pipeline.comparison import choose_runs, time_runs
    from lib.pipeline.comparison_report import check_reference, collect
    from lib.pipeline.scoring import TestSet

    test_set = TestSet(args.dataset, args.convention)
    set_compute_threads(args.threads)
    runs = choose_runs(args.trackers, test_set, output, args.device)
    check_reference(runs, args.reference)
    if not args.report:
        for run in runs:
            run.score(test_set, args.device)
        time_runs(runs, test_set, args.device, output)
    report = collect(runs, test_set, output, args.reference)
    files = report.write(output)
    print(f"\n{report.table()}\n")
    for file in files:
        print(file)
    return 0


if __name__ == "__main__":
    run_script(main)
