"""The paper's data sets: faithful records from files of the official form."""

import gzip
import json
import zipfile

import pytest
from click.testing import CliRunner
from conftest import SHARED
from examples import (
    CHAOSNLI,
    HELPSTEER2,
    HELPSTEER2_PREFERENCE,
    MNLI,
    MTBENCH,
    SNLI,
    SUMMEVAL,
    vote,
    write,
)

from distjudge_trl.cli import main
from distjudge_trl.data import split_records
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.tasks import LoadReport, get_task, helpsteer2, list_tasks, summeval


def load(name, path, **options):
    """Records by id, and the report."""
    task, report = get_task(name), LoadReport()
    records = task.load(path, task.options(**options), report=report)
    return {row["id"]: row for row in records}, report


def counts(row):
    return [round(share * row["num_annotators"]) for share in row["label_distribution"]]


def answer(row):
    return row["completion"][0]["content"]


def test_unknown_task_names_the_nearest():
    assert {"snli", "mnli", "chaosnli", "summeval", "mtbench", "helpsteer2", "helpsteer2_pref", "vader"} <= set(
        list_tasks()
    )
    with pytest.raises(UserInputError, match="no task 'sumeval'. Did you mean 'summeval'"):
        get_task("sumeval")


@pytest.mark.parametrize("name", list_tasks())
def test_every_task_says_what_it_is_and_where_it_lives(name):
    task = get_task(name)
    assert task.name == name and task.description and task.size
    assert name == "vader" or all(file.url.startswith("https://") and file.sha256 for file in task.remote_files)
    assert task.label_space().labels == task.labels


# SNLI, MNLI, ChaosNLI


def test_snli_needs_five_labels_and_counts_what_it_leaves_out(tmp_path):
    rows, report = load("snli", write(tmp_path / "snli_1.0_test.jsonl.gz", SNLI))
    assert list(rows) == ["1.jpg#0r1n", "1.jpg#0r1e"]
    assert counts(rows["1.jpg#0r1n"]) == [1, 3, 1] and answer(rows["1.jpg#0r1n"]) == "neutral"
    assert rows["1.jpg#0r1n"]["group"] == rows["1.jpg#0r1e"]["group"] == "A woman mends a bicycle in the yard."
    assert report.num_read == 4 and report.excluded == {"fewer than 5 annotators": 2}
    assert "left out, fewer than 5 annotators: 2" in report.lines()


def test_min_annotators_lets_others_in_and_empty_labels_do_not_count(tmp_path):
    rows, _ = load("snli", write(tmp_path / "snli_1.0_dev.jsonl", SNLI), min_annotators=1)
    assert len(rows) == 4
    assert counts(rows["3.jpg#0r1c"]) == [0, 2, 2]


@pytest.mark.parametrize(("rule", "expected"), [("first", "neutral"), ("exclude", None)])
def test_ties_in_the_majority(tmp_path, rule, expected):
    rows, report = load("snli", write(tmp_path / "snli_1.0_dev.jsonl", SNLI), min_annotators=4, majority_ties=rule)
    if expected is None:
        assert "3.jpg#0r1c" not in rows and report.excluded["tied majority"] == 1
    else:
        assert answer(rows["3.jpg#0r1c"]) == expected


def test_random_ties_depend_on_id_and_seed(tmp_path):
    path = write(tmp_path / "snli_1.0_dev.jsonl", SNLI)
    answers = [
        answer(load("snli", path, min_annotators=4, majority_ties="random", draw_seed=seed)[0]["3.jpg#0r1c"])
        for seed in range(12)
    ]
    assert set(answers) == {"neutral", "contradiction"}
    again = load("snli", path, min_annotators=4, majority_ties="random", draw_seed=5)[0]["3.jpg#0r1c"]
    assert answer(again) == answers[5]


