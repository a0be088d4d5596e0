"""The recipe: learning, QLoRA and generating on the real bundled model; killing, resuming and launching, where the
model does not matter, on a tiny one.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, SHARED
from tiny_runs import accelerate

from distjudge_trl import Judge, get_task
from distjudge_trl.data import split_records, subsample
from distjudge_trl.evaluation import item_kl, read_predictions, read_results
from distjudge_trl.runtime.environment import cpu_has_bfloat16


pytestmark = pytest.mark.usefixtures("bundled_model")

RECIPE = str(ROOT / "recipes" / "vader.py")
SMALL = (
    *("--max_train_samples", "48", "--max_eval_samples", "24"),
    *("--per_device_train_batch_size", "8", "--bf16", "False"),
)


def run(*command, **kwargs):
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=900, cwd=ROOT, **kwargs)


@pytest.fixture(scope="module")
def recipe(warm_python):
    return lambda *options: run(warm_python, RECIPE, *options)


def steps_of(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "grad_norm" in entry]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six steps of an interpreter as a user starts it."""
    folder = tmp_path_factory.mktemp("trained")
    options = (*SMALL, "--num_train_epochs", "1", "--logging_steps", "1", "--save_strategy", "no")
    done = run(sys.executable, RECIPE, *options, "--output_dir", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


def test_a_run_leaves_a_judge_its_logs_and_its_results(trained):
    folder, done = trained
    names = {path.name for path in folder.iterdir()}
    assert {
        "model.safetensors",
        "tokenizer.json",
        "judge.json",
        "README.md",
        "trainer_state.json",
        "results.json",
    } <= names
    assert len(steps_of(folder)) == 6
    results = read_results(folder)
    assert results["metrics"]["num_items"] == 24 and results["settings"]["num_train_items"] == 48
    assert "\n| distribution  " in done.stdout and "\n| noise floor  " in done.stdout
    kl = item_kl(
        np.array(read_predictions(folder)["label_distribution"][:]),
        np.log(np.array(read_predictions(folder)["judge_distribution"][:])),
    )
    assert kl.mean() == pytest.approx(results["metrics"]["kl"]["value"], abs=1e-6)


def test_the_reloaded_judge_gives_the_evaluated_distributions(trained):
    folder, _ = trained
    test = subsample(split_records(get_task("vader").load())[1], 24)
    judge = Judge.from_pretrained(str(folder))
    evaluated = read_predictions(folder)
    assert evaluated["id"][:] == test["id"][:]
    np.testing.assert_allclose(judge.judge(test), evaluated["judge_distribution"][:], atol=1e-5)
    word = test[0]["id"]
    np.testing.assert_allclose(judge.judge([{"text": word}])[0], evaluated["judge_distribution"][0], atol=1e-5)


def test_training_moves_held_out_words_towards_the_annotators(recipe, trained, tmp_path):
    # Few items to calibrate the untrained model on, for time's sake.
    few = ("--validation_fraction", "0.01")
    done = recipe(*SMALL, *few, "--method", "raw", "--output_dir", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "model.safetensors").exists()
    raw, after = (read_results(folder)["metrics"]["kl"] for folder in (tmp_path, trained[0]))
    # Six steps on 48 words: intervals that do not even touch.
    assert after["high"] < raw["low"]


def test_after_kill_9_a_resumed_run_continues_the_same_trajectory(
    recipe, warm_python, recipe_model, lexicon, tmp_path
):
    # Many checkpoints, so that it is killed long before its end.
    options = (
        *(*SMALL, "--model_name_or_path", recipe_model, "--data_path", str(lexicon), "--num_train_epochs", "10"),
        *("--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "2"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = recipe(*options, "--output_dir", str(whole))
    assert done.returncode == 0, done.stderr[-3000:]
    process = subprocess.Popen(
        [warm_python, RECIPE, *options, "--output_dir", str(killed)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while not list(killed.glob("checkpoint-*/checkpoint.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists()
    done = recipe(*options, "--resume_from_checkpoint", "true", "--output_dir", str(killed))
    assert done.returncode == 0 and "Resuming from" in done.stdout + done.stderr, done.stderr[-3000:]
    expected, resumed = steps_of(whole), steps_of(killed)
    assert len(resumed) == len(expected) == 60
    for name in ("loss", "kl", "ce", "adversarial_gain", "label_mass"):
        np.testing.assert_allclose([s[name] for s in resumed], [s[name] for s in expected], atol=1e-6, rtol=1e-6)
    judged = [read_predictions(folder)["judge_distribution"][:] for folder in (killed, whole)]
    np.testing.assert_allclose(*judged, atol=1e-5)


def test_accelerate_launch_with_two_zero2_processes(recipe_model, tmp_path):
    """Launcher and recipe are interpreters as a user starts them."""
    pytest.importorskip("deepspeed")
    options = (*SMALL, "--model_name_or_path", recipe_model, "--per_device_train_batch_size", "4", "--max_steps", "2")
    launcher = accelerate(ROOT / "accelerate_configs" / "zero2_cpu.yaml")
    done = run(*launcher, RECIPE, *options, "--output_dir", str(tmp_path), env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    results = read_results(tmp_path)
    assert results["provenance"]["world_size"] == 2 and results["metrics"]["num_items"] == 24
    assert done.stdout.count("| noise floor") == 1, "only the main process speaks"
    records = [{"text": word} for word in read_predictions(tmp_path)["id"][:4]]
    judged = Judge.from_pretrained(str(tmp_path)).judge(records)
    np.testing.assert_allclose(judged, read_predictions(tmp_path)["judge_distribution"][:4], atol=1e-4)


@pytest.mark.shared
def test_summeval_as_the_paper_launches_it(warm_python, recipe_model, tmp_path):
    """`accelerate launch --config_file zero2_cpu.yaml recipes/summeval.py` on people's ratings of summaries."""
    pytest.importorskip("deepspeed")
    options = {
        "data_path": SHARED / "data/summeval/model_annotations.aligned.paired.jsonl.gz",
        "model_name_or_path": recipe_model,
        "use_peft": False,
        "max_length": 1024,
        "max_items": 40,  # tokens are bytes: to cut all texts to length would take a minute
        "max_train_samples": 8,
        "max_eval_samples": 8,
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "save_strategy": "no",
        "output_dir": tmp_path,
    }
    done = run(
        warm_python,
        *accelerate(ROOT / "accelerate_configs" / "zero2_cpu.yaml")[1:],
        str(ROOT / "recipes/summeval.py"),
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = read_results(tmp_path)
    assert results["provenance"]["world_size"] == 2 and results["metrics"]["num_items"] == 8
    assert results["labels"] == ["1", "2", "3", "4", "5"] and results["settings"]["alpha"] == 0.8
    assert Judge.from_pretrained(str(tmp_path)).judge_file.task == "summeval"


def test_qlora_trains_real_nf4_weights_and_reloads(recipe, tmp_path):
    pytest.importorskip("bitsandbytes")
    # bfloat16, as by default, where the CPU computes in it; elsewhere it is emulated for minutes.
    dtype = () if cpu_has_bfloat16() else ("--dtype", "float32")
    done = recipe(
        *SMALL,
        *dtype,
        "--load_in_4bit",
        "--use_peft",
        "--lora_r",
        "8",
        "--learning_rate",
        "1e-3",
        "--max_steps",
        "4",
        "--logging_steps",
        "1",
        "--output_dir",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "adapter_model.safetensors").is_file() and not (tmp_path / "model.safetensors").exists()
    assert all(step["grad_norm"] > 0 for step in steps_of(tmp_path))
    judge = Judge.from_pretrained(str(tmp_path))
    assert any("Linear4bit" in type(module).__name__ for module in judge.model.modules())
    assert judge.judge_file.base_model == "smollm2-135m", "the name, not a path of this machine"
    evaluated = read_predictions(tmp_path)
    records = [{"text": word.removesuffix(" #2")} for word in evaluated["id"][:]]
    # bfloat16 arithmetic rounds differently in batches of another make-up.
    np.testing.assert_allclose(judge.judge(records), evaluated["judge_distribution"][:], atol=2e-2)


def test_vocab_normalization_keeps_a_generator_that_answers_with_a_label(recipe, recipe_model, lexicon, tmp_path):
    """Greedy generation of the trained model is one label and the end of the turn's text; the label mass is near 1."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distjudge_trl.batching import render_prompt

    tiny = ("--model_name_or_path", recipe_model, "--data_path", str(lexicon), "--learning_rate", "1e-2")
    mass = {}
    for normalization in ("vocab", "labels"):
        out = tmp_path / normalization
        options = ("--label_normalization", normalization, "--num_train_epochs", "8", "--output_dir", str(out))
        done = recipe(*SMALL, *tiny, *options)
        assert done.returncode == 0, done.stderr[-3000:]
        mass[normalization] = read_results(out)["metrics"]["label_mass"]
    print(f"label mass: {mass}")
    assert mass["vocab"] > 0.95 and mass["labels"] < 0.5
    tmp_path /= "vocab"
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    test = subsample(split_records(get_task("vader").load())[1], 8)
    for row in test:
        inputs = tokenizer(render_prompt(tokenizer, row["prompt"]), return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=1, do_sample=False)
        answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
        assert answer in get_task("vader").labels


def test_a_user_s_mistake_is_one_line_exit_code_2_and_nothing_written(recipe, tmp_path):
    lexicon = tmp_path / "vader_lexicon.txt"
    lexicon.write_text("fine\t0.8\t0.9\t[1, 9]\n")
    for options, message in (
        (("--data_path", str(lexicon)), f"error: {lexicon}, row 1, field `ratings`: unknown label 9."),
        (("--model_name_or_path", str(tmp_path)), f"error: The model {str(tmp_path)!r} cannot be loaded"),
    ):
        done = recipe(*options, "--output_dir", str(tmp_path / "out"))
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert done.returncode == 2 and len(errors) == 1 and errors[0].startswith(message), done.stderr[-2000:]
        assert "Traceback" not in done.stderr and not (tmp_path / "out" / "results.json").exists()
