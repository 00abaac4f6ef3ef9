"""Samples of several templates and search frames, from the draw to the training; pairs are drawn as they ever were."""

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trees
from test_distributed_equality import NO_NORM, assert_same_training
from test_processing import batches, configuration, processing, ready, same
from test_sampler import Fake, agrees
from tiny_models import same as same_weights
from tiny_models import tiny, tiny_batch
from training_fakes import build_scrambled, fit, noise_config

import lib.train.run as run
from lib.config import SAMPLER_MODES, load_config
from lib.families.clips import Clip, ClipRule, ModeClips, OrderClips
from lib.families.objective import search_frames
from lib.train.actors import build_actor
from lib.train.data import build_loader
from lib.train.data.packing import Packing, Recipe
from lib.train.data.processing import PairProcessing
from lib.train.data.sampler import PairSampler
from lib.train.dataset import Annotation, build_dataset
from lib.train.profiling.floor import step_work
from lib.train.profiling.step import FixedBatch
from lib.train.state import state_name
from lib.utils.crop import Normaliser, square_crop
from lib.utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "pair_draws.npz"
CPU = torch.device("cpu")
FRAMES = 24


def several(folder, templates=1, search=1, **options):
    cfg = configuration(folder, **options)
    cfg.DATA.TEMPLATE.NUMBER, cfg.DATA.SEARCH.NUMBER = templates, search
    return cfg


def draws(rule, number, visible, valid=None):
    rng, visible = np.random.default_rng(0), np.asarray(visible, bool)
    valid = np.ones_like(visible) if valid is None else np.asarray(valid, bool)
    return [rule.draw(visible, valid, rng) for _ in range(number)]


# ---------------------------------------------------------------- pairs

@pytest.mark.parametrize("mode", SAMPLER_MODES)
def test_pairs_are_those_that_were_drawn_before_there_were_clips(mode, tmp_path):
    """Frames of many sequences, what the generator gives next, and boxes and brightness of a loader's samples, as the
    code recorded them that could draw pairs only."""
    golden, rng = np.load(GOLDEN), np.random.default_rng(7)
    found = []
    for seed in range(30):
        made = np.random.default_rng(seed)
        frames = int(made.integers(20, 120))
        boxes = np.tile(np.float32([5, 5, 20, 20]), (frames, 1))
        boxes[made.random(frames) < 0.3] = np.nan
        note = Annotation.of(boxes, made.random(frames) < (0.7, 0.3, 0.08)[seed % 3])
        for gap in (3, 200):
            clip = ModeClips(mode, gap).draw(note.visible, note.valid, rng)
            found.append((-1, -1) if clip is None else (*clip.templates, *clip.search))
    assert np.array_equal(found, golden[f"{mode}_frames"]) and rng.random() == golden[f"{mode}_next"]
    cfg = configuration(trees.folder(tmp_path), SAMPLER_MODE=mode, MAX_SAMPLE_INTERVAL=6, GRAYSCALE_PROB=0.3)
    loader = build_loader(cfg, "train", seed=3, batch_size=12, num_workers=0)
    batch = loader.pairs.batch([(2, index) for index in range(12)])
    for name in ("boxes", "gains"):
        assert np.array_equal(batch[name].numpy(), golden[f"{mode}_{name}"])


# ---------------------------------------------------------------- which frames

def test_causal_clips_follow_the_official_distribution():
    """The first template leaves room for the others, which are earlier ones, and for the search frames, later ones;
    each is uniform among the visible ones in reach, with replacement."""
    visible, gap, number = np.ones(9, bool), 3, 30000
    visible[[3, 6]] = False
    seen = np.flatnonzero(visible)
    expected, bases = Counter(), [base for base in seen if 1 <= base < 9 - 2]
    for base in bases:
        earlier = [frame for frame in seen if base - gap <= frame < base]
        later = [frame for frame in seen if base < frame < base + gap]
        for further, one, two in itertools.product(earlier, later, later):
            expected[Clip((base, further), (one, two))] += 1 / len(bases) / len(earlier) / len(later)**2
    found = Counter(draws(ModeClips("causal", gap, 2, 2), number, visible))
    assert agrees(found, expected, number)


