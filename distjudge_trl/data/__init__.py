"""Judgment records: schema, validation, prompt templates, splits."""

from distjudge_trl.data.records import (
    RECORD_FEATURES,
    build_dataset,
    fingerprint,
    make_record,
    validate_records,
    votes_to_counts,
)
from distjudge_trl.data.splits import split_records, subsample
from distjudge_trl.data.template import PromptTemplate


__all__ = [
    "RECORD_FEATURES",
    "PromptTemplate",
    "build_dataset",
    "fingerprint",
    "make_record",
    "split_records",
    "subsample",
    "validate_records",
    "votes_to_counts",
]
