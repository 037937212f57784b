"""Laws of the nearest-neighbour graph."""

from __future__ import annotations

import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.graph.build import attached, knn, nearest


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(90, 5, generator=torch.Generator().manual_seed(0))


def pairs(edge_index: torch.Tensor) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in edge_index.T}


def test_edges_go_both_ways_once_and_never_to_the_node_itself(points):
    edge_index = knn(points, 4)
    edges = pairs(edge_index)
    assert len(edges) == edge_index.shape[1]
    assert all((j, i) in edges and i != j for i, j in edges)


def test_it_equals_the_slow_version(points):
    distance = (points[:, None].double() - points).square().sum(-1)
    slow = set()
    for i in range(len(points)):
        order = sorted((j for j in range(len(points)) if j != i), key=lambda j: float(distance[i, j]))
        slow |= {(i, j) for j in order[:4]} | {(j, i) for j in order[:4]}
    assert pairs(knn(points, 4)) == slow


def test_it_does_not_depend_on_the_block(points, monkeypatch):
    whole = knn(points, 3)
    monkeypatch.setattr(nearest, "_ENTRIES_AT_ONCE", 7 * len(points))
    assert torch.equal(whole, knn(points, 3))


def test_renumbered_points_give_the_renumbered_graph(points):
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    assert pairs(order[knn(points[order], 4)]) == pairs(knn(points, 4))


def test_all_others_as_neighbours_is_the_complete_graph(points):
    assert knn(points[:6], 5).shape == (2, 30)


def test_equal_distances_go_to_the_lower_id():
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert {(0, 1), (0, 2)} <= pairs(knn(corners, 2))
    # The arms are as far from each other; each takes the centre first and then the lowest arm.
    assert (0, 1) in pairs(knn(corners, 1))
    assert pairs(knn(torch.zeros(4, 1), 1)) == {(0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0)}


@pytest.mark.parametrize("k", [0, 90])
def test_k_out_of_range_is_refused(points, k):
    with pytest.raises(UserError, match=f"k is {k}; the 90 nodes allow 1 to 89"):
        knn(points, k)


def test_attached_nodes_have_no_say_in_the_edges_of_those_before_them(points):
    observed = torch.rand(len(points), generator=torch.Generator().manual_seed(2)) < 0.7
    moved = torch.where(observed[:, None], points, -3 * points)
    first = observed.nonzero().flatten()
    for some in (points, moved):
        edges = attached(some, observed, 4)
        among = edges[:, observed[edges[0]] & observed[edges[1]]]
        assert pairs(among) == pairs(first[knn(points[first], 4)])
    later = (~observed).nonzero().flatten().tolist()
    whole, edges = pairs(knn(points, 4)), pairs(attached(points, observed, 4))
    assert {e for e in whole if e[1] in later and e[0] in later} <= edges
    assert all(sum((j, i) in edges for j in range(len(points))) >= 4 for i in later)


def test_nothing_to_attach_is_the_plain_graph(points):
    assert torch.equal(attached(points, torch.ones(len(points), dtype=torch.bool), 4), knn(points, 4))
