"""Metrics on cases that can be worked out by hand, and on the published results beside the checkout."""

import json

import numpy as np
import pytest

from lib.test.analysis.conventions import convention_for
from lib.test.analysis.frame_errors import center_errors, overlap
from lib.test.analysis.metrics import (
    NORMALIZED_THRESHOLDS,
    PRECISION_THRESHOLDS,
    SCORE_NAMES,
    SUCCESS_THRESHOLDS,
    count_above,
    evaluate_sequence,
    evaluate_sequences,
    mean_of_runs,
    success_auc,
    summarize,
)
from lib.test.analysis.packed import PackedResults, read_benchmark
from lib.test.analysis.results import evaluate_benchmark
from lib.utils.errors import UserError

NAN = float("nan")


def boxes(*rows):
    return np.array(rows, dtype=float)


def shifted(*fractions, size=100.0):
    """Annotations of one size, and predictions moved right by these fractions of the width."""
    gt = np.tile([10.0, 20.0, size, size], (len(fractions), 1))
    pred = gt.copy()
    pred[:, 0] += np.array(fractions) * size
    return pred, gt


def test_overlap_of_known_boxes():
    pred = boxes([0, 0, 10, 10], [5, 0, 10, 10], [2, 2, 4, 4], [20, 20, 5, 5], [10, 0, 10, 10])
    gt = np.tile([0.0, 0, 10, 10], (5, 1))
    np.testing.assert_allclose(overlap(pred, gt), [1, 50 / 150, 0.16, 0, 0])


def test_center_errors_of_known_boxes():
    pred, gt = boxes([3, 4, 10, 10], [0, 0, 20, 10]), boxes([0, 0, 10, 10], [0, 0, 10, 20])
    pixels, shares = center_errors(pred, gt)
    np.testing.assert_allclose(pixels, [5, np.hypot(5, 5)])
    np.testing.assert_allclose(shares, [0.5, np.hypot(0.5, 0.25)])


def test_count_above_is_strict():
    values = np.array([0, 0, 0.5, 0.7, 1, np.inf])
    assert count_above(values, np.array([0, 0.5, 1])).tolist() == [[4, 3, 1]]
    rows = np.array([0, 0, 1, 1, 1, 0])
    assert count_above(values, np.array([0, 0.5, 1]), rows, 2).tolist() == [[1, 1, 1], [3, 2, 0]]


@pytest.mark.parametrize("thresholds", [SUCCESS_THRESHOLDS, PRECISION_THRESHOLDS, NORMALIZED_THRESHOLDS])
def test_count_above_at_and_beside_every_threshold(thresholds):
    values = np.concatenate([thresholds, np.nextafter(thresholds[1:], 0), np.nextafter(thresholds, 99), [np.inf, 1e9]])
    expected = (values[:, None] > thresholds).sum(axis=0)
    assert count_above(values, thresholds)[0].tolist() == expected.tolist()


def test_perfect_result_misses_only_the_strict_last_threshold():
    pred, gt = shifted(0, 0, 0)
    score = evaluate_sequence(pred, gt)
    assert score.auc == pytest.approx(20 / 21)  # overlap 1 is not above 1
    assert score.ao == 1 and score.precision[0] == 1 and score.normalized[0] == 1


def test_curves_of_a_shifted_box():
    pred, gt = shifted(0, 0.25, 0.25, 3)  # overlaps 1, 0.6, 0.6, 0; centre errors 0, 25, 25, 300 pixels
    score = evaluate_sequence(pred, gt)
    expected = [0.75] * 12 + [0.25] * 8 + [0]  # above 0 ... 0.55; 0.6 is not above 0.6
    np.testing.assert_allclose(score.success, expected)
    np.testing.assert_allclose(score.precision[[0, 24, 25, 50]], [0.25, 0.25, 0.75, 0.75])
    np.testing.assert_allclose(score.normalized[[0, 24, 26, 50]], [0.25, 0.25, 0.75, 0.75])
    assert score.ao == pytest.approx(2.2 / 4) and score.above_50 == 3 and score.above_75 == 1


