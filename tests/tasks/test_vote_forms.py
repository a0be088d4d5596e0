"""Votes as people really have them: nested, divided, in texts and numbers of every spelling."""

import json
from datetime import date
from pathlib import Path

import pytest
from test_custom import counts, load, write_task

from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.tasks import get_task


GRADES = ["1", "2", "3"]
NLI = ["entailment", "neutral", "contradiction"]
SEVERITY = ["1", "0", "-1", "-2", "-3"]


def rated(folder, rows, votes, labels=GRADES, **changes):
    """Path of a task on rows with the field `text`."""
    (folder / "r.jsonl").write_text("".join(json.dumps({"text": "t", **row}) + "\n" for row in rows), "utf-8")
    template = changes.pop("template", "Judge: {{ text }}")
    return write_task(
        folder,
        None,
        **{"id": None, "labels": labels, "template": template, "source": "r.jsonl", "votes": votes, **changes},
    )


def shares(row):
    return [round(share, 6) for share in row["label_distribution"]]


LABEL_STUDIO = {
    "id": 7,
    "data": {"text": "Hello"},
    "annotations": [
        {"id": i, "was_cancelled": cancelled, "result": [{"value": {"choices": [label]}}]}
        for i, (label, cancelled) in enumerate([("Rude", False), ("Rude", True), ("Kind", False)])
    ],
}


@pytest.mark.parametrize(
    ("row", "votes", "labels", "expected"),
    [
        # An annotator -> label mapping, also as the text of a CSV cell, and by annotators' names
        ({"a": {"Ann1": "1", "Ann2": "-3", "Ann3": "-3"}}, {"list": "a"}, SEVERITY, [1, 0, 0, 0, 2]),
        ({"a": "{'Ann1': 0, 'Ann2': 1}"}, {"list": "a"}, SEVERITY, [1, 1, 0, 0, 0]),
        ({"a": {"Ann1": "1", "Ann2": "-3"}}, {"annotator_columns": ["a.Ann1", "a.Ann2"]}, SEVERITY, [1, 0, 0, 0, 1]),
        ({"a": {"1": 2, "2": 3}}, {"list": "values(a)"}, GRADES, [0, 1, 1]),
        # Paths
        (LABEL_STUDIO, {"list": "annotations[?!was_cancelled].result[].value.choices"}, ["Kind", "Rude"], [1, 1]),
        (LABEL_STUDIO, {"list": "annotations[].result[].value.choices[0]"}, ["Kind", "Rude"], [1, 2]),
        ({"a": {"n": {"1": 2, "3": 1}}}, {"counts": "a.n"}, GRADES, [2, 0, 1]),
        ({"a": {"n1": 4, "n2": "1"}}, {"label_columns": {"1": "a.n1", "2": ["a.n2"]}}, GRADES, [4, 1, 0]),
        # Texts
        ({"a": "0,0,1"}, {"list": "a", "separator": ","}, ["0", "1"], [2, 1]),
        ({"a": "[1 3 1]"}, {"list": "a"}, GRADES, [2, 0, 1]),
        ({"a": "[1. 3.\n 1.]"}, {"list": "a"}, GRADES, [2, 0, 1]),
        ({"a": "['1' '1']"}, {"list": "a"}, ["1", "11"], [2, 0]),
        ({"a": "[1 3 1]"}, {"list": "a", "separator": " "}, GRADES, [2, 0, 1]),
        ({"a": "1 3  1"}, {"list": "a", "separator": " "}, GRADES, [2, 0, 1]),
        ({"a": "(1, 2)"}, {"list": "a"}, GRADES, [1, 1, 0]),
        ({"a": "[unclear]"}, {"list": "a"}, ["[unclear]", "x"], [1, 0]),
        # Lists of one label
        ({"a": ["1"], "b": "['2']", "c": []}, {"annotator_columns": ["a", "b", "c"]}, GRADES, [1, 1, 0]),
        # Several labels of one annotator
        (
            {"a": ["neutral", "entailment,neutral", ["neutral", "contradiction"]]},
            {"list": "a", "multiple": "votes"},
            NLI,
            [1, 3, 1],
        ),
        ({"a": "neutral;entailment,neutral"}, {"list": "a", "multiple": "votes"}, NLI, [1, 2, 0]),
        ({"a": "1,0"}, {"annotator_columns": ["a"], "multiple": "votes"}, ["0", "1"], [1, 1]),
        # One-hot columns of two annotators, as numbers, texts and booleans
        (
            {"a1": 1, "a2": 0, "b1": "0", "b2": "1", "c1": True, "c2": "FALSE"},
            {"label_columns": {"1": ["a1", "b1", "c1"], "2": ["a2", "b2", "c2"]}},
            GRADES,
            [2, 1, 0],
        ),
        # Shares
        ({"a": [0.33, 0.33, 0.34], "n": 3}, {"shares": "a", "num_annotators": "n"}, GRADES, [1, 1, 1]),
        ({"a": ["0,43", "0,43", "0,14"]}, {"shares": "a", "num_annotators": 7}, GRADES, [3, 3, 1]),
        # Rounded to two digits, of which the first share shows one.
        ({"a": [0.9, 0.05, 0.05], "n": 21}, {"shares": "a", "num_annotators": "n"}, GRADES, [19, 1, 1]),
        ({"a": [0.34, 0.33, 0.32], "n": 99}, {"shares": "a", "num_annotators": "n"}, GRADES, [34, 33, 32]),
        ({"a": {"1": 0.25, "3": 0.75}}, {"shares": "a", "num_annotators": 4}, GRADES, [1, 0, 3]),
        ({"a": [0.25, 0, 0.75], "n": "8"}, {"shares": "a", "num_annotators": "n"}, GRADES, [2, 0, 6]),
        ({"a": {"1.0": 0.67, "2.0": 0.33}, "n": 3}, {"shares": "a", "num_annotators": "n"}, GRADES, [2, 1, 0]),
        # Numbers by value, texts in NFC
        ({"a": "2,0", "b": "2.0", "c": 2}, {"annotator_columns": ["a", "b", "c"]}, GRADES, [0, 3, 0]),
        ({"a": "1,5", "b": 1.5, "c": "1.50"}, {"annotator_columns": ["a", "b", "c"]}, ["1", 1.5, "5"], [0, 3, 0]),
        ({"a": "\u200b1", "b": "2\u00a0"}, {"annotator_columns": ["a", "b"]}, GRADES, [1, 1, 0]),
        ({"a": "tre\u0300s bien"}, {"annotator_columns": ["a"]}, ["tr\u00e8s bien", "mal"], [1, 0]),
        ({"a": {"1": "3", "2": "1,0"}}, {"counts": "a"}, GRADES, [3, 1, 0]),
        ({"a": [True, False, "TRUE"]}, {"list": "a"}, ["true", "false"], [2, 1]),
    ],
)  # fmt: skip
def test_votes_in_many_forms(tmp_path, row, votes, labels, expected):
    rows, _ = load(rated(tmp_path, [row], votes, labels, template="Judge {{ text }}"))
    assert counts(rows[0]) == expected and rows[0]["num_annotators"] == sum(expected)


