"""Working through a plan. A shell script stands for the recipes; tests/e2e/test_small_study.py trains."""

import itertools
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from small_study import ABOUT, CONTENT, HERE, LAUNCHER, make_result, write_plan

from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME
from distjudge_trl.study import Plan, Study, read_plan, read_study
from distjudge_trl.study.claims import Claims
from distjudge_trl.study.machine import describe_machine, dtype_of
from distjudge_trl.study.making import Maker
from distjudge_trl.study.processes import Processes
from distjudge_trl.study.store import keep, result_folder
from distjudge_trl.trainer.checkpoints import write_checkpoint_file


ALL = ["raw-seed0", "no-adversary-seed0", "wide-seed0", "no-adversary-seed1", "wide-seed1"]


class World:
    """A folder with a plan; `study` works on it, and `asked` are the runs that were started."""

    def __init__(self, folder, made):
        self.folder, self.results, self.work = folder, folder / "results", folder / "work"
        self.launcher = folder / "launcher"
        self.launcher.write_text(LAUNCHER)
        self.launcher.chmod(0o700)
        self.made = made
        self.said = []

    def study(self, *, given=None, **changes):
        content = changes.pop("content", {})
        plan = read_plan(write_plan(self.folder, **content))
        plan = Plan(plan.content, plan.folder, given or {})
        options = {"launcher": [str(self.launcher)], "say": self.said.append, **changes}
        return Study(plan, self.results, self.work, **options)

    def make(self, only=(), seconds=None, **changes):
        study = self.study(**changes)
        self.said.clear()
        return [run.name for run in study.work_through(study.select(only), seconds=seconds)]

    @property
    def asked(self):
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.is_file() else []
        return [Path(line.split("--output_dir ")[1].split()[0]).name for line in lines]

    @property
    def done(self):
        return sorted(result.path.name for result in read_study(self.results)) if self.results.is_dir() else []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a recipe leaves."""
    folder = tmp_path_factory.mktemp("made")
    make_result(folder, calibrate=False)
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture()
def world(tmp_path, monkeypatch, made):
    for name, value in {"LOG": tmp_path / "log", "MADE": made, "FAILS": "none"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("distjudge_trl.study.making.describe_machine", lambda jobs: {**HERE, "jobs": jobs})
    return World(tmp_path, made)


def test_nothing_is_made_twice(world):
    assert world.make() == []
    assert world.asked == ALL and world.done == sorted(ALL)
    assert world.said[0] == "5 runs planned, 0 done, 5 left"
    assert world.said[1].startswith("first/raw-seed0: duration not known yet; besides 4 left")
    assert world.make() == [] and world.said == ["5 runs planned, 5 done, 0 left"]
    assert world.asked == ALL
    # Judges are large: their results alone are kept.
    assert not any(world.work.rglob("*.safetensors"))
    about = read_study(world.results)[0].about
    assert about["machine"] == HERE and about["seconds"] < 60


def test_other_options_are_refused_before_anything_is_started(world):
    world.make()
    with pytest.raises(UserInputError, match="made with other options than the plan's: alpha unset and 0.5"):
        world.make(given={"alpha": 0.5})
    assert world.asked == ALL


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["first/wide*"], ["wide-seed0", "wide-seed1"]),
        (["first/raw-seed0", "*-seed1"], ["raw-seed0", "no-adversary-seed1", "wide-seed1"]),
        (["first"], ALL),
        (["main"], ALL),
    ],
)
def test_only(world, only, expected):
    assert world.make(only) == [] and world.asked == expected


def test_only_must_match(world):
    with pytest.raises(UserInputError, match=r"--only wise\*: matches no run. Runs are called like first/raw-seed0"):
        world.make(["wise*"])


def test_what_would_end_too_late_is_not_started(world):
    study = world.study()
    long = next(run for run in study.plan.runs() if run.name == "no-adversary-seed1")
    keep(world.results, long, world.made, {**ABOUT, "seconds": 3600})
    # How long an untrained model takes is not known, so it is tried; the others take an hour.
    assert world.make(seconds=1800) == []
    assert world.asked == ["raw-seed0"]
    assert world.said[-1] == "3 runs left: the time is up (about 3.0 h)"
    assert world.make(seconds=0) == [] and world.asked == ["raw-seed0"]
    assert world.make(seconds=3700) == [] and world.asked == ["raw-seed0", "no-adversary-seed0", *ALL[2:3], ALL[4]]


def test_one_that_fails_leaves_the_others_alone(world, monkeypatch):
    monkeypatch.setenv("FAILS", "wide-seed0")
    assert world.make() == ["wide-seed0"]
    assert world.asked == ALL and world.done == sorted({*ALL} - {"wide-seed0"})
    assert f"{world.work / 'first/wide-seed0'}: failed with exit code 3" in world.said
    monkeypatch.setenv("FAILS", "none")
    assert world.make() == [] and world.asked == [*ALL, "wide-seed0"]


def test_one_that_leaves_no_results_has_failed(world):
    assert world.make(["*raw*"], launcher=["true"]) == ["raw-seed0"]
    assert f"{world.work / 'first/raw-seed0'}: left no results" in world.said and world.done == []


def test_side_by_side_they_print_into_logs(world, monkeypatch):
    monkeypatch.setenv("FAILS", "wide-seed1")
    assert world.make(jobs=2) == ["wide-seed1"]
    assert sorted(world.asked) == sorted(ALL)
    log = world.work / "first/wide-seed1.log"
    assert f"{world.work / 'first/wide-seed1'}: failed with exit code 3: it went wrong (see {log})" in world.said


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"jobs": 0}, "--jobs must be at least 1, got 0"),
        ({"data_root": Path("nowhere")}, "--data-root nowhere: there is no such folder"),
        ({"data_root": Path(".")}, "there.zip: there is no such file or folder. --data-root names"),
        ({"launcher": ["no-such-program"]}, "--launcher no-such-program: there is no such program"),
        ({"launcher": []}, "--launcher '': there is no such program"),
    ],
)
def test_mistakes_are_found_before_anything_is_started(world, changes, match):
    data = {**CONTENT["data"], "first": {"task": "snli", "path": "there.zip"}}
    with pytest.raises(UserInputError, match=match):
        world.make(content={"data": data}, **changes)
    assert world.asked == []


@pytest.mark.parametrize(
    ("vary", "match"),
    [
        (
            {"alfa": [0.5]},
            r"run first/wide-alfa0.5-seed0 \(part 'size'\): Unknown option --alfa. Did you mean --alpha",
        ),
        ({"alpha": [0.5, "much"]}, r"run first/wide-alphamuch-seed0 \(part 'size'\): .*alpha"),
        ({"max_train_samples": [0]}, r"\(part 'size'\): `max_train_samples` must be at least 1, got 0"),
    ],
)
def test_options_that_no_recipe_takes_are_found_before_anything_is_started(world, vary, match):
    runs = {**CONTENT["runs"], "size": {"data": ["first"], "methods": ["wide"], "vary": vary}}
    with pytest.raises(UserInputError, match=match):
        world.make(content={"runs": runs})
    assert world.asked == []


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_file_is_no_folder(world, option):
    (world.results if option == "--out" else world.work).touch()
    with pytest.raises(UserInputError, match=f"is no folder. Choose another {option}"):
        world.study()


def test_files_that_a_task_names_are_looked_for_before_anything_is_started(world):
    task = world.folder / "own.yaml"
    task.write_text(
        'name: own\nlabels: ["no", "yes"]\ntemplate: "{{ text }}?"\nsource: replies.jsonl\nvotes: {list: votes}\n'
    )
    runs = {"main": {"data": ["first", "own"], "methods": ["no-adversary"]}}
    content = {"data": {"first": {"task": "snli"}, "own": {"task": "own.yaml"}}, "runs": runs}
    with pytest.raises(UserInputError, match=r"The run own/no-adversary-seed0 \(part 'main'\): .*replies.jsonl"):
        world.make(content=content)
    assert world.asked == []


def test_a_run_that_another_process_makes_is_left_to_it(world):
    study = world.study()
    run = study.plan.runs()[1]
    with Claims((world.results,)).take(run):
        assert world.make() == []
        assert world.asked == [ALL[0], *ALL[2:]]
        assert world.said[-1].startswith("1 run left, which another process is making")
    assert world.make() == [] and world.asked == [ALL[0], *ALL[2:], ALL[1]]
    # Nothing of the claims is committed.
    assert (world.results / ".locks/.gitignore").read_text() == "*\n"


def test_two_share_a_study(world):
    threads = [threading.Thread(target=world.make, kwargs={"jobs": 2}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(world.asked) == sorted(ALL) and world.done == sorted(ALL)


def interrupted(world):
    """The folder of a run whose training was interrupted, and the run."""
    study = world.study()
    run = study.plan.runs()[1]
    folder = study.commands.folder(run)
    world.make([run.full_name], launcher=["true"])
    (folder / "of the interrupted one").touch()
    return folder, run


def log_of(world):
    return (world.folder / "log").read_text()


def test_an_interrupted_run_begins_again(world):
    folder, run = interrupted(world)
    (folder / "checkpoint-5").mkdir()  # incomplete
    world.make([run.full_name], keep_judges=True)
    assert "--resume_from_checkpoint" not in log_of(world) and not (folder / "of the interrupted one").exists()


def test_an_interrupted_run_goes_on_from_its_checkpoint(world):
    study = world.study()
    run = study.plan.runs()[1]
    folder = study.commands.folder(run)
    study.select()
    world.make([run.full_name], launcher=[str(world.launcher), "interrupted"], keep_judges=True)
    first = log_of(world)
    (folder / "results.json").unlink()
    (world.results / run.full_name / "results.json").unlink()
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5/trainer_state.json").write_text("{}")
    write_checkpoint_file(folder / "checkpoint-5", {})
    world.make([run.full_name], launcher=[str(world.launcher), "interrupted"], keep_judges=True)
    assert log_of(world) == first + first.strip() + " --resume_from_checkpoint true\n"
    # How long all of it takes is not known then.
    assert read_study(world.results)[0].about["seconds"] is None
    # Another command does not go on from there.
    (folder / "results.json").unlink()
    (world.results / run.full_name / "results.json").unlink()
    world.make([run.full_name])
    assert log_of(world).count("--resume_from_checkpoint") == 1 and not folder.exists()


def test_what_was_finished_but_not_kept_is_kept(world):
    world.make(keep_judges=True)
    assert len(list(world.work.rglob("model.safetensors"))) == 5
    for run in world.study().plan.runs():
        (result_folder(world.results, run) / "results.json").unlink()
    assert world.make() == [] and world.asked == ALL and world.done == sorted(ALL)
    assert not any(world.work.rglob("*.safetensors"))


def test_what_was_trained_on_another_task_file_is_not_kept(world):
    task = """{name: mine, labels: ["no", "yes"], template: "%s {{ text }}", source: x.jsonl, votes: {list: votes}}"""
    (world.folder / "x.jsonl").write_text('{"text": "a", "votes": ["no"]}\n')
    (world.folder / "mine.yaml").write_text(task % "first")
    content = {
        "data": {"first": {"task": "mine.yaml"}},
        "runs": {"main": {"data": ["first"], "methods": ["kl-only"]}},
    }
    assert world.make(content=content, keep_judges=True) == []
    shutil.rmtree(world.results / "first")
    # The judge is still there, and by the same file.
    assert world.make(content=content, keep_judges=True) == [] and len(world.asked) == 1
    assert any("was trained before, and is not trained again" in line for line in world.said)
    shutil.rmtree(world.results / "first")
    (world.folder / "mine.yaml").write_text(task % "second")
    assert world.make(content=content, keep_judges=True) == [] and len(world.asked) == 2
    # It changes while the run is made.
    shutil.rmtree(world.results / "first")
    study = world.study(content=content)
    (run,) = study.plan.runs()
    (world.folder / "mine.yaml").write_text(task % "third")
    assert study.work_through([run]) == [run]
    assert any("mine.yaml has changed since the study began" in line for line in world.said)
    assert len(world.asked) == 2, "nothing is trained of which no result can be kept"


def test_what_another_process_keeps_with_other_options_stops_no_training(world):
    """Found when a run is to be taken, or in a training's thread: that run has failed, and the others go on."""
    study = world.study()
    runs = study.plan.runs()
    first = Maker.make

    def make(self, run, missing):
        if run is runs[0]:
            other = replace(runs[2], options={**runs[2].options, "alpha": 0.1})
            keep(world.results, other, world.made, ABOUT)
        return first(self, run, missing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Maker, "make", make)
        failed = study.work_through(runs)
    assert [run.name for run in failed] == [ALL[2]]
    assert world.asked == [ALL[0], ALL[1], *ALL[3:]]
    assert any("was made with other options than the plan's: alpha 0.1 and unset" in line for line in world.said)


