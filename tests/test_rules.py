"""What a tracker keeps of a target from frame to frame, by rules that grow a memory."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lib.families.rules import Rules, State
from lib.families.templates import LatestTemplate, of_benchmark
from lib.models.base import Prediction
from lib.test.tracker import Tracker

SIZES = dict(search_size=64, search_factor=4.0, template_size=32, template_factor=2.0, stride=16, mean=(0.0,) * 3,
             std=(1.0,) * 3)


@dataclass(frozen=True)
class Memory(Rules):
    """Keeps a template of every second frame, and the sum of what the model says of each."""

    def start(self, templates, boxes_xywh):
        return State(templates, {"sum": torch.zeros(1, 1)}, kept=[boxes_xywh[0, 0].tolist()])

    def update(self, state, found):
        state = State(state.templates, {"sum": state.further["sum"] + found.further["mean"]}, state.kept)
        if found.number % 2:
            return state
        template, box = found.template(found.box_xywh)
        return State(torch.cat([state.templates, template], dim=1), state.further, [*state.kept, box[0, 0].tolist()])


class Model:
    """A box that depends on all that it is given; counts its passes."""

    passes = 0

    def __call__(self, templates, search, further):
        self.passes += 1
        means = [templates.flatten(1).mean(1), search.flatten(1).mean(1), further["sum"][:, 0].sin()]   # (B,) each
        center = 0.5 + 0.1 * (10 * sum(means)).sin()
        size = torch.full_like(center, 0.25)
        return Prediction(torch.stack([center, center, size, size], dim=1)[:, None],
                          further={"score": center, "mean": means[1][:, None]})


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (7, 90, 120, 3), dtype=np.uint8)


def follow(tracker, frames, box):
    target = tracker.start(frames[0], box)
    return [tracker.step([frame], [target])[0] for frame in frames[1:]], target


def test_the_state_is_the_targets_own(frames):
    """Targets that began at different frames, side by side: what is kept of them differs in size."""
    tracker = Tracker(Model(), **SIZES, rules=Memory())
    alone, kept = follow(tracker, frames, [40, 30, 20, 20])
    other, _ = follow(tracker, frames[2:], [60, 20, 20, 30])
    assert kept.state.templates.shape == (1, 4, 3, 32, 32) and kept.frames == 6
    assert kept.state.kept == [[pytest.approx(7.5 / 32, abs=1e-3)] * 2 + [pytest.approx(0.5, abs=1e-3)] * 2] * 4

    targets = [tracker.start(frames[0], [40, 30, 20, 20])]
    results: list[list] = [[], []]
    for number, frame in enumerate(frames[1:], 1):
        before = tracker.model.passes
        for found, result in zip(results, tracker.step([frame] * len(targets), targets), strict=False):
            found.append(result)
        assert tracker.model.passes - before == (1 if len(targets) == 1 else 2)
        if number == 2:
            targets.append(tracker.start(frame, [60, 20, 20, 30]))
    for expected, found in zip((alone, other), results, strict=True):
        np.testing.assert_allclose([result.box_xywh for result in found],
                                   [result.box_xywh for result in expected], atol=1e-3)
        assert [result.score for result in found] == pytest.approx([result.score for result in expected], abs=1e-5)


def test_a_search_that_moves_nothing_changes_nothing(frames):
    tracker = Tracker(Model(), **SIZES, rules=Memory())
    target = tracker.start(frames[0], [40, 30, 20, 20])
    state = target.state
    tracker.find([frames[1]] * 2, [target] * 2, [[40, 30, 20, 20], [50, 30, 20, 20]])
    assert target.state is state and target.frames == 0


def test_a_model_without_scores_has_none(frames):
    tracker = Tracker(lambda templates, search: Prediction(torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])), **SIZES)
    results, target = follow(tracker, frames, [40, 30, 20, 20])
    assert all(math.isnan(result.score) for result in results) and target.templates.shape == (1, 3, 32, 32)


def test_the_latest_sure_template(frames):
    tracker = Tracker(lambda templates, search: Prediction(
        torch.tensor([[[0.5, 0.5, 0.25, 0.25]]]), further={"score": next(scores)}), **SIZES,
        rules=LatestTemplate(interval=2, threshold=0.5))
    scores = iter(torch.tensor([[0.9], [0.4], [0.9], [0.6], [0.9], [0.5]]))
    target, kept = tracker.start(frames[0], [40, 30, 20, 20]), []
    first = target.state.templates
    assert first.shape == (1, 2, 3, 32, 32) and torch.equal(first[:, 0], first[:, 1])
    for frame in frames[1:]:
        tracker.step([frame], [target])
        kept.append(target.state.templates)
    assert torch.equal(kept[2], first) and torch.equal(kept[5], kept[3]), "not sure enough in frames 2 and 6"
    assert torch.equal(kept[3][:, 0], first[:, 0]) and not torch.equal(kept[3][:, 1], first[:, 1])
    assert torch.equal(target.templates, kept[3]) and target.state.kept.shape == (1, 2, 4)


def test_a_benchmarks_value():
    values = {"DEFAULT": 1, "LASOT": 2, "LASOT_EXT": 3, "VOT": 4, "VOT20": 5}
    names = {"lasot": 2, "lasot_extension_subset": 3, "vot2020": 5, "vot": 4, "folder:my_videos": 1, "": 1}
    assert {name: of_benchmark(values, name) for name in names} == names
