"""Trained and linear judges, averaged: the figures are computed again from the answers."""

import numpy as np
import pytest
from scipy.special import rel_entr
from small_study import make_study

from distjudge_trl.errors import UserInputError
from distjudge_trl.study.groups import difference_text, group_results
from distjudge_trl.study.linear_judges import Measured, Outcome, Point
from distjudge_trl.study.linear_mixtures import mixtures_table, read_answers, write_answers


CONTENT = {
    "data": {"first": {"task": "snli"}, "second": {"task": "vader"}},
    "runs": {
        "main": {"data": ["first", "second"], "methods": ["no-adversary"], "seeds": [0, 1, 2]},
        "paper": {"data": ["first"], "methods": ["distribution"], "seeds": [1, 2]},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return group_results(make_study(tmp_path_factory.mktemp("study"), CONTENT)[1])


def make_answers(group, path, seeds=(2, 1)):
    """Linear judges that are right but for the seed's noise, their items in another order than the study's."""
    run = group.results[0].run
    ids, rng = np.array(run.items["id"][:]), np.random.default_rng(0)
    order = rng.permutation(len(ids))
    judges = []
    for seed in seeds:
        q = run.p + rng.random(run.p.shape)
        log_q = np.log(q / q.sum(-1, keepdims=True))[order]
        for method in ("kl-only", "no-adversary"):
            outcome = Outcome(method, Point(9, 0, 0.8, 0.25), seed, 0.1, 0.1, 0.5, 0.5, 9)
            judges.append(Measured(outcome, np.zeros((2, len(ids))), log_q if method == "no-adversary" else log_q * 0))
    write_answers(path, ids[order].tolist(), judges)
    return read_answers(path)


def test_the_mean_of_both_is_scored_seed_by_seed(study, tmp_path):
    group = study["first"]["no-adversary"]
    answers = make_answers(group, tmp_path / "first.parquet")
    table = mixtures_table({"first": ("the first one", answers), "third": ("unknown", answers)}, study)
    (row,) = table.rows
    judges = [result for result in group.results if result.about["seed"] in (1, 2)]
    p, floor = judges[0].run.p, judges[0].results["metrics"]["noise_floor"]
    trained = np.exp([judge.rows["temperature"].log_q for judge in judges])
    linear = np.array([[answers[seed][name] for name in judges[0].run.items["id"][:]] for seed in (1, 2)])
    kls = [rel_entr(p, q).sum(-1) for q in (trained, linear, (trained + linear) / 2)]
    cells = [f"{kl.mean() - floor:.3f} ± {kl.mean(-1).std(ddof=1):.3f}" for kl in kls]
    assert row[:5] == ["the first one", "2", *cells]
    assert row[5] == difference_text(kls[2], kls[0], group.groups)
    papers = study["first"]["distribution"].seed_item_kl("temperature")
    assert row[6] == difference_text(kls[2], papers, group.groups)
    hits = 100 * (p.argmax(-1) == (trained + linear).argmax(-1)).mean(-1)
    assert row[8] == f"{hits.mean():.1f} ± {hits.std(ddof=1):.1f}"


def test_without_the_paper_s_loss_or_the_same_items(study, tmp_path):
    answers = make_answers(study["second"]["no-adversary"], tmp_path / "second.parquet", seeds=(0,))
    (row,) = mixtures_table({"second": ("second", answers)}, study).rows
    assert row[1] == "1" and row[6] == "-"
    answers[0].popitem()
    assert mixtures_table({"second": ("second", answers)}, study) is None, "other test items"
    assert mixtures_table({"second": ("second", {7: answers[0]})}, study) is None, "no seed in common"


def test_other_files_are_named(tmp_path):
    path = tmp_path / "first.parquet"
    path.write_text("nothing")
    with pytest.raises(UserInputError, match=r"first\.parquet: was not written by .* --out .*first\.json"):
        read_answers(path)
