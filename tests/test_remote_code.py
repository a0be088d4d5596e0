"""Models whose code comes with their repository: every command runs it if it is allowed, and asks nobody."""

import json

import pytest
from click.testing import CliRunner
from conftest import make_tiny_model

from distjudge_trl import Judge
from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe import Recipe


CODE = {
    "configuration_mine.py": (
        "import pathlib\nfrom transformers import LlamaConfig\n"
        "pathlib.Path({mark!r}).touch()\n"
        "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
    ),
    "modeling_mine.py": (
        "from transformers import LlamaForCausalLM\nfrom .configuration_mine import MineConfig\n"
        "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n"
    ),
    "tokenization_mine.py": (
        "import pathlib\nfrom transformers import PreTrainedTokenizerFast\n"
        "pathlib.Path({mark!r}).touch()\n"
        "class MineTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    ),
}


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def world(tokenizer, tmp_path_factory):
    """A model with a config, a class and a tokenizer of its own, a task, and a LoRA judge trained on it. `ran` exists
    once any of the code has run.
    """
    from transformers import dynamic_module_utils

    folder = tmp_path_factory.mktemp("remote")
    model = folder / "model"
    make_tiny_model(len(tokenizer)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    for name, text in CODE.items():
        (model / name).write_text(text.format(mark=str(folder / "ran")))
    classes = {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    rewrite(model / "config.json", model_type="mine", architectures=["MineForCausalLM"], auto_map=classes)
    classes = {"AutoTokenizer": [None, "tokenization_mine.MineTokenizer"]}
    rewrite(model / "tokenizer_config.json", tokenizer_class="MineTokenizer", auto_map=classes)
    rows = [{"text": f"the text {i}", "votes": ["1", "2", str(i % 3 + 1)]} for i in range(30)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "task.yaml").write_text(
        "name: t\nlabels: ['1', '2', '3']\ntemplate: 'rate {{ text }}'\nsource: rows.jsonl\nvotes: {list: votes}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder / "modules"))
        recipe = Recipe(task=None, model=str(model), training={"max_steps": 1, "save_strategy": "no"})
        argv = ["--task", str(folder / "task.yaml"), "--output_dir", str(folder / "judge"), "--bf16", "False"]
        recipe.run([*argv, "--use_peft", "--trust_remote_code", "True"])
        yield folder


COMMANDS = {
    "judge": ("judge", "--model", "JUDGE", "--input", "ROWS", "--out", "OUT.jsonl"),
    "evaluate": ("evaluate", "--model", "JUDGE", "--task", "TASK"),
    "evaluate an untrained model": ("evaluate", "--model", "MODEL", "--task", "TASK"),
    "merge": ("merge", "--model", "JUDGE", "--out", "OUT"),
    "data --stats": ("data", "TASK", "--stats", "--model", "MODEL"),
    "data --show": ("data", "TASK", "--show", "1", "--model", "MODEL"),
    "plan": ("plan", "--model", "MODEL", "--gpu-memory", "4GiB"),
}


def invoke(world, tmp_path, command, *more):
    names = {"JUDGE": "judge", "MODEL": "model", "TASK": "task.yaml", "ROWS": "rows.jsonl"}
    words = [str(world / names[w]) if w in names else str(tmp_path / w) if "OUT" in w else w for w in command]
    (world / "ran").unlink(missing_ok=True)
    # Whoever is asked on the terminal gets a yes.
    return CliRunner().invoke(main, [*words, *more], input="y\n" * 5)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_config_does_not_fetch_kernels_from_the_hub(tokenizer, tmp_path, key):
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", **{key: "someone/kernel"})
    space = LabelSpace(["1", "2"])
    with pytest.raises(
        UserInputError, match="asks for the attention kernel 'someone/kernel' from the hub, which is code"
    ):
        Judge.from_pretrained(str(tmp_path), label_space=space)
    # transformers' own error: the package for kernels, or the kernel, is not here.
    with pytest.raises(UserInputError, match="(?i)kernel") as error:
        Judge.from_pretrained(str(tmp_path), label_space=space, trust_remote_code=True)
    assert "which is code" not in str(error.value)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_code_that_is_not_allowed_does_not_run_and_nobody_is_asked(world, tmp_path, command):
    done = invoke(world, tmp_path, command)
    assert done.exit_code == 2 and "allow it with --trust-remote-code" in done.output, done.output
    assert "[y/N]" not in done.output and not (world / "ran").exists()
    assert sum(line.startswith("error:") for line in done.output.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_code_that_is_allowed_reaches_config_model_and_tokenizer(world, tmp_path, command):
    done = invoke(world, tmp_path, command, "--trust-remote-code")
    assert done.exit_code == 0, done.output


def test_training_says_how_to_allow_it(world, tmp_path):
    recipe = Recipe(task=None, model=str(world / "model"))
    with pytest.raises(UserInputError, match="allow it with --trust-remote-code"):
        recipe.run(["--task", str(world / "task.yaml"), "--output_dir", str(tmp_path / "judge")])
