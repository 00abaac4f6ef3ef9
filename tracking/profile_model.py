"""Parameters, MACs and speed of a model, beside its 12-layer teacher, the device's own limits and the paper's table.

python tracking/profile_model.py --script compresstracker --config compresstracker_vitb_256_4
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import load_config  # noqa: E402
from lib.deploy.profile import EndToEnd, ProfileOptions, profile_config  # noqa: E402
from lib.deploy.report import report_markdown, report_text  # noqa: E402
from lib.test.tracker import Tracker  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output_file, write_text  # noqa: E402
from lib.utils.frames import open_frames  # noqa: E402
from lib.utils.images import decode_rgb  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

BACKENDS = ("plain", "torch", "fast")
FRAME_SIZE = (1280, 720)
"""Width and height of the made-up frames."""


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
    parser.add_argument("--backend", nargs="+", default=list(BACKENDS), choices=BACKENDS,
                        help="plain, the model as the official code runs it (attention written out), torch, as this "
                             "project does, fast, the optimised module, or several (default: all)")
    parser.add_argument("--precision", nargs="+", default=["float32"],
                        choices=("float32", "auto", "bfloat16", "float16"),
                        help="of weights and features, for each backend; auto is bfloat16 where the device has it, "
                             "else float16 (default: float32)")
    parser.add_argument("--fast", action="append", default=[], metavar="NAME=VALUE",
                        help="an option of backend fast, such as cache_template=false (lib/deploy/fast.py); repeatable")
    parser.add_argument("--switches", action="store_true",
                        help="time backend fast with each of its switches alone, and with each turned round in the "
                             "best options, too")
    parser.add_argument("--exported", action="append", default=[], metavar="FOLDER",
                        help="time what tracking/export_model.py made of this configuration, too; repeatable")
    parser.add_argument("--batch", type=int, nargs="+", default=[1],
                        help="image pairs per forward pass; several sizes are timed one after the other (default: 1)")
    parser.add_argument("--iterations", type=int, help="timed passes of each model (default: 30 on CPU, 1000 on CUDA)")
    parser.add_argument("--warmup", type=int, help="passes before the timed ones (default: 3 on CPU, 100 on CUDA)")
    parser.add_argument("--frames", metavar="PATH",
                        help="video or folder of pictures for the timing of whole frames (default: made-up JPEG "
                             f"pictures of {FRAME_SIZE[0]}x{FRAME_SIZE[1]})")
    parser.add_argument("--model_only", action="store_true", help="time no whole frames and no limits of the device")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")
    parser.add_argument("--markdown", metavar="FILE", help="write a Markdown table there, one row per model and path")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration, for example COMPRESS.INIT=first; repeatable")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.json:
        check_output_file(args.json, "--json")
    cfg = load_config(args.script, args.config, args.overrides)
    against = []
    for name in args.against:
        script, slash, config = name.partition("/")
        if not slash:
            raise UserError(f"--against {name}: expected SCRIPT/CONFIG, for example ostrack/vitb_256_mae_32x4_ep300")
        against.append(load_config(script, config))
    options = ProfileOptions(args.backend, args.precision, args.batch, args.fast, args.exported, args.switches)
    whole = None if args.model_only else own_frames(args.frames) if args.frames else made_up_frames()
    report = profile_config(cfg, against=against, device=args.device, threads=args.threads, options=options,
                            iterations=args.iterations, warmup=args.warmup, floors=not args.model_only,
                            end_to_end=whole)
    print(report_text(report))
    if args.json:
        write_text(Path(args.json).expanduser(), json.dumps(report, indent=2) + "\n")
    if args.markdown:
        write_text(Path(args.markdown).expanduser(), report_markdown(report))


def own_frames(path: str) -> EndToEnd:
    """The frames of a video or folder, from the start again after the last."""
    frames = open_frames(Path(path).expanduser())
    return EndToEnd(Tracker.from_model, lambda number: frames[number % len(frames)], Path(path).name)


def made_up_frames(number: int = 8) -> EndToEnd:
    """JPEG pictures in memory, coarse blots with fine noise, so that decoding costs what it costs for a photograph."""
    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(number):
        coarse = cv2.resize(generator.integers(40, 216, (18, 32, 3), dtype=np.uint8), FRAME_SIZE)
        noise = generator.integers(-6, 7, coarse.shape)
        picture = np.clip(coarse + noise, 0, 255).astype(np.uint8)
        encoded.append(cv2.imencode(".jpg", picture)[1].tobytes())
    return EndToEnd(Tracker.from_model, lambda index: decode_rgb(encoded[index % number], "a made-up frame"),
                    f"{FRAME_SIZE[0]}x{FRAME_SIZE[1]} JPEG")


if __name__ == "__main__":
    run_script(main)
