"""Trained and linear judges, averaged: the figures are computed again from the answers."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import rel_entr
from small_study import make_study

from distjudge_trl.errors import UserInputError
from distjudge_trl.study.groups import DAGGER, difference_text, group_results
from distjudge_trl.study.linear_answers import read_answers, write_answers
from distjudge_trl.study.linear_judges import Measured, Outcome, Point
from distjudge_trl.study.linear_mixtures import mixtures_table
from distjudge_trl.study.linear_study import LinearStudy


CONTENT = {
    "data": {"first": {"task": "snli"}, "second": {"task": "vader"}},
    "runs": {
        "main": {"data": ["first", "second"], "methods": ["no-adversary"], "seeds": [0, 1, 2]},
        "paper": {"data": ["first"], "methods": ["distribution"], "seeds": [1, 3]},
    },
}
POINT = Point(9, 0, 0.8, 0.25)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return group_results(make_study(tmp_path_factory.mktemp("study"), CONTENT)[1])


def make_linear(group, folder, seeds=(2, 1), shift=0.0):
    """Linear judges that are right but for the seed's noise, their items in another order than the study's; `shift`
    is what their file says too much of their KL.
    """
    run = group.results[0].run
    ids, rng = np.array(run.items["id"][:]), np.random.default_rng(0)
    order = rng.permutation(len(ids))
    judges = []
    for seed in seeds:
        q = run.p + rng.random(run.p.shape)
        log_q = np.log(q / q.sum(-1, keepdims=True))
        kl = rel_entr(run.p, np.exp(log_q)).sum(-1).mean()
        for method in ("kl-only", "no-adversary"):
            outcome = Outcome(method, POINT, seed, kl, kl + shift, 0.5, 0.5, 9)
            own = log_q[order] if method == "no-adversary" else np.zeros_like(log_q)
            judges.append(Measured(outcome, np.zeros((2, len(ids))), own))
    path = folder / f"both/{group.data}.parquet"
    path.parent.mkdir(exist_ok=True)
    write_answers(path, ids[order].tolist(), judges)
    metrics = group.results[0].results["metrics"]
    about = {"test_items": metrics["num_items"], "noise_floor": metrics["noise_floor"]}
    study = LinearStudy("A title", "both", "2 layers of tiny", about, [judge.outcome for judge in judges], [])
    return {f"both/{group.data}": study}


def test_the_mean_of_both_is_scored_seed_by_seed(data, tmp_path):
    group = data["first"]["no-adversary"]
    table = mixtures_table(make_linear(group, tmp_path), tmp_path, data)
    answers = read_answers(tmp_path / "both/first.parquet")
    (row,) = table.rows
    judges = [result for result in group.results if result.about["seed"] in (1, 2)]
    p, floor = judges[0].run.p, judges[0].results["metrics"]["noise_floor"]
    trained = np.exp([judge.rows["temperature"].log_q for judge in judges])
    linear = np.array([[answers[seed][name] for name in judges[0].run.items["id"][:]] for seed in (1, 2)])
    kls = [rel_entr(p, q).sum(-1) for q in (trained, linear, (trained + linear) / 2)]
    cells = [f"{kl.mean() - floor:.3f} ± {kl.mean(-1).std(ddof=1):.3f}" for kl in kls]
    assert row[:5] == ["A title", "2", *cells]
    assert row[5] == difference_text(kls[2], kls[0], group.groups)
    papers = data["first"]["distribution"].seed_item_kl("temperature")
    # Of seed 1 alone, which both have.
    assert row[6] == difference_text(kls[2][:1], papers[:1], group.groups) + " (1 seed)"
    for cell, q in zip(row[7:], (trained, trained + linear), strict=True):
        hits = 100 * (p.argmax(-1) == q.argmax(-1)).mean(-1)
        assert cell == f"{hits.mean():.1f} ± {hits.std(ddof=1):.1f}"


def test_judges_of_other_precision_are_marked(data, tmp_path):
    group = data["first"]["distribution"]
    results = [replace(result, about={**result.about, "machine": {"dtype": "bfloat16"}}) for result in group.results]
    others = {**data, "first": {**data["first"], "distribution": group._replace(results=tuple(results))}}
    table = mixtures_table(make_linear(data["first"]["no-adversary"], tmp_path), tmp_path, others)
    assert table.rows[0][6].endswith(f" {DAGGER}") and DAGGER in table.notes[-1]


def test_without_the_paper_s_loss_or_the_same_items(data, tmp_path):
    group = data["second"]["no-adversary"]
    studies = make_linear(group, tmp_path, seeds=(0,))
    (row,) = mixtures_table(studies, tmp_path, data).rows
    assert row[1] == "1" and row[6] == "-"
    study = studies["both/second"]
    others = {"both/second": study._replace(about={**study.about, "test_items": 41})}
    assert mixtures_table(others, tmp_path, data) is None, "other test items"
    assert mixtures_table(studies, tmp_path, {"first": data["first"]}) is None, "no trained judges"
    assert mixtures_table(make_linear(group, tmp_path, seeds=(7,)), tmp_path, data) is None, "no seed in common"


def test_missing_answers_are_named(data, tmp_path):
    studies = make_linear(data["first"]["no-adversary"], tmp_path)
    (tmp_path / "both/first.parquet").unlink()
    with pytest.raises(UserInputError, match=r"first\.parquet: was not written by .* --out .*first\.json"):
        mixtures_table(studies, tmp_path, data)


def test_answers_of_other_seeds_are_named(data, tmp_path):
    studies = make_linear(data["first"]["no-adversary"], tmp_path)
    study = studies["both/first"]
    fewer = study._replace(outcomes=[outcome for outcome in study.outcomes if outcome.seed == 2])
    with pytest.raises(UserInputError, match="these are not the answers of the judges"):
        mixtures_table({"both/first": fewer}, tmp_path, data)


def test_answers_of_other_judges_are_named(data, tmp_path):
    group = data["first"]["no-adversary"]
    studies = make_linear(group, tmp_path, shift=0.01)
    with pytest.raises(UserInputError, match=r"first\.parquet: these are not the answers of the judges in"):
        mixtures_table(studies, tmp_path, data)
    with pytest.raises(UserInputError, match=r"first\.parquet: its figures, first\.json, are not there"):
        mixtures_table({}, tmp_path, data)


@pytest.mark.parametrize("damage", ["bytes", "text", "a missing item", "one twice", "labels"])
def test_damaged_files_are_named(data, tmp_path, damage):
    make_linear(data["first"]["no-adversary"], tmp_path)
    path = tmp_path / "both/first.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    if damage == "bytes":
        path.write_text("nothing")
    elif damage == "text":
        pq.write_table(pa.table({"seed": ["one"], "id": ["a"], "judge_distribution": [[1.0]]}), path)
    else:
        if damage == "labels":
            rows[0]["judge_distribution"] = [1.0]
        changed = {"a missing item": rows[:-1], "one twice": [*rows, rows[-1]], "labels": rows}[damage]
        pq.write_table(pa.Table.from_pylist(changed, table.schema), path)
    with pytest.raises(UserInputError, match=r"first\.parquet: was not written by .* --out .*first\.json"):
        read_answers(path)