def result_run(world, content):
    """The first trained run of a plan."""
    return next(run for run in world.study(content=content).plan.runs() if run.is_trained)


def test_the_precision_is_that_of_the_training(world, tmp_path):
    """A training may have begun on another machine than the one that keeps its results."""
    made = tmp_path / "another"
    make_result(made, calibrate=False, provenance={"training": {"bf16": True, "fp16": False}})
    (made / "model.safetensors").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MADE", str(made))
        world.make(["first/no-adversary-seed0"])
    (result,) = read_study(world.results)
    assert result.about["machine"]["dtype"] == "bfloat16" != HERE["dtype"]
    # A judge that is trained once more, in another precision, to be tested elsewhere.
    content = {**CONTENT, "data": {**CONTENT["data"], "first": {"task": "snli", "transfer": {"chaosnli": None}}}}
    test = result_folder(world.work, result_run(world, content), "chaosnli")
    tests = ["sh", "-c", f"mkdir -p {test} && cp -R {world.made}/. {test}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distjudge_trl.study.commands.Commands.test", lambda *asked: tests)
        assert world.make(["first/no-adversary-seed0"], content=content) == []
    (result,) = (each for each in read_study(world.results) if "transfer" in each.about)
    assert result.about["machine"]["dtype"] == HERE["dtype"]


