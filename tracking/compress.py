"""Compress a teacher to a budget: measure what its layers are worth and what students cost on this device, choose the
student that promises to keep most, and write its configuration.

python tracking/compress.py --teacher ostrack/vitb_256_mae_32x4_ep300 --checkpoint OSTrack_ep0300.pth.tar \\
    --budget-ms 30 --device cpu --frames my_video.mp4

With --train it goes on to the trained student, its export and its test. Run the same command again to go on where it
stopped.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.budget.options import BACKENDS, RECIPE, VARIED  # noqa: E402
from lib.config import SCRIPTS  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--teacher", required=True, metavar="SCRIPT/CONFIG", help="the teacher's configuration")
    add("--checkpoint", required=True, type=Path, metavar="FILE", help="the teacher's weights")
    budget = parser.add_argument_group("budget (one or several)")
    budget.add_argument("--budget-ms", type=float, metavar="MS", help="milliseconds of a pass of the network on "
                        "--device")
    budget.add_argument("--budget-macs", type=float, metavar="G", help="billions of multiply-accumulates of a pass, "
                        "attention's products among them")
    budget.add_argument("--budget-params", type=float, metavar="M", help="millions of parameters")
    budget.add_argument("--layers", type=int, metavar="N", help="exactly so many layers")
    runtime = parser.add_argument_group("how the student will run")
    runtime.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    runtime.add_argument("--threads", type=int, help="CPU threads of PyTorch while passes are timed (default: its own "
                         "number)")
    runtime.add_argument("--backend", default="fast", choices=BACKENDS,
                         help="fast, PyTorch as the tracker runs it; torch, plain PyTorch; or a format of "
                              "tracking/export_model.py (default: %(default)s)")
    runtime.add_argument("--precision", default="float32", help="number format of the backend: float32, bfloat16, "
                         "float16, int8, as far as it has them (default: %(default)s)")
    look = parser.add_argument_group("search")
    look.add_argument("--vary", nargs="*", choices=VARIED, default=VARIED, help="what may differ from the teacher "
                      "besides the number of layers; nothing after --vary: only that (default: all)")
    look.add_argument("--frames", metavar="PATH", help="a video, a folder of pictures, or of sequences with boxes, "
                      "like those that will be tracked: the importance of layers is measured there, without labels "
                      "(and ranges of int8, which need boxes; default: made-up pictures)")
    look.add_argument("--pairs", type=int, default=16, help="pairs of crops for it (default: %(default)s)")
    train = parser.add_argument_group("configuration and training")
    train.add_argument("--recipe", metavar="SCRIPT/CONFIG", default=RECIPE, help="compression whose TRAIN and COMPRESS "
                       "keys are used (default: %(default)s, the paper's)")
    train.add_argument("--name", default="", help="of the new configuration (default: of teacher and budget)")
    train.add_argument("--output", help="folder of all that is made (default: output/compress/<name>)")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                       help="a key of the configuration, for example TRAIN.EPOCH=100; repeatable")
    train.add_argument("--train", action="store_true", help="train the student, too; export it where --backend is a "
                       "format of exports, and test it where --evaluate names a test set")
    train.add_argument("--train-device", default="auto", help="of the training: auto, cpu, cuda or cuda:N (default: "
                       "%(default)s)")
    train.add_argument("--evaluate", metavar="NAME", help="with --train: the test set, as for tracking/test.py")
    train.add_argument("--convention", default="", help="of its scores, as in tracking/analysis_results.py")
    train.add_argument("--max-drop", type=float, metavar="AUC", help="with --evaluate: points of AUC that the student "
                       "may lose by its backend and precision (default: 1)")
    args = parser.parse_args(arguments)
    limits = {"--budget-ms": args.budget_ms, "--budget-macs": args.budget_macs, "--budget-params": args.budget_params,
              "--layers": args.layers, "--threads": args.threads, "--pairs": args.pairs}
    for option, value in limits.items():
        if value is not None and not value > 0:
            parser.error(f"{option} must be above 0")
    if not any((args.budget_ms, args.budget_macs, args.budget_params, args.layers)):
        parser.error("name a budget: --budget-ms, --budget-macs, --budget-params or --layers")
    script, slash, _ = args.teacher.partition("/")
    if not slash or script not in SCRIPTS:
        parser.error(f"--teacher {args.teacher}: expected SCRIPT/CONFIG, for example ostrack/vitb_256_mae_32x4_ep300")
    if not args.recipe.partition("/")[1]:
        parser.error(f"--recipe {args.recipe}: expected SCRIPT/CONFIG, for example {RECIPE}")
    if "/" in args.name:
        parser.error("--name must not hold a /; --output chooses the folder")
    if args.evaluate and not args.train:
        parser.error("--evaluate needs --train")
    if not args.evaluate and (args.max_drop is not None or args.convention):
        parser.error("--max-drop and --convention need --evaluate")
    return args


def main() -> int:
    args = parse_arguments()
    load_torch()
    from lib.budget.choose import Request, choose_student, compression_of, name_of
    from lib.budget.costs import Runtime
    from lib.budget.search import Budget
    from lib.pipeline.compress import make_student
    from lib.pipeline.scoring import TestSet
    from lib.train.run import check_inputs
    from lib.utils.device import pick_device

    budget = Budget(args.budget_ms, args.budget_macs and args.budget_macs * 1e9,
                    args.budget_params and args.budget_params * 1e6, args.layers)
    script, _, config = args.teacher.partition("/")
    name = args.name or name_of(config, budget)
    output = Path(args.output or f"output/compress/{name}").expanduser().absolute()
    check_output(output, "--output")
    runtime = Runtime(args.backend, args.precision, pick_device(args.device), args.threads, args.frames).check()
    request = Request((script, config), args.checkpoint.expanduser().absolute(), output, budget, runtime, args.vary,
                      args.recipe, args.pairs, name, args.settings)
    test_set = TestSet(args.evaluate, args.convention) if args.evaluate else None
    if args.train:
        check_inputs(compression_of(request))
    choice = choose_student(request)
    print(f"\n{choice.table}\n")
    if not args.train:
        for file in choice.files:
            print(file)
        print(f"\npython tracking/train.py --script compresstracker --config {choice.config} --save_dir {output}")
        return 0
    made = make_student(request, choice, test_set, args.train_device)
    print(f"\n{made.report}\n")
    for file in (choice.config, made.checkpoint, made.export, output / "report.json"):
        if file is not None:
            print(file)
    allowed = 1.0 if args.max_drop is None else args.max_drop
    if made.drop > allowed:
        raise UserError(f"{args.backend} {args.precision} costs {made.drop:.2f} points of AUC, more than the "
                        f"{allowed:g} of --max-drop; take another --precision, or allow more")
    return 0


if __name__ == "__main__":
    run_script(main)
