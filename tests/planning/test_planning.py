"""What a run needs in memory: counts against real models, shares against the ZeRO paper, changes that do fit."""

import importlib.util
from dataclasses import replace
from functools import cache

import pytest
from click.testing import CliRunner
from conftest import ROOT

from distjudge_trl.cli import main
from distjudge_trl.errors import UserInputError
from distjudge_trl.planning import Training, estimate, find_changes, load_config, measure_footprint, read_sharding
from distjudge_trl.planning.footprint import _run, _shallow
from distjudge_trl.planning.memory import GIB, parse_memory
from distjudge_trl.planning.report import launch_line
from distjudge_trl.planning.sharding import Sharding


CONFIGS = ROOT / "accelerate_configs"
FULL = Training(64, 2, dtype="float32")


@cache
def shape(layers=6):
    from transformers import AutoConfig

    return AutoConfig.for_model(
        "qwen2",
        vocab_size=5000,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )


@cache
def footprint(training):
    return measure_footprint(shape(), training)


@cache
def large(training):
    return measure_footprint(load_config("Qwen/Qwen2.5-7B"), training)


def planned(training, sharding, measure=footprint):
    training = replace(training, cast=sharding.casts)
    return estimate(measure(training), training, sharding)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # As the model cards say, to the last parameter.
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
    ],
)
def test_known_shapes_have_the_published_number_of_parameters(model, parameters):
    assert measure_footprint(load_config(model), Training(16, 1)).sizes.base == parameters


@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_real_model_and_its_adapter(tied):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = shape()
    config = type(config).from_dict({**config.to_dict(), "tie_word_embeddings": tied})
    model = AutoModelForCausalLM.from_config(config)
    sizes = measure_footprint(config, Training(16, 1, lora_r=8)).sizes
    assert sizes.base == sum(p.numel() for p in model.parameters())
    assert sizes.head == model.lm_head.weight.numel()
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert sizes.adapter == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_a_model_may_have_fewer_layers_than_the_copies():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(shape(2))
    assert measure_footprint(shape(2), Training(16, 1)).sizes.base == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("rank", [0, 4])
def test_two_shallow_copies_tell_the_activations_of_the_whole_model(rank, checkpointing):
    training = replace(FULL, lora_r=rank, gradient_checkpointing=checkpointing)
    whole = _run(_shallow(shape(10), 10), training)
    copied = measure_footprint(shape(10), training)
    assert copied.first == pytest.approx(max(whole["forward"], whole["backward"]), rel=1e-3)


def test_activations_grow_with_rows_and_shrink_by_recomputing():
    short, long = (footprint(replace(FULL, batch_size=rows, gradient_checkpointing=False)) for rows in (2, 8))
    assert long.first == pytest.approx(4 * short.first, rel=0.2)
    recomputed = footprint(replace(FULL, batch_size=8))
    assert recomputed.first < long.first / 2
    assert recomputed.last < recomputed.first < 6 * recomputed.last


def test_zero_shares_out_what_its_stage_says():
    """16 bytes a parameter: 2 of weights, 2 of gradients, 12 of the optimizer (Rajbhandari et al. 2020, 3.1)."""
    parameters = footprint(FULL).sizes.base
    for stage, (weights, gradients) in {1: (1, 1), 2: (1, 4), 3: (4, 4)}.items():
        parts = planned(FULL, Sharding("z", "zero", stage, 4)).moments["backward ends"]
        assert parts["weights"] == 2 * parameters // weights
        assert parts["gradients"] == 2 * parameters // gradients
        assert parts["optimizer"] == 12 * parameters // 4
    alone = planned(FULL, Sharding("one", "replicas", 0, 1)).moments["backward ends"]
    assert (alone["weights"], alone["gradients"], alone["optimizer"]) == (
        4 * parameters,
        4 * parameters,
        8 * parameters,
    )
    assert alone["buffers"] == 0
    # Buckets of DDP hold every gradient once more.
    assert planned(FULL, Sharding("ddp", "replicas", 0, 2)).moments["backward ends"]["buffers"] == 4 * parameters


