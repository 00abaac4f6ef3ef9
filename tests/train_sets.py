"""Training data sets for the tests: small trees in every layout, and what compares two readings of one."""

from types import SimpleNamespace

import numpy as np
import trees

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
