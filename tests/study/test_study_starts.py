"""The table of judges that start from another judge, computed again from the predictions."""

import re

import numpy as np
import pytest
from small_study import make_study

from distjudge_trl.study.groups import group_results, relative_text, same_seeds
from distjudge_trl.study.tables import all_tables


CONTENT = {
    "data": {
        "large": {"task": "mnli", "title": "the large one"},
        "small": {"task": "snli", "title": "the small one"},
        "further": {"task": "snli", "start_from": "large/kl-only"},
        "elsewhere": {"task": "mnli", "path": "x", "start_from": "large/kl-only"},
    },
    "runs": {
        "main": {"data": ["large", "small"], "methods": ["kl-only", "distribution"], "seeds": [0, 1, 2]},
        "more": {"data": ["further", "elsewhere"], "methods": ["kl-only"], "seeds": [0, 1]},
    },
}


def changes_of(run):
    # made_runs makes judges of the method "no-adversary" worse than others.
    return {"method": "no-adversary" if run.data == "small" else "distribution"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), CONTENT, changes_of)


def test_a_judge_that_starts_from_another_beside_the_papers(study):
    plan, results = study
    table = all_tables(plan, results, ["starts"])["starts"]
    # Of the other's data nothing starts from the plan's model: they have other files.
    assert "Without a comparison: elsewhere" in table.notes[-1]
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["A"] for row in rows] == ["distribution", "kl-only"]
    found = rows[0]
    assert found["data of A"] == "the small one" and found["B: from a related judge"] == "kl-only from the large one"
    assert found["seeds"] == "2"

    def excess(data, method):
        judges = [r for r in results if r.about["data"] == data and r.about["method"] == method]
        judges = [judge for judge in judges if judge.about["seed"] < 2]  # which both have
        return np.array([r.rows["temperature"].metrics["excess_kl"]["value"] for r in judges])

    paper, own = excess("small", "distribution"), excess("further", "kl-only")
    assert found["excess KL of A"] == f"{paper.mean():.3f} ± {paper.std(ddof=1):.3f}"
    assert found["of B"] == f"{own.mean():.3f} ± {own.std(ddof=1):.3f}"
    groups = group_results(results)
    pair = same_seeds(groups["small"]["distribution"], groups["further"]["kl-only"], "temperature")
    assert found["B relative to A (95 %)"] == relative_text(*pair, "temperature")
    assert found["B minus A (95 %)"].startswith(f"{(own - paper).mean():+.3f} ± ")


def test_without_such_judges_there_is_no_table(study):
    plan, results = study
    plain = [result for result in results if result.about["data"] in ("large", "small")]
    assert not all_tables(plan, plain, ["starts"])


def test_judges_are_compared_on_the_same_test_items(tmp_path):
    def other_items(run):
        return {**changes_of(run), **({"count": 30} if run.data == "further" else {})}

    plan, results = make_study(tmp_path, CONTENT, other_items)
    assert not all_tables(plan, results, ["starts"])


def test_a_change_in_per_cent_and_that_of_next_to_nothing(study):
    groups = group_results(study[1])
    group, other = groups["small"]["distribution"], groups["further"]["kl-only"]
    metrics = group.results[0].results["metrics"]
    own, mean = metrics["noise_floor"], float(group.item_kl().mean())
    try:
        for excess, text in ((0.1, "+0 % [+0, +0]"), (0.004, "-"), (-0.01, "-")):
            metrics["noise_floor"] = mean - excess
            assert relative_text(group, group, "plain") == text
        metrics["noise_floor"] = None
        assert relative_text(group, group, "plain") == "-"
        metrics["noise_floor"] = mean - 0.1
        change = 10 * (other.item_kl().mean() - mean)
        text, low, high = re.fullmatch(r"(.*) % \[(.*), (.*)\]", relative_text(group, other, "plain")).groups()
        assert text == f"{100 * change:+.0f}" and float(low) < 100 * change < float(high)
    finally:
        metrics["noise_floor"] = own


def test_a_subset_is_not_compared_with_the_whole(tmp_path):
    content = {**CONTENT, "data": {**CONTENT["data"], "small": {"task": "snli", "options": {"max_train_samples": 10}}}}
    plan, results = make_study(tmp_path, content, changes_of)
    assert not all_tables(plan, results, ["starts"])


def test_a_control_stands_beside_them_whatever_its_options_and_start(tmp_path):
    further = {**CONTENT["data"]["further"], "compare_with": ["longer", "unrelated"]}
    more = {
        "longer": {"task": "snli", "options": {"num_train_epochs": 9}},
        "unrelated": {"task": "snli", "start_from": "elsewhere_large/kl-only"},
        "elsewhere_large": {"task": "vader"},
    }
    runs = {"controls": {"data": list(more), "methods": ["kl-only"]}}
    content = {"data": {**CONTENT["data"], **more, "further": further}, "runs": {**CONTENT["runs"], **runs}}
    plan, results = make_study(tmp_path, content, changes_of)
    (table,) = all_tables(plan, results, ["starts"]).values()
    rows = [row[:4] for row in table.rows if row[0] != "the small one"]
    beside = "kl-only from the large one"
    assert rows == [
        ["longer", "kl-only", beside, "1"],
        ["unrelated", "kl-only from elsewhere_large", beside, "1"],
    ]
