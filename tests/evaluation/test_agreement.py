"""Agreement among annotators, against published and hand-made figures."""

import numpy as np
import pytest

from distjudge_trl.evaluation.agreement import krippendorff_alpha, normalized_entropy, pairwise_agreement


# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section E: four observers, twelve units, values
# 1-5; nominal alpha 0.743, ordinal alpha 0.815. Votes per unit and value, units with a single value included.
UNITS = [
    [1, 1, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [5, 5, 5],
    [1, 1],
    [3],
]
COUNTS = np.array([[unit.count(value) for value in range(1, 6)] for unit in UNITS])


@pytest.mark.parametrize(("ordinal", "expected"), [(False, 0.743), (True, 0.815)])
def test_alpha_of_krippendorff_s_own_example(ordinal, expected):
    assert krippendorff_alpha(COUNTS, ordinal=ordinal) == pytest.approx(expected, abs=5e-4)


def test_alpha_is_one_for_unanimity_and_near_zero_for_chance():
    assert krippendorff_alpha(np.array([[3, 0], [0, 3]])) == pytest.approx(1)
    rng = np.random.default_rng(0)
    assert abs(krippendorff_alpha(rng.multinomial(5, [0.3, 0.3, 0.4], size=3000))) < 0.02


@pytest.mark.parametrize("counts", [[[1, 0], [0, 1]], [[3, 0], [2, 0]]])
def test_alpha_is_undefined_without_pairs_or_variety(counts):
    assert krippendorff_alpha(np.array(counts)) is None


def test_large_data_is_sampled(monkeypatch):
    from distjudge_trl.evaluation import agreement

    counts = np.random.default_rng(0).multinomial(5, [0.7, 0.2, 0.1], size=2000)
    whole = krippendorff_alpha(counts)
    monkeypatch.setattr(agreement, "MAX_ITEMS_FOR_ALPHA", 500)
    assert krippendorff_alpha(counts) == pytest.approx(whole, abs=0.05)


def test_pairwise_agreement_by_hand():
    # 2 of 3 pairs differ in the first item, none in the second; the third has one vote and does not count.
    assert pairwise_agreement(np.array([[2, 1], [0, 4], [1, 0]])) == pytest.approx((1 / 3 + 1) / 2)
    assert pairwise_agreement(np.array([[1, 0]])) is None


def test_normalized_entropy():
    p = np.array([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    assert normalized_entropy(p) == pytest.approx([0.5, 0, 1])