def test_a_machine_says_what_it_is_and_how_fast():
    found = describe_machine(2)
    assert found["jobs"] == 2 and found["cores"] >= 1 and found["name"] and found["gflops"] > 0.1
    assert found["dtype"] in ("float32", "bfloat16", "float16")


def test_processes_share_gpus_evenly(monkeypatch, tmp_path):
    monkeypatch.setattr("distjudge_trl.study.processes.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    processes, go = Processes(3), tmp_path / "go"
    command = ["sh", "-c", f'echo "$CUDA_VISIBLE_DEVICES"; until [ -e {go} ]; do sleep 0.05; done']
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    threads = [threading.Thread(target=processes.run, args=(command, log)) for log in logs]
    for thread in threads:
        thread.start()
    while not all(log.is_file() and log.stat().st_size for log in logs):
        time.sleep(0.05)
    go.touch()
    for thread in threads:
        thread.join()
    assert sorted(log.read_text().strip() for log in logs) == ["4", "4", "6"]
    assert processes.run(command, logs[0]) == 0 and logs[0].read_text().strip() in ("4", "6")


def test_a_process_that_is_stopped_ends_with_what_it_started(tmp_path):
    processes, log, codes = Processes(1), tmp_path / "log", []
    command = ["sh", "-c", "sleep 60 & echo $!; wait"]
    thread = threading.Thread(target=lambda: codes.append(processes.run(command, log)))
    thread.start()
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int(log.read_text())
    assert psutil.pid_exists(child)
    processes.stop()
    thread.join(60)
    assert codes == [None] and processes.run(["true"], None) is None
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Judges of `second` start from those of `first`.
CHAIN = {
    "options": {"num_train_epochs": 2, "use_peft": False},
    "data": {"first": {"task": "snli"}, "second": {"task": "vader", "start_from": "first"}},
    "runs": {
        "main": {"data": ["second", "first"], "methods": ["raw", "no-adversary"]},
        "more": {"data": ["second"], "methods": ["no-adversary"], "vary": {"alpha": [0.5]}},
    },
}


def models_of(world):
    """Folder of each training to the model that it was asked to train."""
    lines = [line.split() for line in (world.folder / "log").read_text().splitlines()]
    words = [dict(itertools.pairwise(line)) for line in lines]
    return [
        (Path(each["--output_dir"]).relative_to(world.work).as_posix(), each.get("--model_name_or_path"))
        for each in words
    ]


def test_a_judge_is_trained_further(world):
    assert world.make(content=CHAIN) == []
    start = str(world.work / "first/no-adversary-seed0")
    assert models_of(world) == [
        ("second/raw-seed0", None),  # an untrained model starts from no judge
        ("first/raw-seed0", None),
        ("first/no-adversary-seed0", None),
        ("second/no-adversary-seed0", start),
        ("second/no-adversary-alpha0.5-seed0", start),
    ]
    (result,) = [each for each in read_study(world.results) if each.about["vary"]]
    assert result.about["options"]["start_from"] == "first/no-adversary-seed0"
    assert not list(world.work.rglob("*.safetensors"))  # the first judge stays as long as another needs it


def test_the_judge_to_start_from_is_trained_again_if_it_was_deleted(world):
    world.make(["first"], content=CHAIN)
    before = read_study(world.results)
    for folder in world.work.rglob("no-adversary-seed0"):
        assert list(folder.glob("*.safetensors"))  # another needs it
        (folder / "model.safetensors").unlink()
    (world.folder / "log").unlink()
    assert world.make(["second/no-adversary-seed0"], content=CHAIN) == []
    start = str(world.work / "first/no-adversary-seed0")
    assert models_of(world) == [("first/no-adversary-seed0", None), ("second/no-adversary-seed0", start)]
    assert any("trained again, because its judge is not in --work" in line for line in world.said)
    assert {each.path: each.about for each in before}.items() <= {
        each.path: each.about for each in read_study(world.results)
    }.items()


def test_a_judge_that_is_there_needs_no_start(world):
    """As one whose test on another task was added later."""
    world.make(content=CHAIN, keep_judges=True)
    (world.work / "first/no-adversary-seed0/model.safetensors").unlink()
    shutil.rmtree(world.results / "second/no-adversary-seed0")
    (world.folder / "log").unlink()
    assert world.make(["second/no-adversary-seed0"], content=CHAIN) == []
    assert world.asked == [] and "no-adversary-seed0" in world.done


def test_a_judge_from_a_start_with_other_options_is_trained_again(world):
    world.make(content=CHAIN, keep_judges=True)
    shutil.rmtree(world.results)
    (world.folder / "log").unlink()
    data = {**CHAIN["data"], "first": {"task": "snli", "options": {"num_train_epochs": 9}}}
    assert world.make(["first", "second/no-adversary-seed0"], content={**CHAIN, "data": data}, keep_judges=True) == []
    assert world.asked == ["raw-seed0", "no-adversary-seed0", "no-adversary-seed0"]


def test_whole_weights_are_not_merged(world):
    """Without `use_peft`, as the recipe has it: VADER's trains all weights."""
    data = {"first": {"task": "vader"}, "second": {"task": "vader", "start_from": "first"}}
    runs = {"main": {"data": ["first", "second"], "methods": ["kl-only"]}}
    assert world.make(content={"options": {}, "data": data, "runs": runs}) == []
    assert models_of(world)[1] == ("second/kl-only-seed0", str(world.work / "first/kl-only-seed0"))


def test_what_cannot_be_said_keeps_no_training_from_being_stopped(world):
    """As when the terminal is closed, or the reader of a pipe has ended."""

    def say(line):
        if line.startswith("Stopping"):
            raise OSError(5, "Input/output error")
        if line.startswith("first/raw-seed0"):
            threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT]).start()

    study = world.study(launcher=["sh", "-c", "sleep 60", "sh"], say=say)
    begin = time.monotonic()
    with pytest.raises((KeyboardInterrupt, OSError)):
        study.work_through(study.plan.runs())
    assert time.monotonic() - begin < 30


