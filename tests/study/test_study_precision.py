"""Judges that were trained in different precision are marked where tables compare them."""

import pytest
from small_study import make_study

from distjudge_trl.study.tables import all_tables


CONTENT = {
    "data": {"first": {"task": "snli"}},
    "runs": {"main": {"data": ["first"], "methods": ["no-adversary", "kl-only", "distribution"], "seeds": [0, 1]}},
}


@pytest.mark.parametrize("other", ["float32", "bfloat16"])
def test_one_seed_in_another_precision_is_marked(tmp_path, other):
    plan, results = make_study(tmp_path, CONTENT)
    for result in results:
        if result.about["method"] == "kl-only" and result.about["seed"] == 1:
            result.about["machine"]["dtype"] = other  # the others': float32
    tables = all_tables(plan, results, ["gains-plain", "sizes"])
    gains = {row[0]: row[1] for row in tables["gains-plain"].rows}
    marked = other != "float32"
    assert gains["kl-only"].endswith("†") == marked and not gains["distribution"].endswith("†")
    assert any("†" in note for note in tables["gains-plain"].notes) == marked
    (row,) = tables["sizes"].rows
    assert row[tables["sizes"].header.index("precision")] == ("bfloat16, float32" if marked else "float32")
