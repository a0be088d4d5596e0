"""Judging a file of items. A first pass over the rows finds mistakes before a model is loaded; a second one judges
window by window, and what is done is kept, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from distjudge_trl.data.reading import Reading
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.judges.base import PromptJudge
from distjudge_trl.judges.inputs import InputFile
from distjudge_trl.judges.partial import Progress
from distjudge_trl.judges.ranks import Ranks
from distjudge_trl.judges.readouts import DISTRIBUTION
from distjudge_trl.judges.windows import WindowJudge
from distjudge_trl.judges.work import JudgingOptions, KnownJudge, Work


# Batches in a window: rows that are sorted by length, judged and written together. A kill costs at most one window.
_BATCHES = 16


def judge_file(
    make_judge: Callable[[Ranks], PromptJudge],
    input_path: str | Path,
    output_path: str | Path,
    options: JudgingOptions | None = None,
    *,
    reading: Reading | None = None,
    find_judge: Callable[[], KnownJudge] | None = None,
    notes: Counter[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Judge every item of a file, and write the items with further columns (the readouts) as JSON lines, CSV or
    Parquet, in their order. NaN, which stands for an empty cell, is written as null. The pseudo-columns of
    [`~distjudge_trl.data.rows.read_rows`] can be in the prompt; they are not written.

    While it runs, finished rows are in the folder `OUTPUT.part`. If it is killed, the same call goes on behind them.
    The output appears when all rows are there. Several processes of a launch share the rows; the first one writes.

    Args:
        make_judge (`Callable`): loads the judge for a process. It is called after the input has been read once and the
            output is known to be writable.
        input_path, output_path (`str` or `Path`): see [`InputFile`] and [`format_of`].
        options ([`JudgingOptions`], *optional*).
        reading ([`Reading`], *optional*): delimiter, encoding, quoting and sheet of the input.
        find_judge (`Callable`, *optional*): looks a judge up without loading its model. With it every row's prompt is
            made before, so that a row without one costs no time.
        notes (`Counter[str]`, *optional*): counts of what a reader should know of the input.
        say (`Callable`, *optional*): receives lines for the user while it runs.

    Raises:
        [`UserInputError`]: unreadable or malformed input, an output that cannot be written, an earlier run's rows that
            do not go with this one.
        [`JudgmentDataError`]: a row that cannot be written or judged.
        [`RunFailedError`]: the disk has too little space for the output.
    """
    options = options if options is not None else JudgingOptions()
    ranks = Ranks()
    work = Work(Path(input_path), Path(output_path), options, reading)
    try:
        progress = ranks.first(lambda: work.prepare(find_judge, notes if notes is not None else Counter(), say))
        if progress.done < progress.rows:
            judge = _load(ranks, make_judge)
            ranks.first(lambda: work.partial.begin(progress))
            _judge_rows(ranks, judge, work, progress)
        ranks.first(lambda: work.partial.finish(work.format))
    except BaseException as error:
        if ranks.is_first:
            work.stop(error)
        raise
    return progress


def _load(ranks: Ranks, make_judge: Callable[[Ranks], PromptJudge]) -> PromptJudge:
    judges: list[PromptJudge] = []
    ranks.all(lambda: judges.append(make_judge(ranks)))
    return judges[0]


def _judge_rows(ranks: Ranks, judge: PromptJudge, work: Work, progress: Progress) -> None:
    """Judge the rows that are left, a window a process at a time."""
    options = work.options
    swap = work.find_swap(judge.template, judge.label_space)
    windows = WindowJudge(
        judge,
        progress.columns,
        risk=options.risk,
        on_error=options.on_error,
        swap=swap,
        batch_size=options.batch_size,
        progress=ranks.is_first,
    )
    if ranks.is_first:
        left = InputFile(work.input_path, work.reading).windows(options.batch_size, progress.done)
        judge.expect_prompts(prompt for rows in left for prompt in windows.prompts(rows))
    size = options.batch_size * _BATCHES
    if judge.prompts_at_once is not None:
        size = max(judge.prompts_at_once // (1 if swap is None else 2), 1)
    with tqdm(
        total=progress.rows, initial=progress.done, desc="Rows", unit=" rows", disable=not ranks.is_first
    ) as bar:
        for rows in InputFile(work.input_path, work.reading).windows(size * ranks.count, progress.done):
            share = -(-len(rows) // ranks.count)
            own = rows[ranks.rank * share : (ranks.rank + 1) * share]
            done = ranks.all(lambda own=own: windows.read(own))  # type: ignore[misc]
            work.count(done, progress)
            ranks.first(lambda done=done: work.partial.append(b"".join(w.lines for w in done), progress))  # type: ignore[misc]
            bar.update(len(rows))
    if progress.done != progress.rows:
        raise UserInputError(
            f"{work.input_path}: had {progress.rows:,} rows when it was read first, and {progress.done:,} now. Do not"
            " change it while it is judged. Give --overwrite to begin anew."
        )


def judge_jsonl(
    make_judge: Callable[[], PromptJudge],
    input_path: str,
    output_path: str,
    *,
    batch_size: int = 32,
    reading: Reading | None = None,
    notes: Counter[str] | None = None,
    find_template: Callable[[], PromptTemplate | None] | None = None,
) -> int:
    """[`judge_file`] with the column `label_distribution` alone; returns how many items were judged."""
    find = None if find_template is None else lambda: KnownJudge(template=find_template())
    options = JudgingOptions(batch_size=batch_size, columns=(DISTRIBUTION,))
    return judge_file(
        lambda _: make_judge(), input_path, output_path, options, reading=reading, find_judge=find, notes=notes
    ).rows
