"""The shared tasks on learning with disagreement: faithful records from files of the official form."""

import json

import pytest
from conftest import SHARED
from lewidi_examples import FILES, ITEMS, irony, pair, relation, sarcasm, turns, tweet, without_labels, write_items

from distjudge_trl.data import SplitPlan
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.tasks import LoadReport, get_task
from distjudge_trl.tasks.lewidi import SHARED_TASKS, key_of


def load(name, path, **options):
    """Records by id, and the report."""
    task, report = get_task(name), LoadReport()
    records = task.load(path, task.options(**options), report=report)
    return {row["id"]: row for row in records}, report


def counts(row):
    return [round(share * row["num_annotators"]) for share in row["label_distribution"]]


def question(row):
    return row["prompt"][-1]["content"]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_gives_all_parts_that_are_in_it_and_only_them(name, tmp_path):
    item = ITEMS[name]
    write_items(tmp_path / f"{FILES[name]}_train.json", item)
    write_items(tmp_path / f"{FILES[name]}_dev.json.gz", item)
    (tmp_path / f"{FILES[name]}_annotators_meta.json").write_text('{"Ann1": {"Age": "26",}}')  # as published
    (tmp_path / f"{FILES[name]}_test_soft.tsv").write_text("1\t[1, 0]\n")
    records = get_task(name).load(tmp_path)
    per_item = len(SHARED_TASKS[name].parts) or 1
    assert sorted(records["split"]) == ["train"] * per_item + ["validation"] * per_item
    assert len(set(records["id"])) == 2 * per_item  # keys begin anew in each file
    train, validation, test = SplitPlan("official").partition(records, hold_out=False)
    assert len(train) == len(test) == per_item and validation is None


def test_votes_are_counted_and_the_organisers_decide_ties(tmp_path):
    items = {
        "1": tweet("a", [0, 0, 1], 0, "dev"),
        "2": tweet("b", [0, 1], 1, "dev"),
        "3": tweet("c", [0, 1], 0, "dev"),
    }
    path = write_items(tmp_path / "HS-Brexit_dev.json", items)
    rows, report = load("hs_brexit", path)
    assert [counts(row) for row in rows.values()] == [[2, 1], [1, 1], [1, 1]]
    assert list(rows) == ["dev/1", "dev/2", "dev/3"]
    assert [row["completion"][0]["content"] for row in rows.values()] == ["no", "yes", "no"]
    assert not report.notes
    # Whoever asks for another rule gets it.
    assert list(load("hs_brexit", path, majority_ties="exclude")[0]) == ["dev/1"]


def test_convabuse_reads_json_in_a_text_and_severities(tmp_path):
    items = {"1": turns([-3, -2, -1, 0, 1, 1], 0, "train", prev_user="", user="be quiet")}
    rows, report = load("convabuse", write_items(tmp_path / "ConvAbuse_train.json", items))
    (row,) = rows.values()
    assert counts(row) == [3, 3] and not report.notes
    assert question(row).count("Bot:") == 1 and "_" not in question(row)  # turns that are not there are not shown
    assert "Last message of the user: be quiet" in question(row)


def test_csc_s_training_file_says_dev_and_its_name_counts(tmp_path):
    train = {
        "1": sarcasm("Steve sings.", "wow", ["1", "2", "2", "0"], "dev"),
        "2": sarcasm("Steve sings.", "no", ["6"]),
    }
    write_items(tmp_path / "CSC_train.json", train)
    write_items(tmp_path / "CSC_dev.json", {"3": sarcasm("Steve sings.", "wow", ["1", "1"], "dev")})
    rows, report = load("csc", tmp_path)
    assert {name: row["split"] for name, row in rows.items()} == {
        "train/1": "train",
        "train/2": "train",
        "dev/3": "validation",
    }
    assert report.notes["items of CSC_train.json whose `split` says 'dev': the file's name counts"] == 2
    # The bins are 0 to 6. The official shares leave a 0 out, which the report says; the vote counts.
    assert report.notes["items whose soft_label differs from their annotations, which are used"] == 1
    assert counts(rows["train/1"]) == [1, 1, 2, 0, 0, 0, 0]
    assert {row["group"] for row in rows.values()} == {"Steve sings."}


