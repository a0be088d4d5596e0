"""A few steps of the real trainer inside a check's process, on rows made for it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpu_checks.check import Machine


if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Fit:
    """What came of a few steps: per step the loss and the gradient's norm; seconds of a step (median, without the
    first); names and device seconds of what ran, if asked for.
    """

    losses: list[float]
    norms: list[float]
    seconds: float
    kernels: dict[str, float]


def half_precision(machine: Machine) -> str:
    """What the machine multiplies fast; float32 on CPUs, where these checks compare kernels."""
    import torch

    if machine.device == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def make_rows(tokenizer: Any, count: int, shared: int, own: tuple[int, int]) -> list[dict[str, Any]]:
    """Judgment records whose prompts begin with about `shared` common tokens and go on with their own: as many as the
    first number of `own` in the first row, as the second in the last.
    """
    word = " judge"  # one token
    rows = []
    for i in range(count):
        length = own[0] + (own[1] - own[0]) * i // max(count - 1, 1)
        rows.append(
            {
                "id": str(i),
                "group": str(i),
                "prompt": [{"role": "user", "content": f"Rate the text.{word * shared} {i}{word * length}"}],
                "completion": [{"role": "assistant", "content": "1"}],
                "label_distribution": [0.5, 0.3, 0.2],
                "num_annotators": 10,
            }
        )
    return rows


def fit(
    machine: Machine,
    config: PretrainedConfig,
    rows: list[dict[str, Any]],
    *,
    folder: str,
    batch_size: int,
    dtype: str,
    attention: str = "sdpa",
    share_prefixes: bool = False,
    steps: int = 3,
    profiled: bool = False,
) -> Fit:
    """Train an adapter on random weights, the same in every call.

    Args:
        machine ([`Machine`]): where.
        config (`PretrainedConfig`): of the model.
        rows (`list[dict]`): judgment records.
        folder (`str`): for the trainer.
        batch_size, steps (`int`): rows a step, and how many.
        dtype (`str`): of weights and autocast.
        attention (`str`): implementation.
        share_prefixes (`bool`): pack the batch.
        profiled (`bool`): note what runs on the device.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from distjudge_trl.labels import LabelSpace
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

    torch.manual_seed(0)
    with torch.device(machine.device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation=attention)
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if machine.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    torch.manual_seed(0)  # of the adapter
    trainer = DistributionSFTTrainer(
        model=model,
        args=DistributionSFTConfig(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            max_length=8192,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            share_prefixes=share_prefixes,
            bf16=dtype == "bfloat16",
            fp16=dtype == "float16",
            use_cpu=machine.device == "cpu",
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=7,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(machine.small),
        label_space=LabelSpace(["1", "2", "3"]),
        # All linear layers, so that gradients pass through attention; the adapter's first step moves B alone.
        peft_config=LoraConfig(r=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.add_callback(Clock())
    activities = [torch.profiler.ProfilerActivity.CPU]
    if machine.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities) if profiled else contextlib.nullcontext()
    with profiler as seen:
        trainer.train()
    steps_logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    kernels = {}
    for event in seen.key_averages() if seen is not None else ():
        on_device = getattr(event, "self_device_time_total", 0.0) if machine.device == "cuda" else 0.0
        kernels[event.key] = (on_device or event.self_cpu_time_total) / 1e6
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return Fit(
        [float(entry["loss"]) for entry in steps_logged],
        [float(entry["grad_norm"]) for entry in steps_logged],
        statistics.median(gaps),
        kernels,
    )