def test_labels_without_a_vote_are_missing_in_every_form(tmp_path):
    path = rated(tmp_path, [{"a": {"x": "-", "y": ["-"], "z": None, "w": "2"}}], {"list": "a"}, missing=["-"])
    assert counts(load(path)[0][0]) == [0, 1, 0]


# Divided votes


DIVIDED = [{"a": ["neutral", "entailment,neutral"]}, {"a": ["neutral", "entailment", "contradiction"]}]


def test_a_vote_is_divided_among_the_labels_of_an_annotator(tmp_path):
    rows, _ = load(rated(tmp_path, DIVIDED, {"list": "a", "multiple": "shares"}, NLI))
    assert [(shares(row), row["num_annotators"]) for row in rows] == [
        ([0.25, 0.75, 0.0], 2),
        ([0.333333, 0.333333, 0.333333], 3),
    ]
    assert rows[0]["completion"][0]["content"] == "neutral"


def test_thirds_are_as_tied_as_whole_votes(tmp_path):
    """Sums of thirds are exact, so all three labels are tied, and the first of them is the reference label."""
    path = rated(tmp_path, [{"a": [NLI[::-1]] * 7}], {"list": "a", "multiple": "shares"}, NLI)
    row = load(path)[0][0]
    assert row["completion"][0]["content"] == "entailment" and row["num_annotators"] == 7
    with pytest.raises(UserInputError, match="left out .tied majority"):
        load(path, majority_ties="exclude")


