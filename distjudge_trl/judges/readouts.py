"""Readouts: what is written beside an item that was judged, from the distribution to a single number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distjudge_trl.errors import UserInputError, listing, nearest
from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.spelling import spelling


DISTRIBUTION = "label_distribution"
# The worst share of the distribution over which `risk_averse` is the mean.
RISK = 0.25


class _Read(NamedTuple):
    """What a readout is made from: `probabilities` `(N, K)`, label `mass` `(N,)`, the `labels`, their `values` `(K,)`,
    and the share `risk`.
    """

    probabilities: np.ndarray
    mass: np.ndarray
    labels: tuple[str, ...]
    values: np.ndarray
    risk: float


class Readout(NamedTuple):
    """A column: what it is, in a few words, how it is computed, and whether it needs labels with an order."""

    about: str
    compute: Callable[[_Read], Iterable[Any]]
    ordinal: bool = False


def _distributions(read: _Read) -> list[dict[str, float]]:
    return [dict(zip(read.labels, row, strict=True)) for row in read.probabilities.tolist()]


def _modes(read: _Read) -> list[str]:
    return [read.labels[index] for index in read.probabilities.argmax(-1)]


def _means(read: _Read) -> list[float]:
    return (read.probabilities @ read.values).tolist()


def _medians(read: _Read) -> list[float]:
    order = np.argsort(read.values)
    # Rounding must not carry the median past a label at which exactly half is reached.
    reached = np.cumsum(read.probabilities[:, order], -1) >= 0.5 - 1e-9
    return read.values[order][reached.argmax(-1)].tolist()


def _entropies(read: _Read) -> list[float]:
    q = read.probabilities
    return (-(q * np.log(np.where(q > 0, q, 1))).sum(-1) + 0.0).tolist()


def _masses(read: _Read) -> list[float | None]:
    return [None if np.isnan(mass) else float(mass) for mass in read.mass]


def _risk_averse(read: _Read) -> list[float]:
    order = np.argsort(read.values)
    q = read.probabilities[:, order]
    before = np.cumsum(q, -1) - q
    return (np.clip(read.risk - before, 0, q) @ read.values[order] / read.risk).tolist()


READOUTS: dict[str, Readout] = {
    DISTRIBUTION: Readout("the probability of each label", _distributions),
    "label": Readout("the likeliest label (of equally likely ones the first)", _modes),
    "mean": Readout("the mean of the labels' values", _means, ordinal=True),
    "median": Readout("the value at which half of the probability is reached", _medians, ordinal=True),
    "entropy": Readout("how undecided the distribution is, in nats; 0 if one label has all of it", _entropies),
    "label_mass": Readout("the probability that the model gives to all labels together", _masses),
    "risk_averse": Readout("the mean of the worst part of the distribution (--risk)", _risk_averse, ordinal=True),
}


def label_values(label_space: LabelSpace) -> np.ndarray:
    """The values `(K,)` of ordinal labels: the labels themselves if all are numbers, else their positions from 0."""
    positions = np.arange(len(label_space), dtype=float)
    try:
        values = np.array([float(spelling(label)) for label in label_space.labels])
    except ValueError:
        return positions
    return values if np.isfinite(values).all() else positions


def choose_columns(columns: Sequence[str] | None, label_space: LabelSpace) -> tuple[str, ...]:
    """The names of readouts, in the order in which they are written; by default all that the labels have.

    Raises:
        [`UserInputError`]: a name is unknown, or needs an order of the labels that they do not have.
    """
    if columns is None:
        return tuple(name for name, readout in READOUTS.items() if label_space.ordinal or not readout.ordinal)
    for name in columns:
        if name not in READOUTS:
            close = nearest(name, READOUTS)
            hint = f" Did you mean {close}?" if close else ""
            raise UserInputError(f"--columns {name}: is not a column.{hint} Columns: {listing(READOUTS)}.")
        if READOUTS[name].ordinal and not label_space.ordinal:
            raise UserInputError(
                f"--columns {name}: needs labels with an order, and those of this judge have none"
                f" ({listing(label_space.labels)}). A task file gives them one with `ordinal: true`."
            )
    return tuple(name for name in READOUTS if name in columns)


def readouts(
    log_probs: np.ndarray,
    mass: np.ndarray,
    label_space: LabelSpace,
    columns: Sequence[str] | None = None,
    *,
    risk: float = RISK,
) -> list[dict[str, Any]]:
    """The columns of judged items.

    Args:
        log_probs (`np.ndarray` of shape `(N, K)`): label log-probabilities, normalised over the labels.
        mass (`np.ndarray` of shape `(N,)`): label mass; NaN where it is not known, which becomes `None`.
        label_space ([`LabelSpace`]): of the judge.
        columns (`Sequence[str]`, *optional*): keys of [`READOUTS`]; by default all that the labels have. `mean`,
            `median` and `risk_averse` need ordinal labels, and use the values of [`label_values`].
        risk (`float`, defaults to 0.25): in (0, 1]. `risk_averse` is the mean value of the lowest `risk` of the
            distribution (its conditional value at risk): with values v_1 < ... < v_K and probabilities q_k it is
            (1 / risk) * sum_k v_k * min(q_k, max(0, risk - q_1 - ... - q_{k-1})). With 1 it is the mean.

    Returns:
        `list[dict]` of length N, ready for JSON.

    Raises:
        [`UserInputError`]: as [`choose_columns`]; `risk` is out of range.
    """
    if not 0 < risk <= 1:
        raise UserInputError(f"--risk must be above 0 and at most 1, got {risk}.")
    names = choose_columns(columns, label_space)
    read = _Read(np.exp(log_probs), mass, label_space.labels, label_values(label_space), risk)
    computed = [list(READOUTS[name].compute(read)) for name in names]
    return [{name: column[i] for name, column in zip(names, computed, strict=True)} for i in range(len(mass))]
