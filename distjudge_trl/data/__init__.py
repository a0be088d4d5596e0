"""Judgment records: schema, validation, prompt templates, splits."""

from distjudge_trl.data.records import (
    RECORD_FEATURES,
    build_dataset,
    fingerprint,
    make_record,
    validate_records,
)
from distjudge_trl.data.splits import split_records, subsample
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import draw_votes, majority_label, votes_to_counts


__all__ = [
    "RECORD_FEATURES",
    "PromptTemplate",
    "build_dataset",
    "draw_votes",
    "fingerprint",
    "majority_label",
    "make_record",
    "split_records",
    "subsample",
    "validate_records",
    "votes_to_counts",
]
