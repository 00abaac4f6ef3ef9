"""The three kinds of curves: what each shows, over which thresholds, and the colours that trackers have in them."""

from dataclasses import dataclass

import numpy as np

from .metrics import NORMALIZED_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Colours that stay apart for colour-blind readers (after Okabe and Ito), the yellow replaced by a darker brown."""


@dataclass(frozen=True)
class PlotSpec:
    """One kind of plot: which curve and score it shows, and its axes."""

    name: str
    title: str
    curve: str
    score: str
    thresholds: np.ndarray
    x_label: str
    y_label: str
    legend: str


PLOTS = (
    PlotSpec("success", "Success", "success", "AUC", SUCCESS_THRESHOLDS, "Overlap threshold", "Success rate",
             "lower left"),
    PlotSpec("precision", "Precision", "precision", "Precision", PRECISION_THRESHOLDS,
             "Centre error threshold (pixels)", "Precision", "lower right"),
    PlotSpec("norm_precision", "Normalised precision", "normalized", "NormPrecision", NORMALIZED_THRESHOLDS,
             "Normalised centre error threshold", "Normalised precision", "lower right"),
)