def test_first_prediction_is_not_judged():
    pred, gt = shifted(9, 0)
    assert evaluate_sequence(pred, gt).auc == pytest.approx(20 / 21)
    late, gt = shifted(0, 9)
    assert evaluate_sequence(late, gt, convention="got10k_first").ao == 0.5
    assert evaluate_sequence(late, gt, convention="got10k").ao == 0


@pytest.mark.parametrize("absent", [[NAN] * 4, [5, 5, 0, 0], [5, 5, 10, 0]])
@pytest.mark.parametrize(("convention", "success", "precision", "normalized"), [
    ("ostrack", 2 / 3, 2 / 3, 1), ("pytracking", 2 / 3, 2 / 3, 1), (convention_for("uav"), 2 / 3, 1, 1),
    (convention_for("lasot"), 2 / 3, 2 / 3, 1), ("lasot", 2 / 3, 1, 1), ("plain", 1, 1, 1), ("got10k_first", 1, 1, 1)])
def test_frame_without_annotation(convention, success, precision, normalized, absent):
    pred, gt = shifted(0, 0, 0)
    gt[1] = absent
    score = evaluate_sequence(pred, gt, convention=convention)
    np.testing.assert_allclose([score.success[10], score.precision[20], score.normalized[20]],
                               [success, precision, normalized])
    assert score.frames == 2 and score.ao == 1


@pytest.mark.parametrize(("convention", "normalized"), [
    ("lasot", 0.5), (convention_for("lasot"), 0.5), ("ostrack", 1), ("plain", 1)])
def test_hidden_target(convention, normalized):
    pred, gt = shifted(0, 0)
    score = evaluate_sequence(pred, gt, np.array([True, False]), convention)
    assert score.normalized[50] == normalized
    assert score.success[0] == (1 if convention == "plain" else 0.5)


def test_prediction_without_area_repeats_the_last_box():
    pred, gt = shifted(0, 0.25, 0, 0)
    pred[2:] = [[0, 0, 0, 5], [0, 0, 0, 0]]
    np.testing.assert_allclose(evaluate_sequence(pred, gt).ao, (1 + 3 * 0.6) / 4)
    gt[2] = NAN
    np.testing.assert_allclose(evaluate_sequence(pred, gt, convention="plain").ao, (1 + 2 * 0.6) / 3)
    np.testing.assert_allclose(evaluate_sequence(pred, gt, convention=convention_for("uav")).ao, (1 + 0.6) / 3)


def test_inputs_stay_as_they_are():
    pred, gt = shifted(0.5, 0.25, 0)
    pred[2] = 0
    before = pred.copy()
    evaluate_sequence(pred, gt)
    np.testing.assert_array_equal(pred, before)


def test_averages_over_sequences_or_over_frames():
    short, long = evaluate_sequence(*shifted(0, 3)), evaluate_sequence(*shifted(0, 0, 0, 0, 0, 0))
    means = summarize([short, long], "ostrack")
    assert means.AO == pytest.approx(75) and means.SR50 == pytest.approx(75) and means.OP50 == pytest.approx(75)
    pooled = summarize([short, long], "got10k_first")
    assert pooled.AO == pytest.approx(100 * 7 / 8) and pooled.SR75 == pytest.approx(100 * 7 / 8)
    assert pooled.OP50 == pytest.approx(100 * 7 / 8)
    assert means.AUC == pytest.approx(75 * 20 / 21) == means.success.mean()
    assert list(means.as_dict()) == list(SCORE_NAMES)


def test_success_auc_is_over_frames_with_a_target():
    pred, gt = shifted(0, 0, 0, 3)
    assert success_auc(pred, gt) == pytest.approx(0.75 * 20 / 21)
    gt[3] = NAN
    assert success_auc(pred, gt) == pytest.approx(20 / 21)
    assert success_auc(*shifted(0, 3), visible=[True, False]) == pytest.approx(20 / 21)


