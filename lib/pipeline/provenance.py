"""What a run was made with, so that a run of something else is not taken for it."""

import json
from pathlib import Path
from typing import Any

from ..config import Config, changed_keys
from ..config.schema import show
from ..families.build import find_pretrained
from ..utils.errors import UserError
from ..utils.files import file_hash, write_text

NAME = "made_with.json"
SHOWN = 3
"""Differences that a message lists."""


def made_with(cfg: Config) -> dict[str, Any]:
    """All settings of a training by dotted name, and the content of the weights that it starts from.

    Raises:
        UserError: they are missing.
    """
    weights = find_pretrained(cfg.MODEL.PRETRAIN_FILE, "MODEL.PRETRAIN_FILE") if cfg.MODEL.PRETRAIN_FILE else None
    return {"settings": cfg.flat(), "weights": weights and file_hash(weights)}


def check_provenance(folder: Path, cfg: Config) -> None:
    """Refuse to go on in a run's folder that was begun with something else.

    Raises:
        UserError: it was (the message says with what), or its record is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        settings, weights = dict(before["settings"]), before["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); move {folder} away and start again") from error
    now = made_with(cfg)
    changed = [f"{key} {show(old)} instead of {show(new)}"
               for key, old, new in changed_keys(settings, now["settings"])]
    if weights != now["weights"]:
        changed.append(f"other weights in {cfg.MODEL.PRETRAIN_FILE}")
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise UserError(f"{folder} was made with other settings: {'; '.join(changed[:SHOWN])}{more}. Choose another "
                        "--output, or move that folder away to train again")


def claim(folder: Path, cfg: Config) -> None:
    """`check_provenance`, then note what the run in a folder is made with.

    Raises:
        UserError: as there, or the folder cannot be written.
    """
    check_provenance(folder, cfg)
    if not (folder / NAME).is_file():
        write_text(folder / NAME, json.dumps(made_with(cfg), indent=1) + "\n")
