"""Runs of recipes on models as people have them: chat templates of several families, a date, a part for images."""

import json
from datetime import date

import pytest
from click.testing import CliRunner
from conftest import make_tiny_model, make_tokenizer

from distjudge_trl import Judge
from distjudge_trl.batching import encode_prompts
from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.recipe import Recipe
from distjudge_trl.runtime.dates import TODAY


TURN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}<assistant>"
DATED = "Today Date: {{ strftime_now('%d %b %Y') }}\n" + TURN
PARTS = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}<assistant>"
MESSAGES = [{"role": "user", "content": "rate text 1"}]


def make_model(folder, template, model=None):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.pad_token = None
    (model if model is not None else make_tiny_model(len(tokenizer), context=512)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def run(folder, model, *options, out="out"):
    rows = [{"text": f"text {i}", "votes": ["1", "2", "3", "1", str(i % 3 + 1)]} for i in range(40)]
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(
        "name: t\nlabels: ['1', '2', '3']\ntemplate:\n  - {role: system, content: You judge.}\n"
        "  - {role: user, content: 'rate {{ text }}'}\nsource: r.jsonl\nvotes: {list: votes}\n"
    )
    words = ["--task", str(folder / "task.yaml"), "--output_dir", str(folder / out), "--bf16", "False"]
    recipe = Recipe(task=None, model=model, training={"max_steps": 2, "save_strategy": "no"})
    return recipe.run([*words, "--use_cpu", "--per_device_train_batch_size", "4", *options])


class Tomorrow(date):
    @classmethod
    def today(cls):
        return cls(2031, 5, 6)


def test_the_date_of_training_stays_with_the_judge(tmp_path, monkeypatch, capsys):
    model = make_model(tmp_path / "model", DATED)
    steps = ("--save_strategy", "steps", "--save_steps", "1")
    run(tmp_path, model, *steps)
    today = date.today()
    assert f"The chat template prints the date: it is {today} in every prompt." in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert written["template_date"] == today.isoformat()
    judge = Judge.from_pretrained(str(tmp_path / "out"))
    ids, answers = encode_prompts(judge.tokenizer, [MESSAGES]), judge.judge([{"text": "text 1"}])

    # The judge on another day: the same prompt, also in an evaluation and where a run goes on.
    monkeypatch.setattr("distjudge_trl.runtime.dates.date", Tomorrow)
    judge = Judge.from_pretrained(str(tmp_path / "out"))
    assert encode_prompts(judge.tokenizer, [MESSAGES]) == ids
    assert today.strftime("Today Date: %d %b %Y") in judge.tokenizer.decode(ids[0])
    assert judge.judge([{"text": "text 1"}]).tolist() == answers.tolist()
    assert judge.reading()["template_date"] == today.isoformat()
    words = ["evaluate", "--task", str(tmp_path / "task.yaml"), "--device", "cpu", "--seed", "0"]
    done = CliRunner().invoke(main, [*words, "--model", str(tmp_path / "out"), "--out", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    assert read_results(tmp_path / "again")["provenance"]["reading"]["template_date"] == today.isoformat()
    first, again = (read_predictions(tmp_path / name) for name in ("out", "again"))
    by_id = dict(zip(first["id"], first["judge_distribution"], strict=True))
    for name, row in zip(again["id"], again["judge_distribution"], strict=True):
        assert row == pytest.approx(by_id[name], abs=1e-5)
    run(tmp_path, model, *steps, "--max_steps", "3", "--resume_from_checkpoint", str(tmp_path / "out/checkpoint-2"))
    assert JudgeFile.read(tmp_path / "out").template_date == today.isoformat()
    # Another run begins on its own day, and an untrained model reads on this one.
    run(tmp_path, model, out="new")
    assert JudgeFile.read(tmp_path / "new").template_date == "2031-05-06"
    raw = Judge.from_pretrained(model, label_space=judge.label_space)
    assert raw.reading()["template_date"] == "2031-05-06" and encode_prompts(raw.tokenizer, [MESSAGES]) != ids


def test_runs_of_a_sweep_print_the_day_on_which_it_began(tmp_path, monkeypatch):
    monkeypatch.setenv(TODAY, "2030-01-02")
    monkeypatch.setattr("distjudge_trl.runtime.dates.date", Tomorrow)
    run(tmp_path, make_model(tmp_path / "model", DATED), "--max_steps", "1")
    assert JudgeFile.read(tmp_path / "out").template_date == "2030-01-02"


def test_a_file_without_a_date_is_as_before(tmp_path):
    JudgeFile({"labels": ["1", "2"]}).write(tmp_path)
    assert "template_date" not in json.loads((tmp_path / "judge.json").read_text())
    JudgeFile({"labels": ["1", "2"]}, template_date="2024-02-29").write(tmp_path)
    assert JudgeFile.read(tmp_path).template_date == "2024-02-29"
    for wrong in ("yesterday", 3):
        JudgeFile({"labels": ["1", "2"]}, template_date=wrong).write(tmp_path)
        with pytest.raises(UserInputError, match="is damaged"):
            JudgeFile.read(tmp_path)


def test_training_and_judging_render_alike_and_say_so(tmp_path, capsys):
    run(tmp_path, make_model(tmp_path / "model", PARTS + "<think>\n"))
    said = capsys.readouterr().out
    assert said.count("takes content as a list of parts") == said.count("inside a block of thoughts") == 1
    judge = Judge.from_pretrained(str(tmp_path / "out"))
    (ids,) = encode_prompts(judge.tokenizer, [judge.template.render({"text": "text 1"})])
    text = judge.tokenizer.decode(ids)
    assert text == "<system>You judge.<user>rate text 1<assistant><think>\n\n</think>\n\n"
    assert "template_date" not in json.loads((tmp_path / "out" / "judge.json").read_text())


def test_a_template_that_hides_the_text_is_refused_before_data_is_read(tmp_path):
    model = make_model(tmp_path / "model", "{% for m in messages %}<{{ m.role }}>{% endfor %}<assistant>")
    with pytest.raises(UserInputError, match="does not show the text of a user message"):
        run(tmp_path, model, "--data_path", str(tmp_path / "nothing.jsonl"))


def test_the_text_part_of_a_vision_language_model_is_trained(tmp_path):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    text = Gemma3TextConfig(
        vocab_size=320, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, sliding_window=32, pad_token_id=1, eos_token_id=1,
        bos_token_id=0, max_position_embeddings=512,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    ids = {"image_token_index": 317, "boi_token_index": 318, "eoi_token_index": 319}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    model = make_model(tmp_path / "model", TURN, Gemma3ForConditionalGeneration(config))
    # Its folder names an image processor that needs files which are not there.
    (tmp_path / "model" / "preprocessor_config.json").write_text('{"image_processor_type": "Gemma3ImageProcessor"}')
    results = run(tmp_path, model)
    judge = Judge.from_pretrained(str(tmp_path / "out"))
    again = judge.judge([{"text": "text 1"}])
    assert again.shape == (1, 3) and results["metrics"]["num_items"] == 8
