"""`distjudge-trl data FILE --init task.yaml`: the form, the labels and the columns that a draft finds."""

import csv
import io
import json
import random
import shutil
import zipfile

import pytest
import yaml
from click.testing import CliRunner
from conftest import SHARED

from distjudge_trl.cli import main
from distjudge_trl.tasks import LoadReport, get_task


TEXTS = ["The parcel came on time.", "Nobody answered my letter.", "It is on its way now.", "Please wait a while."]


def init(data, path, *options):
    return CliRunner().invoke(main, ["data", str(data), "--init", str(path), *options])


def draft(data, *options):
    """The keys of the draft, and the votes a label that it reads; its own check must pass."""
    path = data.parent / "task.yaml"
    done = init(data, path, *options)
    assert done.exit_code == 0, done.output
    assert "records" in done.output
    task, report = get_task(str(path)), LoadReport()
    rows = task.load(None, task.options(min_annotators=1), report=report)
    votes = [
        sum(row["label_distribution"][k] * row["num_annotators"] for row in rows) for k in range(len(task.labels))
    ]
    return yaml.safe_load(path.read_text(encoding="utf-8")), [round(count) for count in votes]


def items(number=12):
    """Rows with an id and a text, and three votes of 1 to 3 for each."""
    rng = random.Random(3)
    rows = [{"id": f"r{i}", "text": f"{rng.choice(TEXTS)} Number {i}."} for i in range(number)]
    return rows, [[rng.randint(1, 3) for _ in range(3)] for _ in range(number)]


def expected(votes, labels=(1, 2, 3)):
    flat = [vote for own in votes for vote in own]
    return [flat.count(label) for label in labels]


def json_lines(folder, rows):
    path = folder / "ratings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(folder, rows, name="ratings.csv", delimiter=",", encoding="utf-8"):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path = folder / name
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def as_list(row, votes):
    return {**row, "votes": votes}


def as_text(row, votes):
    return {**row, "annotations": ",".join(map(str, votes)), "annotators": "Ann1,Ann2,Ann3"}


def as_people(row, votes):
    return {**row, "ratings": {f"Ann{i}": str(vote) for i, vote in enumerate(votes)}}


def as_counts(row, votes):
    return {**row, "votes": {str(label): votes.count(label) for label in set(votes)}}


def as_shares(row, votes):
    return {**row, "soft": {str(label): votes.count(label) / 3 for label in (1, 2, 3)}, "num_annotators": 3}


def as_columns(row, votes):
    return {**row, **dict(zip(("anna", "ben", "cleo"), votes, strict=True))}


def as_label_columns(row, votes):
    return {**row, **{f"n_{label}": votes.count(label) for label in (1, 2, 3)}}


def as_annotations(row, votes):
    return {**row, "annotations": [{"worker": f"w{i}", "clarity": vote} for i, vote in enumerate(votes)]}


