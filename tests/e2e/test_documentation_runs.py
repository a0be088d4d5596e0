"""Every command and every Python snippet of README and docs is run, in its page's order, or its page says why not.

A block of code that cannot run here has the comment `<!-- not run: why -->` above it. What trains is shortened: a tiny
model, a few items, one step. Commands that stand within a sentence run, too, unless they are patterns (`TASK`, `...`).
Their options are compared with the parsers in tests/test_documented_commands.py, also where they do not run.
"""

import os
import re
import subprocess
from typing import NamedTuple

import pytest
from conftest import ROOT
from report.made_runs import make_sweep
from test_documented_commands import PAGES


BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\s*\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
PROGRAMS = ("distjudge-trl", "python", "accelerate", "torchrun", "sbatch", "make", "pip", "git", "echo", "cat")
SPAN = re.compile(r"`((?:distjudge-trl|python (?:scripts|recipes)/|make) ?[^`]*)`")
# Commands that are whole in two words.
ALONE = ("env", "tasks", "recipes", "--help")
PATTERN = re.compile(r"\b[A-Z]{3,}\b|\.\.\.|<")
# Commands that other tests run, or that no test can run.
ELSEWHERE = {
    r"make (quickstart|test|test-fast|test-e2e|env|system|lint|format|docs|compat|plan-tables|benchmark|dist)\b.*": (
        "a target of the Makefile (tests/test_makefile.py); what it starts has tests of its own"
    ),
    r"make quickstart-reference.*": "half an hour; tests/scripts/test_quickstart_script.py",
    r"python scripts/gpu_check.py.*": "tests/e2e/test_gpu_check.py runs it with --cpu",
    r"python scripts/benchmarks/.*": "minutes; measurements are no tests",
    r"python scripts/(quickstart|reproduce).py.*": "tests/e2e/test_quickstart.py, tests/e2e/test_reproduce.py",
    r"git clone .*|pip install .*|\.venv/bin/pre-commit install": "network",
    r"python -m pytest -m gpu": "needs a GPU",
    r"python scripts/import_graph.py.*": "tests/test_architecture.py",
}  # fmt: skip
MODELS = r"smollm2-135m|Qwen/[\w.-]+"
SHORT = (
    "--max_steps 1 --max_train_samples 8 --max_eval_samples 6 --per_device_train_batch_size 4"
    " --gradient_accumulation_steps 1 --bf16 False --save_strategy no"
)


class Step(NamedTuple):
    """A command, or a page's Python so far; `output` are lines that it must print."""

    language: str
    text: str
    output: tuple[str, ...] = ()


def commands(code):
    """The commands of a block. Where they stand behind a `$`, the other lines are what they print."""
    lines = code.replace("\\\n", " ").splitlines()
    if not any(line.startswith("$ ") for line in lines):
        found = [line.split(" #")[0].strip() for line in lines]
        return [Step("bash", line) for line in found if line and line.split()[0].split("/")[-1] in PROGRAMS]
    steps = []
    for line in lines:
        if line.startswith("$ "):
            steps.append(Step("bash", line[2:]))
        elif "..." not in line:
            steps[-1] = steps[-1]._replace(output=(*steps[-1].output, line))
    return steps


def is_pattern(span):
    """Whether words in a sentence name a command (`distjudge-trl plan`) or its form (`data TASK`), and are none."""
    if re.match(r"distjudge-trl (evaluate|judge) (?!.*--model)|distjudge-trl train (mnli|summeval)", span):
        return True
    last = span.split()[-1]
    return PATTERN.search(span) or ((len(span.split()) < 3 or last.startswith("--")) and last not in ALONE)


def steps():
    """What each page tells to do, in its order."""
    for page in PAGES:
        if page.stem.startswith("gpu_check") or page.stem == "extending":
            continue  # reports that a script writes; a page with a test (tests/scripts/test_extending.py)
        text = page.read_text(encoding="utf-8")
        found, snippets = [], ""
        for match in sorted([*BLOCK.finditer(text), *SPAN.finditer(text)], key=lambda match: match.start()):
            if match.re is SPAN:
                span = " ".join(match[1].split())
                found += [] if is_pattern(span) else [Step("bash", span)]
            elif match["why"] is not None:
                continue
            elif match["language"] == "python":
                snippets += match["code"]
            elif match["language"] in ("", "bash", "sh"):
                found += commands(match["code"])
        found += [Step("python", snippets)] if snippets else []
        runs = [step for step in found if step.language == "python" or not elsewhere(step.text)]
        if runs:
            yield pytest.param(runs, id=page.stem)


