"""One judge takes the place of another in a folder, whatever kind either is: nothing of the old one is read again."""

import functools
import tempfile
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CHAT_TEMPLATE, LABELS, make_records, make_tiny_model, make_tokenizer
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from distjudge_trl import Judge
from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import replacing_files
from distjudge_trl.judge_folder.replacing import is_of_a_judge, replacing_judge
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.judges.merge import merge
from distjudge_trl.labels import LabelSpace
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


RECORDS = 5
# Merged ones are written by `merge`, into a folder of their own.
KINDS = ("full", "pieces", "templates", "lora", "two_adapters", "qlora")
SHOUTING = CHAT_TEMPLATE.replace("content'] }}", "content'] | upper }}")


@pytest.fixture(scope="module")
def judges(tokenizer, tmp_path_factory):
    """A trainer of every kind, each with weights of its own, and the distributions that it reads."""
    folder = tmp_path_factory.mktemp("judges")
    base = make_tiny_model(len(tokenizer), hidden_size=64)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return {kind: make_judge(kind, folder, seed) for seed, kind in enumerate(KINDS)}


def make_judge(kind, folder, seed):
    from transformers import BitsAndBytesConfig

    tokenizer, settings = make_tokenizer(), {}
    if kind == "templates":
        tokenizer.chat_template = {"default": SHOUTING, "rag": CHAT_TEMPLATE}
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = str(folder / "base")
    if kind in ("lora", "qlora"):
        settings["peft_config"] = lora
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
        settings["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    if kind == "two_adapters":
        model = PeftModel(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), lora)
        model.add_adapter("other", lora)
    trainer = DistributionSFTTrainer(
        model=model,
        args=DistributionSFTConfig(
            str(folder / kind), bf16=False, report_to="none", disable_tqdm=True, model_init_kwargs={"dtype": "float32"}
        ),
        train_dataset=make_records(4),
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
        **settings,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    if kind == "pieces":
        trainer.model.save_pretrained = functools.partial(trainer.model.save_pretrained, max_shard_size="20KB")
    log_q = trainer.predict(make_records(RECORDS, seed=1)).predictions
    return SimpleNamespace(trainer=trainer, judged=np.exp(log_q))


def names(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def alone(judges, tmp_path_factory):
    """The names of what each kind writes into an empty folder."""
    written = {}
    for kind, judge in judges.items():
        folder = tmp_path_factory.mktemp(kind)
        judge.trainer.save_model(str(folder))
        written[kind] = names(folder)
    return written


def test_the_items_that_a_judge_has_seen_stay_with_it(tokenizer, tmp_path):
    """Saved as often as one likes (pushing saves once more), and with every checkpoint."""
    records = make_records(4)
    trainer = DistributionSFTTrainer(
        model=make_tiny_model(len(tokenizer)),
        args=DistributionSFTConfig(
            str(tmp_path), bf16=False, report_to="none", disable_tqdm=True, max_steps=1, save_steps=1
        ),
        train_dataset=records,
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
        seen_items=SeenItems.of(records),
    )
    trainer.train()
    for _ in range(2):
        trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-1"):
        assert SeenItems.read(folder) == SeenItems.of(records)
    trainer.seen_items = None
    trainer.save_model()
    assert SeenItems.read(tmp_path) is None, "of another judge"


def test_a_script_s_datasets_are_the_items_that_its_judge_has_seen(tokenizer, tmp_path):
    train, one, two = make_records(4), make_records(6, seed=1), make_records(3, seed=2)
    rename = {"test": one, "other": two}
    for name, part in rename.items():
        rename[name] = part.map(lambda row, name=name: {"id": f"{name}-{row['id']}", "group": f"{name}-{row['id']}"})
    arguments = {"processing_class": tokenizer, "label_space": LabelSpace(LABELS)}
    args = DistributionSFTConfig(str(tmp_path), bf16=False, report_to="none")
    trainer = DistributionSFTTrainer(
        make_tiny_model(len(tokenizer)), args, train_dataset=train, eval_dataset=rename, **arguments
    )
    trainer.save_model()
    seen = SeenItems.read(tmp_path)
    assert seen == SeenItems.of(train, *rename.values()) and len(seen.ids) == 4 and len(seen.held_out_ids) == 9
    # Rows that were tokenized before do not name their items.
    rows = trainer.train_dataset
    trainer = DistributionSFTTrainer(trainer.model, args, train_dataset=rows, **arguments)
    trainer.save_model()
    assert SeenItems.read(tmp_path) is None


OWN = (
    "notes.txt",
    "model-notes.bin",
    "mine/adapter_config.json",
    "mine/README.md",
    "checkpoint-4/adapter_config.json",
)


def every_pair(kinds):
    """The kinds in an order in which each follows each, itself too, exactly once."""
    order = []
    for i, kind in enumerate(kinds):
        order.append(kind)
        for other in kinds[i + 1 :]:
            order += [kind, other]
    return [*order, kinds[0]]


def test_a_judge_takes_the_place_of_any_other(judges, alone, tmp_path):
    others = (*OWN, "checkpoint-4/judge.json")
    for name in (*others, "quantize_config.json", "additional_chat_templates/old.jinja"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("own")
    order = every_pair(KINDS)
    assert len({*pairwise(order)}) == len(order) - 1 == len(KINDS) ** 2
    for before, after in pairwise([None, *order]):
        judges[after].trainer.save_model(str(tmp_path))
        # A model card, which PEFT writes, says nothing of how a judge is read.
        assert names(tmp_path) - {"README.md"} == {*alone[after], *others} - {"README.md"}, (before, after)
        judged = Judge.from_pretrained(str(tmp_path)).judge(make_records(RECORDS, seed=1))
        np.testing.assert_allclose(judged, judges[after].judged, atol=1e-5, err_msg=f"{before}, then {after}")
    assert all((tmp_path / name).read_text() == "own" for name in others)
    for one, other in combinations(KINDS, 2):
        assert np.abs(judges[one].judged - judges[other].judged).max() > 1e-3, "they can be told apart"


@pytest.mark.parametrize("kind", KINDS)
def test_plain_libraries_read_what_was_saved_over_another(judges, tmp_path, kind):
    """transformers and PEFT load the trained weights, and the tokenizer its templates."""
    trainer = judges[kind].trainer
    judges["lora" if "adapter_config.json" not in names(tmp_path) else "pieces"].trainer.save_model(str(tmp_path))
    trainer.save_model(str(tmp_path))
    # An adapter's folder loads as a model, too: on its base, which its config names.
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    trained = {name: w for name, w in trainer.model.named_parameters() if w.requires_grad and "other" not in name}
    mine = {name.replace("base_model.model.", ""): weight for name, weight in loaded.named_parameters()}
    assert trained
    for name, weight in trained.items():
        torch.testing.assert_close(mine[name.replace("base_model.model.", "")].float(), weight.float())
    template = AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert template == trainer.processing_class.chat_template


def test_a_merged_judge_is_written_the_same_way(judges, tmp_path, monkeypatch):
    judges["lora"].trainer.save_model(str(tmp_path / "lora"))
    (tmp_path / "merged").mkdir()
    merge(str(tmp_path / "lora"), tmp_path / "merged")
    judged = Judge.from_pretrained(str(tmp_path / "merged")).judge(make_records(RECORDS, seed=1))
    np.testing.assert_allclose(judged, judges["lora"].judged, atol=1e-5)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distjudge_trl.judge_folder.judge_file.JudgeFile.write", full)
    with pytest.raises(RuntimeError, match="again: cannot be written .*No space left"):
        merge(str(tmp_path / "lora"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_judge_is_none_while_another_takes_its_place(tmp_path, monkeypatch):
    """At every rename, as after a kill there: `judge.json` is there only with all files of one judge."""

    def save(number):
        with replacing_judge(tmp_path) as folder:
            (folder / "additional_chat_templates").mkdir()
            for name in ("judge.json", "a.safetensors", "model.safetensors", "additional_chat_templates/x"):
                (folder / name).write_text(number)

    save("one")
    seen, rename = [], Path.rename

    def look(self, target):
        rename(self, target)
        read = {path.read_text() for path in tmp_path.glob("*.*") if path.is_file()}
        read |= {path.read_text() for path in tmp_path.glob("additional_chat_templates/*")}
        seen.append(((tmp_path / "judge.json").exists(), read))

    monkeypatch.setattr(Path, "rename", look)
    save("two")
    assert len(seen) == 8 and all(len(read) == 1 for is_judge, read in seen if is_judge)
    assert seen[0] == (False, {"one"}) and seen[-1] == (True, {"two"}), seen


def test_renaming_that_fails_halfway_puts_the_old_judge_back(tmp_path, monkeypatch):
    with replacing_judge(tmp_path) as folder:
        for name in ("judge.json", "model.safetensors", "adapter_config.json"):
            (folder / name).write_text("old")
    rename = Path.rename

    def fail(self, target):
        if self.name == "judge.json" and Path(target).parent == tmp_path and self.read_text() == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"), replacing_judge(tmp_path) as folder:
        for name in ("judge.json", "model.safetensors"):
            (folder / name).write_text("new")
    assert names(tmp_path) == {"judge.json", "model.safetensors", "adapter_config.json"}
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "model.safetensors.index.json", "pytorch_model-00001-of-00002.bin", "tokenizer.model"),
        *("consolidated.safetensors", "consolidated.safetensors.index.json", "consolidated.00.safetensors"),
        *("consolidated-00001-of-00002.safetensors", "tokenizer.model.v3", "tokenizer.model.v3m1", "tekken.json"),
        *("tokenizer.mm.model.v7", "sentencepiece.model", "spm.model", "tiktoken.model"),
    ],
)
def test_a_file_that_would_be_read_with_a_new_judge_goes(tmp_path, name):
    (tmp_path / name).write_text("old")
    with replacing_judge(tmp_path) as folder:
        (folder / "judge.json").write_text("new")
    assert names(tmp_path) == {"judge.json"}


@pytest.mark.parametrize("name", ["params.json", "judge.gguf", "notes.model", "my.safetensors", "tokenizer.model.txt"])
def test_a_file_that_nothing_reads_unasked_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with replacing_judge(tmp_path) as folder:
        (folder / "judge.json").write_text("new")
    assert names(tmp_path) == {"judge.json", name}


def test_the_temporary_folder_is_no_content_of_a_relative_folder(tmp_path, monkeypatch):
    """From Python 3.12 on its path is absolute."""
    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *args: str(Path(mkdtemp(*args)).absolute()))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with replacing_files("judge", stale=lambda _: True, mark="judge.json") as folder:
            assert folder.is_absolute()
            (folder / "judge.json").write_text("new")
    assert names(tmp_path) == {"judge/judge.json"}


def test_a_folder_that_was_made_for_a_judge_goes_if_none_is_written(tmp_path):
    with pytest.raises(KeyError), replacing_files(tmp_path / "new", stale=is_of_a_judge, mark="judge.json"):
        raise KeyError
    assert not (tmp_path / "new").exists()


def test_only_the_adapter_that_a_judge_reads_can_be_trained(judges, tokenizer, tmp_path):
    """PEFT saves others into folders of their own, and a judge is read with `default`."""
    base = AutoModelForCausalLM.from_pretrained(
        judges["lora"].trainer.model.peft_config["default"].base_model_name_or_path, dtype=torch.float32
    )
    model = PeftModel(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.set_adapter("other")
    with pytest.raises(UserInputError, match="adapter 'other' is active: a judge is read with 'default'"):
        DistributionSFTTrainer(
            model=model,
            args=DistributionSFTConfig(str(tmp_path), bf16=False, report_to="none"),
            train_dataset=make_records(4),
            processing_class=tokenizer,
            label_space=LabelSpace(LABELS),
        )
