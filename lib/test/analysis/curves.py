"""The three kinds of curves: what each shows, and over which thresholds."""

from dataclasses import dataclass

import numpy as np

from .metrics import NORMALIZED_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS


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
