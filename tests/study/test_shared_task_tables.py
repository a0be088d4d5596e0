"""Tables beside the systems of LeWiDi: the figures are computed again from the predictions."""

import numpy as np
import pytest
from small_study import make_study

from distjudge_trl.study.tables import all_tables


CONTENT = {
    "data": {
        "hs_brexit": {"task": "hs_brexit", "title": "HS-Brexit"},
        "tuned": {"task": "hs_brexit", "title": "HS-Brexit, tuned"},
        "other": {"task": "snli"},
    },
    "runs": {
        "main": {"data": ["hs_brexit", "other"], "methods": ["no-adversary", "kl-only"]},
        "more": {"data": ["tuned"], "methods": ["kl-only"], "seeds": [0, 1]},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), CONTENT)


def cross_entropy(rows):
    return -(np.array([run.p for run, _ in rows]) * np.log([np.exp(log_q) for _, log_q in rows])).sum(-1)


def scaled(results):
    return [(result.run, result.rows["temperature"].log_q) for result in results]


def test_all_methods_beside_the_published_system(study):
    plan, results = study
    table = all_tables(plan, results, ["lewidi-dev"])["lewidi-dev"]
    assert table.header == ["judge", "HS-Brexit"]  # neither other tasks nor data sets of another name
    rows = dict(table.rows)
    plain = [result for result in results if result.about["data"] == "hs_brexit"]
    (judge,) = [result for result in plain if result.about["method"] == "no-adversary"]
    p = judge.run.p
    floor = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1).mean()
    constant = -(p * judge.rows["training-prior"].log_q).sum(-1).mean()
    found = cross_entropy(scaled([judge])).mean()
    assert rows["no-adversary"] == f"{found:.3f} ({100 * (constant - found) / (constant - floor):.0f} %)"
    assert rows["floor: the targets' own entropy"] == f"{floor:.3f} (100 %)"
    assert rows["constant: mean of train"] == f"{constant:.3f} (0 %)"
    assert rows["CICL_DMS (published, multilingual DistilBERT)"] == "0.322"


def test_tuned_judges_in_detail(study):
    plan, results = study
    table = all_tables(plan, results, ["lewidi-tuned"])["lewidi-tuned"]
    (row,) = table.rows
    found = dict(zip(table.header, row, strict=True))
    judges = [result for result in results if result.about["data"] == "tuned"]
    each = cross_entropy(scaled(judges)).mean(-1)
    p = judges[0].run.p
    floor = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1).mean()
    together = np.mean([np.exp(log_q) for _, log_q in scaled(judges)], axis=0)
    assert found["data"] == "HS-Brexit, tuned" and found["judge"] == "kl-only (2 seeds)"
    assert found["+ temperature"].startswith(f"{each.mean():.3f} ± {each.std(ddof=1):.3f} (")
    assert found["above the floor (95 %)"].startswith(f"{each.mean() - floor:.3f} [")
    averaged = float(found["answers of all seeds, averaged"])
    assert averaged == pytest.approx(-(p * np.log(together)).sum(-1).mean(), abs=6e-4) and averaged < each.mean()


def test_without_such_data_there_are_no_such_tables(study):
    plan, results = study
    others = [result for result in results if result.about["data"] == "other"]
    assert not all_tables(plan, others, ["lewidi-dev", "lewidi-tuned"])


@pytest.mark.parametrize("options", [{"max_eval_samples": 20}, {"split": "group"}, {"max_items": 100}])
def test_published_figures_stand_beside_the_whole_official_part_alone(tmp_path, options):
    plan, results = make_study(tmp_path, {**CONTENT, "options": options})
    assert not all_tables(plan, results, ["lewidi-dev", "lewidi-tuned"])


def test_without_scaled_judges_there_is_no_table_in_detail(tmp_path):
    plan, results = make_study(tmp_path, CONTENT, lambda run: {"calibrate": False})
    assert not all_tables(plan, results, ["lewidi-tuned"])
