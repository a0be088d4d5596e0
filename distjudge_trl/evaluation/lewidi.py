"""The official figures of the shared tasks on learning with disagreement (LeWiDi), 2023 and 2025.

The functions on arrays take human distributions `p` and a judge's probabilities `q`, both `(N, K)` with rows that sum
to 1. Natural logarithms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.distances import as_array, item_wasserstein
from distjudge_trl.evaluation.scoring import human_side, row_log_q
from distjudge_trl.tasks import get_task
from distjudge_trl.tasks.lewidi import SHARED_TASKS


# The constants of the organisers' script of 2023.
_CLIP = 1e-12
_ADDED = 1e-9


def item_cross_entropy(p: Any, q: Any) -> np.ndarray:
    """2023: cross-entropy of q under p, `(N,)`, with q clipped to [1e-12, 1 - 1e-12] and 1e-9 added. An impossible
    label costs 20.7 nats.
    """
    return -(as_array(p) * np.log(np.clip(as_array(q), _CLIP, 1 - _CLIP) + _ADDED)).sum(-1)


def micro_f1(labels: Any, q: Any) -> float:
    """2023: F1 with micro average of the likeliest label and `labels` `(N,)`, the indices of the organisers' labels.
    With one label an item this is the accuracy. The first of equally likely labels counts.
    """
    return float((np.asarray(labels) == as_array(q).argmax(-1)).mean())


def item_manhattan(p: Any, q: Any) -> np.ndarray:
    """2025, MP and VEN: sum of absolute differences, `(N,)`, in [0, 2]."""
    return np.abs(as_array(p) - as_array(q)).sum(-1)


def official_figures(task: str, records: Dataset, log_q: Any) -> dict[str, Any]:
    """The official soft figures of one of the tasks for label log-probabilities `(N, K)`.

    Targets are the exact shares of the votes. The organisers' files have them rounded to two or three decimals, which
    moves the cross-entropy by 0.0001.

    Args:
        task (`str`): a key of `SHARED_TASKS`.
        records (`Dataset`): N judgment records of the task.
        log_q (array `(N, K)`): in the order of the records.

    Returns:
        `dict`: `num_items`, and `cross_entropy` and `micro_f1` (2023), `wasserstein` (CSC, Par) or `manhattan` (MP,
        VEN). VEN's three questions about a pair are put together again: `num_items` counts pairs, and `num_incomplete`
        those of which the records have only one or two questions, which are not scored.

    Raises:
        [`UserInputError`]: none of VEN's pairs is complete.
    """
    p, _ = human_side(records)
    metric, q = SHARED_TASKS[task].metric, np.exp(as_array(log_q))
    if metric == "cross-entropy":
        # The reference label of a record is the organisers' hard label.
        labels = [get_task(task).labels.index(completion[0]["content"]) for completion in records["completion"][:]]
        return {
            "cross_entropy": float(item_cross_entropy(p, q).mean()),
            "micro_f1": micro_f1(labels, q),
            "num_items": len(p),
        }
    if metric == "wasserstein":
        return {"wasserstein": float(item_wasserstein(p, log_q).mean()), "num_items": len(p)}
    distances = item_manhattan(p, q)
    if not SHARED_TASKS[task].parts:
        return {"manhattan": float(distances.mean()), "num_items": len(p)}
    return _mean_of_complete(records["id"][:], distances, SHARED_TASKS[task].parts)


def _mean_of_complete(ids: list[str], distances: np.ndarray, parts: tuple[str, ...]) -> dict[str, Any]:
    """The mean over the items of which all parts are there, of the mean over their parts."""
    by_item: dict[str, list[float]] = {}
    for name, distance in zip(ids, distances, strict=True):
        by_item.setdefault(name.rpartition("/")[0], []).append(float(distance))
    complete = [sum(values) / len(parts) for values in by_item.values() if len(values) == len(parts)]
    if not complete:
        raise UserInputError(
            f"No item has all of its {len(parts)} questions among those that are scored ({', '.join(parts)}), and the"
            " official figure needs them. Leave out --max-eval-samples."
        )
    return {
        "manhattan": sum(complete) / len(complete),
        "num_items": len(complete),
        "num_incomplete": len(by_item) - len(complete),
    }


def official_results(
    task: str, results: dict[str, Any], records: Dataset, log_q: Any, raw_log_q: Any = None
) -> dict[str, Any]:
    """The official figures of a judge, its calibrated variants and the constants: the key `lewidi` of a result file.

    Args:
        task (`str`): a key of `SHARED_TASKS`.
        results (`dict`): returned by `make_results` for the same records.
        records (`Dataset`), log_q (array `(N, K)`): see [`official_figures`].
        raw_log_q (array `(N, K)`, *optional*): see [`row_log_q`].
    """
    p, _ = human_side(records)
    shared = SHARED_TASKS[task]
    rows = [
        {"method": row["method"], **official_figures(task, records, row_log_q(row, log_q, raw_log_q))}
        for row in (results, *results["variants"])
    ]
    floor = float(item_cross_entropy(p, p).mean()) if shared.metric == "cross-entropy" else 0.0
    return {"dataset": shared.dataset, "edition": shared.edition, "floor": floor, "rows": rows}
