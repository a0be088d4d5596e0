"""The quickstart's size, and its numbers beside the README's."""

import copy
import json
import shlex
from argparse import Namespace

import pytest


@pytest.fixture
def runs(scripts):
    return scripts("quickstart_runs")


@pytest.fixture
def reference(scripts):
    return scripts("quickstart_reference")


def asked(folder, **changes):
    settings = {
        "output_dir": folder,
        "model": "m",
        "minutes": 10.0,
        "float32": False,
        "write_reference": False,
        "max_train_samples": None,
        "max_eval_samples": None,
    }
    return Namespace(**settings | changes)


@pytest.mark.parametrize(
    ("step", "train"), [(0.1, 2800), (1.0, 2800), (2.0, 1920), (4.0, 800), (9.0, 320), (25.0, 160)]
)
def test_as_many_words_as_end_in_time(runs, tmp_path, monkeypatch, capsys, step, train):
    speed = runs.Speed(step, step / 2, 15)
    monkeypatch.setattr(runs, "measure", lambda args: speed)
    size, _ = runs.choose_size(asked(tmp_path))
    assert size.train == train
    said = capsys.readouterr().out
    assert f"{size.train:,} of 2,800 words to train on, {size.test:,} of 1,504 to test on" in said
    assert (speed.whole(size) > 600) == ("--minutes 10 is too short" in said)
    # Chosen once: a run that goes on must match, and says so. Asked otherwise it is chosen anew.
    monkeypatch.setattr(runs, "measure", lambda args: runs.Speed(100, 100, 100))
    assert runs.choose_size(asked(tmp_path)) == (size, speed)
    said = capsys.readouterr().out
    assert (
        f"{size.train:,} of 2,800 words to train on, {size.test:,} of 1,504 to test on: size as chosen before" in said
    )
    assert f"(delete {tmp_path / 'size.json'} to time again)" in said
    assert runs.choose_size(asked(tmp_path, float32=True))[0] == runs.SMALLEST
    # What is asked for is taken, and nothing is timed.
    monkeypatch.setattr(runs, "measure", None)
    assert runs.choose_size(asked(tmp_path, max_train_samples=7, max_eval_samples=8)) == ((7, 8), None)
    assert runs.choose_size(asked(tmp_path, write_reference=True))[0] == runs.SIZES[0]


def test_a_long_run_saves_every_two_minutes(runs, tmp_path):
    part, size = runs.Part("distribution", 42, tmp_path), runs.Size(2800, 1504)
    assert runs.saving(part, size, runs.Speed(1.5, 1, 1))[:4] == ["--save_strategy", "steps", "--save_steps", "80"]
    assert runs.saving(part, size, runs.Speed(0.1, 1, 1)) == ["--save_strategy", "no"]
    assert runs.saving(runs.Part("raw", 42, tmp_path), size, None) == ["--save_strategy", "no"]
    assert runs.saving(part, runs.Size(64, 48), None) == ["--save_strategy", "no"]


