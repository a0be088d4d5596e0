"""Readouts: what is written beside an item that was judged, from the distribution to a single number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distjudge_trl.calibration.conformal import SetKind
from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.errors import UserInputError, listing, nearest
from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.spelling import spelling


DISTRIBUTION = "label_distribution"
# The worst share of the distribution over which `risk_averse` is the mean.
RISK = 0.25


class _Read(NamedTuple):
    """What a readout is made from: `probabilities` `(N, K)`, label `mass` `(N,)`, the `labels`, their `values` `(K,)`,
    the share `risk`, and the judge's `calibration`.
    """

    probabilities: np.ndarray
    mass: np.ndarray
    labels: tuple[str, ...]
    values: np.ndarray
    risk: float
    calibration: Calibration | None


class Readout(NamedTuple):
    """A column: what it is, in a few words, how it is computed, and whether it needs labels with an order, or a
    calibration with label sets of a kind.
    """

    about: str
    compute: Callable[[_Read], Iterable[Any]]
    ordinal: bool = False
    sets: SetKind | None = None

    def fits(self, label_space: LabelSpace, calibration: Calibration | None) -> bool:
        """Whether a judge has the column."""
        if self.sets is not None:
            return calibration is not None and calibration.label_sets.kind == self.sets
        return label_space.ordinal or not self.ordinal


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


def _label_sets(read: _Read) -> list[list[str]]:
    assert read.calibration is not None
    return [next(iter(row.values())) for row in read.calibration.columns(read.probabilities, read.labels)]


READOUTS: dict[str, Readout] = {
    DISTRIBUTION: Readout("the probability of each label", _distributions),
    "label": Readout("the likeliest label (of equally likely ones the first)", _modes),
    "mean": Readout("the mean of the labels' values", _means, ordinal=True),
    "median": Readout("the value at which half of the probability is reached", _medians, ordinal=True),
    "entropy": Readout("how undecided the distribution is, in nats; 0 if one label has all of it", _entropies),
    "label_mass": Readout("the probability that the model gives to all labels together", _masses),
    "risk_averse": Readout("the mean of the worst part of the distribution (--risk)", _risk_averse, ordinal=True),
    "label_set": Readout("labels that people would give, with the coverage of `calibrate`", _label_sets, sets="sets"),
    "interval": Readout("the lowest and highest of them, of ordinal labels", _label_sets, sets="intervals"),
}


def label_values(label_space: LabelSpace) -> np.ndarray:
    """The values `(K,)` of ordinal labels: the labels themselves if all are numbers, else their positions from 0."""
    positions = np.arange(len(label_space), dtype=float)
    try:
        values = np.array([float(spelling(label)) for label in label_space.labels])
    except ValueError:
        return positions
    return values if np.isfinite(values).all() else positions


def choose_columns(
    columns: Sequence[str] | None, label_space: LabelSpace, calibration: Calibration | None = None
) -> tuple[str, ...]:
    """The names of readouts, in the order in which they are written; by default all that the judge has.

    Raises:
        [`UserInputError`]: a name is unknown, or needs an order of the labels or a calibration that the judge does not
            have.
    """
    if columns is None:
        return tuple(name for name, readout in READOUTS.items() if readout.fits(label_space, calibration))
    for name in columns:
        if name not in READOUTS:
            close = nearest(name, READOUTS)
            hint = f" Did you mean {close}?" if close else ""
            raise UserInputError(f"--columns {name}: is not a column.{hint} Columns: {listing(READOUTS)}.")
        if READOUTS[name].sets is not None and not READOUTS[name].fits(label_space, calibration):
            other = {"label_set": "interval", "interval": "label_set"}[name]
            raise UserInputError(
                f"--columns {name}: "
                + (
                    f"this judge has the column {other} instead."
                    if calibration is not None
                    else "needs a calibration of the judge, which `distjudge-trl calibrate` makes (and"
                    " --no-calibration switches off)."
                )
            )
        if READOUTS[name].ordinal and not label_space.ordinal:
            raise UserInputError(
                f"--columns {name}: needs labels with an order, and those of this judge have none"
                f" ({listing(label_space.labels)}). A task file gives them one with `ordinal: true`."
            )
    return tuple(name for name in READOUTS if name in columns)


def check_risk(risk: float) -> None:
    """Raise [`UserInputError`] unless it is a share above 0."""
    if not 0 < risk <= 1:
        raise UserInputError(f"--risk must be above 0 and at most 1, got {risk}.")


def readouts(
    log_probs: np.ndarray,
    mass: np.ndarray,
    label_space: LabelSpace,
    columns: Sequence[str] | None = None,
    *,
    risk: float = RISK,
    calibration: Calibration | None = None,
) -> list[dict[str, Any]]:
    """The columns of judged items.

    Args:
        log_probs (`np.ndarray` of shape `(N, K)`): label log-probabilities, normalised over the labels.
        mass (`np.ndarray` of shape `(N,)`): label mass; NaN where it is not known, which becomes `None`.
        label_space ([`LabelSpace`]): of the judge.
        columns (`Sequence[str]`, *optional*): keys of [`READOUTS`]; by default all that the judge has. `mean`,
            `median` and `risk_averse` need ordinal labels, and use the values of [`label_values`].
        risk (`float`, defaults to 0.25): in (0, 1]. `risk_averse` is the mean value of the lowest `risk` of the
            distribution (its conditional value at risk): with values v_1 < ... < v_K and probabilities q_k it is
            (1 / risk) * sum_k v_k * min(q_k, max(0, risk - q_1 - ... - q_{k-1})). With 1 it is the mean.

        calibration ([`~distjudge_trl.calibration.stored.Calibration`], *optional*): of the judge, for label sets. The
            log-probabilities are scaled already.

    Returns:
        `list[dict]` of length N, ready for JSON.

    Raises:
        [`UserInputError`]: as [`choose_columns`]; `risk` is out of range.
    """
    check_risk(risk)
    names = choose_columns(columns, label_space, calibration)
    read = _Read(np.exp(log_probs), mass, label_space.labels, label_values(label_space), risk, calibration)
    computed = [list(READOUTS[name].compute(read)) for name in names]
    return [{name: column[i] for name, column in zip(names, computed, strict=True)} for i in range(len(mass))]
