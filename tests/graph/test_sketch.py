"""The sketch of the node axis."""

from __future__ import annotations

import pytest
import torch

from gnnkd.graph.sketch import buckets_and_signs, sketch, sketch_matrix


def test_no_sketch_when_the_graph_is_small() -> None:
    ids = torch.arange(10)
    h = torch.randn(10, 3)
    assert sketch_matrix(ids, 10, 10) is None
    assert sketch(None, h) is h


def test_each_node_falls_into_one_bucket_with_one_sign() -> None:
    r = sketch_matrix(torch.arange(500), 500, 32)
    assert r is not None
    dense = r.dense()
    assert dense.shape == (32, 500)
    assert torch.equal(dense.abs().sum(0), torch.ones(500))


def test_the_hash_reads_ids_only() -> None:
    """A mini-batch falls into the buckets that the full graph gave it, in any order."""
    bucket, sign = buckets_and_signs(torch.arange(1000), 64)
    some = torch.tensor([999, 3, 500])
    assert torch.equal(buckets_and_signs(some, 64)[0], bucket[some])
    assert torch.equal(buckets_and_signs(some, 64)[1], sign[some])


def test_the_hash_is_the_same_on_every_machine() -> None:
    bucket, sign = buckets_and_signs(torch.tensor([0, 1, 2, 1_000_000, 2**40]), 2048)
    assert bucket.tolist() == [1330, 1136, 815, 63, 1330]
    assert sign.tolist() == [-1.0, 1.0, 1.0, -1.0, -1.0]


def test_buckets_are_even_and_signs_are_fair() -> None:
    bucket, sign = buckets_and_signs(torch.arange(64_000), 64)
    counts = torch.bincount(bucket, minlength=64).double()
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 120  # 63 degrees of freedom: beyond 120 with probability 2e-5
    assert abs(float(sign.mean())) < 0.015
    assert abs(float((sign * (bucket % 2 * 2 - 1)).mean())) < 0.02


def test_inner_products_are_kept_in_expectation() -> None:
    """Averaged over many disjoint sets of ids, `(Ra).(Rb)` is `a.b`; its spread falls with the number of buckets."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(300, 1, generator=rng)
    b = a + torch.randn(300, 1, generator=rng)
    exact = float((a * b).sum())
    errors = {}
    for m in (32, 256):
        found = []
        for start in range(0, 60_000, 300):
            r = sketch_matrix(torch.arange(start, start + 300), 60_000, m)
            found.append(float((sketch(r, a) * sketch(r, b)).sum()) / exact - 1)
        samples = torch.tensor(found)
        errors[m] = float(samples.std())
        assert abs(float(samples.mean())) < 4 * errors[m] / len(found) ** 0.5
    assert errors[256] < 0.6 * errors[32]


@pytest.mark.parametrize("m", [16, 60])
@pytest.mark.parametrize("every", [torch.arange(60), 7 + 3 * torch.arange(60)])
def test_the_sketches_of_disjoint_batches_add_up_to_that_of_the_whole(m: int, every: torch.Tensor) -> None:
    """And each is the whole one, restricted to its rows; with a bucket for each node, too."""
    h = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    whole = sketch_matrix(every, 60, m, every)
    dense = torch.eye(60) if whole is None else whole.dense()
    found = torch.zeros(m, 4)
    for rows in torch.split(torch.randperm(60, generator=torch.Generator().manual_seed(1)), 17):
        r = sketch_matrix(every[rows], 60, m, every)
        assert r is not None
        assert torch.equal(r.dense(), dense[:, rows])
        found += sketch(r, h[rows])
    torch.testing.assert_close(found, sketch(whole, h))


def test_all_nodes_in_another_order_are_no_identity() -> None:
    ids = torch.tensor([9, 2, 4])
    r = sketch_matrix(ids, 3, 8)
    assert r is not None
    assert torch.equal(r.dense()[:3].argmax(0), torch.tensor([2, 0, 1]))
    assert sketch_matrix(ids.sort().values, 3, 8) is None


@pytest.mark.parametrize("every", [None, torch.tensor([0, 2, 4])])
def test_a_row_of_no_known_node_is_refused(every: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="none of the 3 nodes"):
        sketch_matrix(torch.tensor([0, 3]), 3, 8, every)
