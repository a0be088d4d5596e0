"""Every option of TRL's SFTConfig has a place: it is inherited, or refused where it would be ignored."""

import dataclasses

import pytest
from accelerate.parallelism_config import ParallelismConfig
from conftest import ROOT
from trl import SFTConfig

from distjudge_trl.errors import UserInputError
from distjudge_trl.trainer import DistributionSFTConfig
from distjudge_trl.trainer.refused_options import ONLY


# A value that is refused, and what the message says of it.
REFUSED = {
    "dataloader_drop_last": (True, "drop rows of the evaluation"),
    "packing": (True, "Use `share_prefixes`"),
    "eval_packing": (True, "Use `share_prefixes`"),
    "packing_strategy": ("wrapped", "rows are not packed"),
    "padding_free": (True, "padded on the left"),
    "assistant_only_loss": (True, "only on the judgment position"),
    "completion_only_loss": (False, "only on the judgment position"),
    "truncation_mode": ("keep_end", "prompts are never cut"),
    "dataset_kwargs": ({"skip_prepare_dataset": True}, "skip_prepare_dataset.* records are tokenized here"),
    "router_aux_loss_coef": (0.1, "no load-balancing term"),
    "loss_type": ("dft", "set by `alpha` and `adversary`"),
    "label_smoothing_factor": (0.1, "Use `label_smoothing`"),
    "pad_to_multiple_of": (0, "at least 1"),
    "accelerator_config": ({"split_batches": True}, "per_device_train_batch_size"),
    "average_tokens_across_devices": (False, "rows of all processes"),
    "pad_token": ("<pad>", "padding is masked out"),
    "dataset_text_field": ("prompt", "records are tokenized here"),
    "shuffle_dataset": (True, "drawn in a new order"),
    "batch_eval_metrics": (True, "over all rows"),
    "eval_do_concat_batches": (False, "over all rows"),
    "eval_use_gather_object": (True, "gathered as tensors"),
    "include_for_metrics": (["inputs"], "padded, or packed"),
    "prediction_loss_only": (True, "label distributions"),
    "label_names": (["labels"], "human distributions"),
    "bf16_full_eval": (True, "precision that it is trained and read in"),
    "fp16_full_eval": (True, "precision that it is trained and read in"),
    "parallelism_config": (ParallelismConfig(cp_size=2), r"context parallelism \(cp_size 2\)"),
}

# What transformers, TRL or accelerate do with these holds for judgments as for anything else. A name that TRL or
# transformers add belongs here once somebody has read that the trainer's own methods do not pass it by.
_NAMES = """
    output_dir seed data_seed full_determinism resume_from_checkpoint ignore_data_skip
    restore_callback_states_from_checkpoint do_train do_eval do_predict debug skip_memory_metrics
    per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps auto_find_batch_size
    num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args
    optim_target_modules weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm neftune_noise_alpha
    bf16 fp16 tf32 use_cpu use_cache torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
    activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs
    activation_offloading use_liger_kernel liger_kernel_config
    logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level
    log_level_replica include_num_input_tokens_seen disable_tqdm
    report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id
    eval_strategy eval_steps eval_delay eval_on_start eval_accumulation_steps
    save_strategy save_steps save_only_model save_on_each_node save_total_limit enable_jit_checkpoint
    load_best_model_at_end metric_for_best_model greater_is_better
    push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order
    remove_unused_columns train_sampling_strategy length_column_name
    local_rank ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend
    ddp_timeout fsdp fsdp_config deepspeed
    model_init_kwargs trust_remote_code chat_template_path eos_token max_length dataset_num_proc
"""
INHERITED = _NAMES.split()


def test_every_option_of_trl_is_inherited_or_refused():
    fields = {field.name for field in dataclasses.fields(SFTConfig)}
    assert not {*INHERITED} & {*REFUSED} and len({*INHERITED}) == len(INHERITED)
    assert fields - {*INHERITED, *REFUSED} == set(), "new in TRL or transformers: read what it does, and list it"
    assert {*INHERITED, *REFUSED} - fields == set(), "gone from TRL or transformers"
    assert set(ONLY) <= set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_would_be_ignored_is_refused(tmp_path, name):
    value, why = REFUSED[name]
    with pytest.raises(UserInputError, match=f"`{name}.*{why}"):
        DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False, **{name: value})


def test_the_page_on_training_lists_every_refused_option():
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    section = page.split("### Refused options")[1].split("\n### ")[0]
    assert [name for name in REFUSED if f"`{name}" not in section] == []


@pytest.mark.parametrize("name", ONLY)
def test_the_one_value_that_an_option_has_is_trl_s_default(tmp_path, name):
    """Given by hand it says nothing new."""
    (field,) = [field for field in dataclasses.fields(SFTConfig) if field.name == name]
    value, _ = ONLY[name]
    assert field.default == value
    DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False, **{name: value})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dispatch_batches": True}, "`accelerator_config.dispatch_batches` does not apply"),
        ({"even_batches": False}, "`accelerator_config.even_batches=False` does not apply"),
    ],
)
def test_ways_to_deal_out_batches_that_would_break_them_are_refused(tmp_path, settings, match):
    with pytest.raises(UserInputError, match=match):
        DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False, accelerator_config=settings)


@pytest.mark.parametrize(
    ("kind", "name"), [("CP", "context parallelism"), ("SP", "sequence parallelism"), ("TP", "tensor parallelism")]
)
def test_parallelism_of_an_accelerate_config_is_refused(tmp_path, monkeypatch, kind, name):
    """accelerate hands `parallelism_config` to the script by the environment alone."""
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv(f"PARALLELISM_CONFIG_{kind}_SIZE", "2")
    with pytest.raises(UserInputError, match=rf"{name} \({kind.lower()}_size 2\) does not apply"):
        DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False)
    monkeypatch.setenv(f"PARALLELISM_CONFIG_{kind}_SIZE", "1")
    DistributionSFTConfig(str(tmp_path), use_cpu=True, bf16=False)


def test_ddp_looks_for_unused_parameters_only_if_it_is_asked_to(tmp_path):
    """transformers looks for them under adapters: a walk through the graph in every step, for nothing."""
    assert DistributionSFTConfig(str(tmp_path)).ddp_find_unused_parameters is False
    asked = DistributionSFTConfig(str(tmp_path), ddp_find_unused_parameters=True)
    assert asked.ddp_find_unused_parameters is True
