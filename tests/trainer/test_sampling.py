"""Which rows meet in a batch, on any number of processes and in runs that are resumed."""

import json

import numpy as np
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from tiny_trainers import make_article_records, make_trainer, trajectory
from torch.utils.data import DataLoader

from distjudge_trl.batching import PrefixGroupSampler
from distjudge_trl.errors import UserInputError
from distjudge_trl.trainer import DistributionSFTConfig
from distjudge_trl.trainer.sampling import pass_epoch_to_sampler


def drawn(trainer, epoch=0):
    """Rows of every batch that training reads, by their place in the data set."""
    places = {tuple(ids): i for i, ids in enumerate(trainer.train_dataset["input_ids"])}
    trainer.data_collator = lambda features: {"rows": [places[tuple(f["input_ids"])] for f in features]}
    loader = trainer.get_train_dataloader()
    loader.set_epoch(epoch)
    return [batch["rows"] for batch in loader]


def test_rows_that_begin_alike_are_drawn_into_one_batch(tokenizer, tmp_path):
    """Thirty rows of six articles: five rows of one each, in another order in every epoch."""
    records = make_article_records()
    batches = drawn(make_trainer(tokenizer, tmp_path, records, per_device_train_batch_size=5))
    assert sorted(i for batch in batches for i in batch) == list(range(30))
    assert all(len({i % 6 for i in batch}) == 1 for batch in batches)
    others = [
        drawn(make_trainer(tokenizer, tmp_path, records, per_device_train_batch_size=5, **settings), epoch)
        for settings, epoch in (({}, 0), ({}, 1), ({"seed": 3}, 0), ({"data_seed": 3}, 0))
    ]
    assert others[0] == batches and others[1] != batches and others[2] != batches and others[3] == others[2]


@pytest.mark.parametrize(
    ("settings", "grouped"),
    [
        ({"train_sampling_strategy": "random"}, False),
        ({"share_prefixes": False}, False),
        ({"share_prefixes": False, "train_sampling_strategy": "group_by_prefix"}, True),
    ],
)
def test_how_batches_are_drawn_can_be_chosen(tokenizer, tmp_path, settings, grouped):
    trainer = make_trainer(tokenizer, tmp_path, make_article_records(), per_device_train_batch_size=5, **settings)
    assert all(len({i % 6 for i in batch}) == 1 for batch in drawn(trainer)) is grouped


def test_rows_that_share_an_instruction_alone_are_drawn_at_random(tokenizer, tmp_path):
    trainer = make_trainer(tokenizer, tmp_path)
    assert trainer._sampling.strategy == "random"


def test_an_unknown_way_of_drawing_batches_is_refused(tmp_path):
    with pytest.raises(UserInputError, match="`train_sampling_strategy` must be one of auto, random"):
        DistributionSFTConfig(str(tmp_path), train_sampling_strategy="by_prefix")


def test_a_run_of_groups_that_is_resumed_draws_the_batches_that_are_left(tokenizer, tmp_path):
    settings = {"per_device_train_batch_size": 5, "max_steps": 10, "save_strategy": "steps", "save_steps": 4}
    whole = make_trainer(tokenizer, tmp_path, make_article_records(), **settings)
    whole.train()
    resumed = make_trainer(tokenizer, tmp_path / "again", make_article_records(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    names = ("loss", "grad_norm", "kl")
    np.testing.assert_allclose(trajectory(resumed, *names), trajectory(whole, *names), rtol=1e-5)
    other = make_trainer(
        tokenizer, tmp_path / "other", make_article_records(), train_sampling_strategy="random", **settings
    )
    with pytest.raises(UserInputError, match="way of drawing batches .* was group_by_prefix, this run's was random"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def resumed_epoch(rows, epoch, skip, processes):
    """Rows that processes read in an epoch of groups of four, the first `skip` batches left out; as accelerate deals
    batches out and skips them.
    """
    found = []
    for rank in range(processes):
        sampler = PrefixGroupSampler(rows, 4)
        loader = prepare_data_loader(
            DataLoader(range(len(rows)), batch_size=4, sampler=sampler, collate_fn=list),
            num_processes=processes,
            process_index=rank,
            put_on_device=False,
        )
        pass_epoch_to_sampler(loader, sampler)
        if skip:
            loader = skip_first_batches(loader, skip)
        loader.set_epoch(epoch)
        found.append(list(loader))
    return found


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_resumed_epoch_goes_on_where_it_was_on_every_process(processes):
    rows = [[i % 7, i % 5, i] for i in range(48)]
    for epoch in (0, 1, 2):
        whole = resumed_epoch(rows, epoch, 0, processes)
        assert sorted(i for batches in whole for batch in batches for i in batch) == list(range(48))
        rest = resumed_epoch(rows, epoch, 2, processes)
        assert rest == [batches[2:] for batches in whole]
    assert resumed_epoch(rows, 1, 0, processes) != resumed_epoch(rows, 0, 0, processes)


def test_a_run_of_groups_goes_on_with_another_batch_per_process(tokenizer, tmp_path):
    """Rows of the rest of an epoch are those that it had left: no row is read twice."""
    settings = {"max_steps": 9, "save_strategy": "steps", "save_steps": 4, "train_sampling_strategy": "auto"}
    whole = make_trainer(
        tokenizer,
        tmp_path,
        make_article_records(),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        **settings,
    )
    whole.train()
    other = make_trainer(
        tokenizer,
        tmp_path / "other",
        make_article_records(),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        share_prefixes=False,
        **settings,
    )
    other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    names = ("loss", "kl")
    np.testing.assert_allclose(trajectory(other, *names), trajectory(whole, *names), rtol=1e-4)
    assert other._sampling.describe() == {"train_sampling_strategy": "group_by_prefix", "group_size": 4}


def test_a_run_from_before_groups_goes_on_at_random(tokenizer, tmp_path):
    settings = {"per_device_train_batch_size": 5, "max_steps": 6, "save_strategy": "steps", "save_steps": 4}
    whole = make_trainer(tokenizer, tmp_path, make_article_records(), train_sampling_strategy="random", **settings)
    whole.train()
    path = tmp_path / "checkpoint-4/checkpoint.json"
    content = json.loads(path.read_text())
    del content["run"]["train_sampling_strategy"], content["run"]["group_size"]
    path.write_text(json.dumps(content))
    resumed = make_trainer(tokenizer, tmp_path / "again", make_article_records(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    names = ("loss", "grad_norm", "kl")
    np.testing.assert_allclose(trajectory(resumed, *names), trajectory(whole, *names), rtol=1e-5)


def test_the_rows_are_read_once_to_decide_and_to_draw(tokenizer, tmp_path, monkeypatch):
    made = []
    init = PrefixGroupSampler.__init__
    monkeypatch.setattr(PrefixGroupSampler, "__init__", lambda *args: made.append(1) or init(*args))
    trainer = make_trainer(tokenizer, tmp_path, make_article_records(), per_device_train_batch_size=5)
    trainer.train()
    assert trainer._sampling.strategy == "group_by_prefix" and len(made) == 1
