"""Judging a file: mistakes that are found early, what a full disk costs, and what is left beside the output."""

import json
import tracemalloc

import numpy as np
import pytest
from conftest import small_files

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, RunFailedError, UserInputError
from distjudge_trl.judges.base import Judgments, PromptJudge
from distjudge_trl.judges.files import judge_file, judge_jsonl
from distjudge_trl.judges.partial import PartialOutput, Progress
from distjudge_trl.judges.work import JudgingOptions, KnownJudge
from distjudge_trl.labels import LabelSpace


SPACE = LabelSpace(["bad", "good"])
TEMPLATE = PromptTemplate([{"role": "user", "content": "Rate {{ text }}"}])
KNOWN = KnownJudge(SPACE, TEMPLATE, "a hash")
# Windows of 16 rows.
SMALL = JudgingOptions(batch_size=1, columns=("label_distribution",))


class StandIn(PromptJudge):
    """A judge without a model; `meanwhile` is called while it reads."""

    label_space, template = SPACE, TEMPLATE

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile
        self.num_judged = 0

    def _read_prompts(self, prompts, batch_size, progress):
        self.meanwhile()
        self.num_judged += len(prompts)
        good = np.array([2 / 3 if len(prompt[0]["content"]) % 2 else 1 / 3 for prompt in prompts]).reshape(-1, 1)
        return Judgments(np.log(np.hstack([1 - good, good])), np.full(len(prompts), 0.5), np.zeros((len(prompts), 2)))


@pytest.fixture()
def paths(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": "a" * (50 + i)}) + "\n" for i in range(100)))
    (tmp_path / "out.jsonl").write_text("old")
    return str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(judge, paths, options=SMALL):
    return judge_file(lambda _: judge, *paths, options, find_judge=lambda: KNOWN)


def test_without_room_for_the_output_nothing_is_judged(paths, tmp_path):
    judge = StandIn()
    # The input's lines fit, not their distributions.
    assert (tmp_path / "in.jsonl").stat().st_size < 12_000
    with small_files(12_000), pytest.raises(RunFailedError, match=r"out.jsonl: cannot be written \(File too large\)"):
        run(judge, paths)
    assert judge.num_judged == 0
    assert (tmp_path / "out.jsonl").read_text() == "old" and names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_disk_that_fills_up_in_the_meantime_costs_what_did_not_fit(paths, tmp_path):
    judge, limit = StandIn(), small_files(9_000)
    judge.meanwhile = lambda: limit.__enter__() if judge.num_judged == 16 else None
    with pytest.raises(
        RunFailedError, match=r"out.jsonl.part: cannot be written \(File too large\). Make room and run"
    ):
        try:
            run(judge, paths)
        finally:
            limit.__exit__(None, None, None)
    assert (tmp_path / "out.jsonl").read_text() == "old" and "out.jsonl.part" in names(tmp_path)
    done = json.loads((tmp_path / "out.jsonl.part/progress.json").read_text())["done"]
    assert 16 <= done < 64
    again = StandIn()
    run(again, paths)
    assert again.num_judged == 100 - done and names(tmp_path) == ["in.jsonl", "out.jsonl"]
    written = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == ["a" * (50 + i) for i in range(100)]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_file_is_never_held(tmp_path, name):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"{i} " * 1000}) + "\n" for i in range(4000)))
    assert (tmp_path / "in.jsonl").stat().st_size > 16e6
    run(StandIn(), (str(tmp_path / "in.jsonl"), str(tmp_path / "warm.up")), JudgingOptions(batch_size=100))
    tracemalloc.start()
    try:
        run(StandIn(), (str(tmp_path / "in.jsonl"), str(tmp_path / name)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6


def test_two_runs_with_one_output_do_not_mix(paths, tmp_path):
    def other():
        with pytest.raises(UserInputError, match=r"out.jsonl.part: another process is judging into it"):
            run(StandIn(), paths)

    run(StandIn(other), paths)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 100


def test_two_runs_that_begin_at_once_do_not_mix(paths, tmp_path):
    def load(_):
        # Both have seen that there is no folder. The first one makes it, and the second one is about to.
        first.begin(Progress({}, 100, ["label_distribution"]))
        first.append(b"{}", Progress({}, 100, ["label_distribution"], done=1))
        return StandIn()

    first = PartialOutput(tmp_path / "out.jsonl")
    with pytest.raises(UserInputError, match="another process is judging into it"):
        judge_file(load, *paths, SMALL, find_judge=lambda: KNOWN)
    assert first.rows.read_bytes() == b"{}"


def test_a_run_that_is_killed_after_the_target_is_written_is_done(paths, tmp_path):
    class Killed(BaseException):
        pass

    def kill(_):
        raise Killed

    judge = StandIn()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PartialOutput, "discard", kill)
        run(judge, paths)
    written = (tmp_path / "out.jsonl").read_text()
    assert len(written.splitlines()) == 100 and names(tmp_path / "out.jsonl.part")
    run(judge, paths)
    assert judge.num_judged == 100 and (tmp_path / "out.jsonl").read_text() == written
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_folder_of_the_user_s_is_left_alone(paths, tmp_path):
    (tmp_path / "out.jsonl.part").mkdir()
    (tmp_path / "out.jsonl.part/thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserInputError, match=r"out.jsonl.part: is in the way; .* Rename it"):
            run(StandIn(), paths, JudgingOptions(overwrite=overwrite))
    assert names(tmp_path / "out.jsonl.part") == ["thesis.tex"]


def test_a_row_without_a_prompt_is_found_before_the_judge_is_loaded(paths):
    def never():
        raise AssertionError("the judge was loaded")

    with open(paths[0], "a") as file:
        file.write('\n{"text": " "}\n')
    with pytest.raises(JudgmentDataError, match=r"in.jsonl, row 102, field `text`: is ' '"):
        judge_jsonl(never, *paths, find_template=lambda: TEMPLATE)
    with pytest.raises(JudgmentDataError, match=r"in.jsonl, row 1, field `prompt`: is missing"):
        judge_jsonl(never, *paths, find_template=lambda: None)
    other = PromptTemplate([{"role": "user", "content": "Rate {{ reply }}"}])
    with pytest.raises(JudgmentDataError, match=r"in.jsonl, row 1: .*reply"):
        judge_jsonl(never, *paths, find_template=lambda: other)


def test_the_distribution_alone(paths, tmp_path):
    assert judge_jsonl(StandIn, *paths) == 100
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert set(first) == {"text", "label_distribution"}


def test_an_error_of_the_model_s_is_none_of_the_output_s(paths):
    def broken():
        raise OSError(28, "No space left on device", "/cache/model.safetensors")

    with pytest.raises(OSError, match="model.safetensors"):
        judge_jsonl(broken, *paths)
    with pytest.raises(UserInputError, match="cannot be written .No such file"):
        judge_jsonl(broken, paths[0], paths[1].replace("out.jsonl", "no/out.jsonl"))
