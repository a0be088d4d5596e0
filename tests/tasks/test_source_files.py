"""What a task file says about its source, what the load report says about the file, and judging the same files."""

import json
from collections import Counter

import numpy as np
import openpyxl
import pytest
import yaml

from distjudge_trl.data.reading import Reading
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.judges.base import Judgments, PromptJudge
from distjudge_trl.judges.files import judge_jsonl
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks import LoadReport, get_task


TASK = {
    "name": "cafe",
    "labels": [1, 2, 3],
    "template": "How good is this, 1 to 3?\n{{ Antwort }}",
    "id": "Nr",
    "votes": {"annotator_columns": ["Güte_A", "Güte_B"]},
}
TABLE = 'Nr;Antwort;Güte_A;Güte_B\n1;"Café; spät";2;3\n2;Straße;1;\n;;;\n'


def load(folder, source, **changes):
    (folder / "task.yaml").write_text(yaml.safe_dump({**TASK, "source": source, **changes}), encoding="utf-8")
    report = LoadReport()
    records = get_task(str(folder / "task.yaml")).load(report=report)
    return records, report


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("f.csv", TABLE.encode(), {}),
        ("f.txt", TABLE.encode("utf-16"), {}),
        ("f.csv", TABLE.encode("cp1252"), {"encoding": "cp1252"}),
        ("f.csv", TABLE.encode("cp1252"), {"encoding": "latin-1", "quoting": "standard", "delimiter": ";"}),
        ("f.csv", TABLE.replace("Güte", "Gu\u0308te").encode(), {}),
        ("f.csv", b"sep=;\n" + TABLE.encode(), {}),
    ],
)
def test_every_form_gives_the_same_records(tmp_path, name, content, keys):
    (tmp_path / name).write_bytes(content)
    records, _ = load(tmp_path, {"path": name, **keys})
    assert records["id"] == ["1", "2"] and records["label_distribution"] == [[0, 0.5, 0.5], [1, 0, 0]]
    assert records["prompt"][0][0]["content"].endswith("Café; spät")


def test_a_sheet(tmp_path):
    workbook = openpyxl.Workbook()
    workbook.active.append(["Legende"])
    sheet = workbook.create_sheet("Noten")
    for row in (["Nr", "Antwort", "Güte_A", "Güte_B"], [1.0, "Café", 2.0, 3], [2, "Straße", 1, None]):
        sheet.append(row)
    workbook.save(tmp_path / "f.xlsx")
    records, _ = load(tmp_path, {"path": "f.xlsx", "sheet": "Noten"})
    assert records["id"] == ["1", "2"] and records["label_distribution"] == [[0, 0.5, 0.5], [1, 0, 0]]
    with pytest.raises(UserInputError, match="has the sheets Sheet, Noten.*`source: {path: f.xlsx, sheet: Sheet}`"):
        load(tmp_path, "f.xlsx")


def test_the_report_says_what_was_unusual(tmp_path):
    (tmp_path / "f.csv").write_text('Nr;Antwort;Güte_A;Güte_B\n1;"two\nlines";2;3\n;;;\n2;"and\ntwo";1;\n')
    _, report = load(tmp_path, "f.csv")
    assert report.lines()[1:] == ["cells that span lines: 2", "empty rows left out: 1"]
    (tmp_path / "f.tsv").write_text('Nr\tAntwort\tGüte_A\tGüte_B\n1\t"He said\t2\t3\n2\tand left"\t1\t1\n')
    records, report = load(tmp_path, "f.tsv")
    assert len(records) == 2
    assert report.lines()[1:] == ["lines in which a quote mark was read as part of a text: 1"]


def test_a_column_that_is_there_twice_matters_only_if_it_is_named(tmp_path):
    (tmp_path / "f.csv").write_text("Nr,Antwort,when,when,Güte_A,Güte_B\n1,x,a,b,2,3\n")
    records, _ = load(tmp_path, "f.csv")
    assert len(records) == 1
    with pytest.raises(UserInputError, match=r"field `when`: is missing. 2 columns.*: write when \(1\) or when \(2\)"):
        load(tmp_path, "f.csv", id="when")
    assert load(tmp_path, "f.csv", id="when (2)")[0]["id"] == ["b"]


