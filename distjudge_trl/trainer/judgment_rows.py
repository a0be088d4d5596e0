"""The trainer's data: judgment records become rows, rows are drawn into batches, and repeated rows are not counted."""

from __future__ import annotations

from functools import cached_property

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from distjudge_trl.batching import PrefixSharing, encode_prompts, pin_date, render_prompt
from distjudge_trl.data.records import validate_records
from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.labels import LabelSpace
from distjudge_trl.trainer.checkpoints import rows_fingerprint
from distjudge_trl.trainer.sampling import Sampling, choose_sampling, pass_epoch_to_sampler


_FEATURE_COLUMNS = ("input_ids", "label_distribution", "reference", "num_annotators")


class JudgmentRowsMixin(SFTTrainer):
    """The part of the trainer that tokenizes, draws and counts rows.

    A row holds `input_ids` (token ids of the prompt, up to the judgment position), `label_distribution` (K floats),
    `reference` (index of the majority label) and `num_annotators`.
    """

    judge_file: JudgeFile
    label_space: LabelSpace
    _sharing: PrefixSharing | None
    _tokenizer: PreTrainedTokenizerBase

    def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
        """Turn judgment records into rows; a dataset that has a row's columns is returned as it is."""
        if isinstance(dataset, IterableDataset):
            raise UserInputError(
                "A judgment dataset must be a map-style `datasets.Dataset`; an iterable one cannot be validated first."
            )
        if all(column in dataset.column_names for column in _FEATURE_COLUMNS):
            return dataset
        if not len(dataset):
            raise UserInputError(f"The {dataset_name} dataset holds no records.")
        validate_records(dataset, self.label_space, source=f"{dataset_name} dataset")
        self.judge_file.template_date = pin_date(self._tokenizer, self.judge_file.template_date, shared=True)
        if not self.label_space.bindings:
            self.label_space.bind(self._tokenizer, render_prompt(self._tokenizer, dataset[0]["prompt"]))

        tokenizer, label_space, max_length = self._tokenizer, self.label_space, args.max_length

        def encode(rows: dict[str, list]) -> dict[str, list]:
            references = [label_space.index_of_answer(completion[0]["content"]) for completion in rows["completion"]]
            input_ids = encode_prompts(
                tokenizer, rows["prompt"], max_length=max_length, ids=rows["id"], source=f"{dataset_name} dataset"
            )
            return {"input_ids": input_ids, "reference": references}

        with args.main_process_first(desc=f"tokenizing the {dataset_name} dataset"):
            return dataset.map(
                encode,
                batched=True,
                num_proc=args.dataset_num_proc,
                remove_columns=[name for name in dataset.column_names if name not in _FEATURE_COLUMNS],
                desc=f"Tokenizing {dataset_name} dataset",
            )

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(_FEATURE_COLUMNS)

    @cached_property
    def _train_fingerprint(self) -> str:
        # Computed once and not at every checkpoint, because it reads all rows.
        return rows_fingerprint(self.train_dataset)

    @cached_property
    def _sampling(self) -> Sampling:
        """How rows are drawn; [`train`] sets it when it resumes a run."""
        chosen = choose_sampling(
            self.args, self.train_dataset, self._train_batch_size, shares=self._sharing is not None
        )
        if chosen.saved is not None:
            self.accelerator.print(
                f"Rows that begin alike are drawn into one batch, which saves {chosen.saved:.0%} of the tokens."
            )
        return chosen

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        sampler = self._sampling.sampler
        return sampler if sampler is not None else super()._get_train_sampler(train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        if self._sampling.sampler is not None:
            pass_epoch_to_sampler(loader, self._sampling.sampler)
        return loader

    def _update_auto_batch_size(self, batch_size: int) -> None:
        if self._sampling.sampler is not None:
            self._sampling.sampler.batch_size = batch_size
        super()._update_auto_batch_size(batch_size)

    def _count_real_rows(self, batch: dict[str, Tensor], remainder: int) -> int:
        """How many rows of this process's batch are not repetitions that accelerate adds to even out the ranks.

        Only the last global batch of an epoch has repetitions. They follow its `remainder` real rows in rank order; a
        remainder of 0 means that it is full.
        """
        size = batch["label_distribution"].shape[0]
        state = self.accelerator.gradient_state
        if not state.in_dataloader or not state.end_of_dataloader or remainder <= 0:
            return size
        return min(max(remainder - self.accelerator.process_index * size, 0), size)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """How many rows the accumulated batch of all processes has. Also marks the repeated rows of its last batch."""
        if not batch_samples:
            return None
        counts = [batch["label_distribution"].shape[0] for batch in batch_samples]
        # Not the dataloader's own remainder: accelerate loses it when a resumed run skips batches.
        global_batch = self._train_batch_size * self.args.world_size
        remainder = len(self.train_dataset) % global_batch
        counts[-1] = self._count_real_rows(batch_samples[-1], remainder)
        if counts[-1] < batch_samples[-1]["label_distribution"].shape[0]:
            batch_samples[-1]["num_real_rows"] = torch.tensor(counts[-1])
        total = torch.tensor(sum(counts), device=device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total
