"""Golden files: every task's prompts, as a model with and without chat template reads them.

A deliberate change of a prompt is written anew with `REWRITE_GOLDEN=1 pytest tests/tasks/test_prompts.py`.
"""

import os
from pathlib import Path

import pytest
from examples import CHAOSNLI, HELPSTEER2, HELPSTEER2_PREFERENCE, MNLI, MTBENCH, SNLI, SUMMEVAL, write
from lewidi_examples import FILES, ITEMS, write_items

from distjudge_trl.batching import render_prompt
from distjudge_trl.tasks import get_task, list_tasks


GOLDEN = Path(__file__).parent / "golden"

SOURCES = {
    "snli": ("snli_1.0_test.jsonl", SNLI[:1]),
    "mnli": ("multinli_1.0_dev_matched.jsonl", MNLI[:1]),
    "chaosnli": ("chaosNLI_snli.jsonl", CHAOSNLI[:1]),
    "summeval": ("model_annotations.aligned.paired.jsonl", SUMMEVAL[:1]),
    "mtbench": ("human.jsonl", MTBENCH[4:6]),
    "helpsteer2": ("disagreements.jsonl", HELPSTEER2[1:]),
    "helpsteer2_pref": ("preference.jsonl", HELPSTEER2_PREFERENCE[:1]),
    "vader": ("vader_lexicon.txt", None),
    **{name: (f"{FILES[name]}_train.json", items) for name, items in ITEMS.items()},
}

# A model that would think before it answers, unless it is told not to: the way Qwen 3's template says it.
THINKING_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def records_of(name, folder):
    file, rows = SOURCES[name]
    path = folder / file
    if rows is None:
        path.write_text("meh\t-0.3\t0.8\t[0, 0, -1, -1, 0, 1, 0, -2, 0, 0]\n", encoding="utf-8")
    elif isinstance(rows, dict):
        write_items(path, rows)
    else:
        write(path, rows)
    return get_task(name).load(path)


@pytest.mark.parametrize("name", list_tasks())
def test_prompts_are_those_of_the_golden_files(name, tmp_path, tokenizer, monkeypatch):
    text = ""
    for record in records_of(name, tmp_path):
        text += f"=== {record['id']}: with a chat template\n{render_prompt(tokenizer, record['prompt'])}\n"
    monkeypatch.setattr(tokenizer, "chat_template", None)
    text += f"=== {record['id']}: without\n{render_prompt(tokenizer, record['prompt'])}<end>\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list_tasks())
def test_every_prompt_lists_the_answers_and_asks_for_nothing_else(name, tmp_path):
    task = get_task(name)
    for record in records_of(name, tmp_path):
        content = record["prompt"][-1]["content"]
        assert all(label in content for label in task.labels)
        assert "nswer only with" in content
        assert "undefined" not in content and "{{" not in content and "{%" not in content


@pytest.mark.parametrize("name", list_tasks())
def test_models_that_think_are_told_not_to(name, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", THINKING_TEMPLATE)
    for record in records_of(name, tmp_path):
        assert render_prompt(tokenizer, record["prompt"]).endswith("<assistant><think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", list_tasks())
def test_labels_are_told_apart_behind_the_prompt(name, tmp_path, tokenizer):
    for record in records_of(name, tmp_path):
        get_task(name).label_space().bind(tokenizer, render_prompt(tokenizer, record["prompt"]))


def test_another_template_replaces_the_task_s(tmp_path):
    from distjudge_trl.data import PromptTemplate

    (tmp_path / "mine.jinja").write_text("{{ premise }} -> {{ hypothesis }}: entailment, neutral, contradiction?\n")
    template = PromptTemplate.from_file(tmp_path / "mine.jinja")
    write(tmp_path / "snli_1.0_test.jsonl", SNLI)
    record = get_task("snli").load(tmp_path, template=template)[0]
    assert record["prompt"] == [
        {
            "role": "user",
            "content": "A woman mends a bicycle in the yard. -> The bicycle has a flat tyre.:"
            " entailment, neutral, contradiction?",
        }
    ]
