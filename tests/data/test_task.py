"""Laws of the task: protocols, features, fingerprint, batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gnnkd.data.dataset import NodeDataset, from_arrays
from gnnkd.data.features import row_normalised
from gnnkd.data.task import protocols, task
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.types import UNKNOWN

N = 330
PART = 310
"""The first nodes form a ring, the rest a smaller one of a class of its own."""


def ring(first: int, last: int) -> np.ndarray:
    ids = np.arange(first, last)
    return np.stack([ids, np.roll(ids, -1)])


def make(protocol: str = "given", masks: bool = False, sparse: bool = False) -> NodeDataset:
    rng = np.random.RandomState(0)
    y = np.where(np.arange(N) < PART, np.arange(N) % 3 * 10, 77)
    y[5] = UNKNOWN
    x = rng.rand(N, 6).astype(np.float32)
    if sparse:
        x = np.where(rng.rand(N, 60) < 0.05, 2.0, 0.0).astype(np.float32)
    arrays = {"x": x, "y": y, "edge_index": np.concatenate([ring(0, PART), ring(PART, N)], 1)}
    if masks:
        ids = np.arange(N)
        arrays |= {"train_mask": ids < 3, "val_mask": (ids > 10) & (ids < 20), "test_mask": ids > 200}
    return from_arrays(arrays, protocol=protocol)


def dense(x):
    return x.dense() if isinstance(x, CSR) else x


def test_the_default_is_the_split_that_came_with_the_data_then_cpf():
    for data, there in (
        (make(protocol="public", masks=True), ["public", "cpf", "random"]),
        (make(protocol="ogb", masks=True), ["ogb", "cpf", "random"]),
        (make(masks=True), ["given", "cpf", "random"]),
        (make(), ["cpf", "random"]),
    ):
        assert protocols(data) == there
        assert task(data, seed=0).protocol == there[0]


@pytest.mark.parametrize("sparse", [True, False])
def test_cpf_is_of_the_largest_component_in_the_original_order(sparse):
    data = make(sparse=sparse)
    t = task(data, protocol="cpf", seed=0)
    assert t.index.tolist() == list(range(PART))
    assert torch.equal(dense(t.x), dense(data.x)[:PART])
    assert t.graph.edge_index.tolist() == data.graph.subgraph(t.index).edge_index.tolist()
    assert t.split.sizes == (60, 90, PART - 150 - 1)
    assert not bool((t.split.train | t.split.val | t.split.test)[5])


def test_a_class_outside_the_component_keeps_the_ids_of_the_others():
    t = task(make(), protocol="cpf", seed=0)
    assert (t.n_classes, t.classes) == (4, (0, 10, 20, 77))
    assert sorted(set(t.y.tolist())) == [-1, 0, 1, 2]
    assert any("1 of 4 classes do not occur" in note for note in t.notes)


def test_cpf_counts_the_component_only_and_names_the_users_label():
    data = make()
    data.y[:PART][data.y[:PART] == 2] = 3
    data.y[:50] = 2
    with pytest.raises(UserError, match="class 20 has 50"):
        task(data, protocol="cpf", seed=0)


def test_masks_are_taken_as_they_are():
    data = make(masks=True)
    t = task(data, seed=0)
    assert torch.equal(t.split.test, data.split.test)
    assert t.n_nodes == N


def test_random_is_of_all_nodes_by_fractions():
    t = task(make(), protocol="Random", seed=0, fractions=(0.2, 0.2, 0.2))
    assert t.n_nodes == N
    assert t.split.sizes == (66, 66, 65)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "public"}, "has no split 'public'; it has cpf, random"),
        ({"protocol": "pubic"}, r"unknown split 'pubic'.*did you mean 'public'"),
        ({"setting": "inductive"}, "unknown setting 'inductive'; allowed: ind, tran"),
        ({"normalise": "rows"}, r"unknown feature normalisation 'rows'.*did you mean 'row'"),
        ({"fractions": (0.1, 0.1, 0.8)}, "fractions are of the split 'random'"),
    ],
)
def test_wrong_words(options, message):
    with pytest.raises(UserError, match=message):
        task(make(), seed=0, **options)


@pytest.mark.parametrize("sparse", [True, False])
def test_features_are_rows_of_sum_one_under_public_and_raw_otherwise(sparse):
    data = make(protocol="public", masks=True, sparse=sparse)
    public, other = task(data, seed=0), task(data, protocol="random", seed=0)
    assert (public.features, other.features) == ("row", "raw")
    total = dense(public.x).sum(1)
    torch.testing.assert_close(total, (dense(data.x).sum(1) > 0).float())
    assert torch.equal(dense(other.x), dense(data.x))
    assert type(public.x) is type(data.x)
    assert task(data, seed=0, normalise="raw").features == "raw"
    assert task(data, protocol="cpf", seed=0, normalise="row").features == "row"


def test_normalising_twice_is_normalising_once_and_sparse_is_dense():
    x = torch.tensor([[1.0, 3.0], [0.0, 0.0], [0.0, 2.0]])
    once = row_normalised(x, "x")
    assert once.tolist() == [[0.25, 0.75], [0.0, 0.0], [0.0, 1.0]]
    assert torch.equal(row_normalised(once, "x"), once)
    assert torch.equal(row_normalised(CSR.from_dense(x), "x").dense(), once)


def test_negative_features_have_no_row_normalisation():
    with pytest.raises(UserError, match=r"mine: features as low as -2; .*normalise=raw"):
        row_normalised(torch.tensor([[3.0, -2.0]]), "mine")


def test_the_fingerprint_is_of_rows_edges_split_and_features_but_not_of_labels():
    data = make(masks=True)
    base = task(data, seed=0).fingerprint
    assert base == task(make(masks=True), seed=4).fingerprint
    assert base == task(replace(data, y=data.y.flip(0)), seed=0).fingerprint
    others = [
        task(data, seed=0, protocol="cpf"),
        task(data, seed=1, protocol="cpf"),
        task(data, seed=0, protocol="random"),
        task(data, seed=0, normalise="row"),
        task(replace(data, split=replace(data.split, val=data.split.val.roll(1))), seed=0),
        task(replace(data, graph=data.graph.subgraph(torch.arange(N).flip(0).roll(5))), seed=0),
    ]
    assert len({base, *(t.fingerprint for t in others)}) == 1 + len(others)


def test_the_fingerprint_is_the_same_on_every_machine():
    known = "9db9178049a3ad17f624acfc8436617357935b077e03b8c50710867e44c1c7e0"
    assert task(make(masks=True), seed=0).fingerprint == known


def test_a_batch_shows_the_labels_that_may_be_read_and_no_other():
    t = task(make(), protocol="cpf", seed=0)
    batch = t.batch(t.split.train)
    assert torch.equal(batch.y[t.split.train], t.y[t.split.train])
    assert set(batch.y[~t.split.train].tolist()) == {UNKNOWN}
    assert torch.equal(batch.index, t.index)
    assert batch.graph is t.graph
    assert batch.x is t.x


@pytest.mark.parametrize("sparse", [True, False])
def test_a_task_goes_to_a_device_whole(sparse):
    t = task(make(sparse=sparse), seed=0)
    there = t.to("cpu")
    assert there.fingerprint == t.fingerprint
    assert torch.equal(dense(there.x), dense(t.x))
    assert (there.n_nodes, there.n_features, there.n_classes) == (t.n_nodes, t.n_features, t.n_classes)
