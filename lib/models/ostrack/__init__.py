"""OSTrack (Ye et al., ECCV 2022): a one-stream ViT tracker. Teacher and student are this class at different depths."""

from lib.models.ostrack.heads import CenterHead, CornerHead, MLPHead
from lib.models.ostrack.ostrack import OSTrack
from lib.models.ostrack.vit import ViTBackbone

__all__ = ["CenterHead", "CornerHead", "MLPHead", "OSTrack", "ViTBackbone"]
