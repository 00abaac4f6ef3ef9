"""Training data sets for the tests: small trees in every layout, and what compares two readings of one."""

import shutil
from types import SimpleNamespace

import numpy as np
import trees

from lib.train.dataset import open_dataset
from lib.train.dataset.packing import pack, plan
from lib.utils.local_files import train_fields

MAKERS = {
    "LASOT": ("lasot_dir", lambda root: trees.lasot(root, hidden=(1, 4))),
    "GOT10K_train_full": ("got10k_dir", lambda root: trees.got10k(root, hidden=(2,))),
    "TRACKINGNET": ("trackingnet_dir", trees.trackingnet),
    "COCO17": ("coco_dir", trees.coco),
    "VID": ("imagenet_dir", trees.vid),
    "VASTTRACK": ("vasttrack_dir", trees.vasttrack),
    "TNL2K": ("tnl2k_dir", trees.tnl2k),
    "LASOT_EXT": ("lasot_extension_subset_dir", lambda root: trees.lasot(root, names=("atv-1", "rhino-10"))),
}
"""Name in the yaml -> (field of its folder, what makes the folder)."""

OWN = {
    "FOLDER:{}": lambda root: trees.folder(root, video=False),
    "FOLDER:{}@lists/one.txt": lambda root: _listed(trees.folder(root)),
    "COCO:{}/boxes.json": trees.pictures,
    "COCO:boxes.json@{}": trees.pictures,
}
"""Name in the yaml of data of one's own, with {} for its path -> what makes its folder."""
OWN_FORMS = {"lmdb": "_lmdb", "zip": ".zip", "zips": ""}
"""Form that `in_form` makes -> how the path that names it ends."""


def _listed(root):
    """With a list of the sequences that are no video, in another order."""
    (root / "lists").mkdir()
    (root / "lists" / "one.txt").write_text("second\nfirst\n")
    return root


def in_form(form, name, root):
    """Bring the folder of the data `name` of one's own into another form, at its natural place, and remove it."""
    if form == "lmdb":
        dataset = open_dataset(name.format(root), environment(root.parent))
        (target,) = plan(dataset, dataset.place.lmdb)
        assert pack(dataset.storage, target)
    moved = shutil.move(root, root.with_name("moved"))
    if form == "zip":
        trees.zipped(moved, root.with_name(f"{root.name}.zip"), root.name)
    for part in sorted(moved.iterdir()) if form == "zips" else ():
        if part.is_dir():
            trees.zipped(part, root / f"{part.name}.zip", part.name)
        elif part.suffix == ".json":
            shutil.copy(part, root)
        else:
            (moved / "alone").mkdir()
            part.rename(moved / "alone" / part.name)
            trees.zipped(moved / "alone", root / f"{part.stem}.zip")
            shutil.rmtree(moved / "alone")


def environment(tmp_path, **fields):
    """Folders that are not there but for `fields`; indices in a folder of the test."""
    missing = {name: str(tmp_path / "missing" / name) for name in train_fields() if name.endswith("_dir")}
    return SimpleNamespace(**{**missing, "index_dir": str(tmp_path / "index"), **fields})


def same(one, other):
    """Assert that two data sets have the same sequences, boxes and visible frames."""
    assert len(one) == len(other) and list(one.sequences) == list(other.sequences)
    for sequence in range(len(one)):
        a, b = one.annotation(sequence), other.annotation(sequence)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.visible, b.visible)
    for a, b in zip(one.counts(), other.counts(), strict=True):
        np.testing.assert_array_equal(a, b)