def test_offloading_moves_the_optimizer_to_the_host():
    here = planned(FULL, Sharding("z", "zero", 3, 4))
    away = planned(FULL, Sharding("z", "zero", 3, 4, offload_optimizer=True, offload_weights=True))
    assert away.moments["backward ends"]["optimizer"] == away.moments["backward ends"]["weights"] == 0
    assert here.host == 0 and away.peak < here.peak


def test_every_process_loads_the_whole_model_into_the_host_s_memory():
    """Unless ZeRO-3 partitions it as it is read, or its type is the checkpoint's: then processes share the files."""
    full, lora = replace(FULL, dtype="float32"), replace(FULL, lora_r=16, dtype="bfloat16")
    shared = {name: read_sharding(CONFIGS / f"{name}.yaml", 8) for name in ("fsdp2", "zero2", "multi_gpu")}
    for sharding in shared.values():
        assert planned(full, sharding, large).loading == 8 * 4 * 7_615_616_512
        assert planned(lora, sharding, large).loading == 0
    assert planned(full, read_sharding(CONFIGS / "zero3.yaml", 8), large).loading == 0
    assert planned(full, read_sharding(CONFIGS / "single_gpu.yaml", 1), large).loading == 0
    assert planned(replace(lora, dtype="float32", bits=4), shared["fsdp2"], large).loading == 0
    arguments = ["plan", "--model", "Qwen/Qwen2.5-7B", "--accelerate-config", "fsdp2", "--gpus", "8"]
    done = CliRunner().invoke(main, arguments)
    assert "while the model is loaded, of all devices together: 227.0 GiB (every process loads all" in done.output


@pytest.mark.parametrize("devices", [1, 8, 64])
@pytest.mark.parametrize(("name", "host"), [("zero2_offload", 18), ("zero3_offload", 20)])
def test_bytes_of_host_memory_are_those_that_deepspeed_allocates(name, host, devices):
    """A parameter's 12 bytes of optimizer, 4 of gradient in float32, 2 that travel, 2 of weights; of all devices
    together, however many. The config says so, too.
    """
    sharding = read_sharding(CONFIGS / f"{name}.yaml", devices)
    assert planned(FULL, sharding).host / footprint(FULL).sizes.base == pytest.approx(host, abs=0.01)
    assert f"host needs {host} bytes" in (CONFIGS / f"{name}.yaml").read_text()


@pytest.mark.parametrize(("text", "offload"), [("'false'", False), ("false", False), ("'True'", True), ("true", True)])
def test_switches_of_fsdp_are_read_as_accelerate_does(tmp_path, text, offload):
    path = tmp_path / "mine.yaml"
    path.write_text(f"distributed_type: FSDP\nnum_processes: 4\nfsdp_config:\n  fsdp_offload_params: {text}\n")
    sharding = read_sharding(path)
    assert (sharding.offload_optimizer, sharding.offload_weights) == (offload, offload)
    parts = planned(FULL, sharding).moments["backward ends"]
    assert (parts["gradients"] == 0) == offload


def test_quantised_weights_take_what_their_numbers_take():
    bf16, int8, nf4 = (
        planned(replace(FULL, dtype="bfloat16", lora_r=8, bits=bits), Sharding("one", "replicas", 0, 1), large)
        for bits in (16, 8, 4)
    )
    linear = large(replace(FULL, dtype="bfloat16", lora_r=8)).sizes.linear
    weights = [run.moments["backward begins"]["weights"] for run in (bf16, int8, nf4)]
    # The adapter is float32 on bfloat16 weights, bfloat16 on quantised ones.
    adapter = 2 * large(replace(FULL, dtype="bfloat16", lora_r=8)).sizes.adapter
    assert weights[0] - adapter - weights[1] == linear
    assert weights[1] - weights[2] == pytest.approx(linear * (0.5 - 1 / 64), rel=1e-3)


