"""The search for a student: how layers are divided, what a student promises, and what fits a budget."""

from itertools import combinations

import numpy as np
import pytest

from lib.budget.costs import Cost, KindCosts, predict
from lib.budget.search import (
    Budget,
    balanced_stages,
    concentration,
    expected_share,
    proxy_slopes,
    search,
    smoothed,
)
from lib.budget.space import Candidate, Kind
from lib.utils.errors import UserError

TEACHER = Kind(96, 3, 4.0, 1.0, 64, 32)


# ---- stages and proxy

def test_equal_layers_are_divided_evenly():
    for layers in (1, 2, 3, 4, 6, 12):
        assert balanced_stages([1.0] * 12, layers) == (12 // layers,) * layers


def test_balanced_stages_are_the_best_of_all():
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = generator.random(9).tolist()
        for layers in (1, 2, 4, 9):
            divisions = [np.diff([0, *cuts, 9]) for cuts in combinations(range(1, 9), layers - 1)]
            best = min(concentration(values, stages) for stages in divisions)
            stages = balanced_stages(values, layers)
            assert sum(stages) == 9 and min(stages) > 0 and concentration(values, stages) == pytest.approx(best)


def test_important_layers_stand_alone():
    values = smoothed([8.0, 1, 1, 1, 1, 1, 1, 1])
    assert sum(values) == pytest.approx(1) and balanced_stages(values, 3)[0] == 1
    assert smoothed([0.0, 0, -1]) == pytest.approx([1 / 3] * 3)


def test_the_proxy_is_near_the_published_shares():
    even = smoothed([1.0] * 12)
    for layers, published in ((2, 60.4), (3, 64.9), (4, 66.1), (6, 67.5), (8, 68.4)):
        share = expected_share(Candidate(TEACHER, balanced_stages(even, layers)), TEACHER, even, 8)
        assert share == pytest.approx(published / 69.1, abs=0.013)
    assert expected_share(Candidate(TEACHER, (1,) * 12), TEACHER, even, 8) == pytest.approx(1)
    assert set(proxy_slopes()) == {"depth", "width", "mlp", "tokens", "resolution"}
    assert min(proxy_slopes().values()) > 0


def test_resolution_costs_the_more_the_fewer_tokens_there_are():
    def lost(stride, teacher, student):
        kind = TEACHER._replace(search=teacher)
        return 1 - expected_share(Candidate(kind._replace(search=student), (1,) * 12), kind, [1.0] * 12, stride)

    assert lost(16, 384, 256) == pytest.approx(1 - 69.1 / 71.1, abs=0.01)        # OSTrack
    assert lost(16, 256, 192) == pytest.approx(1 - 63.8 / 66.8, abs=0.01)        # compresstracker_real_192, VitTrack
    assert lost(8, 64, 48) == pytest.approx(4 * lost(16, 256, 192)) == pytest.approx(lost(16, 128, 96))


def test_less_of_anything_promises_less():
    even = smoothed([1.0] * 12)
    whole = expected_share(Candidate(TEACHER, (3,) * 4), TEACHER, even, 8)
    for change in ({"width": 64}, {"mlp_ratio": 2.0}, {"kept": 0.5}, {"search": 48}):
        assert expected_share(Candidate(TEACHER._replace(**change), (3,) * 4), TEACHER, even, 8) < whole


# ---- search

COSTS = {TEACHER: KindCosts(Cost(2.0, 2e9, 2e6), Cost(4.0, 1e9, 1e6)),
         TEACHER._replace(width=64, heads=2): KindCosts(Cost(1.0, 1e9, 1e6), Cost(3.0, 1e9, 1e6)),
         TEACHER._replace(kept=0.5): KindCosts(Cost(1.2, 1e9, 2e6), eliminating=Cost(2.5, 2e9, 2e6))}


def found_for(**budget):
    return search(COSTS, COSTS, TEACHER, [1.0] * 12, 8, Budget(**budget))


def test_costs_add_up():
    assert predict(COSTS, TEACHER, 4) == Cost(12.0, 9e9, 9e6)
    # the first layer whole, the second eliminates, two are left
    assert predict(COSTS, TEACHER._replace(kept=0.5), 4) == pytest.approx(Cost(4 + 2 + 2.5 + 2 * 1.2, 7e9, 9e6))


@pytest.mark.parametrize("budget", [{"ms": 12.0}, {"macs": 9e9}, {"parameters": 9e6}, {"ms": 20.0, "parameters": 5e6},
                                    {"layers": 3}])
def test_what_is_found_fits_and_the_best_comes_first(budget):
    found = found_for(**budget)
    for name in ("ms", "macs", "parameters"):
        assert all(getattr(one.cost, name) <= budget.get(name, np.inf) for one in found)
    assert [one.kept for one in found] == sorted((one.kept for one in found), reverse=True)
    if "layers" in budget:
        assert {one.candidate.layers for one in found} == {3}
    assert all((one.candidate.kind, one.candidate.layers) != (TEACHER, 12) for one in found)


def test_a_budget_that_nothing_fits_names_the_nearest():
    with pytest.raises(UserError, match=r"no student fits 2 ms: the nearest, 1 layers, width 64, takes 4\.0 ms.*2\.00 "
                                        r"times"):
        found_for(ms=2.0)
    with pytest.raises(UserError, match="no student to look at but the teacher itself"):
        search([TEACHER], COSTS, TEACHER, [1.0] * 12, 8, Budget(layers=12))
