"""Where the losses lead to with few votes an item and many items alike, and claim 8 of docs/adversary.md."""

import importlib

import numpy as np
import pytest
import torch
from conftest import ROOT

from distjudge_trl.errors import UserInputError
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, coverage_radius, hybrid_loss


TRUTH = np.array([[0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25]])


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts/benchmarks")
        yield importlib.import_module("few_annotators")


@pytest.fixture(scope="module")
def found(script):
    """The judges by number of votes and method; against the worst case, which takes long, with one vote alone."""
    cheap = [name for name in script.METHODS if name != "worst-case"]
    return {
        m: {name: q.numpy() for name, q in script.judges(script.make_draws(TRUTH, m), "random", methods)}
        for m, methods in ((1, None), (2, cheap), (3, cheap), (5, cheap))
    }


def entropy(q):
    return -(q * np.log(q)).sum(-1)


def test_every_draw_is_counted_as_often_as_it_is_likely(script):
    draws = script.make_draws(TRUTH, 4)
    counts, weights = draws.counts[0].numpy(), draws.weights.numpy()
    assert len(counts) == 15 and (counts.sum(-1) == 4).all() and len(np.unique(counts, axis=0)) == 15
    drawn = np.random.default_rng(0).multinomial(4, TRUTH[0], 100_000)
    seen = [(drawn == row).all(-1).mean() for row in counts]
    np.testing.assert_allclose(weights.sum(-1), 1)
    np.testing.assert_allclose(weights[0], seen, atol=0.005)
    np.testing.assert_array_equal(draws.truth, TRUTH)


def test_too_many_ways_are_drawn(script):
    draws = script.make_draws(np.random.default_rng(0).dirichlet(np.ones(9), 4), 10)
    assert draws.counts.shape == (4, script.MOST_WAYS, 9) and (draws.counts.sum(-1) == 10).all()
    np.testing.assert_allclose(draws.expected(draws.counts / 10), draws.truth)


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_kl_alone_leads_to_the_truth(found, m):
    np.testing.assert_allclose(found[m]["kl-only"], TRUTH, atol=1e-12, rtol=0)


@pytest.mark.parametrize("m", [1, 2])
def test_up_to_two_votes_the_majority_label_leads_there_too(found, m):
    for method in ("single-point", "no-adversary"):
        np.testing.assert_allclose(found[m][method], TRUTH, atol=1e-12, rtol=0)


def test_if_a_tie_takes_the_first_label_two_votes_are_too_few(script):
    q = dict(script.judges(script.make_draws(np.array([[0.5, 0.5]]), 2), "first", ["single-point"]))
    np.testing.assert_allclose(q["single-point"], [[0.75, 0.25]])


@pytest.mark.parametrize(("num_labels", "m"), [(3, 3), (3, 4), (3, 5), (4, 4), (5, 3), (5, 5)])
def test_from_three_votes_on_likelier_labels_win_more_often_than_they_are_voted_for(script, num_labels, m):
    truth = np.random.default_rng(m).dirichlet(np.ones(num_labels), 50)
    draws = script.make_draws(truth, m)
    won = draws.expected(script.hard_labels(draws.counts, "random")).numpy()
    likeliest = np.arange(50), truth.argmax(-1)
    assert (won[likeliest] > truth[likeliest]).all()
    order = truth.argsort(-1)
    ratios = np.take_along_axis(won / truth, order, -1)
    assert (np.diff(ratios, axis=-1) > -1e-9).all()
    assert (entropy(won) < entropy(truth)).all()


def test_with_one_vote_pgd_moves_nothing_and_the_worst_case_does(found):
    np.testing.assert_allclose(found[1]["distribution"], TRUTH, atol=1e-12, rtol=0)
    worst = entropy(found[1]["worst-case"])
    assert worst[1] > entropy(TRUTH)[1] + 0.05, "where the judge is sure, a certain vote is not the worst"


def test_pgd_softens_near_unanimity_and_takes_back_the_cross_entropy_elsewhere(script):
    """Two labels and ten votes: docs/adversary.md says both."""
    sure, divided = 0.95, 0.7
    truth = np.array([[sure, 1 - sure], [divided, 1 - divided]])
    methods = ["no-adversary", "distribution"]
    q = {name: rows.numpy()[:, 0] for name, rows in script.judges(script.make_draws(truth, 10), "random", methods)}
    assert q["distribution"][0] < sure < q["no-adversary"][0]
    assert divided < q["distribution"][1] < q["no-adversary"][1]


