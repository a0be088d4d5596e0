"""Public data sets through task files: the forms of votes on the files as their authors publish them, with the counts
of their publications.
"""

import gzip
import json
from collections import Counter

import pytest
import yaml
from conftest import SHARED

from distjudge_trl.tasks import LoadReport, get_task


pytestmark = pytest.mark.shared

PAIR = "{{ text.context }} {{ text.response }}"
# Task files, the number of items, and the votes for each label.
FILES = {
    "lewidi2023/ArMIS_train.json.gz": (
        {"labels": [0, 1], "template": "{{ text }}", "votes": {"list": "annotations", "separator": ","}},
        657,
        [1_163, 808],
    ),
    "lewidi2023/HS-Brexit_train.json.gz": (
        {"labels": [0, 1], "template": "{{ text }}", "votes": {"list": "annotations", "separator": ","}},
        784,
        [4_099, 605],
    ),
    "lewidi2023/MD-Agreement_train.json.gz": (
        {"labels": [0, 1], "template": "{{ text }}", "votes": {"list": "annotations", "separator": ","}},
        6_592,
        [22_130, 10_830],
    ),
    "lewidi2023/ConvAbuse_train.json.gz": (
        {
            "labels": [-3, -2, -1, 0, 1],
            "answers": "letters",
            "ordinal": True,
            "template": "{{ text }} {{ legend }}",
            "votes": {"list": "annotations", "separator": ","},
            "group": 'other_info."conversation_id(s)"',
        },
        2_398,
        None,
    ),
    "lewidi2025/CSC_train.json.gz": (
        {
            "labels": [0, 1, 2, 3, 4, 5, 6],
            "ordinal": True,
            "template": PAIR,
            "group": "text.context",
            "votes": {"list": "annotations"},
        },
        5_628,
        [0, 9_871, 3_899, 3_172, 4_104, 2_768, 1_760],
    ),
    "lewidi2025/MP_train.json.gz": (
        {"labels": [0, 1], "template": "{{ text.post }} {{ text.reply }}", "votes": {"list": "annotations"}},
        12_017,
        None,
    ),
    "lewidi2025/Paraphrase_train.json.gz": (
        {
            "labels": list(range(-5, 6)),
            "answers": "letters",
            "ordinal": True,
            "template": "{{ text.Question1 }} {{ text.Question2 }} {{ legend }}",
            "votes": {"list": "annotations"},
        },
        400,
        None,
    ),
    "lewidi2025/VariErrNLI_train.json.gz": (
        {
            "labels": ["entailment", "neutral", "contradiction"],
            "template": "{{ text.context }} {{ text.statement }}",
            "votes": {"list": "annotations", "multiple": "votes"},
        },
        388,
        [446, 767, 292],
    ),
    "popquorn/offensiveness_raw_data.csv.gz": (
        {
            "labels": [1, 2, 3, 4, 5],
            "ordinal": True,
            "template": "{{ text }}",
            "id": "instance_id",
            "votes": {"rows": "offensiveness", "annotator": "user_id"},
        },
        1_500,
        [7_516, 2_190, 1_590, 1_039, 701],
    ),
    "dices/dices_350.jsonl.gz": (
        {
            "labels": ["No", "Yes", "Unsure"],
            "template": "{{ context }} {{ response }}",
            "id": "item_id",
            "votes": {"list": "Q_overall"},
        },
        350,
        [26_292, 14_064, 2_694],
    ),
    "dices/dices_990.jsonl.gz": (
        {
            "labels": ["No", "Yes", "Unsure"],
            "template": "{{ context }} {{ response }}",
            "id": "item_id",
            "votes": {"list": "Q_overall"},
        },
        990,
        [48_995, 19_357, 3_751],
    ),
    "pandalm/testset-v1.json.gz": (
        {
            "labels": [1, 2, 0],
            "template": "{% if instruction %}{{ instruction }}{% endif %} {% if input %}{{ input }}{% endif %}",
            "id": "idx",
            "votes": {"annotator_columns": ["annotator1", "annotator2", "annotator3"]},
        },
        999,
        [1_255, 1_416, 326],
    ),
    "chaosnli/chaosNLI_snli.sample.jsonl.gz": (
        {
            "labels": ["e", "n", "c"],
            "template": "{{ example.premise }} {{ example.hypothesis }}",
            "id": "uid",
            "group": "example.premise",
            "votes": {"counts": "label_counter"},
        },
        60,
        [2_102, 2_981, 917],
    ),
    "dialsummeval/human_judgment.jsonl.gz": (
        {
            "labels": [1, 2, 3, 4, 5],
            "ordinal": True,
            "template": "{{ dialogue }} {{ summary }}",
            "id": ["id", "model_id"],
            "group": "id",
            "votes": {"list": "annotations[].coherence"},
        },
        1_400,
        [18, 174, 670, 1_641, 1_697],
    ),
    "summeval/model_annotations.aligned.paired.jsonl.gz": (
        {
            "labels": [1, 2, 3, 4, 5],
            "ordinal": True,
            "template": "{{ text }} {{ decoded }}",
            "id": ["id", "model_id"],
            "group": "id",
            "votes": {"list": "expert_annotations[].consistency"},
        },
        996,
        [118, 166, 136, 92, 2_476],
    ),
}


