"""Labels that a tokenizer cannot tell apart are found before weights are loaded."""

import pytest
from conftest import make_tiny_model
from test_custom import write_task

from distjudge_trl.data import PromptTemplate
from distjudge_trl.errors import LabelSpaceError, UserInputError
from distjudge_trl.judges.local import LocalJudge
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe import Recipe


@pytest.fixture
def without_weights(tmp_path, tokenizer):
    """A model's folder of which only the weights are missing."""
    make_tiny_model(len(tokenizer)).config.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_judge(without_weights):
    template = PromptTemplate([{"role": "user", "content": "{{ text }}"}])
    with pytest.raises(LabelSpaceError, match="`answers: letters`"):
        LocalJudge(without_weights, label_space=LabelSpace(["1", "10"]), template=template)
    answers = {"1": "A", "10": "B"}
    with pytest.raises(UserInputError, match="cannot be loaded"):
        LocalJudge(without_weights, label_space=LabelSpace(["1", "10"], answers=answers), template=template)


def test_a_training_run(tmp_path, without_weights):
    """Before the data, too, which do not exist here."""
    task = write_task(tmp_path, labels=["-1", "-2"], source="none.csv")
    with pytest.raises(LabelSpaceError, match="'-1', '-2' all begin with the token '-'"):
        Recipe(task=None, model=without_weights).run(["--task", task, "--output_dir", str(tmp_path / "judge")])
