"""Where the student starts from (paper section 4.3, tables on initialisation and head)."""

import logging
from collections.abc import Sequence

from ..base import StagedTracker

logger = logging.getLogger(__name__)


def source_layers(kind: str, stages: Sequence[range], influence: Sequence[float] = ()) -> list[int] | None:
    """Teacher layer that each student layer copies (COMPRESS.INIT); None where they copy none.

    Args:
        kind: `skip`: the last layer of each stage (0-based 2, 5, 8, 11 for 12 -> 4). `first`: the first N_s layers.
            `influence`: the layer of each stage that does most, the last of equals.
        stages: see `divide`.
        influence: of each teacher layer (`layer_influence`), for `influence`.
    """
    if kind == "influence":
        return [max(stage, key=lambda layer: (influence[layer], layer)) for stage in stages]
    return {"skip": [stage[-1] for stage in stages], "first": list(range(len(stages)))}.get(kind)


def initialise_student(student: StagedTracker, teacher: StagedTracker, *, sources: Sequence[int] | None,
                       embed: bool = True, head: str = "teacher") -> None:
    """Copy the teacher's weights into the student, in place.

    Args:
        student, teacher: of one family. A student of another width copies nothing; of layers that differ elsewhere (the
            MLP) what has the same shape is copied.
        sources: the teacher layer that each student layer copies; None leaves the student's layers as they are.
        embed: copy the embedding.
        head: COMPRESS.HEAD_INIT: `teacher` and `teacher_frozen` copy the teacher's, `random` leaves the student's.
    """
    if student.embed_dim != teacher.embed_dim:
        return
    copied = {"norm"}
    if embed:
        copied.add("embed")
    if head != "random":
        copied.add("head")
    source = teacher.state_dict()
    for name in copied:
        student.load_part(name, source, teacher.token_grids)
    for index, number in enumerate(sources or ()):
        own = student.layers[index].state_dict()
        fitting = {name: value for name, value in teacher.layers[number].state_dict().items()
                   if value.shape == own[name].shape}
        student.layers[index].load_state_dict(own | fitting)
        if len(fitting) < len(own):
            logger.info("student layer %d copies %d of %d tensors of teacher layer %d; the others have another "
                        "shape and stay random", index, len(fitting), len(own), number)
