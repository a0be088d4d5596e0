"""Metrics against literal values, the noise floor and the intervals against simulations with a known truth."""

import gzip
import json

import numpy as np
import pytest
from conftest import LABELS, SHARED, make_records
from scipy.special import rel_entr, xlogy

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import (
    TestItems,
    bootstrap_mean,
    evaluate_judgments,
    item_accuracy,
    item_kl,
    noise_floor,
    paired_difference,
    read_predictions,
    read_results,
    write_results,
)
from distjudge_trl.evaluation.association import entropy_correlation
from distjudge_trl.evaluation.distances import item_entropy
from distjudge_trl.evaluation.noise_floor import true_entropy
from distjudge_trl.evaluation.results import JudgeInfo, Predictions, make_results
from distjudge_trl.evaluation.schema import Metrics
from distjudge_trl.report.tables import question_prior_line, results_table
from distjudge_trl.tasks import get_task


def test_item_metrics_on_literal_rows():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.4, 0.4]])
    q = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])
    log_q = np.log(q)
    expected = [0.5 * np.log(2), np.log(4), 0.4 * np.log(4 / 3) + 0.4 * np.log(0.8)]
    np.testing.assert_allclose(item_kl(p, log_q), expected, atol=1e-12)
    # The third human row is tied between labels 1 and 2: the first counts.
    np.testing.assert_array_equal(item_accuracy(p, log_q), [1, 0, 0])


def test_item_kl_with_an_impossible_label_nobody_chose():
    log_q = np.array([[0.0, -np.inf]])
    assert item_kl(np.array([[1.0, 0.0]]), log_q).tolist() == [0.0]


def simulate_floor(p, n, rng, repeats=60):
    big = np.repeat(p, repeats, axis=0)
    x = rng.multinomial(n, big) / n
    return (xlogy(x, x) - xlogy(x, np.maximum(big, 1e-300))).sum(-1).mean()


def ratings_around_a_center(count, num_labels, rng):
    center, width = rng.uniform(0, num_labels - 1, count), rng.uniform(0.4, 1.3, count)
    x = np.exp(-0.5 * ((np.arange(num_labels) - center[:, None]) / width[:, None]) ** 2)
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("num_annotators", [3, 5, 10])
@pytest.mark.parametrize("num_labels", [3, 5, 9])
@pytest.mark.parametrize("population", ["dirichlet", "ratings"])
def test_noise_floor_is_near_the_simulated_truth(population, num_labels, num_annotators):
    rng = np.random.default_rng(100 * num_labels + num_annotators)
    if population == "dirichlet":
        p = rng.dirichlet(np.full(num_labels, 0.5), 2000)
    else:
        p = ratings_around_a_center(2000, num_labels, rng)
    truth = simulate_floor(p, num_annotators, rng)
    counts = rng.multinomial(num_annotators, p)
    assert noise_floor(counts, num_draws=50).value == pytest.approx(truth, rel=0.05)
    # The estimate that suggests itself, drawing from the observed distribution, would be far off.
    observed = counts / num_annotators
    assert simulate_floor(observed, num_annotators, rng, repeats=10) < 0.85 * truth


@pytest.mark.parametrize("num_annotators", [3, 10])
def test_the_entropy_of_the_truth_is_near_the_simulated_one(num_annotators):
    rng = np.random.default_rng(num_annotators)
    p = rng.dirichlet(np.full(4, 0.5), 2000)
    counts = rng.multinomial(num_annotators, p)
    correlation = entropy_correlation(counts / num_annotators, np.log(p))
    assert 0.3 < correlation < 0.95
    found = true_entropy(counts)
    assert found.correlation == pytest.approx(correlation, abs=0.05)
    assert found.mean == pytest.approx(item_entropy(np.log(p)).mean(), rel=0.05)
    # That of the votes is lower.
    assert -xlogy(counts, counts / num_annotators).sum(-1).mean() / num_annotators < 0.95 * found.mean


def test_single_votes_have_no_entropy_to_follow():
    assert true_entropy(np.eye(3, dtype=int)[[0, 1, 2, 1]]).correlation is None


