"""The memory of one replica of a model during a forward and backward pass, counted on tensors without storage.

The model is built from its config under torch's `FakeTensorMode`, adapters included, and the real modelling code runs
a forward and a backward pass of one batch while every storage that it creates is tracked. Only the config is
downloaded, and nothing is computed. Two shallow copies of the model are run and the other layers are extrapolated: the
peak of the forward is linear in the number of layers, and so is that of the backward.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distjudge_trl.errors import UserInputError
from distjudge_trl.modeling.kinds import check_causal, check_folder
from distjudge_trl.modeling.loading import explain_loading, loading_error
from distjudge_trl.planning.tensors import fake_weights, make_tracker
from distjudge_trl.planning.training import ADAPTER_TARGETS, Training


if TYPE_CHECKING:
    from transformers import PretrainedConfig


# Published shapes of the most common models, from their config.json on the hub, so that a plan needs neither network
# nor access to a gated repository.
_QWEN = {"model_type": "qwen2", "rope_theta": 1e6, "max_position_embeddings": 32768, "tie_word_embeddings": False}
_LLAMA = {
    "model_type": "llama",
    "rope_theta": 5e5,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
KNOWN_SHAPES: dict[str, dict[str, Any]] = {
    "qwen/qwen2.5-7b": {
        **_QWEN,
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "meta-llama/llama-3.1-8b": {
        **_LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "meta-llama/llama-3.1-70b": {
        **_LLAMA,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
}
KNOWN_NAMES = ("Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B")
_LAYERS = (1, 2)  # of the two copies, in periods of layers that differ
_LONGEST_PERIOD = 12
_VOCABULARY = 1024  # of the copies, so that layers and not embeddings determine their peak


class Sizes(NamedTuple):
    """Numbers of parameters (not bytes) of the full model."""

    linear: int  # in linear layers other than the head, which bitsandbytes quantises
    other: int  # embeddings, head, norms, biases
    adapter: int  # of LoRA; 0 without an adapter
    head: int
    layer: int  # of one layer, adapter left out
    largest: int  # of the largest linear layer
    vocabulary: int

    @property
    def base(self) -> int:
        """Number of parameters of the model without adapter."""
        return self.linear + self.other


@dataclass(frozen=True)
class Footprint:
    """The memory of one replica besides weights, gradients and optimizer, which may be sharded.

    Args:
        sizes (`Sizes`): numbers of parameters.
        first (`int`): bytes of activations at their peak: at the end of the forward pass, with autocast's copies of
            the weights, or at the beginning of the backward pass, with its temporaries.
        last (`int`): bytes of activations when the backward pass has reached the first layer.
        saved_dtype (`str`): type of the weights in the checkpoint's files.
    """

    sizes: Sizes
    first: int
    last: int
    saved_dtype: str = "bfloat16"


def load_config(model: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of a model: `smollm2-135m`, a folder, a config.json, a hub id, or one of [`KNOWN_SHAPES`].

    Raises:
        [`UserInputError`]: it is none of these, the hub does not answer, or the config needs code of its repository
            and `trust_remote_code` is not given.
    """
    import logging

    from transformers import AutoConfig

    from distjudge_trl.modeling.bundled import BUNDLED_MODEL, resolve_model

    # It logs every attempt to reach a hub that does not answer.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    path = resolve_model(model)
    shape = KNOWN_SHAPES.get(model.lower().removesuffix("-instruct"))
    if shape is not None and not Path(path).exists():
        return AutoConfig.for_model(**shape)
    try:
        check_folder(f"--model {model}", path)
        config: PretrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        check_causal(f"--model {model}", config)
        return config
    except UserInputError:
        raise
    except Exception as error:  # noqa: BLE001 (a file may hold anything, and transformers raises many things)
        if "trust_remote_code" in str(error):
            raise loading_error(f"--model {model}:", error) from None
        known = f"{', '.join(KNOWN_NAMES)}, {BUNDLED_MODEL}"
        raise UserInputError(
            f"--model {model}: no model config is found there ({str(error).splitlines()[0]}). Give a hub id, a folder"
            f" or config.json of a causal language model, or a shape that is known offline: {known}."
        ) from None


