"""Positions: known nodes have their own, new ones the mean of their known neighbours', whatever the order of rows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from gnnkd import nn
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around.positions import Positions, beside

N, D, P, C = 24, 8, 3, 4
"""Of the rows the last six are new."""
IDS = torch.randperm(90, generator=torch.Generator().manual_seed(1))[:N]
KNOWN, NEW = torch.arange(18), torch.arange(18, N)


def _data() -> tuple[Tensor, Graph]:
    """Without multiple edges; the last node, a new one, has none."""
    rng = torch.Generator().manual_seed(0)
    there = torch.rand(N, N, generator=rng) < 0.3
    there[-1], there[:, -1] = False, False
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.4)
    return x, Graph(CSR.from_dense(there.float()).with_value(None))


def _network(model: str = "mlp") -> Positions:
    torch.manual_seed(0)
    ids, order = IDS[KNOWN].sort()
    inner = nn.MODELS[model](D + P, C, layers=2, width=6)
    return Positions(inner, ids, torch.randn(KNOWN.numel(), P)[order], n_features=D).eval()


def _slow(network: Positions, graph: Graph | None, index: Tensor) -> Tensor:
    """Node by node."""
    own = dict(zip(network.ids.tolist(), network.table, strict=True))
    found = torch.zeros(index.numel(), P)
    for i, name in enumerate(index.tolist()):
        if name in own:
            found[i] = own[name]
        elif graph is not None:
            near = graph.adjacency.col[graph.adjacency.row == i].tolist()
            means = [own[int(index[j])] for j in near if int(index[j]) in own]
            found[i] = torch.stack(means).mean(0) if means else torch.zeros(P)
    return found


def test_a_new_node_has_the_mean_of_its_known_neighbours() -> None:
    network, (_, graph) = _network(), _data()
    found = network.placed(N, graph, IDS)
    torch.testing.assert_close(found, _slow(network, graph, IDS))
    assert torch.equal(found[KNOWN], _slow(network, None, IDS)[KNOWN])
    assert (found[NEW[:-1]] != 0).any(1).all()
    assert not found[-1].any(), "it has no neighbour"


def test_without_a_graph_new_nodes_have_zeros_and_without_ids_all_nodes_are_new() -> None:
    network, (_, graph) = _network(), _data()
    assert torch.equal(network.placed(N, None, IDS), _slow(network, None, IDS))
    assert not network.placed(N, None, IDS)[NEW].any()
    assert not network.placed(N, graph, None).any()


def test_edges_are_read_where_a_row_is_new() -> None:
    network = _network()
    assert network.n_known == KNOWN.numel()
    assert not network.reads_edges(IDS[KNOWN])
    assert not network.reads_edges(IDS[KNOWN][:3].flip(0))
    assert network.reads_edges(IDS[15:20])
    assert network.reads_edges(torch.tensor([-1]))
    assert network.reads_edges(None)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("model", ["mlp", "gcn"])
def test_the_order_of_rows_does_not_matter(model: str, sparse: bool) -> None:
    network, (x, graph) = _network(model), _data()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    rows = CSR.from_dense(x) if sparse else x
    turned = CSR.from_dense(x[order]) if sparse else x[order]
    one = network(rows, graph, IDS).logits
    torch.testing.assert_close(network(turned, graph.subgraph(order), IDS[order]).logits, one[order])
    other = network(rows, graph, IDS.flip(0)).logits
    assert not torch.allclose(other, one), "ids say who is who, not places"


def test_edges_matter_to_new_rows_alone() -> None:
    network, (x, graph) = _network(), _data()
    nothing = Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), N)
    with_edges, without = network(x, graph, IDS).logits, network(x, nothing, IDS).logits
    assert torch.equal(without, network(x, None, IDS).logits)
    assert torch.equal(with_edges[KNOWN], without[KNOWN])
    assert not torch.allclose(with_edges[NEW[:-1]], without[NEW[:-1]])
    assert torch.equal(network(x, graph.edge_index, IDS).logits, with_edges)


def test_sparse_rows_get_the_same_columns_as_dense_ones() -> None:
    x, _ = _data()
    p = torch.randn(N, P)
    found = beside(CSR.from_dense(x), p)
    assert isinstance(found, CSR)
    assert torch.equal(found.dense(), torch.cat([x, p], 1))
    assert found.n_entries == int(x.count_nonzero()) + N * P
    assert torch.equal(found.transpose.dense(), found.dense().t())


def test_rows_that_have_positions_already_are_taken_as_they_are() -> None:
    network, (x, graph) = _network(), _data()
    wide = network.widened(x, graph, IDS)
    assert torch.equal(network(wide, None).logits, network(x, graph, IDS).logits)
    assert network.widened(x, graph, IDS) is wide, "made once"
    x[0] += 1
    assert not torch.equal(network.widened(x, graph, IDS), wide), "but not of other features"


def test_weights_and_options_are_all_that_a_copy_needs() -> None:
    network, (x, graph) = _network(), _data()
    want = network(x, graph, IDS).logits
    again = Positions.restored(lambda inputs: nn.MODELS["mlp"](inputs, C, layers=2, width=6), D, C, network.options)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(x, graph, IDS).logits, want)
    assert torch.equal(copy.deepcopy(network)(x, graph, IDS).logits, want)
    assert set(network(x, graph, IDS).hidden) <= dict(network.named_parameters()).keys()