def test_drawing_annotators_keeps_their_labels_together(tmp_path):
    voters = [["entailment", "neutral"], ["neutral"], ["contradiction", "entailment"], ["neutral"]]
    path = rated(tmp_path, [{"a": voters}], {"list": "a", "multiple": "shares"}, NLI)
    for limit in (1, 2, 3):
        row = load(path, max_annotators=limit)[0][0]
        assert row["num_annotators"] == limit
        assert all((2 * share * limit) % 1 == pytest.approx(0) for share in row["label_distribution"])
    # The order of the annotators in the file does not matter.
    again = rated(tmp_path, [{"a": voters[::-1]}], {"list": "a", "multiple": "shares"}, NLI)
    assert (
        load(again, max_annotators=2)[0][0]["label_distribution"]
        == load(path, max_annotators=2)[0][0]["label_distribution"]
    )


@pytest.mark.parametrize(("multiple", "expected", "people"), [("votes", [2, 1, 0], 3), ("shares", [1.5, 0.5, 0], 2)])
def test_an_annotator_with_a_row_a_label(tmp_path, multiple, expected, people):
    rows = [{"i": 1, "who": who, "v": v} for who, v in (("a", "1"), ("a", "2"), ("b", "1"))]
    votes = {"rows": "v", "annotator": "who", "multiple": multiple}
    row = load(rated(tmp_path, rows, votes, id="i"))[0][0]
    assert shares(row) == [round(votes / people, 6) for votes in expected] and row["num_annotators"] == people


def test_rows_of_an_annotation_tool_are_skipped_and_counted(tmp_path):
    rows = [
        {"i": 1, "who": who, "accept": accept, "answer": answer}
        for who, accept, answer in (("a", ["2"], "accept"), ("b", ["3"], "ignore"), ("c", ["2"], "accept"))
    ]
    path = rated(tmp_path, rows, {"rows": "accept", "annotator": "who"}, id="i", skip="answer != 'accept'")
    records, report = load(path)
    assert counts(records[0]) == [0, 2, 0] and report.notes == {"rows left out by `skip`": 1}


@pytest.mark.parametrize(("cells", "kept"), [(["TRUE", "false", ""], 2), ([1, 0, None], 2), ([True, False, False], 2)])
def test_skip_may_name_a_column_of_booleans(tmp_path, cells, kept):
    rows = [{"v": ["1"], "flag": cell} for cell in cells]
    assert len(load(rated(tmp_path, rows, {"list": "v"}, skip="flag"))[0]) == kept


def test_labels_have_spellings_in_the_data(tmp_path):
    path = rated(
        tmp_path, [{"a": "1 - good", "b": "poor"}], {"annotator_columns": ["a", "b"]}, ["good", "bad"],
        spellings={"good": ["1 - good"], "bad": ["poor"]},
    )  # fmt: skip
    assert counts(load(path)[0][0]) == [1, 1]
    assert "poor" not in str(get_task(path).label_space().to_dict())


def test_ids_and_groups_may_be_paths(tmp_path):
    rows = [{"meta": {"id": 5, "doc": "d1"}, "v": ["1"]}, {"meta": {"id": 6, "doc": "d1"}, "v": ["2"]}]
    records = load(rated(tmp_path, rows, {"list": "v"}, id="meta.id", group="meta.doc"))[0]
    assert [(row["id"], row["group"]) for row in records] == [("5", "d1"), ("6", "d1")]


def test_a_path_may_find_nothing_in_some_rows(tmp_path):
    rows = [{"a": {}}, {"a": {"x": {"l": "1"}}}, {"b": 1}]
    records, report = load(rated(tmp_path, rows, {"annotator_columns": ["a.x.l"]}), min_annotators=1)
    assert len(records) == 1 and report.excluded == {"fewer than 1 annotators": 2}


# What the prompt may show


@pytest.mark.parametrize(
    ("template", "votes"),
    [
        ("{{ d }}", "d.votes"),
        ("{{ d.votes }}", "d.votes"),
        ("{{ d.votes.anna }}", "d.votes"),
        ("{% for k in d %}{{ d[k] }}{% endfor %}", "d.votes"),
        ("{% set x = d %}{{ x.votes }}", "d.votes"),
        ('{{ row["d"]["votes"] }}', "d.votes"),
        ("{{ row.d }}", "d.votes"),
        ("{{ d.text }}", "d.*"),
        ("{{ d.text }}", "d[].votes"),
        ("{{ a[0].text }}", "a[].votes"),
        ("{{ d['vo' ~ 'tes'] }}", "d.votes"),
    ],
)
def test_the_prompt_shows_no_votes_by_any_path(tmp_path, template, votes):
    with pytest.raises(UserInputError, match="the judge must not see them"):
        get_task(rated(tmp_path, [], {"list": votes}, template=template))


