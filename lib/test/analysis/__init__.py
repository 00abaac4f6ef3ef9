"""Scores of tracking results: metrics, reading of result files, tables and plots."""

from lib.test.analysis.metrics import (
    CONVENTIONS,
    Convention,
    Scores,
    SequenceScores,
    convention_for,
    evaluate_sequence,
    success_auc,
    summarize,
)

__all__ = ["CONVENTIONS", "Convention", "Scores", "SequenceScores", "convention_for", "evaluate_sequence",
           "success_auc", "summarize"]
