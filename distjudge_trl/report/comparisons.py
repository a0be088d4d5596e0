"""Comparisons of judges on the same items: differences with intervals, tests, and the correction for several tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distjudge_trl.evaluation import item_kl, paired_difference
from distjudge_trl.evaluation.distances import item_accuracy
from distjudge_trl.evaluation.statistics import Estimate, holm, paired_test, seed_difference, seed_test
from distjudge_trl.report.test_sets import Cell, TestSet


BASELINE = "single-point"
# Contrasts besides every trained method against the single-point judge: the effect of the adversary, its Bayesian
# alternative, the difference that remains after calibration, and the scaled untrained model.
_CONTRASTS = (
    ("distribution", "no-adversary"),
    ("distribution", "dirichlet"),
    ("distribution + temperature", f"{BASELINE} + temperature"),
    ("distribution", "raw + vector"),
)


@dataclass(frozen=True)
class Comparison:
    """A comparison of two judges on the same items.

    `kl` and `accuracy` are those of `a` minus those of `b`, with 95 % intervals; `raw_p` is the p-value for the KL and
    `p` the same after Holm's correction over all comparisons of the report, both `None` if no test applies; `test`
    says which test it is, or why there is none.
    """

    test_set: TestSet
    a: Cell
    b: Cell
    kl: Estimate
    accuracy: Estimate
    raw_p: float | None
    p: float | None
    test: str


def compare(test_sets: Sequence[TestSet]) -> list[Comparison]:
    """Compare every trained judge with the single-point judge of its model, and make further contrasts.

    With several seeds the test is a paired t-test over seeds (the paper has five), or a t-test of the seeds against an
    untrained model, which has none. With one seed it is a paired permutation test over items. Judges that were trained
    in other ways or with other seeds than the judge that they are compared with are listed without a test.
    """
    pairs = [(test_set, a, b) for test_set in test_sets for a, b in _pairs(test_set.main_cells)]
    found = [(test_set, a, b, *_difference(a, b)) for test_set, a, b in pairs]
    tested = [entry[5] for entry in found if entry[5] is not None]
    adjusted = iter(holm(tested) if tested else ())
    return [
        Comparison(*entry[:6], p=next(adjusted) if entry[5] is not None else None, test=entry[6]) for entry in found
    ]


def _pairs(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    by_name = {(cell.model, cell.method): cell for cell in cells}
    pairs = []
    for cell in cells:
        if cell.rows[0].is_trained and not cell.rows[0].is_calibrated and cell.method != BASELINE:
            pairs.append((cell, by_name.get((cell.model, BASELINE))))
        pairs += [(cell, by_name.get((cell.model, other))) for name, other in _CONTRASTS if name == cell.method]
    return [(a, b) for a, b in pairs if b is not None]


def _difference(a: Cell, b: Cell) -> tuple[Estimate, Estimate, float | None, str]:
    """Differences in KL and accuracy, the p-value for the KL, and the test's name."""
    seeds = [[row.seed for row in cell.rows] for cell in (a, b)]
    trained = [cell.rows[0].is_trained for cell in (a, b)]
    if a.rows[0].setup and b.rows[0].setup and a.rows[0].setup != b.rows[0].setup:
        return *_over_items(a, b)[:2], None, "none: trained in other ways"
    if all(trained) and seeds[0] != seeds[1]:
        return *_over_items(a, b)[:2], None, "none: other seeds"
    count = max(map(len, seeds))
    if count == 1:
        return *_over_items(a, b), "permutation of items"
    # An untrained model is the same for every seed.
    kls, accuracies = (
        [cell.values(name) * (1 if len(cell.rows) == count else count) for cell in (a, b)]
        for name in ("kl", "accuracy")
    )
    return seed_difference(*kls), seed_difference(*accuracies), seed_test(*kls), f"t-test, {count} seeds"


def _over_items(a: Cell, b: Cell) -> tuple[Estimate, Estimate, float]:
    """Differences in KL and accuracy of the means over seeds, and the p-value for the KL, over items."""
    groups = a.rows[0].run.items["group"][:]
    kl_a, kl_b, accuracy_a, accuracy_b = (
        np.mean([metric(row.run.p, row.log_q) for row in cell.rows], axis=0)
        for metric in (item_kl, item_accuracy)
        for cell in (a, b)
    )
    differences = paired_difference(kl_a, kl_b, groups), paired_difference(accuracy_a, accuracy_b, groups)
    return *differences, paired_test(kl_a, kl_b, groups)