def test_the_prompt_may_show_another_part_of_the_same_column(tmp_path):
    row = {"d": {"text": "Hello", "votes": ["1"], "more": {"lang": "en"}}}
    path = rated(tmp_path, [row], {"list": "d.votes"}, template="{{ d.text }} {{ d.more }} {{ row['d']['text'] }}")
    assert load(path)[0][0]["prompt"][0]["content"] == "Hello {'lang': 'en'} Hello"


def test_row_by_itself_is_refused(tmp_path):
    with pytest.raises(JudgmentDataError, match="uses `row` by itself"):
        load(rated(tmp_path, [{"v": ["1"]}], {"list": "v"}, template="{{ text }} {{ row }}"))


@pytest.mark.parametrize(
    ("column", "template"),
    [
        ("Customer reply (English)", '{{ row["Customer reply (English)"] }}'),
        ("reply-text", "{{ row['reply-text'] }}"),
        ("data.text", '{{ row["data.text"] }}{% if row["note"] %}!{% endif %}'),
        ("Gu\u0308te", "{{ G\u00fcte }}"),
        ("G\u00fcte", "{{ Gu\u0308te }}"),
        ("row", "{{ row }}"),
    ],
)
def test_a_column_of_any_name_can_be_shown(tmp_path, column, template):
    path = rated(tmp_path, [{column: "Hello", "v": ["1"], "note": ""}], {"list": "v"}, template=template)
    assert load(path)[0][0]["prompt"][0]["content"] == "Hello"


def test_the_legend_lists_the_answers(tmp_path):
    path = rated(
        tmp_path, [{"v": ["1.5", "10"]}], {"list": "v"}, [1, 1.5, 10], answers="letters",
        template='{{ text }}\n{{ legend }}\nAnswer with "A", B or C.',
    )  # fmt: skip
    task = get_task(path)
    record = load(path)[0][0]
    assert record["prompt"][0]["content"] == 't\nA: 1\nB: 1.5\nC: 10\nAnswer with "A", B or C.'
    assert record["completion"][0]["content"] == "B" and task.labels == ("1", "1.5", "10")
    # The template of judge.json needs no legend: a judge renders bare items alone.
    from distjudge_trl.data import PromptTemplate

    assert PromptTemplate(task.template.messages).render({"text": "t"}) == record["prompt"]
    (tmp_path / "other.jinja").write_text("{{ legend | upper }} {{ text }}")
    assert task.read_template(tmp_path / "other.jinja").render({"text": "t"})[0]["content"].startswith("A: 1\nB: 1.5")


def test_answers_may_be_words_even_other_labels(tmp_path):
    answers = {"A": "B", "B": "A"}
    row = load(rated(tmp_path, [{"v": ["A", "A", "B"]}], {"list": "v"}, ["A", "B"], answers=answers))[0][0]
    assert shares(row) == [0.666667, 0.333333] and row["completion"][0]["content"] == "B"


