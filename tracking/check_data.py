"""Look through data sets for missing and broken files, lengths and boxes that do not fit.

python tracking/check_data.py LASOT GOT10K_vottrain FOLDER:data/my_videos
python tracking/check_data.py --script compresstracker --config compresstracker_vitb_256_4 --sample 5

Names are those of the yaml's DATASETS_NAME. The exit status is 0 when nothing was found, 1 when something was, 2 when a
data set is not there at all.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import SCRIPTS, load_config  # noqa: E402
from lib.train.admin.environment import env_settings  # noqa: E402
from lib.train.dataset import open_dataset  # noqa: E402
from lib.train.dataset.checking import check_dataset  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output_file, write_text  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

logger = logging.getLogger(__name__)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="LASOT, COCO17, FOLDER:<path>, ...")
    parser.add_argument("--script", choices=SCRIPTS,
                        help="with --config: whose experiment it is")
    parser.add_argument("--config", help="check all data sets of an experiment: name below experiments/<script>/, or "
                        "the path of a yaml file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the --config")
    parser.add_argument("--storage", choices=("auto", "directory", "lmdb", "zip"),
                        help="form of the data sets (default: DATA.STORAGE of the --config, else auto)")
    parser.add_argument("--decode", action="store_true", help="decode the pictures instead of reading their headers")
    parser.add_argument("--sample", type=int, default=0, metavar="N",
                        help="look at N pictures of each sequence, evenly spread (default: all)")
    parser.add_argument("--threads", type=int, default=8,
                        help="sequences that are looked through at once (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all that was found")
    parser.add_argument("--benchmark", type=int, metavar="N",
                        help="instead of checking: measure how long a training's start takes with N made-up sequences "
                             "of TrackingNet's length, and the memory that it needs; in folders, or with --storage zip "
                             "in archives")
    args = parser.parse_args(arguments)
    if args.benchmark is None and not args.names and not args.config:
        parser.error("name data sets, or an experiment with --script and --config")
    if bool(args.script) != bool(args.config) or (args.overrides and not args.config):
        parser.error("--script and --config go together, and --set goes with them")
    if args.sample < 0 or args.threads < 1 or (args.benchmark is not None and args.benchmark < 1):
        parser.error("--sample must not be negative; --threads and --benchmark must be at least 1")
    return args


def chosen(args: argparse.Namespace) -> tuple[list[str], str]:
    """Names of the data sets and the form that they are read in."""
    names, storage = [_as_in_yaml(name) for name in args.names], args.storage or "auto"
    if args.config:
        cfg = load_config(args.script, args.config, args.overrides)
        names += [*cfg.DATA.TRAIN.DATASETS_NAME, *cfg.DATA.VAL.DATASETS_NAME]
        storage = args.storage or cfg.DATA.STORAGE
    return list(dict.fromkeys(names)), storage


def _as_in_yaml(name: str) -> str:
    """A data set's name; folder:<path>, as the test scripts have it, is FOLDER:<path>."""
    kind, colon, path = name.partition(":")
    return f"{kind.upper()}{colon}{path}" if colon else name


def main() -> int:
    args = parse_arguments()
    if args.benchmark is not None:
        from lib.train.dataset.startup import measure_startup

        print(measure_startup(args.benchmark, form=args.storage or "directory"))
        return 0
    names, storage = chosen(args)
    if args.json:
        check_output_file(args.json, "--json")
    env, reports, absent = env_settings(), [], []
    for name in names:
        try:
            dataset = open_dataset(name, env, storage)
            reports.append(check_dataset(dataset, decode=args.decode, sample=args.sample, threads=args.threads))
            print(reports[-1].text())
        except UserError as error:
            logger.error("%s", error)
            absent.append({"dataset": name, "error": str(error)})
    if args.json:
        content = {"clean": not absent and all(r.clean for r in reports), "absent": absent,
                   "reports": [r.to_dict() for r in reports]}
        write_text(args.json, json.dumps(content, indent=1) + "\n")
    return 2 if absent else int(not all(report.clean for report in reports))


if __name__ == "__main__":
    run_script(main)
