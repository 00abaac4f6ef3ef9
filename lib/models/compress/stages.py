"""Stage division (paper section 3.2): which consecutive teacher layers one student layer stands for."""

from collections.abc import Sequence

from ...utils.errors import UserError


def divide(teacher_depth: int, student_depth: int, sizes: Sequence[int] = ()) -> list[range]:
    """Cut the teacher's layers into one stage per student layer.

    Args:
        teacher_depth: N_t.
        student_depth: N_s <= N_t.
        sizes: teacher layers per stage, e.g. (2, 2, 6, 2). Empty: as even as possible; stage i then ends before layer
            floor((i + 1) * N_t / N_s), so 12 -> 4 gives 3, 3, 3, 3 and 12 -> 8 gives 1, 2, 1, 2, 1, 2, 1, 2.

    Returns:
        N_s ranges of 0-based layer numbers that cover 0..N_t - 1.

    Raises:
        UserError: the numbers do not fit together.
    """
    if not 1 <= student_depth <= teacher_depth:
        raise UserError(f"a student of {student_depth} layers cannot be cut from a teacher of {teacher_depth}: "
                        f"MODEL.BACKBONE.DISTILL_LAYER must lie in 1..{teacher_depth}")
    if sizes:
        if len(sizes) != student_depth or sum(sizes) != teacher_depth or min(sizes) < 1:
            raise UserError(f"COMPRESS.STAGES {list(sizes)} must hold {student_depth} positive numbers, one per "
                            f"student layer, that add up to the teacher's {teacher_depth} layers")
        ends = [sum(sizes[:i + 1]) for i in range(student_depth)]
    else:
        ends = [(i + 1) * teacher_depth // student_depth for i in range(student_depth)]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
