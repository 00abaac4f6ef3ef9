"""Pack data sets into LMDB, in the layout of the OSTrack family.

python tracking/make_lmdb.py LASOT
python tracking/make_lmdb.py TRACKINGNET --output /fast/trackingnet_lmdb
python tracking/make_lmdb.py FOLDER:data/my_videos

Names are those of the yaml's DATASETS_NAME. The folders or zip archives are read; the LMDB appears at its place when it
is whole and verified. After an interruption the same command goes on.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.train.admin.environment import env_settings  # noqa: E402
from lib.train.dataset import StoredDataset, open_dataset, place_of  # noqa: E402
from lib.train.dataset.packing import check_place, describe, pack, plan, verify, write_sequence_list  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

logger = logging.getLogger(__name__)

SHOWN = 20
"""Problems that are shown one by one."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="LASOT, GOT10K_train_full, TRACKINGNET, COCO17, ..., "
                        "FOLDER:<path>, COCO:<annotation json>@<image folder>")
    parser.add_argument("--output", help="folder of the LMDB, for one NAME (default: its *_lmdb_dir setting; of "
                        "data of your own, <path>_lmdb)")
    parser.add_argument("--source", choices=("auto", "directory", "zip"), default="auto",
                        help="form to read (default: the folder where there is one, else zip)")
    parser.add_argument("--verify-only", action="store_true", help="compare an LMDB that is there with the files")
    parser.add_argument("--sample", type=int, default=1000, metavar="N",
                        help="compare the checksum of N files, evenly spread, and the size of the others; 0 compares "
                             "all checksums (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.output and len(args.names) > 1:
        parser.error("--output goes with one NAME")
    if args.sample < 0:
        parser.error("--sample must not be negative")
    return args


def work_on(name: str, args: argparse.Namespace) -> int:
    """Pack or verify one data set. Returns the exit status."""
    env = env_settings()
    output = args.output or place_of(name, env).lmdb
    if not output:
        raise UserError(f"{name}: no place for the LMDB; give --output or set {place_of(name, env).lmdb_field}")
    if not args.verify_only:
        check_output(Path(output).parent, "--output")
    dataset = _source(name, env, args.source)
    targets = plan(dataset, output)
    if not args.verify_only:
        for target in targets:
            check_place(target)
    logger.info("%s: %s from %s", name, describe(targets), dataset.storage.root)
    status = 0
    for target in targets:
        written = not args.verify_only and pack(dataset.storage, target)
        if written:
            logger.info("wrote %s (%d files)", target.folder, len(target))
            continue
        if not args.verify_only:
            logger.info("%s is there already and is verified; to pack it anew, remove it", target.folder)
        problems = verify(dataset.storage, target, sample=args.sample)
        for problem in problems[:SHOWN]:
            logger.error("%s: %s", target.folder, problem)
        logger.info("%s: %d of %d files are wrong", target.folder, len(problems), len(target))
        status = max(status, int(bool(problems)))
    if not args.verify_only:
        write_sequence_list(dataset, output)
    return status


def _source(name: str, env: object, form: str) -> StoredDataset:
    """The data set in a form that can be packed."""
    if form != "auto":
        return open_dataset(name, env, form)
    try:
        return open_dataset(name, env, "directory")
    except UserError as no_folder:
        try:
            return open_dataset(name, env, "zip")
        except UserError:
            raise no_folder from None


def main() -> int:
    args = parse_arguments()
    return max(work_on(name, args) for name in args.names)


if __name__ == "__main__":
    run_script(main)
