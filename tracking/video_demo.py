"""Track one target through a video file, a folder of pictures or a camera.

python tracking/video_demo.py compresstracker compresstracker_vitb_256_4 film.mp4 --optional_box 300 120 80 60

Writes into --output: the video with the box, score and speed drawn, the boxes (one line x y w h per frame, as OSTrack
writes them), the scores and the seconds per frame. Ctrl-C ends early and keeps what was tracked.
In the window: q or Esc ends, r draws a new box.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.tracker.demo import default_output, run_demo, save_as_results  # noqa: E402
from lib.test.tracker.display import Display, can_display  # noqa: E402
from lib.test.tracker.sources import open_source  # noqa: E402
from lib.test.tracker.tracker import Tracker  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

logger = logging.getLogger("video_demo")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker_name", help="script: ostrack or compresstracker")
    parser.add_argument("tracker_param", help="configuration: name of the yaml file, or its path")
    parser.add_argument("videofile", help="video file, folder of pictures, or number of a camera (0 is the first)")
    parser.add_argument("--optional_box", type=float, nargs=4, metavar=("X", "Y", "W", "H"),
                        help="target in the first frame, pixels; without it the box is drawn with the mouse")
    parser.add_argument("--checkpoint", help="weights (default: where training leaves them for this configuration)")
    parser.add_argument("--save_dir", help="folder that training wrote to (default: the one of local.py)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--output", help="folder for the files (default: <save_dir>/video_demo)")
    parser.add_argument("--save_results", action="store_true",
                        help="write the boxes to the results folder too, as <tracker>/<config>/video_<name>.txt")
    parser.add_argument("--float", action="store_true", dest="sub_pixel", help="boxes with decimals, not integers")
    parser.add_argument("--fps", type=float, help="frame rate of the written video (default: the source's)")
    parser.add_argument("--max_frames", type=int, help="stop after so many frames")
    parser.add_argument("--no-display", action="store_true", dest="no_display",
                        help="show no window (so it is anyway without a screen or with opencv-python-headless)")
    parser.add_argument("--debug", type=int, default=0,
                        help="1: log every frame; 2: also draw the score map into the video (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration; repeatable")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    source = open_source(args.videofile)
    tracker = Tracker.from_config(args.tracker_name, args.tracker_param, checkpoint=args.checkpoint,
                                  save_dir=args.save_dir, device=args.device, overrides=args.overrides)
    output = Path(args.output).expanduser() if args.output else default_output(args.save_dir)
    display = Display("CompressTracker") if can_display() and not args.no_display else None
    try:
        result = run_demo(tracker, source, args.optional_box, output, display=display,
                          max_frames=args.max_frames, fps=args.fps, sub_pixel=args.sub_pixel, debug=args.debug)
    finally:
        if display is not None:
            display.close()
    if args.save_results:
        result.files["results"] = save_as_results(result, args.tracker_name, args.tracker_param, source.name,
                                                  args.save_dir, args.sub_pixel)
    state = "stopped after" if result.interrupted else "tracked"
    logger.info("%s %d frames, %.1f FPS", state, len(result.boxes_xywh), result.fps)
    for kind, path in result.files.items():
        logger.info("%-8s %s", kind, path)
    return 130 if result.interrupted and not source.live else 0


if __name__ == "__main__":
    run_script(main)
