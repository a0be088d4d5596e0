"""Scaling recovers what was done to a judge."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from distjudge_trl.calibration.scaling import Scaling, cross_validate, fit_temperature, fit_vector
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


def test_cross_validation_prefers_what_fits_unseen_groups():
    groups = [str(i // 3) for i in range(len(P))]
    weight, bias = np.array([0.5, 1.0, 1.5, 1.0]), np.array([1.0, -1.0, 0.0, 0.5])
    losses = cross_validate(P, log_softmax((TRUE - bias) / weight, axis=-1), groups)
    assert losses["vector"] < losses["temperature"] - 0.05
    assert losses["vector"] == pytest.approx(item_kl(P, TRUE).mean(), abs=0.02)
    # With few items eight numbers fit chance, one does not.
    few = cross_validate(P[:14], log_softmax(2 * TRUE[:14], axis=-1), groups[:14])
    assert few["temperature"] < few["vector"]
    assert cross_validate(P[:14], TRUE[:14], ["one"] * 14) == {}


def test_a_scaling_survives_its_file():
    scaling = fit_vector(P, TRUE)
    again = Scaling.from_dict(json.loads(json.dumps(scaling.to_dict("vector", 7))))
    np.testing.assert_array_equal(again(TRUE), scaling(TRUE))
