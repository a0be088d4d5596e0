"""The schema of a result file: pydantic models that check it when it is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


_Text = Annotated[str, Field(min_length=1)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    """Types are not converted. Unknown keys are kept, because a later minor version may add some."""

    model_config = ConfigDict(strict=True, extra="allow")


class Interval(_Strict):
    """A figure with its 95 % interval; an end is `None` if it is unbounded (one group)."""

    value: _Number
    low: _Number | None
    high: _Number | None


class Ceiling(_Strict):
    """See `baselines.HumanCeiling`."""

    kl: _Number
    total_variation: _Number
    accuracy: _Number
    judge_kl: _Number
    judge_total_variation: _Number
    judge_accuracy: _Number
    num_items: int


class Positions(_Strict):
    """See `association.PositionMetrics`."""

    swap_consistency: _Number
    position_bias: _Number
    num_pairs: int


class Metrics(_Strict):
    """See `metrics.evaluate_judgments`."""

    kl: Interval
    jensen_shannon: Interval
    total_variation: Interval
    hellinger: Interval
    brier: Interval
    accuracy: Interval
    wasserstein: Interval | None = None
    mean_error: Interval | None = None
    noise_floor: _Number | None
    excess_kl: Interval | None
    human_ceiling: Ceiling | None
    entropy_correlation: Interval | None
    distance_correlation: _Number | None
    macro_f1: Interval
    kappa: Interval | None
    ece: Interval
    majority_ties: _Number
    floor_items: _Number
    positions: Positions | None
    divided_items: Annotated[int, Field(ge=1)] | None = None
    label_mass: _Number | None = None
    coverage: Interval | None = None
    set_size: Interval | None = None
    num_items: Annotated[int, Field(ge=1)]
    num_groups: Annotated[int, Field(ge=1)]


class Point(_Strict):
    """See `protocols.RobustnessPoint`."""

    radius: _Number
    kl: _Number
    std: _Number
    moved: _Number


class ScalingFit(_Strict):
    """See `calibration.scaling.Scaling`."""

    kind: _Text
    temperature: _Number | None
    weight: list[_Number]
    bias: list[_Number]
    num_items: int


class ConformalFit(_Strict):
    """See `calibration.conformal.LabelSets`."""

    level: _Number
    kind: Literal["sets", "intervals"]
    threshold: _Number
    num_items: int
    num_groups: int


class OwnCalibration(_Strict):
    """See `calibration.stored.Calibration`."""

    scaling: ScalingFit
    conformal: ConformalFit
    fitted_on: dict[str, Any]


class Variant(_Strict):
    """Another row on the same items: the judge after a scaling, or a constant."""

    method: _Text
    metrics: Metrics
    robustness: list[Point]
    scaling: ScalingFit | None = None
    constant: list[_Number] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.scaling is None) == (self.constant is None):
            raise ValueError("is either a scaling or a constant")
        return self


class QuestionPrior(_Strict):
    """The training prior of each question, see `baselines.question_priors`, and its metrics on all items."""

    parts: dict[str, list[_Number]]
    metrics: Metrics


class Settings(_Strict):
    """The settings that tables and figures use; an untrained model has none of them."""

    alpha: _Number = 0.8
    adversary: _Text = "none"
    perturbation_radius: _Number = 0.0
    max_annotators: int | None = None
    num_train_items: int = 0
    num_train_votes: int = 0


class Extraction(_Strict):
    """Which label tokens are read: all, those among the five (`top5`) or more likeliest tokens, the others getting the
    floor, or none, because answers were sampled (`samples20`).

    Judges behind a server have more keys: see `ApiJudge.findings`. `kl_low` and `kl_high` are the lowest and highest
    mean KL that the tokens which the server did not return allow.
    """

    kind: Annotated[str, Field(pattern=r"^(full|top[0-9]+|samples[0-9]+)$")]
    floor: _Number | None
    kl_low: _Number | None = None
    kl_high: _Number | None = None
    unparsed: _Number | None = None


class SharedTaskRow(_Strict):
    """See `lewidi.official_figures`. `num_incomplete` is VEN's."""

    method: _Text
    cross_entropy: _Number | None = None
    micro_f1: _Number | None = None
    manhattan: _Number | None = None
    wasserstein: _Number | None = None
    num_items: Annotated[int, Field(ge=1)]
    num_incomplete: int | None = None


class SharedTaskFigures(_Strict):
    """See `lewidi.official_results`."""

    dataset: _Text
    edition: int
    floor: _Number
    rows: Annotated[list[SharedTaskRow], Field(min_length=1)]


class Results(_Strict):
    """A result file. `scored_on` says whether its items are test items, or validation items by which settings are
    chosen. `trained_on` is a task's name (`None` for an untrained model). `settings` are those of the training and its
    data, which distinguish runs. `parts` are the judge's metrics on each of several questions about the same items
    (SummEval's dimensions), `question_prior` is what each question's training items alone say; files of tasks with a
    single question have neither key. `calibration` is that of a calibrated judge.
    """

    schema_version: int
    task: _Text
    trained_on: _Text | None
    method: _Text
    model: _Text
    labels: Annotated[list[str], Field(min_length=2)]
    ordinal: bool
    seed: int | None
    settings: Settings
    extraction: Extraction
    metrics: Metrics
    robustness: list[Point]
    parts: dict[_Text, Metrics] | None = None
    variants: list[Variant]
    question_prior: QuestionPrior | None = None
    calibration: OwnCalibration | None = None
    scored_on: Literal["test", "validation"] = "test"
    lewidi: SharedTaskFigures | None = None
    test_fingerprint: _Text
    provenance: dict[str, Any]
    predictions_sha256: _Text

    @model_validator(mode="after")
    def _labels_agree(self) -> Self:
        count = len(self.labels)
        for variant in self.variants:
            fit = variant.scaling
            vectors = [variant.constant] if fit is None else [fit.weight, fit.bias]
            if any(vector is None or len(vector) != count for vector in vectors):
                raise ValueError(f"the variant {variant.method!r} is not about {count} labels")
        if self.calibration is not None and len(self.calibration.scaling.weight) != count:
            raise ValueError(f"the calibration is not about {count} labels")
        return self
