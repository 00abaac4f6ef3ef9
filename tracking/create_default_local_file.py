"""Write lib/train/admin/local.py and lib/test/evaluation/local.py, which hold the paths of this machine."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.utils.local_files import write_local_files  # noqa: E402
from lib.utils.log import run_script  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__ + " Without them the defaults count, which are what `--workspace_dir . --data_dir ./data "
        "--save_dir ./output` writes at the repository root. Relative folders start at the working directory.")
    parser.add_argument("--workspace_dir", required=True, help="the project's folder")
    parser.add_argument("--data_dir", required=True, help="folder of the data sets (lasot, got10k, coco, trackingnet)")
    parser.add_argument("--save_dir", required=True, help="folder for checkpoints, logs and results")
    args = parser.parse_args()
    write_local_files(args.workspace_dir, args.data_dir, args.save_dir)


if __name__ == "__main__":
    run_script(main)
