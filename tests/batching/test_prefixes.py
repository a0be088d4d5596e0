"""What sharing beginnings saves, and batches in which rows that begin alike meet."""

import random
from itertools import pairwise

import pytest

from distjudge_trl.batching.prefixes import (
    PrefixGroupSampler,
    PrefixSharing,
    common_length,
    packed_length,
    packed_work,
    padded_work,
    prefix_tree,
    reading_order,
    saved_by_grouping,
)


def articles(count=12, systems=16, length=200, seed=0):
    """Rows as SummEval has them, in no order: an instruction, one of some articles, a summary."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        article = [rng.randrange(1000) for _ in range(length)]
        rows += [
            [7] * 20 + article + [rng.randrange(1000) for _ in range(rng.randint(10, 30))] for _ in range(systems)
        ]
    rng.shuffle(rows)
    return rows


def random_rows(count, seed=0, tokens=3, longest=8):
    """Rows of few different tokens: many beginnings in common, duplicates, rows that are beginnings of others."""
    rng = random.Random(seed)
    return [[rng.randrange(tokens) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def test_common_length_is_where_rows_part():
    for one, other in zip(random_rows(300, 1), random_rows(300, 2), strict=True):
        expected = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        assert common_length(one, other) == (min(len(one), len(other)) if expected is None else expected)


def test_a_pack_holds_every_different_beginning_once():
    for seed in range(20):
        rows = random_rows(30, seed)
        beginnings = {tuple(row[: i + 1]) for row in rows for i in range(len(row))}
        assert packed_length(rows) == len(beginnings)


def test_a_batch_is_packed_where_that_saves_work_for_certain():
    small, large = PrefixSharing(width=64), PrefixSharing(width=4096)
    prefix = list(range(100))
    assert small.packs([[*prefix, i] for i in range(16)])
    assert not small.packs([list(range(i, i + 100)) for i in range(16)])
    # A third of the tokens, but 10,000 of them attend to each other.
    long = [list(range(800)) + [1000 + i] * 400 for i in range(25)]
    assert not small.packs(long) and large.packs(long)
    assert not small.packs([[1, 2, 3]])
    # Unless attention skips what is masked.
    assert PrefixSharing(width=64, mask="blocks").packs(long)
    assert PrefixSharing(width=64, mask="tiles").packs(long)
    work = [packed_work(long, 64, mask) for mask in ("dense", "tiles", "blocks")]
    assert work[0] > 4 * work[1] and work[1] > work[2]


def test_the_work_of_a_batch_is_that_of_the_way_it_is_read_in():
    rows = [[*range(100), i] for i in range(16)]
    packed, padded = packed_work(rows, 64), padded_work(rows, 64)
    assert PrefixSharing(width=64).work(rows) == packed < padded
    assert PrefixSharing(width=64, longest=100).work(rows) == padded
    unlike = [list(range(i, i + 100)) for i in range(16)]
    assert PrefixSharing(width=64).work(unlike) == padded_work(unlike, 64)
    assert PrefixSharing(width=64, always=True).work(unlike) == packed_work(unlike, 64)


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_holds_every_row_once_and_its_nodes_share_more_than_their_parents(seed):
    rows = random_rows(200, seed)
    tree = prefix_tree(rows)
    below, shared = [], []
    for leaves, nodes in tree:
        members = [*leaves, *(row for node in nodes for row in below[node])]
        below.append(members)
        shared.append(min(common_length(rows[members[0]], rows[row]) for row in members))
        assert len(leaves) + len(nodes) > 1 or len(tree) == 1
        assert all(shared[node] > shared[-1] for node in nodes)
    assert sorted(below[-1]) == list(range(len(rows)))
    assert sorted(row for leaves, _ in tree for row in leaves) == list(range(len(rows)))


@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_an_epoch_draws_every_row_once_in_whole_batches(size):
    sampler = PrefixGroupSampler(random_rows(101), size)
    batches = sampler.batches()
    assert sorted(row for batch in batches for row in batch) == list(range(101)) and len(sampler) == 101
    assert [len(batch) for batch in batches[:-1]] == [size] * (101 // size - (101 % size == 0))
    assert list(sampler) == [row for batch in batches for row in batch]


def test_rows_that_begin_alike_meet_and_groups_come_in_random_order():
    rows = articles()
    sampler = PrefixGroupSampler(rows, 8)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        articles_of = [{tuple(rows[i][20:40]) for i in batch} for batch in sampler.batches()]
        assert all(len(found) == 1 for found in articles_of)
        epochs.append([found.pop() for found in articles_of])
    # The two batches of an article stand side by side hardly ever: 12 articles, 24 batches.
    for order in epochs:
        assert sum(a == b for a, b in pairwise(order)) < 6
    assert epochs[0] != epochs[1]


def test_what_is_left_of_small_groups_meets_its_nearest():
    """Three of a kind do not fill a batch of four: the fourth comes from the same branch, if it can."""
    rows = [[branch, kind, i] for branch in range(4) for kind in range(4) for i in range(3)]
    for epoch in range(5):
        sampler = PrefixGroupSampler(rows, 4)
        sampler.set_epoch(epoch)
        assert all(len({rows[i][0] for i in batch}) == 1 for batch in sampler.batches())


def test_the_draw_depends_on_seed_and_epoch_alone():
    rows = articles()

    def draw(seed, epoch):
        sampler = PrefixGroupSampler(rows, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draw(3, 1) == draw(3, 1)
    assert draw(3, 1) != draw(3, 0) and draw(3, 1) != draw(4, 1)


def test_grouping_saves_what_rows_of_an_article_share():
    rows = articles()
    saved = saved_by_grouping(rows, PrefixGroupSampler(rows, 8))
    assert 0.6 < saved < 0.9
    unlike = random_rows(400, tokens=1000, longest=100)
    assert saved_by_grouping(unlike, PrefixGroupSampler(unlike, 8)) < 0.02
    # All begin alike: nothing is gained by drawing some of them together.
    alike = [[7] * 100 + row for row in unlike]
    assert saved_by_grouping(alike, PrefixGroupSampler(alike, 8)) < 0.02


def test_rows_are_read_by_content_only_where_that_is_less_work():
    rows = articles()
    order = reading_order(rows, 16, PrefixSharing(width=576))
    assert sorted(order) == list(range(len(rows)))
    assert all(len({tuple(rows[i][20:40]) for i in order[s : s + 16]}) == 1 for s in range(0, len(rows), 16))
    for sharing in (None, PrefixSharing(width=576)):
        unlike = random_rows(100, tokens=1000, longest=100)
        lengths = [len(unlike[i]) for i in reading_order(unlike, 16, sharing)]
        assert lengths == sorted(lengths, reverse=True)
    # Where rows are too long to be packed, or are not packed at all, they only pad each other.
    for sharing in (None, PrefixSharing(width=576, longest=100)):
        lengths = [len(rows[i]) for i in reading_order(rows, 16, sharing)]
        assert lengths == sorted(lengths, reverse=True)
    assert reading_order([], 16, PrefixSharing(width=576)) == []
