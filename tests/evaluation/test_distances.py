"""Every distance against a library's or a literal reference, and on the edges."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance
from sklearn.metrics import accuracy_score

from distjudge_trl.evaluation import distances


RNG = np.random.default_rng(0)
K = 5
P = np.concatenate([RNG.multinomial(7, RNG.dirichlet(np.ones(K), 200)[i])[None] for i in range(200)]) / 7
LOG_Q = np.log(RNG.dirichlet(np.full(K, 0.7), 200))
Q = np.exp(LOG_Q)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (distances.item_kl, lambda p, q: entropy(p, q)),
        (distances.item_jensen_shannon, lambda p, q: jensenshannon(p, q) ** 2),
        (distances.item_total_variation, lambda p, q: np.abs(p - q).sum() / 2),
        (distances.item_hellinger, lambda p, q: np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / np.sqrt(2)),
        (distances.item_brier, lambda p, q: np.linalg.norm(p - q) ** 2),
        (distances.item_wasserstein, lambda p, q: wasserstein_distance(range(K), range(K), p, q)),
        (distances.item_mean_error, lambda p, q: abs(np.dot(range(K), p) - np.dot(range(K), q))),
        (distances.item_accuracy, lambda p, q: accuracy_score([p.argmax()], [q.argmax()])),
    ],
)
def test_each_equals_its_reference(ours, reference):
    expected = [reference(p, q) for p, q in zip(P, Q, strict=True)]
    np.testing.assert_allclose(ours(P, LOG_Q), expected, atol=1e-9)
    np.testing.assert_allclose(ours(torch.tensor(P), torch.tensor(LOG_Q)), expected, atol=1e-9)


def test_entropy_of_the_judge():
    np.testing.assert_allclose(distances.item_entropy(LOG_Q), entropy(Q, axis=-1), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("item_jensen_shannon", np.log(2)),
        ("item_total_variation", 1),
        ("item_hellinger", 1),
        ("item_brier", 2),
        ("item_wasserstein", 2),
        ("item_mean_error", 2),
    ],
)
def test_ranges_are_reached(name, largest):
    function = getattr(distances, name)
    p = np.array([[1.0, 0, 0], [1.0, 0, 0]])
    with np.errstate(divide="ignore"):
        log_q = np.log(np.array([[1.0, 0, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(function(p, log_q), [0, largest], atol=1e-12)


def test_the_kl_floor_is_seen():
    p = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [1.0, 0, 0]])
    q = np.array([[1 - 1e-6, 1e-6, 0], [0.9, 0.1, 0], [1.0, 0, 0]])
    with np.errstate(divide="ignore"):
        assert distances.needs_floor(p, np.log(q)).tolist() == [1, 0, 0]
        assert distances.item_kl(p, np.log(q))[2] == 0