def test_an_adapter_is_merged_once_also_after_a_merge_that_was_stopped(world, monkeypatch):
    content = {**CHAIN, "options": {**CHAIN["options"], "use_peft": True}}

    def merging(self, run):
        out = self.start_folder(run)
        script = f"test ! -e {out} && sleep 0.5 && mkdir {out} && touch {out}/{JUDGE_FILE_NAME}"
        return ["sh", "-c", f"{script} && echo once >> {world.folder}/merges"]

    monkeypatch.setattr("distjudge_trl.study.commands.Commands.merging", merging)
    world.make(["first"], content=content)
    (world.work / "first/no-adversary-seed0-merged/.saving-1").mkdir(parents=True)
    assert world.make(content=content, jobs=2) == []
    assert (world.folder / "merges").read_text() == "once\n"
    assert len(world.done) == 5


def test_another_precision_than_before_is_said(world):
    world.make(["first/no-adversary-seed0", "first/raw-seed0"])
    path = world.results / "first/no-adversary-seed0/results.json"
    results = json.loads(path.read_text())
    assert results["provenance"]["study"]["machine"]["dtype"] == HERE["dtype"] == "float32"
    results["provenance"]["study"]["machine"]["dtype"] = "bfloat16"
    path.write_text(json.dumps(results))
    world.make(["first/wide-seed0"])
    said = [line for line in world.said if "trained in" in line]
    assert len(said) == 1 and said[0].startswith("first: trained in bfloat16 so far, here in float32, which")
    world.make(["first/wide-seed1"])
    assert not any("trained in" in line for line in world.said), "there are judges in both"


