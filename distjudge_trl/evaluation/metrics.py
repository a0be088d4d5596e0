"""The metrics of a judge on held-out items, as in a result file. They take numpy arrays or torch tensors and return
floats, with natural logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from distjudge_trl.evaluation import distances
from distjudge_trl.evaluation.association import (
    agreement_interval,
    cohen_kappa,
    distance_correlation,
    entropy_correlation,
    entropy_correlation_interval,
    macro_f1,
    position_metrics,
)
from distjudge_trl.evaluation.baselines import human_ceiling
from distjudge_trl.evaluation.calibration import ece_interval, reliability
from distjudge_trl.evaluation.distances import as_array
from distjudge_trl.evaluation.noise_floor import NoiseFloor, noise_floor
from distjudge_trl.evaluation.statistics import Estimate, bootstrap_mean


@dataclass(frozen=True)
class Metric:
    """A figure of result files: how it is computed, how reports show it, and whether sweeps may choose by it.

    Args:
        title (`str`): heads its column in a report.
        per_item (`Callable`, *optional*): from p and log_q `(N, K)` to a value per item `(N,)`, as in `distances.py`.
            The figure is the mean, with an interval. Without it [`evaluate_judgments`] computes the figure itself.
        best (`"low"` or `"high"`, *optional*): which of two values a sweep prefers. Without it no sweep chooses by it.
        ordinal (`bool`): whether it needs labels whose order means something.
        spec (`str`), factor (`float`): how a report writes it: the format, and what it is multiplied by first.
    """

    title: str
    per_item: Callable[[Any, Any], np.ndarray] | None = None
    best: Literal["low", "high"] | None = None
    ordinal: bool = False
    spec: str = ".3f"
    factor: float = 1


# Result files, reports and sweeps read this table. Columns of a report stand in its order; a dot means "of which".
METRICS: dict[str, Metric] = {
    "kl": Metric("KL", distances.item_kl, best="low"),
    "excess_kl": Metric("excess KL", best="low"),
    "jensen_shannon": Metric("JS", distances.item_jensen_shannon, best="low"),
    "total_variation": Metric("TV", distances.item_total_variation, best="low"),
    "hellinger": Metric("Hellinger", distances.item_hellinger, best="low"),
    "brier": Metric("Brier", distances.item_brier, best="low"),
    "wasserstein": Metric("Wasserstein", distances.item_wasserstein, best="low", ordinal=True),
    "mean_error": Metric("error of mean", distances.item_mean_error, ordinal=True),
    "entropy_correlation": Metric("entropy corr.", best="high"),
    "distance_correlation": Metric("distance corr.", best="high"),
    "accuracy": Metric("acc. %", distances.item_accuracy, best="high", spec=".1f", factor=100),
    "macro_f1": Metric("macro F1", best="high"),
    "kappa": Metric("kappa", best="high"),
    "ece": Metric("ECE", best="low"),
    "positions.swap_consistency": Metric("swap consistency"),
    "positions.position_bias": Metric("position bias", spec="+.3f"),
    "label_mass": Metric("label mass"),
    "coverage": Metric("label sets: coverage %", spec=".1f", factor=100),
    "set_size": Metric("labels in a set", spec=".2f"),
    "floor_items": Metric("KL floor, % of items", spec=".1f", factor=100),
}


def evaluate_judgments(
    p: Any,
    log_q: Any,
    num_annotators: Any,
    groups: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    ordinal: bool = False,
    mass: float | None = None,
    floored: Any = None,
    floor: NoiseFloor | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the metrics of a result file.

    Args:
        p (array `(N, K)`): human distributions.
        log_q (array `(N, K)`): the judge's label log-probabilities, normalised over the labels.
        num_annotators (array `(N,)`): votes behind each row of p.
        groups (`Sequence[str]` of length N): clusters of the bootstrap.
        ids (`Sequence[str]` of length N, *optional*): of the records; needed for the metrics of swapped pairs.
        ordinal (`bool`, defaults to `False`): whether the labels' order means something.
        mass (`float`, *optional*): mean label mass.
        floored (bool array `(N, K)`, *optional*): labels that the extraction did not find and gave its floor, which
            normalisation then raised.
        floor ([`NoiseFloor`], *optional*): of these items' whole votes, if it has been estimated before: it takes most
            of the time and does not depend on the judge.
        seed (`int`, defaults to 0): of the bootstrap, the floor's simulation and the ceiling's halves.

    Returns:
        `dict`, ready for JSON (`None` where a figure is not defined):

        - with `value`, `low` and `high` (95 %): every metric of `METRICS` that has a function `per_item`, `kl` and
          `accuracy` among them (see `distances.py`; some for ordinal labels alone); `entropy_correlation`,
          `macro_f1`, `kappa` (see `association.py`), `ece` (see `calibration.py`);
        - `distance_correlation` (see `association.py`), without an interval;
        - `noise_floor` (see `noise_floor.py`; `None` if each row of p is of one vote) and `excess_kl` = kl - floor,
          nats, with the interval of the KL (the error of the floor itself is not included); `human_ceiling` (see
          `baselines.py`). These three leave out items that are not shares of whole votes: `divided_items` is their
          number, and is there only if it is not 0;
        - `majority_ties`: share of items whose majority label is tied; the first of tied labels counts in `accuracy`,
          `macro_f1`, `kappa` and `ece`. `floor_items`: share of items whose KL rests on a probability of at most 1e-6
          or on the extraction's floor;
        - `positions` (see `association.py`) for pairs that are judged in both orders; `label_mass` if given;
          `num_items`, `num_groups`.
    """
    p, log_q, num_annotators = as_array(p), as_array(log_q), as_array(num_annotators)
    whole, counts = whole_votes(p, num_annotators)
    if floor is None and len(counts):
        floor = noise_floor(counts, seed=seed)
    ceiling = human_ceiling(counts, log_q[whole], seed=seed) if len(counts) else None
    positions = position_metrics(log_q, ids) if ids is not None else None
    estimates = {
        name: bootstrap_mean(metric.per_item(p, log_q), groups, seed=seed)
        for name, metric in sorted(METRICS.items(), key=lambda entry: entry[1].ordinal)
        if metric.per_item is not None and (ordinal or not metric.ordinal)
    }
    kl, shifted = estimates["kl"], None
    if floor is not None:
        if not whole.all():
            own = [group for group, is_whole in zip(groups, whole, strict=True) if is_whole]
            kl = bootstrap_mean(distances.item_kl(p[whole], log_q[whole]), own, seed=seed)
        shifted = Estimate(*(figure - floor.value for figure in (kl.value, kl.low, kl.high)))
    f1_interval, kappa_interval = agreement_interval(p, log_q, groups, seed=seed)

    def with_interval(value: float | None, ends: tuple[float, float]) -> dict[str, float | None] | None:
        return to_dict(Estimate(value, *ends)) if value is not None else None

    metrics: dict[str, Any] = {name: to_dict(estimate) for name, estimate in estimates.items()}
    metrics |= {
        "noise_floor": floor.value if floor is not None else None,
        "excess_kl": to_dict(shifted) if shifted is not None else None,
        "human_ceiling": asdict(ceiling) if ceiling is not None else None,
        "entropy_correlation": with_interval(
            entropy_correlation(p, log_q), entropy_correlation_interval(p, log_q, groups, seed=seed)
        ),
        "distance_correlation": distance_correlation(p, log_q),
        "macro_f1": with_interval(macro_f1(p, log_q), f1_interval),
        "kappa": with_interval(cohen_kappa(p, log_q), kappa_interval),
        "ece": with_interval(reliability(p, log_q).ece, ece_interval(p, log_q, groups, seed=seed)),
        "majority_ties": float((np.isclose(p, p.max(-1, keepdims=True)).sum(-1) > 1).mean()),
        "floor_items": float(distances.needs_floor(p, log_q, floored).mean()),
        "positions": asdict(positions) if positions is not None else None,
        "num_items": len(p),
        "num_groups": len(set(groups)),
    }
    if not whole.all():
        metrics["divided_items"] = int((~whole).sum())
    if mass is not None:
        metrics["label_mass"] = mass
    return metrics


class WholeVotes(NamedTuple):
    """The items whose votes are whole numbers: which of the N items (`chosen`, bool `(N,)`), and their votes per label
    (`counts` `(M, K)`).
    """

    chosen: np.ndarray
    counts: np.ndarray


def whole_votes(p: Any, num_annotators: Any) -> WholeVotes:
    """Find the items whose shares `p` `(N, K)` of `num_annotators` `(N,)` annotators are whole votes. Annotators who
    divide a vote among several labels do not draw a label from a distribution, as the noise floor, the human ceiling
    and agreement suppose.
    """
    votes = as_array(p) * as_array(num_annotators)[:, None]
    counts = np.rint(votes)
    chosen = np.isclose(counts, votes, atol=1e-3).all(-1)
    return WholeVotes(chosen, counts[chosen])


def to_dict(estimate: Estimate) -> dict[str, float | None]:
    """An estimate for JSON. JSON has no infinity: an unbounded end of an interval is `null`."""
    return {name: value if np.isfinite(value) else None for name, value in vars(estimate).items()}
