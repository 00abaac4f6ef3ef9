"""Compression of a tracker (CompressTracker, arXiv 2409.17564): stages, replacement, initialisation, the compressor."""

from .compressor import Compressed, Compressor, Targets
from .replacement import draw_stages, replacement_probability, stagewise_pattern
from .stages import divide

__all__ = ["Compressed", "Compressor", "Targets", "divide", "draw_stages", "replacement_probability",
           "stagewise_pattern"]
