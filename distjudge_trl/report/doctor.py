"""`distjudge-trl data`: a summary of a task's records, and problems in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distjudge_trl.batching import PromptFitter, encode_prompts, render_prompt
from distjudge_trl.batching.chat_templates import Messages
from distjudge_trl.data import SplitPlan, fingerprint
from distjudge_trl.data.splits import SWAPPED, stable_key
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError, clipped
from distjudge_trl.modeling.kinds import find_kind
from distjudge_trl.modeling.loading import load_config, load_tokenizer
from distjudge_trl.report.findings import (
    Finding,
    answer_findings,
    label_findings,
    length_finding,
    split_findings,
    template_findings,
)
from distjudge_trl.report.item_statistics import ENTROPY_BINS, item_statistics
from distjudge_trl.report.label_tokens import label_rows
from distjudge_trl.report.tables import left_out
from distjudge_trl.tasks import Item, JudgmentTask, LoadReport


_BAR_WIDTH = 30
_PLAIN_WIDTH = 120


def make_console() -> Console:
    """Colours and frames for a terminal; plain text, 120 columns wide, for a pipe or a file."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def print_summary(
    console: Console, task: JudgmentTask, records: Dataset, report: LoadReport, template: PromptTemplate
) -> None:
    """Print how many items were read, left out and built, and which answers the template does not explain."""
    console.print(f"[bold]{escape(task.name)}[/bold]: {escape(task.description)}")
    for file in report.files:
        console.print(f"  from {escape(file)}", soft_wrap=True)
    for line in report.lines():
        console.print(f"  {escape(line)}")
    console.print(f"  fingerprint {fingerprint(records)}")
    _print_findings(console, answer_findings(task.label_space(), template))


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
    if stats.num_divided:
        console.print(left_out("Agreement, alpha and noise floor", stats.num_divided, stats.num_items))
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
    """Print sizes of the parts of the split, repeated prompts, and groups that are in training and in another part."""
    try:
        parts = SplitPlan(kind, seed).partition(records, hold_out=kind == "official")
    except UserInputError as error:
        _print_findings(console, [Finding(f"\n{error}", True)])
        return
    assert parts.train is not None
    others = {"test": parts.test}
    if parts.validation is not None:
        others = {"validation": parts.validation, **others}
    sizes = ", ".join(f"{len(side):,} {name}" for name, side in {"train": parts.train, **others}.items())
    console.print(f"\nSplit {kind!r}{'' if kind == 'official' else f' (seed {seed})'}: {sizes}")
    _print_findings(console, split_findings(parts.train, others, by_group=kind == "group"))


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
    console.print(f"\nPrompts in tokens of {escape(model)}: ", end="")
    quantiles = np.quantile(lengths, [0, 0.5, 0.9, 0.99, 1]).round().astype(int)
    console.print(" / ".join(f"{value:,}" for value in quantiles) + " (min / median / 90 % / 99 % / max)")
    space = task.label_space().bind(tokenizer, render_prompt(tokenizer, prompts[0]))
    findings = [length_finding(lengths, limit), *template_findings(tokenizer), *label_findings(space)]
    try:
        find_kind(model, trust_remote_code=trust_remote_code)
    except UserInputError as error:
        if not isinstance(error.__cause__, OSError):  # not a folder with only a tokenizer
            findings.append(Finding(str(error), True))
    _print_findings(console, findings)
    answers = ("answer",) if space.answers is not None else ()
    table = _table(console, "label", *answers, "tokens that mean it")
    for row in label_rows(space):
        table.add_row(*map(escape, row))
    console.print(table)


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
    fitted: Mapping[str, Messages] | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Print rendered prompts with the annotators' distribution as bars; the items are drawn by a hash of their ids.
    `fitted` holds the prompts that were shortened to a model's length, by id.
    """
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code) if model is not None else None
    if tokenizer is not None:
        # Labels that this model cannot tell apart are an error, whatever is to be printed.
        task.label_space().bind(tokenizer, render_prompt(tokenizer, records[0]["prompt"]))
    for i in choose_examples(records, count):
        record = records[i]
        prompt = (fitted or {}).get(record["id"], record["prompt"])
        line = "\u2500" if console.is_terminal else "-"
        console.rule(escape(f"{record['id']}  (group {clipped(record['group'], 60)})"), characters=line, style="dim")
        if tokenizer is not None:
            console.print(escape(render_prompt(tokenizer, prompt)), soft_wrap=True)
        else:
            for message in prompt:
                console.print(f"[bold]{escape(message['role'])}[/bold]: {escape(message['content'])}", soft_wrap=True)
        table = _table(console, "label", f"share of {record['num_annotators']}", "")
        reference = task.label_space().index_of_answer(record["completion"][0]["content"])
        for index, (label, share) in enumerate(zip(task.labels, record["label_distribution"], strict=True)):
            mark = " *" if index == reference else ""
            table.add_row(escape(label) + mark, f"{share:.3f}", _bar(console, share))
        console.print(table)


def choose_examples(records: Dataset, count: int) -> list[int]:
    """The rows that [`print_examples`] prints."""
    ids = records["id"][:]
    return sorted(sorted(range(len(ids)), key=lambda i: stable_key(0, f"show {ids[i]}"))[:count])


def fitted_examples(
    task: JudgmentTask,
    items: Sequence[Item],
    options: Any,
    records: Dataset,
    count: int,
    *,
    template: PromptTemplate | None,
    model: str,
    max_length: int | None,
    trust_remote_code: bool = False,
) -> dict[str, Messages]:
    """The prompts of [`print_examples`] by id, shortened as in training."""
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    limit = max_length if max_length is not None else context_of(model, trust_remote_code)
    ids = {records[i]["id"] for i in choose_examples(records, count)}
    own = [item for item in items if item.id in ids or f"{item.id}{SWAPPED}" in ids]
    return dict(task.prompts(own, options, template=template, fitter=PromptFitter(tokenizer, limit)))


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


def _print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings a line each; problems are highlighted."""
    for text, problem in findings:
        console.print(f"[yellow]{escape(text)}[/yellow]" if problem else escape(text), soft_wrap=True)


def _votes(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,.2f}"


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "undefined"
