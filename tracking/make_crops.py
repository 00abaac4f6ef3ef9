"""Pack the crops that a recipe draws, for DATA.LOADER crops.

python tracking/make_crops.py --script compresstracker --config compresstracker_vitb_256_4 --stride TRACKINGNET=10
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import load_config  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

logger = logging.getLogger(__name__)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="compresstracker", help="folder below experiments/ (default: %(default)s)")
    parser.add_argument("--config", default="compresstracker_vitb_256_4",
                        help="name of the yaml file, or its path; crops, jitter and data sets are taken from it "
                             "(default: %(default)s)")
    parser.add_argument("--datasets", nargs="+", metavar="NAME",
                        help="data sets to pack (default: those of DATA.TRAIN and DATA.VAL)")
    parser.add_argument("--stride", nargs="+", default=[], metavar="[NAME=]N",
                        help="store every N-th frame of videos, of all data sets or of the one named (default: 1)")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG files (default: %(default)s)")
    parser.add_argument("--quantile", type=float, default=0.99,
                        help="share of the jittered crops that is held whole; the rest is drawn again (default: "
                             "%(default)s)")
    parser.add_argument("--density", type=float, default=1.5,
                        help="stored pixels per pixel of an unjittered crop: higher is nearer to whole frames, but "
                             "larger (default: %(default)s)")
    parser.add_argument("--max_side", type=int, default=1280,
                        help="longest side of a stored picture in pixels (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1,
                        help="processes; 0 works in this one (default: one per core)")
    parser.add_argument("--estimate", action="store_true", help="only say how much disk it takes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration; repeatable")
    args = parser.parse_args()
    for name, low, high in (("quality", 1, 100), ("max_side", 16, 65500), ("workers", 0, 1024)):
        if not low <= getattr(args, name) <= high:
            parser.error(f"--{name} is {getattr(args, name)}; it must be {low} to {high}")
    if not args.density > 0:
        parser.error(f"--density is {args.density:g}; it must be positive")
    if not 0 < args.quantile < 1:
        parser.error(f"--quantile is {args.quantile:g}; it must lie between 0 and 1")
    return args


def strides(texts: list[str], datasets: list[str]) -> dict[str, int]:
    """Data set -> stride, of what --stride was given."""
    by_dataset = dict.fromkeys(datasets, 1)
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (name and name not in by_dataset):
            raise UserError(f"--stride {text}: expected N or NAME=N with N at least 1 and NAME one of "
                            f"{', '.join(datasets)}")
        by_dataset.update(dict.fromkeys([name] if name else datasets, int(number)))
    return by_dataset


def main() -> None:
    args = parse_arguments()
    load_torch()
    from lib.train.admin.environment import env_settings
    from lib.train.data.packing import Packing, Recipe
    from lib.train.data.processing import View
    from lib.train.dataset import build_dataset

    cfg = load_config(args.script, args.config, args.overrides)
    datasets = args.datasets or list(dict.fromkeys([*cfg.DATA.TRAIN.DATASETS_NAME, *cfg.DATA.VAL.DATASETS_NAME]))
    stride, env = strides(args.stride, datasets), env_settings()
    if not args.estimate:
        check_output(env.crops_dir, "COMPRESSTRACKER_CROPS_DIR")
    for name in datasets:
        recipe = Recipe(name, View.of(cfg.DATA.TEMPLATE), View.of(cfg.DATA.SEARCH), quantile=args.quantile,
                        stride=stride[name], quality=args.quality, density=args.density, max_side=args.max_side)
        packing = Packing(recipe, build_dataset(name, env, cfg.DATA.STORAGE), env.crops_dir)
        if args.estimate:
            logger.info("%s: %d frames, about %.2f GB in %s", name, packing.frames, packing.estimate() / 1e9,
                        packing.folder)
        else:
            packing.run(args.workers, cfg.DATA.MAX_UNREADABLE)


if __name__ == "__main__":
    run_script(main)
