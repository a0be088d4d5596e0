"""A recipe from data to results on a tiny model: what the data options leave behind in the output folder."""

import json
import random
import sys

import pytest
import torch
from conftest import ROOT, make_tiny_model

from distjudge_trl import Judge
from distjudge_trl.errors import JudgmentDataError, LabelSpaceError, UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.recipe import Recipe
from distjudge_trl.recipe.checks import check_options
from distjudge_trl.recipe.model import loading_options, quantization_config
from distjudge_trl.trainer import DistributionSFTConfig


sys.path.insert(0, str(ROOT / "tests" / "tasks"))

from examples import vote, write


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture()
def votes(tmp_path):
    """Thirty questions, some with answers far too long for the model's 256 tokens."""
    rows = [vote("alpha", "beta", ["model_a", "tie"][i % 2], "e", question=i) for i in range(30)]
    for row in rows[::3]:
        row["conversation_a"][1]["content"] = "a very long answer " * 200
    return str(write(tmp_path / "human.jsonl", rows))


def run(model, data_path, output_dir, *options):
    recipe = Recipe(task="mtbench", model=model, training={"max_steps": 2, "per_device_train_batch_size": 4})
    argv = ["--data_path", data_path, "--output_dir", str(output_dir), "--bf16", "False", "--save_strategy", "no"]
    return recipe.run([*argv, "--max_length", "200", *options])


def template(folder):
    """The task's own prompt is longer than the tiny model can read."""
    path = folder / "short.jinja"
    path.write_text("{{ question_1 }} A: {{ answer_a_1 }} B: {{ answer_b_1 }} A, B or tie?")
    return str(path)


def test_shortened_prompts_are_counted_and_the_judge_shortens_alike(model, votes, tmp_path, capsys):
    run(model, votes, tmp_path / "out", "--prompt_template", template(tmp_path))
    results = read_results(tmp_path / "out")
    report = results["provenance"]["data_report"]
    assert report["read"] == 30 and report["records"] == 60
    assert report["notes"] == {"prompts shortened to 200 tokens (middle)": 20}
    assert "prompts shortened to 200 tokens (middle): 20" in capsys.readouterr().out
    assert results["provenance"]["task_options"]["swap"] == "both"
    judge = Judge.from_pretrained(str(tmp_path / "out"))
    assert judge.template.messages[0]["content"].startswith("{{ question_1 }} A:")
    item = {"question_1": "Name a river.", "answer_a_1": "a very long answer " * 200, "answer_b_1": "Elbe"}
    with pytest.warns(UserWarning, match="1 of 2 items were too long for 200 tokens"):
        assert judge.judge([item, {**item, "answer_a_1": "Nile"}]).shape == (2, 3)
    with pytest.raises(JudgmentDataError, match="more than the 200 allowed"):
        Judge.from_pretrained(str(tmp_path / "out"), truncation="error").judge([item])


def test_annotators_are_drawn_for_training_and_not_for_testing(model, tmp_path):
    rows = [
        vote("alpha", "beta", w, f"e{k}", question=i) for i in range(30) for k, w in enumerate(["model_a", "tie"] * 3)
    ]
    path = str(write(tmp_path / "human.jsonl", rows))
    run(model, path, tmp_path / "out", "--prompt_template", template(tmp_path), "--max_annotators", "2")
    assert set(read_predictions(tmp_path / "out")["num_annotators"]) == {6}
    report = read_results(tmp_path / "out")["provenance"]["data_report"]
    assert report["notes"] == {"training items of which 2 annotators were drawn": 24}
    trained = Recipe(task="mtbench", model=model).parse(["--max_annotators", "2"])
    assert set(trained.task.load(path, trained.options)["num_annotators"]) == {2}


def test_items_whose_drawn_votes_tie_are_reported(model, tmp_path):
    rows = [vote("alpha", "beta", w, w, question=i) for i in range(30) for w in ("model_a", "tie", "model_a")]
    for i, row in enumerate(rows):
        row["judge"] = f"e{i}"
    path = str(write(tmp_path / "human.jsonl", rows))
    options = ("--prompt_template", template(tmp_path), "--max_annotators", "2", "--majority_ties", "exclude")
    run(model, path, tmp_path / "out", *options)
    results = read_results(tmp_path / "out")
    report = results["provenance"]["data_report"]
    tied = report["notes"]["training items left out, tied majority"]
    assert 5 < tied < 24 and results["settings"]["num_train_items"] == 48 - 2 * tied
    assert report["excluded"] == {} and report["records"] == 2 * report["read"]