def test_what_is_left_of_other_settings_is_not_taken_up(runs, tmp_path, monkeypatch, capsys):
    part, args = runs.Part("distribution", 42, tmp_path / "out"), asked(tmp_path)
    commands = []
    monkeypatch.setattr(runs, "run_child", lambda command: commands.append(command) or 0)

    def leave(name, content):
        (part.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (part.folder / name).write_text(json.dumps(content))

    def run(size):
        runs.run(args, part, runs.Size(*size), None, "")
        return "--resume_from_checkpoint" in commands[-1]

    assert not run((160, 200))
    whole = {"format_version": 1, "run": {}, "files": {}}
    leave("checkpoint-3/checkpoint.json", whole)
    leave("checkpoint-3/trainer_state.json", {})
    assert run((160, 200)), "goes on"
    leave("checkpoint-3/model.safetensors", "half of it")
    assert not run((160, 200)), "killed while it saved"
    leave("checkpoint-3/checkpoint.json", whole)
    leave("results.json", "of 160 words")
    assert runs.is_done(args, part, runs.Size(160, 200)) and not runs.is_done(args, part, runs.Size(320, 250))
    assert not run((320, 250)) and not (part.folder / "results.json").exists()


def test_time_left_follows_what_parts_took(runs, tmp_path, monkeypatch, capsys):
    clock = [0.0]
    said = []
    monkeypatch.setattr(runs, "is_done", lambda args, part, size: False)
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])

    def run(args, part, size, speed, progress):
        said.append(progress)
        clock[0] += 2 * speed.part(part.method, size)  # the machine has become busier

    monkeypatch.setattr(runs, "run", run)
    speed, size = runs.Speed(1.0, 1.0, 60.0), runs.Size(1600, 640)
    parts = [runs.Part(method, 42, tmp_path) for method in ("raw", "single-point", "distribution")]
    runs.run_parts(asked(tmp_path), parts, size, speed)
    # 80, 170 and 170 seconds, and then twice that.
    assert said == [
        "[1/3] about 7 minutes left in all:",
        "[2/3] about 11 minutes left in all:",
        "[3/3] about 6 minutes left in all:",
    ]


MORE = "The README's judges saw more words, 2,800: expect a higher KL"
FEWER = "The README's judges saw fewer words, 2,800: expect a lower KL"


@pytest.mark.parametrize(
    ("size", "given", "said"),
    [
        ((2800, 1504), False, ()),
        ((800, 500), False, (", chosen for 10 minutes on this machine;", MORE, "test had more words, 1,504: ")),
        ((2800, 1504), True, (", as asked for;",)),
        ((96, 60), True, (", as asked for;", MORE, "The README's test had more words, 1,504: intervals are wider")),
        ((3000, 1504), True, (", as asked for;", FEWER)),
        ((2800, 200), True, (", as asked for;", "test had more words, 1,504: ")),
        ((2800, 2000), True, (", as asked for;", "test had fewer words, 1,504: intervals are narrower")),
    ],
)
def test_it_says_how_large_it_was_and_why(scripts, runs, tmp_path, size, given, said):
    changes = {"max_train_samples": size[0], "max_eval_samples": size[1]} if given else {}
    args = asked(tmp_path, model="smollm2-135m", **changes)
    text = scripts("quickstart").describe(args, runs.Size(*size), "float32")
    assert (
        text.startswith(f"{size[0]:,} words to train on and {size[1]:,} to test on") and "; seed 42, float32." in text
    )
    phrases = (", as asked", ", chosen for", "judges saw", "more words, 2,800", "fewer words, 2,800", "test had")
    for phrase in phrases:
        assert (phrase in text) == any(phrase in part for part in said), (phrase, text)
    assert all(part in text for part in said), text
    # Another model's KL says nothing of the number of words.
    args.model = "other"
    assert "README" not in scripts("quickstart").describe(args, runs.Size(*size), "float32")


@pytest.mark.parametrize("installed", [True, False])
def test_what_to_try_next_can_be_typed_as_it_stands(scripts, tmp_path, monkeypatch, installed):
    folder = tmp_path / "with a space"
    folder.mkdir()
    for name in ("python", *(["distjudge-trl"] if installed else [])):
        (folder / name).touch(mode=0o700)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    text = scripts("quickstart").next_steps(folder / "judge")
    assert "activate" not in text
    command = [str(folder / "distjudge-trl")] if installed else [str(folder / "python"), "-m", "distjudge_trl"]
    title, words, *lines = text.splitlines()
    assert title == "What to try next:" and words.endswith(
        'printf \'{"text": "meh"}\\n{"text": "yolo"}\\n\' > words.jsonl'
    )
    assert len(lines) == 6
    for line in lines:
        assert shlex.split(line[27:])[: len(command)] == command and line[26] == " "
    assert shlex.split(lines[0])[len(command) :][:3] == ["judge", "--model", str(folder / "judge")]


