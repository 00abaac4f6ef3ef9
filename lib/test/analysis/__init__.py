"""Scores of tracking results: metrics, reading of result files, tables, plots and the HTML report."""

from lib.test.analysis.conventions import CONVENTIONS, Convention, convention_for
from lib.test.analysis.metrics import (
    Scores,
    SequenceScores,
    evaluate_sequence,
    evaluate_sequences,
    success_auc,
    summarize,
)

__all__ = ["CONVENTIONS", "Convention", "Scores", "SequenceScores", "convention_for", "evaluate_sequence",
           "evaluate_sequences", "success_auc", "summarize"]
