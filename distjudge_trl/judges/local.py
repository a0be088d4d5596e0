"""A judge on this machine: a trained checkpoint (weights or adapter), or an untrained model."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from scipy.special import log_softmax

from distjudge_trl.batching import (
    JudgmentCollator,
    PromptFitter,
    SharePrefixes,
    Truncation,
    attention_name,
    context_length,
    encode_prompts,
    find_sharing,
    judgment_logits,
    pin_date,
    read_head_in_float32,
    reading_order,
    render_prompt,
)
from distjudge_trl.data.question_template import read_template
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError, explaining_memory
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges.base import Judgments, PromptJudge
from distjudge_trl.judges.loading import find_judge, load_model
from distjudge_trl.judges.placement import (
    LESS_MEMORY,
    check_device_map,
    computing_device,
    default_dtype,
    find_device,
    input_device,
    put_on,
    read_in_batches,
    usable_attention,
    usable_types,
)
from distjudge_trl.labels import TOP_K_FLOOR, LabelSpace
from distjudge_trl.modeling.workarounds import keep_training_layout, keeping_hook


_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class LocalJudge(PromptJudge):
    """A Hugging Face causal language model whose logits are read at the judgment position. It takes one forward pass
    per prompt and decodes nothing.

    Args:
        path (`str`): folder written by [`DistributionSFTTrainer`] (full model or adapter), or a model name, hub id or
            path for an untrained judge, which needs `label_space`.
        label_space ([`LabelSpace`], *optional*): replaces the checkpoint's.
        template ([`PromptTemplate`], *optional*): replaces the checkpoint's.
        device (`str`, *optional*): such as `"cuda:1"` or `"cpu"`; defaults to the accelerator that torch sees (CUDA,
            XPU, NPU, MPS), else the CPU.
        device_map (`str` or `dict`, *optional*): transformers' `device_map`, instead of a device: `"auto"` spreads a
            model that is too large for one GPU over all GPUs, and over the host's memory if they are not enough.
        dtype (`torch.dtype` or `str`, *optional*): type of the weights. By default it is the saved one, or for an
            adapter's base model that of training, unless the device would emulate it (see `autocast`). Untrained
            models are loaded in bfloat16 on a GPU (float16 if that is emulated, float32 if both are), and in float32
            on the CPU and on MPS. The head always computes in float32.
        autocast (`"bfloat16"`, `"float16"` or `"none"`, *optional*): by default the type of training, so that the
            judge gives the numbers with which it was evaluated. A type that the device would emulate (bfloat16 on
            older CPUs and GPUs, float16 on CPUs) is replaced by one that it supports, with a warning. The same holds
            for the type of the weights and the compute type of 4-bit weights. A type that is given explicitly, here or
            as `dtype`, is always used.
        top_k (`int`, *optional*): the paper's extraction from the k likeliest tokens; by default all label tokens
            count.
        max_length (`int`, *optional*): longest prompt in tokens. By default bare items are cut to the length of
            training, and finished prompts may fill the model's context; longer prompts are an error.
        truncation (`"middle"`, `"end"` or `"error"`, *optional*): which part is removed from the longest fields of a
            bare item that is too long; a warning says how many items were shortened. By default as in training, else
            `"middle"`.
        attn_implementation (`str`, *optional*): by default that of training, if this machine has it.
        share_prefixes (`bool` or `"auto"`, defaults to `"auto"`): compute common prefixes of a batch once; `"auto"`
            does so if the model can and a batch gains by it. Numbers differ by rounding.
        calibrated (`bool`, defaults to `True`): apply the calibration of `judge.json`, if there is one. It was fitted
            with the judge's own labels, read from all label tokens: with other labels or `top_k` it is not applied.
        trust_remote_code (`bool`, defaults to `False`): allow the code of the model's repository. A judge that needs
            it says so in `judge.json`, but only the caller can allow it.

    `fitter` shortens bare items (`None` if nothing limits their length).

    Raises:
        [`UserInputError`]: no such folder or model, no `judge.json` and no `label_space`, a damaged `judge.json`, no
            such device.
        [`RunFailedError`]: the model does not fit into the device's memory.
    """

    def __init__(
        self,
        path: str,
        *,
        label_space: LabelSpace | None = None,
        template: PromptTemplate | None = None,
        device: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        dtype: torch.dtype | str | None = None,
        autocast: Literal["bfloat16", "float16", "none"] | None = None,
        top_k: int | None = None,
        max_length: int | None = None,
        truncation: Truncation | None = None,
        attn_implementation: str | None = None,
        share_prefixes: SharePrefixes = "auto",
        calibrated: bool = True,
        trust_remote_code: bool = False,
    ) -> None:
        check_device_map(device, device_map)
        wanted = find_device(device)
        _, source, found = find_judge(str(path))
        if found is None and label_space is None:
            JudgeFile.read(source)  # raises an error that says what is missing
        self.judge_file = found or JudgeFile(label_space={}, base_model=str(path))
        if self.judge_file.trust_remote_code and not trust_remote_code:
            raise UserInputError(
                f"{source}: its model needs code from the repository of {self.judge_file.base_model!r}. Read that"
                " code, and allow it with --trust-remote-code (`trust_remote_code=True` in Python) if you trust it."
            )
        if template is None and self.judge_file.template is not None:
            template = read_template(self.judge_file.template)
        self.template = template
        computes_on = computing_device(wanted, device_map)
        if dtype is None and found is None:
            dtype = default_dtype(computes_on)
        types = usable_types(self.judge_file, computes_on, autocast=autocast, dtype=dtype)
        self.autocast = types.autocast
        is_quantized = self.judge_file.quantization is not None
        if dtype is None and not is_quantized:
            dtype = types.dtype(self.judge_file.dtype)
        if device is not None and is_quantized:
            device_map = {"": wanted}  # bitsandbytes moves quantised weights to a device itself
        self.label_space = label_space.copy() if label_space is not None else self.judge_file.make_label_space()
        if calibrated and top_k is None and list(self.label_space.labels) == self.judge_file.label_space.get("labels"):
            self.calibration = self.judge_file.make_calibration()
        self.tokenizer, self.model = load_model(
            source,
            replace(self.judge_file, quantization=types.quantization(self.judge_file.quantization)),
            getattr(torch, dtype) if isinstance(dtype, str) else dtype,
            trust_remote_code,
            device_map=device_map,
            attn_implementation=attn_implementation
            or usable_attention(self.judge_file.attn_implementation, trust_remote_code),
            label_space=self.label_space,
        )
        self.template_date = self._pin_date(found)
        if is_quantized:
            types.cast(self.model)
        quantized = getattr(self.model, "is_loaded_in_4bit", False) or getattr(self.model, "is_loaded_in_8bit", False)
        if not quantized and device_map is None:
            put_on(self.model, wanted)
        keep_training_layout(self.model)
        with keeping_hook(self.model.get_output_embeddings()):
            read_head_in_float32(self.model)
        with explaining_memory(lambda: f"{LESS_MEMORY}."):
            self._sharing = find_sharing(self.model, share_prefixes, _TYPES.get(self.autocast or "none"))
        self.model.eval()
        self.top_k = top_k
        self.max_length = max_length if max_length is not None else context_length(self.model)
        limits = [length for length in (max_length or self.judge_file.max_length, self.max_length) if length]
        if limits:
            cut = truncation or cast(Truncation, self.judge_file.truncation or "middle")
            self.fitter = PromptFitter(self.tokenizer, min(limits), cut)
        self._bound = False
        # Prompts in one forward pass, once more did not fit into memory.
        self._fitting: int | None = None
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        self._collate = JudgmentCollator(pad or 0, sharing=self._sharing)

    def reading(self) -> dict[str, str]:
        """How the model computes, for result files: device, type of the weights, autocast, attention, and the compute
        type of 4-bit weights and the date in prompts, if there are any.
        """
        reading = {
            "device": str(input_device(self.model)),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "autocast": self.autocast or "none",
            "attn_implementation": str(attention_name(self.model.config)),
        }
        if getattr(self.model, "is_loaded_in_4bit", False):
            computes = self.model.config.quantization_config.bnb_4bit_compute_dtype
            reading["bnb_4bit_compute_dtype"] = str(computes).removeprefix("torch.")
        if self.template_date is not None:
            reading["template_date"] = self.template_date
        return reading

    def _pin_date(self, found: JudgeFile | None) -> str | None:
        """The date that the chat template prints, if it prints one: that of training, else today's."""
        day = pin_date(self.tokenizer, found.template_date if found is not None else None)
        if found is not None and day is not None and found.template_date is None:
            warnings.warn(
                f"The judge's chat template prints the date, and judge.json does not say that of training: {day} is"
                " used.",
                stacklevel=3,
            )
        return day

    def check_length(self, prompt: list[dict[str, str]], row: int) -> None:
        """Raise [`JudgmentDataError`] if a finished prompt is longer than the model's context."""
        # Tokenizers do not make more tokens than bytes, so most prompts need no count.
        longest = self.max_length
        if longest is not None and len(render_prompt(self.tokenizer, prompt).encode()) + 2 > longest:
            encode_prompts(self.tokenizer, [prompt], max_length=longest, ids=[str(row)])

    def _read_prompts(self, prompts: list[list[dict[str, str]]], batch_size: int, progress: bool) -> Judgments:
        if not prompts:
            return Judgments(
                np.zeros((0, len(self.label_space))), np.zeros(0), np.zeros((0, len(self.label_space)), bool)
            )
        if not self._bound:
            # Bind the labels as they follow this template's prompts, as the trainer does with its first prompt.
            self.label_space.bind(self.tokenizer, render_prompt(self.tokenizer, prompts[0]))
            self._bound = True
        input_ids = encode_prompts(self.tokenizer, prompts, max_length=self.max_length)
        log_probs = np.empty((len(prompts), len(self.label_space)))
        mass = np.empty(len(prompts))
        floored = np.zeros(log_probs.shape, dtype=bool)
        order = reading_order(input_ids, batch_size, self._sharing)
        device = input_device(self.model)

        def read(rows: list[int]) -> None:
            batch = {k: v.to(device) for k, v in self._collate([{"input_ids": input_ids[i]} for i in rows]).items()}
            with torch.inference_mode(), self._autocast_context(device):
                logits = judgment_logits(self.model, batch, self._sharing).float()
                # The floor of top-k extraction is visible under the full vocabulary; normalising over the labels
                # raises it.
                space: Literal["labels", "vocab"] = "labels" if self.top_k is None else "vocab"
                scores = _in_float64(self.label_space.log_probs(logits, top_k=self.top_k, normalization=space))
                log_probs[rows] = log_softmax(scores, -1)
                mass[rows] = _in_float64(self.label_space.mass(logits))
                if self.top_k is not None:
                    floored[rows] = scores <= math.log(TOP_K_FLOOR) + 1e-6

        fitting = read_in_batches(read, order, min(batch_size, self._fitting or batch_size), progress=progress)
        if fitting < batch_size:
            self._fitting = fitting
        if not np.isfinite(log_probs).all():
            raise UserInputError(
                "The model returns NaN: its weights are damaged, or its precision is too low (try --dtype float32"
                " --autocast none)."
            )
        return Judgments(log_probs, mass, floored)

    def _autocast_context(self, device: torch.device) -> torch.autocast:
        dtype = _TYPES.get(self.autocast or "none")
        return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _in_float64(values: torch.Tensor) -> np.ndarray:
    """Computed on the host, because not every device has float64."""
    return values.float().cpu().numpy().astype(np.float64)
