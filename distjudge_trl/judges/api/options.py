"""Options of a judge behind an OpenAI-compatible server; `distjudge-trl evaluate --help` describes them for the
command line.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from distjudge_trl.errors import UserInputError


PREFIX = "openai:"
OPENAI_URL = "https://api.openai.com/v1"
# What OpenAI's API documents as the most. llama.cpp's server has no limit; that of vLLM's can be raised.
MOST_TOP_LOGPROBS = 20
# Servers that want no key get this one, because the client does not work without any.
_NO_KEY = "none"
# Shorter keys are stand-ins such as "EMPTY": no secrets, and perhaps labels.
_SHORTEST_SECRET = 8

# Options on which the distributions depend.
READ_BY = (
    *("tokenizer", "readout", "top_logprobs", "missing_labels"),
    *("samples", "smoothing", "max_tokens"),
)

MissingLabels = Literal["floor", "bound", "error"]


@dataclass(frozen=True)
class ApiOptions:
    """How a model behind an OpenAI-compatible server is asked.

    Args:
        base_url (`str`, *optional*): the server's address up to `/v1`; by default `$OPENAI_BASE_URL`, else OpenAI's.
        judge_file (`str`, *optional*): folder of a trained judge whose merged weights the server holds. Labels,
            template and calibration are those of its `judge.json`; sampled answers are not calibrated.
        tokenizer (`str`, *optional*): folder or hub id of the model's tokenizer, by default that of the judge's
            folder. With it labels are bound to tokens as for a local model; without it by text (see `matching.py`).
        api_key_env (`str`, defaults to `"OPENAI_API_KEY"`): the environment variable that holds the key.
        readout (`"logprobs"` or `"samples"`, defaults to `"logprobs"`): read the label's log-probabilities off one
            token, or ask several times and count the answers.
        top_logprobs (`int`, defaults to 5, as in the paper): how many tokens the server returns. OpenAI's server
            returns at most 20, llama.cpp's as many as there are.
        missing_labels (`"floor"`, `"bound"` or `"error"`, defaults to `"floor"`): what happens to labels that are not
            among these tokens. `"floor"` gives them a probability of 1e-6 before normalisation, `"bound"` does so too
            and reports the lowest and the highest KL that the unseen probability allows, `"error"` stops.
        samples (`int`, defaults to 20): answers per item of the readout `"samples"`.
        smoothing (`float`, defaults to 0.5): λ in (votes + λ) / (n + K λ).
        max_tokens (`int`, defaults to 16): longest answer of the readout `"samples"`. Models that think before they
            answer need thousands.
        concurrency (`int`, defaults to 8): requests at once.
        max_requests (`int`, *optional*): the most requests that this judge may send.
        max_retries (`int`, defaults to 6): retries of a request after 429, 5xx, a timeout or a cut connection.
        timeout (`float`, defaults to 60): of one try of a request, in seconds.
        cache (`str`, *optional*): SQLite file that keeps all answers; by default `api.sqlite` in the cache folder.
        batch (`bool`, defaults to `False`): use the provider's batch endpoint.
        poll (`float`, defaults to 30): seconds between two looks at a batch.
        price_in (`float`, *optional*): price of a million tokens of prompts, for the estimate.
        price_out (`float`, *optional*): price of a million tokens of answers.

    Raises:
        [`UserInputError`]: a value is out of its range, or the address holds a key.
    """

    base_url: str | None = None
    judge_file: str | None = None
    tokenizer: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    readout: Literal["logprobs", "samples"] = "logprobs"
    top_logprobs: int = 5
    missing_labels: MissingLabels = "floor"
    samples: int = 20
    smoothing: float = 0.5
    max_tokens: int = 16
    concurrency: int = 8
    max_requests: int | None = None
    max_retries: int = 6
    timeout: float = 60.0
    cache: str | None = None
    batch: bool = False
    poll: float = 30.0
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        self._check_address()
        if self.is_openai and self.top_logprobs > MOST_TOP_LOGPROBS:
            raise UserInputError(
                f"--top-logprobs {self.top_logprobs}: OpenAI's server returns at most {MOST_TOP_LOGPROBS} tokens."
            )
        whole = (("top_logprobs", 1), ("samples", 1), ("max_tokens", 1), ("concurrency", 1), ("max_retries", 0))
        for name, least in whole:
            if getattr(self, name) < least:
                raise UserInputError(f"--{name.replace('_', '-')}: must be at least {least}.")
        if not all(0 < value < math.inf for value in (self.smoothing, self.timeout, self.poll)):
            raise UserInputError("--smoothing, --timeout and --poll: must be greater than 0, and finite.")
        if self.missing_labels != "floor" and self.readout == "samples":
            raise UserInputError(f"--missing-labels {self.missing_labels}: is for --readout logprobs.")

    def _check_address(self) -> None:
        address = self.address
        try:
            parts = urlsplit(address)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets or a port that are none
            is_address = False
        if not is_address or not address.isprintable() or " " in address:
            # A mistyped address may hold a key, too.
            raise UserInputError("--base-url: must be an address such as http://localhost:8000/v1.")
        has_more = parts.username or parts.password or "?" in address or "#" in address
        if has_more or Secret(self.api_key_env).hide(address) != address:
            raise UserInputError(
                "--base-url: must hold no name, password, key, `?` or `#` part, because it is written into results."
                f" Put the key into the environment variable {self.api_key_env}."
            )

    @property
    def address(self) -> str:
        """The server's address, without a slash at its end."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")

    @property
    def takes_calibration(self) -> bool:
        """Whether the calibration of a judge's folder applies: it was fitted on label tokens, not on counted
        answers.
        """
        return self.readout == "logprobs"

    @property
    def is_openai(self) -> bool:
        """Whether the server is OpenAI's."""
        return urlsplit(self.address).hostname == urlsplit(OPENAI_URL).hostname


