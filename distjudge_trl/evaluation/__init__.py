"""Evaluation on held-out items: metrics, the noise floor, intervals, result files."""

from distjudge_trl.evaluation.distances import item_accuracy, item_kl
from distjudge_trl.evaluation.metrics import evaluate_judgments, whole_votes
from distjudge_trl.evaluation.noise_floor import NoiseFloor, noise_floor
from distjudge_trl.evaluation.results import read_predictions, read_results, write_results
from distjudge_trl.evaluation.scoring import TestItems, human_side, row_log_q
from distjudge_trl.evaluation.statistics import Estimate, bootstrap_mean, paired_difference


__all__ = [
    "Estimate",
    "NoiseFloor",
    "TestItems",
    "bootstrap_mean",
    "evaluate_judgments",
    "human_side",
    "item_accuracy",
    "item_kl",
    "noise_floor",
    "paired_difference",
    "read_predictions",
    "read_results",
    "row_log_q",
    "whole_votes",
    "write_results",
]