def load(folder, keys):
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({"name": "real", **keys}, sort_keys=False, allow_unicode=True), encoding="utf-8")
    task, report = get_task(str(path)), LoadReport()
    return list(task.load(None, report=report)), report


def votes_in(name, labels):
    """The votes of a file of LeWiDi, counted without our readers."""
    given = Counter()
    for item in json.loads(gzip.decompress((SHARED / "data" / name).read_bytes())).values():
        annotations = item["annotations"]
        texts = annotations.values() if isinstance(annotations, dict) else [annotations]
        given.update(part for text in texts for part in text.split(","))
    return [given[str(label)] for label in labels]


def votes_of(rows, labels):
    return [round(sum(row["label_distribution"][k] * row["num_annotators"] for row in rows)) for k in range(labels)]


@pytest.mark.parametrize("name", FILES)
def test_the_counts_of_the_publication(tmp_path, name):
    keys, number, votes = FILES[name]
    rows, report = load(tmp_path, {**keys, "source": str(SHARED / "data" / name)})
    assert len(rows) == number == report.num_records and not report.excluded
    if votes is not None:
        assert votes_of(rows, len(keys["labels"])) == votes
    if name.startswith("lewidi"):
        assert votes_of(rows, len(keys["labels"])) == votes_in(name, keys["labels"])


def test_two_parts_of_lewidi_in_one_folder(tmp_path):
    keys, *_ = FILES["lewidi2025/CSC_train.json.gz"]
    rows, _ = load(
        tmp_path, {**keys, "source": {"path": str(SHARED / "data/lewidi2025"), "files": ["CSC_[td]*.json"]}}
    )
    assert len(rows) == 5_628 + 704


@pytest.mark.parametrize("name", ["MD-Agreement_train", "HS-Brexit_train"])
def test_shares_are_the_same_votes(tmp_path, name):
    """LeWiDi 2023 also has the shares of the labels, rounded to two digits."""
    keys, number, votes = FILES[f"lewidi2023/{name}.json.gz"]
    shares = {"shares": "soft_label", "num_annotators": "number of annotations"}
    rows, _ = load(tmp_path, {**keys, "votes": shares, "source": str(SHARED / f"data/lewidi2023/{name}.json.gz")})
    assert len(rows) == number and votes_of(rows, 2) == votes


def test_an_annotator_s_labels_share_one_vote(tmp_path):
    keys, number, _ = FILES["lewidi2025/VariErrNLI_train.json.gz"]
    votes = {"list": "annotations", "multiple": "shares"}
    source = str(SHARED / "data/lewidi2025/VariErrNLI_train.json.gz")
    rows, _ = load(tmp_path, {**keys, "votes": votes, "source": source})
    assert len(rows) == number and max(row["num_annotators"] for row in rows) == 4
