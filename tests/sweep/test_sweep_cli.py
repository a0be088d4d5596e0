"""The commands of `sweep`: what is refused before a recipe is even asked, and studies that are looked at."""

import json
from contextlib import ExitStack
from dataclasses import replace

import pytest
from click.testing import CliRunner
from conftest import ROOT
from sweep.test_definition import DEFINITION
from sweep.test_store import GRID, POINTS, sampler

from distjudge_trl.cli import main
from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.sweep import request as sweep_request
from distjudge_trl.sweep import run as sweep_run
from distjudge_trl.sweep.settings import SweepSettings
from distjudge_trl.sweep.space import grid
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import read_rows, summary, time_left


def sweep(*words):
    return CliRunner().invoke(main, ["sweep", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Usage: "),
        (("--param", "alpha=1"), "The recipe comes first"),
        (("vaderr",), "There is no recipe 'vaderr', nor a file of that name. Did you mean 'vader'?"),
        (("vader", "--metric", "eval_kll"), "--metric eval_kll: there is no such metric. Did you mean 'kl'?"),
        (("vader", "--param", "alpha="), "The parameter alpha has no values"),
        (("vader", "--param", "alpha=log:0:1"), "is no range"),
        (("vader", "--param", "alpha=nan,0.2"), "The parameter alpha: nan is no finite number"),
        (("vader", "--study", ".."), "--study '..': name it in one word or several"),
        (("vader", "--study", ""), "--study '': name it"),
        (("vader", "--study", "a/b"), "--study 'a/b': name it"),
        (("vader", "--study", "a" * 300), "up to 100 characters"),
        (("vader", "--param", "alpha=float:0:1"), "--sampler grid tries lists of values"),
        (("vader", "--method", "nothing"), "--method nothing: choose of single-point"),
        (("vader", "--method", "raw"), "--method raw: choose of"),
        (("vader", "--method", "no-kl,no-ce", "--param", "method=no-kl"), "give one of them"),
        (("vader", "--sampler", "gird"), "Invalid value for '--sampler'"),
        (("vader", "--trials", "0"), "Invalid value for '--trials'"),
        (("vader", "--out", "FOLDER/file"), "FOLDER/file: cannot be written"),
        (("vader", "--storage", "FOLDER"), "is a folder; name a file"),
        (("vader", "--dry-run", "--storage", "sqlite://"), "names no file"),
        (("vader", "--storage", "postgresql://me:secret@127.0.0.1:1/x"), "me:***@127.0.0.1:1/x: cannot be reached"),
        (("vader", "--jobs", "2", "--gpus-per-trial", "2"), "2 jobs with 2 GPUs a trial: this machine has none"),
        (("vader", "--accelerate-config", "zer2"), "Did you mean 'zero2'?"),
        (("vader", "--accelerate-config", "zero2"), "zero2 starts a process for each GPU of the machine, which has"),
        (("vader", "--accelerate-config", "multi_node_zero3"), "a trial runs on one"),
        (("--config", "FOLDER/none.yaml"), "There is no sweep 'FOLDER/none.yaml', nor a file of that name."),
        (("--config", "sumeval"), "Did you mean 'summeval'?"),
        (("--config", "FOLDER/bad.yaml"), "the key `recpie` is not known. Did you mean `recipe`?"),
        (("--config", "FOLDER/empty.yaml"), "The recipe comes first"),
        (("status", "nowhere"), "runs/sweeps/nowhere/study.journal: no such study"),
        (("status", "x", "--storage", "FOLDER/typo.journal"), "typo.journal: no such study"),
        (("status", "x", "--storage", "sqlite:///FOLDER/typo.db"), "typo.db: no such study"),
        (("FOLDER/none.py",), "There is no recipe"),
        (("FOLDER/broken.py", "--param", "alpha=1"), "broken.py: cannot be run (ZeroDivisionError: division by zero)"),
        (("FOLDER/script.py", "--param", "alpha=1"), "script.py: is no recipe: it has no RECIPE"),
        (("show",), "Which study?"),
        (("export", "x"), "Give --csv FILE or --json FILE."),
        (("best", "FOLDER"), "no such study"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, words, message, monkeypatch):
    monkeypatch.setattr(sweep_request, "device_count", lambda: 0)
    monkeypatch.setattr("distjudge_trl.runtime.launches.device_count", lambda: 0)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "bad.yaml").write_text("recpie: vader")
    (tmp_path / "empty.yaml").write_text("{}")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "script.py").write_text("x = 1")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    if words and words[0] == "vader" and "--out" not in words:
        words += ["--out", str(tmp_path / "out")]
    done = sweep(*words)
    assert done.exit_code == 2, done.output
    assert message.replace("FOLDER", str(tmp_path)) in done.output, done.output
    assert "Traceback" not in done.output and "secret" not in done.output
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("typo*"))


