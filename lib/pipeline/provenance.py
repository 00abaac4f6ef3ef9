"""What a run was made with, so that a run of something else is not taken for it."""

import contextlib
import json
from pathlib import Path
from typing import Any

from ..config import Config, changed_keys
from ..config.schema import show
from ..families.build import find_pretrained
from ..train.data.loader import open_datasets
from ..utils.errors import UserError
from ..utils.files import file_hash, write_text

NAME = "made_with.json"
SHOWN = 3
"""Differences that a message lists."""
_digests: dict[tuple[str, ...], dict[str, str]] = {}
"""Which data are read how -> `_data_of`: they are opened once in a process, not once for each run of a ladder."""


def made_with(cfg: Config) -> dict[str, Any]:
    """All settings of a training by dotted name, the content of the weights that it starts from, and that of the
    annotations that it learns.

    Raises:
        UserError: weights or data are missing.
    """
    return {"settings": cfg.flat(), "weights": _weights_of(cfg), "data": _data_of(cfg)}


def _weights_of(cfg: Config) -> str | None:
    weights = find_pretrained(cfg.MODEL.PRETRAIN_FILE, "MODEL.PRETRAIN_FILE") if cfg.MODEL.PRETRAIN_FILE else None
    return weights and file_hash(weights)


def _data_of(cfg: Config) -> dict[str, str]:
    """Training data set -> digest of its sequences and boxes, as they were when this process first looked."""
    data = cfg.DATA
    names = data.TRAIN.DATASETS_NAME
    key = (data.LOADER, data.STORAGE, *names)
    if key not in _digests:
        _digests[key] = {name: dataset.digest()
                         for name, dataset in zip(names, open_datasets(cfg, "train"), strict=True)}
    return _digests[key]


def check_provenance(folder: Path, cfg: Config) -> None:
    """Refuse to go on in a run's folder that was begun with something else.

    Of the training data the sequences and boxes count, not what the pictures show. Data that are gone do not stand in
    the way of what was made with them, and a record of an earlier version, which does not name them, is trusted.

    Raises:
        UserError: it was (the message says with what), or its record is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        settings, weights, data = dict(before["settings"]), before["weights"], dict(before.get("data", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); move {folder} away and start again") from error
    changed = [f"{key} {show(old)} instead of {show(new)}" for key, old, new in changed_keys(settings, cfg.flat())]
    if weights != _weights_of(cfg):
        changed.append(f"other weights in {cfg.MODEL.PRETRAIN_FILE}")
    if data:
        with contextlib.suppress(UserError):    # gone: what would train on them says so
            changed += [f"other sequences or boxes in {name}" for name, digest in _data_of(cfg).items()
                        if data.get(name, digest) != digest]
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
