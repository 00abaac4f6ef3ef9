"""Administration of a training run: paths and logs."""

from lib.train.admin.environment import env_settings

__all__ = ["env_settings"]
