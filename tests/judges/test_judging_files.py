"""Judging a file: what a full disk costs, and what is left beside the output."""

import json

import numpy as np
import pytest
from conftest import small_files

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, RunFailedError, UserInputError
from distjudge_trl.judges.files import judge_jsonl
from distjudge_trl.labels import LabelSpace


class StandIn:
    """A judge without a model; `meanwhile` is called while it reads."""

    label_space = LabelSpace(["bad", "good"])

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile
        self.num_judged = 0

    def judge(self, items, batch_size, progress):
        self.meanwhile()
        self.num_judged += len(items)
        return np.tile([1 / 3, 2 / 3], (len(items), 1))


@pytest.fixture()
def paths(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": "a" * 50}) + "\n" for _ in range(20)))
    (tmp_path / "out.jsonl").write_text("old")
    return str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_without_room_for_the_output_nothing_is_read(paths, tmp_path):
    judge = StandIn()
    # The input's lines fit, not their distributions.
    with small_files(2000), pytest.raises(RunFailedError, match=r"out.jsonl: cannot be written \(File too large\)"):
        judge_jsonl(lambda: judge, *paths)
    assert judge.num_judged == 0
    assert (tmp_path / "out.jsonl").read_text() == "old" and names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_the_room_that_is_held_is_enough(paths, tmp_path):
    with pytest.raises(RunFailedError, match="Make room"), small_files(2900):
        judge_jsonl(StandIn, *paths)
    with small_files(3200):
        judge_jsonl(StandIn, *paths)
    assert 2500 < (tmp_path / "out.jsonl").stat().st_size <= 3200


def test_a_disk_that_fills_up_in_the_meantime_is_one_line(paths, tmp_path):
    limit = small_files(500)
    with pytest.raises(RunFailedError, match=r"out.jsonl: cannot be written \(File too large\). Make room and try"):
        try:
            judge_jsonl(lambda: StandIn(limit.__enter__), *paths)
        finally:
            limit.__exit__(None, None, None)
    assert (tmp_path / "out.jsonl").read_text() == "old" and names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_runs_with_one_output_share_no_temporary_file(paths, tmp_path):
    seen = []
    judge_jsonl(lambda: StandIn(lambda: seen.extend(names(tmp_path))), *paths)
    assert seen == ["in.jsonl", "out.jsonl"]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


def test_a_row_without_a_prompt_is_found_before_the_judge_is_loaded(paths):
    def never():
        raise AssertionError("the judge was loaded")

    with open(paths[0], "a") as file:
        file.write('\n{"text": " "}\n')
    template = PromptTemplate([{"role": "user", "content": "Rate {{ text }}"}])
    with pytest.raises(JudgmentDataError, match=r"in.jsonl, row 22, field `text`: is ' '"):
        judge_jsonl(never, *paths, find_template=lambda: template)
    with pytest.raises(JudgmentDataError, match=r"in.jsonl, row 1, field `prompt`: is missing"):
        judge_jsonl(never, *paths, find_template=lambda: None)
    other = PromptTemplate([{"role": "user", "content": "Rate {{ reply }}"}])
    with pytest.raises(JudgmentDataError, match=r"in.jsonl, row 1: .*reply"):
        judge_jsonl(never, *paths, find_template=lambda: other)


def test_an_error_of_the_model_s_is_none_of_the_output_s(paths):
    def broken():
        raise OSError(28, "No space left on device", "/cache/model.safetensors")

    with pytest.raises(OSError, match="model.safetensors"):
        judge_jsonl(broken, *paths)
    with pytest.raises(UserInputError, match="cannot be written .No such file"):
        judge_jsonl(broken, paths[0], paths[1].replace("out.jsonl", "no/out.jsonl"))
