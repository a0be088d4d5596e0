"""Finding a judge by its name, and loading its model: full weights, or an adapter on its base model, quantised
or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME, JudgeFile
from distjudge_trl.judges.api.options import model_of
from distjudge_trl.judges.placement import (
    check_adaptable,
)
from distjudge_trl.labels import LabelSpace
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.modeling.kinds import check_quantization, find_kind
from distjudge_trl.modeling.loading import LOADING_ERRORS, check_no_pickle, load_tokenizer, loading_error


class FoundJudge(NamedTuple):
    """A judge that is not loaded yet: its `name` as given, its local `folder` (a name or path for an untrained model),
    and its `judge.json` (`None` for an untrained model).
    """

    name: str
    folder: str
    file: JudgeFile | None


def find_judge(name: str, judge_file: str | None = None) -> FoundJudge:
    """Find a judge by folder, hub id, model name, or `openai:MODEL` for a model behind a server. `judge_file` is the
    folder of the trained judge whose weights the server holds.

    Raises:
        [`UserInputError`]: `judge.json` is damaged, or missing in the folder that `judge_file` names.
    """
    if model_of(name) is not None:
        return FoundJudge(name, judge_file or name, JudgeFile.read(judge_file) if judge_file is not None else None)
    if judge_file is not None:
        raise UserInputError(f"--judge-file: is for models behind a server; {name} is one on this machine.")
    folder = _fetch(resolve_model(name))
    is_trained = (Path(folder) / JUDGE_FILE_NAME).is_file()
    return FoundJudge(name, folder, JudgeFile.read(folder) if is_trained else None)


def load_model(
    source: str,
    judge_file: JudgeFile,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    *,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    label_space: LabelSpace | None = None,
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load the tokenizer and model of a folder or hub id. An adapter is loaded onto its base model, quantised as in
    training. With `label_space`, labels that collide under the tokenizer are an error before weights are loaded.
    """
    weights, is_adapter = _weights_of(source, judge_file)
    kwargs: dict[str, Any] = {
        "dtype": dtype if dtype is not None else _saved_dtype(source, is_adapter, judge_file),
        "trust_remote_code": trust_remote_code,
    }
    if is_adapter and judge_file.base_revision is not None:
        kwargs["revision"] = judge_file.base_revision
    if is_adapter and bitsandbytes_settings(judge_file):
        kwargs["quantization_config"] = BitsAndBytesConfig(**bitsandbytes_settings(judge_file))
    if device_map is not None:
        kwargs["device_map"] = device_map
    if attn_implementation is not None:
        kwargs["attn_implementation"] = attn_implementation
    check_kind(source, judge_file, trust_remote_code)
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    if label_space is not None:
        label_space.copy().bind(tokenizer)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(weights, output_loading_info=True, **kwargs)
    except (*LOADING_ERRORS, RuntimeError, SafetensorError) as error:
        raise loading_error(f"The model {weights!r}", error) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserInputError(f"The model {weights!r} lacks {len(missing)} weights, {missing[0]!r} among them.")
    if is_adapter:
        from peft import PeftModel

        check_adaptable(model, weights)
        model = PeftModel.from_pretrained(model, source)
        if judge_file.quantization is not None and judge_file.autocast != "float16":
            # TRL trains the adapter of a quantised model in bfloat16 (except with fp16, which needs float32). PEFT
            # converts it to float32 on loading, which would round at other places.
            for name, parameter in model.named_parameters():
                if "lora_" in name and "lora_magnitude_vector" not in name:
                    parameter.data = parameter.data.to(torch.bfloat16)
    return tokenizer, model


def check_kind(source: str, judge_file: JudgeFile, trust_remote_code: bool) -> None:
    """Refuse weights that are not of a causal language model, or that cannot be loaded here, before data is read.

    Raises:
        [`UserInputError`]: says why, and the way out.
    """
    weights, is_adapter = _weights_of(source, judge_file)
    if is_adapter or (Path(source) / JUDGE_FILE_NAME).is_file():
        check_no_pickle(source)
    revision = judge_file.base_revision if is_adapter else None
    kind = find_kind(weights, revision=revision, trust_remote_code=trust_remote_code)
    check_quantization(f"The model {weights!r}", kind.config, trains=None)


def _weights_of(source: str, judge_file: JudgeFile) -> tuple[str, bool]:
    """The model whose weights are loaded, and whether `source` is an adapter on it."""
    is_adapter = (Path(source) / "adapter_config.json").is_file()
    return (_base_of(source, judge_file) if is_adapter else source), is_adapter


def _base_of(source: str, judge_file: JudgeFile) -> str:
    """The base model of an adapter: the name that the run was given, else the path that PEFT recorded."""
    from peft import PeftConfig

    if judge_file.base_model:
        return resolve_model(judge_file.base_model)
    return str(PeftConfig.from_pretrained(source).base_model_name_or_path)


def _saved_dtype(source: str, is_adapter: bool, judge_file: JudgeFile) -> torch.dtype | str:
    """The type of the weights: that of training for an adapter's base model, that of the files for a full checkpoint,
    float32 for an untrained model.
    """
    if is_adapter:
        return getattr(torch, judge_file.dtype) if judge_file.dtype is not None else torch.float32
    return "auto" if (Path(source) / JUDGE_FILE_NAME).is_file() else torch.float32


def _fetch(source: str) -> str:
    """Local folder of a judge on the hub; other names (folders, untrained models) are returned unchanged."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(source).exists():
        return source
    try:
        hf_hub_download(source, JUDGE_FILE_NAME)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        # It is not a judge, or the hub cannot be reached. Loading the model will say which.
        return source
    return snapshot_download(source)


def bitsandbytes_settings(judge_file: JudgeFile) -> dict[str, Any]:
    """The arguments of `BitsAndBytesConfig` with which a base model is quantised as it is loaded; empty if it is not
    (a base model may also be quantised in its files, by another method).
    """
    quantization = judge_file.quantization or {}
    return {name: value for name, value in quantization.items() if name.startswith(("bnb_", "load_in_", "llm_int8_"))}
