"""The two `local.py` files, in which a user keeps the paths of one machine.

`lib/train/admin/local.py` defines a class ``EnvironmentSettings`` and `lib/test/evaluation/local.py` a function
``local_env_settings()``, with the field names of the OSTrack and CompressTracker repositories, so files written there
work here. Where a file or one of its fields is missing, the value that `tracking/create_default_local_file.py`
would write counts. An environment variable COMPRESSTRACKER_<FIELD> comes before both.
"""

import difflib
import logging
import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .errors import UserError
from .files import PACKAGE, ROOT, resolve, write_text

logger = logging.getLogger(__name__)

TRAIN_FILE = PACKAGE / "train" / "admin" / "local.py"
TEST_FILE = PACKAGE / "test" / "evaluation" / "local.py"
VARIABLE_PREFIX = "COMPRESSTRACKER_"

# Field -> (which folder, path inside it). A field with neither is empty until the user sets it.
_TRAIN = {
    "workspace_dir": ("workspace", ""), "tensorboard_dir": ("workspace", "tensorboard"),
    "pretrained_networks": ("workspace", "pretrained_networks"), "lasot_dir": ("data", "lasot"),
    "got10k_dir": ("data", "got10k/train"), "got10k_val_dir": ("data", "got10k/val"),
    "lasot_lmdb_dir": ("data", "lasot_lmdb"), "got10k_lmdb_dir": ("data", "got10k_lmdb"),
    "trackingnet_dir": ("data", "trackingnet"), "trackingnet_lmdb_dir": ("data", "trackingnet_lmdb"),
    "coco_dir": ("data", "coco"), "coco_lmdb_dir": ("data", "coco_lmdb"), "imagenet_dir": ("data", "vid"),
    "imagenet_lmdb_dir": ("data", "vid_lmdb"), "got10k_val_lmdb_dir": ("data", "got10k_val_lmdb"),
    "vasttrack_dir": ("data", "vasttrack"), "vasttrack_lmdb_dir": ("data", "vasttrack_lmdb"),
    "tnl2k_dir": ("data", "tnl2k"), "tnl2k_lmdb_dir": ("data", "tnl2k_lmdb"),
    "lasot_extension_subset_dir": ("data", "lasot_extension_subset"),
    "lasot_extension_subset_lmdb_dir": ("data", "lasot_extension_subset_lmdb"), "index_dir": ("data", "index"),
    "crops_dir": ("data", "crops"),
    **dict.fromkeys(("lvis_dir", "sbd_dir", "imagenetdet_dir", "ecssd_dir", "hkuis_dir", "msra10k_dir", "davis_dir",
                     "youtubevos_dir"), ("", "")),
}
_TEST = {
    "prj_dir": ("workspace", ""), "save_dir": ("save", ""), "results_path": ("save", "test/tracking_results"),
    "segmentation_path": ("save", "test/segmentation_results"), "network_path": ("save", "test/networks"),
    "result_plot_path": ("save", "test/result_plots"), "otb_path": ("data", "otb"), "nfs_path": ("data", "nfs"),
    "uav_path": ("data", "uav"), "tc128_path": ("data", "TC128"), "vot_path": ("data", "VOT2019"),
    "got10k_path": ("data", "got10k"), "got10k_lmdb_path": ("data", "got10k_lmdb"), "lasot_path": ("data", "lasot"),
    "lasot_lmdb_path": ("data", "lasot_lmdb"), "trackingnet_path": ("data", "trackingnet"),
    "vot18_path": ("data", "vot2018"), "vot22_path": ("data", "vot2022"), "itb_path": ("data", "itb"),
    "tnl2k_path": ("data", "tnl2k"), "vasttrack_path": ("data", "vasttrack"),
    "lasot_extension_subset_path": ("data", "lasot_extension_subset"),
    "lasot_extension_subset_path_path": ("data", "lasot_extension_subset"),  # as the official file spells it
    **dict.fromkeys(("tpl_path", "davis_dir", "youtubevos_dir", "got_packed_results_path", "got_reports_path",
                     "tn_packed_results_path"), ("", "")),
}
_BASES = {"workspace_dir": "workspace", "prj_dir": "workspace", "save_dir": "save"}


def train_fields(workspace: str | Path = ROOT, data: str | Path = ROOT / "data") -> dict[str, str]:
    """Field -> absolute path (or '') of the training environment for a workspace and a data folder."""
    return _fields(_TRAIN, {"workspace": workspace, "data": data})


def test_fields(workspace: str | Path = ROOT, data: str | Path = ROOT / "data",
                save: str | Path = ROOT / "output") -> dict[str, str]:
    """Field -> absolute path (or '') of the test environment for a workspace, a data and an output folder."""
    return _fields(_TEST, {"workspace": workspace, "data": data, "save": save})


test_fields.__test__ = False  # its name is not meant for pytest


def train_settings(path: Path = TRAIN_FILE) -> SimpleNamespace:
    """The training environment: `path` over the defaults, environment variables over both.

    Relative paths start at the repository root; empty fields stay ''.

    Raises:
        UserError: the file is there but cannot be used; the message names it.
    """
    values = _user_fields(path, "EnvironmentSettings", "a class EnvironmentSettings") if path.is_file() else {}
    return _settings(_TRAIN, train_fields(), values)