# Mistakes in the task file


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"template": "Rate this."}, "the template shows nothing of the item"),
        ({"template": 'Rate. {{ "My column" }}'}, r'shows nothing of the item.*\{\{ row\["My column"\] \}\}'),
        ({"template": "{{ Customer reply (English) }}"}, r'write \{\{ row\["Customer reply \(English\)"\] \}\}'),
        ({"labels": [True, False]}, 'in quotes, "Yes" or "true"'),
        ({"answers": "numbers"}, "`answers`: must be `letters`, or a mapping of labels to words, got 'numbers'"),
        ({"answers": {"1": "A", "2": "B"}}, "`answers` lacks the labels '3'"),
        ({"answers": {"1": "A", "2": "a", "3": "C"}}, "spelling 'a' belongs to the label '1' and to '2'"),
        ({"answers": {"9": "A"}}, "Answers are given for '9', which is not a label"),
        ({"labels": list(range(30)), "answers": "letters"}, "has 26 letters, and there are 30 labels"),
        ({"spellings": {"good": ["1"]}}, "`spellings`: 'good' is not a label"),
        ({"spellings": {"1": ["2"]}}, "spelling '2' belongs to the label"),
        ({"skip": "answer != accept'"}, "`skip`: .* is no JMESPath expression"),
        ({"votes": {"list": "*.label"}}, r"'\*.label' reads every column: begin it with the name of one"),
        ({"votes": {"shares": "s"}}, "`shares` and `num_annotators` go together"),
        ({"votes": {"shares": "s", "num_annotators": 1.5}}, "must be a whole number, or the name .* got 1.5"),
        ({"votes": {"label_columns": {"1": "a", "1.0": "b"}}}, "'1' and '1.0' are one label. Give it a list"),
        ({"votes": {"shares": "s", "num_annotators": 0}}, "`votes.num_annotators"),
        ({"votes": {"counts": "c", "multiple": "votes"}}, "`multiple` does not go with `counts`"),
        ({"votes": {"list": "c", "multiple": "both"}}, "`votes.multiple`: .*'error', 'votes' or 'shares'"),
        ({"votes": {"label_columns": {"1": "n", "2": ["m", "n"]}}}, "names the column 'n' a second time"),
        ({"votes": {"annotator_columns": ["a", "b", "a"]}}, "`annotator_columns` names the column 'a' a second time"),
        ({"votes": {"rows": "a", "annotator": "a"}, "id": "i"}, "`annotator` names the column 'a' a second time"),
        ({"votes": {"annotator_columns": "a"}}, r"`votes.annotator_columns`: must be a list, such as .*got 'a'"),
        ({"votes": "v"}, "`votes`: must be a mapping of keys to values, got 'v'"),
        ({"missing": 9}, r"`missing`: must be a list, such as \[a, b\], got 9"),
        ({"labels": ["1"]}, r"`labels`: must have at least 2 entries, got \['1'\]"),
        ({"labels": ["1", "\u200e2"]}, r"`labels.1`: '\\u200e2' has .* invisible characters around it: write '2'"),
        ({"labels": ["1", "2\n3"]}, "`labels.1`: .* write it in one line"),
        ({"labels": ["1", float("nan")]}, '`labels.1`: .* write it in quotes, "nan"'),
        ({"labels": ["1", date(2020, 1, 2)]}, '`labels.1`: YAML reads 2020-01-02 as a date: write it in quotes'),
        ({"answers": {"1": "A", "2": "", "3": "C"}}, "`answers.2`: must not be empty"),
        ({"name": "a/b"}, "`name`: may have letters, digits, .* got 'a/b'"),
        ({"template": [{"role": "robot", "content": "{{ x }}"}]}, "has the role 'robot'; roles are system, user and"),
        ({"template": [{"role": "system", "content": "{{ x }}"}]}, "last message of the .* is the system's"),
        (
            {"template": [{"role": "user", "content": "{{ x }}"}, {"role": "assistant", "content": "y"}]},
            "last message of the prompt template is the assistant's: it must be a user's",
        ),
        (
            {"template": [{"role": r, "content": "{{ x }}"} for r in ("user", "system", "user")]},
            "Message 2 of the prompt template is the system's, which can only be the first",
        ),
        ({"source": {"path": "r.jsonl", "delimiter": "||"}}, "`source.delimiter`: must be one mark"),
        ({"source": {"path": "r.jsonl", "delimiter": "x"}}, "`source.delimiter`: must be one mark"),
        ({"source": {"path": "r.jsonl", "encoding": "idna"}}, "'idna' is no known text encoding"),
        ({"source": {"path": "r.jsonl", "encoding": "unicode_escape"}}, "is no known text encoding"),
        ({"votes": {"lst": "v"}}, "`votes.lst`: is not a key .*did you mean `list`"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_task_file_has_one_line(tmp_path, changes, match):
    with pytest.raises(UserInputError, match=match) as caught:
        get_task(rated(tmp_path, [], **{"votes": {"list": "v"}, **changes}))
    assert "\n" not in str(caught.value)


def test_yaml_s_old_numbers_are_texts(tmp_path):
    """YAML 1.1 reads 010 as eight and 1:30 as ninety."""
    path = Path(rated(tmp_path, [{"v": ["010", "1:30"]}], {"list": "v"}, ["LABELS"]))
    path.write_text(path.read_text().replace("- LABELS", "- 010\n- 1:30\n- 0x1F\n- 12"))
    assert get_task(str(path)).labels == ("010", "1:30", "31", "12")
    assert load(str(path))[0][0]["label_distribution"] == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("row", "skip", "match"),
    [
        (
            {"n": "1"},
            "n == `1`",
            "it compares the text '1' with the number 1, which are not equal; write texts in single",
        ),
        ({"n": 1}, "n != '1'", "it compares the text '1' with the number 1"),
        ({"n": "True"}, "n == `true`", "it compares the text 'True' with the boolean true"),
        ({"n": [{"ok": 1}]}, "length(n[?ok == '1']) == `1`", "it compares the text '1' with the number 1"),
        ({"n": "10"}, "n > `9`", r"it orders the text '10' as a word and not as a number; write to_number\(NAME\)"),
        ({"n": "10"}, "n > '9'", "it orders the text '10' as a word"),
    ],
)
def test_a_comparison_that_depends_on_how_a_file_writes_numbers(tmp_path, row, skip, match):
    path = rated(tmp_path, [{"v": ["1"], **row}], {"list": "v"}, GRADES, skip=skip)
    with pytest.raises(JudgmentDataError, match=f"row 1, field .*: the expression fails on the row: {match}"):
        load(path)


