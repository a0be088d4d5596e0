"""Whether a prompt says what the judge's answers mean."""

import json

import pytest
from click.testing import CliRunner
from conftest import make_tiny_model

from distjudge_trl.cli import main
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe import Recipe
from distjudge_trl.report.findings import answer_findings


LETTERS = {"1": "A", "1.5": "B", "2": "C"}


@pytest.mark.parametrize(
    ("answers", "text", "said"),
    [
        (LETTERS, "Rate {{ text }} from 1 to 2. Answer with a letter.", "A: 1, B: 1.5, C: 2. Let the template show"),
        (LETTERS, "Rate {{ text }} with A, B or C.", "A: 1, B: 1.5, C: 2"),
        (LETTERS, "Rate {{ text }}: 1 is A, 1.5 is B, 2 is C.", None),
        (LETTERS, "Rate {{ text }}.\n{{ legend }}", None),
        (LETTERS, "{{ A }} {# B #}{% if C %}1, 1.5, 2{% endif %}", "A: 1, B: 1.5, C: 2"),
        ({"1": "bad", "1.5": "fair", "2": "good"}, "Is {{ text }} bad, fair or good?", None),
        ({"1": "bad", "1.5": "fair", "2": "good"}, "Is {{ text }} bad, unfair or good?", "mean: fair: 1.5. Let"),
        (None, "Rate {{ text }}.", None),
    ],
)
def test_answers_that_nobody_can_know_are_named(answers, text, said):
    space = LabelSpace(["1", "1.5", "2"], None, True, answers)
    template = PromptTemplate([{"role": "user", "content": text}]).with_legend(space.legend)
    found = answer_findings(space, template)
    assert (said is None and not found) or said in found[0].text
    many = LabelSpace(list(map(str, range(20))), None, True, {str(i): "ABCDEFGHIJKLMNOPQRST"[i] for i in range(20)})
    (finding,) = answer_findings(many, PromptTemplate([{"role": "user", "content": "{{ text }}"}]))
    assert "H: 7, ... and 12 more" in finding.text


def test_the_commands_say_so(tmp_path, tokenizer, capsys):
    rows = [{"text": f"text {i}", "votes": ["1", "1.5", str(1 + i % 2)]} for i in range(20)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "task.yaml"
    path.write_text(
        "name: t\nlabels: ['1', '1.5', '2']\nanswers: letters\ntemplate: 'rate {{ text }}'\nsource: r.jsonl\n"
        "votes: {list: votes}\n"
    )
    said = "The prompt does not say what the judge's answers mean: A: 1, B: 1.5, C: 2."
    done = CliRunner().invoke(main, ["data", str(path)])
    assert done.exit_code == 0 and said in done.output
    make_tiny_model(len(tokenizer), context=256).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    recipe = Recipe(task=None, model=str(tmp_path / "model"), training={"max_steps": 1, "save_strategy": "no"})
    words = ["--task", str(path), "--output_dir", str(tmp_path / "out"), "--bf16", "False", "--use_cpu"]
    recipe.run([*words, "--method", "raw"])
    assert f"t: {said}" in capsys.readouterr().out
    path.write_text(path.read_text().replace("rate {{ text }}", "rate {{ text }} {{ legend }}"))
    assert "does not say" not in CliRunner().invoke(main, ["data", str(path)]).output
