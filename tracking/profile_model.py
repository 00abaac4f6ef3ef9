"""Parameters, MACs and speed of a model, beside its 12-layer teacher and the paper's table.

python tracking/profile_model.py --script compresstracker --config compresstracker_vitb_256_4

takes less than a minute. More takes longer: --backend and --precision add other ways to run the models, --frames times
whole frames, --floors measures the device's limits, --full does all three.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import load_config  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output_file, write_text  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

if TYPE_CHECKING:
    from lib.deploy.profile import EndToEnd

BACKENDS = ("plain", "torch", "fast")
MADE_UP = "made-up"
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
    parser.add_argument("--full", action="store_true",
                        help="every backend, whole frames and the device's limits: some minutes on a CPU")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS,
                        help="torch, the model as this project trains and runs it, plain, as the official code does "
                             "(attention written out), fast, the optimised module, or several (default: torch)")
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
    parser.add_argument("--seconds", type=float,
                        help="about the longest time for one model on one path; slow models get fewer passes (default: "
                             "15, or no limit with --iterations)")
    parser.add_argument("--iterations", type=int,
                        help="timed passes of each model (default: at most 30 on CPU, 1000 on CUDA)")
    parser.add_argument("--warmup", type=int, help="passes before the timed ones (default: 3 on CPU, 100 on CUDA)")
    parser.add_argument("--frames", metavar="PATH", nargs="?", const=MADE_UP,
                        help="time whole frames, too (decode, crop, network, box), of a video or folder of pictures; "
                             f"without PATH of made-up JPEG pictures of {FRAME_SIZE[0]}x{FRAME_SIZE[1]}")
    parser.add_argument("--floors", action="store_true",
                        help="measure what the device can do at most, and how far each pass is from that")
    parser.add_argument("--model_only", action="store_true", help="with --full: no whole frames, no limits")
    parser.add_argument("--json", metavar="FILE", help="write the report there too")
    parser.add_argument("--markdown", metavar="FILE", help="write a Markdown table there, one row per model and path")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration, for example COMPRESS.INIT=first; repeatable")
    args = parser.parse_args()
    if args.full:
        args.backend, args.floors, args.frames = args.backend or BACKENDS, True, args.frames or MADE_UP
    if args.model_only:
        args.floors, args.frames = False, None
    return args


def main() -> None:
    args = parse_arguments()
    for option in ("json", "markdown"):
        if getattr(args, option):
            check_output_file(getattr(args, option), f"--{option}")
    cfg = load_config(args.script, args.config, args.overrides)
    against = []
    for name in args.against:
        script, slash, config = name.partition("/")
        if not slash:
            raise UserError(f"--against {name}: expected SCRIPT/CONFIG, for example ostrack/vitb_256_mae_32x4_ep300")
        against.append(load_config(script, config))
    load_torch()
    from lib.deploy.profile import ProfileOptions, profile_config
    from lib.deploy.report import report_markdown

    options = ProfileOptions(args.backend or ("torch",), args.precision, args.batch, args.fast, args.exported,
                             args.switches)
    frames = args.frames and (made_up_frames() if args.frames == MADE_UP else own_frames(args.frames))
    report = profile_config(cfg, against=against, device=args.device, threads=args.threads, options=options,
                            iterations=args.iterations, warmup=args.warmup, seconds=args.seconds, floors=args.floors,
                            end_to_end=frames, tell=lambda part: print(f"{part}\n", flush=True))
    if args.json:
        write_text(Path(args.json).expanduser(), json.dumps(report, indent=2) + "\n")
    if args.markdown:
        write_text(Path(args.markdown).expanduser(), report_markdown(report))


def own_frames(path: str) -> "EndToEnd":
    """The frames of a video or folder, from the start again after the last."""
    from lib.deploy.profile import EndToEnd
    from lib.test.tracker import Tracker
    from lib.utils.frames import open_frames

    frames = open_frames(Path(path).expanduser())
    return EndToEnd(Tracker.from_model, lambda number: frames[number % len(frames)], Path(path).name)


def made_up_frames(number: int = 8) -> "EndToEnd":
    """JPEG pictures in memory, coarse blots with fine noise, so that decoding costs what it costs for a photograph."""
    import cv2
    import numpy as np

    from lib.deploy.profile import EndToEnd
    from lib.test.tracker import Tracker
    from lib.utils.images import decode_rgb

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
