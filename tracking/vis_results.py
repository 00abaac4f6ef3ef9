#!/usr/bin/env python
"""Draw the boxes of several trackers on a sequence, as a video or as a picture of several frames."""

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.test.analysis.conventions import convention_for  # noqa: E402
from lib.test.analysis.results import boxes_of  # noqa: E402
from lib.test.analysis.run import choose_trackers  # noqa: E402
from lib.test.analysis.sources import find_results  # noqa: E402
from lib.test.evaluation import get_dataset  # noqa: E402
from lib.test.evaluation.environment import env_settings  # noqa: E402
from lib.test.tracker.choice import EPOCH_HELP, WEIGHTS_HELP, check_weights_options  # noqa: E402
from lib.utils.box_forms import FORMS  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output_file  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

if TYPE_CHECKING:
    from lib.test.analysis.drawing import Rerun

logger = logging.getLogger("vis_results")

EXAMPLES = """examples:
  all trackers with results of that sequence, as a video with each one's IoU:
    python tracking/vis_results.py --dataset lasot --sequence airplane-1 --iou
  two of them, and a third one's files from elsewhere, as a picture of some frames:
    python tracking/vis_results.py --dataset lasot --sequence airplane-1 --tracker ostrack:vitb_256_mae_32x4_ep300 \\
        --tracker compresstracker:compresstracker_vitb_256_4=ours --result Other=/path/to/txt \\
        --frames 0,100,400-420 --output airplane.png
  what ours looks at: it runs again, with its score map and the attention of layer 3 beside each frame:
    python tracking/vis_results.py --dataset folder:data/my_videos --sequence car \\
        --run compresstracker:compresstracker_vitb_256_4 --score-map --attention 3
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", "--dataset_name", dest="dataset", required=True, metavar="NAME",
        help="as for tracking/test.py: lasot, got10k_val, ..., folder:<path>")
    add("--sequence", required=True, help="name of the sequence, or its number from 0")
    add("--tracker", action="append", default=[], metavar="SCRIPT:CONFIG[:RUNID][=LABEL]",
        help="a tracker of the results folder; repeatable (default, without --result and --run: all with results)")
    add("--result", action="append", default=[], metavar="NAME=PATH",
        help="results from elsewhere, as for tracking/analysis_results.py; repeatable")
    add("--box-format", action="append", default=[], metavar="[NAME=]FORM",
        help=f"form of the boxes of all --result or of one: {', '.join(FORMS)}; repeatable (default: xywh, checked)")
    add("--results", type=Path, metavar="DIR", help="folder with the results (default: from local.py)")
    add("--save_dir", type=Path, metavar="DIR",
        help="as given to tracking/test.py: results in DIR/test/tracking_results, pictures in DIR/test/vis_results")
    add("--no-truth", action="store_true", help="leave the true boxes out")
    add("--iou", action="store_true", help="show each tracker's IoU with the true box")
    frames = parser.add_argument_group("frames")
    frames.add_argument("--frames", metavar="LIST", help="numbers from 0 and ranges, as in 0,50,100-200 (default: all; "
                        "for a picture 8, evenly spread)")
    frames.add_argument("--every", type=int, metavar="N", help="of these every N-th")
    run = parser.add_argument_group("a tracker that runs again")
    run.add_argument("--run", metavar="SCRIPT:CONFIG[=LABEL]", help="track the sequence now with this configuration")
    run.add_argument("--score-map", action="store_true", help="its score map over the search crop, beside the frame")
    run.add_argument("--attention", type=int, metavar="LAYER",
                     help="the template's attention to the search crop in that layer (from 0; -1 is the last)")
    run.add_argument("--checkpoint", type=Path, help=f"its {WEIGHTS_HELP}")
    run.add_argument("--epoch", type=int, help=EPOCH_HELP)
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    run.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                     help="override a key of the config; may be repeated")
    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE", help=".mp4 or .avi for a video, .png or .jpg for a "
                        "picture (default: vis_results/<data set>_<sequence>.mp4 beside the results)")
    output.add_argument("--fps", type=float, default=25.0, help="of the video (default %(default)s)")
    output.add_argument("--columns", type=int, default=4, help="of the picture (default %(default)s)")
    output.add_argument("--width", type=int, help="pixels of a frame in the picture (default: the frame's)")
    options = parser.parse_args(arguments)
    for name in ("every", "columns", "width"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if not 0 < options.fps <= 1000:
        parser.error("--fps must be above 0 and at most 1000")
    if not options.run and (options.score_map or options.attention is not None):
        parser.error("--score-map and --attention need --run, the tracker that makes them")
    if not options.run and (options.checkpoint or options.epoch is not None or options.overrides):
        parser.error("--checkpoint, --epoch and --set belong to the tracker of --run")
    check_weights_options(parser, options)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Draw and say where."""
    options = parse(arguments)
    load_torch()
    from lib.test.analysis.drawing import choose_frames, draw_results

    env = env_settings()
    sequence, = get_dataset(options.dataset, env, options.sequence)
    folder = options.save_dir / "test" if options.save_dir else Path(env.save_dir) / "test"
    name = re.sub(r"[^\w.+-]+", "_", f"{sequence.dataset}_{sequence.name}")
    output = options.output or folder / "vis_results" / f"{name}.mp4"
    check_output_file(output, "--output" if options.output else "--save_dir")
    strip = output.suffix.lower() not in (".mp4", ".avi")
    frames = choose_frames(sequence.length, options.frames, options.every, strip)
    tracks = {}
    if options.tracker or options.result or not options.run:
        results = options.results or (folder / "tracking_results" if options.save_dir else Path(env.results_path))
        sources, named = choose_trackers(results, options.tracker, options.result, box_formats=options.box_format)
        present = [source for source in sources if any(find_results(source, [sequence]))]
        lacking = [source for source in sources if source not in present]
        if not present or (named and lacking):
            raise UserError(f"{options.dataset}: {'; '.join(source.lacking([sequence]) for source in lacking)}; or run "
                            "a tracker here with --run")
        tracks = {source.label: boxes_of(source, sequence, convention_for(sequence.dataset)) for source in present}
    path = draw_results(sequence, tracks, output, frames, truth=not options.no_truth, rerun=rerun(options),
                        with_iou=options.iou, fps=options.fps, columns=options.columns, cell_width=options.width)
    logger.info("%d frames in %s", len(frames), path)
    return 0


def rerun(options: argparse.Namespace) -> "Rerun | None":
    """The tracker that runs again, when one is asked for."""
    if not options.run:
        return None
    match = re.fullmatch(r"([^:=]+):([^=]+)(?:=(.+))?", options.run)
    if not match:
        raise UserError(f"--run {options.run}: expected script:config, or script:config=label")
    from lib.test.analysis.drawing import Rerun
    from lib.test.tracker import Tracker

    script, config, label = match.groups()
    tracker = Tracker.from_config(script, config, checkpoint=options.checkpoint, epoch=options.epoch,
                                  save_dir=options.save_dir, device=options.device, overrides=options.overrides)
    return Rerun(label or f"{Path(config).stem} (run)", tracker, options.score_map, options.attention)


if __name__ == "__main__":
    run_script(main)