def test_the_official_archive_is_read_without_unpacking(tmp_path):
    with zipfile.ZipFile(tmp_path / "snli_1.0.zip", "w") as archive:
        for part, rows in (("dev", SNLI[:1]), ("test", SNLI[1:])):
            archive.writestr(f"snli_1.0/snli_1.0_{part}.jsonl", "\n".join(map(json.dumps, rows)))
        archive.writestr("__MACOSX/._snli_1.0_dev.jsonl", "rubbish")
    rows, report = load("snli", tmp_path / "snli_1.0.zip")
    assert len(rows) == 2 and len(report.files) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["snli_1.0.zip"]


def test_mnli_samples_with_a_seed(tmp_path):
    path = write(tmp_path / "multinli_1.0_dev_matched.jsonl", MNLI)
    assert get_task("mnli").options().max_items == 10_000
    first, report = load("mnli", path, max_items=10)
    assert len(first) == 10 and report.excluded == {"not among the 10 drawn": 30}
    write(path, MNLI[::-1])
    assert set(load("mnli", path, max_items=10)[0]) == set(first)
    assert set(load("mnli", path, max_items=10, draw_seed=1)[0]) != set(first)
    assert set(load("mnli", path, max_items=20)[0]) > set(first)
    assert counts(first.popitem()[1]) == [3, 2, 0]


def test_chaosnli_has_a_hundred_new_labels_and_five_old_ones(tmp_path):
    path = write(tmp_path / "chaosNLI_snli.jsonl", CHAOSNLI)
    new, old = load("chaosnli", path)[0], load("chaosnli", path, labels="old")[0]
    assert counts(new["1.jpg#0r1n"]) == [30, 61, 9] and counts(old["1.jpg#0r1n"]) == [1, 3, 1]
    assert new["1.jpg#0r1n"]["prompt"] == old["1.jpg#0r1n"]["prompt"]
    # The same pair, as SNLI has it.
    snli = load("snli", write(tmp_path / "snli_1.0_dev.jsonl", SNLI))[0]["1.jpg#0r1n"]
    assert snli == old["1.jpg#0r1n"]


def test_fewer_annotators_can_be_drawn_than_an_item_must_have(tmp_path):
    rows, _ = load("snli", write(tmp_path / "snli_1.0_dev.jsonl", SNLI), max_annotators=3)
    assert len(rows) == 2 and {row["num_annotators"] for row in rows.values()} == {3}


def test_max_annotators_draws_with_a_seed(tmp_path):
    path = write(tmp_path / "chaosNLI_snli.jsonl", CHAOSNLI)
    rows, report = load("chaosnli", path, max_annotators=5)
    assert {row["num_annotators"] for row in rows.values()} == {5}
    assert report.notes == {"items of which 5 annotators were drawn": 2}
    assert counts(rows["7e"]) == [5, 0, 0]
    draws = {tuple(counts(load("chaosnli", path, max_annotators=5, draw_seed=s)[0]["1.jpg#0r1n"])) for s in range(8)}
    assert len(draws) > 2


# SummEval


def test_summeval_makes_a_record_of_every_dimension(tmp_path):
    rows, _ = load("summeval", write(tmp_path / "model_annotations.aligned.paired.jsonl.gz", SUMMEVAL))
    assert len(rows) == 6 * 4
    coherence = rows["cnn-test-aa/M8/coherence"]
    assert coherence["group"] == "cnn-test-aa" and counts(coherence) == [1, 2, 0, 3, 2]
    prompts = {name: rows[f"cnn-test-aa/M8/{name}"]["prompt"][-1]["content"] for name in ("fluency", "relevance")}
    assert "Fluency:" in prompts["fluency"] and "Fluency:" not in prompts["relevance"]
    assert all("The article aa, in full." in prompt for prompt in prompts.values())


@pytest.mark.parametrize(
    ("annotators", "expected"), [("expert", [1, 2, 0, 0, 0]), ("crowd", [0, 0, 0, 3, 2]), ("all", [1, 2, 0, 3, 2])]
)
def test_summeval_annotators_can_be_chosen(tmp_path, annotators, expected):
    path = write(tmp_path / "model_annotations.aligned.paired.jsonl", SUMMEVAL)
    rows, _ = load("summeval", path, annotators=annotators)
    assert counts(rows["cnn-test-aa/M8/coherence"]) == expected


