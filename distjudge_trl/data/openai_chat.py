"""Training files for OpenAI's fine-tuning of chat models: one row for each answer, and a check of the format.

The format and its limits, as documented in November 2026: a file holds at least 10 examples
(https://developers.openai.com/api/docs/guides/supervised-fine-tuning) and at most 512 MB
(https://developers.openai.com/api/reference/resources/files/methods/create); an example of the models gpt-4o and
gpt-4o-mini holds at most 65,536 tokens, and what is longer is cut at its end, which is the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datasets import Dataset

from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.labels import LabelSpace


MIN_EXAMPLES = 10
MAX_FILE_BYTES = 512_000_000
# No example has more tokens than bytes: every token stands for a byte at least.
MAX_EXAMPLE_TOKENS = 65_536

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_KEYS = {"role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal"}

Mode = Literal["single-point", "soft"]


class ChatRow(NamedTuple):
    """A row of the file: which `record` it asks, and the index of the `label` that it answers."""

    record: int
    label: int


def share_rows(distribution: Sequence[float], rows: int, *, name: str, seed: int = 0) -> list[int]:
    """How many of `rows` answers each label gets, by largest remainder. A hash of `name` decides equal remainders, so
    that over many items no label is preferred.

    Args:
        distribution (`Sequence[float]`): K shares that sum to 1.
        rows (`int`): how many answers there are.
        name (`str`): id of the item.
        seed (`int`): of the hash.

    Returns:
        `list[int]`: K counts that sum to `rows`.
    """
    quotas = [round(share * rows, 6) for share in distribution]
    counts = [math.floor(quota) for quota in quotas]
    order = sorted(
        range(len(quotas)),
        key=lambda k: (-round(quotas[k] - counts[k], 6), stable_key(seed, f"row {k} of {name}")),
    )
    for k in order[: rows - sum(counts)]:
        counts[k] += 1
    return counts


def choose_rows(
    records: Dataset,
    label_space: LabelSpace,
    mode: Mode,
    *,
    rows_per_item: int | None = None,
    max_rows: int | None = None,
    seed: int = 0,
) -> list[ChatRow]:
    """The rows of judgment records, shuffled by a hash of the records' ids.

    Args:
        records (`Dataset`): judgment records.
        label_space ([`LabelSpace`]): of their task.
        mode (`"single-point"` or `"soft"`): one row a record with its reference label; or rows in proportion to its
            votes.
        rows_per_item (`int`, *optional*): rows of every record with `"soft"`, by largest remainder. By default every
            vote is a row.
        max_rows (`int`, *optional*): take records, drawn by a hash of their ids, as long as their rows fit.
        seed (`int`): of the hashes.

    Raises:
        [`UserInputError`]: not even one record fits into `max_rows`.
    """
    ids = records["id"][:]
    if mode == "single-point":
        counts = [1] * len(ids)
    else:
        counts = records["num_annotators"][:] if rows_per_item is None else [rows_per_item] * len(ids)
    kept = range(len(ids)) if max_rows is None else _that_fit(counts, max_rows, ids, seed)
    rows: dict[int, list[ChatRow]] = {}
    for i, record in zip(kept, records.select_columns(["completion", "label_distribution"]).select(kept), strict=True):
        if mode == "single-point":
            rows[i] = [ChatRow(i, label_space.index_of_answer(record["completion"][0]["content"]))]
            continue
        shares = share_rows(record["label_distribution"], counts[i], name=ids[i], seed=seed)
        rows[i] = [ChatRow(i, label) for label, number in enumerate(shares) for _ in range(number)]
    numbered = [(row, number) for of_item in rows.values() for number, row in enumerate(of_item)]
    numbered.sort(key=lambda entry: stable_key(seed, f"row {entry[1]} of {ids[entry[0].record]}"))
    return [row for row, _ in numbered]


def _that_fit(counts: Sequence[int], max_rows: int, ids: Sequence[str], seed: int) -> list[int]:
    """Records, drawn by a hash of their ids, as long as their rows fit."""
    kept, total = [], 0
    for i in sorted(range(len(ids)), key=lambda i: stable_key(seed, ids[i])):
        total += counts[i]
        if total > max_rows:
            break
        kept.append(i)
    if not kept:
        raise UserInputError(f"--max-rows {max_rows}: one item has more rows.")
    return kept


def write_rows(path: Path, records: Dataset, rows: Sequence[ChatRow], label_space: LabelSpace) -> None:
    """Write rows as JSON lines: the record's prompt and one assistant message with the answer."""
    prompts = [records[i]["prompt"] for i in range(len(records))]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record, label in rows:
            messages = [*prompts[record], {"role": "assistant", "content": label_space.answer(label)}]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def check_chat_file(
    path: str | Path,
    *,
    shown: str | Path | None = None,
    min_examples: int = MIN_EXAMPLES,
    max_example_bytes: int = MAX_EXAMPLE_TOKENS,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> int:
    """Check a file of chat examples against the documented format and limits (see the module's docstring).

    Args:
        path (`str` or `Path`): JSON lines.
        shown (`str` or `Path`, *optional*): the name of the file in messages.
        min_examples (`int`), max_example_bytes (`int`), max_file_bytes (`int`): the limits. Tokens cannot be counted
            without the model's tokenizer; an example with at most as many bytes as tokens are allowed always fits.

    Returns:
        `int`: the number of examples.

    Raises:
        [`JudgmentDataError`]: a row that is not an example; the message names file, row and field.
        [`UserInputError`]: too few examples, or too large a file.
    """
    path, name = Path(path), str(shown or path)
    size = path.stat().st_size
    if size > max_file_bytes:
        raise UserInputError(
            f"{name}: has {size:,} bytes, more than the {max_file_bytes:,} that one uploaded file may have. Lower"
            " --max-rows or --rows-per-item."
        )
    count = 0
    for count, line in enumerate(_lines(path, name), start=1):
        if len(line) > max_example_bytes:
            raise JudgmentDataError(
                f"has {len(line):,} bytes, and so perhaps more than the {MAX_EXAMPLE_TOKENS:,} tokens of an example:"
                " what is longer is cut at the end, where the answer is",
                source=name,
                row=count,
                fix="Shorten the item, or allow it with --max-example-bytes if it has fewer tokens (English text has"
                " about four bytes a token).",
            )
        _check_example(line, name, count)
    if count < min_examples:
        raise UserInputError(f"{name}: holds {count} examples; fine-tuning needs at least {min_examples}.")
    return count


def _lines(path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                raise JudgmentDataError("is a blank line", source=name, row=number)
            yield line.rstrip(b"\r\n")


def _check_example(line: bytes, name: str, row: int) -> None:
    def fail(problem: str, field: str | None = None) -> None:
        raise JudgmentDataError(problem, source=name, row=row, field=field)

    try:
        # A byte order mark is refused, too: json does not take it for a blank.
        example: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        fail("is not UTF-8")
    except json.JSONDecodeError as error:
        fail(f"is not JSON ({error.msg})")
    if not isinstance(example, dict):
        fail(f"is a {type(example).__name__}, not an object")
    messages = example.get("messages")
    if not isinstance(messages, list) or not messages:
        fail("must be a non-empty list of messages", "messages")
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            fail("holds a message without `role` and `content`", "messages")
        if unknown := sorted(set(message) - _KEYS):
            fail(f"holds a message with the unknown key {unknown[0]!r}", "messages")
        if message["role"] not in _ROLES:
            fail(f"holds the unknown role {message['role']!r}", "messages")
        if not isinstance(message["content"], str) or not message["content"].strip():
            fail(f"holds a message of the {message['role']} without text", "messages")
        if message.get("weight", 1) not in (0, 1):
            fail(f"holds the weight {message['weight']!r}, which may be 0 or 1", "messages")
    if messages[-1]["role"] != "assistant":
        fail("ends without a message of the assistant", "messages")
