"""Sampling, cropping and loading of training pairs."""

from .loader import Loader, build_loader

__all__ = ["Loader", "build_loader"]