@pytest.fixture
def expected(script):
    """Judges at rest against an adversary, and the trainer's loss at logits `(N, K)`, expected over three votes."""

    def make(adversary, alpha, steps, m=3):
        draws = script.make_draws(TRUTH, m)
        p = draws.counts[0] / m

        def loss(logits):
            rows = []
            for row, chances in zip(logits, draws.weights, strict=True):
                log_q = row.log_softmax(-1).expand(len(p), -1)
                losses = hybrid_loss(log_q, adversary(p, log_q.detach()), p.argmax(-1), alpha)
                rows.append((losses * chances).sum())
            return torch.stack(rows)

        return script.at_rest(draws, script.hard_labels(draws.counts, "first"), alpha, adversary, steps), loss

    return make


@pytest.mark.parametrize(("alpha", "m"), [(0.8, 3), (1.0, 3), (0.8, 6)])
def test_the_trainer_s_loss_against_pgd_is_at_rest_there(script, expected, alpha, m):
    q, loss = expected(PGDAdversary(0.25), alpha, script.STEPS, m)
    logits = q.log().requires_grad_()
    loss(logits).sum().backward()
    assert logits.grad.abs().max() < 1e-4


def test_nowhere_near_is_the_trainer_s_loss_against_the_worst_case_lower(expected):
    q, loss = expected(WorstCaseAdversary(0.25), 0.8, steps=200)
    least = loss(q.log())
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (loss(q.log() + 0.05 * torch.from_numpy(rng.standard_normal(q.shape))) > least - 1e-4).all()
    assert (loss(torch.from_numpy(TRUTH).log()) > least + 1e-4).all()


def test_each_draw_has_the_radius_of_its_own_votes(script, found):
    draws = script.make_draws(TRUTH, 3)
    hard = script.hard_labels(draws.counts, "random")
    for row in range(3):
        alone = script.Draws(*(part[row : row + 1] for part in draws))
        radius = coverage_radius(alone.counts[0] / 3, torch.full((10,), 3), 0.9)
        q = script.at_rest(alone, hard[row : row + 1], 0.8, PGDAdversary(radius))
        np.testing.assert_allclose(q[0], found[3]["coverage"][row], atol=1e-9)


def test_smoothed_votes_lead_to_a_mixture_with_even_shares(script, found):
    m, added = 3, 3 * script.PSEUDO_COUNT
    smoothed = (m * TRUTH + script.PSEUDO_COUNT) / (m + added)
    expected = 0.8 * smoothed + 0.2 * found[m]["single-point"]
    np.testing.assert_allclose(found[m]["dirichlet"], expected)


def test_one_temperature_takes_back_what_the_majority_label_sharpens(script, found):
    plain, scaled, _ = script.figures(TRUTH, found[5]["single-point"])
    assert scaled < 0.1 * plain


@pytest.mark.parametrize(("truths", "methods"), [("observed", []), ("fitted", ["--methods", "kl-only"])])
def test_the_tables_of_a_task(script, monkeypatch, capsys, truths, methods):
    command = ["few_annotators.py", "vader", "--max_items", "12", "--votes", "1", "--truths", truths]
    monkeypatch.setattr("sys.argv", [*command, "--max-truths", "3", *methods])
    script.main()
    printed = capsys.readouterr().out
    assert printed.startswith(f"vader: 3 truths, {truths}, of 9 labels")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if " votes" not in line]
    names = [row[0] for row in rows if row and not row[0].startswith("-")]
    assert names == 3 * ["the truth", *(methods[1:] or script.METHODS)]
    distances = {row[0]: row[1] for row in rows[:10] if len(row) > 1}
    assert distances["kl-only"] == "0.0000"


@pytest.mark.parametrize("option", ["--votes", "--max-truths"])
def test_numbers_that_cannot_be_computed(script, monkeypatch, option):
    monkeypatch.setattr("sys.argv", ["few_annotators.py", "vader", "--max_items", "6", option, "0"])
    with pytest.raises(UserInputError, match="at least 1"):
        script.main()
