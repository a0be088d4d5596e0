"""What a language model holds of a prompt: features for judges that leave the model as it is (linear probes)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

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
from distjudge_trl.errors import UserInputError, first_line
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
_VERSION = 2
_PROMPTS_IN_A_FILE = 1000


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
        """The same, kept in a folder for the next time: a prompt is read once, whatever it is asked together with.
        A run that is killed goes on behind the last file.

        A prompt is known by its tokens. A file's name has a hash of the layers and of the model: of the sizes and
        times of its files, if it is a folder, and else of the commit on the hub.

        Raises:
            [`UserInputError`]: as [`read`]; a file in the folder is damaged.
        """
        files = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(Path(self.source).glob("*"))
            if path.suffix in (".safetensors", ".bin") or path.name == "config.json"
        ]
        commit = getattr(self.model.config, "_commit_hash", None)
        model = _hash([_VERSION, self.source, files, commit, self.layers])
        known: dict[str, np.ndarray] = {}
        for path in sorted(folder.glob(f"{model}-*.npz")):
            try:
                with np.load(path, allow_pickle=False) as kept:
                    known.update(zip(kept["prompts"].tolist(), kept["states"], strict=True))
            except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
                raise UserInputError(f"{path}: is damaged ({first_line(error)}). Remove it.") from None
        tokens = [_hash(ids) for ids in encode_prompts(self.tokenizer, list(prompts))]
        asked = dict(zip(tokens, prompts, strict=True))
        # Sorted by their text: prompts with a common prefix lie together.
        left = sorted((key for key in asked if key not in known), key=lambda key: json.dumps(asked[key]))
        for start in range(0, len(left), _PROMPTS_IN_A_FILE):
            keys = left[start : start + _PROMPTS_IN_A_FILE]
            states = self.read([asked[key] for key in keys])
            with replacing(folder / f"{model}-{_hash(keys)}.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, prompts=np.array(keys), states=states)
            known.update(zip(keys, states, strict=True))
        return np.stack([known[key] for key in tokens])


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


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
