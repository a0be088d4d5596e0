"""The wheel carries what the command line launches, and works outside a clone."""

import os
import subprocess
import sys
import zipfile

from conftest import ROOT


def test_the_wheel_works_outside_a_clone(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "distjudge_trl/_shipped/recipes/vader.py" in names and "distjudge_trl/py.typed" in names
    for config in (ROOT / "accelerate_configs").glob("*.yaml"):
        assert f"distjudge_trl/_shipped/accelerate_configs/{config.name}" in names
    assert "distjudge_trl/_shipped/recipes/sweeps/summeval.yaml" in names
    assert not any(name.startswith("tests") for name in names)

    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    command = [
        sys.executable,
        "-m",
        "distjudge_trl",
        "train",
        "vader",
        "--accelerate-config",
        "zero2",
        "--dry-run",
    ]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    for part in ("_shipped/accelerate_configs/zero2.yaml", "_shipped/recipes/vader.py"):
        assert str(site / "distjudge_trl" / part) in done.stderr
