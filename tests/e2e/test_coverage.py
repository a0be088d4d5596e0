"""Label sets and intervals of a real model cover unseen records of real people as often as they promise.

The model is not trained: the promise holds for any judge. Its answers are read once, and divided at random again and
again, by group, into records for the scaling, for the label sets, and unseen ones.
"""

import numpy as np
import pytest
from conftest import SHARED

from distjudge_trl import Judge
from distjudge_trl.calibration.conformal import fit_label_sets, item_coverage
from distjudge_trl.calibration.scaling import fit_temperature
from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.evaluation import human_side
from distjudge_trl.tasks import get_task


def read(model, name, path, max_length, **options):
    """The annotators' shares, the model's log-probabilities, items and groups of some records of a task."""
    task = get_task(name)
    judge = Judge.from_pretrained(model, label_space=task.label_space(), max_length=max_length)
    records = task.load(path, task.options(**options), fitter=judge.fitter)
    items = np.array([name.removesuffix(SWAPPED) for name in records["id"]])
    return human_side(records)[0], judge.read(records).log_probs, items, np.array(records["group"][:])


def coverage(p, log_q, items, groups, *, level, kind, repeats=200):
    """Mean coverage of unseen records, and the mean size of their sets."""
    rng = np.random.default_rng(0)
    names, member = np.unique(groups, return_inverse=True)
    covered, sizes = [], []
    for _ in range(repeats):
        place = rng.permutation(len(names))[member] / len(names)
        to_scale, to_cover, unseen = place < 0.2, (0.2 <= place) & (place < 0.75), place >= 0.75
        q = np.exp(fit_temperature(p[to_scale], log_q[to_scale])(log_q))
        sets = fit_label_sets(
            p[to_cover], q[to_cover], items[to_cover].tolist(), groups[to_cover].tolist(), level=level, kind=kind
        )
        inside = sets(q[unseen])
        covered.append(item_coverage(p[unseen], inside).mean())
        sizes.append(inside.sum(-1).mean())
    return np.mean(covered), np.mean(sizes)


CASES = {
    "nominal": ("snli", "data/snli", 160, {"max_items": 100}),
    "ordinal": ("vader", None, 160, {"max_items": 250}),
    "preference": ("mtbench", "data/mtbench", 288, {"max_items": 70, "swap": "random"}),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.shared] if CASES[name][1] else []) for name in CASES]
)
def test_unseen_records_are_covered_within_two_points_of_the_level(bundled_model, case):
    name, path, max_length, options = CASES[case]
    task = get_task(name)
    answers = read(bundled_model, name, SHARED / path if path else None, max_length, **options)
    kind = "intervals" if task.ordinal else "sets"
    for level in (0.8, 0.9):
        mean, size = coverage(*answers, level=level, kind=kind)
        print(f"{case}: level {level}, coverage {mean:.4f}, {size:.2f} of {len(task.labels)} labels")
        assert abs(mean - level) < 0.02
        # The promise is of use: sets leave labels out.
        assert 1 <= size < len(task.labels)
