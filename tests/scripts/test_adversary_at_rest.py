"""Where gradient descent on free logits ends against each adversary, and the claims of docs/adversary.md on PGD."""

import importlib

import numpy as np
import pytest
import torch
from conftest import ROOT

from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, kl_divergence, minimax_target


DIVIDED = torch.tensor([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.7, 0.2, 0.1]], dtype=torch.float64)
WITH_ZEROS = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0]], dtype=torch.float64)
FIRST = torch.zeros(3, dtype=torch.long)


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts/benchmarks")
        yield importlib.import_module("adversary_at_rest")


def amplification(p):
    """(1 + 0.05 M)^5 on the labels with votes: what five steps make of p - q, to first order. Returned as (K, K)."""
    chosen = p > 0
    center = np.eye(chosen.sum()) - 1 / chosen.sum()
    step = np.eye(chosen.sum()) + 0.05 * center @ np.diag(1 / p[chosen]) @ center
    whole = np.zeros((len(p), len(p)))
    whole[np.ix_(chosen, chosen)] = np.linalg.matrix_power(step, 5)
    return whole


def test_pgd_leaves_people_alone_whom_the_judge_agrees_with():
    """KL(p' || p) is least at p' = p, so PGD starts where its gradient is zero. The worst case does not."""
    torch.testing.assert_close(PGDAdversary(0.25)(DIVIDED, DIVIDED.log()), DIVIDED)
    assert ((WorstCaseAdversary(0.25)(DIVIDED, DIVIDED.log()) - DIVIDED).norm(dim=-1) > 0.2).all()


@pytest.mark.parametrize(("share", "given"), [(1e-1, False), (1e-5, False), (1e-8, True)])
def test_pgd_gives_nothing_to_labels_without_votes_unless_the_judge_excludes_them(share, given):
    q = (1 - share) * WITH_ZEROS + share / (WITH_ZEROS == 0).sum(-1, keepdim=True) * (WITH_ZEROS == 0)
    moved = PGDAdversary(0.25)(WITH_ZEROS, q.log())
    assert ((moved[WITH_ZEROS == 0] > 0) == given).all()


@pytest.mark.parametrize("learning_rate", [0.1, 1.0])
def test_with_kl_alone_pgd_s_judge_ends_at_the_votes(script, learning_rate):
    log_q, gradient = script.descend(DIVIDED, PGDAdversary(0.25), 1.0, 3000, learning_rate)
    torch.testing.assert_close(log_q.exp(), DIVIDED, atol=1e-6, rtol=0)
    assert (gradient < 1e-6).all()
    assert (kl_divergence(DIVIDED, minimax_target(DIVIDED, FIRST, 0.25, 1.0).log()) > 1e-3).all()


@pytest.mark.parametrize("p", [DIVIDED, WITH_ZEROS])
@pytest.mark.parametrize("alpha", [0.8, 0.5])
def test_pgd_takes_back_a_part_of_the_cross_entropy_as_a_larger_alpha_would(script, p, alpha):
    log_q, _ = script.descend(p, PGDAdversary(0.6), alpha, 3000)
    plain, _ = script.descend(p, None, alpha, 3000)
    for row, found, without in zip(p.numpy(), log_q.exp().numpy(), plain.exp().numpy(), strict=True):
        wide = alpha * amplification(row)
        hard = np.eye(3)[0]
        expected = np.linalg.solve(wide + (1 - alpha) * np.eye(3), wide @ row + (1 - alpha) * hard)
        np.testing.assert_allclose(found, expected, atol=0.012)
        if 0 < row[1]:
            assert row[0] + 0.01 < found[0] < without[0] - 0.01
            assert np.abs(found - expected).max() < 0.2 * np.abs(found - without).max()


def test_the_worst_case_leads_to_the_saddle_point(script):
    p = torch.cat((DIVIDED, WITH_ZEROS))
    target = minimax_target(p, torch.zeros(6, dtype=torch.long), 0.25, 0.8)
    ends = {}
    for name, adversary in (("worst", WorstCaseAdversary(0.25)), ("pgd", PGDAdversary(0.25))):
        log_q, _ = script.descend(p, adversary, 0.8, 1000)
        ends[name] = kl_divergence(log_q.exp(), target.log())
        gap = script.worst_loss(p, log_q, 0.25, 0.8) - script.worst_loss(p, target.log(), 0.25, 0.8)
        assert (gap > -1e-6).all() and (gap.max() < 0.01) == (name == "worst")
    assert (ends["worst"] < 2e-3).all() and (ends["pgd"][3:] > 0.02).all()


def test_the_table(script, monkeypatch, capsys):
    command = ["adversary_at_rest.py", "vader", "--max_items", "40", "--steps", "50", "--alpha", "0.8"]
    monkeypatch.setattr("sys.argv", command)
    script.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("vader: 32 training items, ")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed if line.startswith("| 0.8")]
    assert [row[1] for row in cells] == ["none", "pgd", "worst_case", "minimax"]
    assert cells[-1][2] == cells[-1][4] == "0.0000" and all(float(row[4]) > 0 for row in cells[:3])
