"""Judgment records: schema, validation, prompt templates, splits."""

from distjudge_trl.data.records import (
    RECORD_FEATURES,
    build_dataset,
    fingerprint,
    make_record,
    validate_records,
)
from distjudge_trl.data.splits import (
    Partition,
    SplitPlan,
    num_votes,
    partition,
    split_records,
    subsample,
    within_budget,
)
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import choose_pseudo_count, draw_votes, majority_label, votes_to_counts


__all__ = [
    "RECORD_FEATURES",
    "Partition",
    "PromptTemplate",
    "SplitPlan",
    "build_dataset",
    "choose_pseudo_count",
    "draw_votes",
    "fingerprint",
    "majority_label",
    "make_record",
    "num_votes",
    "partition",
    "split_records",
    "subsample",
    "validate_records",
    "votes_to_counts",
    "within_budget",
]
