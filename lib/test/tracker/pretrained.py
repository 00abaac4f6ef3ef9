"""From what a user names, a file, an exported folder or a configuration, to a tracker with its weights."""

from pathlib import Path

import torch

from ...config import SCRIPTS, Config, config_from_dict, list_configs, load_config
from ...models.checkpoint import read_checkpoint
from ...utils.errors import UserError
from ...utils.files import PACKAGE
from .tracker import Tracker

INSTALLED = PACKAGE / "pretrained_models"
"""Weights inside an installed package, which has no `experiments`; in the repository their configurations name them."""


def load_tracker(path_or_config: str | Path, *, device: str | torch.device = "auto", config: str | None = None,
                 save_dir: str | Path | None = None, backend: str | None = None) -> Tracker:
    """The run-time tracker of a file, folder or configuration; see `LiveTracker.from_pretrained`."""
    path = Path(path_or_config).expanduser()
    if path.is_dir():
        if config is not None:
            raise UserError(f"{path} is a folder: an exported tracker has its own configuration, so config does not go "
                            "with it; leave config out, or give the checkpoint's file")
        return Tracker.from_export(path, backend=backend, device=device)
    backend = backend or "torch"
    if backend not in ("torch", "fast"):
        raise UserError(f"backend {backend} runs exported folders, and {path_or_config} is none; choose torch or fast")
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        cfg = find_config(config) if config is not None else checkpoint_config(path)
        return Tracker.from_checkpoint(path, cfg, device=device, backend=backend)
    if path.name.endswith((".tar", ".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".onnx")):
        raise UserError(f"checkpoint {path} does not exist; check the path")
    if str(path_or_config) in _installed():
        path = INSTALLED / f"{path_or_config}.pth.tar"
        return Tracker.from_checkpoint(path, checkpoint_config(path), device=device, backend=backend)
    cfg = find_config(str(path_or_config))
    return Tracker.from_config(cfg.script, str(cfg.source), save_dir=save_dir, device=device, backend=backend)


def find_config(name: str) -> Config:
    """The configuration called `name`, `script/name`, or of the yaml file `.../script/name.yaml`.

    Raises:
        UserError: there is none, or it is broken.
    """
    script, _, config_name = name.rpartition("/")
    script = Path(script).name
    if name.endswith((".yaml", ".yml")):
        if script not in SCRIPTS:
            raise UserError(f"{name}: the folder of a configuration's file tells its script; expected "
                            f"{' or '.join(SCRIPTS)}, found {script or 'no folder'!r}")
        return load_config(script, name)
    if script in SCRIPTS:
        return load_config(script, config_name)
    owner = next((owner for owner in SCRIPTS if not script and name in list_configs(owner)), None)
    if owner is None:
        configs = [f"{owner}/{config}" for owner in SCRIPTS for config in list_configs(owner)] + _installed()
        raise UserError(f"{name} is neither a file nor a folder nor a configuration; the configurations are "
                        f"{', '.join(configs) or '(none in this installation: give a checkpoint file)'}")
    return load_config(owner, name)


def _installed() -> list[str]:
    """Names of the trackers whose weights are in the installed package."""
    return sorted(path.name.removesuffix(".pth.tar") for path in INSTALLED.glob("*.pth.tar"))


def checkpoint_config(path: Path) -> Config:
    """The configuration inside a checkpoint that was written here.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    inside = read_checkpoint(path).get("config")
    if not isinstance(inside, dict) or not {"script", "name", "values"} <= inside.keys():
        raise UserError(f"{path} holds no configuration (checkpoints of the official code do not); name it, for "
                        "example config=\"ostrack/vitb_256_mae_ce_32x4_ep300\"")
    return config_from_dict(str(inside["script"]), str(inside["name"]), inside["values"], path)
