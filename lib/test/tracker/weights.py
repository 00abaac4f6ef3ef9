"""Where the weights of a configuration lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...utils.errors import UserError


def find_checkpoint(
    script: str,
    config: str,
    *,
    checkpoint: str | Path | None = None,
    epoch: int | None = None,
    save_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Any, Path]:
    """The configuration of a run and the file with its weights.

    Args:
        script, config: `experiments/<script>/<config>.yaml`; config may also be a path.
        checkpoint: the weights; None takes `checkpoint_path(cfg, epoch, save_dir)`, where training left them, or
            TEST.CHECKPOINT of the yaml where it names a file, training left no weights and no epoch is given.
        epoch: None takes TEST.EPOCH of the yaml.
        save_dir: None takes the one of the environment settings.
        overrides: `KEY=value` items over the yaml.

    Raises:
        UserError: unknown config, or no such file.
    """
    from ...config import load_config
    from ...families.build import find_pretrained

    cfg = load_config(script, config, overrides)
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
    else:
        path = checkpoint_path(cfg, epoch, save_dir)
        if cfg.TEST.CHECKPOINT and epoch is None and not any(path.parent.glob("*_ep*.pth.tar")):
            path = find_pretrained(cfg.TEST.CHECKPOINT, "TEST.CHECKPOINT", "the file with the weights")
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; {_nearby(path)}")
    return cfg, path


def checkpoint_path(cfg: Any, epoch: int | None = None, save_dir: str | Path | None = None) -> Path:
    """Where training leaves the weights of a configuration (None: TEST.EPOCH, the environment's save_dir)."""
    from ...models.checkpoint import run_folder, slim_name

    if save_dir is None:
        from ..evaluation.environment import env_settings

        save_dir = env_settings().save_dir
    return run_folder(save_dir, cfg.script, cfg.name) / slim_name(
        cfg.title, cfg.TEST.EPOCH if epoch is None else epoch)


def _nearby(path: Path) -> str:
    """What to do about a missing checkpoint, with the ones that lie beside it."""
    checkpoints = sorted(file.name for file in path.parent.glob("*.pth.tar")) if path.parent.is_dir() else []
    if checkpoints:
        return f"that folder holds {', '.join(checkpoints[-5:])}: choose one with --epoch or --checkpoint"
    return "train first (tracking/train.py), copy the downloaded weights there, or give --checkpoint"
