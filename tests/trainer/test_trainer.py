"""The trainer on a tiny random model: the loss under every way to cut a batch, what is logged, saved and reloaded."""

import json
import math
import os

import numpy as np
import pytest
import torch
from conftest import LABELS, make_records, make_tiny_model
from datasets import Dataset
from tiny_trainers import make_article_records, make_trainer, trajectory

from distjudge_trl.batching import encode_prompts
from distjudge_trl.errors import JudgmentDataError, LabelSpaceError, UserInputError
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.labels import LabelSpace
from distjudge_trl.objective import PGDAdversary, coverage_radius, hybrid_loss, kl_divergence, minimax_target
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer
from distjudge_trl.trainer.perturbation import perturb, row_radius


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def first_loss(tokenizer, tmp_path, **settings):
    """The loss of one batch of 24 records, and what it is computed from."""
    records = make_records(24)
    trainer = make_trainer(tokenizer, tmp_path, records, **settings)
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(24)]))
    loss, outputs = trainer.compute_loss(trainer.model.eval(), dict(batch), return_outputs=True)
    return loss, outputs["label_log_probs"].double(), batch


def test_label_smoothing_reaches_the_loss(tokenizer, tmp_path):
    loss, log_q, batch = first_loss(tokenizer, tmp_path, alpha=0.0, adversary="none", label_smoothing=0.2)
    expected = torch.nn.functional.nll_loss(log_q, batch["reference"]) * 0.8 - 0.2 * log_q.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_target_smoothing_changes_the_target_and_not_the_metric(tokenizer, tmp_path):
    loss, log_q, batch = first_loss(tokenizer, tmp_path, alpha=1.0, adversary="none", target_smoothing=0.5)
    n, p = batch["num_annotators"].double().unsqueeze(-1), batch["label_distribution"].double()
    target = (n * p + 0.5) / (n + 2.5)
    assert loss.item() == pytest.approx(kl_divergence(target, log_q).mean().item(), rel=1e-5)
    trainer = make_trainer(tokenizer, tmp_path, alpha=1.0, adversary="none", target_smoothing=0.5)
    metrics = trainer.predict(make_records(24)).metrics
    assert metrics["test_kl"] == pytest.approx(kl_divergence(p, log_q).mean().item(), rel=1e-4)
    assert metrics["test_adversarial_gain"] == 0


def test_predictions_come_in_the_order_of_the_records(tokenizer, tmp_path):
    """They are made longest first."""
    records = make_records(20)
    trainer = make_trainer(tokenizer, tmp_path)
    whole = trainer.predict(records)
    for i in (0, 7, 19):
        alone = trainer.predict(records.select([i]))
        np.testing.assert_allclose(whole.predictions[i], alone.predictions[0], atol=1e-5)
        np.testing.assert_allclose(whole.label_ids[i], records[i]["label_distribution"], atol=1e-6)


def test_the_minimax_loss_is_the_kl_to_the_saddle_point(tokenizer, tmp_path):
    records = make_records(6)
    trainer = make_trainer(
        tokenizer, tmp_path, records, adversary="minimax", perturbation_radius=0.3, radius_scaling="annotators"
    )
    result = trainer.predict(records)
    p, n = torch.tensor(result.label_ids), torch.tensor(records["num_annotators"][:])
    target = minimax_target(p, p.argmax(-1), 0.3 * (5 / n).sqrt(), trainer.args.alpha)
    expected = kl_divergence(target, torch.tensor(result.predictions)).mean()
    assert result.metrics["test_loss"] == pytest.approx(float(expected), abs=1e-5)
    assert (target - p).abs().max() > 0.05


def test_the_radius_from_the_votes_is_each_row_s_own(tokenizer, tmp_path):
    records = make_records(6)
    trainer = make_trainer(tokenizer, tmp_path, records, radius_scaling="coverage", perturbation_radius=0.0)
    result = trainer.predict(records)
    p, log_q = torch.tensor(result.label_ids), torch.tensor(result.predictions)
    radius = coverage_radius(p, torch.tensor(records["num_annotators"][:]), 0.9)
    losses = hybrid_loss(log_q, PGDAdversary(radius)(p, log_q), p.argmax(-1), 0.8)
    assert result.metrics["test_loss"] == pytest.approx(float(losses.mean()), abs=1e-5)


