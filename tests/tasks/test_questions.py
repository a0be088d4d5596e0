"""Several questions in one task file: records, prompts, and judges that answer them together or each alone."""

import json
import subprocess

import pytest
import yaml
from click.testing import CliRunner

from distjudge_trl import Judge
from distjudge_trl.batching import PromptFitter
from distjudge_trl.cli import main
from distjudge_trl.data import SplitPlan
from distjudge_trl.data.question_template import QuestionTemplate, read_template
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.files.shipped_files import shipped_folder
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.base import checked_prompt
from distjudge_trl.recipe import PAPER_TRAINING, Recipe
from distjudge_trl.sweep.request import default_study
from distjudge_trl.sweep.settings import SweepSettings
from distjudge_trl.tasks import LoadReport, get_task


HELP = {"votes": {"list": "help"}, "template": "How helpful is this? {{ text }}"}
TONE = {"votes": {"list": "tone"}, "template": "How friendly is this? {{ text }}"}
SAFE = {"votes": {"list": "safe"}, "labels": ["safe", "unsafe"], "template": "Is this safe? {{ text }}"}


WITH_SYSTEM = [{"role": "system", "content": "You rate."}, {"role": "user", "content": "{{ text }}"}]


def write_task(folder, **changes):
    task = {
        "name": "replies",
        "labels": [1, 2, 3],
        "ordinal": True,
        "source": "r.jsonl",
        "id": "id",
        "questions": {"help": HELP, "tone": TONE},
        **changes,
    }
    path = folder / "task.yaml"
    task = {key: value for key, value in task.items() if value is not None}
    path.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return str(path)


def write_rows(folder, count=4, **columns):
    rows = [
        {
            "id": f"i{i}",
            "text": f"text {i}",
            "help": [1, 2, i % 3 + 1],
            "tone": ["3", "3", "2"],
            "safe": ["safe", "unsafe"],
            **{name: value[i] if isinstance(value, tuple) else value for name, value in columns.items()},
        }
        for i in range(count)
    ]
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(path, question=None, **options):
    task, report = get_task(path), LoadReport()
    return task.load(options=task.options(question=question, **options), report=report), report


def text_of(row):
    return row["prompt"][-1]["content"]


def test_each_question_is_a_record_of_its_item(tmp_path):
    write_rows(tmp_path, 2)
    records, report = load(write_task(tmp_path))
    assert [(row["id"], row["group"], text_of(row)) for row in records] == [
        ("i0/help", "i0", "How helpful is this? text 0"),
        ("i0/tone", "i0", "How friendly is this? text 0"),
        ("i1/help", "i1", "How helpful is this? text 1"),
        ("i1/tone", "i1", "How friendly is this? text 1"),
    ]
    assert records["label_distribution"][0] == pytest.approx([2 / 3, 1 / 3, 0])
    assert records["label_distribution"][1] == pytest.approx([0, 1 / 3, 2 / 3])
    assert report.num_read == 4
    task = get_task(str(tmp_path / "task.yaml"))
    assert task.parts == ("help", "tone")
    assert [item.part for item in task.items(None, task.options(), report=LoadReport())] == ["help", "tone"] * 2


def test_questions_of_an_item_stay_on_one_side(tmp_path):
    write_rows(tmp_path, 30)
    parts = SplitPlan("group").partition(load(write_task(tmp_path))[0])
    sides = [{name.partition("/")[0] for name in side["id"]} for side in parts]
    assert not (sides[0] & sides[2] or sides[0] & sides[1])
    assert [len(side) for side in parts] == [2 * len(names) for names in sides]