def test_zero3_sends_half_as_much_again():
    """Rajbhandari et al. 2020, section 7: 2 P as data parallel, 3 P with weights shared out; and nothing alone."""
    sent = {stage: planned(FULL, Sharding("z", "zero", stage, 64)).sent for stage in (1, 2, 3)}
    parameters = footprint(FULL).sizes.base
    assert sent[1] == sent[2] == pytest.approx(2 * 2 * parameters * 63 / 64, rel=1e-3)
    assert sent[3] == pytest.approx(3 * 2 * parameters * 63 / 64, rel=1e-3)
    assert planned(FULL, Sharding("z", "zero", 3, 1)).sent == 0


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_understood(path, monkeypatch):
    monkeypatch.setattr("distjudge_trl.runtime.launches.device_count", lambda: 4)
    sharding = read_sharding(path)
    name = path.stem
    assert sharding.kind == ("zero" if "zero" in name else "fsdp" if "fsdp" in name else "replicas")
    if sharding.kind == "zero":
        assert sharding.stage == int(name.split("zero")[1][0])
    assert (sharding.offload_optimizer, sharding.offload_weights) == ("offload" in name, "zero3_offload" in name)
    assert sharding.device == ("cpu" if "cpu" in name else "gpu")
    other = 2 if "cpu" in name else 4
    assert sharding.devices == (16 if "multi_node" in name else 1 if name in ("cpu", "single_gpu") else other)
    assert read_sharding(path, 1).devices == 1


def test_a_plan_for_all_gpus_of_a_machine_without_any_asks_how_many(monkeypatch):
    monkeypatch.setattr("distjudge_trl.runtime.launches.device_count", lambda: 0)
    result = plan("--model", "smollm2-135m", "--accelerate-config", "zero3")
    assert result.exit_code == 2 and "for another machine: --num-processes N" in result.output