def without_text():
    return [{key: value for key, value in row.items() if key != "text"} for row in SUMMEVAL]


@pytest.mark.parametrize("where", ["articles", "parquet", "stories", "row"])
def test_summeval_joins_the_articles_from_where_they_are(tmp_path, where):
    rows = without_text()
    if where == "row":  # the text stands in one row of each article
        rows[0], rows[3] = SUMMEVAL[0], SUMMEVAL[3]
    write(tmp_path / "model_annotations.aligned.jsonl", rows)
    articles = [{"id": f"cnn-test-{a}", "text": f"The article {a}, in full."} for a in ("aa", "bb")]
    if where == "articles":
        write(tmp_path / "articles.jsonl", articles)
    elif where == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(articles), tmp_path / "mteb_summeval.parquet")
    elif where == "stories":
        folder = tmp_path / "cnn" / "stories"
        folder.mkdir(parents=True)
        for a in ("aa", "bb"):
            (folder / f"{a}.story").write_text(f"The article {a}, in full.\n\n@highlight\n\nShort")
    loaded, _ = load("summeval", tmp_path)
    assert len(loaded) == 24
    prompt = loaded["cnn-test-bb/M9/coherence"]["prompt"][-1]["content"]
    assert "Article:\nThe article bb, in full.\n\nSummary:" in prompt and "Short" not in prompt


@pytest.mark.parametrize("where", ["/{folder}/secret.txt", "../secret.txt", "cnn/../../secret.txt"])
def test_summeval_reads_no_story_outside_its_folder(tmp_path, where):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("a secret")
    (folder / "link.story").symlink_to(tmp_path / "secret.txt")
    for path in (where.format(folder=tmp_path), "link.story"):
        row = {**without_text()[0], "filepath": path}
        write(folder / "model_annotations.aligned.jsonl", [row])
        with pytest.raises(JudgmentDataError, match="is not found"):
            load("summeval", folder)


def test_summeval_finds_articles_beside_the_file_and_in_an_archive_of_any_name(tmp_path):
    path = write(tmp_path / "model_annotations.aligned.jsonl", without_text())
    articles = [{"id": f"cnn-test-{a}", "text": f"The article {a}, in full."} for a in ("aa", "bb")]
    write(tmp_path / "articles.jsonl", articles)
    assert len(load("summeval", path)[0]) == 24
    with zipfile.ZipFile(tmp_path / "summeval_articles.zip", "w") as archive:
        for name in ("model_annotations.aligned.jsonl", "articles.jsonl"):
            archive.write(tmp_path / name, name)
    assert len(load("summeval", tmp_path / "summeval_articles.zip")[0]) == 24


def test_summeval_does_not_count_the_two_forms_of_its_file_twice(tmp_path):
    write(tmp_path / "model_annotations.aligned.jsonl", without_text())
    write(tmp_path / "model_annotations.aligned.paired.jsonl", SUMMEVAL)
    assert len(load("summeval", tmp_path)[0]) == 24


def test_summeval_without_an_article_says_what_to_put_where(tmp_path):
    path = write(tmp_path / "model_annotations.aligned.jsonl", without_text())
    with pytest.raises(JudgmentDataError, match="'cnn-test-aa' is not found.*mteb/summeval"):
        load("summeval", path)


# MT-Bench


def test_mtbench_collects_votes_in_one_order(tmp_path):
    rows, report = load("mtbench", write(tmp_path / "human.jsonl", MTBENCH), swap="none")
    assert list(rows) == ["81/alpha/beta/turn 1", "81/alpha/beta/turn 2", "82/alpha/mute/turn 2"]
    first = rows["81/alpha/beta/turn 1"]
    # alpha: one vote as model_a, one as model_b; beta: one as model_a; ties in two spellings.
    assert counts(first) == [2, 1, 2] and first["group"] == "81"
    assert counts(rows["81/alpha/beta/turn 2"]) == [0, 1, 0]
    content = first["prompt"][-1]["content"]
    assert "Assistant A:\nalpha says the Elbe." in content and "Assistant B:\nbeta says the Elbe." in content
    assert "longer one" not in content
    second = rows["81/alpha/beta/turn 2"]["prompt"][-1]["content"]
    for text in ("Name a river.", "alpha says the Elbe.", "And a longer one?", "beta says the Nile."):
        assert text in second
    assert "Assistant B:\n(no answer)" in rows["82/alpha/mute/turn 2"]["prompt"][-1]["content"]
    assert not report.notes