def test_what_a_question_does_not_say_is_taken_from_the_top(tmp_path):
    write_rows(tmp_path, 1, help=["one", 2, "k.A.", ""], tone=["3", "3", "-"], safe=["SAFE", "n/a", "bad", "k.A."])
    path = write_task(
        tmp_path,
        spellings={"1": ["one"]},
        missing=["k.A."],
        template="Rate the {{ question }}: {{ text }}",
        answers="letters",
        questions={
            "help": {"votes": {"list": "help"}},
            "tone": {"votes": {"list": "tone"}, "missing": ["-"]},
            "safe": {**SAFE, "ordinal": False, "spellings": {"unsafe": ["bad"]}, "missing": ["n/a", "k.A."]},
        },
    )
    help_, tone, safe = (load(path, name)[0][0] for name in ("help", "tone", "safe"))
    assert (text_of(help_), help_["num_annotators"]) == ("Rate the help: text 0", 2)
    assert (text_of(tone), tone["num_annotators"]) == ("Rate the tone: text 0", 2)
    assert (text_of(safe), safe["label_distribution"]) == ("Is this safe? text 0", [0.5, 0.5])
    assert [row["completion"][0]["content"] for row in (help_, tone, safe)] == ["A", "C", "A"]
    task = get_task(path)
    assert [task.choose(name).ordinal for name in ("help", "safe")] == [True, False]
    assert [task.choose(name).name for name in ("help", "safe")] == ["replies-help", "replies-safe"]


def test_synonyms_of_other_labels_are_not_taken_from_the_top(tmp_path):
    write_rows(tmp_path, 1, help=["poor", "poor"], safe=["ok", "safe"])
    synonyms, answers = {"1": ["poor"]}, {"1": "low", "2": "middle", "3": "high"}
    safe = {**SAFE, "synonyms": {"safe": ["ok"]}}
    path = write_task(tmp_path, synonyms=synonyms, answers=answers, questions={"help": HELP, "safe": safe})
    assert load(path, "help")[0]["completion"][0][0]["content"] == "low"
    assert load(path, "safe")[0]["completion"][0][0]["content"] == "safe"


def test_a_question_alone(tmp_path):
    write_rows(tmp_path, 2)
    records, report = load(write_task(tmp_path), "tone")
    assert records["id"][:] == ["i0/tone", "i1/tone"] and report.num_read == 2


