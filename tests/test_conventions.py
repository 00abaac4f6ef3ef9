"""Every convention against its rules written down again, frame by frame in plain Python, on odd sequences."""

import json
import math

import numpy as np
import pytest

from lib.test.analysis.conventions import CONVENTIONS, convention_for, get_convention
from lib.test.analysis.metrics import evaluate_sequences, summarize
from lib.test.analysis.packed import PackedResults, read_benchmark
from lib.test.analysis.plain import compare, plain_scores
from lib.test.analysis.results import evaluate_benchmark
from lib.utils.errors import UserError

NAN = float("nan")
OVERLAPS = [k / 20 for k in range(21)]
PIXELS = list(range(51))
SHARES = [k / 100 for k in range(51)]
SIZE = (200, 150)


# --- sequences ------------------------------------------------------------------------------------------------------


def make_sequence(seed: int, frames: int = 60, broken: bool = False):
    """Whole-pixel boxes that often meet thresholds exactly, with hidden and unannotated frames, boxes at and beyond the
    image's edges and predictions without area; `broken` adds invalid predictions."""
    rng = np.random.default_rng(seed)
    gt = np.column_stack([rng.integers(-2, 150, frames), rng.integers(-2, 100, frames), rng.integers(10, 60, frames),
                          rng.integers(10, 60, frames)]).astype(float)
    gt[rng.random(frames) < 0.1, 0] = 0
    gt[0] = [30, 20, 40, 20]
    pred = gt + rng.choice([0, 0, 2, 4, -5, 10, 30], (frames, 4))
    pred[:, 2:] = np.maximum(pred[:, 2:], 1)
    exact = rng.random(frames) < 0.2
    pred[exact] = gt[exact] + np.outer(gt[exact, 2] / 5, [1, 0, 0, 0])  # a normalised error of 0.2
    pred[rng.random(frames) < 0.1, 3] = 0
    if broken:
        pred[[7, 8, 20]] = [[NAN] * 4, [5, 5, -3, 8], [1, math.inf, 4, 4]]
    pred[0] = gt[0] + 1
    visible = rng.random(frames) > 0.15
    visible[0] = True
    absent = rng.random(frames) < 0.1
    absent[0] = False
    gt[absent] = NAN if seed % 2 else 0
    return pred, gt, visible


SEQUENCES = [make_sequence(seed, 20 + 13 * seed) for seed in range(6)]
BROKEN = [make_sequence(seed, 40, broken=True) for seed in range(10, 14)]


# --- the rules, frame by frame --------------------------------------------------------------------------------------


def iou(a, b, eps=0.0):
    width = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height + eps)


def centers(a, b):
    return [(box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2) for box in (a, b)]


def distance(a, b):
    (x, y), (u, v) = centers(a, b)
    return math.sqrt((x - u) ** 2 + (y - v) ** 2)


def scaled_distance(a, b):
    (x, y), (u, v) = centers(a, b)
    return math.sqrt((x / b[2] - u / b[2]) ** 2 + (y / b[3] - v / b[3]) ** 2)


def shares(overlaps, errors, scaled, total):
    """The three curves from the measures of the frames that are left."""
    return ([sum(value > t for value in overlaps) / total for t in OVERLAPS],
            [sum(value <= t for value in errors) / total for t in PIXELS],
            [sum(value <= t for value in scaled) / total for t in SHARES])


def python_analysis(pred, gt, visible, dataset, sides):
    """OSTrack's (sides: columns 2 and 3 must be positive) and PyTracking's (all four) extract_results."""
    boxes = [list(row) for row in pred]
    for i in range(1, len(boxes)):
        if (boxes[i][2] == 0 or boxes[i][3] == 0) and not any(map(math.isnan, gt[i])):
            boxes[i] = boxes[i - 1]
    boxes[0] = list(gt[0])
    overlaps, errors, scaled, inside = [], [], [], []
    for i, (box, truth) in enumerate(zip(boxes, gt, strict=True)):
        seen = visible is None or visible[i]
        if all(value > 0 for value in truth[4 - sides:]) and seen:
            overlaps.append(iou(box, truth))
            errors.append(distance(box, truth))
            scaled.append(scaled_distance(box, truth))
            inside.append(overlaps[-1])
        else:
            overlaps.append(-1.0)
            errors.append(-1.0 if dataset == "uav" else math.inf)
            scaled.append(-1.0)
        if dataset == "lasot" and not seen:
            errors[-1] = scaled[-1] = math.inf
    return shares(overlaps, errors, scaled, len(gt)), inside


