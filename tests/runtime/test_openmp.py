"""How torch's threads wait is said before torch is imported, wherever Python starts; a user's own setting stays."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from distjudge_trl.runtime.threads import cores


SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# A package's modules come after its `__init__.py`.
SCRIPTS = [
    path
    for path in sorted((ROOT / "scripts").rglob("*.py"))
    if path.stem == "__init__" or not (path.parent / "__init__.py").exists()
]
# What imports torch, or may.
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed"}
# In place of torch: says what it would have read, and ends.
FAKE_TORCH = """import os
from pathlib import Path
Path(os.environ["SEEN"]).write_text(os.environ.get("GOMP_SPINCOUNT", "nothing"))
os._exit(0)
"""


def environment(**variables):
    """Of this process, without what says how threads wait (these tests have it already)."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS} | variables


@pytest.fixture
def seen_by_torch(tmp_path):
    """What torch would read when it is first imported by a command; the libraries in between are real."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(FAKE_TORCH)

    def run(*command, **variables):
        seen = tmp_path / "seen"
        seen.unlink(missing_ok=True)
        path = os.pathsep.join((str(tmp_path), str(ROOT)))
        variables = environment(PYTHONPATH=path, SEEN=str(seen), **variables)
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables, timeout=100)
        assert seen.is_file(), done.stderr[-2000:]
        return seen.read_text()

    return run


@pytest.mark.parametrize(
    "words",
    [
        ("recipes/vader.py", "--method", "raw"),
        ("recipes/custom.py", "--task", "vader"),
        ("-m", "distjudge_trl", "env"),
        ("-m", "distjudge_trl", "sweep", "vader", "--param", "alpha=0,1"),
        ("-c", "from distjudge_trl import DistributionSFTTrainer"),
        ("-c", "from distjudge_trl.cli import main; main(['train', 'vader'])"),  # distjudge-trl train vader
        ("scripts/quickstart.py",),
        ("scripts/benchmarks/adversary.py",),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_it_is_said_before_torch_is_imported(seen_by_torch, words, tmp_path):
    words = [str(ROOT / word) if word.endswith(".py") else word for word in words]
    assert seen_by_torch(sys.executable, *words) == "0"


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "ACTIVE", "nothing"), ("KMP_BLOCKTIME", "200", "nothing")],
)
def test_a_user_s_own_setting_stays(seen_by_torch, name, value, seen):
    assert seen_by_torch(sys.executable, str(ROOT / "recipes/vader.py"), **{name: value}) == seen


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_imports_the_package_before_what_brings_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = [node.lineno for node in tree.body if "distjudge_trl" in imported(node)]
    heavy = [node.lineno for node in ast.walk(tree) if HEAVY & imported(node)]
    assert not heavy or (ours and min(ours) < min(heavy))


def imported(node):
    """Top names of what a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {str(node.module).split(".")[0]} if isinstance(node, ast.ImportFrom) else set()


# Two threads that have work now and then; prints seconds of the CPU, and those that passed.
WAITING = """
import time, {first}
import torch, distjudge_trl
torch.set_num_threads(2)
numbers = torch.ones(1 << 18)
numbers.add_(1)
cpu = time.process_time()
for _ in range(60):
    numbers.add_(1)
    time.sleep(0.005)
print(time.process_time() - cpu)
"""


def seconds_of_cpu(first, **variables):
    command = [sys.executable, "-c", WAITING.format(first=first)]
    variables = environment(PYTHONPATH=str(ROOT), **variables)
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout)


@pytest.mark.e2e
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_threads_that_wait_take_no_core():
    asleep, active = seconds_of_cpu("distjudge_trl"), seconds_of_cpu("distjudge_trl", OMP_WAIT_POLICY="ACTIVE")
    assert asleep < active / 5, (asleep, active)
    # As docs/training.md says: too late.
    assert asleep < seconds_of_cpu("torch") / 2


@pytest.mark.e2e
@pytest.mark.parametrize(
    "launcher",
    [
        ("accelerate.commands.launch", "--config_file", str(ROOT / "accelerate_configs/zero2_cpu.yaml")),
        ("torch.distributed.run", "--nproc_per_node", "2", "--standalone"),
    ],
    ids=["accelerate", "torchrun"],
)
def test_every_process_of_a_launch_has_it(tmp_path, launcher):
    script = tmp_path / "recipe.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nassert 'torch' not in sys.modules\nimport distjudge_trl\n"
        "Path(__file__).with_name('rank-' + os.environ['RANK']).write_text(os.environ['GOMP_SPINCOUNT'])\n"
    )
    options = ("--num_processes", "2", "--main_process_port", "0") if "accelerate" in launcher[0] else ()
    command = [sys.executable, "-m", *launcher, *options, str(script)]
    subprocess.run(command, check=True, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, timeout=200)
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["0", "0"]