# How a batch is cut


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adversary": "worst_case"},
        {"adversary": "minimax"},
        {"alpha": 0.0},
        {"label_normalization": "vocab"},
        {"ordinal_loss_weight": 10.0, "ordinal": True},
    ],
)
def test_gradient_accumulation_equals_a_large_batch(tokenizer, tmp_path, settings):
    """1 x 8, 2 x 4 and 8 x 1 give the same loss, gradient norm, metrics and weights, the partial last batch of 21 rows
    included.
    """
    runs = []
    for batch_size, steps in ((8, 1), (2, 4), (1, 8)):
        trainer = make_trainer(
            tokenizer,
            tmp_path,
            make_records(21),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            **settings,
        )
        trainer.train()
        runs.append((trajectory(trainer, "loss", "grad_norm", "kl", "ce", "accuracy", "label_mass"), weights(trainer)))
    (expected, expected_weights), *others = runs
    assert len(expected) == 3
    for values, final in others:
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(final, expected_weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"share_prefixes": True},
        {"gradient_checkpointing": True, "share_prefixes": False},
        {"share_prefixes": True, "gradient_checkpointing": True},
    ],
)
def test_sharing_prefixes_and_checkpointing_change_nothing(tokenizer, tmp_path, settings):
    plain = make_trainer(tokenizer, tmp_path, share_prefixes=False)
    plain.train()
    other = make_trainer(tokenizer, tmp_path, **settings)
    packed = watch_packs(other)
    other.train()
    names = ("loss", "grad_norm", "kl", "adversarial_gain")
    np.testing.assert_allclose(trajectory(other, *names), trajectory(plain, *names), rtol=2e-4, atol=1e-5)
    assert all(packed) if settings["share_prefixes"] else not any(packed)


def test_by_default_the_batches_that_gain_are_packed(tokenizer, tmp_path):
    """Of six articles, two in a batch; a batch of one row has nothing to share."""
    records = make_article_records().select(range(25))
    runs = []
    for share in (False, "auto"):
        trainer = make_trainer(
            tokenizer,
            tmp_path,
            records,
            share_prefixes=share,
            train_sampling_strategy="group_by_prefix",
            per_device_train_batch_size=8,
        )
        packed = watch_packs(trainer)
        trainer.train()
        runs.append(trajectory(trainer, "loss", "grad_norm", "kl", "adversarial_gain"))
    assert packed == [True, True, True, False]
    np.testing.assert_allclose(runs[1], runs[0], rtol=2e-4, atol=1e-5)


def watch_packs(trainer):
    """Whether each batch that the trainer collates from now on is a pack."""
    packed, collate = [], trainer.data_collator

    def watched(features):
        batch = collate(features)
        packed.append("judgment_positions" in batch)
        return batch

    trainer.data_collator = watched
    return packed


def test_first_loss_is_the_hybrid_loss_on_the_adversary_s_targets(tokenizer, tmp_path, tiny_model):
    """Against the formula, with the prompts run one by one."""
    records = make_records(8)
    space = LabelSpace(LABELS).bind(tokenizer)
    with torch.no_grad():
        logits = torch.stack(
            [tiny_model(torch.tensor([ids])).logits[0, -1] for ids in encode_prompts(tokenizer, records["prompt"][:])]
        )
    log_q = space.log_probs(logits)
    p = torch.tensor(records["label_distribution"][:])
    reference = p.argmax(-1)
    perturbed = PGDAdversary(0.25)(p, log_q)
    expected = hybrid_loss(log_q, perturbed, reference, 0.8).mean().item()

    trainer = make_trainer(tokenizer, tmp_path, records, max_steps=1)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(expected, abs=1e-4)
    assert first["kl"] == pytest.approx(kl_divergence(p, log_q).mean().item(), abs=1e-4)
    gain = kl_divergence(perturbed, log_q) - kl_divergence(p, log_q)
    assert first["adversarial_gain"] == pytest.approx(gain.mean().item(), abs=1e-4) and gain.mean() > 0.05
    assert first["label_mass"] == pytest.approx(space.mass(logits).mean().item(), abs=1e-4)
    assert first["accuracy"] == pytest.approx((log_q.argmax(-1) == reference).float().mean().item(), abs=1e-6)


