"""Where the losses lead to with few votes an item and many items alike, and claim 8 of docs/adversary.md."""

import importlib

import numpy as np
import pytest
import torch
from conftest import ROOT

from distjudge_trl.errors import UserInputError
from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, hybrid_loss


TRUTH = np.array([[0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25]])


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts/benchmarks")
        yield importlib.import_module("few_annotators")


@pytest.fixture(scope="module")
def found(script):
    return {m: script.judges(script.draws(m, 3), TRUTH) for m in (1, 2, 3, 5)}


def entropy(q):
    return -(q * np.log(q)).sum(-1)


def test_every_draw_is_counted_as_often_as_it_is_likely(script):
    counts = script.draws(4, 3)
    assert len(counts) == 15 and (counts.sum(-1) == 4).all() and len(np.unique(counts, axis=0)) == 15
    likely = script.likelihood(counts, TRUTH).numpy()
    drawn = np.random.default_rng(0).multinomial(4, TRUTH[0], 100_000)
    seen = [(drawn == row).all(-1).mean() for row in counts]
    np.testing.assert_allclose(likely.sum(-1), 1)
    np.testing.assert_allclose(likely[0], seen, atol=0.005)


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_kl_alone_leads_to_the_truth(found, m):
    np.testing.assert_allclose(found[m]["kl-only"], TRUTH, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2])
def test_up_to_two_votes_the_majority_label_leads_there_too(found, m):
    for method in ("single-point", "no-adversary"):
        np.testing.assert_allclose(found[m][method], TRUTH, atol=1e-12)


@pytest.mark.parametrize(("num_labels", "m"), [(3, 3), (3, 4), (3, 5), (4, 4), (5, 3), (5, 5)])
def test_from_three_votes_on_the_likeliest_label_wins_more_often_than_it_is_voted_for(script, num_labels, m):
    truth = np.random.default_rng(m).dirichlet(np.ones(num_labels), 50)
    counts = script.draws(m, num_labels)
    most = counts == counts.max(-1, keepdims=True)
    won = script.likelihood(counts, truth).numpy() @ (most / most.sum(-1, keepdims=True))
    likeliest = np.arange(50), truth.argmax(-1)
    assert (won[likeliest] > truth[likeliest]).all()


def test_with_one_vote_pgd_moves_nothing_and_the_worst_case_does(found):
    np.testing.assert_allclose(found[1]["distribution"], TRUTH, atol=1e-12)
    worst = entropy(found[1]["worst-case"].numpy())
    assert worst[1] > entropy(TRUTH)[1] + 0.05, "where the judge is sure, a certain vote is not the worst"


@pytest.mark.parametrize("m", [3, 5])
def test_from_three_votes_on_the_cross_entropy_sharpens_and_pgd_softens_more_than_that(found, m):
    sharper, pgd = (entropy(found[m][method].numpy()) for method in ("no-adversary", "distribution"))
    assert (sharper < entropy(TRUTH)).all()
    assert (pgd > sharper).all()
    # Divided items reach further than the ball.
    assert (pgd[:2] > entropy(TRUTH)[:2]).all()


@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_the_trainer_s_loss_against_pgd_is_at_rest_there(script, expected, alpha):
    q, loss = expected(PGDAdversary(0.25), alpha, steps=100)
    logits = q.log().requires_grad_()
    loss(logits).sum().backward()
    assert logits.grad.abs().max() < 1e-4


def test_nowhere_near_is_the_trainer_s_loss_against_the_worst_case_lower(script, expected):
    q, loss = expected(WorstCaseAdversary(0.25), 0.8, steps=200)
    least = loss(q.log())
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (loss(q.log() + 0.05 * torch.from_numpy(rng.standard_normal(q.shape))) > least - 1e-4).all()
    assert (loss(torch.from_numpy(TRUTH).log()) > least + 1e-4).all()


@pytest.fixture
def expected(script):
    """Judges at rest against an adversary, and the trainer's loss at logits `(N, K)`, expected over three votes."""

    def make(adversary, alpha, steps):
        counts = script.draws(3, 3)
        p = torch.from_numpy(counts / 3)
        reference = p.argmax(-1)
        weights = script.likelihood(counts, TRUTH)

        def loss(logits):
            rows = []
            for row, chances in zip(logits, weights, strict=True):
                log_q = row.log_softmax(-1).expand(len(p), -1)
                rows.append((hybrid_loss(log_q, adversary(p, log_q.detach()), reference, alpha) * chances).sum())
            return torch.stack(rows)

        hard = torch.nn.functional.one_hot(reference, 3).double()
        return script.at_rest(weights, p, hard, alpha, adversary, steps), loss

    return make


def test_one_temperature_takes_back_what_the_majority_label_sharpens(script, found):
    votes, truth = script.Votes(TRUTH * 100, np.ones(3)), torch.from_numpy(TRUTH)
    q = found[5]["single-point"]
    plain, scaled = (script.distance(votes, truth, x) for x in (q, script.scaled(q, truth, votes)))
    assert scaled < 0.1 * plain


def test_the_tables_of_a_task(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["few_annotators.py", "vader", "--max_items", "6", "--annotators", "1", "2"])
    script.main()
    printed = capsys.readouterr().out
    assert printed.startswith("vader: ") and "items of 10 to 10 annotators, 9 labels" in printed
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "kl-only" in line]
    assert rows[0][1:] == rows[1][1:] == ["0.0000", "0.0000"] and rows[2][1] == rows[2][2]


@pytest.mark.parametrize(("number", "what"), [("0", "at least 1"), ("30", "ways")])
def test_numbers_that_cannot_be_computed(script, monkeypatch, number, what):
    monkeypatch.setattr("sys.argv", ["few_annotators.py", "vader", "--max_items", "6", "--annotators", number])
    with pytest.raises(UserInputError, match=what):
        script.main()
