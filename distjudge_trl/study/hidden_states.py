"""What a language model holds of a prompt: features for judges that leave the model as it is (linear probes)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distjudge_trl.batching import (
    JudgmentCollator,
    context_length,
    encode_prompts,
    find_sharing,
    judgment_logits,
    pin_date,
    reading_order,
)
from distjudge_trl.errors import UserInputError
from distjudge_trl.files.atomic import replacing
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges.loading import find_judge, load_model
from distjudge_trl.judges.placement import find_device, put_on, read_in_batches
from distjudge_trl.modeling.layers import cut_layers
from distjudge_trl.study.linear_features import Prompt


# Prompts in a forward pass.
BATCH_SIZE = 32
# Of templates that print the date, so that the same prompts give the same states every day.
DAY = "2025-01-01"
# Part of the names of cached files: raise it when other states are read of the same prompts.
_VERSION = 1


class FrozenModel:
    """A language model that is not trained: its first layers, in float32.

    Args:
        name (`str`): a hub id, a folder, or `smollm2-135m`.
        layers (`int`, *optional*): read the output of this layer, from 1; by default two thirds of the way up. The
            layers above are not computed.

    Raises:
        [`UserInputError`]: the model cannot be read or has not so many layers, or it is a trained judge, which may
            have seen the test items.
        [`RunFailedError`]: the model does not fit into the device's memory.
    """

    def __init__(self, name: str, layers: int | None = None) -> None:
        self.name, self.source, trained = find_judge(name)
        if trained is not None:
            raise UserInputError(
                f"{name}: is a trained judge, which may have seen the test items. Give a plain model."
            )
        self.tokenizer: PreTrainedTokenizerBase
        self.model: PreTrainedModel
        self.tokenizer, self.model = load_model(
            self.source, JudgeFile(label_space={}, base_model=name), torch.float32, trust_remote_code=False
        )
        pin_date(self.tokenizer, DAY)
        cut_layers(self.model, layers)
        self.layers = len(self._blocks())
        self.device = find_device(None)
        put_on(self.model, self.device)
        self.model.eval()
        self._sharing = find_sharing(self.model, "auto")

    def _blocks(self) -> Any:
        return self.model.get_decoder().layers

    def read(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """The output of the layer at the judgment position, and its mean over the prompt's tokens, `(N, 2 * hidden
        size)` in float32. Prefixes that prompts have in common are computed once a batch.

        Raises:
            [`UserInputError`]: a prompt is longer than the model's context, or the model returns NaN.
            [`RunFailedError`]: not even a single prompt fits into the device's memory.
        """
        collate = JudgmentCollator(self.tokenizer.pad_token_id or 0, sharing=self._sharing)
        ids = encode_prompts(self.tokenizer, list(prompts))
        limit = context_length(self.model)
        if limit is not None and (long := sum(len(row) > limit for row in ids)):
            raise UserInputError(
                f"{long} of {len(ids)} prompts are longer than the {limit} tokens of the model's context. Leave such"
                " items out, or choose another model."
            )
        states = np.empty((len(ids), 2 * self.model.config.get_text_config().hidden_size), dtype=np.float32)
        outputs: list[Any] = []
        hook = self._blocks()[-1].register_forward_hook(lambda *call: outputs.append(call[-1]))

        def read(rows: list[int]) -> None:
            batch = {k: v.to(self.device) for k, v in collate([{"input_ids": ids[row]} for row in rows]).items()}
            outputs.clear()
            with torch.inference_mode():
                judgment_logits(self.model, batch, self._sharing)
                output = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
                states[rows] = last_and_mean(output.float(), batch).cpu().numpy()

        try:
            read_in_batches(read, reading_order(ids, BATCH_SIZE, self._sharing), BATCH_SIZE, progress=True)
        finally:
            hook.remove()
        if not np.isfinite(states).all():
            raise UserInputError("The model returns NaN: its weights are damaged.")
        return states

    def read_cached(self, prompts: Sequence[Prompt], folder: Path) -> np.ndarray:
        """The same, kept in a folder for the next time. The name of a file is a hash of the weights (their files'
        sizes and times, if the model is a folder), layers and prompts.
        """
        weights = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(Path(self.source).glob("*.safetensors"))
        ]
        content = json.dumps([_VERSION, self.source, weights, self.layers, list(prompts)])
        path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:20]}.npy"
        if path.is_file():
            return np.load(path)
        states = self.read(prompts)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, states)
        return states


def last_and_mean(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """States `(B, T, D)` of a collated batch at each row's judgment position, and their mean over its tokens,
    `(B, 2 * D)`. Of a pack (one row of tokens, a tree of prefixes) a row's tokens are the ancestors of its last.
    """
    if "subtree_ends" not in batch:
        own = batch["attention_mask"].to(states.dtype)
        return torch.cat([states[:, -1], torch.einsum("bt,btd->bd", own / own.sum(-1, keepdim=True), states)], dim=-1)
    places, ends = batch["judgment_positions"], batch["subtree_ends"][0]
    is_own = (torch.arange(len(ends), device=ends.device) <= places[:, None]) & (ends > places[:, None])
    own = is_own.to(states.dtype)
    return torch.cat([states[0, places], own / own.sum(-1, keepdim=True) @ states[0]], dim=-1)