def test_counts_add_up_where_votes_tie_in_the_source_and_among_the_drawn(model, tmp_path):
    rng = random.Random(0)
    rows = [[rng.choice("123") for _ in range(5)] for _ in range(200)]
    results = run_ratings(model, tmp_path, "--max_annotators", "2", "--majority_ties", "exclude", rows=rows)
    report = results["provenance"]["data_report"]
    assert report["records"] + report["excluded"]["tied majority"] == report["read"] == 200
    training, tested = results["settings"]["num_train_items"], results["metrics"]["num_items"]
    left_out = report["notes"]["training items left out, tied majority"]
    assert training + left_out + tested == report["records"]
    assert report["notes"]["training items of which 2 annotators were drawn"] == training + left_out


def test_no_training_items_left_is_said(model, tmp_path):
    """Two of the four votes tie nearly always."""
    options = ("--max_annotators", "2", "--majority_ties", "exclude")
    with pytest.raises(UserInputError, match=r"all 2 items are left out \(tied majority\). Loosen the options"):
        run_ratings(model, tmp_path, *options, rows=[["1", "1", "2", "3"]] * 3)


def test_truncate_error_names_file_row_and_field_before_training(model, votes, tmp_path):
    with pytest.raises(JudgmentDataError, match="--truncate middle") as caught:
        run(model, votes, tmp_path / "out", "--prompt_template", template(tmp_path), "--truncate", "error")
    assert (caught.value.source, caught.value.row, caught.value.field) == (votes, 1, "answer_a_1")
    assert not (tmp_path / "out").exists()


def test_labels_that_collide_under_the_tokenizer_are_refused(model, tmp_path):
    (tmp_path / "task.yaml").write_text(
        "name: t\nlabels: ['10', '11', '2']\ntemplate: '{{ text }}: 10, 11 or 2?'\nsource: r.jsonl\n"
        "votes: {list: votes}\n"
    )
    rows = [{"text": f"text {i}", "votes": ["10", "2"]} for i in range(20)]
    write(tmp_path / "r.jsonl", rows)
    recipe = Recipe(task=None, model=model)
    argv = ["--task", str(tmp_path / "task.yaml"), "--output_dir", str(tmp_path / "out"), "--bf16", "False"]
    with pytest.raises(LabelSpaceError, match="'10', '11'"):
        recipe.run(argv)


def test_data_that_is_broken_leaves_no_folder_and_exit_code_2(model, votes, tmp_path, capsys):
    with open(votes, "a") as file:
        file.write(json.dumps(vote("alpha", "beta", "both", "e"))[:-20])
    with pytest.raises(SystemExit) as caught:
        Recipe(task="mtbench", model=model).main(["--data_path", votes, "--output_dir", str(tmp_path / "out")])
    assert caught.value.code == 2 and not (tmp_path / "out").exists()
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {votes}, row 31: is not valid JSON") and "\n" not in error


def ratings(folder, votes=5, rows=None):
    """A task of 100 texts, or one a row of votes."""
    rows = rows or [["1", "2", "3", "1", str(i % 3 + 1)][:votes] for i in range(100)]
    rows = [{"text": f"text {i}", "votes": row} for i, row in enumerate(rows)]
    write(folder / "r.jsonl", rows)
    path = folder / "task.yaml"
    path.write_text(
        "name: t\nlabels: ['1', '2', '3']\ntemplate: 'rate {{ text }}'\nsource: r.jsonl\nvotes: {list: votes}\n"
    )
    return str(path)


def run_ratings(model, tmp_path, *options, votes=5, rows=None):
    recipe = Recipe(task=None, model=model, training={"max_steps": 1})
    argv = ["--task", ratings(tmp_path, votes, rows), "--output_dir", str(tmp_path / "out"), "--bf16", "False"]
    return recipe.run([*argv, "--save_strategy", "no", *options])


def test_results_hold_the_constants_and_on_request_the_calibrated_judge(model, tmp_path):
    plain = run_ratings(model, tmp_path)
    assert [row["method"] for row in plain["variants"]] == ["uniform", "training-prior", "training-majority"]
    assert plain["settings"]["num_train_items"] == 80 and plain["settings"]["num_train_votes"] == 400
    assert len(plain["robustness"]) == 6 and plain["trained_on"] == "t" and plain["seed"] == 42
    calibrated = run_ratings(model, tmp_path, "--calibrate", "True", "--validation_fraction", "0.25")
    assert [row["method"] for row in calibrated["variants"]][:2] == [
        "distribution + temperature",
        "distribution + vector",
    ]
    assert calibrated["settings"]["num_train_items"] == 60
    assert calibrated["test_fingerprint"] == plain["test_fingerprint"]
    where = ("--method", "raw", "--output_dir", str(tmp_path / "raw"))
    few = run_ratings(model, tmp_path, *where)["variants"]
    assert len(few) == 3  # 8 held-out items are too few to calibrate on
    raw = run_ratings(model, tmp_path, *where, "--validation_fraction", "0.25")
    assert [row["method"] for row in raw["variants"]][:2] == ["raw + temperature", "raw + vector"]
    assert raw["trained_on"] is None and not (tmp_path / "raw" / "training_items.json").exists()


