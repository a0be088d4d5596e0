"""Items in the form of LeWiDi's official files, with texts of our own."""

import gzip
import json
from fractions import Fraction


def tweet(text, votes, hard_label, split):
    """An item of 2023."""
    share = round(votes.count(1) / len(votes), 2)
    return {
        "text": text,
        "annotation task": "a task",
        "number of annotations": len(votes),
        "annotations": ",".join(map(str, votes)),
        "annotators": ",".join(f"Ann{i}" for i in range(len(votes))),
        "lang": "en",
        "hard_label": str(hard_label),
        "soft_label": {"0": round(1 - share, 2), "1": share},
        "split": split,
        "other_info": {},
    }


def turns(severities, hard_label, split, **text):
    """An item of ConvAbuse: the text is JSON inside a text, and hard labels are numbers."""
    content = {"prev_agent": "_", "prev_user": "hi", "agent": "Hello! How are you?", "user": "fine", **text}
    share = round(sum(severity < 0 for severity in severities) / len(severities), 3)
    return {
        **tweet("", severities, hard_label, split),
        "text": json.dumps(content),
        "hard_label": hard_label,
        "soft_label": {"0": 1 - share, "1": share},
    }


def rated(text, labels, split, soft_label, **more):
    """An item of 2025."""
    return {
        "annotation task": "a task",
        "text": text,
        "annotators": ",".join(f"Ann{i}" for i in range(len(labels))),
        "number of annotations": len(labels),
        "annotations": {f"Ann{i}": label for i, label in enumerate(labels)},
        "soft_label": soft_label,
        "split": split,
        "lang": "en",
        **more,
    }


def shares(labels, keys):
    return {key: float(Fraction(labels.count(key), len(labels))) for key in keys}


def sarcasm(context, response, labels, split="dev"):
    keys = [str(i) for i in range(1, 7)]
    return rated({"context": context, "response": response}, labels, split, shares(labels, keys))


def irony(reply, labels, split, keys=("0.0", "1.0"), lang="nl"):
    soft = {key: labels.count(str(i)) / len(labels) for i, key in enumerate(keys)}
    return {**rated({"post": f"What a summer, before: {reply}", "reply": reply}, labels, split, soft), "lang": lang}


def pair(second, labels, split="dev"):
    keys = [str(i) for i in range(-5, 6)]
    text = {"Question1": "How do bees fly?", "Question2": second}
    explanations = [f"reason {i} of the annotators" for i in range(len(labels))]
    return rated(text, labels, split, shares(labels, keys), other_info={"explanations": explanations})


def relation(statement, labels, split):
    soft = {}
    for name in ("contradiction", "entailment", "neutral"):
        share = sum(name in label.split(",") for label in labels) / len(labels)
        soft[name] = {"0": 1 - share, "1": share}
    item = rated({"context": "The shop opens at nine.", "statement": statement}, labels, split, soft)
    # A person is named once for each of their labels.
    people = [f"Ann{i}" for i, label in enumerate(labels) for _ in label.split(",")]
    item["annotators"], item["number of annotations"] = ",".join(people), len(people)
    return {**item, "other_info": {"explanations": ["it opens at nine, it says"] * len(people)}}


ITEMS = {
    "md_agreement": {"1": tweet("They lie again #vote", [1, 0, 0, 1, 1], 1, "train")},
    "convabuse": {"1": turns([1, 0, -2], 0, "train", user="you are a stupid toaster")},
    "hs_brexit": {"1": tweet("Brexit it is", [0, 0, 0, 1, 1, 1], 1, "train")},
    "armis": {"1": tweet("هذه تغريدة", [0, 0, 1], 0, "train")},
    "csc": {"17": sarcasm("Steve is late again.", "right on time, as ever", ["6", "6", "5", "1"])},
    "mp": {"3": irony("Heerlijk, die regen.", ["1", "0", "1"], "train")},
    "par": {"81": pair("How does a bee fly?", ["5", "4", "-1", "5"], "train")},
    "ven": {"9": relation("It opens in the morning.", ["entailment", "entailment,neutral"], "train")},
}
FILES = {
    "md_agreement": "MD-Agreement",
    "convabuse": "ConvAbuse",
    "hs_brexit": "HS-Brexit",
    "armis": "ArMIS",
    "csc": "CSC",
    "mp": "MP",
    "par": "Paraphrase",
    "ven": "VariErrNLI",
}


def write_items(path, items):
    """One JSON object, id to item, as the organisers publish it; compressed if the name says so."""
    content = json.dumps(items, ensure_ascii=False, indent=1).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def without_labels(item):
    """The item as a test input has it."""
    return {
        **{k: v for k, v in item.items() if k != "hard_label"},
        "annotations": {},
        "soft_label": "",
        "split": "test",
    }
