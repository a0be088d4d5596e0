"""`distjudge-trl judge` on real judges: columns, formats, rows that are marked, and runs that are killed."""

import csv
import json
import os
import signal
import subprocess
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import LABELS, ROOT, make_tiny_judge, wait_for_lock

from distjudge_trl import Judge
from distjudge_trl.cli import main


COLUMNS = ["label_distribution", "label", "mean", "median", "entropy", "label_mass", "risk_averse"]
ROWS = 400


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return make_tiny_judge(tmp_path_factory.mktemp("judge"), tokenizer)


@pytest.fixture(scope="module")
def pair_folder(tokenizer, tmp_path_factory):
    text = "A: {{ answer_a }} B: {{ answer_b }}"
    path = tmp_path_factory.mktemp("pairs")
    return make_tiny_judge(path, tokenizer, ["A", "B", "tie"], [{"role": "user", "content": text}], ordinal=False)


def write_rows(path, count=ROWS, **odd):
    rows = [{"id": i, "text": "the text " * (i % 7 + 1) + str(i)} for i in range(count)]
    for place, row in odd.items():
        rows[int(place.removeprefix("row_"))] = row
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def words(folder, source, target, *options):
    return ["judge", "--model", folder, "--input", str(source), "--out", str(target), *options]


def judge(*args):
    return CliRunner().invoke(main, words(*args))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Columns and formats


def test_all_columns_are_those_of_the_judge_in_python(folder, tmp_path):
    rows = write_rows(tmp_path / "in.jsonl", 70)
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--batch-size", "2")
    assert done.exit_code == 0, done.output
    written = read(tmp_path / "out.jsonl")
    assert [list(row) for row in written] == [["id", "text", *COLUMNS]] * 70
    assert [row["text"] for row in written] == [row["text"] for row in rows]
    loaded = Judge.from_pretrained(folder)
    expected = loaded.judge(rows)
    np.testing.assert_allclose([list(row["label_distribution"].values()) for row in written], expected, atol=1e-5)
    np.testing.assert_allclose([row["mean"] for row in written], expected @ [1, 2, 3, 4, 5], atol=1e-4)
    alone = loaded.judge_one(text=rows[3]["text"])
    assert list(alone) == COLUMNS and alone["label"] == written[3]["label"]
    assert alone["entropy"] == pytest.approx(written[3]["entropy"], abs=1e-4)


def test_csv_and_parquet_hold_what_json_lines_hold(folder, tmp_path):
    odd = {"text": 'ümlaut, "quoted"\nline', "nested": {"a": [1, 2.5]}, "empty": None, "flag": True}
    write_rows(tmp_path / "in.jsonl", 40, row_5=odd)
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        done = judge(folder, tmp_path / "in.jsonl", tmp_path / name, "--batch-size", "1")
        assert done.exit_code == 0, done.output
    lines = read(tmp_path / "out.jsonl")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(table) == 40 and set(table[0]) == {*lines[0], *odd}
    for line, row in zip(lines, table, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in line.items() if value is not None
        }
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert cells[5]["text"] == odd["text"] and json.loads(cells[5]["nested"]) == odd["nested"]
    assert cells[5]["flag"] == "true" and cells[5]["empty"] == cells[6]["flag"] == ""
    assert [json.loads(row["label_distribution"]) for row in cells] == [row["label_distribution"] for row in lines]
    assert [float(row["mean"]) for row in cells] == [row["mean"] for row in lines]
    # What is written can be judged again, where its columns do not clash.
    assert "is in the input already" in judge(folder, tmp_path / "out.parquet", tmp_path / "again.jsonl").output
    assert names(tmp_path) == ["in.jsonl", "out.csv", "out.jsonl", "out.parquet"]


def test_every_form_of_input(folder, tmp_path):
    rows = write_rows(tmp_path / "in.jsonl", 12)
    made = datasets.Dataset.from_list(rows)
    made.save_to_disk(tmp_path / "saved", num_shards=2)
    made.to_parquet(tmp_path / "in.parquet")
    made.to_csv(tmp_path / "in.csv")
    (tmp_path / "in.json").write_text(json.dumps(rows))
    judged = []
    for name in ("in.jsonl", "saved", "in.parquet", "in.csv", "in.json"):
        done = judge(folder, tmp_path / name, tmp_path / "out.jsonl", "--columns", "mean")
        assert done.exit_code == 0, (name, done.output)
        judged.append([(row["text"], row["mean"]) for row in read(tmp_path / "out.jsonl")])
    assert judged == [judged[0]] * 5 and len(judged[0]) == 12