def test_mtbench_swaps_answers_and_distribution_together(tmp_path):
    path = write(tmp_path / "human.jsonl", MTBENCH)
    both, none = load("mtbench", path, swap="both")[0], load("mtbench", path, swap="none")[0]
    assert len(both) == 2 * len(none)
    for name, row in none.items():
        swapped = both[f"{name}/swapped"]
        assert both[name] == row and swapped["group"] == row["group"]
        assert counts(swapped) == [counts(row)[i] for i in (1, 0, 2)]
        assert swapped["prompt"] != row["prompt"]
    content = both["81/alpha/beta/turn 1/swapped"]["prompt"][-1]["content"]
    assert "Assistant A:\nbeta says" in content and "Assistant B:\nalpha says" in content


def test_mtbench_random_order_is_one_of_the_two(tmp_path):
    rows = [vote("alpha", "beta", "model_a", "expert_1", question=i) for i in range(100)]
    loaded, _ = load("mtbench", write(tmp_path / "human.jsonl", rows), swap="random")
    assert len(loaded) == 100
    swapped = [name for name in loaded if name.endswith("/swapped")]
    assert 30 < len(swapped) < 70
    assert all(counts(row) == ([0, 1, 0] if name in swapped else [1, 0, 0]) for name, row in loaded.items())


@pytest.mark.parametrize("rule", ["first", "random"])
def test_a_tied_pair_has_one_reference_whoever_stands_first(tmp_path, rule):
    """Or the single-point baseline is told to prefer the first, or the second, place."""
    rows = [vote("alpha", "beta", w, w, question=i) for i in range(40) for w in ("model_a", "model_b")]
    loaded, _ = load("mtbench", write(tmp_path / "human.jsonl", rows), majority_ties=rule)
    mirror = {"A": "B", "B": "A"}
    for name, row in loaded.items():
        if not name.endswith("/swapped"):
            assert answer(loaded[f"{name}/swapped"]) == mirror[answer(row)]


def test_answers_that_differ_are_not_pooled(tmp_path):
    other = vote("beta", "alpha", "model_a", "expert_9")
    other["conversation_b"][1]["content"] = "alpha says the Rhine."
    with pytest.raises(JudgmentDataError, match="shows other texts than row 1") as caught:
        load("mtbench", write(tmp_path / "human.jsonl", [MTBENCH[0], other]))
    assert caught.value.row == 2


def test_turns_in_the_spelling_of_a_table(tmp_path):
    rows = [{**MTBENCH[0], "turn": turn, "judge": str(turn)} for turn in (1, 1.0, "1")]
    loaded, _ = load("mtbench", write(tmp_path / "human.jsonl", rows), swap="none")
    assert counts(loaded["81/alpha/beta/turn 1"]) == [3, 0, 0]


def test_drawn_annotators_are_the_same_in_both_orders(tmp_path):
    votes = [vote("alpha", "beta", w, f"e{i}") for i, w in enumerate(["model_a", "model_b", "tie"] * 3)]
    for seed in range(6):
        rows, _ = load("mtbench", write(tmp_path / "human.jsonl", votes), max_annotators=4, draw_seed=seed)
        a, b, tie = counts(rows["81/alpha/beta/turn 1"])
        assert counts(rows["81/alpha/beta/turn 1/swapped"]) == [b, a, tie] and a + b + tie == 4


def test_a_second_vote_of_the_same_person_is_reported(tmp_path):
    rows = [vote("alpha", "beta", "model_a", "e"), vote("beta", "alpha", "tie", "e")]
    loaded, report = load("mtbench", write(tmp_path / "human.jsonl", rows), swap="none")
    assert counts(loaded["81/alpha/beta/turn 1"]) == [1, 0, 1]
    assert report.notes == {"votes by someone who had voted on the item before (counted)": 1}


