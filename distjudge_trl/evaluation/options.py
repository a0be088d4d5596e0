"""The options of an evaluation; `distjudge-trl evaluate --help` describes them for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distjudge_trl.batching import SharePrefixes, Truncation
from distjudge_trl.judges.api.options import ApiOptions


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation.

    Args:
        data_path (`str`, *optional*): the task's official file, archive or folder.
        split (`"official"`, `"group"`, `"paper"` or `"all"`, *optional*): test on the test side of this split, or on
            all items. By default it is the judge's own split on the task that it was trained on; of any other task
            the official test part, else all items; `"group"` for an untrained model.
        split_seed (`int`, *optional*): by default the judge's own, else 0.
        leave_out (`tuple[str, ...]`): folders of further judges. Their training and held-out items are left out, too,
            so that several judges can be tested on the same items.
        max_eval_samples (`int`, *optional*): test on at most this many records. A pair that is judged in both orders
            is two records.
        prompt_template (`str`, *optional*): file of a prompt template. By default the judge's own is used, if it can
            render the task's items.
        max_length (`int`, *optional*), truncation (*optional*): length of prompts and how they are shortened; by
            default as in training.
        extraction (`"full"` or `"top5"`): read all label tokens, or those among the five likeliest tokens.
        calibrated (`bool`): also score temperature and vector scaling of a trained judge. For an untrained model they
            are always scored, if the split leaves items to fit them on.
        calibration (`bool`, defaults to `True`): apply the calibration that `distjudge-trl calibrate` stored with the
            judge, if there is one.
        average_orders (`bool`): score pairs that are judged in both orders by the mean of the two, with the labels
            exchanged. The report says how many had the same answer in both before.
        device, device_map, dtype (*optional*): on which devices and in which type the weights are loaded; see
            [`LocalJudge`].
        autocast (`"none"`, `"bfloat16"` or `"float16"`, *optional*): by default as in training.
        share_prefixes (`bool` or `"auto"`, defaults to `"auto"`): compute common prefixes of a batch once.
        batch_size (`int`): prompts in one forward pass.
        seed (`int`): of bootstrap, floor, ceiling and perturbations.
        trust_remote_code (`bool`): allow the code of the model's repository.
        api ([`ApiOptions`], *optional*): how the server of a judge `openai:MODEL` is asked. Such a judge is read from
            the tokens that the server returns, whatever `extraction` says, and without training it is calibrated on
            request alone, because held-out items cost as much as test items.
    """

    data_path: str | None = None
    split: Literal["official", "group", "paper", "all"] | None = None
    split_seed: int | None = None
    leave_out: tuple[str, ...] = ()
    max_eval_samples: int | None = None
    prompt_template: str | None = None
    max_length: int | None = None
    truncation: Truncation | None = None
    extraction: Literal["full", "top5"] = "full"
    calibrated: bool = False
    calibration: bool = True
    average_orders: bool = False
    device: str | None = None
    device_map: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    autocast: Literal["none", "bfloat16", "float16"] | None = None
    share_prefixes: SharePrefixes = "auto"
    batch_size: int = 32
    seed: int = 0
    trust_remote_code: bool = False
    api: ApiOptions | None = None