def test_a_budget_of_votes_buys_items(model, tmp_path):
    for labels, items in ((1, 30), (3, 10), (5, 6)):
        done = run_ratings(model, tmp_path, "--annotation_budget", "30", "--max_annotators", str(labels))
        assert (done["settings"]["num_train_items"], done["settings"]["num_train_votes"]) == (items, 30)
        assert done["settings"]["max_annotators"] == labels
        assert set(read_predictions(tmp_path / "out")["num_annotators"]) == {5}
    with pytest.raises(UserInputError, match="`annotation_budget` must be at least 1"):
        run_ratings(model, tmp_path, "--annotation_budget", "0")


def test_the_dirichlet_method_chooses_its_smoothing_on_held_out_items(model, tmp_path, capsys):
    done = run_ratings(model, tmp_path, "--method", "dirichlet")
    chosen = done["settings"]["target_smoothing"]
    assert 0.1 < chosen <= 100 and f"{chosen:.3g} votes are added" in capsys.readouterr().out
    assert done["settings"]["num_train_items"] == 72
    given = run_ratings(model, tmp_path, "--method", "dirichlet", "--target_smoothing", "0.7")
    assert given["settings"]["target_smoothing"] == 0.7 and given["settings"]["num_train_items"] == 80
    with pytest.raises(UserInputError, match="Give --target_smoothing"):
        run_ratings(model, tmp_path, "--method", "dirichlet", votes=1)


def test_label_smoothing_has_a_default_that_can_be_changed(model, tmp_path):
    assert run_ratings(model, tmp_path, "--method", "label-smoothing")["settings"]["label_smoothing"] == 0.1
    done = run_ratings(model, tmp_path, "--method", "label-smoothing", "--label_smoothing", "0.2")
    assert done["settings"]["label_smoothing"] == 0.2 and done["settings"]["alpha"] == 0.0


@pytest.mark.parametrize(
    ("precision", "dtype", "expected"),
    [
        ({"bf16": True}, "bfloat16", torch.bfloat16),
        ({"bf16": True}, "float16", torch.bfloat16),
        ({"bf16": True}, "float32", torch.bfloat16),
        ({"fp16": True}, "bfloat16", torch.float16),
        ({"bf16": False}, "float32", torch.float32),
        ({"bf16": False}, "bfloat16", torch.bfloat16),
    ],
)
def test_four_bit_numbers_are_stored_so_that_they_can_be_sharded(monkeypatch, tmp_path, precision, dtype, expected):
    """ZeRO-3 and FSDP cast what they shard to the type of the mixed precision."""
    from trl import ModelConfig

    args = DistributionSFTConfig(str(tmp_path), use_cpu=True, **precision)

    def storage(**options):
        return quantization_config(ModelConfig(load_in_4bit=True, dtype=dtype, **options), args).bnb_4bit_quant_storage

    assert storage() == torch.uint8
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert storage() == expected
    with pytest.raises(UserInputError, match="--bnb_4bit_quant_storage uint8 does not go with ZeRO-3 or FSDP"):
        storage(bnb_4bit_quant_storage="uint8")
    with pytest.raises(UserInputError, match="--load_in_8bit does not go with FSDP"):
        quantization_config(ModelConfig(load_in_8bit=True), args)


def test_one_gpu_holds_all_layers_unless_a_device_map_is_given(tmp_path):
    """TRL's own "auto" leaves layers on the host without a word."""
    from types import SimpleNamespace

    from accelerate.utils import DistributedType
    from trl import ModelConfig

    def device_map(device, kind=DistributedType.NO, given=None):
        state = SimpleNamespace(distributed_type=kind)
        args = SimpleNamespace(distributed_state=state, device=torch.device(device), model_init_kwargs=given)
        return loading_options(ModelConfig(), args).get("device_map", "TRL's")

    assert device_map("cuda:0") == {"": "cuda:0"}
    assert device_map("cuda:0", given={"device_map": "auto"}) == "auto"
    assert (
        device_map("cuda:0", DistributedType.DEEPSPEED) == device_map("cuda:1", DistributedType.MULTI_GPU) == "TRL's"
    )
    assert device_map("cpu") == device_map("mps") == "TRL's"
    args = DistributionSFTConfig(str(tmp_path), use_cpu=True, model_init_kwargs={"dtype": "float16"})
    assert loading_options(ModelConfig(), args)["dtype"] == "float16"