@pytest.mark.parametrize(
    ("form", "votes"),
    [
        (as_list, {"list": "votes"}),
        (as_text, {"list": "annotations", "separator": ","}),
        (as_people, {"list": "ratings"}),
        (as_counts, {"counts": "votes"}),
        (as_shares, {"shares": "soft", "num_annotators": "num_annotators"}),
        (as_columns, {"annotator_columns": ["anna", "ben", "cleo"]}),
        (as_label_columns, {"label_columns": {"1": "n_1", "2": "n_2", "3": "n_3"}}),
        (as_annotations, {"list": "annotations[].clarity"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_form_is_found(tmp_path, form, votes):
    rows, given = items()
    found, counts = draft(json_lines(tmp_path, [form(row, own) for row, own in zip(rows, given, strict=True)]))
    assert found["votes"] == votes
    assert found["labels"] == ["1", "2", "3"] and found["ordinal"] is True and "answers" not in found
    assert found["id"] == "id" and "{{ text }}" in found["template"]
    assert counts == expected(given)


def test_a_row_an_annotator(tmp_path):
    rows, given = items()
    flat = [
        {
            "item": row["id"],
            "text": row["text"],
            "worker_id": f"w{i}",
            "age": 30 + i,
            "score": vote,
            "why": "because so",
        }
        for row, own in zip(rows, given, strict=True)
        for i, vote in enumerate(own)
    ]
    random.Random(0).shuffle(flat)
    found, counts = draft(table(tmp_path, flat))
    assert found["votes"] == {"rows": "score", "annotator": "worker_id"} and found["id"] == "item"
    assert counts == expected(given)


def test_a_file_an_annotator(tmp_path):
    rows, given = items()
    folder = tmp_path / "raters"
    folder.mkdir()
    for i, name in enumerate(("anna", "ben", "cleo")):
        table(folder, [{**row, "score": own[i]} for row, own in zip(rows, given, strict=True)], f"{name}.csv")
    found, counts = draft(folder)
    assert found["votes"] == {"rows": "score", "annotator": "_file"}
    assert found["source"] == {"path": "raters", "files": ["*.csv"]}
    assert counts == expected(given)


def test_marks_in_blocks_of_annotators(tmp_path):
    rows, given = items()
    marked = [
        {
            **row,
            **{f"rater{i}_tone.{label}": int(vote == label) for i, vote in enumerate(own) for label in (1, 2, 3)},
        }
        for row, own in zip(rows, given, strict=True)
    ]
    found, counts = draft(table(tmp_path, marked))
    assert found["votes"]["label_columns"]["2"] == ["rater0_tone.2", "rater1_tone.2", "rater2_tone.2"]
    assert counts == expected(given)


def test_counts_beside_their_total(tmp_path):
    rows, given = items()
    names = ("rude", "neutral", "kind")
    found, counts = draft(
        table(
            tmp_path,
            [
                {**row, "count": 3, **{name: own.count(i) for i, name in enumerate(names, start=1)}}
                for row, own in zip(rows, given, strict=True)
            ],
        )
    )
    assert found["votes"] == {"label_columns": {name: name for name in names}}
    assert counts == expected(given)


# Exports


def test_label_studio(tmp_path):
    rows, given = items()
    tasks = [
        {
            "id": i,
            "data": {"text": row["text"]},
            "annotations": [
                {
                    "completed_by": who,
                    "was_cancelled": who == 2,
                    "result": [
                        {"from_name": "why", "type": "textarea", "value": {"text": ["x"]}},
                        {
                            "from_name": "tone",
                            "type": "choices",
                            "value": {"choices": ["Rude", "Kind"][vote % 2 :][:1]},
                        },
                    ],
                }
                for who, vote in enumerate(own)
            ],
            "predictions": [],
        }
        for i, (row, own) in enumerate(zip(rows, given, strict=True))
    ]
    path = tmp_path / "project-1.json"
    path.write_text(json.dumps(tasks))
    found, counts = draft(path)
    assert found["votes"] == {"list": "annotations[?!was_cancelled].result[] | [?from_name=='tone'].value.choices"}
    assert "{{ data.text }}" in found["template"] and found["labels"] == ["Kind", "Rude"]
    kept = [vote % 2 for own in given for vote in own[:2]]
    assert counts == [kept.count(1), kept.count(0)]


def test_argilla(tmp_path):
    rows, given = items()
    records = [
        {
            "id": row["id"],
            "fields": {"text": row["text"]},
            "metadata": {},
            "suggestions": {"clarity": {"value": 2, "score": None, "agent": None}},
            "responses": {"clarity": [{"value": vote, "user_id": f"u{i}"} for i, vote in enumerate(own)]},
            "vectors": {},
        }
        for row, own in zip(rows, given, strict=True)
    ]
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records))
    found, counts = draft(path)
    assert found["votes"] == {"list": "responses.clarity[].value"} and "{{ fields.text }}" in found["template"]
    assert counts == expected(given)


@pytest.mark.parametrize("binary", [False, True])
def test_prodigy(tmp_path, binary):
    rows, given = items()
    found, counts = draft(
        json_lines(
            tmp_path,
            [
                {
                    "text": row["text"],
                    "_input_hash": i,
                    **(
                        {}
                        if binary
                        else {
                            "options": [{"id": "B", "text": "b"}, {"id": "A", "text": "a"}],
                            "accept": ["BA"[vote % 2]],
                        }
                    ),
                    "answer": "ignore" if vote == 3 else "reject" if binary and vote == 2 else "accept",
                    "_annotator_id": f"p-{who}",
                    "_session_id": f"p-{who}",
                }
                for i, (row, own) in enumerate(zip(rows, given, strict=True))
                for who, vote in enumerate(own)
            ],
        )
    )
    ones, twos, _ = expected(given)
    assert found["id"] == "_input_hash" and found["votes"]["annotator"] == "_annotator_id"
    if binary:
        assert found["labels"] == ["accept", "reject"] and found["missing"] == ["ignore"]
        assert counts == [ones, twos]
    else:
        assert found["labels"] == ["B", "A"] and found["skip"] == "answer != 'accept'"
        assert counts == [twos, ones]


def test_doccano(tmp_path):
    rows, given = items()
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(("anna", "ben", "cleo")):
            lines = [
                {"id": number, "text": row["text"], "label": [["poor", "fair", "good"][own[i] - 1]], "Comments": []}
                for number, (row, own) in enumerate(zip(rows, given, strict=True))
            ]
            lines[0]["label"] = []
            archive.writestr(f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found, counts = draft(path)
    assert found["votes"] == {"rows": "label", "annotator": "_file"} and found["labels"] == ["poor", "fair", "good"]
    assert counts == expected(given[1:])


# Labels and columns


@pytest.mark.parametrize(
    ("labels", "found", "answers"),
    [
        (["-1", "0", "1"], ["-1", "0", "1"], "letters"),
        (["1", "1.5", "2"], ["1", "1.5", "2"], "letters"),
        (["8", "9", "10"], ["8", "9", "10"], "letters"),
        (["1", "2", "4"], ["1", "2", "3", "4"], None),
        (["Yes", "No", "Yes"], ["No", "Yes"], None),
        (["strongly agree", "agree", "disagree"], ["disagree", "agree", "strongly agree"], None),
        (["very good", "very bad", "fair"], ["very bad", "fair", "very good"], "letters"),
        (["1 - poor", "2 - fair", "3 - good"], ["1", "2", "3"], None),
        ([True, False, True], ["false", "true"], None),
    ],
)
def test_labels(tmp_path, labels, found, answers):
    rows, given = items()
    path = json_lines(
        tmp_path,
        [as_list(row, [labels[vote - 1] for vote in own]) for row, own in zip(rows, given, strict=True)],
    )
    keys, counts = draft(path)
    assert keys["labels"] == found and keys.get("answers") == answers
    assert ("legend" in keys["template"]) == (answers is not None)
    assert sum(counts) == 36


def test_codes_for_missing_votes(tmp_path):
    rows, given = items()
    answers = [[["n/a", 1, 2, -99][vote] if i else vote for i, vote in enumerate(own)] for own in given]
    table_rows = [{**row, "r1": own[0], "r2": own[1], "r3": own[2]} for row, own in zip(rows, answers, strict=True)]
    table_rows[0]["r2"] = "n/a"
    found, counts = draft(table(tmp_path, table_rows))
    assert found["labels"] == ["1", "2", "3"] and set(found["missing"]) == {"n/a", "-99"}
    kept = [value for row in table_rows for value in (row["r1"], row["r2"], row["r3"]) if value in (1, 2, 3)]
    assert counts == expected([kept])


def test_several_labels_by_one_annotator(tmp_path):
    rows, given = items()
    names = ["yes", "no", "yes,no"]
    path = json_lines(
        tmp_path,
        [as_list(row, [names[vote - 1] for vote in own]) for row, own in zip(rows, given, strict=True)],
    )
    found, counts = draft(path)
    ones, twos, threes = expected(given)
    assert found["labels"] == ["no", "yes"] and found["votes"]["multiple"] == "votes"
    assert counts == [twos + threes, ones + threes]


def test_columns_of_a_spreadsheet(tmp_path):
    rows, given = items(20)
    path = table(
        tmp_path,
        [
            {
                "Zeit": "2026-05-04",
                "Nr": i,
                "Straße": f"Weg {i // 2}",
                "Kommentar (Kunde)": row["text"],
                "Güte [Anna]": own[0],
                "Güte [Ben]": own[1],
                "explanation": "It was written in a hurry.",
            }
            for i, (row, own) in enumerate(zip(rows, given, strict=True))
        ],
        delimiter=";",
        encoding="cp1252",
    )
    found, counts = draft(path)
    assert found["source"] == {"path": "ratings.csv", "encoding": "cp1252"} and found["id"] == "Nr"
    assert found["votes"] == {"annotator_columns": ["Güte [Anna]", "Güte [Ben]"]}
    assert '{{ row["Kommentar (Kunde)"] }}' in found["template"] and "explanation" not in found["template"]
    assert counts == expected([own[:2] for own in given])


def test_texts_that_begin_with_quote_marks(tmp_path):
    lines = ["item\trater\ttext\tscore"]
    texts = [
        '"He left at three',
        "and he said so.",
        'then he said "no" and left',
        "so it was.",
        'said he."',
        "It was.",
    ]
    for i in range(6):
        lines += [f"{i}\t{who}\t{texts[i]}\t{(i + k) % 3}" for k, who in enumerate(("anna", "ben"))]
    path = tmp_path / "ratings.tsv"
    path.write_text("\n".join(lines) + "\n")
    found, counts = draft(path)
    assert found["votes"] == {"rows": "score", "annotator": "rater"} and sum(counts) == 12


def test_groups_and_ids_of_several_columns(tmp_path):
    rows, given = items(24)
    path = json_lines(
        tmp_path,
        [
            {
                "id": i // 4,
                "model": f"M{i % 4}",
                "article": f"Article {i // 4} is about a town.",
                "summary": row["text"],
            }
            | {"votes": own}
            for i, (row, own) in enumerate(zip(rows, given, strict=True))
        ],
    )
    found, _ = draft(path)
    assert found["id"] == ["id", "model"] and found["group"] == "id"
    assert "{{ article }}" in found["template"] and "{{ summary }}" in found["template"]


def test_a_conversation(tmp_path):
    rows, given = items()
    path = json_lines(
        tmp_path,
        [
            {
                "chat": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": "Fine."}],
                "votes": own,
            }
            for row, own in zip(rows, given, strict=True)
        ],
    )
    found, _ = draft(path)
    assert "{% for message in chat %}" in found["template"]
    shown = CliRunner().invoke(main, ["data", str(tmp_path / "task.yaml"), "--show", "1"])
    assert "user: " in shown.output and "assistant: Fine." in shown.output


def test_items_without_a_vote(tmp_path):
    rows, given = items()
    given[4] = []
    path = json_lines(tmp_path, [as_list(row, own) for row, own in zip(rows, given, strict=True)])
    done = init(path, tmp_path / "task.yaml")
    assert done.exit_code == 0 and "--min_annotators 1 leaves them out" in done.output
    assert "11 records" in done.output


def test_options_of_data_go_on(tmp_path):
    rows, given = items()
    path = json_lines(tmp_path, [as_list(row, own) for row, own in zip(rows, given, strict=True)])
    done = init(path, tmp_path / "new" / "task.yaml", "--stats", "--show", "1")
    assert done.exit_code == 0 and "noise floor" in done.output.casefold() and "Which label fits?" in done.output


# What cannot be drafted


def refused(done):
    assert done.exit_code == 2 and done.output.count("\n") == 1, done.output
    return done.output


def test_no_file_is_overwritten(tmp_path):
    rows, given = items()
    path = json_lines(tmp_path, [as_list(row, own) for row, own in zip(rows, given, strict=True)])
    (tmp_path / "task.yaml").write_text("mine")
    assert "is there already" in refused(init(path, tmp_path / "task.yaml"))
    assert (tmp_path / "task.yaml").read_text() == "mine"
    assert "ends with .yaml" in refused(init(path, tmp_path / "task.txt"))


def test_without_votes_nothing_is_written(tmp_path):
    path = json_lines(tmp_path, [{"id": i, "text": text, "scores": [i + 0.123]} for i, text in enumerate(TEXTS * 40)])
    said = refused(init(path, tmp_path / "task.yaml"))
    assert "no votes were found. The rows have: id, text, scores." in said and "bin them first" in said
    nested = [{"context": TEXTS[i % 4], "replies": [{"text": "a b c", "Overall": [1, 2, 3]}] * 2} for i in range(8)]
    said = refused(init(json_lines(tmp_path, nested), tmp_path / "task.yaml"))
    assert "If `replies` holds several items, write `items: replies`" in said
    assert not (tmp_path / "task.yaml").exists()


def test_a_draft_that_does_not_fit_says_so(tmp_path):
    rows, given = items(20)
    marked = [{**row, **{f"n_{v}": own.count(v) for v in (1, 2, 3)}} for row, own in zip(rows, given, strict=True)]
    marked[7]["n_2"] = "1, 0"
    done = init(table(tmp_path, marked), tmp_path / "task.yaml")
    assert done.exit_code == 2 and "task.yaml is written, but does not fit yet:" in done.output
    assert "row 9, field `n_2`: '1, 0' is not a count" in done.output


def test_data_without_a_task_file(tmp_path):
    path = json_lines(tmp_path, [{"id": 1}])
    said = refused(CliRunner().invoke(main, ["data", str(path)]))
    assert f"write a task file first: distjudge-trl data {path} --init task.yaml" in said
    said = refused(CliRunner().invoke(main, ["data", "vader", "--init", str(tmp_path / "task.yaml")]))
    assert "vader: is a task already" in said


# Files beside the clone

CASES = {
    "01-lewidi3-json-dict/pp_dev.json": {"list": "annotations"},
    "02-lewidi2-comma-annotations/ar_dev.json": {"list": "annotations", "separator": ","},
    "03-varierr-two-labels/nli.jsonl": {"list": "annotations", "multiple": "votes"},
    "05-labelstudio-json/project-1.json": {"list": "annotations[?!was_cancelled].result[].value.choices"},
    "05-labelstudio-json/mini.json": {"rows": "tone.choices || tone", "annotator": "annotator", "multiple": "votes"},
    "07-prodigy/db.jsonl": {"rows": "accept", "annotator": "_annotator_id"},
    "08-excel/a_cp1252.csv": {"annotator_columns": ["Güte_Anna", "Güte_Ben", "Güte_Cleo"]},
    "08-excel/e_unicode.txt": {"annotator_columns": ["Güte_Anna", "Güte_Ben", "Güte_Cleo"]},
    "09-half-points-and-0-10/half.csv": {"annotator_columns": ["r1", "r2", "r3"]},
    "13-arena-conversations/arena.jsonl": {"rows": "winner", "annotator": "judge"},
    "17-dash-and-booleans/bool.csv": {"annotator_columns": ["ann1", "ann2"]},
    "17-dash-and-booleans/nli.jsonl": {"list": "annotator_labels"},
    "18-popquorn-mqm/mqm_open.tsv": {"list": "score"},
    "19-column-names/forms.csv": {"annotator_columns": ["How polite is it? [Anna]", "How polite is it? [Ben]"]},
    "19-column-names/cnt.csv": {"counts": "votes"},
    "19-column-names/np.csv": {"list": "votes"},
    "19-column-names/desc.csv": {"annotator_columns": ["a", "b"]},
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", CASES)
def test_files_as_people_have_them(tmp_path, name):
    path = tmp_path / name.rpartition("/")[2]
    shutil.copy(SHARED / "cases" / name, path)
    assert draft(path)[0]["votes"] == CASES[name]


REAL = {
    "lewidi2023/ConvAbuse_dev.json.gz": ({"list": "annotations", "separator": ","}, 812),
    "lewidi2025/CSC_dev.json.gz": ({"list": "annotations"}, 704),
    "lewidi2025/Paraphrase_dev.json.gz": ({"list": "annotations"}, 50),
    "lewidi2025/VariErrNLI_dev.json.gz": ({"list": "annotations", "multiple": "votes"}, 50),
    "chaosnli/chaosNLI_snli.sample.jsonl.gz": ({"counts": "label_counter"}, 60),
    "dialsummeval/human_judgment.jsonl.gz": ({"list": "annotations[].consistency"}, 1_400),
    "dices/dices_350.jsonl.gz": ({"list": "Q_overall"}, 350),
    "mtbench/human.jsonl.gz": ({"rows": "winner", "annotator": "judge"}, 1_762),
    "pandalm/testset-v1.json.gz": ({"annotator_columns": ["annotator1", "annotator2", "annotator3"]}, 999),
    "popquorn/offensiveness_raw_data.csv.gz": ({"rows": "offensiveness", "annotator": "user_id"}, 1_500),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_public_data(tmp_path, name):
    path = tmp_path / name.rpartition("/")[2]
    shutil.copy(SHARED / "data" / name, path)
    done = init(path, tmp_path / "task.yaml")
    votes, number = REAL[name]
    assert done.exit_code == 0 and f"{number:,} items read" in done.output, done.output
    assert yaml.safe_load((tmp_path / "task.yaml").read_text(encoding="utf-8"))["votes"] == votes
