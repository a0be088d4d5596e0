"""A judge as TRL's reward, and as the function of `datasets.map`."""

import runpy
import sys

import datasets
import numpy as np
import pytest
from conftest import ROOT, make_tiny_judge

from distjudge_trl import Judge
from distjudge_trl.data import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return make_tiny_judge(tmp_path_factory.mktemp("judge"), tokenizer)


@pytest.fixture(scope="module")
def judge(folder):
    return Judge.from_pretrained(folder)


@pytest.fixture(scope="module")
def of_answers(folder):
    template = PromptTemplate([{"role": "user", "content": "{{ question }} {{ answer }} {{ topic }}"}])
    return Judge.from_pretrained(folder, label_space=LabelSpace(["yes", "no"]), template=template)


def test_the_reward_is_the_mean_that_the_judge_expects(judge):
    reward = judge.as_reward()
    texts = ["yes", "no no", "the text"]
    given = [[{"role": "assistant", "content": text}] for text in texts]
    prompts = [[{"role": "user", "content": "Say something."}]] * 3
    expected = judge.judge([{"text": text} for text in texts]) @ [1, 2, 3, 4, 5]
    found = reward(prompts=prompts, completions=given, completion_ids=[[1]] * 3, trainer_state=None)
    assert all(isinstance(value, float) for value in found) and reward.__name__ == "judge_mean"
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(reward(["?"] * 3, texts), expected, atol=1e-5)


def test_a_completion_without_text_gets_the_lowest_reward(judge, of_answers):
    assert judge.as_reward()(["?"] * 2, [" ", ""]) == [1.0, 1.0]
    reward = of_answers.as_reward("answer", prompt="question", label="yes")
    assert reward(["?"], [""], topic=["sea"]) == [0.0]


def test_a_label_s_probability_with_columns_of_the_training_data(of_answers):
    reward = of_answers.as_reward("answer", prompt="question", label="YES")
    item = {"question": "is it", "answer": "the text", "topic": "sea"}
    found = reward(["is it"], [[{"role": "assistant", "content": "the text"}]], topic=["sea"], other=[1])
    assert found == pytest.approx([of_answers.judge([item])[0, 0]], abs=1e-6)
    with pytest.raises(UserInputError, match="shows topic, and the training data has no such column"):
        reward(["is it"], ["the text"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("reply",), "no field 'reply'; it has answer, question, topic"),
        ((), "Which field shows the completion"),
        (("answer",), "have no order, so they have no mean"),
        (("answer", "label", "maybe"), "unknown label 'maybe'"),
        (("answer", "readout", "entropy"), "readout='entropy' is no reward"),
    ],
)
def test_what_is_no_reward(of_answers, args, message):
    with pytest.raises(UserInputError, match=message):
        of_answers.as_reward(*args[:1], **dict([args[1:]] if len(args) > 1 else []))


def test_five_steps_of_grpo(folder, recipe_model, tmp_path, monkeypatch):
    words = ["--judge", folder, "--model", recipe_model, "--steps", "5", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["grpo_reward.py", *words])
    names = runpy.run_path(str(ROOT / "docs/examples/grpo_reward.py"))
    rewards = [row["rewards/judge_mean/mean"] for row in names["trainer"].state.log_history if "reward" in row]
    assert len(rewards) == 5 and all(1 <= reward <= 5 for reward in rewards)


def test_a_data_set_is_judged_by_map(judge, of_answers):
    data = datasets.Dataset.from_dict({"text": ["yes", "no", "the text"], "id": [1, 2, 3]})
    judged = data.map(judge.as_map(), batched=True, batch_size=2)
    assert judged.column_names[:4] == ["text", "id", "label_distribution", "label"]
    expected = judge.judge([{"text": text} for text in data["text"]]) @ [1, 2, 3, 4, 5]
    np.testing.assert_allclose(judged["mean"][:], expected, atol=1e-5)
    assert data.map(judge.as_map("label"), batched=True).column_names == ["text", "id", "label"]
    # A row at a time, a text must not be taken for a column of letters.
    np.testing.assert_allclose(data.map(judge.as_map(["mean"]))["mean"][:], expected, atol=1e-5)
    prompts = datasets.Dataset.from_dict({"prompt": [judge.template.render({"text": text}) for text in data["text"]]})
    for batched in (False, True):
        found = prompts.map(judge.as_map("mean"), batched=batched)["mean"][:]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserInputError, match="needs labels with an order"):
        of_answers.as_map(["mean"])
    with pytest.raises(Exception, match="without `num_proc`"):
        data.map(judge.as_map(), batched=True, num_proc=2)