class Secret:
    """A key that shows in no `repr`, log or traceback. It is read from the environment when it is used."""

    __slots__ = ("_variable",)

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __repr__(self) -> str:
        return f"Secret(${self._variable})"

    @property
    def is_set(self) -> bool:
        return bool(os.environ.get(self._variable, "").strip())

    @property
    def value(self) -> str:
        """The key; a placeholder if there is none."""
        return os.environ.get(self._variable, "").strip() or _NO_KEY

    @property
    def is_usable(self) -> bool:
        """Whether the key can be sent: other characters fail in the client, with the key in the message."""
        return self.value.isascii() and self.value.isprintable()

    def hide(self, text: str) -> str:
        """The text without the key, also where it is quoted as in JSON or in an address. A key of fewer than eight
        characters is a stand-in, and is not looked for: it may be a word of an answer.
        """
        key = self.value
        if len(key) < _SHORTEST_SECRET:
            return text
        quoted = json.dumps(key)[1:-1]
        for form in (key, quoted, quoted.replace("/", "\\/"), quote(key, safe="")):
            text = text.replace(form, "***")
        return text


def model_of(name: str) -> str | None:
    """The model that `openai:MODEL` names; `None` for a model on this machine.

    Raises:
        [`UserInputError`]: no model is named.
    """
    if not name.startswith(PREFIX):
        return None
    model = name[len(PREFIX) :].strip()
    if not model:
        raise UserInputError(f"{name}: names no model; write openai:gpt-4o-mini, for example.")
    return model


def refuse_local(options: dict[str, Any]) -> None:
    """Raise if options were given that only a model on this machine has."""
    flags = {"device", "device_map", "dtype", "autocast", "trust_remote_code", "attn_implementation"}
    given = [f"--{name.replace('_', '-')}" for name in flags if options.get(name)]
    if options.get("top_k"):
        given.append("--extraction top5")
    if given:
        names = ", ".join(sorted(given))
        raise UserInputError(f"{names}: is for models on this machine; one behind a server runs as the server says.")
