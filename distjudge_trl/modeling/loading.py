"""Tokenizers and configs by name. This one module decides whose code may run, and explains failures to load."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.modeling.bundled import resolve_model


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# Exceptions that transformers raises for a wrong or missing name, file or package.
LOADING_ERRORS = (OSError, ValueError, ImportError, pickle.UnpicklingError)

# Weights in torch's older format, a pickle, which transformers and PEFT read if there are no others.
_PICKLED_WEIGHTS = ("pytorch_model*.bin", "adapter_model*.bin")
_CALLED = re.compile(r"GLOBAL ([\w.]+)")


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Tokenizer of a model: a hub id, a folder, or `smollm2-135m`.

    Code of the model's repository runs only with `trust_remote_code`. The terminal is never asked, as transformers
    does if it is given neither true nor false.

    Raises:
        [`UserInputError`]: there is no model of that name, or it needs code that is not allowed.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            resolve_model(name), revision=revision, trust_remote_code=trust_remote_code
        )
    except LOADING_ERRORS as error:
        raise loading_error(f"The tokenizer of {name!r}", error) from error


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """Config of a model, as [`load_tokenizer`] loads its tokenizer.

    Raises:
        [`UserInputError`]: there is no model of that name, or it needs code that is not allowed.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            resolve_model(name), revision=revision, trust_remote_code=trust_remote_code
        )
    except LOADING_ERRORS as error:
        raise loading_error(f"The model {name!r}", error) from error
    for part in (config, config.get_text_config()):
        attention = str(getattr(part, "_attn_implementation", None))
        if "/" in attention and not trust_remote_code:
            # transformers would fetch a kernel of this name from the hub, which is compiled code.
            raise UserInputError(
                f"The model {name!r} cannot be loaded: its config.json asks for the attention kernel {attention!r}"
                " from the hub, which is code. Remove the key, or allow it with --trust-remote-code"
                " (`trust_remote_code=True` in Python) if you trust it."
            )
    return config


def loading_error(what: str, error: BaseException) -> UserInputError:
    """transformers explains itself in several lines and a traceback; the first line is the cause. Where code of a
    repository is needed, the message names the options that allow it.
    """
    return UserInputError(f"{what} cannot be loaded: {explain_loading(error)}")


def explain_loading(error: BaseException) -> str:
    """The cause in one line."""
    if (reason := refused_pickle(error)) is not None:
        return f"its weights are a pickle that {reason}. Take a copy with weights as safetensors."
    if "trust_remote_code" in str(error):
        return (
            "it needs code from its repository. Read that code, and allow it with --trust-remote-code"
            " (`trust_remote_code=True` in Python) if you trust it."
        )
    return first_line(error)


def refused_pickle(error: BaseException) -> str | None:
    """Why torch, which reads tensors and numbers alone, did not read a pickle: what it would have called, or that it
    is damaged. `None` for other errors. torch's own message advises to read such a file nevertheless.
    """
    if not isinstance(error, pickle.UnpicklingError) or "Weights only load failed" not in str(error):
        return None
    called = _CALLED.search(str(error))
    return f"would call {called.group(1)}" if called else "is damaged, or holds more than tensors"


def check_no_pickle(folder: str | Path) -> None:
    """Refuse a judge whose weights are pickles. Judges are saved as safetensors, so something else wrote these files.

    Raises:
        [`UserInputError`]: names the file.
    """
    folder = Path(folder)
    if any(folder.glob("*.safetensors")):
        return
    for pattern in _PICKLED_WEIGHTS:
        for path in sorted(folder.glob(pattern)):
            raise UserInputError(
                f"{path}: is a pickle, which may run code when it is loaded, so it is not. Judges are saved as"
                " safetensors: train or fetch this one again."
            )
