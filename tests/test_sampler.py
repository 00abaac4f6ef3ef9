"""Which frames are drawn, compared with the official sampler's rules."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import trees

from lib.config import SAMPLER_MODES
from lib.families.clips import ModeClips
from lib.train.data.sampler import PairSampler, usable
from lib.train.dataset import Annotation, TrackingDataset, build_dataset
from lib.utils.errors import UserError


class Fake(TrackingDataset):
    """Sequences given by their visibility."""

    def __init__(self, name, visible, is_video=True):
        self.name = name
        self.visible = [np.asarray(v, bool) for v in visible]
        self.is_video = is_video

    def __len__(self):
        return len(self.visible)

    def frame(self, sequence, index):
        return np.zeros((8, 8, 3), np.uint8)

    def frame_path(self, sequence, index):
        return f"{sequence}/{index}"

    def annotation(self, sequence):
        return annotation(self.visible[sequence])


def annotation(visible, valid=None):
    visible = np.asarray(visible, bool)
    boxes = np.tile(np.float32([5, 5, 20, 20]), (len(visible), 1))
    boxes[~(visible if valid is None else np.asarray(valid, bool))] = np.nan
    return Annotation(boxes, visible)


def draws(number, visible, mode, gap, valid=None):
    rng = np.random.default_rng(0)
    note = annotation(visible, valid)
    return np.array([pair(note, mode, gap, rng) for _ in range(number)])


def pair(note, mode, gap, rng):
    """Template and search frame of a sequence; None when none is found."""
    clip = ModeClips(mode, gap).draw(note.visible, note.valid, rng)
    return clip and (*clip.templates, *clip.search)


def agrees(found, expected, number):
    """Whether counts follow probabilities: every frequency within five standard deviations."""
    assert set(found) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1)
    return all(abs(found[k] / number - p) < 5 * np.sqrt(p * (1 - p) / number) + 1e-12 for k, p in expected.items())


def causal_distribution(visible, gap):
    """(template, search) -> probability by OSTrack's rule, computed without drawing."""
    seen = np.flatnonzero(visible)

    def partners(template, reach):
        return [int(s) for s in seen if template < s < template + reach]

    def distribution(reach):
        """With larger reach for the templates that have no partner, all of it drawn again."""
        templates = [int(t) for t in seen if t < len(visible) - 1]
        result, again = Counter(), 0.0
        for template in templates:
            choices = partners(template, reach)
            for search in choices:
                result[template, search] += 1 / len(templates) / len(choices)
            again += 0 if choices else 1 / len(templates)
        if reach > len(visible):
            return Counter({pair: p / (1 - again) for pair, p in result.items()})
        if again:
            for pair, p in distribution(reach + 5).items():
                result[pair] += again * p
        return result

    return distribution(gap)


def test_causal_follows_the_official_distribution():
    """Template uniform over the visible frames but the last; search uniform over visible ones 1 to gap - 1 later."""
    visible = np.ones(30, bool)
    visible[[3, 4, 5, 6, 7, 12, 20, 29]] = False
    number, gap = 20000, 6
    found = Counter(map(tuple, draws(number, visible, "causal", gap).tolist()))
    assert agrees(found, causal_distribution(visible, gap), number)


def test_histogram_of_the_gaps_in_a_long_sequence():
    """All visible: every template but the last is as likely, and so is every gap that the sequence's end allows."""
    frames, reach, number = 700, 200, 20000
    found = Counter((draws(number, np.ones(frames, bool), "causal", reach) @ [-1, 1]).tolist())
    expected = Counter()
    for template in range(frames - 1):
        gaps = range(1, min(reach, frames - template))
        for gap in gaps:
            expected[gap] += 1 / (frames - 1) / len(gaps)
    assert agrees(found, expected, number) and max(found) == reach - 1


def test_interval_looks_both_ways():
    pairs = draws(4000, np.ones(60, bool), "interval", 5)
    gaps = pairs[:, 1] - pairs[:, 0]
    assert gaps.min() == -5 and gaps.max() == 4
    assert abs(gaps.mean() + 0.5) < 0.3


def test_trident_is_uniform_where_all_is_visible():
    number = 20000
    found = Counter(map(tuple, draws(number, np.ones(5, bool), "trident", 200).tolist()))
    assert agrees(found, {(t, s): 1 / 25 for t in range(5) for s in range(5)}, number)


def test_modes_differ_in_the_frame_before_the_search_frame():
    visible = np.zeros(30, bool)
    visible[[0, 10, 20]] = True
    valid = visible.copy()
    valid[18] = True

    def later(mode):
        return {(t, s) for t, s in draws(300, visible, mode, 3, valid).tolist() if t < s}

    assert later("trident") == set()
    assert later("stark") == {(0, 20), (10, 20)}
    assert later("trident_pro") == {(0, 10), (0, 20), (10, 20)}


@pytest.mark.parametrize("mode", SAMPLER_MODES)
def test_only_visible_frames_are_drawn(mode):
    visible = np.random.default_rng(1).random(80) < 0.4
    pairs = draws(500, visible, mode, 10)
    assert visible[pairs].all()
    if mode == "causal":
        assert (pairs[:, 1] > pairs[:, 0]).all()