def test_a_file_gives_defaults_that_flags_win_over(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(sweep_run, "run_sweep", lambda settings, console: seen.update(settings=settings) or 0)
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "recipe: vader\nsampler: tpe\ntrials: 7\nseeds: 5\nout: elsewhere\n"
        "parameters:\n  alpha: [0, 0.5]\noptions:\n  max_train_samples: 40\n"
    )
    done = sweep("--config", path, "--trials", "3", "--param", "lora_r=4,8", "--bf16", "False")
    assert done.exit_code == 0, done.output
    settings = seen["settings"]
    assert (settings.recipe, settings.sampler, settings.trials, settings.seeds) == ("vader", "tpe", 3, 5)
    assert settings.out == "elsewhere" and settings.parameters == {"alpha": [0, 0.5]}
    assert list(settings.params) == ["lora_r=4,8"] and settings.options == {"max_train_samples": 40}
    assert list(settings.recipe_arguments) == ["--bf16", "False"]
    assert sweep("--config", "summeval").exit_code == 0
    assert seen["settings"].recipe == "summeval" and seen["settings"].seeds == 5
    assert sweep("task.yaml").exit_code == 0
    assert seen["settings"].recipe == "custom" and seen["settings"].recipe_arguments == ["--task", "task.yaml"]


def test_a_sweep_of_a_user_s_own_task_has_the_task_s_name():
    from distjudge_trl.files.shipped_files import shipped_folder

    task = str(ROOT / "docs/examples/replies.yaml")
    for settings in (
        SweepSettings("custom", recipe_arguments=["--task", task]),
        SweepSettings("custom", options={"task": task}),
    ):
        assert sweep_request.default_study(settings, shipped_folder("recipes") / "custom.py") == "replies"
    assert sweep_request.default_study(SweepSettings("vader"), shipped_folder("recipes") / "vader.py") == "vader"


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (None, ["alpha", "perturbation_radius"]),
        ("distribution", ["alpha", "perturbation_radius"]),
        ("no-adversary", ["alpha"]),
        ("no-ce", ["perturbation_radius"]),
        ("distribution,no-kl,no-ce,no-adversary", ["method"]),
    ],
)
def test_the_recipe_s_grid_leaves_out_what_a_method_sets(method, names):
    from distjudge_trl.files.shipped_files import shipped_folder

    settings = SweepSettings("vader", method=method)
    found = sweep_request.find_trial_parameters(settings, shipped_folder("recipes") / "vader.py")
    assert [parameter.name for parameter in found] == names
    if method is None:
        assert len(grid(found)) == 36


