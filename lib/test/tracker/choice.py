"""Which tracker a command line asks for: the options that the scripts share, and the tracker that they name."""

import argparse
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import Config, load_config
from ...deploy.formats import ENGINES
from ...deploy.manifest import Manifest
from ...utils.errors import UserError
from ...utils.files import file_hash
from ..evaluation import manifest

if TYPE_CHECKING:
    from .tracker import Tracker

logger = logging.getLogger(__name__)

FROM_WEIGHTS = ("torch", "fast")
"""Backends that run the weights; the others run what tracking/export_model.py wrote."""

OPENCV = "opencv"
"""The script of OpenCV's trackers, whose configurations are the names in `opencv.KINDS`."""
WEIGHTS_HELP = "weights; default: what training left in <save_dir>/checkpoints/train, else the config's TEST.CHECKPOINT"
EPOCH_HELP = "epoch of the training's checkpoint; default: TEST.EPOCH of the config"
SYNTAX = "SCRIPT/CONFIG[=LABEL][@PATH]"
"""Of a tracker in one word, for `parse_tracker`."""


@dataclass(frozen=True)
class Choice:
    """A tracker that was asked for.

    Attributes:
        cfg: its configuration; None for a tracker of OpenCV's.
        weights: the file with its weights, or the graph of an exported tracker that runs in every frame; None for a
            tracker without any.
        name: what its results are called: the configuration, then backend and number format where they are not plain.
        make: builds it, called with `device`; can be pickled.
        batch: images that one pass takes, or "batch" for any number.
        settings: what decides on its boxes beside weights and configuration.
    """

    cfg: Config | None
    weights: Path | None
    name: str
    make: "Callable[..., Tracker]"
    batch: int | str = "batch"
    settings: dict[str, str] = field(default_factory=dict)

    def made_with(self) -> dict[str, Any]:
        """The manifest of its results (lib/test/evaluation/manifest.py)."""
        record = manifest.record(OPENCV, self.name, self.weights, {}) if self.cfg is None \
            else manifest.describe(self.cfg, self.weights)
        record["settings"] |= self.settings
        return record


def add_tracker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which tracker it is; `check_tracker_options` and `choose_tracker` read them."""
    add = parser.add_argument
    add("tracker_name", metavar="script", help="a tracker family, compresstracker, or opencv")
    add("tracker_param", metavar="config",
        help="name of a file in experiments/<script>, without .yaml, or its path; of opencv: nano, vit, dasiamrpn, "
             "csrt, mil")
    add("--checkpoint", type=absolute_path, help=f"{WEIGHTS_HELP}, of opencv in pretrained_models")
    add("--epoch", type=int, help=EPOCH_HELP)
    add("--save_dir", type=absolute_path,
        help="folder of checkpoints and results; default: save_dir of the environment file")
    add("--device", default="auto", help="auto (default: the GPUs, or the CPU without any), cpu, cuda or cuda:N")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of the config, such as TEST.WINDOW=false; may be repeated")
    add("--backend", choices=(*FROM_WEIGHTS, *ENGINES),
        help="what runs the model: torch (default), fast (the optimised PyTorch model), or the engine of an export")
    add("--fast", action="append", default=[], metavar="NAME=VALUE",
        help="an option of backend fast, such as dtype=bfloat16 (lib/deploy/fast.py); may be repeated")
    add("--exported", type=absolute_path, metavar="FOLDER",
        help="folder that tracking/export_model.py wrote, to take in place of the weights")


def check_tracker_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with the parser's error where options of `add_tracker_options` exclude each other."""
    if options.tracker_name == OPENCV:
        foreign = [option for name, option in (("epoch", "epoch"), ("overrides", "set"), ("backend", "backend"),
                                               ("fast", "fast"), ("exported", "exported"))
                   if getattr(options, name) not in (None, [])]
        if foreign:
            parser.error(f"--{foreign[0]} does nothing to OpenCV's trackers; leave it out")
        if options.device not in ("auto", "cpu"):
            parser.error(f"--device {options.device}: OpenCV's trackers run on the CPU; give auto or cpu")
    if options.exported and options.backend in FROM_WEIGHTS:
        parser.error(f"--backend {options.backend} runs the weights, not --exported")
    if not options.exported and options.backend not in (None, *FROM_WEIGHTS):
        parser.error(f"--backend {options.backend} needs --exported FOLDER")
    check_weights_options(parser, options)
    without_effect = [name for name in ("checkpoint", "epoch", "overrides") if getattr(options, name) not in (None, [])]
    if options.exported and without_effect:
        option = {"overrides": "set"}.get(without_effect[0], without_effect[0])
        parser.error(f"--{option} does not change what was exported; leave it out, or export again with it")
    if options.fast and options.backend != "fast":
        parser.error("--fast needs --backend fast")


def check_weights_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with the parser's error where --epoch would do nothing."""
    if options.checkpoint and options.epoch is not None:
        parser.error("--epoch chooses among the checkpoints of a training; leave it out, or --checkpoint")