@pytest.mark.shared
@pytest.mark.parametrize(("num_annotators", "tolerance"), [(3, 0.15), (5, 0.15), (10, 0.2)])
def test_noise_floor_on_items_with_many_annotators(num_annotators, tolerance):
    """Of 69 to 123 people a conversation some are drawn; the others are the truth, all but known. A label that one in
    twenty chooses can hardly be seen in few votes: the estimate is 9 to 17 % too low.
    """
    counts = []
    for name in ("dices_350", "dices_990"):
        with gzip.open(SHARED / "data" / "dices" / f"{name}.jsonl.gz", "rt") as file:
            votes = [json.loads(line)["Q_overall"] for line in file]
        counts += [[row.count(label) for label in ("No", "Unsure", "Yes")] for row in votes]
    counts, rng = np.array(counts), np.random.default_rng(0)
    truths, estimates = [], []
    for _ in range(3):
        drawn = np.stack([rng.multivariate_hypergeometric(row, num_annotators) for row in counts])
        # Half a vote, so that a label that only the drawn ones chose does not count as impossible.
        rest = counts - drawn + 0.5 * counts.sum(0) / counts.sum()
        truths.append(item_kl(drawn / num_annotators, np.log(rest / rest.sum(-1, keepdims=True))).mean())
        estimates.append(noise_floor(drawn, num_draws=50).value)
    assert np.mean(estimates) == pytest.approx(np.mean(truths), rel=tolerance)


@pytest.mark.parametrize("num_labels", [2, 3])
def test_noise_floor_of_items_that_are_all_tied(num_labels):
    """All rows are the same distribution, from more or fewer votes: there is nothing to tell components apart by."""
    counts = np.array([[votes] * num_labels for votes in range(1, 7)] * 5)
    floor = noise_floor(counts)
    assert floor.num_components == 1
    # The fit says that everyone tosses a fair coin: about (K - 1) / (2n) an item, and half an item's worth at n = 2.
    first_order = ((num_labels - 1) / (2 * counts.sum(-1))).mean()
    assert floor.value == pytest.approx(first_order, rel=0.25)


def test_noise_floor_of_unanimous_items_is_zero():
    counts = np.eye(3, dtype=int)[np.arange(300) % 3] * 7
    assert noise_floor(counts).value < 0.01


@pytest.mark.parametrize("counts", [[[1]], [[0, 0]], [[-1, 2]], [[0.5, 0.5]], np.zeros((0, 3))])
def test_noise_floor_refuses_what_are_no_votes(counts):
    with pytest.raises(ValueError):
        noise_floor(np.array(counts))


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    """200 simulated data sets of 60 groups whose items share a common effect."""
    rng = np.random.default_rng(0)
    covered = covered_if_items_were_independent = 0
    for _ in range(200):
        groups = np.repeat(np.arange(60), 5)
        values = 1.0 + rng.normal(size=60)[groups] + 0.3 * rng.normal(size=300)
        estimate = bootstrap_mean(values, groups.astype(str), num_resamples=400)
        covered += estimate.low <= 1.0 <= estimate.high
        naive = bootstrap_mean(values, np.arange(300).astype(str), num_resamples=400)
        covered_if_items_were_independent += naive.low <= 1.0 <= naive.high
    assert 0.92 <= covered / 200 <= 0.98
    assert covered_if_items_were_independent / 200 < 0.75


def test_bootstrap_is_deterministic_and_contains_its_mean():
    values, groups = np.arange(20.0), [str(i) for i in range(20)]
    first, second = bootstrap_mean(values, groups), bootstrap_mean(values, groups)
    assert first == second and first.low < first.value == 9.5 < first.high


def test_paired_difference_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(1)
    hard = rng.normal(size=200) * 3
    difference = paired_difference(hard + 0.1 + 0.05 * rng.normal(size=200), hard, [str(i) for i in range(200)])
    assert 0 < difference.low < 0.1 < difference.high


def test_one_group_has_no_interval():
    estimate = bootstrap_mean(np.array([1.0, 2.0]), ["a", "a"])
    assert estimate.value == 1.5 and np.isinf([estimate.low, estimate.high]).all()


def test_evaluation_of_the_human_distribution_itself():
    records = make_records(60)
    p = np.array(records["label_distribution"])
    metrics = evaluate_judgments(p, np.log(p.clip(1e-12)), np.array(records["num_annotators"]), records["group"][:])
    assert metrics["kl"]["value"] == pytest.approx(0, abs=1e-9) and metrics["accuracy"]["value"] == 1
    assert metrics["excess_kl"]["value"] == pytest.approx(-metrics["noise_floor"], abs=1e-9)
    assert (metrics["num_items"], metrics["num_groups"]) == (60, 30)
    assert 0 < metrics["majority_ties"] < 1