def test_gpt4_s_verdicts_are_not_read_with_the_folder(tmp_path):
    write(tmp_path / "human.jsonl", MTBENCH[:1])
    write(tmp_path / "gpt4_pair.jsonl", MTBENCH[1:])
    assert load("mtbench", tmp_path, swap="none")[1].num_read == 1


# HelpSteer2


def test_helpsteer2_rates_five_attributes(tmp_path):
    rows, _ = load("helpsteer2", write(tmp_path / "disagreements.jsonl.gz", HELPSTEER2))
    assert len(rows) == 10
    by_attribute = {name.split("/")[1]: row for name, row in list(rows.items())[:5]}
    assert counts(by_attribute["helpfulness"]) == [0, 0, 0, 2, 1]
    assert counts(by_attribute["correctness"]) == [0, 0, 0, 0, 2]
    assert len({row["group"] for row in rows.values()}) == 2
    joke = list(rows.values())[5]["prompt"][-1]["content"]
    assert "extra_id" not in joke and "User:\nA joke, please." in joke


@pytest.mark.parametrize(
    ("name", "rows", "file", "parts"),
    [
        ("summeval", SUMMEVAL, "model_annotations.aligned.paired.jsonl", summeval.DIMENSIONS),
        ("helpsteer2", HELPSTEER2, "disagreements.jsonl", helpsteer2.ATTRIBUTES),
    ],
)
def test_the_questions_of_a_task_have_statistics_of_their_own(tmp_path, name, rows, file, parts):
    write(tmp_path / file, rows)
    done = CliRunner().invoke(main, ["data", name, "--data_path", str(tmp_path), "--stats"])
    assert done.exit_code == 0, done.output
    shown = [line.split()[:2] for line in done.output.splitlines() if line.startswith(parts)]
    assert shown == [[part, str(len(rows))] for part in sorted(parts)]


def test_helpsteer2_keeps_repeated_responses_apart(tmp_path):
    rows, _ = load("helpsteer2", write(tmp_path / "disagreements.jsonl", [HELPSTEER2[0]] * 2))
    assert len(rows) == 10 and sum("#2" in name for name in rows) == 5


def test_helpsteer2_refuses_the_means(tmp_path):
    row = {**HELPSTEER2[0], "helpfulness": 3}
    with pytest.raises(JudgmentDataError, match="disagreements.jsonl.gz; train.jsonl.gz"):
        load("helpsteer2", write(tmp_path / "train.jsonl", [row]))


def test_helpsteer2_preferences_are_a_tie_or_b(tmp_path):
    path = write(tmp_path / "preference.jsonl.gz", HELPSTEER2_PREFERENCE)
    rows, report = load("helpsteer2_pref", path, swap="none")
    first, second = rows.values()
    assert counts(first) == [1, 2, 1]  # -3 | 2, 3 | 1; -100 is no preference
    assert counts(second) == [0, 0, 3]  # the hub's Python text is read, too
    assert report.notes["votes without a preference (a strength outside -3..3, both invalid) left out"] == 1
    similar = next(iter(load("helpsteer2_pref", path, swap="none", preferences="similar")[0].values()))
    assert counts(similar) == [0, 2, 1]
    both = list(load("helpsteer2_pref", path)[0].values())
    assert len(both) == 4 and counts(both[1]) == [2, 1, 1]
    assert "Response A:\nA poem of seventeen" in both[1]["prompt"][-1]["content"]


# What goes wrong


FILES = {
    "snli": "snli_1.0_test.jsonl",
    "chaosnli": "chaosNLI_snli.jsonl",
    "summeval": "model_annotations.jsonl",
    "mtbench": "human.jsonl",
    "helpsteer2": "disagreements.jsonl",
    "helpsteer2_pref": "preference.jsonl",
}
GOOD = {
    "snli": SNLI[1],
    "chaosnli": CHAOSNLI[1],
    "summeval": SUMMEVAL[-1],
    "mtbench": MTBENCH[-1],
    "helpsteer2": HELPSTEER2[1],
    "helpsteer2_pref": HELPSTEER2_PREFERENCE[1],
}
SIXES = dict.fromkeys(("coherence", "consistency", "fluency", "relevance"), 6)


