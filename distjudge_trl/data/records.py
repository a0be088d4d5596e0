"""Judgment records, the rows on which judges are trained and evaluated, and their validation.

One record is one item that several people judged, in TRL's conversational prompt-completion format plus the
distribution of their answers, so that a plain `SFTTrainer` trains the single-point baseline on the very same rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from distjudge_trl.data.votes import majority_label
from distjudge_trl.errors import JudgmentDataError, NoRecordsError
from distjudge_trl.labels import LabelSpace


# A distribution must sum to 1 within this.
SUM_TOLERANCE = 1e-6

_ROWS_PER_TABLE = 5_000

_MESSAGES = List({"role": Value("string"), "content": Value("string")})

RECORD_FEATURES = Features(
    {
        "id": Value("string"),
        "group": Value("string"),
        "prompt": _MESSAGES,
        "completion": _MESSAGES,
        "label_distribution": List(Value("float64")),
        "num_annotators": Value("int64"),
    }
)
# Of records whose source says which part they belong to. Where records are split the column goes.
_FEATURES_WITH_SPLIT = Features({**RECORD_FEATURES, "split": Value("string")})


def make_record(
    *,
    id: str,
    group: str,
    prompt: Sequence[Mapping[str, str]],
    counts: Sequence[float],
    label_space: LabelSpace,
    reference: int | None = None,
    split: str = "",
) -> dict[str, Any]:
    """A judgment record from vote counts `(K,)`: eq. 1 for the distribution, eq. 3 for the completion.

    Args:
        id (`str`): stable, unique within the task.
        group (`str`): records of one group must be on the same side of a split.
        prompt (`list` of messages): ends where the answer begins.
        counts (`Sequence` of length K): votes per label; fractions if annotators divide their votes, with a whole sum.
        label_space ([`LabelSpace`]): K labels.
        reference (`int`, *optional*): index of the reference label; by default [`majority_label`], ties to the first.
        split (`str`): the part that the source puts it into (`"train"`, `"validation"` or `"test"`), if it names one.

    Raises:
        [`JudgmentDataError`]: counts of a wrong length, all zero, or negative.
    """
    total = round(math.fsum(counts)) if all(map(math.isfinite, counts)) else 0
    if abs(math.fsum(counts) - total) > SUM_TOLERANCE:
        raise JudgmentDataError(
            f"{list(counts)} are {math.fsum(counts):g} votes, not a whole number",
            row=id,
            field="counts",
            fix="Give each annotator one vote, or shares that sum to 1.",
        )
    if len(counts) != len(label_space) or total < 1 or min(counts) < 0:
        raise JudgmentDataError(
            f"{list(counts)} are not votes for {len(label_space)} labels",
            row=id,
            field="counts",
            fix="Give K counts, one at least 1.",
        )
    if reference is None:
        reference = majority_label(counts)
    assert reference is not None
    return {
        **({"split": split} if split else {}),
        "id": id,
        "group": group,
        "prompt": [dict(message) for message in prompt],
        "completion": [{"role": "assistant", "content": label_space.answer(reference)}],
        "label_distribution": [count / total for count in counts],
        "num_annotators": total,
    }


def build_dataset(
    records: Iterable[Mapping[str, Any]], label_space: LabelSpace, *, source: str | None = None
) -> Dataset:
    """Build a validated `datasets.Dataset` from a stream of judgment records. Python objects are packed into Arrow
    tables every few thousand rows.

    Raises:
        [`JudgmentDataError`]: as [`validate_records`].
        [`NoRecordsError`]: there are no records at all.
    """
    parts: list[Dataset] = []
    rows: list[dict[str, Any]] = []
    features = RECORD_FEATURES
    for record in validated(records, label_space, source=source):
        if not parts and not rows and "split" in record:
            features = _FEATURES_WITH_SPLIT
        if ("split" in record) != ("split" in features):
            raise JudgmentDataError(
                "names no part of the split, and others do" if "split" in features else "names a part, others do not",
                source=source,
                row=f"(id {record['id']!r})",
                field="split",
                fix="All items need a part (train, validation or test), or none.",
            )
        rows.append({name: record[name] for name in features})
        if len(rows) == _ROWS_PER_TABLE:
            parts.append(Dataset.from_list(rows, features=features))
            rows = []
    if rows:
        parts.append(Dataset.from_list(rows, features=features))
    if not parts:
        raise NoRecordsError("holds no records", source=source, fix="Check the path and the file's content.")
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def validate_records(
    records: Iterable[Mapping[str, Any]], label_space: LabelSpace, *, source: str | None = None
) -> None:
    """Check every record against the schema; see [`validated`]."""
    for _ in validated(records, label_space, source=source):
        pass


def validated(
    records: Iterable[Mapping[str, Any]], label_space: LabelSpace, *, source: str | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yield records after checking them against the schema; the first violation raises.

    Raises:
        [`JudgmentDataError`]: a missing column; an empty or repeated id; a prompt that is not a list of messages; a
            completion that is not one assistant message with a known label; a distribution of wrong length, with NaN
            or a negative value, or not summing to 1 within 1e-6; fewer than one annotator. The message names source,
            row and field.
    """
    seen: set[str] = set()
    for number, record in enumerate(records, start=1):
        missing = [name for name in RECORD_FEATURES if name not in record]
        if missing:
            raise JudgmentDataError(
                "is missing",
                source=source,
                row=number,
                field=missing[0],
                fix=f"A judgment record has the columns {', '.join(RECORD_FEATURES)}.",
            )
        record_id = record["id"]
        if not isinstance(record_id, str) or not record_id:
            raise JudgmentDataError(
                f"must be a non-empty string, got {record_id!r}", source=source, row=number, field="id"
            )
        if record_id in seen:
            raise JudgmentDataError(
                f"the id {record_id!r} occurs twice",
                source=source,
                row=number,
                field="id",
                fix="Ids must be unique in a task.",
            )
        seen.add(record_id)
        row = f"{number} (id {record_id!r})"
        _check_group(record["group"], source, row)
        check_messages(record["prompt"], "prompt", source, row)
        check_messages(record["completion"], "completion", source, row)
        _check_completion(record["completion"], label_space, source, row)
        _check_distribution(record["label_distribution"], len(label_space), source, row)
        _check_majority(record, label_space, source, row)
        annotators = record["num_annotators"]
        if isinstance(annotators, bool) or not isinstance(annotators, int) or annotators < 1:
            raise JudgmentDataError(
                f"must be a whole number of at least 1, got {annotators!r}",
                source=source,
                row=row,
                field="num_annotators",
            )
        yield record


