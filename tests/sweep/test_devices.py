"""GPUs of sweeps that share a machine. There is none here: what a child would ask of CUDA is answered by a module in
torch's place; processes, environments and locks are real.
"""

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sweep.test_store import GRID, sampler
from sweep.test_sweep_cli import sweep

from distjudge_trl.errors import UserInputError
from distjudge_trl.sweep import best as sweep_best
from distjudge_trl.sweep import request as sweep_request
from distjudge_trl.sweep import run as sweep_run
from distjudge_trl.sweep.devices import device_ids, reserved_devices
from distjudge_trl.sweep.request import Checked
from distjudge_trl.sweep.settings import SweepSettings
from distjudge_trl.sweep.store import Store


FAKE_TORCH = """import json, os, types
UUIDS = json.loads(os.environ["UUIDS"])
cuda = types.SimpleNamespace(
    device_count=lambda: len(UUIDS), get_device_properties=lambda i: types.SimpleNamespace(uuid=UUIDS[i])
)
"""
FIRST, SECOND = "6a1b6f1e-0000-4000-8000-000000000001", "6a1b6f1e-0000-4000-8000-000000000002"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function: from now on a child of this process finds GPUs of these UUIDs, in the place of its 0, 1, ..."""
    (tmp_path / "fake/torch").mkdir(parents=True)
    (tmp_path / "fake/torch/__init__.py").write_text(FAKE_TORCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "fake"), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return lambda *uuids: monkeypatch.setenv("UUIDS", json.dumps(uuids))


def test_jobs_that_number_their_gpus_from_0_get_each_its_own(machine):
    with ExitStack() as held:
        # Two tasks of a SLURM array on one node: each is confined to one GPU, which it sees as 0.
        for uuid in (FIRST, SECOND):
            machine(uuid)
            assert held.enter_context(reserved_devices(["0"], 1)) == ["0"]
        # A third that is given the first one's, as 0 or by its name.
        machine(FIRST)
        for name in ("0", f"GPU-{FIRST}"):
            with pytest.raises(UserInputError, match="another sweep on this machine leaves 0 of 1 free"):
                held.enter_context(reserved_devices([name], 1))
        # The same two GPUs in another order, and a third.
        machine("another", SECOND)
        assert held.enter_context(reserved_devices(["4", "1"], 1)) == ["4"]
    machine(SECOND)
    with reserved_devices(["0"], 1) as free:
        assert free == ["0"]


def test_slices_go_by_their_name_and_what_has_no_uuid_too(machine, monkeypatch):
    machine(FIRST)
    assert device_ids(["MIG-1", "MIG-2"]) == ["MIG-1", "MIG-2"]
    assert device_ids(["0", "1"]) == ["0", "1"], "CUDA counts others"
    monkeypatch.setenv("UUIDS", "no driver")
    assert device_ids(["3"]) == ["3"]


def test_the_preparation_sees_the_sweep_s_gpus(machine, tmp_path, monkeypatch):
    for module in ("sweep.request", "runtime.launches"):
        monkeypatch.setattr(f"distjudge_trl.{module}.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    script = tmp_path / "recipe.py"
    script.write_text(
        "import os, sys\nfrom distjudge_trl import Recipe\nRECIPE = Recipe('vader', 'smollm2-135m')\n"
        "if __name__ == '__main__':\n    sys.exit(sys.stderr.write('error: sees ' + os.environ['CUDA_VISIBLE_DEVICES']"
        " + '\\n') and 2)\n"
    )
    machine(FIRST)
    with reserved_devices(["0"], 1):  # another sweep, whose only GPU is this one's first
        machine(FIRST, SECOND)
        done = sweep(str(script), "--param", "alpha=0,1", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "error: sees 7\n" in done.output, done.output


def test_the_winner_is_tested_on_a_gpu_that_the_sweep_holds(machine, tmp_path, monkeypatch):
    out, seen = tmp_path / "out", {}
    store = Store(None, out, "mine", retries=0)
    definition = replace(GRID, seeds=(1,))
    store.make(definition, [{"alpha": 0.0}])
    with store.claim(sampler) as trial:
        trial.suggest_categorical("alpha", [0.0, 0.4, 0.8])
        trial.set_user_attr("scores", {"1": {"kl": 0.5}})
        store.study.tell(trial, 0.5)

    def score(store, data_path, log, devices):
        with pytest.raises(UserInputError, match="another sweep"), reserved_devices(["5"], 1):
            pass
        seen["devices"] = devices

    machine(FIRST)
    for module in ("sweep.request", "runtime.launches"):
        monkeypatch.setattr(f"distjudge_trl.{module}.device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr(sweep_run, "check_recipe", lambda *_: Checked(definition, 1, 1, None, Path()))
    monkeypatch.setattr(sweep_run, "make_points", lambda *_: [{"alpha": 0.0}])
    monkeypatch.setattr(sweep_run, "_work", lambda *_: None)
    monkeypatch.setattr(sweep_run, "score_best", score)
    done = sweep("vader", "--study", "mine", "--out", out)
    assert done.exit_code == 0, done.output
    assert seen["devices"] == ("5",)


def test_evaluate_is_started_with_the_sweep_s_gpus(tmp_path, monkeypatch):
    (tmp_path / "distjudge_trl").mkdir()
    (tmp_path / "distjudge_trl/__init__.py").touch()
    (tmp_path / "distjudge_trl/__main__.py").write_text("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sweep_best._evaluate(tmp_path, tmp_path / "best", GRID, None, ("5", "7"))
    assert (tmp_path / "best/log.txt").read_text() == "5,7\n"
    # On a CPU the child sees what this process sees.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sweep_best._evaluate(tmp_path, tmp_path / "best", GRID, None, ())
    assert (tmp_path / "best/log.txt").read_text() == "\n"


def test_names_behind_one_that_cuda_does_not_know_are_left_out(machine, monkeypatch):
    monkeypatch.setattr(sweep_request, "device_count", lambda: 1)
    monkeypatch.setattr("distjudge_trl.runtime.launches.device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,9,1")
    machine(FIRST)
    with ExitStack() as held:
        settings = SweepSettings("vader", dry_run=True)
        assert sweep_request.make_launches(settings, Path("vader.py"), held)[0].devices == ("0",)