def lasot_toolkit(pred, gt, visible):
    """The LaSOT toolkit's calc_seq_err_robust and eval_tracker."""
    boxes = [list(row) for row in pred]
    for i in range(1, len(boxes)):
        bad = any(math.isnan(value) or math.isinf(value) for value in boxes[i]) or boxes[i][2] <= 0 or boxes[i][3] <= 0
        if bad and not any(map(math.isnan, gt[i])):
            boxes[i] = boxes[i - 1]
    boxes[0] = list(gt[0])
    overlaps, errors, scaled = [], [], []
    for i, (box, truth) in enumerate(zip(boxes, gt, strict=True)):
        if not visible[i]:
            continue
        good = all(value > 0 for value in truth)
        overlaps.append(iou(box, truth) if good else -1.0)
        errors.append(distance(box, truth) if good else -1.0)
        scaled.append(scaled_distance(box, truth) if good else -1.0)
    return shares(overlaps, errors, scaled, len(gt))


def clip(box, size):
    x, y = min(max(box[0], 0), size[0]), min(max(box[1], 0), size[1])
    return [x, y, min(max(box[2], 0), size[0] - x), min(max(box[3], 0), size[1] - y)]


def got10k_toolkit(sequences, size):
    """AO, SR50, SR75 and the success curve of the GOT-10k toolkit: over the frames of all sequences."""
    overlaps = []
    for pred, gt, visible in sequences:
        for box, truth, cover in list(zip(pred, gt, visible, strict=True))[1:]:
            if cover:
                overlaps.append(iou(*(clip(b, size) if size else list(b) for b in (box, truth)), eps=2.3e-16))
    return (sum(overlaps) / len(overlaps), *(sum(o > t for o in overlaps) / len(overlaps) for t in (0.5, 0.75)),
            [sum(o > t for o in overlaps) / len(overlaps) for t in OVERLAPS])


# --- agreement ------------------------------------------------------------------------------------------------------


def curves(score):
    return score.success, score.precision, score.normalized


def assert_curves(score, expected):
    for curve, values in zip(curves(score), expected, strict=True):
        np.testing.assert_allclose(curve, values, atol=1e-12)


@pytest.mark.parametrize(("name", "sides"), [("ostrack", 2), ("pytracking", 4)])
@pytest.mark.parametrize("dataset", ["lasot", "uav", "otb"])
def test_python_analyses(name, sides, dataset):
    convention = convention_for(dataset, name)
    for pred, gt, visible in SEQUENCES:
        if dataset != "uav" and np.isnan(gt).any():
            gt = np.nan_to_num(gt)  # the official codes refuse NaN there
        flags = visible if dataset == "lasot" else None
        expected, inside = python_analysis(pred, gt, flags, dataset, sides)
        (score,) = evaluate_sequences([pred], [gt], [flags], convention)
        assert_curves(score, expected)
        assert score.frames == len(inside) and score.ao == pytest.approx(sum(inside) / len(inside))
        assert score.above_50 == sum(o > 0.5 for o in inside) and score.above_75 == sum(o > 0.75 for o in inside)


def test_lasot_toolkit():
    for pred, gt, visible in SEQUENCES + BROKEN:
        gt = np.nan_to_num(gt)
        (score,) = evaluate_sequences([pred], [gt], [visible], "lasot")
        assert_curves(score, lasot_toolkit(pred, gt, visible))


@pytest.mark.parametrize("size", [None, SIZE])
def test_got10k_toolkit(size):
    good = []
    for pred, gt, visible in SEQUENCES:
        pred = pred.copy()
        pred[pred[:, 3] == 0, 3] = 5  # the toolkit scores a box without area as it is
        good.append((pred, gt, visible & (np.nan_to_num(gt)[:, 2:] > 0).all(axis=1)))
    scores = summarize(evaluate_sequences(*zip(*good, strict=True), "got10k", [size] * len(good)), "got10k")
    ao, sr50, sr75, curve = got10k_toolkit(good, size)
    np.testing.assert_allclose([scores.AO, scores.SR50, scores.SR75], np.multiply(100, [ao, sr50, sr75]))
    np.testing.assert_allclose(scores.success, np.multiply(100, curve), atol=1e-12)
    assert scores.OP50 == pytest.approx(scores.SR50) and scores.OP75 == pytest.approx(scores.SR75)


def test_clipping_matters():
    pred, gt = np.array([[0.0, 0, 50, 50]] * 2), np.array([[0.0, 0, 50, 50], [170, 100, 60, 60]])
    pred[1] = [170, 100, 30, 50]  # all of the annotation that is inside the image
    clipped, unclipped = (evaluate_sequences([pred], [gt], None, "got10k", [size])[0] for size in (SIZE, None))
    assert clipped.ao == 1 and unclipped.ao < 0.5


