"""Where the student starts from (paper section 4.3, tables on initialisation and head)."""

import logging
from collections.abc import Sequence

from ..base import StagedTracker

logger = logging.getLogger(__name__)


def source_layers(kind: str, stages: Sequence[range]) -> list[int]:
    """Teacher layer that each student layer copies.

    Args:
        kind: `skip`: the last layer of each stage (0-based 2, 5, 8, 11 for 12 -> 4). `first`: the first N_s layers.
        stages: see `divide`.
    """
    if kind == "skip":
        return [stage[-1] for stage in stages]
    return list(range(len(stages)))


def initialise_student(student: StagedTracker, teacher: StagedTracker, stages: Sequence[range], *, layers: str = "skip",
                       head: str = "teacher") -> None:
    """Copy the teacher's weights into the student, in place.

    Args:
        student, teacher: of one family. A student of another width copies nothing; of layers that differ elsewhere (the
            MLP) what has the same shape is copied.
        stages: see `divide`.
        layers: COMPRESS.INIT: `skip`, `first`, or `none` / `mae` to leave the student's layers as they are. With `mae`
            the embedding is left too: both then come from the MAE file.
        head: COMPRESS.HEAD_INIT: `teacher` and `teacher_frozen` copy the teacher's, `random` leaves the student's.
    """
    if student.embed_dim != teacher.embed_dim:
        return
    copied = {"norm"}
    if layers != "mae":
        copied.add("embed")
    if head != "random":
        copied.add("head")
    source = teacher.state_dict()
    for name in copied:
        student.load_part(name, source)
    if layers in ("skip", "first"):
        for index, number in enumerate(source_layers(layers, stages)):
            own = student.layers[index].state_dict()
            fitting = {name: value for name, value in teacher.layers[number].state_dict().items()
                       if value.shape == own[name].shape}
            student.layers[index].load_state_dict(own | fitting)
            if len(fitting) < len(own):
                logger.info("student layer %d copies %d of %d tensors of teacher layer %d; the others have another "
                            "shape and stay random", index, len(fitting), len(own), number)
