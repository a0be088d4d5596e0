"""The table of averaged judges, computed again from the predictions."""

import numpy as np
import pytest
from scipy.special import rel_entr
from small_study import make_study

from distjudge_trl.study.groups import change_text, group_results
from distjudge_trl.study.tables import all_tables


CONTENT = {
    "data": {"first": {"task": "snli", "title": "the first one"}, "second": {"task": "vader"}},
    "runs": {
        "main": {"data": ["first"], "methods": ["raw", "kl-only", "distribution"], "seeds": [0, 1, 2]},
        "one": {"data": ["second"], "methods": ["kl-only"]},
    },
}


SKILLS = {"distribution": 0.4, "kl-only": 0.6}


def changes_of(run):
    # The third judge of a method was not calibrated.
    return {"calibrate": not (run.method == "distribution" and run.seed == 2), "skill": SKILLS.get(run.method, 0.2)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), CONTENT, changes_of)


def test_the_mean_of_all_seeds_that_were_scaled(study):
    plan, results = study
    table = all_tables(plan, results, ["averages"])["averages"]
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    # Neither the untrained model, which has one seed, nor a method with one.
    assert [(row["data"], row["method"], row["judges"]) for row in rows] == [
        ("the first one", "kl-only", "3"),
        ("the first one", "distribution", "2"),
    ]
    judges = [r for r in results if r.about["data"] == "first" and r.about["method"] == "distribution"]
    judges = [judge for judge in judges if judge.about["seed"] < 2]
    p, floor = judges[0].run.p, judges[0].results["metrics"]["noise_floor"]
    answers = np.exp([judge.rows["temperature"].log_q for judge in judges])
    each, mean = rel_entr(p, answers).sum(-1) - floor, rel_entr(p, answers.mean(0)).sum(-1) - floor
    one = each.mean(-1)
    assert rows[1]["excess KL of one"] == f"{one.mean():.3f} ± {one.std(ddof=1):.3f}"
    assert rows[1]["of the mean"] == f"{mean.mean():.3f}" and mean.mean() < one.mean()
    groups = list(judges[0].run.items["group"][:])
    assert rows[1]["change (95 %)"] == change_text(each.mean(0), mean, groups)
    name = "mean against one distribution (95 %)"
    assert rows[1][name] == rows[1]["change (95 %)"] != "-"
    kl_only = group_results(results)["first"]["kl-only"]
    answers_of_kl = np.exp([judge.rows["temperature"].log_q for judge in kl_only.results])
    of_kl = rel_entr(p, answers_of_kl.mean(0)).sum(-1) - floor
    assert rows[0][name] == change_text(each.mean(0), of_kl, groups) + " (2 seeds)"
    right = p.argmax(-1) == answers.argmax(-1), p.argmax(-1) == answers.mean(0).argmax(-1)
    hits = 100 * right[0].mean(-1)
    assert table.rows[1][-2:] == [f"{hits.mean():.1f} ± {hits.std(ddof=1):.1f}", f"{100 * right[1].mean():.1f}"]


def test_without_several_seeds_there_is_no_table(study):
    plan, results = study
    assert not all_tables(plan, [result for result in results if result.about["seed"] == 0], ["averages"])


def test_a_change_has_the_interval_of_the_paired_items(study):
    group = group_results(study[1])["first"]["kl-only"]
    before = group.item_kl()
    # Each item's figure is halved: no resample shows anything else.
    assert change_text(before, before / 2, group.groups) == "-50 % [-50, -50]"
    assert change_text(before - before.mean(), before, group.groups) == "-"
