"""Calibration error equals torchmetrics'."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from distjudge_trl.evaluation.calibration import reliability


RNG = np.random.default_rng(0)
TRUE = np.log(RNG.dirichlet(np.ones(4), 3000))
P = np.stack([RNG.multinomial(10, row) for row in np.exp(TRUE)]) / 10


@pytest.mark.parametrize("num_bins", [5, 15])
def test_calibration_error_equals_torchmetrics(num_bins):
    log_q = log_softmax(1.7 * TRUE + 0.3 * RNG.normal(size=P.shape), axis=-1)
    curve = reliability(P, log_q, num_bins=num_bins)
    reference = multiclass_calibration_error(
        torch.tensor(np.exp(log_q)), torch.tensor(P.argmax(-1)), num_classes=4, n_bins=num_bins
    )
    assert curve.ece == pytest.approx(reference.item(), abs=1e-6)
    assert curve.counts.sum() == len(P) and np.isnan(curve.confidence[curve.counts == 0]).all()
