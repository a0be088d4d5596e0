"""Scaling recovers what was done to a judge; calibration error equals torchmetrics'."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from distjudge_trl.evaluation.calibration import Scaling, fit_temperature, fit_vector, reliability
from distjudge_trl.evaluation.distances import item_kl


RNG = np.random.default_rng(0)
TRUE = np.log(RNG.dirichlet(np.ones(4), 3000))
P = np.stack([RNG.multinomial(10, row) for row in np.exp(TRUE)]) / 10


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_temperature_is_recovered(temperature):
    distorted = log_softmax(TRUE / temperature, axis=-1)
    scaling = fit_temperature(P, distorted)
    # Distorted by 1/T, mended by T times as much.
    assert scaling.temperature == pytest.approx(1 / temperature, rel=0.03)
    np.testing.assert_allclose(scaling(distorted), TRUE, atol=0.2)


def test_temperature_is_the_minimum_that_scipy_finds():
    log_q = log_softmax(RNG.normal(size=P.shape) + 2 * TRUE, axis=-1)
    reference = minimize_scalar(
        lambda s: item_kl(P, log_softmax(log_q / np.exp(s), axis=-1)).mean(), bounds=(-4, 4), method="bounded"
    )
    assert fit_temperature(P, log_q).temperature == pytest.approx(np.exp(reference.x), rel=1e-3)


def test_vector_scaling_mends_what_a_temperature_cannot():
    weight, bias = np.array([0.5, 1.0, 1.5, 1.0]), np.array([1.0, -1.0, 0.0, 0.5])
    distorted = log_softmax((TRUE - bias) / weight, axis=-1)
    vector, temperature = fit_vector(P, distorted), fit_temperature(P, distorted)
    assert vector.temperature is None
    assert item_kl(P, vector(distorted)).mean() < item_kl(P, temperature(distorted)).mean() - 0.05
    assert item_kl(P, vector(distorted)).mean() == pytest.approx(item_kl(P, TRUE).mean(), abs=0.02)


@pytest.mark.parametrize("fit", [fit_temperature, fit_vector])
def test_scaling_stays_finite_on_hopeless_judges(fit):
    with np.errstate(divide="ignore"):
        log_q = np.log(np.eye(4)[RNG.integers(0, 4, len(P))])
    scaled = fit(P, log_q)(log_q)
    assert np.isfinite(scaled).all() and item_kl(P, scaled).mean() < np.log(4)
    np.testing.assert_allclose(np.exp(scaled).sum(-1), 1)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        fit_temperature(P, TRUE[:5])
    with pytest.raises(ValueError, match="shape"):
        fit_vector(P[:0], TRUE[:0])


def test_a_scaling_by_hand():
    scaling = Scaling(np.array([2.0, 2.0]), np.zeros(2))
    np.testing.assert_allclose(np.exp(scaling(np.log([[0.2, 0.8]]))), [[0.04 / 0.68, 0.64 / 0.68]])
    assert scaling.temperature == 0.5


@pytest.mark.parametrize("num_bins", [5, 15])
def test_calibration_error_equals_torchmetrics(num_bins):
    log_q = log_softmax(1.7 * TRUE + 0.3 * RNG.normal(size=P.shape), axis=-1)
    curve = reliability(P, log_q, num_bins=num_bins)
    reference = multiclass_calibration_error(
        torch.tensor(np.exp(log_q)), torch.tensor(P.argmax(-1)), num_classes=4, n_bins=num_bins
    )
    assert curve.ece == pytest.approx(reference.item(), abs=1e-6)
    assert curve.counts.sum() == len(P) and np.isnan(curve.confidence[curve.counts == 0]).all()