@pytest.mark.parametrize(("page", "part"), [("README", "readme_part"), ("PAPER_PAGE", "paper_part")])
def test_the_pages_have_the_numbers_of_the_file(reference, page, part):
    text = getattr(reference, page).read_text(encoding="utf-8")
    written = text.split(reference.START)[1].split(reference.END)[0]
    assert written == "\n" + getattr(reference, part)(), "run `python scripts/quickstart_reference.py`"


@pytest.fixture
def made(reference, tmp_path, monkeypatch):
    """A copy of the file and of its pages to write to, and the file's runs in bfloat16."""
    for name in ("FILE", "README", "PAPER_PAGE"):
        path = tmp_path / getattr(reference, name).name
        path.write_text(getattr(reference, name).read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(reference, name, path)
    content = reference.read_reference()
    return [run for run in content["runs"] if run["precision"] == "bfloat16" and run["seed"] == 42]


def moved(runs, by, **changes):
    runs = copy.deepcopy(runs)
    for run in runs:
        run["metrics"]["kl"]["value"] += by
        run.update(changes)
    return runs


def test_own_numbers_stand_beside_the_readme_s(reference, made):
    settings = {name: reference.read_reference()[name] for name in ("model", "max_train_samples", "max_eval_samples")}
    text = reference.compare(made, settings)
    assert "| here: bfloat16, seed 42 | README: bfloat16, seed" in text
    assert text.endswith("Every KL here is within the README's.")
    text = reference.compare(moved(made[:1], 0.002) + moved(made[1:], 3.0), settings)
    assert "in the same precision: " in text and not text.endswith(", by 0.000.")
    # Seeds that print the same digits are one number.
    assert " to " not in reference.spread_table({"here": [*made, *moved(made, 0.0, seed=43)]})
    assert " to " in reference.spread_table({"here": [*made, *moved(made, 0.25, seed=43)]})
    assert reference.compare(moved(made, 0, precision="float16"), settings).endswith("no numbers in float16 yet.")
    text = reference.compare(made, settings | {"max_train_samples": 800})
    assert text.endswith("Not to be compared: the README's judges saw 2800 words and were tested on 1504.")
    assert "of another model (smollm2-135m)" in reference.compare(made, settings | {"model": "other"})


def test_measured_again_the_file_and_its_pages_are_written(reference, made):
    before = reference.read_reference()
    settings = {name: before[name] for name in ("model", "max_train_samples", "max_eval_samples")}
    others = [run for run in before["runs"] if run["precision"] != "bfloat16"]
    new = [*moved(made, 1.0), *moved(made[1:], 1.25, seed=43)]
    pages = reference.README, reference.PAPER_PAGE
    after = [path.read_text(encoding="utf-8").split(reference.START)[1].split(reference.END, 1)[1] for path in pages]
    assert reference.write_reference(new, settings) is True
    content = json.loads(reference.FILE.read_text(encoding="utf-8"))
    assert content["runs"] == [*new, *others] and {name: content[name] for name in settings} == settings
    assert content["made_with"]["bfloat16"]["versions"]["torch"] and content["made_with"]["bfloat16"]["cores"]
    readme, page = (path.read_text(encoding="utf-8") for path in (reference.README, reference.PAPER_PAGE))
    single = made[1]["metrics"]["kl"]["value"]
    assert f"| single-point | {single + 1:.3f} [" in readme
    assert "| bfloat16, seeds 42, 43 " in page and f"{single + 1:.3f} to {single + 1.25:.3f} (" in page
    for text, rest in zip((readme, page), after, strict=True):
        # Blocks of other tables follow, which end with the same mark.
        assert text.count(reference.START) == 1 and text.endswith(rest)
    # The other precision has a column in docs/paper.md, and not the README's table.
    assert reference.write_reference(moved(made, 2.0, precision="float32"), settings) is False
    assert f"| single-point | {single + 1:.3f} [" in reference.README.read_text(encoding="utf-8")
    assert "| float32, seed 42 " in reference.PAPER_PAGE.read_text(encoding="utf-8")
    assert [run["precision"] for run in reference.read_reference()["runs"]] == ["bfloat16"] * 5 + ["float32"] * 3


def test_the_pages_say_of_seeds_and_kernels_what_the_runs_show(reference, made):
    def part(*runs):
        reference.FILE.write_text(json.dumps({**reference.read_reference(), "runs": [*runs]}), encoding="utf-8")
        assert reference.readme_part().count("| distribution ") == 1
        text = reference.paper_part()
        assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))
        return text.replace("\n  ", " ")

    for run, mass in zip(made, (0.4, 0.5, 0.1), strict=True):
        run["metrics"]["label_mass"] = mass
    # One seed in one precision: nothing is said to vary.
    assert part(*made) == "\nbfloat16, seed 42: one seed; the effect of others is not measured.\n\n"
    # Two precisions.
    other = moved(made, 0.25, precision="float32")
    for run in other:
        run["metrics"]["label_mass"] = None
    other[2]["metrics"]["label_mass"] = 0.5
    text = part(*made, *other)
    assert text.startswith("\nKL and (label mass) in the precisions that CPUs compute in:\n\n")
    assert "- bfloat16, seed 42: one seed; the effect of others is not measured.\n- float32, seed 42: one seed" in text
    assert text.splitlines()[-2].startswith("- bfloat16 and float32 with the same seed: KL differs by at most 0.250 (")
    assert text.endswith(") and the label mass differs by at most 0.400 (distribution).\n\n")
    # Seeds alone.
    seeds = [*moved(made[1:], 0.125, seed=43), *moved(made[1:2], 0.5, seed=44)]
    text = part(*made, *seeds)
    assert text.startswith("\nKL and (label mass) lowest to highest over the seeds:\n\n")
    assert "- bfloat16, seeds 42, 43, 44: over the seeds, KL differs by at most 0.500 (single-point) and the" in text
    assert "one seed" not in text and "with the same seed" not in text
    # Both; another seed alone in the other precision is compared with none.
    text = part(*made, *seeds, *other)
    assert "in the precisions that CPUs compute in, lowest to highest over the seeds:" in text
    assert "- float32, seed 42: one seed" in text and "with the same seed: KL differs" in text
    assert "with the same seed" not in part(*made, *moved(made, 1, precision="float32", seed=45))


