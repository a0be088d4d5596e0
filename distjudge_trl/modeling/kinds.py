"""What kind of model a name stands for, and whether a judge can be made of it. Decided here alone, from the config and
the names of the weights, before data is read and weights are fetched.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.modeling.loading import load_config


if TYPE_CHECKING:
    from transformers import PretrainedConfig

Trains = Literal["weights", "adapter"]

_INSTEAD = (
    "Choose a causal language model (its config.json names a ...ForCausalLM), such as Qwen/Qwen2.5-0.5B-Instruct."
)
# Endings of classes that end in another head, and what they are.
_OTHER_HEADS = {
    "ForSequenceClassification": "a classifier",
    "ForTokenClassification": "a tagger of tokens",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForMultipleChoice": "a classifier of choices",
    "ForRewardModel": "a reward model",
    "RewardModel": "a reward model",
    "ForMaskedLM": "an encoder that fills in masked tokens",
    "ForPreTraining": "an encoder",
    "ForConditionalGeneration": "an encoder-decoder",
}
# Components of the names of output heads in checkpoints.
_HEADS = ("lm_head", "head", "embed_out", "output", "output_layer", "lm_loss", "pred_layer")
_NAMES = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "fbgemm_fp8": "FP8", "mxfp4": "MXFP4", "hqq": "HQQ"}


class ModelKind(NamedTuple):
    """A causal language model: its `config`, how its files are quantised (`None` if they are not), and whether it also
    reads images.
    """

    config: PretrainedConfig
    quantized: str | None
    vision: bool


def find_kind(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> ModelKind:
    """The kind of a model: a hub id, a folder, or `smollm2-135m`.

    Raises:
        [`UserInputError`]: there is no model of that name, or it is not a causal language model with an output head.
    """
    path = resolve_model(name)
    what = f"The model {name!r}"
    check_folder(what, path)
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    check_causal(what, config)
    _check_head(what, config, path, revision)
    return ModelKind(config, quantization_of(config), _has_vision(config))


def check_causal(what: str, config: PretrainedConfig) -> None:
    """Raise [`UserInputError`] unless a config is that of a causal language model; `what` begins the message."""
    from transformers.models.auto import modeling_auto as auto

    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return
    architecture = next(iter(getattr(config, "architectures", None) or ()), None)
    known = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    its_class = known.get(config.model_type)
    shown = f"{architecture or config.model_type}"
    if getattr(config, "is_encoder_decoder", False) or config.model_type in (
        "t5",
        "mt5",
        "umt5",
        "switch_transformers",
    ):
        raise UserInputError(f"{what} is an encoder-decoder ({shown}) and not a causal language model. {_INSTEAD}")
    if config.model_type in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and its_class is None:
        raise UserInputError(
            f"{what} is a vision-language model ({shown}) that transformers does not load as a causal language model."
            f" {_INSTEAD}"
        )
    ours = architecture in known.values() or str(architecture).endswith(("ForCausalLM", "LMHeadModel"))
    if architecture is not None and not ours and not _is_vision_class(architecture):
        kind = next((kind for ending, kind in _OTHER_HEADS.items() if architecture.endswith(ending)), None)
        if its_class is not None and kind is None and "For" not in architecture and "LM" not in architecture:
            kind = "the body of a language model without its output head"
        raise UserInputError(
            f"{what} is {kind or 'another kind of model'} ({shown}) and not a causal language model. {_INSTEAD}"
        )
    # Encoders that could be trained as decoders, and were not.
    encoder = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if its_class is None or (encoder and getattr(config, "is_decoder", None) is not None):
        kind = "an encoder" if encoder else "no model that transformers knows as one"
        raise UserInputError(f"{what} is {kind} ({shown}) and not a causal language model. {_INSTEAD}")


def check_quantization(
    what: str, config: PretrainedConfig, *, trains: Trains | None, bits: Literal[4, 8] | None = None, here: bool = True
) -> None:
    """Refuse what cannot be done with weights that are quantised in their files.

    Args:
        what (`str`): begins the message.
        config (`PretrainedConfig`): of the model.
        trains (`"weights"` or `"adapter"`, *optional*): what is trained, if anything.
        bits (4 or 8, *optional*): `--load_in_4bit` or `--load_in_8bit`.
        here (`bool`): also check that this machine has the packages and devices to load them.

    Raises:
        [`UserInputError`]: names the way out.
    """
    kind = quantization_of(config)
    if kind is None:
        return
    settings = _settings(config)
    plain = "name the model that is not quantised"
    if bits is not None and not (settings["quant_method"] == "bitsandbytes" and settings.get(f"load_in_{bits}bit")):
        raise UserInputError(
            f"{what} is quantised already ({kind}): drop --load_in_{bits}bit, or {plain} with --load_in_{bits}bit."
        )
    if trains == "weights":
        raise UserInputError(
            f"{what} is quantised ({kind}), and quantised weights cannot be trained, only adapters on them: add"
            f" --use_peft, or {plain}."
        )
    if not here:
        return
    import torch
    from transformers.quantizers.auto import AutoHfQuantizer

    instead = f"{plain[0].upper()}{plain[1:]}, with --use_peft --load_in_4bit if memory is short."
    try:
        quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device_map = {"": accelerator} if accelerator is not None else None
        quantizer.validate_environment(device_map=device_map, dtype=None, weights_only=True)
    except (ImportError, RuntimeError, ValueError, AttributeError, TypeError) as error:
        raise UserInputError(
            f"{what} is quantised ({kind}), and cannot be loaded here: {first_line(error).rstrip('.')}. {instead}"
        ) from None
    if trains == "adapter" and not quantizer.is_trainable:
        raise UserInputError(f"{what} is quantised ({kind}), and no adapter can be trained on that. {instead}")


def quantization_of(config: PretrainedConfig) -> str | None:
    """How a model's files are quantised, such as `"GPTQ"` or `"bitsandbytes, 4 bits"`."""
    settings = _settings(config)
    if not settings:
        return None
    method = str(settings.get("quant_method", "an unknown method"))
    bits = settings.get("bits") or next((n for n in (4, 8) if settings.get(f"load_in_{n}bit")), None)
    return _NAMES.get(method, method) + (f", {bits} bits" if isinstance(bits, int) else "")


