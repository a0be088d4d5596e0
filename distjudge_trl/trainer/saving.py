"""Saving a judge, its checkpoints and its model card atomically, and pushing them to the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import SFTTrainer

from distjudge_trl.errors import RunFailedError, disk_failed, first_line
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judge_folder.label_tokens import write_label_tokens
from distjudge_trl.judge_folder.model_card import write_model_card
from distjudge_trl.judge_folder.replacing import replacing_judge
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.labels import LabelSpace
from distjudge_trl.modeling.workarounds import gather_trained_weights
from distjudge_trl.trainer.checkpoints import CHECKPOINT_FILE, unmark_checkpoint, write_checkpoint_file
from distjudge_trl.trainer.run_description import complete_judge_file


def find_seen_items(train: Dataset | None, evaluated: Dataset | dict[str, Dataset] | None) -> SeenItems | None:
    """The items of a trainer's datasets; `None` if they do not name them, as rows that were tokenized before."""
    if train is None or not _names_items(train):
        return None
    parts = evaluated.values() if isinstance(evaluated, dict) else [evaluated]
    return SeenItems.of(train, *(part for part in parts if part is not None and _names_items(part)))


def _names_items(dataset: Dataset) -> bool:
    return all(name in dataset.features and dataset.features[name].dtype == "string" for name in ("id", "group"))


class SavingMixin(SFTTrainer):
    """The part of the trainer that writes files. `judge_file` and `seen_items` are saved beside the weights. `results`
    (the content of `results.json`) are shown on the model card, once there are some.
    """

    judge_file: JudgeFile
    label_space: LabelSpace
    seen_items: SeenItems | None
    results: dict[str, Any] | None = None

    def describe_run(self) -> dict[str, Any]:
        """The properties that a resuming run must share with this one, and settings whose changes cause a warning."""
        raise NotImplementedError

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        """Save under a temporary name first: if the disk is full, the judge that was there before is kept."""
        if not self.args.should_save:
            # This is called on every process; these only take part in gathering.
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir if output_dir is not None else self.args.output_dir)
        with replacing_judge(folder) as temporary:
            super()._save(str(temporary), state_dict)
            complete_judge_file(self.judge_file, self)
            self.judge_file.write(temporary)
            if self.label_space.bindings:  # not where rows were tokenized before
                write_label_tokens(temporary, self.label_space)
            if self.seen_items is not None:
                self.seen_items.write(temporary)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the judge and, with `push_to_hub`, push it.

        Raises:
            [`RunFailedError`]: the judge cannot be written (a full disk), and the one that was there before is kept;
                or it cannot be pushed, but is saved.
        """
        with self._explaining_failure(output_dir or self.args.output_dir):
            if self.is_fsdp_enabled and self.accelerator.is_fsdp2 and hasattr(self.model, "peft_config"):
                # transformers would also gather the frozen base model, which is not saved with an adapter.
                self._save(output_dir, gather_trained_weights(self.model))
            else:
                super().save_model(output_dir, _internal_call=True)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_checkpoint(self, model, trial) -> None:
        """Mark the checkpoint as complete after every process has written its part, and only then delete old ones. A
        checkpoint of the same step from an earlier run loses its mark before its first file is replaced.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        run_dir = self._get_output_dir(trial)
        folder = os.path.join(run_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        try:
            with self._explaining_failure(folder):
                if self.args.should_save:
                    unmark_checkpoint(folder)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    write_checkpoint_file(folder, self.describe_run())
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=run_dir,
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    @contextmanager
    def _explaining_failure(self, folder: str) -> Iterator[None]:
        """Raise an error of one line if the disk is full or fails; an incomplete checkpoint is removed."""
        try:
            yield
        # torch.save raises RuntimeError, safetensors raises SafetensorError.
        except (OSError, RuntimeError, SafetensorError) as error:
            if (reason := disk_failed(error)) is None:
                raise
            if self.args.should_save and Path(folder).name.startswith(PREFIX_CHECKPOINT_DIR):
                shutil.rmtree(folder, ignore_errors=True)
            cure = "Make room and train again."
            if any(Path(self.args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{CHECKPOINT_FILE}")):
                cure = "Earlier checkpoints are complete: make room and resume with --resume_from_checkpoint true."
            raise RunFailedError(f"{folder}: cannot be written ({reason}). {cure}") from error

    def create_model_card(self, model_name=None, dataset_name=None, tags=None) -> None:
        """Write the model card: labels, settings, results, how to use it, the paper's citation."""
        if not self.is_world_process_zero():
            return
        complete_judge_file(self.judge_file, self)
        metrics: dict[str, float] = {}
        for entry in self.state.log_history:
            metrics.update({name: value for name, value in entry.items() if name.startswith(("eval_", "test_"))})
        write_model_card(
            self.args.output_dir,
            judge_file=self.judge_file,
            model_name=model_name or "judge",
            hub_model_id=self.hub_model_id,
            dataset_name=dataset_name,
            metrics=metrics,
            results=self.results,
            tags=sorted({*self._tag_names, *([tags] if isinstance(tags, str) else tags or [])}),
        )

    def init_hf_repo(self, *args, **kwargs) -> None:
        """Make the repository that `push_to_hub` pushes to.

        Raises:
            [`RunFailedError`]: the hub cannot be reached or refuses.
        """
        try:
            super().init_hf_repo(*args, **kwargs)
        except Exception as error:
            if not _is_of_hub(error):
                raise
            name = self.args.hub_model_id or self.args.output_dir
            raise RunFailedError(f"--push_to_hub: {name} cannot be made ({first_line(error)}).") from error

    def push_to_hub(self, *args, **kwargs):
        """Push the judge.

        Raises:
            [`RunFailedError`]: the hub cannot be reached or refuses. The judge is saved first.
        """
        try:
            return super().push_to_hub(*args, **kwargs)
        except Exception as error:
            if not _is_of_hub(error):
                raise
            name = self.hub_model_id or self.args.hub_model_id
            raise RunFailedError(
                f"{name}: cannot be pushed ({first_line(error)}). The judge is saved in {self.args.output_dir}:"
                f" push it later with `hf upload {name} {self.args.output_dir} --exclude 'checkpoint-*'`."
            ) from error


def _is_of_hub(error: Exception) -> bool:
    """Whether an exception comes from the hub's client or the HTTP library that it uses."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("huggingface_hub", "httpx", "httpx2")
