"""Which tracker a command line asks for: the options that the scripts share, and the tracker that they name."""

import argparse
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import Config, load_config
from ...deploy.formats import ENGINES
from ...deploy.manifest import Manifest
from ...utils.errors import UserError

if TYPE_CHECKING:
    from .tracker import Tracker

logger = logging.getLogger(__name__)

FROM_WEIGHTS = ("torch", "fast")
"""Backends that run the weights; the others run what tracking/export_model.py wrote."""


@dataclass(frozen=True)
class Choice:
    """A tracker that was asked for.

    Attributes:
        cfg: its configuration.
        weights: the file with its weights, or the graph of an exported tracker that runs in every frame.
        name: what its results are called: the configuration, then backend and number format where they are not plain.
        make: builds it, called with `device`; can be pickled.
        batch: images that one pass takes, or "batch" for any number.
        settings: what decides on its boxes beside weights and configuration.
    """

    cfg: Config
    weights: Path
    name: str
    make: "Callable[..., Tracker]"
    batch: int | str = "batch"
    settings: dict[str, str] = field(default_factory=dict)


def add_tracker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which tracker it is; `check_tracker_options` and `choose_tracker` read them."""
    add = parser.add_argument
    add("tracker_name", metavar="script", help="a tracker family or compresstracker")
    add("tracker_param", metavar="config", help="name of a file in experiments/<script>, without .yaml, or its path")
    add("--checkpoint", type=absolute_path, help="weights; default: the config's in <save_dir>/checkpoints/train")
    add("--epoch", type=int, help="epoch of the default checkpoint; default: TEST.EPOCH of the config")
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
    if options.exported and options.backend in FROM_WEIGHTS:
        parser.error(f"--backend {options.backend} runs the weights, not --exported")
    if not options.exported and options.backend not in (None, *FROM_WEIGHTS):
        parser.error(f"--backend {options.backend} needs --exported FOLDER")
    without_effect = [name for name in ("checkpoint", "epoch", "overrides") if getattr(options, name) not in (None, [])]
    if options.exported and without_effect:
        option = {"overrides": "set"}.get(without_effect[0], without_effect[0])
        parser.error(f"--{option} does not change what was exported; leave it out, or export again with it")
    if options.fast and options.backend != "fast":
        parser.error("--fast needs --backend fast")


def choose_tracker(options: argparse.Namespace, benchmark: str = "") -> Choice:
    """The tracker that the options of `add_tracker_options` name, for a benchmark (see `Tracker.from_config`).

    Raises:
        UserError: an unknown configuration, no weights, or an exported folder that is unusable or holds another one.
    """
    choice = _exported(options) if options.exported else _trained(options)
    return replace(choice, make=functools.partial(choice.make, benchmark=benchmark)) if benchmark else choice


def absolute_path(text: str) -> Path:
    """A path of the command line that stays true in other folders and processes; ~ is the home folder."""
    return Path(text).expanduser().absolute()


def _trained(options: argparse.Namespace) -> Choice:
    """The tracker of a configuration's weights."""
    from .tracker import Tracker, find_checkpoint

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
    return Choice(load_config(script, config), folder / facts.parts[facts.main].file,
                  "_".join([facts.config, backend or facts.format, *precision]),
                  functools.partial(Tracker.from_export, folder, backend=backend), facts.batch)
