"""Administration of a training run: paths and logs."""

from .environment import env_settings

__all__ = ["env_settings"]