def test_a_run_says_in_what_its_options_let_it_train(world):
    options = {**CONTENT.get("options", {}), "bf16": True}
    world.make(["first/no-adversary-seed0"], content={"options": options})
    (result,) = read_study(world.results)
    assert result.about["machine"] == {**HERE, "dtype": "bfloat16"}
    assert dtype_of({"bf16": False}, {"dtype": "bfloat16"}) == "float32"
    assert dtype_of({"fp16": True}, {"dtype": "bfloat16"}) == "float16"
    assert dtype_of({"use_cpu": True}, {"dtype": "that of a GPU"}) in ("float32", "bfloat16")


def test_all_methods_may_start_from_one_judge(world):
    data = {**CHAIN["data"], "second": {"task": "vader", "start_from": "first/no-adversary"}}
    runs = {
        "start": {"data": ["first"], "methods": ["no-adversary"]},
        "main": {"data": ["second"], "methods": ["kl-only"]},
    }
    assert world.make(content={**CHAIN, "data": data, "runs": runs}) == []
    assert models_of(world)[1] == ("second/kl-only-seed0", str(world.work / "first/no-adversary-seed0"))


def test_what_starts_from_a_judge_that_is_not_made_waits(world):
    assert world.make(["second/no-adversary-seed0"], content=CHAIN) == []
    assert world.asked == [] and world.done == []
    assert "1 run left to start from the judge of first/no-adversary-seed0, once that is done" in world.said[-1]


