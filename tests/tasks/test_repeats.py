"""Prompts that repeat for most items: an error that names the fields, wherever a model is to read them."""

import pytest
from click.testing import CliRunner
from examples import CHAOSNLI, HELPSTEER2, MNLI, MTBENCH, SNLI, SUMMEVAL, write

from distjudge_trl.batching import PromptFitter
from distjudge_trl.cli import main
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.tasks import LoadReport, get_task


SHOWN = {"snli": SNLI, "mnli": MNLI, "chaosnli": CHAOSNLI, "summeval": SUMMEVAL, "mtbench": MTBENCH,
         "helpsteer2": HELPSTEER2}  # fmt: skip
NAMES = {"snli": "snli_1.0_test.jsonl", "mnli": "multinli_1.0_dev_matched.jsonl", "chaosnli": "chaosNLI_snli.jsonl",
         "summeval": "model_annotations.aligned.paired.jsonl", "mtbench": "human.jsonl",
         "helpsteer2": "disagreements.jsonl"}  # fmt: skip


def make(folder, template, texts):
    rows = [{"n": i, "text": text, "reply": f"reply {i}", "votes": ["1", "2"]} for i, text in enumerate(texts)]
    write(folder / "r.jsonl", rows)
    path = folder / "task.yaml"
    path.write_text(
        f"name: t\nlabels: ['1', '2']\ntemplate: '{template}'\nsource: r.jsonl\nid: n\nvotes: {{list: votes}}\n"
    )
    return get_task(str(path))


@pytest.mark.parametrize("different", [1, 4, 5])
def test_most_prompts_that_repeat_are_an_error_that_names_the_fields(tmp_path, tokenizer, different):
    task = make(tmp_path, "Rate {{ text }}. 1 or 2?", [f"text {i % different}" for i in range(10)])
    assert len(task.load()) == 10, "without a model it is only counted"
    report = LoadReport()
    if different == 5:  # half of them
        assert len(task.load(fitter=PromptFitter(tokenizer, 500), report=report)) == 10
        assert report.repeats.repeated == 5 and report.repeats.total == 10
        return
    with pytest.raises(UserInputError) as error:
        task.load(fitter=PromptFitter(tokenizer, 500), report=report)
    text = str(error.value)
    assert f"{10 - different} of 10 prompts repeat another one" in text and "\n" not in text
    assert f"{{{{ text }}}} ({different} different)" in text and "they also have" in text and "reply" in text


def test_a_template_without_fields_is_refused_and_few_items_are_not(tmp_path, tokenizer):
    template = PromptTemplate([{"role": "user", "content": "Rate it. 1 or 2?"}])
    task = make(tmp_path, "Rate {{ text }}. 1 or 2?", ["a"] * 3)
    assert len(task.load(fitter=PromptFitter(tokenizer, 500))) == 3
    with pytest.raises(UserInputError, match="the template shows nothing of the item"):
        task.load(template=template, fitter=PromptFitter(tokenizer, 500))


def test_prompts_that_are_the_same_only_when_they_are_shortened(tmp_path, tokenizer):
    task = make(tmp_path, "Rate {{ text }}. 1 or 2?", ["word " * 200 + str(i) + " word" * 200 for i in range(10)])
    with pytest.raises(UserInputError, match="9 of 10 prompts repeat"):
        task.load(fitter=PromptFitter(tokenizer, 200))


@pytest.mark.parametrize("name", SHOWN)
def test_the_shipped_tasks_pass(tmp_path, tokenizer, name):
    write(tmp_path / NAMES[name], SHOWN[name])
    assert len(get_task(name).load(tmp_path, fitter=PromptFitter(tokenizer, 5000)))


def test_vader_passes(lexicon, tokenizer):
    report = LoadReport()
    assert len(get_task("vader").load(lexicon, fitter=PromptFitter(tokenizer, 5000), report=report)) > 400
    assert report.repeats.repeated < 5


def test_the_command_prints_what_there_is_to_see_and_fails(tmp_path, recipe_model):
    make(tmp_path, "Rate {{ text }}. 1 or 2?", ["same"] * 10)
    words = ["data", str(tmp_path / "task.yaml"), "--show", "1", "--stats"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and "Repeated prompts: 7 within train" in done.output, done.output
    done = CliRunner().invoke(main, [*words, "--model", recipe_model, "--out", str(tmp_path / "r.parquet")])
    assert done.exit_code == 2 and "Rate same." in done.output
    assert "9 of 10 prompts repeat another one" in done.output.splitlines()[-1]
    assert not (tmp_path / "r.parquet").exists()


def test_the_command_shows_prompts_shortened_as_in_training(tmp_path, recipe_model):
    make(tmp_path, "Rate {{ text }}. 1 or 2?", [f"{i} " + "word " * 100 for i in range(3)])
    words = ["data", str(tmp_path / "task.yaml"), "--show", "1", "--model", recipe_model]
    done = CliRunner().invoke(main, [*words, "--max-length", "150"])
    assert done.exit_code == 0 and "[...]" in done.output and "<|im_start|>assistant" in done.output
    assert "[...]" not in CliRunner().invoke(main, words).output
