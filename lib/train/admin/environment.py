"""Where training finds data sets and start weights on this machine."""

from types import SimpleNamespace

from ...utils.local_files import train_settings


def env_settings() -> SimpleNamespace:
    """The paths of `local.py` beside this file over the defaults; COMPRESSTRACKER_<FIELD> variables over both.

    Fields: workspace_dir, tensorboard_dir, pretrained_networks, lasot_dir, got10k_dir, got10k_val_dir, coco_dir,
    trackingnet_dir, imagenet_dir, vasttrack_dir, tnl2k_dir, lasot_extension_subset_dir, their *_lmdb_dir forms,
    index_dir, crops_dir (packed crops), and the other names of the official class; absolute paths or ''.

    Raises:
        UserError: `local.py` is broken.
    """
    return train_settings()