def quantized_bits(config: PretrainedConfig) -> Literal[4, 8] | None:
    """Bits of a weight in files that are quantised, if they are 4 or 8."""
    settings = _settings(config)
    if settings.get("quant_method") in ("fp8", "fbgemm_fp8"):
        return 8
    return next((n for n in (4, 8) if settings.get("bits") == n or settings.get(f"load_in_{n}bit")), None)


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    """The quantisation in a config as a dictionary with `quant_method`; empty if there is none."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        settings = getattr(config.get_text_config(), "quantization_config", None)
    if settings is None:
        return {}
    content = dict(settings) if isinstance(settings, dict) else dict(settings.to_dict())
    if "quant_method" not in content and any(content.get(f"load_in_{n}bit") for n in (4, 8)):
        content["quant_method"] = "bitsandbytes"  # as old checkpoints write it
    method = content.get("quant_method")
    content["quant_method"] = str(getattr(method, "value", method))
    return content


def check_folder(what: str, path: str) -> None:
    """Raise [`UserInputError`] for a folder of another kind, before transformers asks the hub for its files."""
    folder = Path(path)
    if folder.is_file() and folder.suffix == ".gguf":
        raise UserInputError(f"{what} is a GGUF file, which is for llama.cpp. {_ORIGINAL}")
    if not folder.is_dir() or (folder / "config.json").is_file():
        if folder.is_dir() and any(folder.glob("*.gguf")) and not _has_weights(folder):
            raise UserInputError(f"{what} holds its weights as GGUF, which is for llama.cpp. {_ORIGINAL}")
        return
    if (folder / "adapter_config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path")
        merge = f"`distjudge-trl merge {folder} --out FOLDER`"
        how = merge if (folder / "judge.json").is_file() else "PEFT's `merge_and_unload()`"
        raise UserInputError(
            f"{what} is an adapter{f' on {base!r}' if base else ''}, no model: name its base model, or merge the"
            f" two with {how} and name the result."
        )
    if any(folder.glob("*.gguf")):
        raise UserInputError(f"{what} holds its weights as GGUF, which is for llama.cpp. {_ORIGINAL}")


_ORIGINAL = "Name the model that it was made of, in the format of transformers (config.json and .safetensors files)."


def _has_weights(folder: Path) -> bool:
    return any(file for ending in ("safetensors", "bin") for file in folder.glob(f"*.{ending}"))


def _check_head(what: str, config: PretrainedConfig, path: str, revision: str | None) -> None:
    """Refuse a checkpoint without an output head, which transformers would fill with random numbers in silence."""
    if any(getattr(part, "tie_word_embeddings", False) for part in (config, config.get_text_config())):
        return
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return
    names = weight_names(path, revision)
    if names is None or any(part in _HEADS for name in names for part in name.split(".")):
        return
    raise UserInputError(f"{what} has no output head (`lm_head`) among its {len(names)} weights. {_INSTEAD}")


def weight_names(path: str, revision: str | None = None) -> list[str] | None:
    """Names of a checkpoint's weights, read from its index or the head of its file; `None` if they are not at hand
    (a single file on the hub that is not in the cache, or no safetensors).
    """
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME, cached_file

    quiet: dict[str, Any] = {
        "_raise_exceptions_for_gated_repo": False,
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
        "revision": revision,
    }
    for name in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        if (index := cached_file(path, name, **quiet)) is not None:
            return list(_read(Path(index)).get("weight_map", {})) or None
    file = cached_file(path, "model.safetensors", **quiet, local_files_only=True)
    if file is None:
        return None
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return [name for name in json.loads(stream.read(min(length, 2**28))) if name != "__metadata__"]
    except (OSError, ValueError, struct.error):
        return None  # damaged; loading says so


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_vision_class(architecture: str) -> bool:
    """Whether a class is a vision-language model whose type transformers also loads as a causal language model."""
    from transformers.models.auto import modeling_auto as auto

    known = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    names = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()
    return any(name == architecture and kind in known for kind, name in names)


def _has_vision(config: PretrainedConfig) -> bool:
    return getattr(config, "vision_config", None) is not None