@pytest.mark.parametrize("mode", SAMPLER_MODES)
@pytest.mark.parametrize("visible", [np.zeros(30), np.eye(1, 30, 29)[0]])
def test_hopeless_sequences_end(mode, visible):
    found = pair(annotation(visible), mode, 5, np.random.default_rng(0))
    assert found is None or mode != "causal" and found == (29, 29)


def test_gap_grows_until_a_partner_is_found():
    visible = np.zeros(1000, bool)
    visible[[0, 990]] = True
    assert draws(20, visible, "causal", 10).tolist() == [[0, 990]] * 20


def test_which_sequences_are_usable():
    fake = Fake("a", [np.ones(19), np.ones(20), np.arange(40) < 4, np.arange(40) < 5])
    assert usable(*fake.counts()).tolist() == [False, True, False, True]


def test_ratio_and_uniform_sequences():
    number = 8000
    datasets = [Fake("a", [np.ones(30)] * 4), Fake("b", [np.ones(30)] * 40), Fake("c", np.ones((5, 1)), is_video=False)]
    sampler = PairSampler(datasets, [1, 2, 1], ModeClips("causal", 200))
    rng = np.random.default_rng(3)
    found = [sampler.draw(rng) for _ in range(number)]
    assert agrees(Counter(d.name for d, *_ in found), {"a": 0.25, "b": 0.5, "c": 0.25}, number)
    of_b = [s for d, s, *_ in found if d.name == "b"]
    assert agrees(Counter(of_b), dict.fromkeys(range(40), 1 / 40), len(of_b))
    assert {tuple(f) for d, _, *f in found if d.name == "c"} == {(0, 0)}
    by_size = PairSampler(datasets[:2], None, ModeClips("causal", 200))
    names = Counter(by_size.draw(rng)[0].name for _ in range(number))
    assert agrees(names, {"a": 4 / 44, "b": 40 / 44}, number)
    assert {PairSampler(datasets, [0, 0, 1], ModeClips("causal", 9)).draw(rng)[0].name for _ in range(50)} == {"c"}


def test_draws_from_files_follow_the_official_rules(tmp_path):
    """A mixture of a video and an image data set from their files, with labels that hide frames."""
    hidden, number = (3, 4, 5, 20), 4000
    env = SimpleNamespace(lasot_dir=str(trees.lasot(tmp_path / "lasot", hidden=hidden)), index_dir=str(tmp_path / "i"),
                          coco_dir=str(trees.coco(tmp_path / "coco")))
    sampler = PairSampler([build_dataset("LASOT", env), build_dataset("COCO17", env)], [3, 1], ModeClips("causal", 4))
    rng = np.random.default_rng(5)
    found = [sampler.draw(rng) for _ in range(number)]
    assert agrees(Counter(d.name for d, *_ in found), {"lasot": 0.75, "coco": 0.25}, number)
    videos = [frames for d, *frames in found if d.name == "lasot"]
    assert agrees(Counter(sequence for sequence, *_ in videos), {0: 0.5, 1: 0.5}, len(videos))
    visible = np.ones(24, bool)
    visible[list(hidden)] = False
    assert agrees(Counter((t, s) for _, t, s in videos), causal_distribution(visible, 4), len(videos))
    assert {tuple(frames) for d, _, *frames in found if d.name == "coco"} == {(0, 0)}


def test_rare_usable_sequences_are_found_and_do_not_depend_on_history():
    visible = [np.zeros(30)] * 700
    visible[123] = np.ones(30)
    dataset = Fake("rare", visible)
    sampler = PairSampler([dataset], [1], ModeClips("causal", 5))
    first = sampler.draw(np.random.default_rng(1))
    assert first[1] == 123
    sampler.draw(np.random.default_rng(2))
    assert sampler.draw(np.random.default_rng(1)) == first


def test_nothing_usable():
    with pytest.raises(UserError, match="empty: none of its 2 sequences .*20 frames"):
        sampler = PairSampler([Fake("empty", [np.zeros(30), np.ones(10)])], [1], ModeClips("causal", 5))
        sampler.draw(np.random.default_rng(0))
    hopeless = np.zeros(60)
    hopeless[:50:10] = 1
    with pytest.raises(UserError, match="MAX_SAMPLE_INTERVAL"):
        sampler = PairSampler([Fake("apart", [hopeless])], [1], ModeClips("causal", 5))
        sampler.draw(_AlwaysLast())


class _AlwaysLast:
    """A generator that draws the last frame each time, which never has a partner behind it."""

    def random(self):
        return 0.0

    def integers(self, low, high=None):
        return (low if high is None else high) - 1


@pytest.mark.parametrize("weights", [[1], [0, 0], [-1, 2]])
def test_bad_ratio(weights):
    with pytest.raises(UserError, match="DATASETS_RATIO"):
        PairSampler([Fake("a", [np.ones(30)])] * 2, weights, ModeClips("causal", 5))


def test_bad_mode():
    with pytest.raises(UserError, match="SAMPLER_MODE 'causul'.*trident"):
        PairSampler([Fake("a", [np.ones(30)])], [1], ModeClips("causul", 5))