@pytest.mark.parametrize(
    ("name", "fast", "bf16"), [("cpu", True, True), ("cpu", False, False), ("zero3", False, True)]
)
def test_a_plan_for_a_cpu_computes_in_what_this_one_has(monkeypatch, name, fast, bf16):
    from distjudge_trl.planning import report

    monkeypatch.setattr("distjudge_trl.runtime.precision.cpu_has_bfloat16", lambda: fast)
    seen = []
    monkeypatch.setattr(report, "describe_run", lambda model, sizes, training, sharding: seen.append(training) or "")
    plan("--model", "smollm2-135m", "--accelerate-config", name, "--num-processes", "1", "--use_peft")
    assert (seen[0].bf16, seen[0].dtype) == (bf16, "bfloat16" if bf16 else "float32")
    line = launch_line(seen[0], Sharding(name, "replicas", 0, 1))
    assert "--dtype" not in line and ("--bf16 False" in line) == (not bf16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distributed_type: TPU", ["TPU", "DDP, DeepSpeed and FSDP"]),
        ("distributed_type: 'NO'\nnum_processes: 4", ["one process", "multi_gpu"]),
        ("distributed_type: DEEPSPEED\ndeepspeed_config:\n  deepspeed_config_file: a.json", ["a DeepSpeed JSON file"]),
        ("distributed_type: FSDP\nfsdp_config:\n  fsdp_reshard_after_forward: false", ["reshard_after_forward: true"]),
        ("just words", ["not an accelerate config"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_other_configs_are_refused_by_name(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserInputError) as error:
        read_sharding(path)
    assert all(word in str(error.value) for word in ["mine", *words])


@pytest.mark.parametrize(
    ("training", "config", "devices", "memory", "first", "same"),
    [
        # Full fine-tuning of 7B on one 40 GiB GPU: adapters, or the host's memory.
        (Training(1024, 8, dtype="float32"), "zero2", 1, 40, ("--use_peft",), "zero2_offload"),
        # Memory is only short for activations.
        (Training(1024, 8, lora_r=16, gradient_checkpointing=False), "single_gpu", 1, 40,
         ("--gradient_checkpointing", "true"), "single_gpu"),
        # Eight GPUs hold copies of what they could share.
        (Training(1024, 8, dtype="float32"), "zero2", 8, 30, ("--accelerate-config", "zero3"), "zero3"),
    ],
)  # fmt: skip
def test_the_cheapest_change_comes_first_and_fits(training, config, devices, memory, first, same):
    sharding = read_sharding(CONFIGS / f"{config}.yaml", devices)
    assert planned(training, sharding, large).peak > memory * GIB
    found = find_changes(training, sharding, memory * GIB, large)
    assert found[0].flags == first
    assert found[-1].trains_the_same and found[-1].sharding.name == same
    for change in found:
        assert change.estimate.peak <= memory * GIB
        assert change.estimate == planned(change.training, change.sharding, large)
        rows = change.training.batch_size * change.training.gradient_accumulation_steps
        assert rows == training.batch_size * training.gradient_accumulation_steps
        assert f"--accelerate-config {change.sharding.name}" in launch_line(change.training, change.sharding)


def test_the_page_s_table_is_what_is_estimated():
    spec = importlib.util.spec_from_file_location("plan_tables", ROOT / "scripts/plan_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = (ROOT / "docs/scaling.md").read_text().split(tables.START)[1].split(tables.END)[0]
    assert all(f"**{model}**" in page for model in tables.MODELS)
    rows = list(tables.rows("Qwen/Qwen2.5-7B"))
    assert len(rows) == 15
    assert "\n".join(rows) in page, "run `make plan-tables`"


def test_what_no_change_makes_fit_is_said():
    sharding = read_sharding(CONFIGS / "single_gpu.yaml")
    assert find_changes(FULL, sharding, GIB // 2, footprint) == []


def plan(*args):
    return CliRunner().invoke(main, ["plan", *args])


def test_a_plan_names_parts_peak_and_verdict():
    line = ("--model", "Qwen/Qwen2.5-7B", "--accelerate-config", "zero2", "--gpus", "1", "--load_in_4bit")
    result = plan(*line, "--gpu-memory", "40GiB", "--seq-len", "1024", "--batch-size", "8")
    assert result.exit_code == 0, result.output
    assert "7.62 billion parameters" in result.output and "QLoRA, rank 16" in result.output
    for part in ("weights", "gradients", "optimizer", "activations", "logits and head", "together"):
        assert f"\n{part} " in result.output
    assert "Fits: " in result.output and "of 40.0 GiB per device." in result.output
    short = plan(*line, "--gpu-memory", "8GiB")
    assert short.exit_code == 1 and "Does not fit" in short.output and "Fits with" in short.output
    (launch,) = [line for line in short.output.splitlines() if "distjudge-trl train RECIPE" in line]
    # What is suggested can be asked back.
    words = launch.split("RECIPE ")[1].split()
    again = plan("--model", "Qwen/Qwen2.5-7B", "--gpu-memory", "8GiB", *words)
    assert again.exit_code == 0 and "Fits: " in again.output, again.output


ON_FOUR = ("--accelerate-config", "zero2", "--gpus", "4", "--gpu-memory", "40GiB")


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ((), ("--seq-len", "2048", "--batch-size", "4", "--gradient_accumulation_steps", "4", "--use_peft")),
        (
            ("--load_in_4bit", "--batch-size", "2", "--max-length=512", "--gradient_checkpointing", "False"),
            ("--load_in_4bit", "--batch-size", "2", "--seq-len", "512", "--gradient_accumulation_steps", "4")
            + ("--gradient_checkpointing", "False"),
        ),
        (
            ("--use_peft", "False", "--learning_rate", "1e-5"),
            ("--seq-len", "2048", "--batch-size", "4", "--gradient_accumulation_steps", "4"),
        ),
    ],
)
def test_a_plan_of_a_recipe_is_the_plan_of_its_settings(words, same):
    planned = plan("summeval", *ON_FOUR, *words)
    assert planned.exit_code in (0, 1) and "Qwen2.5-7B-Instruct" in planned.output, planned.output
    by_hand = plan("--model", "Qwen/Qwen2.5-7B-Instruct", *ON_FOUR, *same)
    assert planned.output.replace("train summeval", "train RECIPE") == by_hand.output


def test_a_plan_of_a_user_s_own_task_and_what_is_wrong_with_others(tmp_path):
    configs = {"NULL": "max_length: null", "NEGATIVE": "max_length: -5", "RANK": "use_peft: true\nlora_r: 0"}
    for name, text in configs.items():
        (tmp_path / name).write_text(text)
    own = plan(str(ROOT / "docs/examples/replies.yaml"), "--model", "smollm2-135m", "--use_peft", "False")
    assert own.exit_code == 0 and "smollm2-135m: 0.135 billion parameters, 0.135 billion trained" in own.output
    for words, message in (
        ((), "Give a recipe, or --model"),
        (("--foo", "3"), "No such option '--foo'"),
        (("vader", "--foo", "3"), "Unknown option --foo"),
        (("vadr",), "Did you mean 'vader'?"),
        (("vader", "--config", "NULL"), "sets no max_length: give --max_length"),
        (("vader", "--config", "NEGATIVE"), "--seq-len: -5 is not in the range x>=1"),
        (("vader", "--config", "RANK"), "--lora_r: 0 is not in the range x>=1"),
        (("vader", "--method", "raw"), "--method raw trains nothing"),
        (("vader", "extra", "words"), "These words belong to no option"),
    ):
        done = plan(*(str(tmp_path / word) if word in configs else word for word in words))
        assert done.exit_code == 2 and message in done.output, done.output


@pytest.mark.parametrize(("key", "option"), [("bf16: false", "--bf16=False"), ("dtype: bfloat16", "--dtype=bfloat16")])
def test_a_plan_of_a_recipe_computes_in_the_types_that_it_names(tmp_path, key, option):
    (tmp_path / "c.yaml").write_text(key)
    words = ("vader", "--model", "Qwen/Qwen2.5-7B", "--use_peft", "False", "--gpu-memory", "400GiB", "--gpus", "1")
    named = plan(*words, "--config", str(tmp_path / "c.yaml"))
    assert named.exit_code == 0, named.output
    assert named.output == plan(*words, option).output != plan(*words).output


def test_a_plan_of_a_recipe_suggests_its_own_launch_line():
    words = ("--use_peft", "--gradient_checkpointing", "--gpu-memory", "8GiB", "--accelerate-config", "single_gpu")
    done = plan("vader", "--model", "Qwen/Qwen2.5-7B", *words, "--gpus", "1")
    assert done.exit_code == 1
    assert "distjudge-trl train vader --model_name_or_path Qwen/Qwen2.5-7B --accelerate-config" in done.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--gpu-memory", "4xb"], ["--gpu-memory 4xb", "40GiB"]),
        (["--gpu-memory", "-4"], ["--gpu-memory -4"]),
        (["--gpu-memory", "nan"], ["--gpu-memory nan"]),
        (["--accelerate-config", "zer2"], ["Did you mean 'zero2'"]),
        (["--load_in_4bit", "--load_in_8bit"], ["one of them"]),
        (["--gpus", "8"], ["single_gpu", "multi_gpu"]),
        (["--gpus", "0"], ["--gpus"]),
        (["--seq-len", "0"], ["--seq-len"]),
        (["--seq-len", "1000000000"], ["--seq-len 1000000000 with --batch-size", "more than any device holds"]),
    ],
)
def test_bad_plans_are_one_line(args, words):
    result = plan("--model", "Qwen/Qwen2.5-7B", *args)
    assert result.exit_code == 2
    assert all(word in result.output for word in words), result.output


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "known offline"),
        ("{", "no model config"),
        ('{"model_type": "nothing"}', "no model config"),
        ('{"model_type": "t5"}', "causal"),
        ('{"model_type": "clip"}', "causal"),
        ('{"model_type": "llama", "hidden_size": "x"}', "no model config"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(tmp_path, content, word):
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    result = plan("--model", str(folder))
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert word in result.output and "Traceback" not in result.output


def test_memory_is_read_with_and_without_units():
    assert [parse_memory(text) for text in ("40GiB", "40 gib", "40", "80GB", "512MiB")] == [
        40 * GIB, 40 * GIB, 40 * GIB, 80 * 10**9, 2**29
    ]  # fmt: skip