def test_ids_that_are_numbers_are_compared_by_value(tmp_path):
    """A column of whole numbers with gaps is one of floats."""
    rows = [{"i": 1, "v": "1"}, {"i": 1.0, "v": "2"}, {"i": "b", "v": "3"}]
    records = load(rated(tmp_path, rows, {"rows": "v"}, GRADES, id="i"))[0]
    assert [(record["id"], record["num_annotators"]) for record in records] == [("1", 2), ("b", 1)]


def test_a_text_that_nobody_sees_is_empty(tmp_path):
    path = rated(tmp_path, [{"text": "\u200b \ufeff", "v": ["1"]}], {"list": "v"}, GRADES)
    with pytest.raises(JudgmentDataError, match="row 1, field `text`: is .* and the prompt needs it"):
        load(path)


@pytest.mark.parametrize("changes", [{"votes": {"list": "'v'"}}, {"id": "'text'"}, {"skip": "`true`"}])
def test_an_expression_that_reads_no_column(tmp_path, changes):
    """All rows would have the same; but a column may have the name of such an expression."""
    votes = changes.pop("votes", {"list": "v"})
    with pytest.raises(JudgmentDataError, match="row 1, field .*: is no column, and an expression that reads none is"):
        load(rated(tmp_path, [{"v": ["1"]}], votes, GRADES, **changes))
    row = {"v": ["1"], "'v'": ["2"], "'text'": "x", "`true`": "false"}
    assert len(load(rated(tmp_path, [row], votes, GRADES, **changes))[0]) == 1


def test_skip_says_that_it_left_out_nothing(tmp_path):
    path = rated(tmp_path, [{"v": ["1"], "n": "x"}], {"list": "v"}, GRADES, skip="n == 'y' || to_number(n) > `3`")
    assert "rows left out by `skip`: 0" in load(path)[1].lines()


# Mistakes in the data