def test_interval_clips_lie_around_the_first_template():
    number, gap = 20000, 2
    expected = Counter()
    for base in range(5):
        near = [frame for frame in range(5) if base - gap <= frame < base + gap]
        for further, one, two in itertools.product(near, repeat=3):
            expected[Clip((base, further), (one, two))] += 1 / 5 / len(near)**3
    assert agrees(Counter(draws(ModeClips("interval", gap, 2, 2), number, np.ones(5))), expected, number)


@pytest.mark.parametrize("mode", ["trident", "trident_pro", "stark"])
def test_further_templates_lie_between_the_search_frame_and_the_first(mode):
    """In reach of the search frame, towards the first template; of frames that the mode allows and that have a box."""
    visible, valid, gap = np.zeros(30, bool), np.zeros(30, bool), 4
    visible[[0, 8, 10, 20]] = True
    valid[[0, 7, 8, 9, 10, 18, 20, 22]] = True
    allowed = {"trident": visible, "trident_pro": valid, "stark": valid}[mode]
    clips = draws(ModeClips(mode, gap, 3), 3000, visible, valid)
    for (first, *further), (search,) in clips:
        reach = range(search, search + gap) if first >= search else range(search - gap, search)
        assert visible[[first, search]].all() and allowed[further].all() and set(further) <= set(reach)
    assert {frame for clip in clips for frame in clip.templates[1:]} \
        == ({0, 8, 10, 20} if mode == "trident" else set(np.flatnonzero(valid)))


def test_clips_in_order_follow_the_official_distribution():
    """All frames are drawn around a base, with replacement, and put in the order of time or backwards."""
    visible, gap, number = np.ones(6, bool), 2, 30000
    visible[3] = False
    seen, expected = np.flatnonzero(visible), Counter()
    for base in seen:
        near = [frame for frame in seen if base - gap <= frame < base + gap]
        for frames in itertools.product(near, repeat=3):
            for backwards in (False, True):
                one, two, three = sorted(frames, reverse=backwards)
                expected[Clip((one, two), (three,))] += 1 / len(seen) / len(near)**3 / 2
    assert agrees(Counter(draws(OrderClips(gap, 2, 1), number, visible)), expected, number)
    assert draws(OrderClips(gap, 2, 1), 1, np.zeros(30)) == [None]


@pytest.mark.parametrize("mode", SAMPLER_MODES)
def test_hopeless_sequences_end(mode):
    none, one = np.zeros(30), np.eye(1, 30, 12)[0]
    assert draws(ModeClips(mode, 5, 3), 1, none, none) == [None]
    found = None if mode == "causal" else Clip((12, 12, 12), (12,))
    assert draws(ModeClips(mode, 5, 3), 1, one, one) == [found]


def test_reach_grows_until_there_are_enough():
    visible = np.zeros(1000, bool)
    visible[[5, 500, 990]] = True
    assert set(draws(ModeClips("causal", 10, 2, 2), 20, visible)) == {Clip((500, 5), (990, 990))}


@pytest.mark.parametrize("mode", ["trident", "trident_pro", "stark"])
def test_modes_with_one_search_frame_say_so(mode):
    words = f"DATA.SEARCH.NUMBER is 2, but DATA.SAMPLER_MODE {mode} draws one .*causal or interval"
    with pytest.raises(UserError, match=words):
        ModeClips(mode, 200, 1, 2)
    with pytest.raises(UserError, match=words):
        tiny("ostrack", DATA__SEARCH__NUMBER=2, DATA__SAMPLER_MODE=mode)


@pytest.mark.parametrize("script, name", [("ostrack", "vitb_256_mae_32x4_ep300"), ("vittrack", "vittrack"),
                                          ("compresstracker", "compresstracker_vitb_256_4")])
def test_families_with_one_template_say_so(script, name):
    assert load_config(script, name, ["DATA.SEARCH.NUMBER=3"]).DATA.SEARCH.NUMBER == 3
    with pytest.raises(UserError, match=r"DATA.TEMPLATE.NUMBER is 2; expected 1: a model of family \w+ takes one"):
        load_config(script, name, ["DATA.TEMPLATE.NUMBER=2"])
    with pytest.raises(UserError, match="DATA.SEARCH.NUMBER.*at least 1"):
        load_config(script, name, ["DATA.SEARCH.NUMBER=0"])


def test_sequences_need_two_visible_frames_for_each_of_a_clip():
    short, enough = Fake("a", [np.arange(40) < 10]), Fake("a", [np.arange(40) < 11])
    rule = ModeClips("causal", 5, 2, 3)
    with pytest.raises(UserError, match="at least 20 frames, 11 of them"):
        PairSampler([short], None, rule).draw(np.random.default_rng(0))
    _, sequence, *frames = PairSampler([enough], None, rule).draw(np.random.default_rng(0))
    assert sequence == 0 and len(frames) == 5