def test_columns_are_chosen_by_name(folder, pair_folder, tmp_path):
    write_rows(tmp_path / "in.jsonl", 2)
    (tmp_path / "pairs.jsonl").write_text('{"answer_a": "yes", "answer_b": "no"}\n')
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--columns", "risk_averse,label")
    assert done.exit_code == 0 and list(read(tmp_path / "out.jsonl")[0]) == ["id", "text", "label", "risk_averse"]
    for columns, message in (("lable", "Did you mean label?"), ("mean,kl", "--columns kl: is not a column.")):
        done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--columns", columns)
        assert done.exit_code == 2 and message in done.output
    done = judge(pair_folder, tmp_path / "pairs.jsonl", tmp_path / "pairs.out", "--columns", "mean")
    assert done.exit_code == 2 and "--columns mean: needs labels with an order" in done.output
    assert judge(pair_folder, tmp_path / "pairs.jsonl", tmp_path / "pairs.out").exit_code == 0
    columns = ["answer_a", "answer_b", "label_distribution", "label", "entropy", "label_mass"]
    assert list(read(tmp_path / "pairs.out")[0]) == columns


def test_a_column_of_the_input_stays_unless_it_is_asked_for(folder, tmp_path):
    write_rows(tmp_path / "in.jsonl", 40, row_33={"text": "yes", "label": "mine"})
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert done.exit_code == 0 and "The input has label, so the judge's is not written" in done.output
    assert read(tmp_path / "out.jsonl")[33]["label"] == "mine" and "label" not in read(tmp_path / "out.jsonl")[0]
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--columns", "label")
    assert done.exit_code == 2 and "in.jsonl, row 34, field `label`: is in the input already" in done.output


def test_a_column_of_two_types_is_no_parquet_column(folder, tmp_path):
    write_rows(tmp_path / "in.jsonl", 40, row_33={"text": "yes", "id": "x33"})
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.parquet")
    assert done.exit_code == 2 and "out.parquet: the column 'id' does not fit one type of Parquet" in done.output
    assert names(tmp_path) == ["in.jsonl"]
    write_rows(tmp_path / "in.jsonl", 4, row_3={"text": "yes", "id": {}})
    assert "the column 'id' does not fit" in judge(folder, tmp_path / "in.jsonl", tmp_path / "out.parquet").output


def test_an_integer_that_its_column_cannot_hold_is_kept_in_the_rows(folder, tmp_path):
    # Only beside a decimal fraction, thousands of rows away, the column becomes one of fractions.
    rows = [{"text": "yes", "n": 2**60 + 1}, *({"text": "no", "n": 1} for _ in range(8300)), {"text": "no", "n": 0.5}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.parquet", "--batch-size", "128", "--columns", "label")
    assert done.exit_code == 2 and "out.parquet: the column 'n' does not fit one type of Parquet" in done.output
    assert "8,302 rows of 8,302 are judged and kept" in done.output


@pytest.mark.parametrize("name", ["out.xlsx", "out.jsonl.gz", "out.tsv"])
def test_formats_that_are_not_written(folder, tmp_path, name):
    write_rows(tmp_path / "in.jsonl", 2)
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / name)
    assert done.exit_code == 2 and f"{name}: is written as JSON lines, CSV or Parquet" in done.output


# Rows that cannot be judged


def test_bad_rows_are_marked(folder, tmp_path):
    long = {"prompt": [{"role": "user", "content": "rate " * 400}], "id": 7}
    write_rows(tmp_path / "in.jsonl", 80, row_3={"text": ""}, row_40=long, row_50={"txt": "no"})
    options = ("--on-error", "mark", "--batch-size", "1")
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", *options)
    assert done.exit_code == 0, done.output
    assert "3 rows could not be judged; the column `error` says why" in done.output
    written = read(tmp_path / "out.jsonl")
    assert [i for i, row in enumerate(written) if row["error"] is not None] == [3, 40, 50]
    assert written[3]["error"].startswith("field `text`: is ''") and "more than max_length=256" in written[40]["error"]
    assert all(written[i][name] is None for i in (3, 40, 50) for name in COLUMNS)
    assert len(written) == 80 and written[79]["label"] in LABELS
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.parquet", *options)
    assert done.exit_code == 0 and pq.read_table(tmp_path / "out.parquet").column("error").null_count == 77


def test_a_value_that_json_cannot_hold_is_null_in_a_marked_row(folder, tmp_path):
    pq.write_table(pa.table({"text": ["yes", "no"], "odd": [None, b"\xff"]}), tmp_path / "in.parquet")
    done = judge(folder, tmp_path / "in.parquet", tmp_path / "out.jsonl", "--on-error", "mark")
    assert done.exit_code == 0, done.output
    good, bad = read(tmp_path / "out.jsonl")
    assert good["error"] is None and bad["odd"] is None and bad["text"] == "no" and "as JSON" in bad["error"]