@pytest.mark.parametrize(
    ("row", "votes", "labels", "match"),
    [
        ({"a": "0,0,1"}, {"list": "a"}, ["0", "1"], "'0,0,1' looks like three votes with commas.*`separator: \",\"`"),
        ({"a": "1 3"}, {"list": "a"}, GRADES, "two votes with blanks. In `votes` write `separator: \" \"`"),
        ({"a": "1|3|3|3"}, {"list": "a"}, GRADES, "four votes with bars.*`separator: \"|\"`"),
        ({"a": "1/3"}, {"list": "a"}, GRADES, "two votes with slashes.*If one annotator gave them"),
        ({"a": "1;2"}, {"list": "a", "separator": ","}, GRADES, "two votes with semicolons"),
        ({"a": "1,0"}, {"list": "a"}, ["0", "1"], "may be two labels, or the number 1 with a decimal comma"),
        ({"a": "1,0"}, {"annotator_columns": ["a"]}, ["0", "1"], "may be two labels, or the number 1"),
        ({"a": ["1", "2,3"]}, {"list": "a"}, GRADES, "one annotator gives two labels: '2,3'.*`multiple: votes`"),
        ({"a": ["1", "2"]}, {"annotator_columns": ["a"]}, GRADES, "gives two labels: 1, 2.*`multiple: shares`"),
        ({"a": ["1", "1"]}, {"annotator_columns": ["a"], "multiple": "votes"}, GRADES, "gives the label '1' twice"),
        ({"a": "-"}, {"list": "a"}, NLI, r'stands for a missing vote, write `missing: \["-"\]`'),
        ({"a": "n/a"}, {"annotator_columns": ["a"]}, NLI, r'write `missing: \["n/a"\]`'),
        ({"a": "None"}, {"annotator_columns": ["a"]}, NLI, r'write `missing: \["None"\]`'),
        ({"a": ["skip"]}, {"list": "a"}, NLI, r'write `missing: \["skip"\]`'),
        ({"a": True}, {"annotator_columns": ["a"]}, ["Yes", "No"], r'write `labels: \["true", "false"\]`, in quotes'),
        ({"a": "2,5"}, {"annotator_columns": ["a"]}, GRADES[:2], "read as the number 2.5, with a decimal comma"),
        ({"a": "2 (good)"}, {"annotator_columns": ["a"]}, GRADES, r'`spellings: \{"2": \["2 \(good\)"\]\}`'),
        ({"a": [{"l": "1"}]}, {"list": "a"}, GRADES, r'is a mapping and no label.*`list: "a\[\].l"`'),
        ({"a": {"choices": ["1"]}}, {"annotator_columns": ["a"]}, GRADES, r'"a.choices \|\| a"` if other rows'),
        ({"a": {"choices": [7]}}, {"annotator_columns": ["a"]}, GRADES, "by its path.*Its keys are choices"),
        ({"a": {"1": 2, "3": 1}}, {"list": "a"}, GRADES, r"maps labels to numbers.*`votes: \{counts: a\}`"),
        ({"a": {"Ann": "1"}}, {"counts": "a"}, GRADES, r"maps annotators to labels.*`votes: \{list: a\}`"),
        ({"a": ["1", "2"]}, {"counts": "a"}, GRADES, r"must be a mapping.*write `votes: \{list: a\}`"),
        ({"a": {"1": 0.25}}, {"counts": "a"}, GRADES, r"`votes: \{shares: a, num_annotators: COLUMN OR NUMBER\}`"),
        ({"a": {"1": "many"}}, {"counts": "a"}, GRADES, "'many' is not a count"),
        ({"a": "0, 1"}, {"label_columns": {"1": "a"}}, GRADES, "'0, 1' is not a count but several, with commas"),
        ({"a": "{'1', '2'}"}, {"list": "a"}, GRADES, "is a set, in which equal votes are lost"),
        ({"a": [[["1"]]]}, {"list": "a"}, GRADES, "a list with parts of parts"),
        ({"a": {"1": 0.5, "2": 0.5}}, {"shares": "a", "num_annotators": 3}, GRADES, "is 1.5 votes, not a whole"),
        ({"a": [0.5, 0.25, 0.25]}, {"shares": "a", "num_annotators": 3}, GRADES, "share 0.5 of 3 annotators is 1.5"),
        ({"a": [0.3, 0.3, 0.4]}, {"shares": "a", "num_annotators": 3}, GRADES, "share 0.3 of 3 .*two digits or more"),
        ({"a": [0.33, 0.33, 0.34]}, {"shares": "a", "num_annotators": 40}, GRADES, "is 13.6 votes, not a whole"),
        ({"a": [0.33, 0.33, 0.33]}, {"shares": "a", "num_annotators": 200}, GRADES, "2 digits do not tell the votes"),
        ({"a": [0.335, 0.335, 0.33]}, {"shares": "a", "num_annotators": 150}, GRADES, "is 50.25 votes"),
        ({"a": {}}, {"shares": "a", "num_annotators": 2}, GRADES, "2 annotators are 0 votes together"),
        ({"a": ["half", "50%", 0]}, {"shares": "a", "num_annotators": 2}, GRADES, "share of '1' is 'half', not"),
        ({"a": {"1": 0.5}}, {"shares": "a", "num_annotators": 2}, GRADES, "2 annotators are 1 votes together"),
        ({"a": {"1": 1.5}}, {"shares": "a", "num_annotators": 2}, GRADES, "is 1.5, not a number from 0 to 1"),
        ({"a": {"1": "x"}}, {"shares": "a", "num_annotators": 2}, GRADES, "the share of '1' is 'x', not a number"),
        ({"a": [0.5, 0.5]}, {"shares": "a", "num_annotators": 2}, GRADES, "or a list of 3 shares, got"),
        ({"a": {"1": 0.33, "2": 0.67}}, {"shares": "a", "num_annotators": 300}, GRADES, "digits do not tell the"),
        ({"a": {"b": "1"}}, {"list": "a.c"}, GRADES, "finds nothing in any of the 1 rows. `a` has: b"),
        ({"a": [{"b": "1"}]}, {"list": "a[].c"}, GRADES, r"finds nothing in any of the 1 rows. `a\[\]` has: b"),
        ({"a": 3}, {"list": "length(a)"}, GRADES, "the expression fails on the row"),
    ],
)  # fmt: skip
def test_the_hint_fits_the_cause(tmp_path, row, votes, labels, match):
    with pytest.raises(JudgmentDataError, match=match) as caught:
        load(rated(tmp_path, [row], votes, labels))
    message = str(caught.value)
    assert "\n" not in message and "r.jsonl" in message and "synonyms" not in message
    assert caught.value.field in (*votes.values(), *votes.get("annotator_columns", ()), "a")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"skip": "anser != 'x'"}, "no column 'anser' in any of the 2 rows.*Did you mean 'answer'"),
        ({"skip": "answer != 'x'"}, "leaves out all 2 rows"),
        ({"skip": "answer"}, r"`skip` must be true or false, got 'accept'. Compare: `skip: \"COLUMN == 'accept'\""),
        ({"id": "meta"}, r"field `meta`: must name one thing.*a path, such as `meta.id`"),
        ({"id": "meta.no"}, "row 1, field `meta.no`: is None. Fill it in"),
        ({"template": "{{ reply-text }}"}, r'To show the column \'reply-text\' write \{\{ row\["reply-text"\] \}\}'),
        ({"template": "{{ data.text }}"}, r'write \{\{ row\["data.text"\] \}\}'),
        ({"template": "{{ text }} {{ 'reply-text' }}"}, r"the text 'reply-text' and not the column of that name"),
        ({"template": '{{ row["replytext"] }}'}, r'Did you mean \{\{ row\["reply-text"\] \}\}'),
        ({"template": "{{ text }} {{ legend }}", "legend": "x"}, r'Write \{\{ row\["legend"\] \}\} for the column'),
    ],
)  # fmt: skip
def test_paths_and_templates_that_do_not_fit_the_rows(tmp_path, changes, match):
    more = {"legend": changes.pop("legend")} if "legend" in changes else {}
    row = {"v": ["1"], "answer": "accept", "meta": {"id": 1}, "reply-text": "r", "data.text": "d", **more}
    with pytest.raises(UserInputError, match=match) as caught:
        load(rated(tmp_path, [row, row], {"list": "v"}, **changes))
    assert "\n" not in str(caught.value)