def test_settings(path: Path = TEST_FILE) -> SimpleNamespace:
    """The test environment: as `train_settings`, for the test fields."""
    values = _user_fields(path, "local_env_settings", "a function local_env_settings()") if path.is_file() else {}
    return _settings(_TEST, test_fields(), values)


test_settings.__test__ = False  # its name is not meant for pytest


def write_local_files(workspace: str | Path, data: str | Path, save: str | Path, train_file: Path = TRAIN_FILE,
                      test_file: Path = TEST_FILE) -> list[Path]:
    """Write both `local.py` files; a file that is there and differs is kept beside as `local.py.bak`.

    Args:
        workspace: the project's folder, under which TensorBoard files and start weights lie.
        data: the folder of the data sets.
        save: the folder of checkpoints, logs and results.

    Returns:
        The two files.
    """
    lines = [f"        self.{name} = {value!r}" for name, value in train_fields(workspace, data).items()]
    train_text = "\n".join(["class EnvironmentSettings:", '    """Paths for training on this machine."""', "",
                            "    def __init__(self):", *lines, ""])
    lines = [f"    settings.{name} = {value!r}" for name, value in test_fields(workspace, data, save).items()]
    test_text = "\n".join(["from lib.test.evaluation.environment import EnvSettings", "", "",
                           "def local_env_settings():", '    """Paths for testing on this machine."""',
                           "    settings = EnvSettings()", *lines, "    return settings", ""])
    for path, text in ((train_file, train_text), (test_file, test_text)):
        _write_keeping_old(path, text)
    return [train_file, test_file]


def _fields(layout: Mapping[str, tuple[str, str]], folders: Mapping[str, str | Path]) -> dict[str, str]:
    real = {name: os.path.realpath(folder) for name, folder in folders.items()}
    return {name: os.path.join(real[base], inside) if inside else real.get(base, "")
            for name, (base, inside) in layout.items()}


def _user_fields(path: Path, name: str, expected: str) -> dict[str, Any]:
    """The fields of the object that `name` of the file `path` makes."""
    try:
        names = runpy.run_path(str(path))
    except Exception as error:  # whatever the user's code raises
        raise _broken(path, error) from error
    if not callable(names.get(name)):
        raise UserError(f"{path}: expected {expected} in it; correct it, or write a new one with "
                        "`python tracking/create_default_local_file.py --workspace_dir . --data_dir ./data "
                        "--save_dir ./output`")
    try:
        settings = names[name]()
    except Exception as error:  # whatever the user's code raises
        raise _broken(path, error) from error
    fields = {field: getattr(settings, field) for field in dir(settings) if not field.startswith("_")}
    return {field: value for field, value in fields.items() if not callable(value)}


def _broken(path: Path, error: Exception) -> UserError:
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    return UserError(f"{path}{line} cannot be used ({type(error).__name__}: {error}); correct it, or delete it to use "
                     "the default paths")


def _settings(layout: Mapping[str, tuple[str, str]], defaults: dict[str, str],
              values: Mapping[str, Any]) -> SimpleNamespace:
    fields = {name: _path(value) for name, value in {**defaults, **values}.items()}
    overrides = {name: _path(os.environ[VARIABLE_PREFIX + name.upper()]) for name in fields
                 if os.environ.get(VARIABLE_PREFIX + name.upper())}
    for name, value in overrides.items():
        if name in _BASES:
            _move(fields, layout, _BASES[name], fields[name], value)
    _warn_unknown_variables(fields)
    return SimpleNamespace(**{**fields, **overrides})


def _move(fields: dict[str, str], layout: Mapping[str, tuple[str, str]], base: str, old: str, new: str) -> None:
    """Fields that lie at their default place inside the overridden folder `old` go with it."""
    for name, (owner, inside) in layout.items():
        place = os.path.join(os.path.normpath(old), inside)
        if owner == base and inside and os.path.normpath(str(fields[name])) == place:
            fields[name] = os.path.join(new, inside)


def _path(value: Any) -> Any:
    """Paths absolute (from the repository root) as texts; None as ''; other things as they are."""
    if value is None or value == "":
        return ""
    return str(resolve(value)) if isinstance(value, (str, Path)) else value


def _warn_unknown_variables(fields: Mapping[str, Any]) -> None:
    variables = {VARIABLE_PREFIX + name.upper() for name in (*_TRAIN, *_TEST, *fields)}
    for variable in sorted(set(os.environ) - variables):
        if variable.startswith(VARIABLE_PREFIX):
            near = difflib.get_close_matches(variable, sorted(variables), n=1)
            logger.warning("environment variable %s names no field and does nothing%s", variable,
                           f"; did you mean {near[0]}?" if near else "")


def _write_keeping_old(path: Path, text: str) -> None:
    if path.is_file():
        old = path.read_text(encoding="utf-8", errors="replace")
        if old == text:
            logger.info("%s is up to date", path)
            return
        backup = next(place for place in _backups(path) if not place.exists())
        write_text(backup, old)
        logger.info("%s was there with other content; the old one is now %s", path, backup)
    write_text(path, text)
    logger.info("wrote %s", path)


def _backups(path: Path):
    """local.py.bak, local.py.bak2, local.py.bak3, ..."""
    yield path.with_name(path.name + ".bak")
    number = 2
    while True:
        yield path.with_name(f"{path.name}.bak{number}")
        number += 1