@pytest.mark.parametrize(
    ("name", "row", "field", "problem"),
    [
        ("snli", {**SNLI[0], "annotator_labels": ["maybe"] * 5}, "annotator_labels", "unknown label"),
        ("snli", {**SNLI[0], "annotator_labels": "neutral"}, "annotator_labels", "must be a list"),
        ("snli", {"pairID": "1", "sentence1": "a", "sentence2": "b"}, "annotator_labels", "missing"),
        ("snli", {**SNLI[0], "sentence2": " "}, "sentence2", "non-empty"),
        ("chaosnli", {**CHAOSNLI[0], "label_counter": {"n": -1, "e": 3}}, "label_counter", "count of 'n'"),
        ("chaosnli", {**CHAOSNLI[0], "label_counter": {"n": float("nan")}}, "label_counter", "nan"),
        ("chaosnli", {**CHAOSNLI[0], "label_counter": {}}, "votes", "no votes"),
        ("summeval", {**SUMMEVAL[0], "expert_annotations": 3}, "expert_annotations", "no coherence"),
        ("summeval", {**SUMMEVAL[0], "decoded": ["a"]}, "decoded", "non-empty text"),
        ("summeval", {**SUMMEVAL[0], "id": ["a"]}, "id", "non-empty text"),
        ("mtbench", {**MTBENCH[0], "turn": True}, "turn", "must be 1 or 2"),
        ("chaosnli", {**CHAOSNLI[0], "example": "x"}, "example", "premise"),
        ("summeval", {**SUMMEVAL[0], "expert_annotations": [{"coherence": 3}]}, "expert_annotations", "no consist"),
        ("summeval", {**SUMMEVAL[0], "expert_annotations": [SIXES]}, "coherence", "unknown label"),
        ("mtbench", {**MTBENCH[0], "winner": "both"}, "winner", "unknown label 'both'"),
        ("mtbench", {**MTBENCH[0], "turn": 3}, "turn", "must be 1 or 2"),
        ("mtbench", {**MTBENCH[0], "model_b": "alpha"}, "model_a", "same as model_b"),
        ("mtbench", {**MTBENCH[0], "conversation_b": []}, "conversation_b", "in turns"),
        ("helpsteer2", {**HELPSTEER2[0], "verbosity": [5]}, "verbosity", "unknown label"),
        (
            "helpsteer2_pref",
            {**HELPSTEER2_PREFERENCE[0], "all_preferences_unprocessed": [{"strength": "2"}]},
            "all_preferences_unprocessed",
            "not a whole number",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path, name, row, field, problem):
    path = tmp_path / FILES[name]
    path.write_text(json.dumps(GOOD[name]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(JudgmentDataError, match=problem) as caught:
        load(name, path)
    assert (caught.value.source, caught.value.row, caught.value.field) == (str(path), 2, field)


def test_a_repeated_id_is_named(tmp_path):
    path = write(tmp_path / "snli_1.0_test.jsonl", [SNLI[0], SNLI[1], SNLI[0]])
    with pytest.raises(JudgmentDataError, match="'1.jpg#0r1n' occurs twice") as caught:
        load("snli", path)
    assert (caught.value.source, caught.value.row) == (str(path), 3)


def test_an_item_without_votes_is_an_error_unless_asked_to_leave_it_out(tmp_path):
    path = write(tmp_path / "snli_1.0_test.jsonl", [SNLI[0], {**SNLI[1], "annotator_labels": [""] * 5}])
    with pytest.raises(JudgmentDataError, match="no votes.*--min_annotators 1") as caught:
        load("snli", path, min_annotators=0)
    assert caught.value.row == 2
    assert load("snli", path, min_annotators=1)[1].excluded == {"fewer than 1 annotators": 1}


def test_options_that_leave_nothing(tmp_path):
    with pytest.raises(UserInputError, match="all 4 items are left out .fewer than 9 annotators"):
        load("snli", write(tmp_path / "snli_1.0_test.jsonl", SNLI), min_annotators=9)


def test_an_empty_file(tmp_path):
    with pytest.raises(JudgmentDataError, match="holds no records"):
        load("snli", write(tmp_path / "snli_1.0_test.jsonl", []))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_annotators": -1}, "--min_annotators must be at least 0"),
        ({"max_annotators": 0}, "--max_annotators must be at least 1"),
        ({"max_items": 0}, "--max_items must be at least 1"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(UserInputError, match=match):
        get_task("snli").options(**options).check()


# The real files


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "options", "records", "votes"),
    [
        ("snli", {}, 9_990, None),
        ("snli", {"min_annotators": 4}, 10_000, [17_264, 16_312, 16_414]),
        ("chaosnli", {}, 60, None),
        ("chaosnli", {"labels": "old"}, 60, None),
        ("mtbench", {"swap": "none"}, 1_341, None),
        ("mtbench", {"swap": "both"}, 2_682, [916 + 940, 916 + 940, 2 * 601]),
    ],
)
def test_counts_of_the_real_files(name, options, records, votes):
    rows, _ = load(name, SHARED / "data" / name, **options)
    assert len(rows) == records
    if votes is not None:
        assert [sum(column) for column in zip(*map(counts, rows.values()), strict=True)] == votes
    if name == "chaosnli":
        assert {row["num_annotators"] for row in rows.values()} == {5 if options else 100}


SUMMEVAL_VOTES = {
    "expert": {
        "coherence": [235, 544, 858, 586, 765],
        "consistency": [118, 166, 136, 92, 2476],
        "fluency": [41, 100, 263, 184, 2400],
        "relevance": [56, 316, 759, 1068, 789],
    },
    "crowd": {
        "coherence": [100, 298, 1237, 2117, 1228],
        "consistency": [66, 329, 1380, 1829, 1376],
        "fluency": [88, 379, 1434, 2034, 1045],
        "relevance": [41, 299, 1013, 2228, 1399],
    },
}


@pytest.mark.shared
@pytest.mark.parametrize("annotators", ["expert", "crowd"])
def test_counts_of_the_real_summeval(annotators):
    rows, _ = load("summeval", SHARED / "data" / "summeval", annotators=annotators)
    assert len(rows) == 996 * 4 and len({row["group"] for row in rows.values()}) == 83
    for dimension, expected in SUMMEVAL_VOTES[annotators].items():
        of_dimension = [counts(row) for name, row in rows.items() if name.endswith(dimension)]
        assert [sum(column) for column in zip(*of_dimension, strict=True)] == expected


@pytest.mark.shared
def test_mtbench_annotators_match_its_readme():
    rows, _ = load("mtbench", SHARED / "data" / "mtbench", swap="none")
    n = [row["num_annotators"] for row in rows.values()]
    assert (sum(n), min(n), max(n)) == (2_457, 1, 6)
    assert (sum(m >= 2 for m in n), sum(m >= 3 for m in n)) == (718, 276)
    gpt4, _ = load("mtbench", SHARED / "data" / "mtbench" / "gpt4_pair.jsonl.gz", swap="none")
    assert sum(counts(row)[2] for row in gpt4.values()) == 164 + 283


@pytest.mark.shared
@pytest.mark.parametrize("name", ["snli", "summeval", "mtbench"])
def test_no_group_is_on_both_sides_and_row_order_does_not_matter(name, tmp_path):
    from datasets import Dataset

    task = get_task(name)
    records = task.load(SHARED / "data" / name)
    train, test = split_records(records)
    assert not set(train["group"]) & set(test["group"])
    assert 0.15 < len(test) / len(records) < 0.25
    shuffled = records.shuffle(seed=1)
    assert isinstance(shuffled, Dataset)
    assert set(split_records(shuffled)[1]["id"]) == set(test["id"])


def test_a_gzip_that_ends_early(tmp_path):
    path = tmp_path / "snli_1.0_test.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in MNLI).encode())[:-50])
    with pytest.raises(JudgmentDataError, match="ends early or is damaged"):
        load("snli", path, min_annotators=1)
