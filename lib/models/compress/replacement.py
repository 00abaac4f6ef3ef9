"""Replacement training (paper section 3.3) and its schedule, progressive replacement (section 3.5)."""

import torch


def replacement_probability(epoch: int, epochs: int, kind: str = "progressive", p_init: float = 0.5,
                            alpha1: float = 0.1, alpha2: float = 0.1) -> float:
    """Probability that a stage runs the student's layer in `epoch`.

    Args:
        epoch: 1..epochs.
        epochs: m.
        kind: `progressive`: with t = epoch - 1 finished epochs, p_init while t < alpha1 * m, 1 from (1 - alpha2) * m,
            a straight line between. `constant`: p_init. `released`: what the released code does: its first and last
            m // 10 epochs are fixed, and its line counts t = epoch, so it starts one step above the paper's.
    """
    if kind == "constant":
        return p_init
    done = epoch - 1
    if kind == "released":
        edge = epochs // 10
        first, last, line_at = edge, epochs - edge, epoch
        still = done <= first and done < last
    else:
        first, last, line_at = alpha1 * epochs, (1 - alpha2) * epochs, done
        still = done < first
    if still:
        return p_init
    if done >= last:
        return 1.0
    return p_init + (1 - p_init) * (line_at - first) / (last - first)


def stagewise_pattern(epoch: int, epochs: int, stages: int) -> list[bool]:
    """Stage-by-stage training, the paper's alternative to draws: the epochs are cut into as many equal parts as there
    are stages, and in part k (from 1) the first k stages are the student's, the others the teacher's.

    Args:
        epoch: 1..epochs.
        epochs: of the whole training.

    Returns:
        `stages` booleans, True = student.
    """
    students = min(stages, 1 + (epoch - 1) * stages // epochs)
    return [index < students for index in range(stages)]


def draw_stages(stages: int, probability: float, generator: torch.Generator | None = None,
                forced: bool = False) -> list[bool]:
    """Draw, for each stage, whether the student runs it.

    Args:
        stages: number of stages.
        probability: p of each independent Bernoulli draw.
        generator: source of randomness, on the CPU.
        forced: the released code's rule: never all teacher (one random stage is then the student's), and with
            p < 0.5 exactly one stage is the student's.

    Returns:
        `stages` booleans, True = student.
    """
    draws = torch.rand(stages, generator=generator) < probability
    if forced and (probability < 0.5 or not draws.any()):
        draws = torch.zeros(stages, dtype=torch.bool)
        draws[torch.randint(stages, (1,), generator=generator)] = True
    return draws.tolist()