def choose_tracker(options: argparse.Namespace, benchmark: str = "") -> Choice:
    """The tracker that the options of `add_tracker_options` name, for a benchmark (see `Tracker.from_config`).

    Raises:
        UserError: an unknown configuration, no weights, an exported folder that is unusable or holds another one, or a
            tracker that this OpenCV does not have.
    """
    choose = _of_opencv if options.tracker_name == OPENCV else _exported if options.exported else _trained
    choice = choose(options)
    return replace(choice, make=functools.partial(choice.make, benchmark=benchmark)) if benchmark else choice


def parse_tracker(text: str, device: str = "auto") -> tuple[str, argparse.Namespace]:
    """A tracker in one word (`SYNTAX`): its label, empty for none, and the options that name it.

    PATH is a file, the weights, or a folder that tracking/export_model.py wrote; what stands behind the first @ is all
    of it.

    Raises:
        UserError: the text has another form, or there is nothing at PATH.
    """
    plain, at, place = text.partition("@")
    named, equals, label = plain.partition("=")
    script, _, config = named.partition("/")
    if not (script and config) or bool(at) != bool(place) or bool(equals) != bool(label):
        raise UserError(f"{text}: expected a tracker as {SYNTAX}, for example {OPENCV}/nano or "
                        "ostrack/vitb_256_mae_32x4_ep300=teacher@OSTrack_ep0300.pth.tar")
    path = absolute_path(place)
    if place and not path.exists():
        raise UserError(f"{text}: there is nothing at {path}; name the file with the weights, or an exported folder")
    parser = argparse.ArgumentParser(prog=text, usage=SYNTAX)
    add_tracker_options(parser)
    options = parser.parse_args([script, config, "--device", device])
    if place:
        setattr(options, "exported" if path.is_dir() else "checkpoint", path)
    check_tracker_options(parser, options)
    return label, options


def absolute_path(text: str) -> Path:
    """A path of the command line that stays true in other folders and processes; ~ is the home folder."""
    return Path(text).expanduser().absolute()


def _trained(options: argparse.Namespace) -> Choice:
    """The tracker of a configuration's weights."""
    from .tracker import Tracker
    from .weights import find_checkpoint

    script, config = options.tracker_name, options.tracker_param
    cfg, checkpoint = find_checkpoint(script, config, checkpoint=options.checkpoint, epoch=options.epoch,
                                      save_dir=options.save_dir, overrides=options.overrides)
    logger.info("%s %s with %s", cfg.script, cfg.name, checkpoint)
    backend = options.backend or "torch"
    make = functools.partial(Tracker.from_config, script, config, checkpoint=checkpoint,
                             overrides=tuple(options.overrides), backend=backend, fast=tuple(options.fast))
    if backend == "torch":
        return Choice(cfg, checkpoint, cfg.name, make)
    from ...utils.device import choose_dtype, pick_device

    dtypes = [choose_dtype(text.removeprefix("dtype="), pick_device(options.device), "fast option dtype")
              for text in options.fast if text.startswith("dtype=")]
    return Choice(cfg, checkpoint, "_".join([cfg.name, backend, *dtypes]), make,
                  settings={"backend": " ".join([backend, *options.fast])})


def _exported(options: argparse.Namespace) -> Choice:
    """The tracker of an exported folder."""
    from .tracker import Tracker

    script, config, folder, backend = options.tracker_name, options.tracker_param, options.exported, options.backend
    facts = Manifest.read(folder)
    if (facts.script, facts.config) != (script, Path(config).stem):
        raise UserError(f"{folder} holds {facts.script} {facts.config}, not {script} {config}")
    logger.info("%s %s from %s", script, facts.config, folder)
    precision = [] if facts.precision == "float32" else [facts.precision]
    graph, *others = facts.files(folder)
    cfg = load_config(script, config)
    hashes = {f"exported.{file.name}": file_hash(file) for file in others}
    return Choice(cfg, graph, "_".join([facts.config, backend or facts.format, *precision]),
                  functools.partial(Tracker.from_export, folder, backend=backend), facts.batch,
                  hashes | facts.other_settings(cfg.student))


def _of_opencv(options: argparse.Namespace) -> Choice:
    """One of OpenCV's trackers."""
    import cv2

    from .opencv import KINDS, OpenCVTracker, find_files

    name = options.tracker_param
    files = find_files(name, options.checkpoint)
    logger.info("OpenCV %s %s%s", cv2.__version__, name, f" with {', '.join(map(str, files))}" if files else "")
    further = {f"{OPENCV}.{part}": file_hash(file) for part, file in [*zip(KINDS[name].files, files, strict=True)][1:]}
    return Choice(None, files[0] if files else None, name, functools.partial(OpenCVTracker, name, files),
                  settings={f"{OPENCV}.version": cv2.__version__, **further})
