"""The data and the score of distjudge_nli.yaml, for lm-evaluation-harness. It needs nothing of distjudge-trl."""

import json
import math
from pathlib import Path

from datasets import Dataset, load_dataset
from transformers import AutoTokenizer


LABELS = ["entailment", "neutral", "contradiction"]


def load(data="stanfordnlp/snli", pretrained=None, peft=None, **_):
    """The rows to judge. lm-evaluation-harness passes what is in --metadata and --model_args.

    Args:
        data (`str`): a file of JSON lines with `premise`, `hypothesis` and `label` (a word, or its index), or the name
            of a data set on the hub, of which the test part is taken.
        pretrained, peft (`str`): the model's folder, and its adapter's.
    """
    if Path(data).is_file():
        rows = load_dataset("json", data_files={"test": data}, split="test")
    else:
        rows = load_dataset(data, split="test")
    choices, owners = read_spellings(str(peft or pretrained))
    kept = []
    for row in rows:
        label = LABELS.index(row["label"]) if row["label"] in LABELS else row["label"]
        if label in (0, 1, 2):  # -1: the annotators had no majority
            item = {"premise": row["premise"], "hypothesis": row["hypothesis"], "label": label}
            kept.append({**item, "choices": choices, "owners": owners})
    return {"test": Dataset.from_list(kept)}


def read_spellings(folder):
    """The texts of the tokens that mean the labels, and the index of each one's label. A folder without
    `label_tokens.json`, such as that of an untrained model, is asked for the labels themselves.
    """
    path = Path(folder) / "label_tokens.json"
    if not path.is_file():
        return LABELS, [0, 1, 2]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    choices, owners = [], []
    for index, ids in enumerate(json.loads(path.read_text(encoding="utf-8")).values()):
        for token in ids:
            text = tokenizer.decode([token])
            if tokenizer(text, add_special_tokens=False)["input_ids"] == [token]:
                choices.append(text)
                owners.append(index)
    return choices, owners


def score(doc, results):
    """Whether the label whose spellings are likeliest together is the right one."""
    shares = [0.0] * len(LABELS)
    best = max(log_likelihood for log_likelihood, _ in results)
    for owner, (log_likelihood, _) in zip(doc["owners"], results, strict=True):
        shares[owner] += math.exp(log_likelihood - best)
    return {"acc": float(shares.index(max(shares)) == doc["label"])}
