"""What `make test` sets for the tests' processes."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT


@pytest.fixture
def variables(tmp_path):
    """A function: pytest's environment under `make test-fast`, on a machine of 12 cores and without nproc."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    (tmp_path / "getconf").write_text('#!/bin/sh\n[ "$1" = _NPROCESSORS_ONLN ] && echo 12\n')
    (tmp_path / "getconf").chmod(0o700)

    def read(**environment):
        # These tests may be run by make themselves, with another number of workers.
        outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "WORKERS", "THREADS")
        own = {name: value for name, value in os.environ.items() if name not in outer}
        make = ["make", "-n", "test-fast"]
        printed = subprocess.run(make, check=True, cwd=ROOT, env=own, capture_output=True, text=True).stdout
        (line,) = re.findall(r"^(.*?)\S*bin/python -m pytest", printed, re.MULTILINE)
        command = ["/bin/sh", "-c", line + shutil.which("env")]
        environment = {"PATH": str(tmp_path), **environment}
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        assert not done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    return read


def test_workers_share_the_cores_and_a_user_s_own_settings_stay(variables):
    found = variables()
    assert found["OMP_NUM_THREADS"] == "6" and "GOMP_SPINCOUNT" not in found
    found = variables(OMP_NUM_THREADS="3", GOMP_SPINCOUNT="7")
    assert found["OMP_NUM_THREADS"] == "3" and found["GOMP_SPINCOUNT"] == "7"