def test_every_figure_is_within_its_interval():
    records = make_records(60)
    p = np.array(records["label_distribution"])
    log_q = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 60))
    metrics = evaluate_judgments(p, log_q, np.array(records["num_annotators"]), records["group"][:], ordinal=True)
    estimates = {name: value for name, value in metrics.items() if isinstance(value, dict) and "low" in value}
    assert {"excess_kl", "entropy_correlation", "macro_f1", "kappa", "ece", "wasserstein"} < set(estimates)
    for name, value in estimates.items():
        assert value["low"] < value["value"] < value["high"], name


def test_single_votes_do_not_say_how_much_people_agree():
    """Judges of one vote an item could all be right or all be wrong: no floor is made up."""
    assert noise_floor(np.eye(3)[np.random.default_rng(0).integers(0, 3, 50)]) is None


def test_rows_that_are_no_shares_of_votes_have_no_floor():
    p = np.array([[0.5, 0.5], [1.0, 0.0]])
    metrics = evaluate_judgments(p, np.log([[0.5, 0.5], [0.9, 0.1]]), np.array([1, 1]), ["a", "b"])
    assert metrics["noise_floor"] is None and metrics["excess_kl"] is None


def test_one_divided_row_is_left_out_and_counted():
    records = make_records(60)
    p, n = np.array(records["label_distribution"]), np.array(records["num_annotators"])
    groups = [f"g{i // 2}" for i in range(60)]
    log_q = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 60))
    whole = evaluate_judgments(p, log_q, n, groups)
    assert "divided_items" not in whole
    odd, other = [0.25, 0.75, 0, 0, 0], np.log(np.full(5, 0.2))
    metrics = evaluate_judgments([*p, odd], [*log_q, other], [*n, 2], [*groups, "z"])
    assert metrics["divided_items"] == 1 and metrics["num_items"] == 61
    for name in ("noise_floor", "excess_kl", "human_ceiling"):
        assert metrics[name] == whole[name]
    assert metrics["kl"] != whole["kl"]
    text = results_table([{"method": "m", "metrics": metrics, "variants": []}])
    assert text.endswith("human ceiling leave out 1 of 61 items, in which divided votes are no whole numbers.")
    Metrics.model_validate(metrics)


RECORDS = make_records(4)
SCORES = TestItems.of(RECORDS, ordinal=True).score(np.log(np.full((4, 5), 0.2)))


def results(**changes):
    base = {"task": "t", "trained_on": None, "method": "m", "model": "x", "labels": LABELS, "ordinal": True}
    base |= {"seed": 0, "settings": {}, "extraction": {"kind": "full", "floor": None}, **SCORES, "variants": []}
    return {**base, "test_fingerprint": "f", "provenance": {}, **changes}


def test_result_files_round_trip(tmp_path):
    records, log_q = RECORDS, np.log(np.full((4, 5), 0.2))
    write_results(tmp_path / "run", results(), records, log_q)
    found = read_results(tmp_path / "run")
    assert len(found.pop("predictions_sha256")) == 64 and found == {"schema_version": 4, **results()}
    table = read_predictions(tmp_path / "run")
    assert table["id"][:] == records["id"][:]
    np.testing.assert_allclose(table["judge_distribution"][:], np.exp(log_q))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["predictions.parquet", "results.json"]


def test_results_have_the_metrics_of_each_question(tmp_path):
    """SummEval's dimensions, in the task's order. Where all records ask the same there is no such key."""
    dimensions = ("relevance", "coherence")
    records = make_records(12).map(lambda row, i: {"id": f"a/{i // 2}/{dimensions[i % 2]}"}, with_indices=True)
    log_q = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 12))
    judge = JudgeInfo("m", "x", None, 0, {})
    floored = np.zeros((12, 5), dtype=bool)
    floored[0] = True
    own = make_results(
        judge, get_task("summeval"), Predictions(records, log_q, 0.5, floored), train=None, provenance={}
    )
    assert list(own["parts"]) == ["coherence", "relevance"]
    for name, first in (("relevance", 0), ("coherence", 1)):
        half = records.select(range(first, 12, 2))
        expected = TestItems.of(half, ordinal=True).score(log_q[first::2], floored=floored[first::2])["metrics"]
        assert own["parts"][name] == expected
    write_results(tmp_path, own, records, log_q)
    assert read_results(tmp_path)["parts"] == own["parts"]
    own["parts"]["relevance"]["kl"] = None
    write_results(tmp_path, own, records, log_q)
    with pytest.raises(UserInputError, match=r"`parts\.relevance\.kl`"):
        read_results(tmp_path)
    single = make_results(judge, get_task("summeval"), Predictions(half, log_q[1::2]), train=half, provenance={})
    assert "parts" not in single and "question_prior" not in single