def elsewhere(line):
    return any(re.fullmatch(pattern, line) for pattern in ELSEWHERE)


def shortened(line, model):
    """The command with options that make it short; the last of an option counts. On CPUs instead of GPUs."""
    if "distjudge-trl plan" in line:
        return line
    line = re.sub(r"\b(zero2|zero3)(?=\.yaml|\b(?!_))", r"\1_cpu", line)
    short = f"{line} {SHORT} --model_name_or_path {model}"
    if re.search(r"distjudge-trl sweep (run )?(vader|\S+\.yaml) ", line):
        return f"{short} --dry-run"
    if re.search(r"distjudge-trl train|recipes/\w+\.py", line) and "--help" not in line:
        return short
    if "distjudge-trl evaluate" in line:
        line += " --max-eval-samples 6"
    line = re.sub(r"--layers \d+", "--layers 1", line)  # of the two that the tiny model has
    return re.sub(MODELS, model, line)


def short_snippet(code, model):
    """The snippets with a tiny model and one step."""
    code = re.sub(MODELS, model, code).replace('"tensorboard"', '"none"')
    return code.replace("DistributionSFTConfig(", "DistributionSFTConfig(max_steps=1, bf16=False, ")


@pytest.fixture(scope="module")
def clone(warm_python, recipe_model, tmp_path_factory):
    """A folder that looks like a clone in which the quickstart has run, with programs that start at once."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("recipes", "accelerate_configs", "scripts", "docs", "README.md", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / "bin"
    programs.mkdir()
    modules = {"distjudge-trl": "-m distjudge_trl", "accelerate": "-m accelerate.commands.accelerate_cli"}
    for name, words in {**modules, "torchrun": "-m torch.distributed.run", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {warm_python} {words} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    (folder / "words.jsonl").write_text('{"text": "meh"}\n{"text": "yolo"}\n')
    (folder / "items.jsonl").write_text('{"text": "meh"}\n')
    (folder / "new.jsonl").write_text('{"reply": "Certainly, with pleasure!"}\n')
    pair = '{{"id": "{0}", "question": "{0}", "text": "Which answer is better?", "votes": ["A", "equal", "A"]}}\n'
    (folder / "pairs.jsonl").write_text("".join(pair.format(i) for i in range(20)))
    preferred = '{{"prompt": "What is {0}?", "chosen": "A number.", "rejected": "No."}}\n'
    (folder / "preferences.jsonl").write_text("".join(preferred.format(i) for i in range(20)))
    rows = (ROOT / "docs/examples/replies.csv").read_text("utf-8").splitlines(True)
    (folder / "replies.csv").write_text("".join(rows[:-1]))  # without the one that nobody has rated
    (folder / "task.yaml").write_bytes((ROOT / "docs/examples/replies.yaml").read_bytes())
    (folder / "my_settings.yaml").write_text("alpha: 0.5\n")
    for out in ("quickstart/distribution", "quickstart/single-point"):
        line = f"distjudge-trl train vader --method {out.split('/')[1]} --use_peft False --output_dir {out}"
        run(shortened(line, recipe_model), folder, environment)
    make_sweep(folder / "runs/sweeps/summeval")
    return folder, environment, set()


def run(line, folder, environment, output=()):
    done = subprocess.run(
        ["bash", "-c", line], check=False, capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )
    printed = done.stdout + done.stderr
    fits_not = done.returncode == 1 and "distjudge-trl plan" in line
    refused = done.returncode == 2 and any(words.startswith("error: ") for words in output)
    assert done.returncode == 0 or fits_not or refused, f"$ {line}\n{printed[-5000:]}"
    assert "Traceback" not in printed, f"$ {line}\n{printed[-5000:]}"
    for words in output:
        assert words in printed, f"$ {line}\n{printed[-5000:]}"


@pytest.mark.parametrize("steps", list(steps()))
def test_a_page_runs_as_it_is_written(steps, clone, recipe_model):
    folder, environment, done = clone
    for step in steps:
        if step in done:
            continue  # on another page
        done.add(step)
        if step.language == "python":
            (folder / "snippet.py").write_text(short_snippet(step.text, recipe_model))
            run("python snippet.py", folder, environment)
        else:
            run(shortened(step.text, recipe_model), folder, environment, step.output)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_has_a_reason(page):
    reasons = [match["why"] for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if match["why"]]
    assert all(re.search(r"GPU|network|cluster|data set|hours|server", why) for why in reasons)