def test_gpus_are_dealt_out(monkeypatch, tmp_path):
    from distjudge_trl.files.shipped_files import shipped_folder

    def launches(held, **settings):
        script = shipped_folder("recipes") / "vader.py"
        return sweep_request.make_launches(SweepSettings("vader", **settings), script, held)

    for module in ("sweep.request", "runtime.launches"):
        monkeypatch.setattr(f"distjudge_trl.{module}.device_count", lambda: 4)
    monkeypatch.setattr("distjudge_trl.sweep.devices.device_ids", list)  # see test_devices.py
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with ExitStack() as held:
        two = launches(held, jobs=2, gpus_per_trial=2)
        assert [launch.devices for launch in two] == [("0", "1"), ("2", "3")]
        assert two[0].config.stem == "multi_gpu" and two[0].num_processes == 2 and two[0].several
        assert two[1].environment(tmp_path, tmp_path)["CUDA_VISIBLE_DEVICES"] == "2,3"
        with pytest.raises(UserInputError, match="another sweep on this machine leaves 0 of 4 free"):
            launches(held)
    with ExitStack() as held, ExitStack() as other:
        one = launches(held, jobs=3)
        assert [launch.devices for launch in one] == [("0",), ("1",), ("2",)] and one[0].config.stem == "single_gpu"
        # A second sweep on the machine gets what is left.
        assert launches(other)[0].devices == ("3",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,8,9")
    with ExitStack() as held:
        assert launches(held, jobs=2)[1].devices == ("7",)
    with ExitStack() as held:
        (four,) = launches(held, gpus_per_trial=4, accelerate_config="zero2")
        assert four.command(["--x"])[5:7] == ["--num_processes", "4"]


def test_the_cores_are_shared_out(monkeypatch, tmp_path):
    from distjudge_trl.files.shipped_files import shipped_folder

    monkeypatch.setattr(sweep_request, "device_count", lambda: 0)
    monkeypatch.setattr("distjudge_trl.runtime.threads.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = shipped_folder("recipes") / "vader.py"

    def threads(**settings):
        settings = SweepSettings("vader", **settings)
        return sweep_request.make_launches(settings, script, ExitStack())[0].threads

    assert threads() is None, "one run has the machine for itself"
    assert threads(jobs=2) == 4
    assert threads(jobs=2, accelerate_config="zero2_cpu") == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads(jobs=2) is None, "the user's own"
    monkeypatch.delenv("OMP_NUM_THREADS")
    # On GPUs, too, where a launcher would give each process one core.
    for module in ("sweep.request", "runtime.launches"):
        monkeypatch.setattr(f"distjudge_trl.{module}.device_count", lambda: 4)
    assert threads(jobs=2, gpus_per_trial=2, dry_run=True) == 2


@pytest.fixture
def looked_at(tmp_path):
    """A study in every state: two done, one failed, one pruned, one running, one waiting."""
    out = tmp_path / "looked"
    store = Store(None, out, "mine", retries=0)
    store.make(replace(GRID, seeds=(1, 2)), POINTS)
    for value in (0.5, 0.25, "failed", "pruned"):
        with store.claim(sampler) as trial:
            for parameter in GRID.parameters:
                trial.suggest_categorical(parameter.name, list(parameter.choices))
            if value == "failed":
                trial.set_user_attr("log_tail", "the end\nof its log")
                store.fail(store.storage.get_trial(trial._trial_id), "OutOfMemoryError: CUDA", again=False)
            elif value == "pruned":
                trial.report(1.0, 1)
                store.study.tell(trial, state=__import__("optuna").trial.TrialState.PRUNED)
            else:
                trial.set_user_attr("scores", {"1": {"kl": value - 0.1}, "2": {"kl": value + 0.1}})
                trial.set_user_attr("seconds", 60.0)
                trial.set_user_attr("folder", "trials/x")
                store.study.tell(trial, value)
    with store.claim(sampler) as trial:
        trial.suggest_categorical("alpha", [0.0, 0.4, 0.8])
        yield out, store


def test_status_show_export_and_best(looked_at, tmp_path):
    out, store = looked_at
    status = sweep("status", out)
    assert status.exit_code == 0, status.output
    for text in ("1 waiting, 1 running, 2 done, 1 failed, 1 pruned", "best kl 0.2500 ± 0.1414 (alpha=0 lora_r=8)"):
        assert text in " ".join(status.output.split()), status.output
    assert "trial 2 (alpha=0.4 lora_r=4) failed: OutOfMemoryError: CUDA" in status.output
    assert "running, begins" in " ".join(status.output.split())
    shown = sweep("show", out, "--top", "1").output
    assert "0.2500" in shown and "0.5000" not in shown
    assert sweep("show", out, "--log", "2").output == "OutOfMemoryError: CUDA\nthe end\nof its log\n"
    assert "has no trial 77" in sweep("show", out, "--log", "77").output
    rows = read_rows(store)
    # Two minutes of work for the one that runs: one done a minute each.
    assert 100 <= time_left(rows) <= 120 and "about 2 min left" in summary(store, rows)
    path = tmp_path / "t.json"
    assert sweep("export", out, "--json", path).exit_code == 0
    content = json.loads(path.read_text())
    assert [trial["state"] for trial in content["trials"]] == [
        "done", "done", "failed", "pruned", "running", "waiting"
    ]  # fmt: skip
    best = sweep("best", out)
    assert "vader --data_path here.txt --max_train_samples 40 --lora_target_modules q_proj --alpha 0.0 --lora_r 8" in (
        " ".join(best.output.split())
    )
    assert sweep("export", out, "--csv", tmp_path).exit_code == 2
    assert sweep("best", out, "--write-recipe", out / "study.journal" / "x").exit_code == 2


def test_a_trial_without_a_worker_is_told(looked_at):
    out, store = looked_at
    with store.claim(sampler) as trial:
        number = trial.number
    (line,) = [line for line in sweep("status", out).output.splitlines() if line.strip().startswith(f"{number} ")]
    assert "its worker is gone" in line


def test_a_full_disk_is_one_line(looked_at, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    out, _ = looked_at
    monkeypatch.setattr("distjudge_trl.files.atomic.json.dump", full)
    done = sweep("export", out, "--json", tmp_path / "a.json")
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "a.json: cannot be written (No space left on device)" in done.output and not list(tmp_path.glob("a*"))


def test_a_worker_s_full_disk_ends_the_sweep_with_one_line(tmp_path, monkeypatch):
    from rich.console import Console

    def full(self):
        raise OSError(28, "No space left on device", str(tmp_path / "trials"))

    monkeypatch.setattr("distjudge_trl.sweep.run.Worker.work", full)
    store = Store(None, tmp_path, "full")
    store.make(GRID, POINTS)
    checked = sweep_request.Checked(GRID, 1, 1, None, tmp_path)
    with pytest.raises(RunFailedError, match="trials: No space left on device. What was done is safe"):
        sweep_run._work(SweepSettings("vader"), store, checked, [None, None], Console(width=100))


def test_nothing_done_is_said(tmp_path):
    Store(None, tmp_path, "new").make(DEFINITION, [{}] * 2)
    for command in ("show", "best"):
        done = sweep(command, tmp_path)
        assert done.exit_code == 2 and "has no finished trial yet" in done.output
    assert "2 waiting, 0 done" in sweep("status", tmp_path).output