def test_a_soft_label_that_contradicts_the_annotations_is_reported(tmp_path):
    wrong = {**irony("x", ["1", "0"], "dev"), "soft_label": {"0": 0.9, "1": 0.1}}
    right = irony("y", ["1", "0"], "dev", keys=("0", "1"))
    path = write_items(tmp_path / "MP_dev.json", {"1": wrong, "2": right, "3": irony("z", ["1"], "dev")})
    rows, report = load("mp", path)
    assert report.notes["items whose soft_label differs from their annotations, which are used"] == 1
    assert counts(rows["dev/1"]) == [1, 1] and "It is in Dutch." in question(rows["dev/1"])


def test_par_s_grades_are_letters_in_order(tmp_path):
    path = write_items(tmp_path / "Paraphrase_dev.json", {"8": pair("Why?", ["-5", "-4", "5", "0"])})
    rows, _ = load("par", path)
    assert counts(rows["dev/8"]) == [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert "A: -5\nB: -4\n" in question(rows["dev/8"]) and "\nF: 0\n" in question(rows["dev/8"])


def test_ven_asks_for_each_label_and_counts_each_person_once(tmp_path):
    labels = ["neutral", "entailment,neutral", "contradiction,neutral"]
    path = write_items(tmp_path / "VariErrNLI_dev.json", {"5": relation("It is open.", labels, "dev")})
    rows, report = load("ven", path)
    assert {name: counts(row) for name, row in rows.items()} == {
        "dev/5/contradiction": [2, 1],
        "dev/5/entailment": [2, 1],
        "dev/5/neutral": [0, 3],
    }
    assert not report.notes and len({question(row) for row in rows.values()}) == 3
    items = list(get_task("ven").inputs(path, get_task("ven").options(), report=LoadReport()))
    assert [item.part for item in items] == list(SHARED_TASKS["ven"].parts)
    assert {key_of(item) for item in items} == {"5"}


@pytest.mark.parametrize("name", ["par", "ven"])
def test_explanations_are_shown_on_request_alone_and_the_report_warns(name, tmp_path):
    path = write_items(tmp_path / f"{FILES[name]}_train.json", ITEMS[name])
    written = ITEMS[name][next(iter(ITEMS[name]))]["other_info"]["explanations"][0]
    silent, report = load(name, path)
    assert not any(written in question(row) for row in silent.values()) and not report.notes
    told, report = load(name, path, explanations=True)
    assert all(written in question(row) for row in told.values())
    assert report.notes["entries shown with their annotators' explanations, which tell part of the answer"] == 1


@pytest.mark.parametrize("name", FILES)
def test_inputs_without_labels_are_read_for_a_submission_and_refused_for_training(name, tmp_path):
    items = {key: without_labels(item) for key, item in ITEMS[name].items()}
    path = write_items(tmp_path / f"{FILES[name]}_test.json", items)
    task = get_task(name)
    found = list(task.inputs(path, task.options(), report=LoadReport()))
    assert {key_of(item) for item in found} == set(items) and not any(sum(item.counts) for item in found)
    with pytest.raises(JudgmentDataError, match="no votes"):
        task.load(path)


def test_a_file_of_any_name_has_the_part_that_its_items_name(tmp_path):
    rows, _ = load("md_agreement", write_items(tmp_path / "mine.json", {"4": tweet("a", [1], 1, "test")}))
    assert rows["test/4"]["split"] == "test"
    # "tested" is no part.
    rows, _ = load("md_agreement", write_items(tmp_path / "tested.json", {"4": tweet("a", [1], 1, "dev")}))
    assert list(rows) == ["dev/4"]


@pytest.mark.parametrize(
    ("name", "item", "field", "message"),
    [
        ("md_agreement", {"text": {"a": "b"}}, "text", "must be a text"),
        ("md_agreement", {"annotations": "0,2"}, "annotations", "unknown label '2'"),
        ("md_agreement", {"annotations": 7}, "annotations", "must hold the annotators' labels"),
        ("md_agreement", {"hard_label": "maybe"}, "hard_label", "must be 0 or 1"),
        ("md_agreement", {"soft_label": {"no": 1}}, "soft_label", "must map labels to shares"),
        ("convabuse", {"text": "no JSON"}, "text", "must hold the turns"),
        ("convabuse", {"annotations": "-4"}, "annotations", "unknown label '-4'"),
        ("csc", {"text": {"context": "x"}}, "text", "must be an object with the text `response`"),
        ("csc", {"annotations": {"Ann1": "7"}}, "annotations", "unknown label '7'"),
        ("ven", {"annotations": {"Ann1": "maybe,neutral"}}, "annotations", "unknown label 'maybe'"),
        ("ven", {"annotations": "neutral"}, "annotations", "must be an object of annotators"),
    ],
)
def test_bad_items_are_named(name, item, field, message, tmp_path):
    good = next(iter(ITEMS[name].values()))
    path = write_items(tmp_path / f"{FILES[name]}_train.json", {"1": good, "2": {**good, **item}})
    with pytest.raises(JudgmentDataError, match=message) as error:
        load(name, path)
    assert f"{FILES[name]}_train.json, row 2, field `{field}`" in str(error.value)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserInputError, match="get MD-Agreement's from the organisers"):
        load("md_agreement", None)
    other = write_items(tmp_path / "HS-Brexit_dev.json", ITEMS["hs_brexit"])
    with pytest.raises(UserInputError, match="named like a file of the task hs_brexit, not of md_agreement"):
        load("md_agreement", other)
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(list(ITEMS["md_agreement"].values())))
    with pytest.raises(JudgmentDataError, match="not an object of items by their ids"):
        load("md_agreement", rows)
    odd = write_items(tmp_path / "odd.json", {"1": tweet("a", [1], 1, "exam")})
    with pytest.raises(JudgmentDataError, match="must be one of train, dev, test, got 'exam'"):
        load("md_agreement", odd)