def _check_group(group: Any, source: str | None, row: str) -> None:
    if not isinstance(group, str) or not group:
        raise JudgmentDataError(
            f"must be a non-empty string, got {group!r}",
            source=source,
            row=row,
            field="group",
            fix=(
                "Records of one group (an article, a premise) are on the same side of a split; use the id if there are"
                " no groups."
            ),
        )


def check_messages(messages: Any, field: str, source: str | None, row: int | str) -> None:
    """Raise [`JudgmentDataError`] unless `messages` is a non-empty list of `{"role": str, "content": str}`."""
    ok = (
        isinstance(messages, Sequence)
        and not isinstance(messages, str)
        and len(messages) > 0
        and all(
            isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in messages
        )
    )
    if not ok:
        raise JudgmentDataError(
            'must be a non-empty list of messages like {"role": "user", "content": "..."}',
            source=source,
            row=row,
            field=field,
        )


def _check_completion(
    completion: Sequence[Mapping[str, str]], label_space: LabelSpace, source: str | None, row: str
) -> None:
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        raise JudgmentDataError("must be exactly one assistant message", source=source, row=row, field="completion")
    try:
        label_space.index_of_answer(completion[0]["content"])
    except KeyError as error:
        raise JudgmentDataError(str(error.args[0]), source=source, row=row, field="completion") from None


def _check_majority(record: Mapping[str, Any], label_space: LabelSpace, source: str | None, row: str) -> None:
    label = record["completion"][0]["content"]
    distribution = record["label_distribution"]
    if distribution[label_space.index_of_answer(label)] < max(distribution) - SUM_TOLERANCE:
        raise JudgmentDataError(
            f"{label!r} is not a label that most annotators chose",
            source=source,
            row=row,
            field="completion",
            fix="It is the reference label (eq. 3): one with the largest share.",
        )


def _check_distribution(distribution: Any, num_labels: int, source: str | None, row: str) -> None:
    def fail(problem: str, fix: str | None = None) -> None:
        raise JudgmentDataError(problem, source=source, row=row, field="label_distribution", fix=fix)

    if not isinstance(distribution, Sequence) or isinstance(distribution, str):
        fail(f"must be a list of {num_labels} numbers, got {type(distribution).__name__}")
    if len(distribution) != num_labels:
        fail(f"has {len(distribution)} entries for {num_labels} labels")
    for value in distribution:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            fail(f"holds {value!r}, which is not a number")
        if math.isnan(value):
            fail("holds NaN")
        if math.isinf(value):
            fail("holds an infinite value")
        if value < 0:
            fail(f"holds the negative value {value}")
    total = math.fsum(distribution)
    if abs(total - 1) > SUM_TOLERANCE:
        fail(f"sums to {total:.8g}, not to 1 (within {SUM_TOLERANCE:g})", "Divide the vote counts by their sum.")


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the records' content, in 16 hex digits. It is the same for the same records in any order and on any
    machine.
    """
    digests = sorted(
        hashlib.sha256(json.dumps(row, sort_keys=True, ensure_ascii=False).encode()).hexdigest() for row in dataset
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
