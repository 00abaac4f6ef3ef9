"""Parameters, MACs and speed of a model, beside its 12-layer teacher and the paper's table.

python tracking/profile_model.py --script compresstracker --config compresstracker_vitb_256_4
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import load_config  # noqa: E402
from lib.deploy.profile import profile_config, report_text  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import write_text  # noqa: E402
from lib.utils.log import run_script  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="compresstracker", help="folder below experiments/ (default: %(default)s)")
    parser.add_argument("--config", default="compresstracker_vitb_256_4",
                        help="name of the yaml file, or its path (default: %(default)s)")
    parser.add_argument("--against", action="append", default=[], metavar="SCRIPT/CONFIG",
                        help="time another configuration's model in the same run, for example "
                             "ostrack/vitb_256_mae_ce_32x4_ep300 (the teacher with candidate elimination); repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--batch", type=int, default=1, help="image pairs per forward pass (default: %(default)s)")
    parser.add_argument("--iterations", type=int, help="timed passes of each model (default: 30 on CPU, 1000 on CUDA)")
    parser.add_argument("--warmup", type=int, help="passes before the timed ones (default: 3 on CPU, 100 on CUDA)")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration, for example COMPRESS.INIT=first; repeatable")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    cfg = load_config(args.script, args.config, args.overrides)
    against = []
    for name in args.against:
        script, slash, config = name.partition("/")
        if not slash:
            raise UserError(f"--against {name}: expected SCRIPT/CONFIG, for example ostrack/vitb_256_mae_32x4_ep300")
        against.append(load_config(script, config))
    report = profile_config(cfg, against=against, device=args.device, threads=args.threads, batch=args.batch,
                            iterations=args.iterations, warmup=args.warmup)
    print(report_text(report))
    if args.json:
        write_text(Path(args.json).expanduser(), json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