def test_single_point_on_the_vocabulary_equals_trl_s_loss_on_the_label_token(tokenizer, tmp_path):
    from trl import SFTConfig, SFTTrainer

    records = make_records(16)
    ours = make_trainer(tokenizer, tmp_path, records, alpha=0.0, adversary="none", label_normalization="vocab")
    ours.train()

    prompts = encode_prompts(tokenizer, records["prompt"][:])
    answers = [tokenizer.convert_tokens_to_ids(row["completion"][0]["content"]) for row in records]
    rows = [
        {"input_ids": [*prompt, answer], "labels": [-100] * len(prompt) + [answer]}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    theirs = SFTTrainer(
        model=make_tiny_model(len(tokenizer)),
        args=SFTConfig(
            **{
                name: getattr(ours.args, name)
                for name in ("output_dir", "use_cpu", "bf16", "learning_rate", "logging_steps")
            },
            report_to="none",
            save_strategy="no",
            lr_scheduler_type="constant",
            num_train_epochs=1,
            gradient_checkpointing=False,
            disable_tqdm=True,
            per_device_train_batch_size=8,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    theirs.train()
    np.testing.assert_allclose(
        trajectory(ours, "loss", "grad_norm"), trajectory(theirs, "loss", "grad_norm"), rtol=1e-4
    )
    torch.testing.assert_close(weights(ours), weights(theirs), atol=1e-5, rtol=0)


def test_without_kl_the_hard_label_comes_from_the_perturbed_distribution(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path, alpha=0.0)
    moved = torch.eye(len(LABELS))
    trainer.adversary = lambda p, log_q: moved[(p.argmax(-1) + 1) % len(LABELS)]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.eval()
    perturbed_loss = trainer.compute_loss(trainer.model, dict(batch))
    trainer.adversary = None
    batch["reference"] = (batch["label_distribution"].argmax(-1) + 1) % len(LABELS)
    torch.testing.assert_close(perturbed_loss, trainer.compute_loss(trainer.model, dict(batch)))


def test_radius_shrinks_with_the_square_root_of_the_annotators(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path, radius_scaling="annotators", perturbation_radius=0.2)
    p = torch.tensor([[0.6, 0.4, 0.0, 0.0, 0.0]]).expand(3, -1)
    log_q = torch.tensor([[0.1, 0.2, 0.3, 0.2, 0.2]]).log().expand(3, -1)
    moved = perturb(trainer.adversary, p, log_q, row_radius(trainer.args, p, torch.tensor([5, 20, 80])))
    for row, radius in zip(moved, (0.2, 0.1, 0.05), strict=True):
        torch.testing.assert_close(row, PGDAdversary(radius)(p[:1], log_q[:1])[0])
    distances = (moved - p).norm(dim=-1)
    assert distances[0] > distances[1] > distances[2] == pytest.approx(0.05, abs=1e-6)


def test_adversary_none_and_radius_zero_are_the_same(tokenizer, tmp_path):
    assert make_trainer(tokenizer, tmp_path, adversary="none").adversary is None
    assert make_trainer(tokenizer, tmp_path, perturbation_radius=0.0).adversary is None
    assert make_trainer(tokenizer, tmp_path, adversary="worst_case", perturbation_radius=0.0).adversary is None


def test_the_model_is_called_without_labels_and_makes_one_row_of_logits_per_item(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path, max_steps=1)
    calls = []
    handle = trainer.model.register_forward_hook(
        lambda module, args, kwargs, output: calls.append((kwargs, output.logits.shape)), with_kwargs=True
    )
    trainer.train()
    handle.remove()
    assert calls
    for kwargs, shape in calls:
        assert "labels" not in kwargs and "position_ids" in kwargs
        assert shape[0] * shape[1] == 8  # of eight rows, or of one pack


# Evaluation


def test_evaluation_is_exact_over_partial_batches(tokenizer, tmp_path):
    """7 rows in batches of 3: the mean over rows, not the mean of batch means."""
    test = make_records(7, seed=1)
    seen = {}

    def keep(prediction):
        seen["log_q"], seen["p"] = prediction.predictions, prediction.label_ids
        return {"custom": 1.0}

    trainer = make_trainer(tokenizer, tmp_path, eval_dataset=test)
    metrics = trainer.evaluate()
    assert trainer.evaluate(test)["eval_kl"] == metrics["eval_kl"], "records as they are"
    other = make_trainer(tokenizer, tmp_path, eval_dataset=test, trainer_kwargs={"compute_metrics": keep})
    assert other.evaluate()["eval_custom"] == 1.0
    assert seen["log_q"].shape == seen["p"].shape == (7, len(LABELS))
    np.testing.assert_allclose(seen["p"], test["label_distribution"][:], atol=1e-6)
    p, log_q = torch.tensor(seen["p"]).double(), torch.tensor(seen["log_q"]).double()
    assert metrics["eval_kl"] == pytest.approx(kl_divergence(p, log_q).mean().item(), abs=1e-6)
    assert metrics["eval_ce"] == pytest.approx(-log_q.gather(1, p.argmax(-1, keepdim=True)).mean().item(), abs=1e-6)
    space = LabelSpace(LABELS).bind(tokenizer)
    with torch.no_grad():
        single = torch.stack(
            [trainer.model(torch.tensor([ids])).logits[0, -1] for ids in encode_prompts(tokenizer, test["prompt"][:])]
        )
    assert metrics["eval_label_mass"] == pytest.approx(space.mass(single).mean().item(), abs=1e-5)
    torch.testing.assert_close(log_q, space.log_probs(single).double(), atol=1e-5, rtol=0)
    losses = hybrid_loss(log_q, PGDAdversary(0.25)(p, log_q), p.argmax(-1), 0.8)
    assert metrics["eval_loss"] == pytest.approx(losses.mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"warmup_steps": 0.05, "lr_scheduler_type": "cosine"}, True),
        ({"warmup_steps": 0, "lr_scheduler_type": "cosine"}, False),
        ({"warmup_steps": 1, "lr_scheduler_type": "constant"}, False),
    ],
)
def test_a_single_step_of_warm_up_learns_nothing_and_says_so(tokenizer, tmp_path, capsys, settings, warns):
    trainer = make_trainer(tokenizer, tmp_path, max_steps=1, **settings)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.train()
    learned = any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    warned = "warning: the only step of this run is a warm-up step" in capsys.readouterr().out
    assert warned is warns and learned is not warns


