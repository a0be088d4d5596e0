"""Merging an adapter into its base model, for judges that plain transformers, vLLM or llama.cpp can load."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from distjudge_trl.errors import UserInputError, writing
from distjudge_trl.files.atomic import check_folder
from distjudge_trl.judge_folder.label_tokens import LABEL_TOKENS_NAME, write_label_tokens
from distjudge_trl.judge_folder.model_card import write_model_card
from distjudge_trl.judge_folder.replacing import replacing_judge
from distjudge_trl.judge_folder.training_items import SEEN_ITEMS_NAME
from distjudge_trl.judges.loading import find_judge, load_model


def merge(path: str, out: str | Path, *, dtype: str | None = None, trust_remote_code: bool = False) -> Path:
    """Write the judge of a LoRA or QLoRA run as a full model into the folder `out`; returns it.

    Quantised base weights are dequantised first, not replaced by the original ones: the adapter was trained against
    the rounded weights, and the merged judge gives the same numbers up to the rounding of `dtype`.

    Args:
        path (`str`): folder or hub id of a judge with an adapter.
        out (`str` or `Path`): a folder that is empty or does not exist; it is written atomically.
        dtype (`str`, *optional*): of the merged weights, `"float32"`, `"bfloat16"` or `"float16"`; by default that of
            the base model in training. Half precision rounds away small changes of an adapter: up to 1e-2 of a
            probability.
        trust_remote_code (`bool`): allow the code of the base model's repository.

    Raises:
        [`UserInputError`]: `path` is not a judge or has no adapter, `out` holds files, or the base model cannot be
            loaded.
        [`RunFailedError`]: `out` cannot be written.
    """
    found = find_judge(path)
    if found.file is None or not (Path(found.folder) / "adapter_config.json").is_file():
        raise UserInputError(
            f"{path}: holds no adapter to merge" + ("; it is a full model already." if found.file else ".")
        )
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserInputError(f"{out}: exists. Choose another --out.")
    check_folder(out.parent, "--out")
    merged_dtype = getattr(torch, dtype or found.file.dtype or "float32")
    tokenizer, model = load_model(found.folder, found.file, None, trust_remote_code)
    if found.file.quantization is not None:
        # PEFT would merge into 4-bit numbers, and rounding would lose most of the adapter.
        model = PeftModel.from_pretrained(_on_the_host(model.unload()), found.folder)
    merged = model.to(torch.float32).merge_and_unload(safe_merge=True).to(merged_dtype)
    with writing(out), replacing_judge(out) as temporary:
        merged.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        # The results are not copied, because they are those of the adapter: a merged judge has to be evaluated again.
        for name in (SEEN_ITEMS_NAME, LABEL_TOKENS_NAME):
            if (Path(found.folder) / name).is_file():
                shutil.copy(Path(found.folder) / name, temporary / name)
        if not (temporary / LABEL_TOKENS_NAME).is_file():  # of a judge that an earlier version saved
            write_label_tokens(temporary, found.file.make_label_space().bind(tokenizer))
        judge_file = replace(found.file, quantization=None, dtype=str(merged_dtype).removeprefix("torch."))
        judge_file.write(temporary)
        write_model_card(
            temporary,
            judge_file=judge_file,
            model_name=out.resolve().name,
            hub_model_id=None,
            dataset_name=None,
            metrics={},
            tags=["distjudge-trl"],
            merged_from=path if not Path(path).exists() else Path(path).resolve().name,
        )
    return out


def _on_the_host(base: Any) -> Any:
    """Dequantise weights to their computing type in the host's memory. bitsandbytes quantised them on the GPU, as in
    training, but dequantised there they would take six times as much memory as in training.
    """
    if not getattr(base, "is_loaded_in_8bit", False):  # transformers cannot move 8-bit models
        base = base.to("cpu")
    return base.dequantize().to("cpu")
