"""The SLURM scripts: shell-checked, and what every node would run, with faked variables and a fake srun."""

import shlex
import shutil
import subprocess

import pytest
from conftest import ROOT

from distjudge_trl.files.shipped_files import list_shipped


SCRIPTS = sorted((ROOT / "scripts/slurm").glob("*.sbatch"))
SAY_CPUS = 'echo "cpus ${SRUN_CPUS_PER_TASK-unset}" >&2'


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_is_sound_shell(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def dry_run(tmp_path, *arguments, **variables):
    """Runs the script with a `srun` that runs its command once a node, and a `scontrol` that knows two nodes."""
    fakes = {
        "scontrol": '[ "$*" = "show hostnames node[07-08]" ] && printf "node07\\nnode08\\n"',
        "srun": f'shift; {SAY_CPUS}; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@" || exit 1; done',
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DRY_RUN": "1", **variables}
    return subprocess.run(
        ["bash", str(ROOT / "scripts/slurm/train.sbatch"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )


JOB = {
    "SLURM_JOB_NODELIST": "node[07-08]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_ID": "4712345",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_CPUS_PER_TASK": "48",
}


def test_every_node_gets_its_rank_and_the_same_rendezvous(tmp_path):
    done = dry_run(tmp_path, "recipes/summeval.py", "--output_dir", "runs/my judge", **JOB)
    assert done.returncode == 0 and done.stderr == "cpus 48\n", done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        words = shlex.split(line)
        assert words[:2] == ["accelerate", "launch"]
        options = dict(zip(words[2:14:2], words[3:14:2], strict=True))
        assert options == {
            "--config_file": "accelerate_configs/multi_node_zero3.yaml",
            "--num_processes": "8",
            "--num_machines": "2",
            "--machine_rank": str(rank),
            "--main_process_ip": "node07",
            "--main_process_port": str(20000 + 4712345 % 40000),
        }
        assert words[14:16] == ["recipes/summeval.py", "--output_dir"]
    assert "multi_node_zero3" in list_shipped("accelerate_configs", ".yaml")


def test_another_config_and_gpus_as_slurm_writes_them(tmp_path):
    variables = {**JOB, "SLURM_GPUS_ON_NODE": "", "SLURM_GPUS_PER_NODE": "h100:2", "ACCELERATE_CONFIG": "my.yaml"}
    del variables["SLURM_CPUS_PER_TASK"]
    done = dry_run(tmp_path, "recipes/snli.py", **variables)
    assert done.stderr == "cpus unset\n"
    line = done.stdout.splitlines()[1]
    assert "--config_file my.yaml --num_processes 4 " in line


def sweep_run(tmp_path, *arguments, **variables):
    """The array script with a `srun` that runs its command."""
    (tmp_path / "srun").write_text(f'#!/bin/bash\n{SAY_CPUS}\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DRY_RUN": "1", **variables}
    command = ["bash", str(ROOT / "scripts/slurm/sweep.sbatch"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_every_task_of_an_array_is_the_same_worker(tmp_path):
    words = ["summeval", "--jobs", "4", "--storage", "postgresql://user:a b@host/sweeps"]
    lines = [sweep_run(tmp_path, *words, SLURM_ARRAY_TASK_ID=task).stdout for task in "07"]
    assert sweep_run(tmp_path, *words, SLURM_ARRAY_TASK_ID="0", SLURM_CPUS_PER_TASK="16").stderr == "cpus 16\n"
    assert lines[0] == lines[1] == " ".join(["distjudge-trl", "sweep", *words]) + "\n"
    done = sweep_run(tmp_path, "summeval")
    assert done.returncode == 2 and "no SLURM array. Submit this with sbatch --array" in done.stderr
    done = sweep_run(tmp_path, SLURM_ARRAY_TASK_ID="0")
    assert done.returncode == 2 and done.stderr.startswith("error: which recipe?")


def test_what_is_missing_is_said(tmp_path):
    done = dry_run(tmp_path, **JOB)
    assert done.returncode == 2 and done.stderr.startswith("error: which recipe?")
    done = dry_run(tmp_path, "recipes/snli.py")
    assert done.returncode == 2 and "no SLURM job. Submit this with sbatch." in done.stderr