def test_a_box_outside_the_image_has_no_overlap():
    pred = gt = np.array([[0.0, 0, 50, 50], [300, 300, 20, 20], [0, 0, 50, 50]])
    assert evaluate_sequences([pred], [gt], None, "got10k", [SIZE])[0].ao == 0.5


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("dataset", ["lasot", "uav123", "got10k_val", "nfs"])
def test_many_sequences_at_once_are_what_a_plain_loop_gives(name, dataset, monkeypatch):
    convention = convention_for(dataset, name)
    sequences = SEQUENCES + (BROKEN if convention.repair else [])
    sizes = [SIZE, None, *[SIZE] * (len(sequences) - 2)]
    monkeypatch.setattr("lib.test.analysis.metrics._TOGETHER", 100)
    together = evaluate_sequences(*zip(*sequences, strict=True), convention, sizes)
    for score, sequence, size in zip(together, sequences, sizes, strict=True):
        plain = plain_scores(*sequence, convention, size)
        assert_curves(score, curves(plain))
        assert (score.judged, score.frames, score.above_50, score.above_75) == (
            plain.judged, plain.frames, plain.above_50, plain.above_75)
        assert score.overlap_sum == pytest.approx(plain.overlap_sum)


def test_times_are_compared():
    timing = compare(*zip(*SEQUENCES, strict=True), get_convention("ostrack"), repeats=1)
    assert timing.difference < 1e-12 and timing.sequences == 6 and timing.vectorised > 0
    assert f"ratio {timing.plain / timing.vectorised:.1f}" in str(timing)


# --- names and errors -----------------------------------------------------------------------------------------------


def test_conventions_by_data_set():
    defaults = {"lasot": "ostrack", "lasot_test": "ostrack", "uav123": "ostrack", "got10k_val": "got10k",
                "folder:x": "plain", "otb100": "ostrack"}
    assert {name: convention_for(name).name for name in defaults} == defaults
    assert convention_for("LaSOT").unseen_is_miss and not convention_for("otb").unseen_is_miss
    for extension in ("lasot_ext", "lasot_extension_subset"):  # the official codes have no exception for it
        assert convention_for(extension) == CONVENTIONS["ostrack"]
    assert convention_for("uav20l", "pytracking").positive_corner
    assert "UAV123" in convention_for("uav", "pytracking").summary
    with pytest.raises(UserError, match="got10k_first"):
        get_convention("votes")


def test_invalid_predictions_are_repaired_under_lasots_rules_only():
    pred, gt, visible = BROKEN[0]
    for name in set(CONVENTIONS) - {"lasot"}:
        with pytest.raises(UserError, match="car-1: the prediction of frame 8"):
            evaluate_sequences([pred], [gt], [visible], name, names=["car-1"])
    pred = pred.copy()
    pred[0] = NAN
    with pytest.raises(UserError, match="the prediction of frame 1 "):  # nothing before it to repeat
        evaluate_sequences([pred], [gt], [visible], "lasot")


def test_a_sequence_that_a_convention_does_not_judge_is_left_out_of_the_means():
    gt = np.tile([0.0, 5, 20, 20], (4, 1))
    never, perfect = evaluate_sequences([gt, gt + [1, 0, 0, 0]], [gt, gt + [1, 0, 0, 0]], None, "pytracking")
    assert never.frames == 0 and math.isnan(never.ao)
    both = summarize([never, perfect], "pytracking")
    assert both.AO == 100 and both.OP50 == 50  # its frames do count in the curves, as misses
    assert math.isnan(summarize([never], "pytracking").AO)


# --- published results beside the checkout --------------------------------------------------------------------------


def report(shared_dir, folder, benchmark, tracker, name, absent=None):
    place = shared_dir / "results" / folder
    sequences = read_benchmark(place / f"{benchmark}_gt.npz", absent and place / absent)
    source = PackedResults("tracker", place / f"{benchmark}_{tracker}.npz")
    return evaluate_benchmark([source], sequences, benchmark, convention_for(benchmark, name)).trackers[0].scores


@pytest.mark.parametrize("name", ["ostrack", "pytracking", "lasot"])
def test_published_scores_of_siamrpnpp_on_lasot(shared_dir, name):
    scores = report(shared_dir, "lasot", "lasot_test", "SiamRPNpp", name, "lasot_test_absent.npz")
    assert scores.AUC == pytest.approx(49.6, abs=0.1)
    assert scores.Precision == pytest.approx(49.1, abs=0.1)
    assert scores.NormPrecision == pytest.approx(56.9, abs=0.1)


@pytest.mark.parametrize(("name", "ao", "sr50"), [("got10k", 71.73, 84.64), ("got10k_first", 71.97, 84.77)])
def test_published_scores_on_got10k(shared_dir, name, ao, sr50):
    scores = report(shared_dir, "got10k_val", "got10k_val", "NanoTrackV3", name)
    assert scores.AO == pytest.approx(ao, abs=0.005) and scores.SR50 == pytest.approx(sr50, abs=0.005)


def test_a_wrong_convention_is_noticed(shared_dir):
    expected = json.loads((shared_dir / "results" / "scores.json").read_text())["lasot ATOM"]
    scores = report(shared_dir, "lasot", "lasot_test", "ATOM", "plain", "lasot_test_absent.npz")
    assert abs(scores.AUC - expected["AUC"]) > 0.5
