#!/usr/bin/env python3
"""Score tracking results: tables (terminal, CSV, Markdown, LaTeX, JSON), plots and an HTML page."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.analysis.conventions import CONVENTIONS  # noqa: E402
from lib.test.analysis.report import text_table  # noqa: E402
from lib.test.analysis.run import (  # noqa: E402
    FORMATS,
    analyse,
    parse_formats,
    report_folder,
    time_scoring,
    write_report,
)
from lib.test.evaluation.environment import env_settings  # noqa: E402
from lib.utils.box_forms import FORMS  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output, resolve  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

EXAMPLES = """examples:
  everything that tracking/test.py left behind:
    python tracking/analysis_results.py
  one tracker, one data set:
    python tracking/analysis_results.py --script compresstracker --config compresstracker_vitb_256_4 --dataset lasot
  two trackers on a folder of sequences, and a third one's files from elsewhere:
    python tracking/analysis_results.py --tracker ostrack:vitb_256_mae_ce_32x4_ep300=OSTrack \\
        --tracker compresstracker:compresstracker_vitb_256_4 --result Other=/path/to/txt --dataset folder:my/videos
  repeated runs (test.py --runid 0, 1, ...) as means with standard deviations:
    python tracking/analysis_results.py --script compresstracker --dataset lasot --merge-runs
  packed annotations and results:
    python tracking/analysis_results.py --ground-truth lasot_test_gt.npz --absent lasot_test_absent.npz \\
        --result ATOM=lasot_test_ATOM.npz

packed files (.npz): names (S,), offsets (S+1,) and boxes (F, 4) as x, y, w, h; sequence i has the rows
offsets[i]:offsets[i+1]; in annotations NaN or no area means no target, and absent (F,) marks hidden targets.

attributes (.json): {"<sequence>": ["<attribute>", ...], ...}

exit status: 0 done, 1 some tracker lacks sequences (and got no scores), or with --partial has none, 2 wrong input.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracker", action="append", default=[], metavar="SCRIPT:CONFIG[:RUNID][=LABEL]",
                        help="a tracker of the results folder; repeatable (default: all that are found)")
    parser.add_argument("--script", help="with --config: that tracker; alone: all trackers of that script")
    parser.add_argument("--config", help="configuration of --script")
    parser.add_argument("--runid", type=int, help="number of a repeated run of --config")
    parser.add_argument("--result", action="append", default=[], metavar="NAME=PATH",
                        help="results from elsewhere: a folder of <sequence>.txt, .csv or .json, or of "
                             "<sequence>/<sequence>_001.txt; one of folders <tracker>_000, <tracker>_001, ..., runs "
                             "that are scored by their mean; or one file with all sequences, .npz or .json; repeatable")
    parser.add_argument("--box-format", action="append", default=[], metavar="[NAME=]FORM",
                        help=f"form of the boxes of all --result, or of one: {', '.join(FORMS)}; repeatable (default: "
                             "xywh, and boxes that are plainly something else are refused)")
    parser.add_argument("--dataset", "--dataset_name", action="append", default=[], metavar="NAME",
                        help="lasot, got10k_val, got10k_train, folder:PATH[@LIST]; repeatable (default: every data set "
                             "with results whose annotations are here)")
    parser.add_argument("--ground-truth", type=Path, metavar="FILE", help="packed annotations instead of --dataset")
    parser.add_argument("--absent", type=Path, metavar="FILE", help="packed flags of hidden targets")
    parser.add_argument("--attributes", type=Path, metavar="FILE",
                        help="challenges of the sequences (default: what the data set says)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder with the results (default: from local.py)")
    parser.add_argument("--save_dir", type=Path, metavar="DIR",
                        help="the --save_dir of tracking/test.py: results in DIR/test/tracking_results, reports in "
                             "DIR/test/result_plots")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder of the reports, one sub-folder per data set (default: from local.py)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="what to write: %(default)s, or none")
    parser.add_argument("--pictures", type=int, default=6, metavar="N",
                        help="show frames of the N worst sequences in the HTML page, where frames are at hand "
                             "(default: %(default)s)")
    parser.add_argument("--partial", action="store_true", help="score only the sequences that all trackers have")
    parser.add_argument("--merge-runs", action="store_true",
                        help="one row for the repeated runs <config>_000, <config>_001, ... of a tracker: mean and "
                             "standard deviation")
    parser.add_argument("--convention", default="auto", choices=["auto", *CONVENTIONS],
                        help="rules for frames without a target and for averages (default: those of the data set)")
    parser.add_argument("--no-cache", action="store_true",
                        help="score again; otherwise scores of files with the same content are taken from the reports' "
                             "folder")
    parser.add_argument("--benchmark", action="store_true",
                        help="time the scoring of the first tracker against a plain PyTorch loop, instead of a report")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Score, print, write; returns the exit status."""
    args = parse_arguments(arguments)
    formats = parse_formats(args.formats)
    if (args.config or args.runid is not None) and not (args.script and args.config):
        raise UserError("--config and --runid need --script and --config")
    trackers = list(args.tracker)
    if args.config:
        trackers.append(f"{args.script}:{args.config}" + ("" if args.runid is None else f":{args.runid}"))
    if args.script and not args.config and (trackers or args.result):
        raise UserError("--script without --config chooses among all results; leave it out, or --tracker and --result")
    if args.pictures < 0:
        raise UserError(f"--pictures {args.pictures}: expected 0 or more")
    env = env_settings()
    in_save_dir = args.save_dir / "test" if args.save_dir else None
    output = args.output or (in_save_dir and in_save_dir / "result_plots") or resolve(env.result_plot_path)
    if formats and not args.benchmark:
        check_output(Path(output), "--output" if args.output else "--save_dir")
    reports = analyse(
        env, datasets=args.dataset, trackers=trackers, results=args.result, script=args.script,
        results_path=args.results or (in_save_dir and in_save_dir / "tracking_results"),
        ground_truth=args.ground_truth, absent=args.absent, convention=args.convention, partial=args.partial,
        attributes=args.attributes, merge_runs=args.merge_runs, reports=None if args.no_cache else Path(output),
        box_formats=args.box_format)
    if args.benchmark:
        for report in reports:
            print(f"{report.dataset}: {time_scoring(report)}")
        return 0
    for report in reports:
        print(f"\n{text_table(report)}")
        for path in write_report(report, report_folder(Path(output), report), formats, args.pictures):
            print(f"report: {path}")
    scored = all(tracker.scores for report in reports for tracker in report.trackers)
    return 0 if (scored if args.partial else all(report.complete for report in reports)) else 1


if __name__ == "__main__":
    run_script(main)
