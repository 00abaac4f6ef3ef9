"""Where the student starts from (paper section 4.3, tables on initialisation and head)."""

import logging
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..base import Inputs, StagedTracker
from .narrow import Narrowing

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
                       embed: bool = True, head: str = "teacher",
                       frames: Callable[[], Sequence[Inputs]] | None = None) -> Tensor | None:
    """Take the teacher's weights over into the student, in place.

    Args:
        student, teacher: of one family.
        sources: the teacher layer that each student layer copies; None leaves the student's layers as they are, and all
            of a student of another width.
        embed: copy the embedding.
        head: COMPRESS.HEAD_INIT: `teacher` and `teacher_frozen` copy the teacher's, `random` leaves the student's.
        frames: gives batches of the training data on one device; needed for what has not the teacher's shape
            (see `narrow`).

    Returns:
        The axes of the student's tokens, (teacher's width, student's); None where they are the teacher's, or its own.
    """
    other_width = student.embed_dim != teacher.embed_dim
    if other_width and sources is None:
        return None
    pairs = [(student.layers[index], teacher.layers[number]) for index, number in enumerate(sources or ())]
    narrowing = None
    if other_width or any(hasattr(theirs, "branches") and not _alike(own, theirs) for own, theirs in pairs):
        batches = frames() if frames else []
        if not batches:
            raise ValueError("a student whose layers have not the teacher's shape needs frames")
        narrowing = Narrowing(teacher.to(batches[0].search.device), sources, batches, student.embed_dim)
        teacher.cpu()
    if other_width:
        narrowing.start_rest(student, embed=embed, head=head != "random")
    else:
        for part in ("norm", *["embed"] * embed, *["head"] * (head != "random")):
            student.load_part(part, teacher.state_dict(), teacher.token_grids)
    for index, (own, theirs) in enumerate(pairs):
        if narrowing is not None:
            narrowing.start_layer(own, theirs)
        else:
            _copy_fitting(index, own, theirs)
    return narrowing.axes if narrowing else None


def _alike(own: nn.Module, theirs: nn.Module) -> bool:
    """Whether all tensors have the same shape."""
    shapes = [[value.shape for value in layer.state_dict().values()] for layer in (own, theirs)]
    return shapes[0] == shapes[1]


def _copy_fitting(index: int, own: nn.Module, theirs: nn.Module) -> None:
    """What has the same shape in a student's layer and its teacher's."""
    state = own.state_dict()
    fitting = {name: value for name, value in theirs.state_dict().items() if value.shape == state[name].shape}
    own.load_state_dict(state | fitting)
    if len(fitting) < len(state):
        logger.info("student layer %d copies %d of %d tensors of its teacher layer; the others have another shape and "
                    "stay random", index, len(fitting), len(state))
