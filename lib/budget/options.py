"""What can be asked of a compression to a budget. Needs no PyTorch, so that a command line can be read without."""

from ..deploy.formats import PRECISIONS

VARIED = ("width", "mlp", "tokens", "resolution")
"""What may differ from the teacher besides the number of layers."""
BACKENDS = ("fast", "torch", *PRECISIONS)
"""What can run a student: the fast module, plain PyTorch, or the engine of an export format."""
RECIPE = "compresstracker/compresstracker_vitb_256_4"
"""Whose TRAIN and COMPRESS sections a student is trained with, where no other is named: the paper's."""
SEARCHED = ("STUDENT.", "MODEL.BACKBONE.DISTILL_LAYER", "MODEL.PRETRAIN_FILE", "MODEL.FAMILY", "COMPRESS.STAGES",
            "COMPRESS.FEAT_STAGES", "COMPRESS.INIT_LAYERS", "TRAIN.CE_START_EPOCH", "TRAIN.CE_WARM_EPOCH")
"""Keys, or the starts of keys, that the search or the other options decide on."""
