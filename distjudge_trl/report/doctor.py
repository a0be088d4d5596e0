"""`distjudge-trl data`: a summary of a task's records, and problems in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distjudge_trl.batching import encode_prompts, render_prompt
from distjudge_trl.data import fingerprint, split_records
from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import replacing
from distjudge_trl.modeling.loading import load_config, load_tokenizer
from distjudge_trl.report.item_statistics import ENTROPY_BINS, item_statistics
from distjudge_trl.report.label_tokens import label_findings, label_rows
from distjudge_trl.runtime.provenance import library_versions
from distjudge_trl.tasks import Item, JudgmentTask, LoadReport


_BAR_WIDTH = 30
_PLAIN_WIDTH = 120


def make_console() -> Console:
    """Colours and frames for a terminal; plain text, 120 columns wide, for a pipe or a file."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def print_summary(console: Console, task: JudgmentTask, records: Dataset, report: LoadReport) -> None:
    """Print how many items were read, left out and built."""
    console.print(f"[bold]{escape(task.name)}[/bold]: {escape(task.description)}")
    for file in report.files:
        console.print(f"  from {escape(file)}", soft_wrap=True)
    for line in report.lines():
        console.print(f"  {escape(line)}")
    console.print(f"  fingerprint {fingerprint(records)}")


def print_statistics(console: Console, task: JudgmentTask, items: Sequence[Item]) -> None:
    """Print labels, annotators, entropy, agreement and noise floor, and the agreement for each part of a task."""
    stats = item_statistics(items, ordinal=task.ordinal)
    low, median, high = stats.annotators
    console.print(
        f"\n{stats.num_items:,} items in {stats.num_groups:,} groups; annotators an item: {low} / {median:g} /"
        f" {high} (min / median / max)"
    )
    labels = _table(console, "label", "votes", "share of votes", "majority of", "")
    for label, votes, majority in zip(task.labels, stats.label_votes, stats.majority, strict=True):
        share = votes / stats.label_votes.sum()
        labels.add_row(
            escape(label),
            _votes(votes),
            f"{100 * share:.1f} %",
            f"{majority:,}",
            _bar(console, share),
        )
    console.print(labels)
    console.print(f"Tied majorities: {stats.num_ties:,} ({100 * stats.num_ties / stats.num_items:.1f} %)")
    entropy = _table(console, "entropy / log K", "items", "")
    for i, count in enumerate(stats.entropy):
        entropy.add_row(
            f"{i / ENTROPY_BINS:.1f} - {(i + 1) / ENTROPY_BINS:.1f}",
            f"{count:,}",
            _bar(console, count / stats.entropy.max()),
        )
    console.print(entropy)
    divided = sum(item.ballots is not None for item in items)
    if divided:
        console.print(
            f"Items in which someone divides a vote: {divided:,}; agreement, alpha and noise floor are undefined for"
            " them"
        )
    kind = "ordinal" if task.ordinal else "nominal"
    console.print(f"Mean entropy / log K: {stats.mean_entropy:.3f}")
    console.print(f"Two annotators of an item agree: {_number(stats.agreement)}")
    console.print(f"Krippendorff's alpha ({kind}): {_number(stats.alpha)}")
    console.print(
        f"Noise floor: {_number(stats.noise_floor)} nats (the KL that the true distributions would score on these"
        " votes)"
    )
    parts = sorted({item.part for item in items})
    if len(parts) > 1:
        table = _table(
            console, "part", "items", "two agree", f"alpha ({kind})", "mean entropy / log K", "noise floor", ""
        )
        for part in parts:
            own = item_statistics([item for item in items if item.part == part], ordinal=task.ordinal)
            table.add_row(
                escape(part),
                f"{own.num_items:,}",
                _number(own.agreement),
                _number(own.alpha),
                f"{own.mean_entropy:.3f}",
                _number(own.noise_floor),
                "",
            )
        console.print(table)


def print_splits(console: Console, records: Dataset, kind: Any, seed: int) -> None:
    """Print sizes of the two sides of the split, repeated prompts, and groups that are on both sides."""
    try:
        train, test = split_records(records, kind, seed=seed)
    except UserInputError as error:
        _finding(console, 1, f"\n{error}")
        return
    prompts = {
        name: Counter(json.dumps(prompt) for prompt in side["prompt"])
        for name, side in (("train", train), ("test", test))
    }
    repeated = {name: sum(count - 1 for count in counter.values()) for name, counter in prompts.items()}
    across = sum(prompt in prompts["train"] for prompt in prompts["test"].elements())
    groups = set(train["group"]) & set(test["group"])
    leaking = sum(group in groups for group in test["group"])
    console.print(f"\nSplit {kind!r} (seed {seed}): {len(train):,} train, {len(test):,} test")
    console.print(f"Repeated prompts: {repeated['train']:,} within train, {repeated['test']:,} within test")
    _finding(console, across, f"Test prompts that are in train, too: {across:,}")
    _finding(
        console,
        len(groups),
        f"Groups on both sides: {len(groups):,}, with {leaking:,} of the test records"
        + (" (use --split group)" if groups and kind != "group" else ""),
    )


