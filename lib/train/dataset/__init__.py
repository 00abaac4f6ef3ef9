"""Training data sets by their name in the yaml."""

from collections.abc import Callable
from typing import Any

from lib.config import FOLDER_PREFIX
from lib.train.dataset.base import Annotation, TrackingDataset
from lib.train.dataset.coco import Coco
from lib.train.dataset.folder import Folder
from lib.train.dataset.got10k import Got10k
from lib.train.dataset.lasot import Lasot
from lib.train.dataset.trackingnet import TrackingNet
from lib.utils.errors import UserError

__all__ = ["Annotation", "Coco", "Folder", "Got10k", "Lasot", "TrackingDataset", "TrackingNet", "build_dataset"]

_BUILDERS: dict[str, Callable[[Any], TrackingDataset]] = {
    "LASOT": lambda env: Lasot(env.lasot_dir),
    "GOT10K_vottrain": lambda env: Got10k(env.got10k_dir, "vottrain", dataset="GOT10K_vottrain"),
    "GOT10K_votval": lambda env: Got10k(env.got10k_dir, "votval", dataset="GOT10K_votval"),
    "GOT10K_train_full": lambda env: Got10k(env.got10k_dir),
    "GOT10K_official_val": lambda env: Got10k(env.got10k_val_dir, dataset="GOT10K_official_val",
                                              field="got10k_val_dir"),
    "COCO17": lambda env: Coco(env.coco_dir),
    "TRACKINGNET": lambda env: TrackingNet(env.trackingnet_dir),
}


def build_dataset(name: str, env: Any) -> TrackingDataset:
    """The data set called `name` in DATA.TRAIN.DATASETS_NAME or DATA.VAL.DATASETS_NAME.

    Args:
        name: LASOT, GOT10K_vottrain, GOT10K_votval, GOT10K_train_full, GOT10K_official_val, COCO17, TRACKINGNET, or
            ``FOLDER:<path>[@<list file>]``.
        env: object with the folders (lasot_dir, got10k_dir, got10k_val_dir, coco_dir, trackingnet_dir).

    Raises:
        UserError: the name is unknown, or the data is not there.
    """
    if name.startswith(FOLDER_PREFIX):
        return Folder(name.removeprefix(FOLDER_PREFIX))
    if name not in _BUILDERS:
        raise UserError(f"unknown data set {name!r} in DATASETS_NAME; choose from {', '.join(_BUILDERS)}, "
                        f"{FOLDER_PREFIX}<path>[@<list file>]")
    return _BUILDERS[name](env)