# ---------------------------------------------------------------- crops

class Fixed(ClipRule):
    """A family's own rule, always with the same frames."""

    templates_of, search_of = (4, 2), (7, 5, 9)

    def __init__(self):
        super().__init__(2, 3)

    def draw(self, visible, valid, rng):
        return Clip(self.templates_of, self.search_of)


@pytest.mark.parametrize("loader", ["frames", "gpu"])
def test_crops_are_those_of_the_frames_in_the_order_of_the_familys_rule(tmp_path, loader):
    """Made one by one, without jitter; the frames are PNG files, so that the pixels are known."""
    root = trees.folder(tmp_path)
    (root / "png.txt").write_text("first\n")
    cfg = several(f"{root}@png.txt", 2, 3, LOADER=loader, GRAYSCALE_PROB=0, FLIP_PROB=0)
    cfg.DATA.SEARCH.CENTER_JITTER = cfg.DATA.SEARCH.SCALE_JITTER = 0
    cfg.family = SimpleNamespace(clips=lambda cfg: Fixed(), last_pixel=False)
    batch = batches(cfg, "val", batch_size=4)[0]
    normalise = Normaliser(cfg.DATA.MEAN, cfg.DATA.STD)
    for view, section, frames in (("template", cfg.DATA.TEMPLATE, Fixed.templates_of),
                                  ("search", cfg.DATA.SEARCH, Fixed.search_of)):
        assert batch[view].shape == (4, len(frames), 3, section.SIZE, section.SIZE) and batch[view].is_contiguous()
        assert batch[f"{view}_box"].shape == (4, len(frames), 4)
        for place, frame in enumerate(frames):
            crop = square_crop(trees.picture(frame), trees.box(frame), section.FACTOR, section.SIZE)
            expected = normalise(torch.from_numpy(crop.image).permute(2, 0, 1)[None])
            assert (batch[view][:, place] == expected).all()
            side = np.array(trees.box(frame)[2:]) * crop.scale / section.SIZE
            assert np.allclose(batch[f"{view}_box"][:, place, 2:], side, atol=1e-6)


@pytest.mark.parametrize("templates, search", [(2, 1), (1, 2), (2, 3)])
def test_one_of_a_kind_has_no_dimension_of_its_own(tmp_path, templates, search):
    batch = batches(several(trees.folder(tmp_path), templates, search))[0]
    for view, number, side in (("template", templates, 32), ("search", search, 64)):
        middle = () if number == 1 else (number,)
        assert batch[view].shape == (4, *middle, 3, side, side) and batch[f"{view}_box"].shape == (4, *middle, 4)


@pytest.mark.parametrize("kind", ["process", "thread"])
@pytest.mark.parametrize("loader", ["frames", "gpu"])
def test_workers_do_not_change_the_clips(tmp_path, kind, loader):
    cfg = several(trees.folder(tmp_path), 2, 2, kind=kind, LOADER=loader)
    alone = batches(cfg, epoch=3)
    assert same(alone, batches(cfg, epoch=3, num_workers=2))
    assert same(alone, batches(several(cfg.DATA.TRAIN.DATASETS_NAME[0][7:], 2, 2), epoch=3))


def test_grey_and_mirror_are_the_clips_and_the_rest_each_crops_own():
    process = processing(numbers=(2, 3), gray_prob=0.5)
    joint, lights = set(), set()
    for seed in range(20):
        crops = process([trees.SIZE] * 5, [np.float32(trees.box(number)) for number in range(5)],
                        np.random.default_rng(seed))
        changes = {(crop.gray, crop.mirror) for crop in crops}
        assert len(changes) == 1 and [crop.size for crop in crops] == [32, 32, 64, 64, 64]
        joint |= changes
        lights |= {crop.light for crop in crops}
        assert len({tuple(crop.square) for crop in crops}) == 5
    assert len(joint) == 4 and len(lights) == 100