def test_a_file_an_annotator(tmp_path):
    (tmp_path / "ratings").mkdir()
    for name, vote in (("anna", 2), ("ben", 3)):
        (tmp_path / "ratings" / f"{name}.csv").write_text(f"Nr,Antwort,vote\n1,x,{vote}\n2,y,1\n")
    votes = {"rows": "vote", "annotator": "_file"}
    records, _ = load(tmp_path, {"path": "ratings", "files": ["*.csv"]}, votes=votes)
    assert records["label_distribution"] == [[0, 0.5, 0.5], [1, 0, 0]]


def test_an_object_of_items_with_their_keys(tmp_path):
    items = {"x7": {"Antwort": "a", "Güte_A": 1, "Güte_B": 2}, "x9": {"Antwort": "b", "Güte_A": 3, "Güte_B": 3}}
    (tmp_path / "f.json").write_text(json.dumps(items))
    records, _ = load(tmp_path, "f.json", id="_key")
    assert records["id"] == ["x7", "x9"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"encoding": "cp1253x"},
            "`source.*encoding`: 'cp1253x' is no known text encoding; spreadsheets write cp1252",
        ),
        ({"encoding": "hex"}, "is no known text encoding"),
        ({"quoting": "maybe"}, "`source.*quoting`: .*'auto', 'none' or 'standard'"),
        (
            {"sheets": "a"},
            "is not a key of a task file; known here are path, files, delimiter, encoding, quoting, sheet",
        ),
    ],
)
def test_keys_that_are_wrong(tmp_path, keys, message):
    with pytest.raises(UserInputError, match=message) as caught:
        load(tmp_path, {"path": "f.csv", **keys})
    assert "\n" not in str(caught.value)


class StandIn(PromptJudge):
    """A judge without a model that keeps the rows of which it makes prompts."""

    label_space, template = LabelSpace(["1", "2"]), PromptTemplate([{"role": "user", "content": "{{ a }}"}])

    def __init__(self):
        self.items = []

    def _render(self, item, row):
        self.items.append(item)
        return super()._render(item, row)

    def _read_prompts(self, prompts, batch_size, progress):
        shape = (len(prompts), 2)
        return Judgments(np.log(np.tile([0.25, 0.75], (len(prompts), 1))), np.ones(len(prompts)), np.zeros(shape))


def judge(path, **reading):
    stand_in, notes = StandIn(), Counter()
    out = path.parent / "out.jsonl"
    judge_jsonl(lambda: stand_in, str(path), str(out), reading=Reading(by_options=True, **reading), notes=notes)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert all(row.pop("label_distribution") == pytest.approx({"1": 0.25, "2": 0.75}) for row in rows)
    return rows, stand_in.items, notes


def test_judging_every_form_writes_the_rows_own_fields(tmp_path):
    rows = [{"a": "é", "b": "x\ny"}, {"a": "ü", "b": "z"}]
    (tmp_path / "f.json").write_text(json.dumps({"k1": rows[0], "k2": rows[1]}))
    written, seen, _ = judge(tmp_path / "f.json")
    assert written == rows and seen[0] == {**rows[0], "_key": "k1", "_file": "f"}
    (tmp_path / "f.csv").write_bytes('a,b\né,"x\ny"\nü,z\n'.encode("cp1252"))
    written, _, notes = judge(tmp_path / "f.csv", encoding="cp1252")
    assert written == rows and notes == {"cells that span lines": 1}
    with pytest.raises(UserInputError, match="looks like cp125.* Pass --encoding cp125"):
        judge(tmp_path / "f.csv")
    (tmp_path / "f.txt").write_text('a\tb\né\t"x\ny"\nü\tz\n', encoding="utf-16")
    assert judge(tmp_path / "f.txt")[0] == rows
    workbook = openpyxl.Workbook()
    for row in (["a", "b"], ["é", "x\ny"], ["ü", "z"]):
        workbook.active.append(row)
    workbook.save(tmp_path / "f.xlsx")
    assert judge(tmp_path / "f.xlsx")[0] == rows


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("r.jsonl", "delimiter", ";"),
        ("r.csv", "sheet", "Noten"),
        ("r.jsonl", "quoting", "none"),
        ("r.json", "header", 2),
        ("r.csv", "items", "data"),
        ("r.parquet", "encoding", "cp1252"),
    ],
)
def test_a_key_that_no_file_can_use_is_not_ignored(tmp_path, name, key, value):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserInputError, match=rf"{name}: is a \.\w+ file, which has no use for `{key}`.*take `{key}`"):
        load(tmp_path, {"path": name, key: value})