def test_a_row_an_annotator(tmp_path):
    """Every row has an annotator's labels for all questions; some leave one out."""
    rows = [
        {"id": "a", "text": "t", "who": who, "h": h, "t": t}
        for who, h, t in (("ann", 1, 3), ("ben", "", 2), ("cleo", 1, ""))
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    votes = {"help": {"rows": "h", "annotator": "who"}, "tone": {"rows": "t", "annotator": "who"}}
    questions = {name: {"votes": own} for name, own in votes.items()}
    path = write_task(tmp_path, template="{{ question }} {{ text }}", questions=questions)
    records, report = load(path)
    assert {row["id"]: row["label_distribution"] for row in records} == {"a/help": [1, 0, 0], "a/tone": [0, 0.5, 0.5]}
    assert report.notes == {"rows without a vote on help left out": 1, "rows without a vote on tone left out": 1}


def test_ids_of_several_parts_and_questions(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write_rows(tmp_path, 1)
        # The same ids for other items.
        (tmp_path / name).write_text((tmp_path / "r.jsonl").read_text().replace("text 0", f"text of {name}"))
    records, _ = load(write_task(tmp_path, source={"train": "a.jsonl", "test": "b.jsonl"}))
    assert [(row["id"], row["group"], row["split"]) for row in records] == [
        ("train:i0/help", "train:i0", "train"),
        ("train:i0/tone", "train:i0", "train"),
        ("test:i0/help", "test:i0", "test"),
        ("test:i0/tone", "test:i0", "test"),
    ]


def test_a_column_called_question_is_what_the_template_shows(tmp_path):
    """Data of questions and answers has one. `_question` is the name under which the rating is asked for."""
    write_rows(tmp_path, 1, question="Why?")
    shows = {"template": "{{ question }} {{ text }}: {{ _question }}"}
    records, _ = load(write_task(tmp_path, questions={"help": {**HELP, **shows}, "tone": TONE}))
    assert text_of(records[0]) == "Why? text 0: help"
    questions = {name: {"votes": q["votes"]} for name, q in (("help", HELP), ("tone", TONE))}
    with pytest.raises(JudgmentDataError, match=r"field `question`: .*same prompts\. Write {{ _question }} for the"):
        load(write_task(tmp_path, questions=questions, template="{{ question }} {{ text }}"))
    records, _ = load(write_task(tmp_path, questions=questions, template="{{ question }} {{ _question }} {{ text }}"))
    assert list(map(text_of, records)) == ["Why? help text 0", "Why? tone text 0"]


def test_what_only_some_questions_show_may_be_empty_for_others(tmp_path):
    write_rows(tmp_path, 2, reference=("", "a reference"))
    tone = {**TONE, "template": "{{ text }} like {{ reference }}?"}
    path = write_task(tmp_path, questions={"help": HELP, "tone": tone})
    with pytest.raises(JudgmentDataError, match="row 1, field `reference`: is '', and the prompt needs it"):
        load(path)
    assert len(load(path, "help")[0]) == 2


def test_the_text_that_a_judge_keeps_asks_the_same(tmp_path, tokenizer):
    """All questions' templates are one text in judge.json: it renders, and shortens, as each of them."""
    write_rows(tmp_path, 3, text=("short", "long " * 60, 'quote "x" {{ y }}'))
    system = {"role": "system", "content": "You rate. {% if text %}Carefully.{% endif %}\n"}
    templates = {
        "help": [system, {"role": "user", "content": "\n{{ text }}\nHelpful? {{ legend }}\n"}],
        "tone": [{**system, "content": "Rate {{ question }}."}, {"role": "user", "content": "{{ text }} {# no #}"}],
    }
    questions = {n: {"votes": q["votes"], "template": templates[n]} for n, q in (("help", HELP), ("tone", TONE))}
    task = get_task(write_task(tmp_path, questions=questions))
    kept = read_template(task.template.messages)
    assert isinstance(kept, QuestionTemplate)
    one_text = PromptTemplate(task.template.messages)
    for fitter in (None, PromptFitter(tokenizer, 150)):
        own = task.load(fitter=fitter)["prompt"][:]
        assert task.load(template=kept, fitter=fitter)["prompt"][:] == own
        assert task.load(template=one_text, fitter=fitter)["prompt"][:] == own
        assert [task.choose(name).load(fitter=fitter)["prompt"][0] for name in task.parts] == own[:2]
    assert own[0][1]["content"] == "\nshort\nHelpful? 1\n2\n3"
    assert kept.render({"text": "x", "question": "tone"})[0]["content"] == "Rate tone."
    assert kept.render({"question": "Why?", "_question": "tone", "text": "x"})[0]["content"] == "Rate Why?."
    message = r"row 3, field `question`: names no question of this prompt template: 'tune'\. Its questions are help, "
    with pytest.raises(JudgmentDataError, match=message + r"tone; name one in the column `_question`\."):
        kept.render({"text": "x", "question": "tune"}, row=3)
    with pytest.raises(JudgmentDataError, match="field `question`: is missing"):
        kept.render({"text": "x"})


def test_a_judge_of_several_questions_needs_only_the_fields_of_the_one_it_is_asked(tmp_path):
    write_rows(tmp_path, 2, reference=("a", "b"))
    tone = {**TONE, "template": "{{ text }} like {{ reference }}?"}
    task = get_task(write_task(tmp_path, questions={"help": HELP, "tone": tone}))
    kept = read_template(task.template.messages)
    for item in ({"text": "x", "reference": ""}, {"text": "x", "prompt": "y"}):
        item = {**item, "question": "help"}
        assert checked_prompt(item, kept, row=1) is None
        assert kept.render(item) == task.choose("help").template.render(item)
    with pytest.raises(JudgmentDataError, match="field `reference`: is '', and the prompt needs it"):
        kept.render({"text": "x", "question": "tone", "reference": ""})
    # A text that only begins like one of several questions is a template of its own.
    odd = [{**message, "content": message["content"] + " {{ x }}"} for message in task.template.messages]
    assert type(read_template(odd)) is PromptTemplate


@pytest.mark.parametrize(
    ("questions", "why"),
    [
        ({"help": HELP, "safe": SAFE}, r"help \(1, 2, 3\) and safe \(safe, unsafe\) have different labels"),
        (
            {"help": HELP, "tone": {**TONE, "labels": ["3", "2", "1"]}},
            r"help \(1, 2, 3\) and tone \(3, 2, 1\) have different labels",
        ),
        ({"help": HELP, "tone": {**TONE, "ordinal": False}}, "have the same labels, but differ in `ordinal`"),
        ({"help": HELP, "tone": {**TONE, "answers": "letters"}}, "have the same labels, but differ in `answers`"),
        (
            {"help": HELP, "tone": {**TONE, "template": WITH_SYSTEM}},
            r"messages of different roles \(user; system, user\)",
        ),
    ],
)
def test_questions_that_one_judge_cannot_answer(tmp_path, questions, why, recipe_model):
    write_rows(tmp_path)
    path = write_task(tmp_path, questions=questions)
    names = " or ".join(questions)
    match = rf"^replies: .*{why}, so one judge cannot answer both\. Choose one with --question: {names}\.$"
    with pytest.raises(UserInputError, match=match):
        load(path)
    with pytest.raises(UserInputError, match=match):
        recipe(recipe_model).run(["--task", path])
    for words in (["data", path], ["evaluate", "--model", recipe_model, "--task", path]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and "Choose one with --question: " in done.output
    assert len(load(path, "help")[0]) == 4


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"questions": {}}, "`questions`: must not be empty"),
        ({"questions": ["help"]}, "`questions`: must be a mapping of keys to values, got"),
        ({"questions": {"help": None}}, "`questions.help`: must be a mapping of keys to values, got None"),
        ({"questions": {"help": {**HELP, "vote": 1}}}, "`questions.help.vote`: is not a key.*did you mean `votes`"),
        ({"questions": {"help": {**HELP, "source": "x"}}},
         "`questions.help.source`: is not a key.*known here are labels"),
        ({"questions": {"help": {"votes": {"lst": "x"}}}},
         "`questions.help.votes.lst`: is not a key.*known here are list"),
        ({"questions": {"how nice?": HELP}}, "`questions.how nice.`: may have letters"),
        ({"questions": {"help": HELP, "tone": {"template": "{{ text }}"}}}, "`questions.tone`: `votes`: is missing"),
        ({"labels": None}, "`questions.help`: `labels`: is missing"),
        ({"name": None}, "`name`: is missing"),
        ({"questions": {"help": {"votes": {"list": "help"}}}},
         "`questions.help`: needs exactly one of `template` and"),
        ({"questions": {"help": HELP, "tone": {**TONE, "votes": {"list": "help"}}}},
         "'help' and 'tone' have the same `votes`"),
        ({"questions": {"help": HELP, "tone": {**TONE, "votes": {"rows": "tone"}}}},
         "either all questions have `rows`"),
        ({"questions": {"help": HELP, "tone": {**TONE, "template": HELP["template"]}}},
         "'help' and 'tone' have the same template: let it show {{ question }}"),
        ({"questions": {"help": HELP, "tone": {**TONE, "template": "{{ text }} {{ help }}"}}},
         "`questions.tone`: the prompt shows 'help', a column of votes"),
        ({"questions": {"help": HELP, "tone": {**TONE, "template": "{{ text"}}}, "`questions.tone`: .*does not parse"),
        ({"questions": {"help": HELP, "tone": {**TONE, "missing": [2.0]}}},
         "`questions.tone`: `missing`: '2' is a code for a missing vote and means the label '2'"),
        ({"questions": {"help": {**HELP, "spellings": {"9": ["x"]}}}},
         "`questions.help`: `spellings`: '9' is not a label"),
        ({"questions": {1: HELP, "1": TONE}}, "`questions` has a name twice"),
        ({"question": {"help": HELP}, "questions": None}, "`question`: is not a key.*did you mean `questions`"),
        ({"questions": {"help": HELP, "tone": {**TONE, "votes": {"list": "tones"}}}},
         "field `tones`: is missing.*'tone'"),
        ({"questions": {"help": HELP, "tone": {**TONE, "votes": {"list": "tone"}, "labels": [2, 4, 5]}}},
         "different labels"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_in_one_line(tmp_path, changes, match):
    write_rows(tmp_path)
    path = write_task(tmp_path, **changes)
    with pytest.raises(UserInputError, match=match) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_an_item_without_votes_on_one_question(tmp_path):
    write_rows(tmp_path, 2, tone=([1], []))
    with pytest.raises(JudgmentDataError, match="row 2, field `votes`: no votes on tone"):
        load(write_task(tmp_path))
    records, report = load(str(tmp_path / "task.yaml"), min_annotators=1)
    assert records["id"][:] == ["i0/help", "i0/tone", "i1/help"]
    assert report.excluded == {"fewer than 1 annotators": 1}


def test_a_question_that_there_is_not(tmp_path):
    write_rows(tmp_path)
    with pytest.raises(
        UserInputError, match=r"--question tune: .*no such question. Did you mean tone. Questions: help, tone"
    ):
        load(write_task(tmp_path), "tune")


def test_a_column_with_the_name_of_the_question(tmp_path):
    write_rows(tmp_path, 1, _question="x")
    with pytest.raises(JudgmentDataError, match="field `_question`: .*Rename the column"):
        load(write_task(tmp_path))


def test_a_template_of_the_command_line_names_the_question(tmp_path):
    write_rows(tmp_path)
    (tmp_path / "p.jinja").write_text("Rate {{ text }}")
    done = CliRunner().invoke(main, ["data", write_task(tmp_path), "--prompt-template", str(tmp_path / "p.jinja")])
    assert done.exit_code == 2 and "help and tone in the same words. Let it show {{ question }}, the" in done.output
    # A column of that name is not the name of the question.
    write_rows(tmp_path, 1, question="Why?")
    (tmp_path / "p.jinja").write_text("Rate {{ question }} {{ text }}")
    done = CliRunner().invoke(main, ["data", write_task(tmp_path), "--prompt-template", str(tmp_path / "p.jinja")])
    assert done.exit_code == 2 and "row 1: the prompt template asks the questions help and tone" in done.output
    assert "Let it show {{ _question }}, the name of the question." in done.output


# Judges


def recipe(model, **training):
    defaults = {"max_steps": 2, "save_strategy": "no", "bf16": False, "use_cpu": True, "use_peft": False}
    return Recipe(task=None, model=model, training={**PAPER_TRAINING, **defaults, **training})


def test_one_judge_of_all_questions(tmp_path, recipe_model, capsys):
    write_rows(tmp_path, 40, reference=("", "r") * 20)
    path, folder = write_task(tmp_path), tmp_path / "judge"
    recipe(recipe_model).run(["--task", path, "--output_dir", str(folder), "--method", "kl-only"])
    printed = capsys.readouterr().out
    assert "| question | items | KL (95 %)" in printed and "| tone     | 8 " in printed
    results, predicted = read_results(folder), read_predictions(folder)
    assert list(results["parts"]) == ["help", "tone"]
    assert [part["num_items"] for part in results["parts"].values()] == [8, 8]
    kls = [part["kl"]["value"] for part in results["parts"].values()]
    assert results["metrics"]["kl"]["value"] == pytest.approx(sum(kls) / 2)
    assert set(SeenItems.read(folder).unseen(load(path)[0])["id"]) == set(predicted["id"])

    # The judge answers a bare row for the question that the row names.
    judge = Judge.from_pretrained(str(folder))
    rows = [name[1:].split("/") for name in predicted["id"]]
    answers = judge.judge([{"text": f"text {number}", "question": question} for number, question in rows])
    for own, answer in zip(predicted["judge_distribution"], answers.tolist(), strict=True):
        assert answer == pytest.approx(own, abs=1e-4)

    words = ["evaluate", "--model", str(folder), "--task", path, "--device", "cpu"]
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    assert "| tone     | 8 " in done.output
    again = read_results(tmp_path / "again")
    assert again["test_fingerprint"] == results["test_fingerprint"]
    assert again["parts"]["tone"]["kl"]["value"] == pytest.approx(results["parts"]["tone"]["kl"]["value"], abs=1e-4)
    # One question alone: the same test items of it, and no row for each question.
    done = CliRunner().invoke(main, [*words, "--question", "tone", "--out", str(tmp_path / "tone")])
    assert done.exit_code == 0, done.output
    tone = read_results(tmp_path / "tone")
    assert "parts" not in tone and tone["task"] == "replies-tone" and tone["trained_on"] == "replies"
    assert set(read_predictions(tmp_path / "tone")["id"]) == {
        name for name in predicted["id"] if name.endswith("tone")
    }

    done = CliRunner().invoke(main, ["report", str(folder), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    table = (tmp_path / "report/tables/questions_replies.md").read_text()
    assert "## Each question alone: replies" in table
    (row,) = [line for line in table.splitlines() if line.startswith("| tone ")]
    assert f"{results['parts']['tone']['kl']['value']:.3f}" in row
    assert "Each question alone" in (tmp_path / "report/index.html").read_text(encoding="utf-8")


def test_the_doctor_shows_each_question(tmp_path):
    write_rows(tmp_path, 20)
    done = CliRunner().invoke(main, ["data", write_task(tmp_path), "--stats"])
    assert done.exit_code == 0, done.output
    assert "Split 'group' (seed 0): 32 train, 8 test" in done.output
    (row,) = [line.split() for line in done.output.splitlines() if line.startswith("tone ")]
    assert row[1:3] == ["20", "0.333"]  # of the three pairs of annotators one agrees
    done = CliRunner().invoke(main, ["data", str(tmp_path / "task.yaml"), "--question", "tone"])
    assert "20 items read, 20 records" in done.output


def test_a_sweep_of_one_question_has_its_name(tmp_path):
    path = write_task(tmp_path, questions={"help": HELP, "safe": SAFE})
    script = shipped_folder("recipes") / "custom.py"
    settings = SweepSettings("custom", recipe_arguments=["--task", path], options={"question": "safe"})
    assert default_study(settings, script) == "replies-safe"
    with pytest.raises(UserInputError, match="Choose one with --question: help or safe"):
        default_study(SweepSettings("custom", recipe_arguments=["--task", path]), script)


def test_a_judge_of_one_question_with_labels_of_its_own(tmp_path, recipe_model, warm_python):
    """With the commands of the guide; the evaluation takes the judge's question."""
    write_rows(tmp_path, 30)
    path = write_task(tmp_path, questions={"help": HELP, "safe": SAFE})

    def command(*words):
        return subprocess.run(
            [warm_python, "-m", "distjudge_trl", *words],
            check=False, capture_output=True, text=True, cwd=tmp_path, timeout=300,
        )  # fmt: skip

    options = ["--model_name_or_path", recipe_model, "--use_peft", "False", "--bf16", "False", "--max_steps", "1"]
    refused = command("train", path, *options)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: replies: the questions help (1, 2, 3) and safe (safe,")
    done = command("train", path, "--question", "safe", *options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "replies-safe-distribution"
    assert read_results(folder)["labels"] == ["safe", "unsafe"] and "parts" not in read_results(folder)
    assert JudgeFile.read(folder).data["options"]["question"] == "safe"
    done = command("evaluate", "--model", str(folder), "--task", path, "--out", "again", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert read_results(tmp_path / "again")["test_fingerprint"] == read_results(folder)["test_fingerprint"]
    done = command("evaluate", "--model", str(folder), "--task", path, "--question", "help")
    assert done.returncode == 2 and "answers with safe, unsafe, the task 'replies-help' with 1, 2, 3" in done.stderr


def test_no_prompt_of_one_question_shows_votes_on_another(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": 1, "text": "t", "a": ["yes"], "b": ["no"]}\n')
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['yes', 'no']\nid: id\nsource: r.jsonl\ntemplate: '{{ question }}? {{ text }}'\n"
        "questions: {a: {votes: {list: a}}, b: {votes: {list: b}}}\n"
    )
    task = get_task(str(tmp_path / "task.yaml"))
    template = PromptTemplate([{"role": "user", "content": "{{ text }} {{ b }}"}])
    with pytest.raises(JudgmentDataError, match="asks for a field the item lacks"):
        task.choose("a").load(template=template)
    assert task.choose("a").is_called("t") and not task.choose("a").is_called(None)


def test_a_question_may_not_be_called_as_pairs_in_both_orders_are(tmp_path):
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['yes', 'no']\nid: id\nsource: r.jsonl\ntemplate: '{{ question }}? {{ text }}'\n"
        "questions: {swapped: {votes: {list: a}}, b: {votes: {list: b}}}\n"
    )
    with pytest.raises(UserInputError, match="the name is taken by pairs in both orders"):
        get_task(str(tmp_path / "task.yaml"))
