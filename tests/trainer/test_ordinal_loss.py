"""The term for ordered labels in the trainer: what it is added to, to which target, and what is logged of it."""

import json

import pytest
import torch
from conftest import make_records
from tiny_trainers import make_trainer, trajectory

from distjudge_trl.errors import UserInputError
from distjudge_trl.objective import PGDAdversary, dirichlet_smoothing, hybrid_loss, ranked_probability_score
from distjudge_trl.trainer import DistributionSFTConfig


WEIGHT = 7.0


@pytest.mark.parametrize("normalization", ["labels", "vocab"])
@pytest.mark.parametrize("adversary", ["pgd", "none"])
def test_the_loss_has_the_term_on_what_the_adversary_has_not_moved(tokenizer, tmp_path, adversary, normalization):
    records = make_records(24)
    settings = {"target_smoothing": 0.5, "adversary": adversary, "label_normalization": normalization}
    losses = [
        make_trainer(tokenizer, tmp_path, ordinal=True, ordinal_loss_weight=weight, **settings).predict(records)
        for weight in (0.0, WEIGHT)
    ]
    votes, log_q = torch.tensor(losses[0].label_ids), torch.tensor(losses[0].predictions)
    p = dirichlet_smoothing(votes, torch.tensor(records["num_annotators"][:]), 0.5)
    added = losses[1].metrics["test_loss"] - losses[0].metrics["test_loss"]
    assert added == pytest.approx(WEIGHT * ranked_probability_score(p, log_q).mean().item(), rel=1e-4)
    perturbed = PGDAdversary(0.25)(p, log_q)
    if normalization == "labels":
        target = perturbed if adversary == "pgd" else p
        expected = hybrid_loss(log_q, target, votes.argmax(-1), 0.8).mean()
        assert losses[0].metrics["test_loss"] == pytest.approx(expected.item(), rel=1e-4)
    # The target matters: with the perturbed one the term would be another.
    other = ranked_probability_score(perturbed, log_q).mean().item()
    assert abs(WEIGHT * other - added) > 1e-2
    # The logged score is to the votes.
    for result in losses:
        assert result.metrics["test_rps"] == pytest.approx(
            ranked_probability_score(votes, log_q).mean().item(), rel=1e-4
        )


def test_the_score_is_logged_for_ordered_labels_with_and_without_the_term(tokenizer, tmp_path):
    found = {}
    for weight in (0.0, 50.0):
        trainer = make_trainer(
            tokenizer,
            tmp_path / str(weight),
            eval_dataset=make_records(9, seed=1),
            ordinal=True,
            ordinal_loss_weight=weight,
            adversary="none",
            eval_strategy="epoch",
            num_train_epochs=4,
            learning_rate=3e-3,
        )
        trainer.train()
        found[weight] = trajectory(trainer, "loss", "kl", "ce", "rps")
        assert any(0 < entry.get("eval_rps", 0) < 1 for entry in trainer.state.log_history)
        loss, kl, ce, rps = found[weight].T
        torch.testing.assert_close(loss, 0.8 * kl + 0.2 * ce + weight * rps, atol=1e-4, rtol=1e-4)
    # The same first step, and what is asked for afterwards.
    assert found[0.0][0, 3] == pytest.approx(found[50.0][0, 3])
    assert found[50.0][-1, 3] < found[0.0][-1, 3] < found[0.0][0, 3]


def test_labels_without_an_order_have_no_score(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path)
    trainer.train()
    assert not [name for entry in trainer.state.log_history for name in entry if "rps" in name]
    assert "test_rps" not in trainer.predict(make_records(6)).metrics


def test_labels_without_an_order_are_refused_in_scripts_before_a_model_is_loaded(tokenizer, tmp_path):
    with pytest.raises(UserInputError, match=r"`ordinal_loss_weight=1` needs labels .*1, 2, 3, 4, 5 have none.*"):
        make_trainer(tokenizer, tmp_path, model="no such model", ordinal_loss_weight=1.0)


def test_judge_and_card_say_with_which_weight_it_was_trained(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path, ordinal=True, ordinal_loss_weight=2.5, max_steps=1)
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "judge.json").read_text())["training"]["ordinal_loss_weight"] == 2.5
    trainer.create_model_card()
    assert "| ordinal_loss_weight | 2.5 |" in (tmp_path / "README.md").read_text()
    assert trainer.describe_run()["settings"]["ordinal_loss_weight"] == 2.5


def test_the_best_checkpoint_has_the_lowest_score(tmp_path):
    args = DistributionSFTConfig(str(tmp_path), use_cpu=True, metric_for_best_model="eval_rps")
    assert args.greater_is_better is False