def measure_footprint(config: PretrainedConfig, training: Training, *, trust_remote_code: bool = False) -> Footprint:
    """Count the memory of a replica of the model in one forward and backward pass.

    Args:
        config (`PretrainedConfig`): of a causal language model.
        training (`Training`): batch, lengths, adapter, precision.
        trust_remote_code (`bool`): allow the code of the model's repository.

    Raises:
        [`UserInputError`]: the config is not of a causal language model, or needs code that is not allowed.
    """
    depth = getattr(config.get_text_config(), "num_hidden_layers", None)
    if not depth:
        raise UserInputError(f"The config ({config.model_type}) is not that of a text model with layers.")
    text = config.get_text_config()
    fewer, more = (_period(text, depth) * layers for layers in _LAYERS)
    low, high = (_run(_shallow(config, layers), training, trust_remote_code) for layers in (fewer, more))

    def extend(name: str, layers: int = depth) -> int:
        slope = (high[name] - low[name]) / (more - fewer)
        return round(low[name] + slope * (layers - fewer))

    head = text.vocab_size * high["width"]
    sizes = Sizes(
        linear=extend("linear"),
        other=extend("other") + high["tables"] * (head - _VOCABULARY * high["width"]),
        adapter=extend("adapter"),
        head=head,
        layer=(high["linear"] + high["other"] - low["linear"] - low["other"]) // (more - fewer),
        largest=high["largest"],
        vocabulary=text.vocab_size,
    )
    # The known shapes are published in bfloat16, as all recent models.
    saved = str(getattr(config, "dtype", None) or "bfloat16").removeprefix("torch.")
    return Footprint(sizes, max(extend("forward"), extend("backward")), extend("backward", layers=1), saved)


def _shallow(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    text = config.get_text_config()
    for name, values in _lists_by_layer(text, text.num_hidden_layers).items():
        setattr(text, name, (values * layers)[:layers])  # the model may have fewer layers than the copy
    text.num_hidden_layers = layers
    for part in (config, text):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config  # `training.bits` says what quantised weights take
    text.vocab_size = _VOCABULARY
    text.pad_token_id = None
    return config


def _lists_by_layer(text: PretrainedConfig, depth: int) -> dict[str, list[Any]]:
    """The entries of a config that hold one value for each layer."""
    content = text.to_dict().items()
    return {name: list(values) for name, values in content if isinstance(values, list) and len(values) == depth > 1}


def _period(text: PretrainedConfig, depth: int) -> int:
    """After how many layers the kinds of layers repeat."""
    kinds = list(zip(*_lists_by_layer(text, depth).values(), strict=True)) or [()]
    periods = range(1, min(len(kinds), _LONGEST_PERIOD + 1))
    return next((p for p in periods if all(kind == kinds[i % p] for i, kind in enumerate(kinds))), min(len(kinds), 2))


def _run(config: PretrainedConfig, training: Training, trust_remote_code: bool = False) -> dict[str, int]:
    """Count the memory of a small model tensor by tensor, in a forward and a backward pass."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D  # the linear layers of GPT-2, which bitsandbytes quantises, too

    from distjudge_trl.batching import read_head_in_float32

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=getattr(torch, training.compute_dtype),
                trust_remote_code=trust_remote_code,
            )
        except ValueError as error:
            raise UserInputError(f"--model: no causal language model ({explain_loading(error)}).") from None
        head, table = model.get_output_embeddings(), model.get_input_embeddings()
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
        counts = {
            "linear": sum(module.weight.numel() for module in linear),
            "largest": max(module.weight.numel() for module in linear),
            "width": head.weight.shape[1],
            "tables": 1 if head.weight is table.weight else 2,
        }
        counts["other"] = sum(p.numel() for p in model.parameters()) - counts["linear"]
        if training.lora_r:
            model = _with_adapter(model, training)
        counts["adapter"] = sum(p.numel() for p in model.parameters() if p.requires_grad) if training.lora_r else 0
        if training.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            if training.lora_r:
                model.enable_input_require_grads()
        model.train()
    read_head_in_float32(model)
    rows, length = training.batch_size, training.seq_len
    with warnings.catch_warnings(), FakeTensorMode():
        warnings.simplefilter("ignore")
        fake_weights(model)
        batch = {
            "input_ids": torch.zeros(rows, length, dtype=torch.long),
            "attention_mask": torch.ones(rows, length, dtype=torch.long),
            "position_ids": torch.arange(length).expand(rows, length),
        }
        with make_tracker(model) as tracker:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=training.autocast):
                logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1]
            counts["forward"], tracker.peak = tracker.peak, tracker.current
            torch.log_softmax(logits.float(), dim=-1).sum().backward()
    counts["backward"] = tracker.peak
    return counts


def _with_adapter(model: Any, training: Training) -> Any:
    import logging

    import torch

    # PEFT imports bitsandbytes, which logs messages about optional CPU kernels that are not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=training.lora_r, target_modules=ADAPTER_TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, training.adapter_dtype))
    return model