@pytest.mark.parametrize("flag", ["--load_in_4bit", "--load_in_8bit"])
def test_quantised_weights_need_an_adapter(tmp_path, flag):
    recipe = Recipe(task="vader", model="none")
    with pytest.raises(UserInputError, match="add --use_peft"):
        recipe.run([flag, "--output_dir", str(tmp_path)])


def test_settings_are_chosen_on_validation_items_that_nothing_was_trained_on(model, votes, tmp_path):
    """`--score_on validation`: other items than the test's, and none of the training's."""
    from distjudge_trl.judge_folder.training_items import SeenItems

    options = ("--prompt_template", template(tmp_path))
    run(model, votes, tmp_path / "test", *options)
    run(model, votes, tmp_path / "chosen", *options, "--score_on", "validation", "--validation_fraction", "0.3")
    groups = {}
    for name in ("test", "chosen"):
        results = read_results(tmp_path / name)
        assert results["scored_on"] == ("test" if name == "test" else "validation")
        scored = read_predictions(tmp_path / name)
        groups[name] = set(scored["group"])
        assert len(scored) == results["metrics"]["num_items"]
        # Neither the trained-on nor, for the test, the held-out ones.
        seen = SeenItems.read(tmp_path / name)
        assert len(seen.unseen(scored, held_out_too=name == "test")) == len(scored)
    assert groups["test"].isdisjoint(groups["chosen"])
    with pytest.raises(UserInputError, match="does not go with --calibrate"):
        run(model, votes, tmp_path / "no", *options, "--score_on", "validation", "--calibrate", "True")


def test_training_that_turns_to_nan_ends_with_one_line_and_a_reason_for_its_sweep(model, votes, tmp_path, monkeypatch):
    recipe = Recipe(task="mtbench", model=model)
    argv = ["--data_path", votes, "--output_dir", str(tmp_path / "out"), "--bf16", "False", "--max_length", "200"]
    argv += ["--prompt_template", template(tmp_path), "--learning_rate", "1e30", "--max_grad_norm", "0"]
    monkeypatch.setenv("DISTJUDGE_SWEEP_RUN", str(tmp_path))
    with pytest.raises(SystemExit) as error:
        recipe.main([*argv, "--logging_steps", "1", "--max_steps", "20", "--save_strategy", "no"])
    assert error.value.code == 1
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["kind"] == "RunFailedError"
    assert "the loss is NaN: training has diverged. Lower --learning_rate (now 1e+30)" in failure["message"]
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert 1 <= progress["step"] < 20 and progress["max_steps"] == 20
    assert not (tmp_path / "out" / "results.json").exists()


def untrained(folder):
    words = ["--method", "raw", "--output_dir", str(folder), "--bf16", "False"]
    return Recipe(task="vader", model="smollm2-135m").parse(words)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_model_without_an_optimizer_cannot_be_sharded_by_zero_1_and_2(tmp_path, stage):
    pytest.importorskip("deepspeed")
    from accelerate import DeepSpeedPlugin

    asked = untrained(tmp_path)
    asked.training.deepspeed_plugin = DeepSpeedPlugin(zero_stage=stage)
    if stage == 3:
        check_options(asked)
    else:
        with pytest.raises(UserInputError, match=f"--method raw trains nothing, and ZeRO-{stage} can only be set up"):
            check_options(asked)


def test_nor_by_fsdp(tmp_path, monkeypatch):
    asked = untrained(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserInputError, match="and FSDP can only be set up"):
        check_options(asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--load_in_4bit", "--use_peft", "--dtype", "auto"), "--load_in_4bit computes in --dtype: give bfloat16"),
        (
            ("--load_in_4bit", "--use_peft", "--dtype", "float16", "--bf16", "True"),
            r"compute in float16 \(--dtype\), and the rest of the run in bfloat16: drop --dtype",
        ),
        (("--max_steps", "0"), "`max_steps` is 0: nothing would be trained. --method raw"),
        (("--dtype", "float16"), "--dtype float16: weights that are trained in float16 lose most of their updates"),
        (("--num_train_epochs", "0"), "`num_train_epochs` is 0: nothing would be trained. --method raw"),
    ],
)
def test_options_that_cannot_work_together_are_refused_before_anything_is_read(tmp_path, words, message):
    asked = Recipe(task="vader", model="smollm2-135m").parse(["--output_dir", str(tmp_path), *words])
    with pytest.raises(UserInputError, match=message):
        check_options(asked)
