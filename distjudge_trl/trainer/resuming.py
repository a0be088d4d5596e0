"""Training from the start or from a checkpoint, and clear errors when another process is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from torch.distributed import DistError

from distjudge_trl.errors import LostProcessError, UserInputError, explaining_memory, lost_connection
from distjudge_trl.modeling.workarounds import keeping_dtypes
from distjudge_trl.trainer.checkpoints import check_same_run, explaining_damage, find_checkpoint, saved_sampling
from distjudge_trl.trainer.deepspeed_ops import load_cpu_adam
from distjudge_trl.trainer.deepspeed_states import check_states
from distjudge_trl.trainer.process_exit import let_threads_finish
from distjudge_trl.trainer.sampling import Sampling, resume_sampling
from distjudge_trl.trainer.saving import SavingMixin


class ResumingMixin(SavingMixin):
    """The part of the trainer that resumes from checkpoints."""

    @cached_property
    def _sampling(self) -> Sampling:
        """How rows are drawn; [`train`] sets it when it resumes a run."""
        raise NotImplementedError

    def advise_on_memory(self) -> str:
        """Advice for when memory runs out."""
        raise NotImplementedError

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train. `resume_from_checkpoint` is the folder of a checkpoint, or `True` for the newest complete one in the
        output folder. Incomplete checkpoints are skipped.

        Raises:
            [`UserInputError`]: there is no complete checkpoint, or it belongs to another run.
            [`RunFailedError`]: a checkpoint cannot be written, or another process is gone (then within `ddp_timeout`
                seconds; at once if its machine lives on), or memory runs out.
        """
        if self.args.max_steps == 0:
            raise UserInputError("`max_steps` is 0: nothing would be trained.")
        found = find_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if found is not None:
            print_once = self.accelerator.print
            for folder in found.skipped:
                print_once(f"{folder} is incomplete and skipped.")
            self._sampling = resume_sampling(
                self.args, self.train_dataset, self._train_batch_size, saved_sampling(found.path)
            )
            if self.is_deepspeed_enabled:
                check_states(found.path)
            changed = check_same_run(found.path, self.describe_run())
            print_once(f"Resuming from {found.path}" + (f". Changed: {', '.join(changed)}" if changed else ""))
        if self.is_deepspeed_enabled and self._offloads_optimizer():
            load_cpu_adam()
        with self._explaining_lost_processes(), explaining_memory(self.advise_on_memory):
            return super().train(resume_from_checkpoint=found.path if found is not None else None, **kwargs)

    def _run_epoch(self, *args, **kwargs):
        """Do nothing if the resumed run was already finished: transformers checks that only after a step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        with explaining_damage(resume_from_checkpoint), keeping_dtypes(self.model if model is None else model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with explaining_damage(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with explaining_damage(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        with explaining_damage(self.state.best_model_checkpoint), keeping_dtypes(self.model):
            super()._load_best_model()

    @contextmanager
    def _explaining_lost_processes(self) -> Iterator[None]:
        """Raise an error of one line instead of a collective's traceback when another process or its machine dies."""
        try:
            yield
        except (RuntimeError, DistError) as error:
            reason = lost_connection(error)
            if self.args.world_size == 1 or reason is None:
                raise
            raise LostProcessError(
                f"step {self.state.global_step + 1}: lost the connection to another process ({reason}). The log of the"
                " one that failed first says why. Resume from the last checkpoint with --resume_from_checkpoint true."
            ) from error

    def end(self) -> None:
        """Finish the trackers and leave the process group, all processes at once.

        Destroying the group does not stop Gloo's threads, because DistributedDataParallel and DeepSpeed keep groups.
        """
        self.accelerator.wait_for_everyone()
        super().end()
        if self.args.world_size > 1:
            let_threads_finish()

    def _offloads_optimizer(self) -> bool:
        config = self.accelerator.state.deepspeed_plugin.hf_ds_config
        return config.get_value("zero_optimization.offload_optimizer.device") in ("cpu", "nvme")
