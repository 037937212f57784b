"""Laws of the splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.graph.split import Split, cpf, largest_component, random, unseen
from gnnkd.types import UNKNOWN

SIZES = (60, 51, 200)


@pytest.fixture
def y() -> torch.Tensor:
    """Three classes, and 40 nodes whose class is unknown."""
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(SIZES)] + [torch.full((40,), UNKNOWN)])
    return labels[torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(0))]


def same(a: Split, b: Split) -> bool:
    return torch.equal(a.train, b.train) and torch.equal(a.val, b.val) and torch.equal(a.test, b.test)


def draws(y: torch.Tensor) -> list[Split]:
    return [cpf(y, 3), random(y, 3)]


def test_the_sets_are_disjoint_and_cover_exactly_the_known_nodes(y):
    for split in draws(y):
        assert torch.equal(split.train.int() + split.val.int() + split.test.int(), (y != UNKNOWN).int())


def test_a_seed_repeats_and_another_differs(y):
    for draw in (cpf, random):
        assert same(draw(y, 5), draw(y, 5))
        assert not same(draw(y, 5), draw(y, 6))


def test_cpf_takes_20_and_30_of_each_class(y):
    split = cpf(y, 0)
    for c, n in enumerate(SIZES):
        assert [int((mask & (y == c)).sum()) for mask in (split.train, split.val, split.test)] == [20, 30, n - 50]


def test_cpf_equals_the_published_draws_written_out_slowly(y):
    rng = np.random.RandomState(11)
    members = [[i for i in range(y.numel()) if y[i] == c] for c in range(3)]
    train = np.concatenate([rng.choice(m, 20, replace=False) for m in members])
    left = [[i for i in m if i not in train] for m in members]
    val = np.concatenate([rng.choice(m, 30, replace=False) for m in left])
    split = cpf(y, 11)
    assert sorted(train) == split.train.nonzero().flatten().tolist()
    assert sorted(val) == split.val.nonzero().flatten().tolist()


def test_cpf_depends_on_the_order_of_classes_only_and_not_on_their_ids(y):
    spread = torch.where(y == UNKNOWN, UNKNOWN, 3 * y + 1)
    assert same(cpf(y, 2), cpf(spread, 2))


def test_random_does_not_look_at_the_classes(y):
    known = y != UNKNOWN
    shuffled = y.clone()
    shuffled[known] = y[known].flip(0)
    assert same(random(y, 2), random(shuffled, 2))


def test_random_takes_the_fractions_of_the_known_nodes(y):
    assert random(y, 0).sizes == (31, 31, 249)
    assert random(y, 0, (0.5, 0.1, 0.2)).sizes == (156, 31, 62)
    assert sum(random(y, 0, (1 / 3, 1 / 3, 1 / 3)).sizes) == sum(SIZES)


def test_a_class_too_small_is_named_as_the_user_names_it(y):
    y[(y == 1).nonzero()[0]] = UNKNOWN
    with pytest.raises(UserError, match=r"at least 51 nodes .* class 70 has 50; try --split random"):
        cpf(y, 0, labels=[7, 70, 9])
    with pytest.raises(UserError, match=r"class 1 has 50"):
        cpf(y, 0)


def test_cpf_needs_a_known_node():
    with pytest.raises(UserError, match="there are none"):
        cpf(torch.full((60,), UNKNOWN), 0)


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.4, 0.2), (0.0, 0.5, 0.5), (-0.1, 0.5, 0.5), (float("nan"), 0.1, 0.1)]
)
def test_fractions_out_of_range_are_refused(y, fractions):
    with pytest.raises(UserError, match="three numbers > 0"):
        random(y, 0, fractions)


def test_a_fraction_too_small_for_a_node_is_refused(y):
    with pytest.raises(UserError, match="no validation node"):
        random(y, 0, (0.5, 1e-6, 0.4))


def test_unseen_nodes_are_the_draw_written_out_slowly(y):
    test = cpf(y, 4).test
    members = [i for i in range(y.numel()) if test[i]]
    drawn = np.random.RandomState(4).choice(members, round(0.2 * len(members)), replace=False)
    assert unseen(test, 4).nonzero().flatten().tolist() == sorted(drawn)


@pytest.mark.parametrize(("tested", "count"), [(2, 1), (3, 1), (7, 1), (8, 2), (1000, 200)])
def test_a_fifth_of_the_test_nodes_is_unseen_at_least_one_and_never_all(tested, count):
    test = torch.arange(1200) < tested
    drawn = unseen(test, 0)
    assert int(drawn.sum()) == count
    assert not bool((drawn & ~test).any())


@pytest.mark.parametrize("tested", [0, 1])
def test_a_test_set_too_small_for_unseen_nodes_is_refused(tested):
    with pytest.raises(UserError, match=f"at least 2 test nodes.* has {tested}; use --setting tran"):
        unseen(torch.arange(9) < tested, 0)


def test_rows_of_a_split_are_the_masks_of_the_kept_nodes(y):
    split, kept = cpf(y, 0), torch.arange(y.numel()) % 3 > 0
    assert torch.equal(split.rows(kept).test.nonzero(), split.test[kept].nonzero())
    assert split.rows(torch.ones_like(kept)).sizes == split.sizes


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(y, seed):
    with pytest.raises(UserError, match=f"seed is {seed}"):
        cpf(y, seed)


def test_the_largest_component_keeps_the_order_and_ignores_directions():
    edge_index = torch.tensor([[6, 4, 2, 1], [4, 2, 0, 3]])
    assert largest_component(edge_index, 8).tolist() == [0, 2, 4, 6]


def test_of_equal_components_the_one_with_the_lowest_id_is_taken():
    assert largest_component(torch.tensor([[2, 3], [5, 1]]), 6).tolist() == [1, 3]


def test_without_edges_the_first_node_is_the_largest_component():
    assert largest_component(torch.empty(2, 0, dtype=torch.long), 3).tolist() == [0]


def test_the_largest_component_of_itself_is_all_of_it():
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert largest_component(edge_index, 4).tolist() == [0, 1, 2, 3]


def test_a_split_goes_to_a_device(y):
    assert cpf(y, 0).to("meta").train.device.type == "meta"