def test_no_error_lists_more_than_eight_names(tmp_path):
    row = {f"column {i}": i for i in range(50)}
    with pytest.raises(JudgmentDataError, match="The row has: text, column 0, .*, column 6, ... and 43 more.$"):
        load(rated(tmp_path, [row], {"list": "votes"}))
    with pytest.raises(JudgmentDataError, match="labels: 1, 2, 3, 4, 5, 6, 7, 8, ... and 22 more. Correct"):
        load(rated(tmp_path, [{"v": ["x"]}], {"list": "v"}, list(range(1, 31))))


def test_an_empty_row_of_an_annotator_takes_no_vote_away_and_is_none(tmp_path):
    for number, rows in enumerate(("1,a,\n1,a,yes\n1,b,no\n", "1,a,yes\n1,a,\n1,b,no\n")):
        (tmp_path / f"{number}.csv").write_text(f"id,who,v\n{rows}")
        (tmp_path / f"{number}.yaml").write_text(
            f"name: t\nlabels: ['yes', 'no']\ntemplate: '{{{{ id }}}}'\nid: id\nsource: {number}.csv\n"
            "votes: {rows: v, annotator: who}\n"
        )
        (record,) = get_task(str(tmp_path / f"{number}.yaml")).load()
        assert record["label_distribution"] == [0.5, 0.5] and record["num_annotators"] == 2
