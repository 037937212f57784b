"""Laws of the normalisations: PyG's values, and limits."""

from __future__ import annotations

import pytest
import torch

from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR

N = 12


def edges(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Directed edges with self loops, equal places and isolated nodes (the last two)."""
    g = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(N - 2, (2, 40), generator=g)
    edge_index = torch.cat([edge_index, torch.tensor([[3, 3, 5], [3, 3, 5]]), edge_index[:, :4]], 1)
    return edge_index, torch.rand(edge_index.shape[1], generator=g) + 0.1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_gcn_is_pygs(weighted: bool, seed: int) -> None:
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    edge_index, weight = edges(seed)
    weight = weight if weighted else None
    (source, target), value = gcn_norm(edge_index, weight, N)
    want = torch.zeros(N, N).index_put((target, source), value, accumulate=True)
    assert torch.allclose(normalise.gcn(CSR.from_edge_index(edge_index, N, weight)).dense(), want)


def test_gcn_of_a_symmetric_graph_is_symmetric_with_spectrum_in_one() -> None:
    edge_index, _ = edges()
    a = normalise.gcn(CSR.from_edge_index(torch.cat([edge_index, edge_index.flip(0)], 1), N)).dense()
    assert torch.allclose(a, a.t())
    assert torch.linalg.eigvalsh(a).abs().max() <= 1 + 1e-5


def test_gcn_of_no_edges_is_the_identity() -> None:
    a = CSR.from_edge_index(torch.empty(2, 0, dtype=torch.long), N)
    assert torch.equal(normalise.gcn(a).dense(), torch.eye(N))
    assert torch.equal(normalise.mean_with_self(a).dense(), torch.eye(N))
    assert torch.equal(normalise.mean(a).dense(), torch.zeros(N, N))


def test_a_sum_of_zero_passes_nothing_on() -> None:
    a = CSR.from_edge_index(torch.tensor([[0], [0]]), 2, torch.zeros(1))
    assert normalise.gcn(a).dense().tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert normalise.mean(a).dense().tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("weighted", [False, True])
def test_means_are_dense_means(weighted: bool) -> None:
    edge_index, weight = edges()
    a = CSR.from_edge_index(edge_index, N, weight if weighted else None)
    dense = a.dense()
    assert torch.allclose(normalise.mean(a).dense(), dense / dense.sum(1, keepdim=True).clamp(min=1e-9))
    with_self = dense + torch.eye(N)
    assert torch.allclose(normalise.mean_with_self(a).dense(), with_self / with_self.sum(1, keepdim=True))


def test_the_scale_of_all_weights_does_not_change_a_mean() -> None:
    edge_index, weight = edges()
    a = CSR.from_edge_index(edge_index, N, weight)
    assert torch.allclose(normalise.mean(a).dense(), normalise.mean(a.with_value(3 * a.values())).dense())


def test_self_loops_need_a_square_matrix() -> None:
    a = CSR.from_coo(torch.tensor([0]), torch.tensor([0]), None, (2, 3))
    with pytest.raises(ValueError, match="square"):
        normalise.gcn(a)


@pytest.mark.parametrize("fn", [normalise.gcn, normalise.mean, normalise.mean_with_self])
def test_weights_are_differentiable(fn: object) -> None:
    edge_index, weight = edges()
    value = weight.double().requires_grad_()
    a = CSR.from_edge_index(edge_index, N)

    def out(value: torch.Tensor) -> torch.Tensor:
        return fn(a.with_value(value)).dense().tanh()

    assert torch.autograd.gradcheck(out, (value,))


@pytest.mark.parametrize("weighted", [False, True])
def test_symmetric_is_pygs_without_added_loops(weighted: bool) -> None:
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    edge_index, weight = edges()
    weight = weight if weighted else None
    (source, target), value = gcn_norm(edge_index, weight, N, add_self_loops=False)
    want = torch.zeros(N, N).index_put((target, source), value, accumulate=True)
    assert torch.allclose(normalise.symmetric(CSR.from_edge_index(edge_index, N, weight)).dense(), want)


def test_symmetric_has_a_gradient_where_a_node_has_no_edge() -> None:
    edge_index, weight = edges()
    weight.requires_grad_()
    (found,) = torch.autograd.grad(
        normalise.symmetric(CSR.from_edge_index(edge_index, N, weight)).values().sum(), weight
    )
    assert bool(found.isfinite().all())