def test_later_templates_may_err_as_a_trackers_own():
    """They are cut around another box than the target's, and told as that: its middle is the crop's."""
    plain = processing(numbers=(3, 1), augment=False)
    erring = PairProcessing(plain.template, plain.search, tracked=plain.template._replace(center_jitter=0.5),
                            numbers=(3, 1), augment=False)
    boxes = [np.float32(trees.box(0))] * 4
    truth, found = ([process([trees.SIZE] * 4, boxes, np.random.default_rng(seed)) for seed in range(10)]
                    for process in (plain, erring))
    for one, other in zip(truth, found, strict=True):
        assert one[0].square == other[0].square and np.array_equal(one[0].box_xywh, other[0].box_xywh)
        assert one[1].square == one[2].square
        assert len({tuple(crop.square) for crop in other[:3]}) > 1
        for crop in other[:3]:
            middle = crop.box_xywh[:2] + crop.box_xywh[2:] / 2
            np.testing.assert_allclose(middle, 0.5 * (crop.size - 1) / crop.size, atol=1e-6)


@pytest.mark.parametrize("changes, words", [
    (["DATA.TEMPLATE.LATER_SCALE_JITTER=0.1"], "LATER_SCALE_JITTER is not 0, but DATA.TEMPLATE.NUMBER is 1"),
    (["DATA.TEMPLATE.LATER_SCALE_JITTER=0.1", "DATA.LOADER=crops"], "packed crops hold templates without it")])
def test_later_templates_that_cannot_err(changes, words):
    with pytest.raises(UserError, match=words):
        load_config("ostrack", "vitb_256_mae_32x4_ep300", changes)


def test_boxes_may_be_divided_by_the_last_pixel():
    box, frames = np.float32(trees.box(0)), [trees.SIZE] * 2
    plain, last = (PairProcessing(*processing().views, last_pixel=last_pixel, flip_prob=0)(
        frames, [box, box], np.random.default_rng(0)) for last_pixel in (False, True))
    for one, other in zip(plain, last, strict=True):
        np.testing.assert_allclose(other.box_xywh * (one.size - 1), one.box_xywh * one.size, rtol=1e-5)


def test_a_crop_without_content_is_no_clip():
    boxes = [np.float32(trees.box(0))] * 4
    process = PairProcessing(*processing().views, numbers=(1, 3))
    assert process([trees.SIZE] * 4, boxes, np.random.default_rng(0)) is not None
    boxes[3] = np.float32([-900, -900, 20, 20])
    assert process([trees.SIZE] * 4, boxes, np.random.default_rng(0)) is None


