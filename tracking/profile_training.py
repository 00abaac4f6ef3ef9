"""What a training waits for, measured on this machine.

python tracking/profile_training.py --loader
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import load_config  # noqa: E402
from lib.utils.files import write_text  # noqa: E402
from lib.utils.log import run_script  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="compresstracker", help="folder below experiments/ (default: %(default)s)")
    parser.add_argument("--config", default="compresstracker_vitb_256_4",
                        help="name of the yaml file, or its path (default: %(default)s)")
    parser.add_argument("--loader", action="store_true", required=True,
                        help="pairs per second and core of every loader, beside the plain way of the OSTrack family")
    parser.add_argument("--frames", metavar="FOLDER", help="measure on these sequences (laid out as FOLDER: data sets) "
                        "instead of rendered ones")
    parser.add_argument("--count", type=int, default=100, help="frames to render (default: %(default)s)")
    parser.add_argument("--frame_size", type=int, nargs=2, default=(1280, 720), metavar=("WIDTH", "HEIGHT"),
                        help="of the rendered frames (default: 1280 720)")
    parser.add_argument("--kilobytes", type=int, default=370, help="of a rendered frame's file (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="pairs of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every loader (default: %(default)s)")
    parser.add_argument("--work_dir", metavar="FOLDER",
                        help="keep rendered frames and packed crops there (default: a folder that is removed)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0,
                        help="also measure whole loaders with so many workers (default: none)")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration; repeatable")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from lib.train.profiling.loader import profile_loader, report_text

    cfg = load_config(args.script, args.config, args.overrides)
    report = profile_loader(cfg, frames=args.frames, count=args.count, width=args.frame_size[0],
                            height=args.frame_size[1], kilobytes=args.kilobytes, pairs=args.pairs,
                            rounds=args.rounds, work_dir=args.work_dir, device=args.device, workers=args.workers)
    print(report_text(report))
    if args.json:
        write_text(Path(args.json).expanduser(), json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
