"""Trainers of a tiny random model."""

import numpy as np
from conftest import LABELS, make_records, make_tiny_model

from distjudge_trl.labels import LabelSpace
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


def make_trainer(
    tokenizer, folder, records=None, model=None, eval_dataset=None, trainer_kwargs=None, ordinal=False, **settings
):
    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 3,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    return DistributionSFTTrainer(
        model=model if model is not None else make_tiny_model(len(tokenizer)),
        args=DistributionSFTConfig(**{**defaults, **settings}),
        train_dataset=records if records is not None else make_records(24),
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS, ordinal=ordinal),
        **(trainer_kwargs or {}),
    )


def trajectory(trainer, *names):
    """Logged values of every optimizer step."""
    return np.array([[entry[name] for name in names] for entry in trainer.state.log_history if "grad_norm" in entry])


def make_article_records(articles=6, systems=5):
    """Records whose prompts begin with one of some articles, in an order that mixes them."""
    records = make_records(articles * systems)
    texts = [
        " ".join(["the text rates", *["no", "yes", "judge"][k % 3 :], "text"] * 6) + f" {k}" for k in range(articles)
    ]
    prompts = [
        [{"role": "user", "content": f"article: {texts[i % articles]} {prompt[0]['content']}"}]
        for i, prompt in enumerate(records["prompt"])
    ]
    return records.remove_columns("prompt").add_column("prompt", prompts)