def test_no_task_s_prompt_can_be_used_on_another_one(tmp_path):
    """A judge keeps its own prompt where an item has the fields: each would ask another task's question."""
    fields = {}
    for name in FILES:
        path = write_items(tmp_path / f"{FILES[name]}_train.json", ITEMS[name])
        task = get_task(name)
        fields[name] = set(next(task.inputs(path, task.options(), report=LoadReport())).fields)
    for name in FILES:
        template = get_task(name).template
        needed = template.fields - template.optional_fields
        assert [other for other in FILES if needed <= fields[other]] == [name]


# Sizes, votes and leaks of the official files.
REAL = {
    "md_agreement": (2023, 6592, 1104, [25589, 12891]),
    "convabuse": (2023, 2398, 812, [8031, 1527]),
    "hs_brexit": (2023, 784, 168, [4975, 737]),
    "armis": (2023, 657, 141, [1418, 976]),
    "csc": (2025, 5628, 704, [0, 11068, 4396, 3585, 4610, 3142, 1959]),
    "mp": (2025, 12017, 3005, [51322, 24327]),
    "par": (2025, 400, 50, [205, 195, 158, 83, 62, 68, 46, 78, 157, 331, 417]),
    "ven": (2025, 3 * 388, 3 * 50, [3180, 1692]),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_sizes_and_votes_of_the_real_files(name):
    year, num_train, num_dev, votes = REAL[name]
    rows, report = load(name, SHARED / "data" / f"lewidi{year}")
    splits = [row["split"] for row in rows.values()]
    assert (splits.count("train"), splits.count("validation")) == (num_train, num_dev)
    assert [sum(column) for column in zip(*map(counts, rows.values()), strict=True)] == votes
    assert not any("soft_label" in note for note in report.notes)
    if name == "csc":
        groups = [{row["group"] for row in rows.values() if row["split"] == part} for part in ("train", "validation")]
        assert groups[0] == groups[1] and len(groups[0]) == 71
