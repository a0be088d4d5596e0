"""Which devices, shards and adapters a judge can be trained with."""

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin, dispatch_model
from conftest import LABELS, make_records, make_tiny_model

from distjudge_trl.batching import read_head_in_float32
from distjudge_trl.errors import UserInputError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.modeling.workarounds import keeping_hook
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer
from distjudge_trl.trainer.refused_launches import check_sharding


def make_trainer(tokenizer, folder, model=None, **settings):
    return DistributionSFTTrainer(
        model=model if model is not None else make_tiny_model(len(tokenizer)),
        args=DistributionSFTConfig(
            **{"output_dir": str(folder), "bf16": False, "report_to": "none", "disable_tqdm": True, **settings}
        ),
        train_dataset=make_records(8),
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
    )


def test_shards_that_would_be_saved_without_a_judge_are_refused(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path)
    plugin = trainer.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, state_dict_type="SHARDED_STATE_DICT"
    )
    trainer.is_fsdp_enabled = True
    try:
        with pytest.raises(UserInputError, match="fsdp_state_dict_type SHARDED_STATE_DICT: no judge would be saved"):
            check_sharding(trainer)
        plugin.set_state_dict_type("FULL_STATE_DICT")
        plugin.set_mixed_precision("bf16")
        policy = plugin.mixed_precision_policy
        assert (policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.bfloat16)
        check_sharding(trainer)
        policy = plugin.mixed_precision_policy
        assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    finally:
        trainer.accelerator.state.fsdp_plugin = None


def test_fsdp_that_would_not_be_started_is_refused(tokenizer, tmp_path, monkeypatch):
    """accelerate drops it in silence where there is no GPU."""
    trainer = make_trainer(tokenizer, tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "1")
    with pytest.raises(UserInputError, match="asks for FSDP, which accelerate starts only on GPUs.* zero3_cpu"):
        check_sharding(trainer)


def test_parallelism_that_a_model_or_deepspeed_brings_is_refused(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path)
    trainer.model._tp_size = 2  # as transformers leaves it on a model that was loaded with a `tp_plan`
    with pytest.raises(UserInputError, match=r"tensor parallelism \(tp_size 2\) does not apply"):
        check_sharding(trainer)


@pytest.fixture()
def two_gpus(monkeypatch):
    """What transformers counts on a machine with two, as far as one without can have it. A model that is spread sets
    the count to 1 (`Trainer.__init__`).
    """
    monkeypatch.setattr(
        DistributionSFTConfig, "n_gpu", property(lambda self: getattr(self, "_counted", 2)), raising=True
    )


SPREAD = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 1, "lm_head": 0}


@pytest.mark.parametrize(
    "where", [{"device_map": {"": "cuda:0"}}, {"device_map": None}, {"device_map": {"": 0}}, {"device_map": "cuda:1"}]
)
def test_several_gpus_for_a_model_on_one_are_refused_before_it_is_loaded(tokenizer, tmp_path, two_gpus, where):
    with pytest.raises(UserInputError, match=r"2 GPUs are visible to one process.*\"device_map\": \"auto\""):
        make_trainer(tokenizer, tmp_path, "no/such-model", model_init_kwargs=where)


def test_several_gpus_for_a_model_that_fits_on_one_are_refused_once_that_is_known(tokenizer, tmp_path, two_gpus):
    """`device_map="auto"` leaves a small model on one device; TRL says so when it is loaded."""
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    with pytest.raises(UserInputError, match="2 GPUs are visible to one process"):
        make_trainer(tokenizer, tmp_path, str(tmp_path / "model"))
    with pytest.raises(UserInputError, match="2 GPUs are visible to one process"):
        make_trainer(tokenizer, tmp_path)


def test_a_model_that_is_spread_over_several_gpus_is_trained(tokenizer, tmp_path, monkeypatch):
    """transformers counts one GPU then, which TRL's own check allows, too."""
    counts = {"_n_gpu": 2}
    monkeypatch.setattr(
        DistributionSFTConfig,
        "_n_gpu",
        property(lambda self: counts["_n_gpu"], lambda self, value: counts.update(_n_gpu=value or 2)),
        raising=False,
    )
    model = make_tiny_model(len(tokenizer))
    model.hf_device_map = SPREAD
    trainer = make_trainer(tokenizer, tmp_path, model, max_steps=2)
    assert trainer.is_model_parallel and trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == trainer._train_batch_size == 8
    trainer.train()


def test_a_spread_model_s_head_is_read_in_float32_where_it_lies(tmp_path):
    """accelerate's hook brings the weights that it keeps elsewhere, here on the disk, to the head's device."""
    model = make_tiny_model(100)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = model(ids).logits
    untied = make_tiny_model(100)
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.detach().clone())
    untied.config.tie_word_embeddings = False
    spread = dispatch_model(untied, {"model": "cpu", "lm_head": "disk"}, offload_dir=tmp_path)
    assert spread.lm_head.weight.is_meta
    with keeping_hook(spread.get_output_embeddings()):
        read_head_in_float32(spread)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=False):
        torch.testing.assert_close(spread(ids).logits, expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = spread(ids).logits
    assert logits.dtype == torch.float32 and logits.abs().max() > 1
    assert spread.lm_head.weight.is_meta, "it was there for the forward alone"


def test_the_trainer_keeps_a_spread_model_s_hooks(tokenizer, tmp_path):
    plain = make_trainer(tokenizer, tmp_path / "a", max_steps=2)
    plain.train()
    model = make_tiny_model(len(tokenizer))
    # Two "devices" that are one here; with one alone accelerate would leave the hooks out.
    spread = dispatch_model(
        model, {**dict.fromkeys(SPREAD, "cpu"), "lm_head": "cpu"}, main_device="cpu", force_hooks=True
    )
    hooked = spread.lm_head.forward
    trainer = make_trainer(tokenizer, tmp_path / "b", spread, max_steps=2)
    assert trainer.model.lm_head.forward is hooked and "float" in trainer.model.lm_head._old_forward.__qualname__
    trainer.train()
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (plain, trainer)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
