"""Scores of tracking results: metrics, reading of result files, tables, plots and the HTML report."""

from .conventions import CONVENTIONS, Convention, convention_for
from .metrics import (
    Scores,
    SequenceScores,
    evaluate_sequence,
    evaluate_sequences,
    success_auc,
    summarize,
)

__all__ = ["CONVENTIONS", "Convention", "Scores", "SequenceScores", "convention_for", "evaluate_sequence",
           "evaluate_sequences", "success_auc", "summarize"]
