"""`distjudge-trl data`: figures, findings, plain output, Parquet."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import SHARED
from rich.console import Console

from distjudge_trl.data import PromptTemplate, build_dataset, fingerprint, make_record
from distjudge_trl.errors import UserInputError
from distjudge_trl.modeling.loading import load_tokenizer
from distjudge_trl.report import doctor
from distjudge_trl.report.record_files import check_output, write_records
from distjudge_trl.tasks import Item, JudgmentTask, LoadReport


TASK = JudgmentTask(
    name="demo",
    description="A [bold]demo[/bold] task",
    labels=("1", "2", "3"),
    template=PromptTemplate([{"role": "user", "content": "{{ text }}"}]),
    read_items=lambda source: iter(()),
    ordinal=True,
)


def records(rows):
    """Records from (group, text, counts)."""
    space = TASK.label_space()
    return build_dataset(
        (
            make_record(id=f"id {i}", group=g, prompt=[{"role": "user", "content": t}], counts=c, label_space=space)
            for i, (g, t, c) in enumerate(rows)
        ),
        space,
    )


def output(function, *args, terminal=False):
    file = io.StringIO()
    function(Console(file=file, width=120, force_terminal=terminal, highlight=False), *args)
    return file.getvalue()


def items(rows):
    """Drawn items from (group, counts)."""
    return [
        Item(f"id {i}", g, {}, c, "f", i, reference=c.index(max(c)), part="ab"[i % 2]) for i, (g, c) in enumerate(rows)
    ]


COUNTS = [[5, 0, 0], [3, 2, 0], [1, 1, 1], [0, 0, 4]] * 5
ITEMS = items([(f"g{i % 4}", c) for i, c in enumerate(COUNTS)])
VARIED = records(
    [(f"g{i % 4}", f"text {i}", c) for i, c in enumerate([[5, 0, 0], [3, 2, 0], [1, 1, 1], [0, 0, 4]] * 5)]
)


def test_statistics_by_hand():
    stats = doctor.item_statistics(ITEMS, ordinal=True)
    assert (stats.num_items, stats.num_groups, stats.annotators) == (20, 4, (3, 4.5, 5))
    assert stats.label_votes.tolist() == [45, 15, 25] and stats.majority.tolist() == [15, 0, 5]
    assert stats.num_ties == 5
    assert stats.entropy.tolist() == [10, 0, 0, 0, 0, 0, 5, 0, 0, 5]
    assert stats.agreement == pytest.approx((1 + 0.4 + 0 + 1) / 4)
    assert 0 < stats.noise_floor < 0.5 and 0 < stats.alpha < 1


def test_statistics_are_printed():
    text = output(doctor.print_statistics, TASK, ITEMS)
    assert "20 items in 4 groups; annotators an item: 3 / 4.5 / 5" in text
    assert "Tied majorities: 5 (25.0 %)" in text and "Krippendorff's alpha (ordinal)" in text
    assert "Noise floor" in text and "##" in text


def test_parts_of_a_task_have_an_agreement_of_their_own():
    """Pooled, two questions about the same things seem to agree more than either does."""
    text = output(doctor.print_statistics, TASK, ITEMS)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("a ", "b "))}
    for part, counts in (("a", COUNTS[::2]), ("b", COUNTS[1::2])):
        own = doctor.item_statistics(items([("g", c) for c in counts]), ordinal=True)
        assert rows[part][1:4] == [str(own.num_items), f"{own.agreement:.3f}", f"{own.alpha:.3f}"]


def test_piped_output_is_plain_and_a_terminal_s_is_not():
    plain, rich = (output(doctor.print_statistics, TASK, ITEMS, terminal=terminal) for terminal in (False, True))
    assert plain.isascii() and "\x1b" not in plain
    assert "\x1b[" in rich or "\u2588" in rich


def test_repeated_prompts_and_leaking_groups_are_found():
    rows = [(f"g{i % 3}", f"text {i // 2}", [1, 0, 0]) for i in range(40)]
    text = output(doctor.print_splits, records(rows), "paper", 0)
    assert "Groups on both sides: 2, with 8 of the test records" in text and "use --split group" in text
    across = int(text.split("in train, too: ")[1].split()[0])
    within = sum(int(part.split()[0]) for part in text.split("Repeated prompts: ")[1].split(", ")[:2])
    assert across + within == 20 and across > 0


def test_a_split_that_is_impossible_is_said_and_no_end():
    text = output(doctor.print_splits, records([("g", "a", [1, 0, 0]), ("g", "b", [1, 0, 0])]), "group", 0)
    assert "leaves one side empty" in text


def test_a_clean_split_has_no_findings():
    text = output(doctor.print_splits, VARIED, "group", 0)
    assert "too: 0" in text and "Groups on both sides: 0" in text


def test_model_view_counts_tokens_and_shows_label_tokens(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    long = records([("g", "the text " * 300, [1, 0, 0]), ("h", "short", [0, 1, 0])])
    text = output(doctor.print_model_view, TASK, long, str(tmp_path), 200)
    assert "they would be shortened: 1 (50.0 %)" in text
    assert all(f"'{label}'" in text for label in TASK.labels)


def test_a_model_that_does_not_exist(tmp_path):
    with pytest.raises(UserInputError, match="tokenizer of .* cannot be loaded"):
        load_tokenizer(str(tmp_path / "nothing"))


def test_examples_show_prompt_and_bars_and_escape_markup():
    rows = records([("g", "a [red]text[/red] \\[x]", [1, 3, 0])])
    text = output(doctor.print_examples, TASK, rows, 5, None)
    assert "user: a [red]text[/red] \\[x]" in text
    assert "2 *" in text and "0.750" in text and "share of 4" in text


def test_records_are_written_with_their_fingerprint(tmp_path):
    import pyarrow.parquet as pq
    from datasets import Dataset

    report = LoadReport(num_read=21, num_records=20)
    write_records(tmp_path / "new" / "r.parquet", VARIED, TASK, report)
    about = json.loads(pq.read_schema(tmp_path / "new" / "r.parquet").metadata[b"distjudge_trl"])
    assert about["fingerprint"] == fingerprint(VARIED) and about["labels"] == ["1", "2", "3"]
    assert about["report"]["read"] == 21 and "datasets" in about["versions"]
    back = Dataset.from_parquet(str(tmp_path / "new" / "r.parquet"), cache_dir=str(tmp_path / "cache"))
    assert back.features == VARIED.features and fingerprint(back) == fingerprint(VARIED)
    assert np.allclose(back["label_distribution"][:], VARIED["label_distribution"][:])


@pytest.mark.parametrize("name", ["ratings.csv", "folder.parquet", "same.parquet"])
def test_output_that_would_destroy_something_is_refused(tmp_path, name):
    (tmp_path / "folder.parquet").mkdir()
    for file in ("ratings.csv", "same.parquet"):
        (tmp_path / file).write_text("ratings")
    inputs = [f"{tmp_path / 'ratings.csv'}", f"{tmp_path / 'same.parquet'}!member.csv"]
    with pytest.raises(UserInputError, match="is the input|is a folder|ends in .parquet"):
        check_output(tmp_path / name, inputs)
    check_output(tmp_path / "new.parquet", inputs)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserInputError, match="cannot be written"):
        write_records(tmp_path / "file" / "r.parquet", VARIED, TASK, LoadReport())


@pytest.mark.shared
@pytest.mark.e2e
def test_the_command_on_the_real_snli(tmp_path):
    command = [sys.executable, "-m", "distjudge_trl", "data", "snli", "--stats", "--show", "1"]
    command += ["--data_path", str(SHARED / "data" / "snli"), "--out", str(tmp_path / "snli.parquet")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    for text in ("10,000 items read, 9,990 records", "left out, fewer than 5 annotators: 10", "3,323 groups"):
        assert text in run.stdout
    assert "\x1b" not in run.stdout and (tmp_path / "snli.parquet").is_file()


def test_divided_votes_are_left_out_of_agreement_and_it_says_so():
    divided = Item("a", "a", {}, [1.5, 0.5, 0.0], "f", 1, reference=0, ballots=((0,), (0, 1)))
    text = output(doctor.print_statistics, TASK, [divided, *ITEMS])
    said = f"Agreement, alpha and noise floor leave out 1 of {len(ITEMS) + 1} items, in which divided votes"
    assert said in text and "annotators an item: 2 /" in text
    figures = [line for line in output(doctor.print_statistics, TASK, ITEMS).splitlines() if "agree: " in line]
    assert figures and figures[0] in text.splitlines()
    assert "agree: undefined" in output(doctor.print_statistics, TASK, [divided])