def test_best_checkpoint_is_the_one_with_the_lowest_eval_kl(tokenizer, tmp_path):
    trainer = make_trainer(
        tokenizer,
        tmp_path,
        eval_dataset=make_records(8, seed=1),
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        num_train_epochs=2,
        learning_rate=0.02,
        load_best_model_at_end=True,
    )
    assert trainer.args.metric_for_best_model == "eval_kl" and trainer.args.greater_is_better is False
    trainer.train()
    values = [entry["eval_kl"] for entry in trainer.state.log_history if "eval_kl" in entry]
    assert trainer.state.best_metric == min(values) != values[-1]
    assert trainer.evaluate()["eval_kl"] == pytest.approx(min(values), abs=1e-6)


def test_going_back_to_the_best_checkpoint_keeps_the_precision_of_adapters(tokenizer, tmp_path):
    """PEFT would widen bfloat16 adapters on 4-bit weights to float32, and another judge be saved than was chosen."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    base = tmp_path / "base"
    make_tiny_model(len(tokenizer), hidden_size=64).save_pretrained(base)
    trainer = make_trainer(
        tokenizer,
        tmp_path / "run",
        model=str(base),
        trainer_kwargs={
            "peft_config": LoraConfig(r=8, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
            "quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        },
        eval_dataset=make_records(8, seed=1),
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
    )
    trainer.train()
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.bfloat16}
    assert trainer.evaluate()["eval_kl"] == pytest.approx(trainer.state.best_metric, abs=1e-6)


def test_under_fp16_adapters_on_4_bit_weights_are_float32_as_loss_scaling_needs(tokenizer, tmp_path):
    """TRL casts them to bfloat16, of which torch's GradScaler cannot take the scale off on a GPU."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from distjudge_trl import Judge

    pytest.importorskip("bitsandbytes")
    base = tmp_path / "base"
    make_tiny_model(len(tokenizer), hidden_size=64).save_pretrained(base)
    tokenizer.save_pretrained(base)
    trainer = make_trainer(
        tokenizer,
        tmp_path / "run",
        model=str(base),
        trainer_kwargs={
            "peft_config": LoraConfig(r=8, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
            "quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16),
        },
        fp16=True,
        use_cpu=True,
        model_init_kwargs={"dtype": "float16"},
        max_steps=2,
    )
    trained = {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad}
    assert trained == {torch.float32} and trainer.accelerator.mixed_precision == "fp16"
    trainer.train()
    trainer.save_model()
    records = make_records(6, seed=1)
    judge = Judge.from_pretrained(str(tmp_path / "run"), autocast="float16")  # which this machine emulates
    adapters = {weight.dtype for name, weight in judge.model.named_parameters() if "lora_" in name}
    assert adapters == {torch.float32} and judge.judge_file.autocast == "float16"
    expected = np.exp(trainer.predict(records).predictions)
    np.testing.assert_allclose(judge.judge(records), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "precision"),
    [({"bf16": True}, "bf16"), ({"bf16": False}, "no"), ({"bf16": False, "fp16": True}, "fp16")],
)
def test_options_are_stronger_than_the_precision_of_an_accelerate_config(tmp_path, monkeypatch, options, precision):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    if precision == "fp16":
        # Refused on CPUs, but only later.
        monkeypatch.setattr(DistributionSFTConfig, "_validate_args", lambda self: None)
    args = DistributionSFTConfig(str(tmp_path), use_cpu=True, **options)
    assert args.mixed_precision == precision
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"  # a config changes nothing outside itself


