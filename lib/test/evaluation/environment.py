"""Where tests find data sets and put results on this machine."""

from types import SimpleNamespace

from ...utils.local_files import test_fields, test_settings


class EnvSettings(SimpleNamespace):
    """The default paths, for `local.py` to change; the field names are the official ones."""

    def __init__(self):
        super().__init__(**test_fields())


def env_settings() -> SimpleNamespace:
    """The paths of `local.py` beside this file over the defaults; COMPRESSTRACKER_<FIELD> variables over both.

    Fields: prj_dir, save_dir, results_path, result_plot_path, network_path, lasot_path, got10k_path,
    trackingnet_path and the other names of the official class; absolute paths or ''.

    Raises:
        UserError: `local.py` is broken.
    """
    return test_settings()
