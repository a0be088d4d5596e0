"""Rows in the form of the official files, with texts of our own: what a clone without the data sets tests on."""

import gzip
import json


SNLI = [
    {
        "annotator_labels": ["neutral", "entailment", "neutral", "neutral", "contradiction"],
        "captionID": "1.jpg#0",
        "gold_label": "neutral",
        "pairID": "1.jpg#0r1n",
        "sentence1": "A woman mends a bicycle in the yard.",
        "sentence2": "The bicycle has a flat tyre.",
        "sentence1_parse": "(ROOT)",
    },
    {
        "annotator_labels": ["entailment"] * 5,
        "captionID": "1.jpg#0",
        "gold_label": "entailment",
        "pairID": "1.jpg#0r1e",
        "sentence1": "A woman mends a bicycle in the yard.",
        "sentence2": "Someone repairs something.",
    },
    {
        "annotator_labels": ["contradiction"],
        "gold_label": "contradiction",
        "pairID": "2.jpg#0r1c",
        "sentence1": "Two dogs sleep.",
        "sentence2": "Two dogs run.",
    },
    {
        "annotator_labels": ["contradiction", "contradiction", "neutral", "neutral", ""],
        "gold_label": "-",
        "pairID": "3.jpg#0r1c",
        "sentence1": "A boy reads.",
        "sentence2": "A boy writes.",
    },
]

MNLI = [
    {
        "annotator_labels": ["entailment", "neutral", "entailment", "neutral", "entailment"],
        "genre": "telephone",
        "gold_label": "entailment",
        "pairID": f"{i}e",
        "promptID": f"{i}",
        "sentence1": f"well i have been to that lake {i} times",
        "sentence1_binary_parse": "( )",
        "sentence2": "The speaker knows the lake.",
    }
    for i in range(40)
]

CHAOSNLI = [
    {
        "uid": "1.jpg#0r1n",
        "label_counter": {"n": 61, "e": 30, "c": 9},
        "majority_label": "n",
        "label_dist": [0.3, 0.61, 0.09],
        "label_count": [30, 61, 9],
        "entropy": 1.26,
        "example": {
            "uid": "1.jpg#0r1n",
            "premise": "A woman mends a bicycle in the yard.",
            "hypothesis": "The bicycle has a flat tyre.",
            "source": "snli_agree_3",
        },
        "old_label": "n",
        "old_labels": ["neutral", "neutral", "entailment", "neutral", "contradiction"],
    },
    {
        "uid": "7e",
        "label_counter": {"e": 100},
        "example": {"uid": "7e", "premise": "It rained.", "hypothesis": "It was wet.", "source": "mnli_agree_5"},
        "old_labels": ["entailment"] * 5,
    },
]


def _scores(*values):
    return dict(zip(("coherence", "consistency", "fluency", "relevance"), values, strict=True))


SUMMEVAL = [
    {
        "id": f"cnn-test-{article}",
        "model_id": model,
        "decoded": f"summary of {article} by {model}",
        "text": f"The article {article}, in full.",
        "references": ["a reference"],
        "filepath": f"cnndm/cnn/stories/{article}.story",
        "expert_annotations": [_scores(1, 5, 3, 2), _scores(2, 5, 3, 2), _scores(2, 5, 4, 1)],
        "turker_annotations": [_scores(4, 4, 4, 4)] * 3 + [_scores(5, 4, 4, 3)] * 2,
    }
    for article in ("aa", "bb")
    for model in ("M8", "M9", "M11")
]


def _conversation(name, question):
    return [
        {"role": "user", "content": "Name a river." if question in (81, 82) else f"Name river {question}."},
        {"role": "assistant", "content": f"{name} says the Elbe."},
        {"role": "user", "content": "And a longer one?"},
        {"role": "assistant", "content": f"{name} says the Nile." if name != "mute" else ""},
    ]


def vote(a, b, winner, judge, turn=1, question=81):
    """One row of MT-Bench's human judgments."""
    return {
        "question_id": question,
        "model_a": a,
        "model_b": b,
        "winner": winner,
        "judge": judge,
        "conversation_a": _conversation(a, question),
        "conversation_b": _conversation(b, question),
        "turn": turn,
    }


MTBENCH = [
    vote("alpha", "beta", "model_a", "expert_1"),
    vote("beta", "alpha", "model_b", "expert_2"),
    vote("beta", "alpha", "model_a", "expert_3"),
    vote("alpha", "beta", "tie", "author_1"),
    vote("alpha", "beta", "tie (inconsistent)", "gpt4_pair"),
    vote("beta", "alpha", "model_a", "expert_1", turn=2),
    vote("alpha", "mute", "model_a", "expert_1", turn=2, question=82),
]

HELPSTEER2 = [
    {
        "prompt": "What is a haiku?",
        "response": "A poem of seventeen syllables.",
        "helpfulness": [3, 3, 4],
        "correctness": [4, 4],
        "coherence": [4, 4, 4],
        "complexity": [1, 2, 1],
        "verbosity": [0, 1, 1],
    },
    {
        "prompt": "Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nA joke, please.",
        "response": "Knock, knock.",
        "helpfulness": [2, 0, 1, 3],
        "correctness": [2, 2, 2],
        "coherence": [3, 3, 3],
        "complexity": [0, 0, 0],
        "verbosity": [1, 1, 0],
    },
]


def _preference(*strengths):
    return [{"strength": strength, "justification": "@Response 1 ..."} for strength in strengths]


HELPSTEER2_PREFERENCE = [
    {
        "split": "train",
        "prompt": "What is a haiku?",
        "response_1": "A poem.",
        "response_2": "A poem of seventeen syllables.",
        "preference_strength": 2,
        "three_most_similar_preferences": _preference(2, 2, 1),
        "all_preferences_unprocessed": _preference(2, 3, 1, -3, -100),
    },
    {
        "split": "validation",
        "prompt": "Count to three.",
        "response_1": "One, two, three.",
        "response_2": "1 2 3",
        "preference_strength": 0,
        "three_most_similar_preferences": _preference(0, -1, 1),
        "all_preferences_unprocessed": str(_preference(0, -1, 1)),
    },
]


def write(path, rows):
    """Rows as JSON lines, compressed if the name says so."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