def test_a_clip_of_a_single_image_reads_it_once(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSTRACKER_COCO_DIR", str(trees.coco(tmp_path / "coco")))
    exact, found = (several(None, 2, 2, names=["COCO17"], LOADER=loader) for loader in ("frames", "gpu"))
    loader = build_loader(found, "train", seed=1, batch_size=4, num_workers=0)
    assert next(iter(loader))["frames"].shape == (4, 4)
    assert same(batches(exact), ready(loader))


def test_packed_crops_hold_clips(tmp_path, monkeypatch):
    """The frames, crops and boxes of the exact way, but for the coding of the stored pictures."""
    monkeypatch.setenv("COMPRESSTRACKER_CROPS_DIR", str(tmp_path / "crops"))
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_DIR", str(trees.got10k(tmp_path / "got", sequences=2)))
    name = "GOT10K_train_full"
    exact, packed = (several(None, 2, 2, names=[name], LOADER=loader) for loader in ("frames", "crops"))
    views = PairProcessing.of(exact, augment=True)
    dataset = build_dataset(name, SimpleNamespace(got10k_dir=str(tmp_path / "got")))
    Packing(Recipe(name, views.template, views.search, quantile=0.9999, quality=100), dataset,
            tmp_path / "crops").run(0, 0.0)
    for one, other in zip(batches(exact), batches(packed), strict=True):
        assert torch.equal(one["template_box"], other["template_box"])
        assert torch.equal(one["search_box"], other["search_box"])
        assert max((one[view] - other[view]).abs().mean() for view in ("template", "search")) < 0.1


@pytest.mark.parametrize("broken", [b"no picture", None])
def test_a_clip_with_an_unreadable_image_is_replaced_alike_by_all_loaders(tmp_path, broken):
    """Damage that is seen at once, and such that only decoding shows (None)."""
    root = trees.got10k(tmp_path, sequences=2)
    for file in sorted(root.glob("*/000000*[05].jpg")):
        file.write_bytes(broken or trees.hollow(file.read_bytes()))
    made = {}
    for name in ("frames", "gpu"):
        loader = build_loader(several(root, 2, 2, LOADER=name), "train", seed=1, batch_size=4, num_workers=0)
        made[name] = ready(loader)
        assert loader.replaced > 0
    assert same(made["frames"], made["gpu"])


# ---------------------------------------------------------------- training

@pytest.mark.parametrize("kind", ["ostrack", "compresstracker"])
def test_loss_is_the_sum_over_the_search_frames(kind):
    cfg = noise_config(kind, DATA__SEARCH__NUMBER=2, TRAIN__DROP_PATH_RATE=0)
    actor, batch = build_actor(cfg, build_scrambled(cfg)), tiny_batch(cfg, size=3)
    actor.eval()
    assert batch["search"].shape == (3, 2, 3, 64, 64)

    def loss(batch):
        return actor(batch, 1, torch.Generator().manual_seed(4))

    whole, terms = loss(batch)
    parts = [loss(frame) for frame in search_frames(batch)]
    assert whole.item() == pytest.approx(sum(part.item() for part, _ in parts), rel=1e-6)
    assert parts[0][0].item() != parts[1][0].item()
    assert terms["IoU"].item() == pytest.approx(sum(each["IoU"].item() for _, each in parts) / 2, rel=1e-6)


@pytest.mark.parametrize("kind, more", [("ostrack", {"MODEL__HEAD__TYPE": "MLP"}), ("compresstracker", NO_NORM)])
def test_passes_of_clips_train_as_the_whole_batch(kind, more, monkeypatch, tmp_path):
    cfg = noise_config(kind, DATA__SEARCH__NUMBER=2, **more)
    parts = fit(monkeypatch, tmp_path / "parts", cfg.with_overrides({"TRAIN.ACCUMULATE": 2}))
    assert_same_training(cfg, fit(monkeypatch, tmp_path / "whole", cfg), [parts])


def test_two_processes_train_clips_as_one(monkeypatch, tmp_path, twice):
    cfg = noise_config(DATA__SEARCH__NUMBER=2, **NO_NORM)
    parts = twice(lambda: fit(monkeypatch, tmp_path / "two", cfg))
    assert_same_training(cfg, fit(monkeypatch, tmp_path / "one", cfg), parts)


@pytest.mark.parametrize("loader", ["frames", "gpu"])
def test_a_training_with_clips_of_files_is_resumed_exactly(tmp_path, monkeypatch, loader):
    """With validation and its pictures; goes on within the second epoch."""
    name = f"[FOLDER:{trees.folder(tmp_path / 'data', video=False)}]"
    cfg = noise_config(DATA__SEARCH__NUMBER=2, DATA__TRAIN__DATASETS_NAME=name, DATA__TRAIN__DATASETS_RATIO=[1],
                       DATA__VAL__DATASETS_NAME=name, DATA__VAL__DATASETS_RATIO=[1], DATA__VAL__SAMPLE_PER_EPOCH=6,
                       DATA__LOADER=loader, TRAIN__NUM_WORKER=0, TRAIN__SAVE_STEP_INTERVAL=1, TRAIN__KEEP_STATES=99,
                       TRAIN__PICTURES=2)
    monkeypatch.setattr(run, "build_for_train", build_scrambled)
    drawn, draw = [], run.prediction_picture

    def picture(search, truth, boxes, *scale):
        drawn.append([tuple(value.shape) for value in (search, truth, boxes)])
        return draw(search, truth, boxes, *scale)

    monkeypatch.setattr(run, "prediction_picture", picture)

    def train(folder, resume="auto"):
        path = run.run_training(cfg, tmp_path / folder, resume=resume, log_to_console=False)
        return path, torch.load(path, weights_only=True)["net"]

    path, whole = train("whole")
    _, resumed = train("resumed", resume=str(path.parent / state_name(1, 2)))
    assert same_weights(whole, resumed)
    assert drawn == [[(2, 3, 64, 64), (2, 4), (2, 1, 4)]] * 2       # of the last search frame


def test_profiles_count_every_search_frame():
    cfg = tiny("ostrack", DATA__SEARCH__NUMBER=2)
    batch = next(iter(FixedBatch(cfg, 3, 1, CPU)))
    assert {name: value.shape for name, value in batch.items() if name != "dataset"} \
        == {name: value.shape for name, value in tiny_batch(cfg, size=3).items()}
    assert step_work(cfg).student == pytest.approx(2 * step_work(tiny("ostrack")).student)