def test_a_row_that_only_the_tokenizer_finds_too_long_costs_nothing_before_it(folder, tmp_path):
    long = {"prompt": [{"role": "user", "content": "rate " * 400}]}
    write_rows(tmp_path / "in.jsonl", 80, row_40=long)
    options = ("--batch-size", "1", "--columns", "mean")
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", *options)
    assert done.exit_code == 2 and "in.jsonl, row 41, field `prompt`: the prompt has" in done.output
    assert "32 rows of 80 are judged and kept" in done.output and "--on-error mark goes on there" in done.output
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", *options, "--on-error", "mark")
    assert done.exit_code == 0 and "Going on behind 32 of 80 rows" in done.output
    written = read(tmp_path / "out.jsonl")
    assert len(written) == 80 and [i for i, row in enumerate(written) if row["mean"] is None] == [40]
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"]


# Runs that are killed


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "in.jsonl"
    write_rows(path)
    return path


@pytest.fixture(scope="module")
def whole(folder, source, tmp_path_factory):
    """What runs that are not killed write, by format."""
    out = tmp_path_factory.mktemp("whole")
    for name in ("jsonl", "csv", "parquet"):
        assert judge(folder, source, out / f"out.{name}", "--batch-size", "1").exit_code == 0
    return out


def start(python, args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [python, "-m", "distjudge_trl", *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def kill_after(python, args, part, done):
    """Kill a run with no warning once `done` rows are counted as done; returns what it has counted then."""

    def counted():
        try:
            return json.loads((part / "progress.json").read_text())["done"]
        except (OSError, ValueError):
            return -1

    # An earlier run may have done enough already: this one has to be at work before it is killed.
    before = counted()
    process = start(python, args)
    while process.poll() is None and not (counted() >= done and counted() > before):
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[0].decode()[-2000:]
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for_lock(part / "lock")
    return json.loads((part / "progress.json").read_text())["done"]


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_a_killed_run_goes_on_where_it_stopped(folder, source, whole, warm_python, tmp_path, name):
    target = tmp_path / f"out.{name}"
    args = words(folder, source, target, "--batch-size", "1")
    points = []
    for done in (0, 32, 160, 256):
        points.append(kill_after(warm_python, args, tmp_path / f"out.{name}.part", done))
        assert not target.exists()
    assert points == sorted(points) and 256 <= points[-1] < ROWS
    process = start(warm_python, args)
    printed = process.communicate()[0].decode()
    assert process.returncode == 0 and f"Going on behind {points[-1]} of 400 rows" in printed
    assert names(tmp_path) == [target.name]
    if name == "parquet":
        assert pq.read_table(target).equals(pq.read_table(whole / "out.parquet"))
    else:
        assert target.read_bytes() == (whole / f"out.{name}").read_bytes()


def stopped(folder, source, out):
    """A run that has judged 32 rows and stopped, as it leaves its folder."""
    content = source.read_text().splitlines(True)
    long = json.dumps({"prompt": [{"role": "user", "content": "rate " * 400}]}) + "\n"
    changed = out / "in.jsonl"
    changed.write_text("".join([*content[:40], long, *content[41:]]))
    assert judge(folder, changed, out / "out.jsonl", "--batch-size", "1").exit_code == 2
    return changed


def test_half_a_line_is_written_again(folder, source, tmp_path):
    changed = stopped(folder, source, tmp_path)
    with (tmp_path / "out.jsonl.part/rows.jsonl").open("ab") as file:
        file.write(b'{"id": 32, "te')
    done = judge(folder, changed, tmp_path / "out.jsonl", "--batch-size", "1", "--on-error", "mark")
    assert done.exit_code == 0 and [row.get("id") for row in read(tmp_path / "out.jsonl")] == [
        *range(40),
        None,
        *range(41, 400),
    ]


def test_a_run_that_was_killed_between_its_two_files_begins_again(folder, source, tmp_path):
    changed = stopped(folder, source, tmp_path)
    part = tmp_path / "out.jsonl.part"
    # As it leaves the folder: that no row is done has been written, the file of rows has not been opened.
    progress = json.loads((part / "progress.json").read_text())
    (part / "progress.json").write_text(json.dumps({**progress, "done": 0, "size": 0}))
    (part / "rows.jsonl").unlink()
    done = judge(folder, changed, tmp_path / "out.jsonl", "--batch-size", "1", "--on-error", "mark")
    assert done.exit_code == 0, done.output
    assert len(read(tmp_path / "out.jsonl")) == ROWS and names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_run_that_is_killed_while_it_writes_the_target_needs_no_model(folder, source, tmp_path, monkeypatch):
    changed = stopped(folder, source, tmp_path)
    progress = json.loads((tmp_path / "out.jsonl.part/progress.json").read_text())
    assert judge(folder, changed, tmp_path / "out.jsonl", "--on-error", "mark").exit_code == 0
    rows = (tmp_path / "out.jsonl").read_bytes()
    part = tmp_path / "out.csv.part"
    part.mkdir()
    (part / "rows.jsonl").write_bytes(rows)
    (part / "progress.json").write_text(json.dumps({**progress, "done": 400, "size": len(rows)}))
    monkeypatch.setattr("distjudge_trl.judges.local.LocalJudge.__init__", pytest.fail)
    done = judge(folder, changed, tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [
            row["label"] or "" for row in read(tmp_path / "out.jsonl")
        ]
    assert names(tmp_path) == ["in.jsonl", "out.csv", "out.jsonl"]


def test_what_has_changed_since_is_said(folder, tokenizer, source, tmp_path):
    changed = stopped(folder, source, tmp_path)
    target = tmp_path / "out.jsonl"
    other = make_tiny_judge(tmp_path / "other", tokenizer, LABELS[:4])
    for args, message in (
        ((folder, changed, target, "--columns", "mean"), "but with --columns not given, now mean. Restore that to go"),
        ((folder, changed, target, "--max-length", "100"), "but with --max-length not given, now 100."),
        ((other, changed, target), "but that was another judge."),
        ((folder, source, target), "but the input has changed since."),
    ):
        done = judge(*args)
        assert done.exit_code == 2 and "out.jsonl.part: holds 32 of 400 rows" in done.output, done.output
        assert message in done.output and "Give --overwrite to begin anew." in done.output
        assert len(done.output.strip().splitlines()) == 1 and not target.exists()
    state = tmp_path / "out.jsonl.part/progress.json"
    sound = json.loads(state.read_text())
    for broken in (
        {"done": 500},
        {"size": -1},
        {"rows": None},
        {"columns": ["x"]},
        {"made_from": []},
        {"orders": {"x": 1}},
    ):
        state.write_text(json.dumps({**sound, **broken}))
        assert "progress.json is missing or damaged" in judge(folder, changed, target).output, broken
    for broken in ({"done": 31}, {"size": sound["size"] - 1}):  # a row would be twice in the output, or cut off
        state.write_text(json.dumps({**sound, **broken}))
        assert "rows.jsonl is damaged" in judge(folder, changed, target).output, broken
    state.write_text("{")
    assert "progress.json is missing or damaged. Give --overwrite" in judge(folder, changed, target).output
    done = judge(folder, source, target, "--overwrite")
    assert done.exit_code == 0 and len(read(target)) == 400
    assert names(tmp_path) == ["in.jsonl", "other", "out.jsonl"]


def test_an_input_that_changes_while_it_is_judged(folder, source, tmp_path):
    changed = stopped(folder, source, tmp_path)
    state = tmp_path / "out.jsonl.part/progress.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "rows": 500}))
    done = judge(folder, changed, tmp_path / "out.jsonl", "--batch-size", "1", "--on-error", "mark")
    assert done.exit_code == 2 and "had 500 rows when it was read first, and 400 now" in done.output


# Both orders of pairs


def test_both_orders_are_averaged(pair_folder, tmp_path):
    rows = [{"answer_a": f"yes {i}", "answer_b": f"no the text {i % 3}"} for i in range(50)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = judge(pair_folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--swap", "average", "--batch-size", "1")
    assert done.exit_code == 0, done.output
    assert "Other order: answer_a with answer_b and label A with B" in done.output
    loaded = Judge.from_pretrained(pair_folder)
    first = loaded.judge(rows)
    second = loaded.judge([{"answer_a": row["answer_b"], "answer_b": row["answer_a"]} for row in rows])[:, [1, 0, 2]]
    found = [list(row["label_distribution"].values()) for row in read(tmp_path / "out.jsonl")]
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-5)
    same = (first.argmax(-1) == second.argmax(-1)).mean()
    gain = (first[:, 0] - second[:, 0] + second[:, 1] - first[:, 1]).mean() / 2
    assert 0 < same < 1 or abs(gain) > 1e-3, "the random model is no test"
    assert f"both orders asked: {same:.1%} of 50 pairs had the same answer in both" in done.output
    assert f"by {gain:+.3f} on average" in done.output


def test_what_is_no_pair(folder, pair_folder, tmp_path):
    write_rows(tmp_path / "in.jsonl", 2)
    done = judge(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--swap", "average")
    assert done.exit_code == 2 and "none of text are seen to be the two sides of a pair" in done.output
    (tmp_path / "in.jsonl").write_text('{"prompt": [{"role": "user", "content": "A or B?"}]}\n')
    done = judge(pair_folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--swap", "average")
    assert done.exit_code == 2 and "field `prompt`: is a finished prompt, which can be asked in one" in done.output
    given = ("--swap", "average", "--swap-fields", "answer_a:answer_c")
    done = judge(pair_folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", *given)
    assert done.exit_code == 2 and "--swap-fields: there is no 'answer_c'. Known: answer_a, answer_b." in done.output