@pytest.mark.parametrize(("bad", "message"), [
    ([[0, 0, 1, 1]], "1 predictions for 2"), ([[0, 0, 1, 1], [0, NAN, 1, 1]], "frame 2"),
    ([[0, 0, 1, 1], [0, 0, -1, 1]], "frame 2"), ([[0, 0, 1], [0, 0, 1]], r"\(2, 3\)")])
def test_bad_predictions_are_refused(bad, message):
    with pytest.raises(UserError, match=message):
        evaluate_sequence(np.array(bad, dtype=float), shifted(0, 0)[1])


def test_nothing_to_judge_is_refused():
    pred, gt = shifted(0, 0)
    with pytest.raises(UserError, match="nothing to measure"):
        evaluate_sequence(pred, np.full_like(gt, NAN))
    with pytest.raises(UserError, match="1 visibility flags"):
        evaluate_sequence(pred, gt, [True])
    with pytest.raises(UserError, match="no sequence"):
        summarize([])


def test_errors_name_the_sequence():
    pred, gt = shifted(0, 0)
    with pytest.raises(UserError, match="b: 1 predictions for 2"):
        evaluate_sequences([pred, pred[:1]], [gt, gt], names=["a", "b"])
    with pytest.raises(UserError, match="b: .*nothing to measure"):
        evaluate_sequences([pred, pred], [gt, np.full_like(gt, NAN)], names=["a", "b"])
    with pytest.raises(UserError, match="no frame to score"):
        evaluate_sequence(pred[:0], gt[:0])
    assert evaluate_sequences([], []) == []


def test_mean_of_runs():
    first, second = evaluate_sequence(*shifted(0, 0, 3, 3)), evaluate_sequence(*shifted(0, 0, 0, 3))
    mean = mean_of_runs([first, second])
    assert mean.ao == pytest.approx(0.625) and mean.frames == 4 and mean.success[10] == pytest.approx(0.625)


# --- the published results beside the checkout; these tests skip where they are absent -----------------------------

PUBLISHED = {  # key in scores.json: (annotations, flags, results)
    "lasot SiamRPNpp": ("lasot/lasot_test_gt", "lasot/lasot_test_absent", "lasot/lasot_test_SiamRPNpp"),
    "lasot ATOM": ("lasot/lasot_test_gt", "lasot/lasot_test_absent", "lasot/lasot_test_ATOM"),
    "lasot SiamDW": ("lasot/lasot_test_gt", "lasot/lasot_test_absent", "lasot/lasot_test_SiamDW"),
    "otb100 ATOM": ("otb100/otb100_gt", None, "otb100/otb100_ATOM"),
    "otb100 SiamRPN++": ("otb100/otb100_gt", None, "otb100/otb100_SiamRPNpp"),
    "uav123 DynamicTrack_0.0": ("uav123/uav123_gt", None, "uav123/uav123_DynamicTrack_0.0"),
}


def packed_scores(folder, annotations, flags, results):
    sequences = read_benchmark(folder / f"{annotations}.npz", flags and folder / f"{flags}.npz")
    source = PackedResults("tracker", folder / f"{results}.npz")
    report = evaluate_benchmark([source], sequences, sequences[0].dataset)
    return report.trackers[0].scores.as_dict(), report


@pytest.mark.parametrize("key", PUBLISHED)
def test_agrees_with_the_official_analysis(shared_dir, key):
    expected = json.loads((shared_dir / "results" / "scores.json").read_text())[key]
    scores, report = packed_scores(shared_dir / "results", *PUBLISHED[key])
    for name in ("AUC", "OP50", "OP75", "Precision", "NormPrecision"):
        assert scores[name] == pytest.approx(expected[name], abs=0.0001), name
    if "mean_overlap" in expected:
        assert scores["AO"] == pytest.approx(100 * expected["mean_overlap"], abs=0.01)
    if "sequences" in expected:
        assert report.scored == expected["sequences"]


def test_every_published_score_is_checked(shared_dir):
    assert set(json.loads((shared_dir / "results" / "scores.json").read_text())) == set(PUBLISHED)
