"""Compression of a tracker (CompressTracker, arXiv 2409.17564): stages, replacement, initialisation, the compressor."""

from lib.models.compress.compressor import Compressed, Compressor, Targets
from lib.models.compress.replacement import draw_stages, replacement_probability
from lib.models.compress.stages import divide

__all__ = ["Compressed", "Compressor", "Targets", "divide", "draw_stages", "replacement_probability"]