def test_what_the_question_alone_says(tmp_path):
    """Each question's own training items, and all of them for a question that training lacks."""
    dimensions = ("relevance", "coherence", "fluency")
    records = make_records(12).map(lambda row, i: {"id": f"a/{i // 3}/{dimensions[i % 3]}"}, with_indices=True)
    train = make_records(20).map(lambda row, i: {"id": f"b/{i // 2}/{dimensions[i % 2]}"}, with_indices=True)
    p, trained = (np.array(rows["label_distribution"][:]) for rows in (records, train))
    log_q = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 12))
    judge, task = JudgeInfo("m", "x", "summeval", 0, {}), get_task("summeval")
    own = make_results(judge, task, Predictions(records, log_q), train=train, provenance={})
    priors = {"relevance": trained[::2], "coherence": trained[1::2], "fluency": trained}
    for name, rows in priors.items():
        np.testing.assert_allclose(own["question_prior"]["parts"][name], np.maximum(rows.mean(0), 1e-5), atol=1e-4)
    expected = rel_entr(p, [own["question_prior"]["parts"][dimensions[i % 3]] for i in range(12)]).sum(-1).mean()
    assert own["question_prior"]["metrics"]["kl"]["value"] == pytest.approx(expected, abs=1e-6)
    write_results(tmp_path, own, records, log_q)
    found = read_results(tmp_path)
    assert found["question_prior"] == own["question_prior"]
    (line,) = question_prior_line([{}, found])
    assert f"has a KL of {expected:.3f}, " in line and not question_prior_line([{}])
    assert f"| question-prior | {expected:.3f} [" in results_table([found]).replace("  ", "")
    without = make_results(judge, task, Predictions(records, log_q), train=None, provenance={})
    assert "question_prior" not in without


def test_a_result_file_may_have_a_name_of_its_own(tmp_path):
    write_results(tmp_path / "snli.json", results(), make_records(2), np.log(np.full((2, 5), 0.2)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["snli.json", "snli.predictions.parquet"]
    assert read_results(tmp_path / "snli.json")["task"] == "t"
    assert len(read_predictions(tmp_path / "snli.json")["prompt"][0]) == 1


def test_damaged_predictions_are_named(tmp_path):
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserInputError, match=r"predictions.parquet: is damaged .* Run the evaluation again"):
        read_predictions(tmp_path)


def test_nan_is_not_written_into_a_result_file(tmp_path):
    with pytest.raises(ValueError):
        write_results(tmp_path, results(metrics={"kl": float("nan")}), make_records(1), np.zeros((1, 5)))
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        ('{"schema_version": 1', "is damaged"),
        ("[]", "no schema_version"),
        (json.dumps({"schema_version": 99}), "schema version 99, newer than 4.*Update distjudge-trl"),
        (json.dumps({"schema_version": 3}), "schema version 3, older than 4.*Run the evaluation again"),
        (json.dumps({"schema_version": 4, "task": "t"}), r"is damaged \(`trained_on` is missing\)"),
    ],
)
def test_bad_result_files(tmp_path, content, match):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserInputError, match=match) as error:
        read_results(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value)


@pytest.mark.parametrize(
    ("keys", "value", "match"),
    [
        (["metrics"], [1], "`metrics`: .* got \\[1\\]"),
        (["metrics", "kl"], 3, "`metrics.kl`"),
        (["metrics", "kl", "value"], "x", "`metrics.kl.value`: input should be a valid number, got 'x'"),
        (["metrics", "human_ceiling"], {}, "`metrics.human_ceiling.kl` is missing"),
        (["robustness", 0], "x", "`robustness.0`"),
        (["settings", "alpha"], None, "`settings.alpha`"),
        (["seed"], "1", "`seed`"),
        (["labels"], ["1"], "`labels`"),
        (["model"], "", "`model`"),
        (["extraction", "kind"], "all", "`extraction.kind`"),
        (["variants"], [{"method": "m", **SCORES}], "either a scaling or a constant"),
        (["variants"], [{"method": "m", "constant": [0.5, 0.5], **SCORES}], "'m' is not about 5 labels"),
    ],
)
def test_damaged_keys_are_named(tmp_path, keys, value, match):
    content = json.loads(json.dumps({"schema_version": 4, "predictions_sha256": "0", **results()}))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserInputError, match=match) as error:
        read_results(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value)
