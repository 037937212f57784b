"""Laws of the nearest-neighbour graph."""

from __future__ import annotations

import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.graph import build
from gnnkd.graph.build import knn


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
    monkeypatch.setattr(build, "_ENTRIES_AT_ONCE", 7 * len(points))
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
