"""How fast a configuration trains on this machine, part by part, beside the plain way and the floor.

python tracking/profile_training.py --config compresstracker_vitb_256_4 --set TRAIN.AMP=true
python tracking/profile_training.py --data rendered --set TRAIN.AMP=true --set TRAIN.TOTAL_BATCH=16
python tracking/profile_training.py --loader
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import load_config  # noqa: E402
from lib.utils.files import check_output_file, write_text  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="compresstracker", help="folder below experiments/ (default: %(default)s)")
    parser.add_argument("--config", default="compresstracker_vitb_256_4",
                        help="name of the yaml file, or its path (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="rounds of every way (default: 3; 5 with --loader)")
    parser.add_argument("--work_dir", metavar="FOLDER",
                        help="keep rendered frames and packed crops there (default: a folder that is removed)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration, such as TRAIN.AMP=true; repeatable")
    step = parser.add_argument_group("steps of the trainer, on one process, with random weights")
    step.add_argument("--data", default="random", metavar="{random,rendered,config,FOLDER}",
                      help="one batch of noise without loading; rendered JPEG frames of 1280 x 720 pixels; the "
                           "configuration's own data sets; or a folder of sequences (default: %(default)s)")
    step.add_argument("--no-plain", action="store_true", help="leave the plain way out: float32, attention written "
                      "out, and the loader of the OSTrack family")
    step.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    step.add_argument("--steps", type=int, help="timed steps of a round (default: 3 on CPU, 40 on CUDA)")
    step.add_argument("--warmup", type=int, help="steps of a round before those (default: 1 on CPU, 10 on CUDA)")
    loader = parser.add_argument_group("the loader alone")
    loader.add_argument("--loader", action="store_true",
                        help="pairs per second and core of every loader, beside the plain way of the OSTrack family")
    loader.add_argument("--frames", metavar="FOLDER", help="measure on these sequences (laid out as FOLDER: data sets) "
                        "instead of rendered ones")
    loader.add_argument("--count", type=int, default=100, help="frames to render (default: %(default)s)")
    loader.add_argument("--frame_size", type=int, nargs=2, default=(1280, 720), metavar=("WIDTH", "HEIGHT"),
                        help="of the rendered frames (default: 1280 720)")
    loader.add_argument("--kilobytes", type=int, default=370, help="of a rendered frame's file (default: %(default)s)")
    loader.add_argument("--pairs", type=int, default=64, help="pairs of a round (default: %(default)s)")
    loader.add_argument("--workers", type=int, default=0,
                        help="also measure whole loaders with so many workers (default: none)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.json:
        check_output_file(args.json, "--json")
    cfg = load_config(args.script, args.config, args.overrides)
    load_torch()
    if args.loader:
        from lib.train.profiling import loader

        report = loader.profile_loader(cfg, frames=args.frames, count=args.count, width=args.frame_size[0],
                                       height=args.frame_size[1], kilobytes=args.kilobytes, pairs=args.pairs,
                                       rounds=args.rounds or 5, work_dir=args.work_dir, device=args.device,
                                       workers=args.workers)
        text = loader.report_text(report)
    else:
        from lib.train.profiling import step

        report = step.profile_training(cfg, data=args.data, plain=not args.no_plain, device=args.device,
                                       rounds=args.rounds or 3, steps=args.steps, warmup=args.warmup,
                                       threads=args.threads, work_dir=args.work_dir)
        text = step.report_text(report)
    print(text)
    if args.json:
        write_text(Path(args.json).expanduser(), json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
