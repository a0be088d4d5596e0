"""Tests run on the CPU, unless those for GPUs are asked for."""

import os

import pytest
from conftest import hides_gpus


@pytest.mark.parametrize(
    ("marks", "hidden"),
    [
        ("", True),
        ("e2e", True),
        ("not e2e", True),
        ("not gpu", True),
        ("e2e and not gpu", True),
        ("gpu", False),
        ("gpu and e2e", False),
        ("e2e and gpu", False),
    ],
)
def test_gpus_are_hidden_from_all_other_tests(marks, hidden):
    assert hides_gpus(marks) is hidden


def test_none_is_seen_in_this_run(request):
    if not hides_gpus(request.config.option.markexpr):
        pytest.skip("runs with -m gpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
