"""Track targets through a video file, a folder of pictures, a camera or a stream.

python tracking/video_demo.py compresstracker compresstracker_vitb_256_4 film.mp4 --optional_box 300 120 80 60

Writes into --output: the video with boxes, scores and speed drawn, a table of everything (CSV), and of each target the
boxes (one line x y w h per frame, as OSTrack writes them), the scores and the seconds per frame. Ctrl-C ends early and
keeps what was tracked. In the window: q or Esc ends, r draws the boxes anew. More: docs/live.md.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.tracker.choice import add_tracker_options, check_tracker_options, choose_tracker  # noqa: E402
from lib.test.tracker.display import Display, can_display  # noqa: E402
from lib.test.tracker.lost import LostRule  # noqa: E402
from lib.test.tracker.redetect import Redetection  # noqa: E402
from lib.test.tracker.sources import open_source  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

logger = logging.getLogger("video_demo")


def parse_arguments() -> argparse.Namespace:
    rule, search = LostRule(), Redetection()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_tracker_options(parser)
    parser.add_argument("videofile", help="video file, folder of pictures, number of a camera (0 is the first), or "
                                          "address of a stream such as rtsp://host/path")
    parser.add_argument("--box", "--optional_box", type=float, nargs=4, action="append", dest="boxes",
                        metavar=("X", "Y", "W", "H"),
                        help="target in the first frame, pixels; once for each target; without it one box is drawn "
                             "with the mouse")
    parser.add_argument("--lost", type=float, nargs=2, default=(rule.low, rule.high), metavar=("LOW", "HIGH"),
                        help="a target is lost after --lost_frames scores below LOW and found with one of at least "
                             f"HIGH (default: {rule.low} {rule.high}; right for other models: see docs/live.md)")
    parser.add_argument("--lost_frames", type=int, default=rule.frames, metavar="N", help="default: %(default)s")
    parser.add_argument("--redetect", type=int, metavar="RINGS",
                        help="look for a lost target in so many rings of crops around its last sure box: 1 is twice "
                             "the side of the search crop, 2 three times (default: look in the search crop only)")
    parser.add_argument("--accept", type=float, metavar="SCORE",
                        help=f"score from which --redetect takes a find (default: {search.accept})")
    parser.add_argument("--output", help="folder for the files (default: <save_dir>/video_demo)")
    parser.add_argument("--save_results", action="store_true",
                        help="write the boxes to the results folder too, as <tracker>/<config>/video_<name>.txt")
    parser.add_argument("--float", action="store_true", dest="sub_pixel", help="boxes with decimals, not integers")
    parser.add_argument("--fps", type=float, help="frame rate of the written video (default: the source's)")
    parser.add_argument("--max_frames", type=int, help="stop after so many tracked frames")
    parser.add_argument("--no-display", action="store_true", dest="no_display",
                        help="show no window (so it is anyway without a screen or with opencv-python-headless)")
    parser.add_argument("--benchmark", action="store_true", help="tell how long each part of a frame takes")
    parser.add_argument("--debug", type=int, default=0,
                        help="1: log every frame; 2: also draw the score map into the video (default: %(default)s)")
    args = parser.parse_args()
    check_tracker_options(parser, args)
    if args.accept is None:
        args.accept = search.accept
    elif args.redetect is None:
        parser.error("--accept needs --redetect")
    return args


def main() -> int:
    args = parse_arguments()
    lost = LostRule(*args.lost, args.lost_frames)
    redetect = None if args.redetect is None else Redetection(args.redetect, args.accept)
    load_torch()
    from lib.test.tracker.demo import default_output, parts_table, run_demo, save_as_results
    from lib.test.tracker.live import LiveTracker
    from lib.utils.parts import PartTimes

    output = Path(args.output).expanduser() if args.output else default_output(args.save_dir)
    check_output(output, "--output" if args.output else "--save_dir")
    source = open_source(args.videofile)
    choice = choose_tracker(args)
    tracker = choice.make(device=args.device)
    parts = PartTimes(tracker.device) if args.benchmark else None
    display = Display("CompressTracker") if can_display() and not args.no_display else None
    try:
        result = run_demo(LiveTracker(tracker, lost, redetect), source, args.boxes, output, display=display,
                          max_frames=args.max_frames, fps=args.fps, sub_pixel=args.sub_pixel, debug=args.debug,
                          parts=parts)
    finally:
        if display is not None:
            display.close()
    if args.save_results:
        saved = save_as_results(result, args.tracker_name, choice.name, args.save_dir, args.sub_pixel)
        result.files |= {f"results{suffix}": path for suffix, path in zip(result.suffixes(), saved, strict=True)}
    state = "stopped after" if result.interrupted else "tracked"
    logger.info("%s %d frames, %.1f FPS, %d frames dropped", state, len(result.targets), result.fps, result.dropped)
    for kind, path in result.files.items():
        logger.info("%-8s %s", kind, path)
    if parts is not None:
        logger.info("\n".join(["median time of the parts of a frame:", *parts_table(parts, result)]))
    return 130 if result.interrupted and not source.live else 0


if __name__ == "__main__":
    run_script(main)
