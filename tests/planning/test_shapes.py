"""Plans for models whose layers are named or arranged in another way: counted against a real step of the model."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from distjudge_trl.batching import read_head_in_float32
from distjudge_trl.planning import Training, measure_footprint


SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
GEMMA = {**SMALL, "sliding_window": 16, "query_pre_attn_scalar": 16, "bos_token_id": 1, "eos_token_id": 2}


def shape(kind):
    from transformers import AutoConfig, Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    if kind == "gpt2":  # Conv1D instead of Linear, n_layer and n_embd
        return AutoConfig.for_model("gpt2", vocab_size=512, n_embd=64, n_layer=6, n_head=4, n_positions=64)
    if kind == "gemma2":  # no scaled_dot_product_attention; two kinds of layers in turn
        return AutoConfig.for_model("gemma2", num_hidden_layers=6, **GEMMA)
    text = {**GEMMA, "num_hidden_layers": 12}  # five layers of one kind, one of the other
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    ids = {"image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502}
    return Gemma3Config(text_config=Gemma3TextConfig(**text), vision_config=vision, mm_tokens_per_image=4, **ids)


def step(model, training):
    """Most bytes that torch holds during a forward and backward pass on the CPU, without weights and gradients."""
    rows, length = training.batch_size, training.seq_len
    batch = {
        "input_ids": torch.arange(rows * length).reshape(rows, length) % 500,
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
        "position_ids": torch.arange(length).expand(rows, length),
    }
    for weight in filter(lambda weight: weight.requires_grad, model.parameters()):
        weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1]
        torch.log_softmax(logits.float(), dim=-1).sum().backward()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize(("kind", "rank"), [("gpt2", 0), ("gpt2", 4), ("gemma2", 0), ("gemma2", 4), ("gemma3", 0)])
def test_a_plan_is_what_a_real_step_takes(kind, rank):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config, training = shape(kind), Training(48, 8, lora_r=rank, dtype="float32", bf16=False)
    planned = measure_footprint(config, training)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert planned.sizes.base == sum(p.numel() for p in model.parameters())
    assert planned.sizes.head == model.get_output_embeddings().weight.numel()
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        assert planned.sizes.adapter == sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if rank:
        model.enable_input_require_grads()
    model.train()
    read_head_in_float32(model)
    assert planned.first == pytest.approx(step(model, training), rel=0.1)
