"""The trainer: TRL's SFTTrainer with a loss on the distribution over the labels instead of the answer's tokens.

Data, resuming, saving and the adversary have their own modules. What is left is one class. With the docstring that TRL
users look for it is a little longer than 300 lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

from distjudge_trl.batching import (
    JudgmentCollator,
    agree_on_sharing,
    find_sharing,
    judgment_logits,
    read_head_in_float32,
    reading_order,
)
from distjudge_trl.errors import RunFailedError, UserInputError, explaining_memory
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.model_card import PAPER
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.labels import LabelSpace
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.modeling.workarounds import keep_training_layout, keeping_hook, widen_trained_weights
from distjudge_trl.objective import kl_divergence, ranked_probability_score, reference_nll
from distjudge_trl.trainer.distribution_sft_config import DistributionSFTConfig
from distjudge_trl.trainer.judgment_rows import JudgmentRowsMixin
from distjudge_trl.trainer.metrics import RowMeans, label_metrics
from distjudge_trl.trainer.out_of_memory import advise
from distjudge_trl.trainer.perturbation import make_adversary, row_losses
from distjudge_trl.trainer.process_exit import set_timeout_on_cpu
from distjudge_trl.trainer.refused_launches import (
    check_adapters,
    check_devices,
    check_sharding,
    refusing_data_parallel,
)
from distjudge_trl.trainer.refused_models import check_model
from distjudge_trl.trainer.refused_options import check_order
from distjudge_trl.trainer.resuming import ResumingMixin
from distjudge_trl.trainer.run_description import describe_run
from distjudge_trl.trainer.saving import find_seen_items


class DistributionSFTTrainer(JudgmentRowsMixin, ResumingMixin):
    """
    Trainer that aligns a judge's distribution over the labels with the annotators' (the paper's eqs. 4-9).

    The datasets hold judgment records (columns `id`, `group`, `prompt`, `completion`, `label_distribution`,
    `num_annotators`). Prompts are left-padded (or packed, see `share_prefixes`), and the model, wrapped as it may be,
    is called without labels and with `logits_to_keep`, so that only B x V logits exist. The loss is the mean over the
    rows of the global batch: over gradient accumulation, processes and partial batches; rows that accelerate repeats
    to even out the ranks count nothing.

    Everything else (PEFT, quantization, checkpoints, resuming, distributed training, callbacks, ...) is inherited
    unchanged from [`~trl.SFTTrainer`]. Its arguments keep their meaning, except these:

    Args:
        label_space ([`LabelSpace`]): the task's labels. They are bound to the tokenizer as they follow the first
            training prompt.
        judge_file ([`JudgeFile`], *optional*): task name and prompt template to be saved with the model; the trainer
            fills in the rest.
        seen_items ([`SeenItems`], *optional*): the items that this judge is trained and chosen on. They are saved with
            it, and evaluations leave them out. By default those of `train_dataset` and `eval_dataset`.
        compute_metrics (`Callable[[EvalPrediction], dict]`, *optional*): receives `predictions`, label
            log-probabilities `(N, K)`, and `label_ids`, the human distributions `(N, K)`, gathered from all processes,
            every row once. Defaults to [`label_metrics`].

    Logged in training, as means over the rows since the last log, in nats: `kl` (to the unperturbed distribution),
    `ce` (on the reference label), `adversarial_gain` (what the perturbation adds to the KL); and in [0, 1]:
    `label_mass` (probability of any label under the full vocabulary), `accuracy` (against the reference label), and
    for labels with an order `rps` ([`ranked_probability_score`] to the unperturbed distribution). In evaluation the
    same with the prefix `eval_`; `eval_loss` is the training objective, adversary included.

    Raises:
        [`UserInputError`]: labels that collide under the tokenizer, malformed records, a prompt longer than
            `max_length`, an iterable dataset, an `ordinal_loss_weight` for labels without an order, or
            `share_prefixes=True` for a model that cannot read packs exactly.

    Example:
        >>> trainer = DistributionSFTTrainer(
        ...     model="Qwen/Qwen2.5-0.5B-Instruct",
        ...     args=DistributionSFTConfig(output_dir="judge", alpha=0.8),
        ...     train_dataset=records,
        ...     label_space=LabelSpace(["A", "B", "tie"]),
        ... )
        >>> trainer.train()
    """

    _tag_names = ["trl", "sft", "distjudge-trl"]
    _name = "DistributionSFT"
    _paper = PAPER
    # `compute_loss` divides by the rows of the whole accumulated batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: DistributionSFTConfig | None = None,
        *,
        label_space: LabelSpace,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        judge_file: JudgeFile | None = None,
        seen_items: SeenItems | None = None,
        **kwargs: Any,
    ) -> None:
        # Args
        for name in ("compute_loss_func", "formatting_func"):
            if kwargs.get(name) is not None:
                raise UserInputError(
                    f"`{name}` does not apply: the loss is the label distribution's, on judgment records."
                )
        if args is None:
            args = DistributionSFTConfig("distribution-sft")
        elif not isinstance(args, DistributionSFTConfig):
            raise UserInputError(f"`args` must be a DistributionSFTConfig, got {type(args).__name__}.")
        check_order(args.ordinal_loss_weight, label_space)
        set_timeout_on_cpu(args)
        check_devices(model, args)
        if isinstance(model, str):
            processing_class = check_model(model, args, kwargs, processing_class)
            model = resolve_model(model)
        self.label_space = label_space.copy()
        self.judge_file = judge_file or JudgeFile(label_space={})
        self.judge_file.label_space = label_space.to_dict()
        self.judge_file.calibration = None  # it was fitted for the weights before training
        self.seen_items = seen_items

        # The collator needs the pad token, which is known only after SFTTrainer's `__init__`.
        collator = JudgmentCollator(
            pad_token_id=0,
            pad_to_multiple_of=args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else 1,
        )
        self._means = RowMeans()
        loading = {name: kwargs.get(name) for name in ("peft_config", "quantization_config")}
        with refusing_data_parallel(args), explaining_memory(lambda: advise(args, model, **loading)):
            super().__init__(
                model=model,
                args=args,
                data_collator=collator,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                compute_metrics=compute_metrics or label_metrics,
                **kwargs,
            )
        if seen_items is None:
            # After `__init__`, which has checked the records.
            self.seen_items = find_seen_items(train_dataset, eval_dataset)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        collator.pad_token_id = self._tokenizer.pad_token_id or 0
        check_adapters(self.model)
        keep_training_layout(self.model)
        if args.fp16:
            widen_trained_weights(self.model)
        with keeping_hook(self.model.get_output_embeddings()):
            # With `label_normalization="labels"` the loss reads only the labels' logits; the others are read to log
            # their mass.
            read_head_in_float32(self.model, self.label_space if args.label_normalization == "labels" else None)
        check_sharding(self)
        # The autocast type of training, in which the model's attention has to run.
        autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
        with explaining_memory(lambda: advise(args, self.model)):
            bare = self.accelerator.unwrap_model(self.model)
            sharing = find_sharing(bare, args.share_prefixes, autocast, self.accelerator.print)
        self._sharing = collator.sharing = agree_on_sharing(sharing)

        self.adversary = make_adversary(args)

    # Loss

    def _update_auto_batch_size(self, batch_size: int) -> None:
        """`auto_find_batch_size` tries another batch size: discard the sums of the attempt before."""
        self._means.clear("train")
        super()._update_auto_batch_size(batch_size)

    def _prepare_input(self, data):
        """Under DeepSpeed transformers casts floating inputs to the engine's type. In bfloat16 the human distributions
        would change and no longer sum to 1. No other input here is floating.
        """
        return data.to(self.args.device) if isinstance(data, torch.Tensor) else super()._prepare_input(data)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum of [`row_losses`] over local rows, divided by the rows of the global batch."""
        mode = "train" if self.model.training else "eval"
        size = inputs["label_distribution"].shape[0]
        num_real = int(inputs.pop("num_real_rows", size))
        target, reference = inputs["label_distribution"], inputs["reference"]

        logits = judgment_logits(model, inputs, self._sharing)
        log_q = self.label_space.log_probs(logits, normalization=self.args.label_normalization)
        rows = row_losses(self.args, self.adversary, log_q, target, reference, inputs["num_annotators"])
        losses = rows.losses[:num_real]
        if num_items_in_batch is None:
            loss = losses.sum() / max(num_real, 1)
        else:
            # DDP, DeepSpeed and FSDP average gradients over the processes.
            loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes

        with torch.no_grad():
            label_log_q = torch.log_softmax(log_q, dim=-1)
            values = {
                "kl": kl_divergence(target, label_log_q),
                "ce": reference_nll(label_log_q, reference),
                "adversarial_gain": kl_divergence(rows.perturbed, label_log_q)
                - kl_divergence(rows.smoothed, label_log_q),
                "label_mass": self.label_space.mass(logits),
                "accuracy": (label_log_q.argmax(-1) == reference).float(),
            }
            if self.label_space.ordinal:
                values["rps"] = ranked_probability_score(target, label_log_q)
            self._means.add(mode, values, num_real)
        return (loss, {"label_log_probs": label_log_q}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, label log-probabilities `(B, K)` and human distributions `(B, K)`; logits over the vocabulary are not
        kept.
        """
        inputs = self._prepare_inputs(inputs)
        num_real = self._count_real_rows(inputs, self.accelerator.gradient_state.remainder)
        if num_real < inputs["label_distribution"].shape[0]:
            inputs["num_real_rows"] = torch.tensor(num_real)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        return loss, outputs["label_log_probs"], inputs["label_distribution"]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Warn if the learning rate is 0 in every step: that of the first one is, where there is a warm-up."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if num_training_steps == 1 and self.args.learning_rate > 0 and not any(scheduler.get_last_lr()):
            self.accelerator.print(
                "warning: the only step of this run is a warm-up step with learning rate 0, so nothing is learned."
                " Give more steps, or --warmup_steps 0."
            )
        return scheduler

    # Metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the training means to every training log. `evaluation_loop` adds those of an evaluation.

        Raises:
            [`RunFailedError`]: the training has diverged. transformers hides NaN in the logged loss.
        """
        if "loss" in logs:
            logs.update(self._means.pop("train", self.accelerator))
            if math.isnan(logs.get("kl", 0.0)):
                raise RunFailedError(
                    f"step {self.state.global_step}: the loss is NaN: training has diverged. Lower --learning_rate"
                    f" (now {self.args.learning_rate:g})."
                )
        super().log(logs, start_time)

    def predict(self, test_dataset: Dataset, ignore_keys=None, metric_key_prefix: str = "test"):
        """Predict label log-probabilities `(N, K)` for judgment records.

        Prompts are read in the order that takes the least work; predictions are returned in the order of the dataset.
        """
        test_dataset = self._prepare_dataset(
            test_dataset, self.processing_class, self.args, False, None, metric_key_prefix
        )
        order = reading_order(test_dataset["input_ids"][:], self.args.eval_batch_size, self._sharing)
        output = super().predict(test_dataset.select(order), ignore_keys, metric_key_prefix)
        back = np.argsort(order, kind="stable")
        return output._replace(predictions=output.predictions[back], label_ids=output.label_ids[back])

    def evaluation_loop(self, *args, **kwargs):
        """Add `label_mass`, `adversarial_gain` and `rps`, which `compute_metrics` cannot see, to the metrics."""
        self._means.clear("eval")
        with explaining_memory(self._advise_on_evaluating):
            output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        means = self._means.pop("eval", self.accelerator)
        for name in ("label_mass", "adversarial_gain", "rps"):
            if name in means:
                output.metrics[f"{prefix}_{name}"] = means[name]
        return output

    # Called by the mixins

    def advise_on_memory(self) -> str:
        longest = max(map(len, self.train_dataset["input_ids"]))
        return advise(self.args, self.accelerator.unwrap_model(self.model), longest_row=longest)

    def _advise_on_evaluating(self) -> str:
        size = self.args.per_device_eval_batch_size
        if size == 1:
            return self.advise_on_memory()
        return f"This happened in evaluation: give a smaller --per_device_eval_batch_size (now {size})."

    def describe_run(self) -> dict[str, Any]:
        return describe_run(self, self.judge_file, self.label_space.labels, self._sampling, self._train_fingerprint)