@pytest.mark.parametrize("change", [{"model": "m"}, {"max_train_samples": 5}, {"max_eval_samples": 6}])
def test_runs_of_another_model_or_size_leave_none_of_the_old_ones(reference, made, change):
    before = reference.read_reference()
    settings = {name: before[name] for name in ("model", "max_train_samples", "max_eval_samples")} | change
    new = moved(made, 1.0, precision="float32")
    assert reference.write_reference(new, settings) is True
    content = reference.read_reference()
    assert content["runs"] == new and {name: content[name] for name in settings} == settings
    assert list(content["made_with"]) == ["float32"]
    assert "bfloat16, seed" not in reference.paper_part()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-train-samples", "5"), "--max-train-samples and --max-eval-samples go together."),
        (("--seeds", "0"), "--seeds must be more than 0, got 0."),
        (("--minutes", "nan"), "--minutes must be more than 0, got nan."),
        (("--write-reference", "--max-train-samples", "5", "--max-eval-samples", "5"), "--write-reference takes all"),
        (("--output-dir", "FILE"), "FILE: cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(scripts, tmp_path, monkeypatch, capsys, words, message):
    from distjudge_trl.errors import run_script

    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setattr("sys.argv", ["quickstart.py", *(word.replace("FILE", str(file / "x")) for word in words)])
    with pytest.raises(SystemExit) as ended:
        run_script(scripts("quickstart").main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}".replace("FILE", str(file / "x")))
