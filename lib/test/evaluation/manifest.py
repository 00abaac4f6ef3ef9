"""What a folder of results was made with: weights and settings, in `manifest.json` beside the results.

One folder holds the results of one tracker. The runner writes the manifest with the first result, so results of other
weights or settings under the same name (another epoch, another `--set`) are noticed and never mixed in. Results in a
folder without a manifest, as other projects and earlier versions leave them, are taken as they are.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import Config, changed_keys
from ...utils.errors import UserError
from ...utils.files import file_hash, set_aside, write_text
from .results import has_results

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the manifest's file."""
RULES = 1
"""Of tracking; raised by a change of the code that changes the boxes of the same weights and settings."""
_SECTIONS = ("MODEL.", "STUDENT.", "TEST.", "DATA.MEAN", "DATA.STD")
_WITHOUT = ("MODEL.PRETRAIN_FILE", "MODEL.BACKBONE.PRETRAIN_FILE", "TEST.EPOCH", "TEST.CHECKPOINT")
"""Keys of those sections that only say where weights come from."""
_SHOWN = 3
"""Differences that a message lists."""


def describe(cfg: Config, checkpoint: str | Path) -> dict[str, Any]:
    """The manifest of a run: the checkpoint's SHA-256, and the settings that decide on the boxes.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    settings = {name: value for name, value in cfg.flat().items()
                if name.startswith(_SECTIONS) and name not in _WITHOUT}
    return record(cfg.script, cfg.name, checkpoint, settings)


def record(script: str, config: str, checkpoint: str | Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run of any tracker.

    Args:
        checkpoint: the file with its weights; None for a tracker without any.
        settings: what decides on the boxes besides.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    weights = {"file": "none", "sha256": ""} if checkpoint is None else \
        {"file": str(checkpoint), "sha256": file_hash(Path(checkpoint).resolve())}
    return {"format": FORMAT, "rules": RULES, "script": script, "config": config, "checkpoint": weights,
            "settings": dict(settings)}


def check(folder: Path, wanted: Mapping[str, Any], force: bool = False, other_writers: str = "") -> None:
    """Refuse to add results to `folder` that were made with something else than those that are there.

    Args:
        folder: a tracker's folder of results.
        wanted: from `describe`.
        force: results of something else do not matter: `claim` will move them away.
        other_writers: who else writes results there just now; then the manifest counts before there are any, and
            with `force`.

    Raises:
        UserError: the folder holds results of other weights or settings (the message says which), or its manifest is
            damaged.
    """
    if not other_writers and (force or not has_results(folder)):
        return
    stored = read_manifest(folder)
    if stored is None:
        logger.warning("%s holds results without a manifest (made elsewhere or by an earlier version): they are taken "
                       "as they are; --force moves them to a folder previous_N and tracks again", folder)
        return
    changes = differences(stored, wanted)
    if changes:
        suffix = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        if other_writers:
            raise UserError(f"{folder} is being written by {other_writers}, with something else: "
                            f"{'; '.join(changes[:_SHOWN])}{suffix}. Results of the two would be mixed: wait for its "
                            "end, or keep both with --runid N")
        raise UserError(f"the results in {folder} were made with something else: {'; '.join(changes[:_SHOWN])}{suffix}"
                        ". Results of the two would be mixed. Keep both with --runid N, or move the old ones to a "
                        "folder previous_N and track again with --force, or give the weights and settings of the "
                        "old ones")


def is_stale(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether `folder` says that its results were made with something else than `wanted`.

    Raises:
        UserError: its manifest is damaged.
    """
    stored = read_manifest(folder) if has_results(folder) else None
    return stored is not None and bool(differences(stored, wanted))


def replaces(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether `claim` would move results away: those of something else than `wanted`, or of nobody knows what."""
    stored = _intact(folder)
    return has_results(folder) and (stored is None or bool(differences(stored, wanted)))


def claim(folder: Path, wanted: Mapping[str, Any], force: bool = False) -> None:
    """Make `folder` ready for results of `wanted`, just before the first of them is written.

    With `force`, results of something else (or of nobody knows what) are moved to a folder `previous_N`; what is left
    of the folder after a crash in between is still under its old manifest.
    """
    stored = _intact(folder)    # `check` has refused a damaged one unless it is forced
    if stored is not None and not differences(stored, wanted):
        return
    if has_results(folder):
        if not force:
            return  # `check` has said that results without a manifest stay what they are
        entries = [path for path in sorted(folder.iterdir())
                   if path.name != "debug" and not path.name.startswith(("previous_", "."))]
        set_aside(sorted(entries, key=lambda path: path == manifest_file(folder)))
    write_text(manifest_file(folder), json.dumps(wanted, indent=1) + "\n")


def is_own(folder: Path) -> bool:
    """Whether this project's runner wrote the results in `folder`; False also where its manifest is damaged."""
    return _intact(folder) is not None


def manifest_file(folder: Path) -> Path:
    """Where a tracker's folder of results keeps its manifest."""
    return folder / "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a tracker's folder of results, None where there is none.

    Raises:
        UserError: it is damaged, or of a later version.
    """
    path = manifest_file(folder)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        good = content["format"] == FORMAT and isinstance(content["checkpoint"]["sha256"], str) \
            and isinstance(content["settings"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise UserError(f"{path} is damaged or of another version of this code. Delete it to take the results beside "
                        "it as they are, or track again with --force")
    return content


def _intact(folder: Path) -> dict[str, Any] | None:
    """As `read_manifest`; None for a damaged one, too."""
    try:
        return read_manifest(folder)
    except UserError:
        return None


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What two manifests differ in, in words. A key that `stored` does not know had its default."""
    changes = []
    if stored["checkpoint"]["sha256"] != wanted["checkpoint"]["sha256"]:
        changes.append("checkpoint " + " instead of ".join(
            f"{part['checkpoint'].get('file', '?')} ({part['checkpoint']['sha256'][:12]})"
            for part in (stored, wanted)))
    if stored.get("rules") != wanted["rules"]:
        changes.append(f"tracking rules {stored.get('rules')} instead of {wanted['rules']}, an earlier or later "
                       "version of this code")
    return changes + [f"{name} {before} instead of {now}"
                      for name, before, now in changed_keys(stored["settings"], wanted["settings"])]