def test_a_result_from_another_start_is_refused(world):
    world.make(content=CHAIN)
    other = {**CHAIN, "data": {**CHAIN["data"], "second": {"task": "vader"}}}
    with pytest.raises(UserInputError, match="start_from first/no-adversary-seed0 and unset"):
        world.make(content=other)
    # The start has other options now, and was made again.
    shutil.rmtree(world.results / "first")
    data = {**CHAIN["data"], "first": {"task": "snli", "options": {"num_train_epochs": 9}}}
    match = r"in the judge of first/no-adversary-seed0, from which it starts, num_train_epochs 2 and 9"
    with pytest.raises(UserInputError, match=match):
        world.make(content={**CHAIN, "data": data})


def test_a_judge_of_another_command_is_no_start(world):
    """`--work` may hold what another plan has left."""
    world.make(["first"], content=CHAIN)
    (world.work / "first/no-adversary-seed0/command.txt").write_bytes(b"\xff another command")
    (world.folder / "log").unlink()
    assert world.make(["second/no-adversary-seed0"], content=CHAIN) == []
    assert world.asked == ["no-adversary-seed0", "no-adversary-seed0"]


def test_the_time_of_a_start_that_is_trained_again_counts(world):
    world.make(content=CHAIN)
    for name in ("first/no-adversary-seed0", "second/no-adversary-seed0"):
        path = world.results / name / "results.json"
        results = json.loads(path.read_text())
        results["provenance"]["study"]["seconds"] = 7200.0 if name.startswith("first") else 30.0
        path.write_text(json.dumps(results))
    shutil.rmtree(world.results / "second/no-adversary-alpha0.5-seed0")
    assert world.make(seconds=600, content=CHAIN) == []
    assert "no-adversary-alpha0.5-seed0" not in world.done and ": the time is up" in world.said[-1]


def test_an_untrained_model_is_read_and_split_as_the_judges_are(world):
    """On another task: by its official split if it has one, and with prompts as long."""
    content = {
        "options": {"max_length": 64, "calibrate": True},
        "data": {"first": {"task": "hs_brexit", "transfer": {"convabuse": None}}},
        "runs": {"main": {"data": ["first"], "methods": ["raw", "kl-only"]}},
    }
    study = world.study(content=content)
    raw, judge = study.plan.runs()
    words = study.commands.test(raw, "convabuse", world.work, "small", world.results)
    assert words[words.index("--split") + 1] == "official" and words[words.index("--max-length") + 1] == "64"
    assert "--prompt-template" not in words
    words = study.commands.test(judge, "convabuse", world.work, "its folder", None)
    assert "--calibrated" in words and "--split" not in words
    content["options"]["calibrate"] = False
    study = world.study(content=content)
    words = study.commands.test(study.plan.runs()[1], "convabuse", world.work, "its folder", None)
    assert "--calibrated" not in words


def test_a_test_on_a_task_with_other_labels_is_refused_before_anything_is_started(world):
    content = {
        "data": {"first": {"task": "snli", "transfer": {"vader": None}}},
        "runs": {"main": {"data": ["first"], "methods": ["kl-only"]}},
    }
    with pytest.raises(UserInputError, match=r"transfer`: judges of first answer with .*, the task 'vader' with"):
        world.make(content=content)
    assert world.asked == []