def print_model_view(
    console: Console,
    task: JudgmentTask,
    records: Dataset,
    model: str,
    max_length: int | None,
    *,
    trust_remote_code: bool = False,
) -> None:
    """Print how a model's tokenizer encodes the prompts and the labels."""
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    prompts = records["prompt"][:]
    lengths = np.array([len(ids) for ids in encode_prompts(tokenizer, prompts)])
    limit = max_length if max_length is not None else context_of(model, trust_remote_code)
    too_long = int((lengths > limit).sum())
    console.print(f"\nPrompts in tokens of {escape(model)}: ", end="")
    quantiles = np.quantile(lengths, [0, 0.5, 0.9, 0.99, 1]).round().astype(int)
    console.print(" / ".join(f"{value:,}" for value in quantiles) + " (min / median / 90 % / 99 % / max)")
    _finding(
        console,
        too_long,
        f"Longer than {limit:,} tokens, so they would be shortened: {too_long:,}"
        f" ({100 * too_long / len(lengths):.1f} %)",
    )
    space = task.label_space().bind(tokenizer, render_prompt(tokenizer, prompts[0]))
    answers = ("answer",) if space.answers is not None else ()
    table = _table(console, "label", *answers, "tokens that mean it")
    for row in label_rows(space):
        table.add_row(*map(escape, row))
    console.print(table)
    for line in label_findings(space):
        _finding(console, 1, line)


def print_lengths(console: Console, records: Dataset) -> None:
    """Print prompt lengths in characters, if no model is given."""
    lengths = np.array([sum(len(message["content"]) for message in prompt) for prompt in records["prompt"]])
    low, median, high = int(lengths.min()), float(np.median(lengths)), int(lengths.max())
    console.print(
        f"\nPrompts in characters: {low:,} / {median:,.0f} / {high:,} (min / median / max); name a --model for tokens"
    )


def print_examples(
    console: Console,
    task: JudgmentTask,
    records: Dataset,
    count: int,
    model: str | None,
    *,
    trust_remote_code: bool = False,
) -> None:
    """Print rendered prompts with the annotators' distribution as bars; the items are drawn by a hash of their ids."""
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code) if model is not None else None
    if tokenizer is not None:
        # Labels that this model cannot tell apart are an error, whatever is to be printed.
        task.label_space().bind(tokenizer, render_prompt(tokenizer, records[0]["prompt"]))
    ids = records["id"][:]
    chosen = sorted(range(len(ids)), key=lambda i: stable_key(0, f"show {ids[i]}"))[:count]
    for i in sorted(chosen):
        record = records[i]
        line = "\u2500" if console.is_terminal else "-"
        console.rule(escape(f"{record['id']}  (group {_short(record['group'])})"), characters=line, style="dim")
        if tokenizer is not None:
            console.print(escape(render_prompt(tokenizer, record["prompt"])), soft_wrap=True)
        else:
            for message in record["prompt"]:
                console.print(f"[bold]{escape(message['role'])}[/bold]: {escape(message['content'])}", soft_wrap=True)
        table = _table(console, "label", f"share of {record['num_annotators']}", "")
        reference = task.label_space().index_of_answer(record["completion"][0]["content"])
        for index, (label, share) in enumerate(zip(task.labels, record["label_distribution"], strict=True)):
            mark = " *" if index == reference else ""
            table.add_row(escape(label) + mark, f"{share:.3f}", _bar(console, share))
        console.print(table)


def check_output(path: str | Path, inputs: Sequence[str]) -> None:
    """Raise [`UserInputError`] unless `path` is the name of a Parquet file that is not one of the `inputs` (data
    files; the part of a name after `!` is a member of an archive).
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise UserInputError(f"{path}: records are written as Parquet; name a file that ends in .parquet.")
    if path.is_dir():
        raise UserInputError(f"{path}: is a folder; name the file to write.")
    for name in inputs:
        source = Path(name if Path(name).exists() else name.split("!")[0])
        if path.exists() and source.exists() and path.samefile(source):
            raise UserInputError(f"{path}: is the input; name another file to write.")


def write_records(path: str | Path, records: Dataset, task: JudgmentTask, report: LoadReport) -> None:
    """Write records as Parquet, atomically. The file's metadata `distjudge_trl` holds task, labels, fingerprint,
    report and versions as JSON.

    Raises:
        [`UserInputError`]: the file cannot be written.
    """
    import pyarrow.parquet as pq

    about = {
        "task": task.name,
        "labels": list(task.labels),
        "fingerprint": fingerprint(records),
        "report": report.to_dict(),
        "versions": library_versions(),
    }
    table = records.with_format("arrow")[:]
    metadata = {**(table.schema.metadata or {}), b"distjudge_trl": json.dumps(about).encode()}
    try:
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)
    except OSError as error:
        raise UserInputError(f"{path}: cannot be written ({error.strerror or error}).") from None


def context_of(model: str, trust_remote_code: bool = False) -> int:
    """The longest input of a model in tokens, if its config says so, else 1,024, which is the trainer's default
    `max_length`.

    Raises:
        [`UserInputError`]: the config is damaged, or needs code that is not allowed.
    """
    try:
        config = load_config(model, trust_remote_code=trust_remote_code)
    except UserInputError as error:
        if isinstance(error.__cause__, OSError):  # a folder with only a tokenizer
            return 1024
        raise
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1024)


def _table(console: Console, *columns: str) -> Table:
    table = Table(box=box.ROUNDED if console.is_terminal else None, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = 0 < i < len(columns) - 1
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table


def _bar(console: Console, share: float) -> str:
    return ("\u2588" if console.is_terminal else "#") * round(_BAR_WIDTH * share)


def _finding(console: Console, count: int, text: str) -> None:
    """A line of text, highlighted if it is about a problem."""
    console.print(f"[yellow]{escape(text)}[/yellow]" if count else escape(text))


def _votes(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,.2f}"


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "undefined"


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
