"""Training data sets by their name in the yaml."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...config import COCO_PREFIX, FOLDER_PREFIX
from ...utils.errors import UserError
from ...utils.sequences import LAYOUT
from ...utils.storage import Storage
from . import coco, folder, got10k, lasot, tnl2k, trackingnet, vasttrack, vid
from .annotation import Annotation
from .base import StoredDataset, TrackingDataset
from .coco import Coco
from .folder import Folder
from .got10k import Got10k
from .lasot import Lasot
from .places import Place, open_storage
from .tnl2k import Tnl2k
from .trackingnet import TrackingNet
from .vasttrack import VastTrack
from .vid import ImagenetVid

__all__ = ["Annotation", "Coco", "Folder", "Got10k", "ImagenetVid", "Lasot", "StoredDataset", "Tnl2k",
           "TrackingDataset", "TrackingNet", "VastTrack", "build_dataset", "open_dataset", "place_of"]


class _Known(NamedTuple):
    """A data set that is known by name."""

    place: Callable[[Any, str], Place]
    """Makes, from the environment and the name, the places where it may lie."""
    open: Callable[[Storage, Place], StoredDataset]


def _lasot(name: str, field: str, spec: str) -> _Known:
    return _Known(lambda env, dataset: Place.of(env, dataset, f"{field}_dir", f"{field}_lmdb_dir", lasot.LAYOUT,
                                                parts=lasot.categories(spec)),
                  lambda storage, place: Lasot(storage, place, spec, name))


def _got10k(field: str, inner: str, split: str | None = None) -> _Known:
    return _Known(lambda env, dataset: Place.of(env, dataset, f"{field}_dir", f"{field}_lmdb_dir", got10k.LAYOUT,
                                                inner=inner),
                  lambda storage, place: Got10k(storage, place, split))


def _other(cls: Callable[[Storage, Place], StoredDataset], field: str, layout: str, **options: Any) -> _Known:
    return _Known(
        lambda env, dataset: Place.of(env, dataset, f"{field}_dir", f"{field}_lmdb_dir", layout, **options), cls)


_KNOWN: dict[str, _Known] = {
    "LASOT": _lasot("lasot", "lasot", lasot.TRAIN_SPEC),
    "GOT10K_vottrain": _got10k("got10k", "train/", "vottrain"),
    "GOT10K_votval": _got10k("got10k", "train/", "votval"),
    "GOT10K_train_full": _got10k("got10k", "train/"),
    "GOT10K_official_val": _got10k("got10k_val", "val/"),
    "COCO17": _other(Coco, "coco", coco.LAYOUT),
    "TRACKINGNET": _other(TrackingNet, "trackingnet", trackingnet.LAYOUT, parts=trackingnet.CHUNKS, parted=True),
    "VID": _other(ImagenetVid, "imagenet", vid.LAYOUT),
    "VASTTRACK": _other(VastTrack, "vasttrack", vasttrack.LAYOUT),
    **dict.fromkeys(("TNL2K", "TNL2K_train"), _other(Tnl2k, "tnl2k", tnl2k.LAYOUT)),
    "LASOT_EXT": _lasot("lasot_ext", "lasot_extension_subset", lasot.EXTENSION_SPEC),
}
_OWN: dict[str, _Known] = {
    FOLDER_PREFIX: _Known(lambda env, name: Place.own(name, folder.own_parts(name)[0], LAYOUT), Folder),
    COCO_PREFIX: _Known(lambda env, name: Place.own(name, coco.own_paths(name)[1], coco.OWN_LAYOUT), Coco.own),
}
"""Start of the name -> data of one's own."""


def build_dataset(name: str, env: Any, storage: str = "auto") -> TrackingDataset:
    """The data set called `name` in DATA.TRAIN.DATASETS_NAME or DATA.VAL.DATASETS_NAME, ready to train with.

    Args:
        name: one of `lib.config.DATASETS`, ``FOLDER:<path>[@<list file>]`` or
            ``COCO:<annotation json>[@<image folder>]``.
        env: object with the folders (lasot_dir, got10k_dir, ..., their LMDB forms, index_dir).
        storage: DATA.STORAGE.

    Raises:
        UserError: the name is unknown, or the data is not there or wrong.
    """
    dataset = open_dataset(name, env, storage)
    dataset.prepare(getattr(env, "index_dir", ""))
    return dataset


def open_dataset(name: str, env: Any, storage: str = "auto") -> StoredDataset:
    """As `build_dataset`, without the index: annotations are read from their files each time.

    Raises:
        UserError: the name is unknown, or nothing is there.
    """
    place = place_of(name, env)
    return _known(name).open(open_storage(place, storage), place)


def place_of(name: str, env: Any) -> Place:
    """Where a data set may lie.

    Raises:
        UserError: the name is unknown.
    """
    return _known(name).place(env, name)


def _known(name: str) -> _Known:
    for prefix, own in _OWN.items():
        if name.startswith(prefix):
            return own
    if name not in _KNOWN:
        raise UserError(f"unknown data set {name!r} in DATASETS_NAME; choose from {', '.join(_KNOWN)}, "
                        f"{FOLDER_PREFIX}<path>[@<list file>], {COCO_PREFIX}<annotation json>[@<image folder>]")
    return _KNOWN[name]
