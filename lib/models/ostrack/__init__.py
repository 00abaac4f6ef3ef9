"""OSTrack (Ye et al., ECCV 2022): a one-stream ViT tracker. Teacher and student are this class at different depths."""

from .heads import CenterHead, CornerHead, MLPHead
from .ostrack import OSTrack
from .vit import ViTBackbone

__all__ = ["CenterHead", "CornerHead", "MLPHead", "OSTrack", "ViTBackbone"]