# Saving, resuming, reloading


def test_resuming_continues_the_same_trajectory(tokenizer, tmp_path):
    settings = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "cosine"}
    whole = make_trainer(tokenizer, tmp_path / "a", **settings)
    whole.train()
    again = make_trainer(tokenizer, tmp_path / "b", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    names = ("loss", "grad_norm", "kl", "adversarial_gain")
    expected = trajectory(whole, *names)
    assert len(expected) == 6
    np.testing.assert_allclose(trajectory(again, *names)[2:], expected[2:], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(weights(again), weights(whole), atol=1e-7, rtol=0)


def reload(folder, records, batch_size=4, **kwargs):
    from distjudge_trl import Judge

    judge = Judge.from_pretrained(str(folder), **kwargs)
    assert judge.label_space.labels == tuple(LABELS)
    return judge, judge.judge(records, batch_size=batch_size)


def test_a_full_checkpoint_judges_as_the_trainer_evaluated(tokenizer, tmp_path):
    test = make_records(10, seed=2)
    trainer = make_trainer(tokenizer, tmp_path, save_strategy="epoch")
    trainer.train()
    evaluated = np.exp(trainer.predict(test).predictions)
    trainer.save_model(str(tmp_path / "final"))
    for folder in (tmp_path / "final", tmp_path / "checkpoint-3"):
        _, judged = reload(folder, test)
        np.testing.assert_allclose(judged, evaluated, atol=1e-5)
        np.testing.assert_allclose(judged.sum(-1), 1, atol=1e-9)


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_judges_and_merges_as_the_trainer_evaluated(tokenizer, tmp_path, bits, dtype):
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    if bits:
        pytest.importorskip("bitsandbytes")
    base, test = tmp_path / "base", make_records(10, seed=2)
    # bitsandbytes quantises blocks of 64 weights along a row.
    make_tiny_model(len(tokenizer), hidden_size=64).save_pretrained(base)
    tokenizer.save_pretrained(base)
    quantization = {
        None: None,
        4: BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        ),
        8: BitsAndBytesConfig(load_in_8bit=True),
    }
    trainer = make_trainer(
        tokenizer,
        tmp_path / "run",
        model=str(base),
        trainer_kwargs={
            "peft_config": LoraConfig(r=8, lora_alpha=32, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
            "quantization_config": quantization[bits],
        },
        learning_rate=0.05,
        model_init_kwargs={"dtype": dtype},
    )
    before = np.exp(trainer.predict(test).predictions)
    trainer.train()
    evaluated = np.exp(trainer.predict(test).predictions)
    assert np.abs(evaluated - before).max() > 0.01, "the adapter learned something"
    trainer.save_model()
    # In the type of training, even if this machine emulates it.
    judge, judged = reload(tmp_path / "run", test, batch_size=3, dtype=dtype)
    assert judge.model.dtype == getattr(torch, dtype)
    # The same batches for bfloat16, whose rounding depends on their make-up.
    order = sorted(
        range(len(test)),
        key=lambda i: -len(trainer._prepare_dataset(test, None, trainer.args, 0, 0, "t")[i]["input_ids"]),
    )
    sorted_again = np.exp(trainer.predict(test.select(order)).predictions)
    # 8-bit weights have 8-bit inputs, and which of them are outliers depends on the whole batch.
    tolerance = 1e-2 if bits == 8 else 1e-5 if dtype == "float32" else 2e-3
    np.testing.assert_allclose(judged[order], sorted_again, atol=tolerance)
    kinds = {type(module).__name__ for module in judge.model.modules()}
    assert bool(bits) == any(f"Linear{bits}bit" in kind for kind in kinds)

    from distjudge_trl.judges.merge import merge

    merged, judged_merged = reload(
        merge(str(tmp_path / "run"), tmp_path / "merged", dtype="float32"), test, batch_size=3
    )
    assert "adapter_config.json" not in {path.name for path in (tmp_path / "merged").iterdir()}
    assert merged.judge_file.quantization is None and merged.model.dtype == torch.float32
    # The adapter of 4-bit weights computes in bfloat16, the merged weights in float32.
    tolerance = 1e-5 if dtype == "float32" and not bits else 1e-3 if dtype == "float32" and bits == 4 else 2e-2
    np.testing.assert_allclose(judged_merged, judged, atol=tolerance)


def test_a_saved_judge_says_what_it_is(tokenizer, tmp_path):
    file = JudgeFile(
        label_space={},
        task="demo",
        template=[{"role": "user", "content": "rate the text: {{ text }}"}],
        base_model="org/base",
    )
    trainer = make_trainer(
        tokenizer, tmp_path, eval_dataset=make_records(4), eval_strategy="epoch", trainer_kwargs={"judge_file": file}
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(model_name="demo-judge")
    content = json.loads((tmp_path / "judge.json").read_text())
    assert content["label_space"]["labels"] == LABELS and content["task"] == "demo"
    assert content["training"]["alpha"] == 0.8 and content["training"]["adversary"] == "pgd"
    assert {"torch", "trl", "transformers"} <= set(content["versions"])
    card = (tmp_path / "README.md").read_text()
    for expected in (
        "demo-judge",
        "org/base",
        "eval_kl",
        "2505.12301",
        "@inproceedings",
        'Judge.from_pretrained("',
        '"text"',
    ):
        assert expected in card
    assert card.startswith("---\n") and "distjudge-trl" in card.split("---")[1]
    judge, _ = reload(tmp_path, make_records(2))
    items = judge.judge([{"text": "no text"}])
    direct = judge.judge([{"prompt": [{"role": "user", "content": "rate the text: no text"}]}])
    np.testing.assert_allclose(items, direct, atol=1e-7)


# Bad input


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"alpha": 1.5}, "`alpha` must lie between 0 and 1"),
        ({"alpha": math.nan}, "`alpha`"),
        ({"perturbation_radius": -1}, "`perturbation_radius`"),
        ({"perturbation_step_size": 0}, "`perturbation_step_size`"),
        ({"perturbation_steps": -1}, "`perturbation_steps`"),
        ({"adversary": "fgsm"}, "`adversary` must be one of pgd, worst_case, minimax, none"),
        ({"radius_scaling": "x"}, "`radius_scaling`"),
        ({"radius_coverage": 1.0}, "`radius_coverage` must lie between 0 and 1"),
        ({"projection_solver": "x"}, "`projection_solver`"),
        ({"label_normalization": "x"}, "`label_normalization`"),
        ({"label_smoothing": 1.0}, "`label_smoothing` must be at least 0 and less than 1"),
        ({"target_smoothing": -1.0}, "`target_smoothing` must be at least 0"),
        ({"target_smoothing": float("nan")}, "`target_smoothing` must be at least 0"),
        ({"ordinal_loss_weight": -1.0}, "`ordinal_loss_weight` must be at least 0 and finite"),
        ({"ordinal_loss_weight": float("inf")}, "`ordinal_loss_weight` must be at least 0 and finite"),
        ({"ordinal_loss_weight": 1.0, "adversary": "minimax"}, "does not go with `adversary=minimax`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, match):
    with pytest.raises(UserInputError, match=match):
        DistributionSFTConfig(str(tmp_path), use_cpu=True, **settings)


def test_the_best_of_several_evaluation_sets_is_the_lowest_kl(tmp_path):
    args = DistributionSFTConfig(str(tmp_path), use_cpu=True, metric_for_best_model="eval_heldout_kl")
    assert args.greater_is_better is False
    args = DistributionSFTConfig(str(tmp_path), use_cpu=True, metric_for_best_model="eval_accuracy")
    assert args.greater_is_better is True


def test_two_trainers_do_not_share_a_binding(tokenizer, tmp_path):
    space = LabelSpace(LABELS)
    for _ in range(2):
        trainer = DistributionSFTTrainer(
            model=make_tiny_model(len(tokenizer)),
            args=DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
            train_dataset=make_records(4),
            processing_class=tokenizer,
            label_space=space,
        )
        assert trainer.label_space.bindings and not space.bindings


@pytest.mark.parametrize("name", ["compute_loss_func", "formatting_func"])
def test_functions_that_would_be_ignored_are_refused(tokenizer, tmp_path, name):
    with pytest.raises(UserInputError, match=name):
        make_trainer(tokenizer, tmp_path, trainer_kwargs={name: lambda *args: None})


def test_malformed_records_are_refused(tokenizer, tmp_path):
    rows = [dict(row) for row in make_records(4)]
    rows[2]["label_distribution"] = [0.5, 0.4, 0.0, 0.0, 0.0]
    with pytest.raises(
        JudgmentDataError, match=r"train dataset, row 3 \(id 'item-2'\), field `label_distribution`: sums to 0.9"
    ):
        make_trainer(tokenizer, tmp_path, Dataset.from_list(rows))


def test_another_config_class_is_refused(tokenizer, tmp_path):
    from trl import SFTConfig

    with pytest.raises(UserInputError, match="must be a DistributionSFTConfig, got SFTConfig"):
        DistributionSFTTrainer(
            model="x",
            args=SFTConfig(str(tmp_path), use_cpu=True),
            train_dataset=make_records(4),
            label_space=LabelSpace(LABELS),
        )


def test_iterable_datasets_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserInputError, match="map-style"):
        make_trainer(tokenizer, tmp_path, make_records(4).to_iterable_dataset())


def test_too_long_a_prompt_is_refused_and_named(tokenizer, tmp_path):
    with pytest.raises(JudgmentDataError, match=r"train dataset, row item-\d+, field `prompt`.*max_length=20"):
        make_trainer(tokenizer, tmp_path, max_length=20)


def test_colliding_labels_are_refused(tokenizer, tmp_path):
    with pytest.raises(LabelSpaceError, match="first token"):
        DistributionSFTTrainer(
            model=make_tiny_model(len(tokenizer)),
            args=DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
            train_dataset=make_records(4, labels=["1", "10"]),
            processing_class=tokenizer,
            label_space=LabelSpace(["1", "10"]),
        )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"_attn_implementation": "eager"}, "attn_implementation=sdpa"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"alibi": True}, "ALiBi"),
    ],
)
def test_sharing_prefixes_is_refused_where_the_mask_would_not_be_honoured(tokenizer, tmp_path, change, match):
    model = make_tiny_model(len(tokenizer))
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(UserInputError, match=match):
        make_trainer(tokenizer, tmp_path, model=model, share_prefixes=True)
