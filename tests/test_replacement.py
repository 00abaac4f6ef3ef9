"""Compression's plan: stage division, the replacement schedules, and the draws."""

from fractions import Fraction

import pytest
import torch

from lib.models.compress import divide, draw_stages, replacement_probability, stagewise_pattern
from lib.models.compress.initialise import source_layers
from lib.utils.errors import UserError


def sizes(stages) -> list[int]:
    return [len(stage) for stage in stages]


# ---------------------------------------------------------------- stages

@pytest.mark.parametrize("teacher, student, given, expected", [
    (12, 2, (), [6, 6]), (12, 3, (), [4, 4, 4]), (12, 4, (), [3, 3, 3, 3]), (12, 6, (), [2] * 6),
    (12, 8, (), [1, 2] * 4), (12, 5, (), [2, 2, 3, 2, 3]), (12, 12, (), [1] * 12), (12, 1, (), [12]),
    (24, 4, (), [6] * 4), (12, 4, (2, 2, 6, 2), [2, 2, 6, 2]), (12, 8, (1, 1, 1, 1, 2, 2, 2, 2), [1] * 4 + [2] * 4)])
def test_divide(teacher, student, given, expected):
    stages = divide(teacher, student, given)
    assert sizes(stages) == expected
    assert [layer for stage in stages for layer in stage] == list(range(teacher))


@pytest.mark.parametrize("teacher, student, given, key", [
    (12, 13, (), r"DISTILL_LAYER must lie in 1\.\.12"), (12, 0, (), "DISTILL_LAYER"),
    (12, 4, (3, 3, 6), "COMPRESS.STAGES .* 4 positive numbers"), (12, 4, (3, 3, 3, 4), "add up to the teacher's 12"),
    (12, 3, (12, 0, 0), "COMPRESS.STAGES"), (12, 3, (14, -1, -1), "COMPRESS.STAGES")])
def test_divisions_that_do_not_fit(teacher, student, given, key):
    with pytest.raises(UserError, match=key):
        divide(teacher, student, given)


def test_sources_of_the_student_layers():
    assert source_layers("skip", divide(12, 4)) == [2, 5, 8, 11]          # the paper's
    assert source_layers("skip", divide(12, 2)) == [5, 11]
    assert source_layers("skip", divide(12, 4, (2, 2, 6, 2))) == [1, 3, 9, 11]
    assert source_layers("first", divide(12, 4)) == [0, 1, 2, 3]
    assert source_layers("none", divide(12, 4)) is None
    influence = [0.9, 0.1, 0.2, 0.3, 0.3, 0.1, 0, 0, 0]
    assert source_layers("influence", divide(9, 3), influence) == [0, 4, 8], "the last of equals"


# ---------------------------------------------------------------- schedules

def probabilities(epochs, *args, **kwargs) -> list[float]:
    return [replacement_probability(epoch, epochs, *args, **kwargs) for epoch in range(1, epochs + 1)]


def test_progressive_schedule_at_its_edges():
    p = [None, *probabilities(500)]                                       # p[epoch]
    assert p[1] == p[50] == 0.5                                           # t = 0 and 49 finished epochs
    assert p[51] == 0.5 and p[52] == pytest.approx(0.5 + 0.5 / 400)       # t = 50: the line begins
    assert p[251] == pytest.approx(0.75)
    assert p[450] == pytest.approx(1 - 0.5 / 400) and p[451] == p[500] == 1
    assert p[1:] == sorted(p[1:])


def test_the_papers_mean_probability_is_three_quarters():
    p = probabilities(500)
    assert sum(p) / 500 == pytest.approx(0.75, abs=1e-3)
    assert sum(p) == pytest.approx(375, abs=0.5)                          # epochs of each student layer


@pytest.mark.parametrize("epochs, p_init, alpha1, alpha2", [(10, 0.2, 0.3, 0.2), (7, 0.0, 0.0, 0.0),
                                                            (30, 0.5, 0.1, 0.1), (1, 0.5, 0.1, 0.1)])
