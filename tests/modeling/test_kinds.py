"""Kinds of models: what cannot become a judge is refused in one line, before data is read, by every command."""

import json
import shutil

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.modeling.kinds import check_causal, check_quantization, find_kind, quantized_bits


SMALL = {"vocab_size": 320, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**SMALL, "intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 512}
T5 = {"vocab_size": 320, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
TASK = """
name: missing
labels: ["1", "2", "3"]
template: "Rate the text: {{ text }}"
source: nothing-there.jsonl
votes: {list: votes}
"""


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory):
    """A function that makes a model of a class of transformers once; returns its folder."""
    import transformers

    root, made = tmp_path_factory.mktemp("kinds"), {}

    def make(architecture, config="LlamaConfig", settings=LLAMA, quantization=None, **more):
        key = json.dumps([architecture, settings, quantization, more], default=str)
        if key not in made:
            folder = root / str(len(made))
            content = getattr(transformers, config)(**settings, **more)
            getattr(transformers, architecture)(content).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if quantization is not None:
                written = json.loads((folder / "config.json").read_text())
                (folder / "config.json").write_text(json.dumps({**written, "quantization_config": quantization}))
            made[key] = folder
        return made[key]

    return make


REFUSED = {
    "bert": (("BertForMaskedLM", "BertConfig", SMALL), "an encoder that fills in masked tokens (BertForMaskedLM)"),
    "bert as a causal model": (("BertLMHeadModel", "BertConfig", SMALL), "is an encoder (BertLMHeadModel)"),
    "t5": (("T5ForConditionalGeneration", "T5Config", T5), "an encoder-decoder (T5ForConditionalGeneration)"),
    "classifier": (("LlamaForSequenceClassification",), "a classifier (LlamaForSequenceClassification)"),
    "tagger": (("LlamaForTokenClassification",), "a tagger of tokens (LlamaForTokenClassification)"),
    "body": (("LlamaModel",), "the body of a language model without its output head (LlamaModel)"),
    "encoder of images": (("SiglipVisionModel", "SiglipVisionConfig", {"hidden_size": 16, "num_hidden_layers": 1,
                           "intermediate_size": 16, "num_attention_heads": 2}), "and not a causal language model"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_causal_language_model_is_refused_with_the_way_out(models, name):
    arguments, said = REFUSED[name]
    with pytest.raises(UserInputError) as error:
        find_kind(str(models(*arguments)))
    text = str(error.value)
    assert said in text and "Choose a causal language model" in text and "\n" not in text


def test_a_vision_language_model_without_a_causal_class_is_refused():
    from transformers import AutoConfig

    for name in ("llava", "idefics3", "qwen2_vl"):
        config = AutoConfig.for_model(name)
        config.architectures = ["SomethingForConditionalGeneration"]
        with pytest.raises(UserInputError, match="a vision-language model .*does not load as a causal language model"):
            check_causal("The model 'x'", config)


def test_every_decoder_that_transformers_knows_passes():
    """And with the architecture unknown, as in a config that was written by hand."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    for name in ("llama", "qwen3", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "opt", "phi3", "mistral"):
        for architectures in ([NAMES[name]], None):
            config = AutoConfig.for_model(name)
            config.architectures = architectures
            check_causal("The model 'x'", config)


@pytest.mark.parametrize("files", ["one", "index"])
def test_a_checkpoint_without_its_head_is_refused_unless_it_is_tied(models, tmp_path, files):
    """transformers would fill the head with random numbers."""
    for tied in (False, True):
        folder = tmp_path / str(tied)
        shutil.copytree(models("LlamaForCausalLM", tie_word_embeddings=tied), folder)
        assert find_kind(str(folder)).quantized is None
        weights = load_file(folder / "model.safetensors")
        weights.pop("lm_head.weight", None)
        if files == "one":
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
        else:
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
            index = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        if tied:
            find_kind(str(folder))
        else:
            with pytest.raises(UserInputError, match=r"no output head \(`lm_head`\) among its \d+ weights"):
                find_kind(str(folder))


def test_folders_of_adapters_and_gguf_files_are_refused(models, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(UserInputError, match="is an adapter on 'org/base', no model.*merge_and_unload"):
        find_kind(str(adapter))
    (adapter / "judge.json").write_text("{}")
    with pytest.raises(UserInputError, match="distjudge-trl merge"):
        find_kind(str(adapter))
    for config in (False, True):
        folder = tmp_path / f"gguf{config}"
        folder.mkdir()
        (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
        if config:
            shutil.copy(models("LlamaForCausalLM") / "config.json", folder)
        for path in (folder, folder / "model-Q4_K_M.gguf") if not config else (folder,):
            with pytest.raises(UserInputError, match="GGUF.*Name the model that it was made of"):
                find_kind(str(path))


@pytest.mark.parametrize(
    ("quantization", "name", "bits"),
    [(GPTQ, "GPTQ, 4 bits", 4), (AWQ, "AWQ, 4 bits", 4), (FP8, "FP8", 8), (COMPRESSED, "compressed-tensors", None),
     (NF4, "bitsandbytes, 4 bits", 4)],
)  # fmt: skip
def test_weights_that_are_quantised_in_their_files(models, quantization, name, bits):
    kind = find_kind(str(models("LlamaForCausalLM", quantization=quantization)))
    assert kind.quantized == name and quantized_bits(kind.config) == bits
    check_quantization("M", kind.config, trains="adapter", here=False)
    with pytest.raises(UserInputError, match=f"quantised \\({name}\\), and quantised weights cannot.*--use_peft"):
        check_quantization("M", kind.config, trains="weights")
    with pytest.raises(UserInputError, match="quantised already .*drop --load_in_8bit"):
        check_quantization("M", kind.config, trains="adapter", bits=8)
    if quantization is NF4:  # asked for what it is
        check_quantization("M", kind.config, trains="adapter", bits=4)
        check_quantization("M", kind.config, trains="adapter")
    else:
        with pytest.raises(UserInputError, match="drop --load_in_4bit, or name the model that is not quantised with"):
            check_quantization("M", kind.config, trains="adapter", bits=4)
        if quantization is FP8:  # transformers widens it where the device has none
            return
        # The packages for these are on none of our machines.
        with pytest.raises(UserInputError, match="Name the model that is not quantised, with --use_peft --load_in_4b"):
            check_quantization("M", kind.config, trains="adapter")


@pytest.mark.parametrize("kind", ["bert", "classifier", "gptq"])
def test_every_command_says_so_before_it_reads_data(models, tmp_path, kind, monkeypatch):
    """The data is not there: an error about it would have come first."""
    folder = models("LlamaForCausalLM", quantization=GPTQ) if kind == "gptq" else models(*REFUSED[kind][0])
    said = "quantised (GPTQ, 4 bits)" if kind == "gptq" else REFUSED[kind][1]
    task = tmp_path / "task.yaml"
    task.write_text(TASK)
    monkeypatch.chdir(tmp_path)
    commands = [
        ["plan", "--model", str(folder)],
        ["evaluate", "--model", str(folder), "--task", str(task)],
    ]
    for command in commands:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2 and said in done.output and done.output.count("\n") == 1, done.output
    from distjudge_trl.files.shipped_files import find_shipped
    from distjudge_trl.recipe.loading import load_recipe
    from distjudge_trl.recipe.run import run_recipe

    recipe = load_recipe(find_shipped("custom", "recipes", ".py", "recipe"))
    words = ["--task", str(task), "--model_name_or_path", str(folder), "--use_peft", "False", "--use_cpu"]
    with pytest.raises(UserInputError) as error:
        run_recipe(recipe.parse([*words, "--output_dir", str(tmp_path / "out")]))
    assert said in str(error.value) and not (tmp_path / "out" / "judge.json").exists()
