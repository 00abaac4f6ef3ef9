#!/usr/bin/env python
"""Write a trained tracker for ONNX Runtime, OpenVINO, TensorRT or PyTorch's own runtimes, and check it."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.deploy.formats import PRECISIONS, ExportOptions  # noqa: E402
from lib.deploy.manifest import MANIFEST  # noqa: E402
from lib.test.evaluation.environment import env_settings  # noqa: E402
from lib.test.tracker.choice import EPOCH_HELP, WEIGHTS_HELP, check_weights_options  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402

logger = logging.getLogger("export")

EXAMPLES = """examples:
  python tracking/export_model.py --script compresstracker --config compresstracker_vitb_256_4 --format onnx
  python tracking/export_model.py --script compresstracker --config compresstracker_vitb_256_4 --format openvino \\
      --precision int8 --frames data/my_videos
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = ExportOptions()
    add("--script", required=True, help="a tracker family or compresstracker")
    add("--config", required=True, help="name of a file in experiments/<script>, without .yaml, or its path")
    add("--format", required=True, choices=PRECISIONS, help="what to write")
    add("--precision", default=default.precision, choices=sorted({p for all in PRECISIONS.values() for p in all}),
        help="number format (default: %(default)s); which goes with which format: docs/export.md")
    add("--batch", type=int, default=default.batch, help="images per call; 0 for any number (default: %(default)s)")
    add("--joint", action="store_true",
        help="one graph of template and search crop; default: one that embeds the template, one for each frame")
    add("--pixels", action="store_true", help="take uint8 crops and normalise inside the graph")
    add("--maps", action="store_true",
        help="give the maps of size and offset, too; default: score map and box, which is less work")
    add("--frames", metavar="FOLDER[@LIST]",
        help="sequences with boxes: the check's crops, and the ranges of int8, come from there (default: made up)")
    add("--crops", type=int, default=default.calibration_crops, metavar="N",
        help="crops that the ranges of int8 are measured on (default: %(default)s)")
    add("--checks", type=int, default=default.check_crops, metavar="N",
        help="crops that the result is compared with PyTorch on (default: %(default)s)")
    add("--output", type=Path,
        help="folder to write; default: <save_dir>/exports/<script>/<config>/<format>_<precision>")
    add("--save_dir", type=Path, help="folder of checkpoints and exports; default: save_dir of the environment file")
    add("--checkpoint", type=Path, help=WEIGHTS_HELP)
    add("--epoch", type=int, help=EPOCH_HELP)
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of the config; may be repeated")
    args = parser.parse_args(arguments)
    check_weights_options(parser, args)
    return args


def main(arguments: list[str] | None = None) -> None:
    """Export, and say how far the result is from PyTorch's."""
    args = parse(arguments)
    options = ExportOptions(format=args.format, precision=args.precision, batch=args.batch, joint=args.joint,
                            take_pixels=args.pixels, maps=args.maps, frames=args.frames, calibration_crops=args.crops,
                            check_crops=args.checks)
    load_torch()
    from lib.deploy.export import export_model
    from lib.families.build import build_for_test
    from lib.models.checkpoint import load_weights
    from lib.test.tracker import find_checkpoint

    cfg, checkpoint = find_checkpoint(args.script, args.config, checkpoint=args.checkpoint, epoch=args.epoch,
                                      save_dir=args.save_dir, overrides=args.overrides)
    save_dir = args.save_dir or env_settings().save_dir
    target = args.output or Path(save_dir) / "exports" / cfg.script / cfg.name / f"{args.format}_{args.precision}"
    check_output(target.parent, "--output" if args.output else "--save_dir")
    model = build_for_test(cfg)
    load_weights(model, checkpoint, role="test")
    if (target / MANIFEST).is_file():
        logger.info("an earlier export there will be replaced: %s (--output writes elsewhere)", target)
    manifest = export_model(model, cfg, checkpoint, target, options)
    shown = ", ".join(f"{name} {value:.2g}" for name, value in manifest.largest_difference.items())
    logger.info("largest difference from PyTorch on crops of %s: %s", manifest.checked_on, shown)
    logger.info("written: %s (%s)", target, ", ".join(part.file for part in manifest.parts.values()))


if __name__ == "__main__":
    run_script(main)
