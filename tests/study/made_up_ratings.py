"""Short texts and ten made-up votes for each."""

import numpy as np
from datasets import Dataset


# What people think of a text with one of these words.
TRUTHS = {"lovely": [0.7, 0.2, 0.1], "dreadful": [0.1, 0.2, 0.7], "okay": [0.2, 0.6, 0.2]}
VOTES = 10


def make_records(count, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        word = list(TRUTHS)[i % 3]
        counts = rng.multinomial(VOTES, TRUTHS[word])
        question = f"Answer with one letter. How kind is this? a {word} day, sir {i % 7}"
        rows.append(
            {
                "id": str(i),
                "group": str(i // 2),
                "prompt": [{"role": "user", "content": question}],
                "label_distribution": (counts / VOTES).tolist(),
                "num_annotators": VOTES,
            }
        )
    return Dataset.from_list(rows)
