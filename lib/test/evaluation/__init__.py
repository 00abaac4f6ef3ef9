"""Data sets, and running a tracker over them."""

from .datasets import Sequence, get_dataset

__all__ = ["Sequence", "get_dataset"]