def test_progressive_schedule_follows_the_formula(epochs, p_init, alpha1, alpha2):
    a1, a2, first = (Fraction(str(value)) for value in (alpha1, alpha2, p_init))
    for t, p in enumerate(probabilities(epochs, "progressive", p_init, alpha1, alpha2)):
        if t < a1 * epochs:
            wanted = first
        elif t <= (1 - a2) * epochs:
            wanted = first + (1 - first) * (t - a1 * epochs) / ((1 - a1 - a2) * epochs)
        else:
            wanted = Fraction(1)
        assert p == pytest.approx(float(wanted), abs=1e-9), t


def test_progressive_schedule_with_a_jump_in_the_place_of_the_ramp():
    assert probabilities(5, "progressive", 0.9, 0.6, 0.4) == [0.9, 0.9, 0.9, 1, 1]


def test_constant_schedule():
    assert set(probabilities(20, "constant", 0.3)) == {0.3}


def test_stage_by_stage_lets_one_stage_after_the_other_in():
    patterns = [stagewise_pattern(epoch, 8, 4) for epoch in range(1, 9)]
    assert [sum(pattern) for pattern in patterns] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(pattern == sorted(pattern, reverse=True) for pattern in patterns)      # from the first stage on
    assert [sum(stagewise_pattern(epoch, 5, 4)) for epoch in range(1, 6)] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize("epochs", [500, 300, 57, 10, 9])
def test_released_schedule_read_slowly(epochs):
    """Epochs 1 .. m//10 + 1 at one half, the last m//10 at one; between, epoch e lies (e - m//10) steps up a ramp of
    m - 2 (m//10) steps, so that the ramp starts two steps above its foot and ends at its top."""
    edge = epochs // 10
    step = Fraction(1, 2) / (epochs - 2 * edge)
    wanted = [Fraction(1, 2)] * (edge + 1)
    while len(wanted) < epochs - edge:
        wanted.append((wanted[-1] + 2 * step) if len(wanted) == edge + 1 else wanted[-1] + step)
    wanted += [Fraction(1)] * edge
    assert probabilities(epochs, "released", 0.5, 0.4, 0.3) == pytest.approx([float(p) for p in wanted])


# ---------------------------------------------------------------- draws

def draw_many(number, stages, p, forced=False, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor([draw_stages(stages, p, generator, forced) for _ in range(number)])


@pytest.mark.parametrize("p", [0.3, 0.5, 0.9])
def test_draws_are_independent_and_have_probability_p(p):
    draws = draw_many(4000, 4, p).float()
    tolerance = 4.5 * (p * (1 - p) / 4000) ** 0.5
    assert torch.all((draws.mean(0) - p).abs() < tolerance)
    together = (draws[:, 0] * draws[:, 1]).mean()
    assert together == pytest.approx(p * p, abs=0.04)
    assert draw_many(50, 4, 0.0).sum() == 0 and draw_many(50, 4, 1.0).all()


def test_draws_depend_on_the_generator_alone():
    torch.manual_seed(0)
    first = draw_many(20, 4, 0.5, seed=7)
    torch.rand(5)
    assert torch.equal(first, draw_many(20, 4, 0.5, seed=7))
    assert not torch.equal(first, draw_many(20, 4, 0.5, seed=8))
    state = torch.get_rng_state()
    draw_many(5, 4, 0.1, forced=True)
    assert torch.equal(state, torch.get_rng_state())


def test_forced_draws():
    few = draw_many(2000, 4, 0.3, forced=True)
    assert torch.all(few.sum(1) == 1)                                     # p < 0.5: exactly one student stage
    assert torch.all((few.float().mean(0) - 0.25).abs() < 0.045)
    many = draw_many(4000, 2, 0.5, forced=True)
    assert many.any(1).all()                                              # never all teacher
    counts = many.sum(1).bincount(minlength=3)
    assert counts[2] / 4000 == pytest.approx(0.25, abs=0.035)             # the others are as they were drawn
    assert not draw_many(200, 2, 0.5).any(1).all()                        # without the rule, all teacher does happen
