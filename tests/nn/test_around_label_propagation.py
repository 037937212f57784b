"""Labels propagate as in the slow version; what is known by id stays known, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import nn
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import kinds
from gnnkd.nn.around.label_propagation import WEIGHTS, LabelPropagation

N, D, C = 24, 8, 3
IDS = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:N]
"""Of the rows, in the full data."""
LABELLED = torch.tensor([17, 3, 8, 11])
Y = torch.tensor([2, 0, 1, 1])
"""Rows whose label is known, and the labels."""


def _make(inputs: int) -> torch.nn.Module:
    return nn.MODELS["mlp"](inputs, C, layers=2, width=6)


def _made(weights: str, *, steps: int = 3, dropout: float = 0.0, drawn: bool = True) -> LabelPropagation:
    torch.manual_seed(0)
    given: dict[str, Any] = {"steps": steps, "weights": weights, "attention_dropout": dropout}
    found = LabelPropagation(_make, D, C, **given, labelled=IDS[LABELLED], y=Y, nodes=IDS).eval().double()
    if drawn:
        torch.nn.init.normal_(found.scalars)
    return found


def _data() -> tuple[Tensor, Graph]:
    """Without multiple edges; the last node has none."""
    dense = torch.rand(N, N, generator=torch.Generator().manual_seed(0)) < 0.15
    dense[-1], dense[:, -1] = False, False
    return torch.rand(N, D, dtype=torch.float64), Graph.from_edge_index(dense.nonzero().t().flip(0), N)


@torch.no_grad()
def _slow(network: LabelPropagation, x: Tensor, graph: Graph) -> Tensor:
    """Node by node and neighbour by neighbour."""
    if network.weights == "ind":
        assert network.bias is not None
        c, b = x @ network.scalars[0] + network.bias[0], x @ network.scalars[1] + network.bias[1]
    else:
        place = {int(i): k for k, i in enumerate(IDS.sort().values)}
        c, b = (torch.stack([row[place[int(i)]] for i in IDS]) for row in network.scalars)
    told, known = network.inner(x).logits, dict(zip(LABELLED.tolist(), Y.tolist(), strict=True))
    start = [F.one_hot(torch.tensor(known[v]), C).double() if v in known else torch.full((C,), 1 / C) for v in range(N)]
    f = list(start)
    near = [{v} for v in range(N)]
    for target, source in zip(graph.adjacency.row.tolist(), graph.adjacency.col.tolist(), strict=True):
        near[target].add(source)
    for _ in range(network.steps):
        moved = []
        for v in range(N):
            total = sum(float(c[u].exp()) for u in near[v])
            mean = torch.stack([c[u].exp() / total * f[u] for u in near[v]]).sum(0)
            moved.append(start[v] if v in known else b[v].sigmoid() * mean + (1 - b[v].sigmoid()) * told[v])
        f = moved
    return torch.stack(f)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("steps", [1, 4])
def test_it_is_the_slow_version(weights: str, steps: int) -> None:
    network, (x, graph) = _made(weights, steps=steps), _data()
    torch.testing.assert_close(network(x, graph, IDS).logits.detach(), _slow(network, x, graph))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_all_mixing_on_features_is_the_softmax_of_the_network(weights: str) -> None:
    network, (x, graph) = _made(weights), _data()
    with torch.no_grad():
        if network.bias is not None:
            network.scalars[1] = 0
            network.bias[1] = -1e3
        else:
            network.scalars[1] = -1e3
    others = torch.ones(N, dtype=torch.bool)
    others[LABELLED] = False
    given, want = network(x, graph, IDS).logits.softmax(1), network.inner(x).logits.softmax(1)
    torch.testing.assert_close(given[others], want[others])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_labelled_nodes_stay_one_hot_and_are_known_by_id(weights: str) -> None:
    network, (x, graph) = _made(weights), _data()
    logits = network(x, graph, IDS).logits
    assert torch.equal(logits[LABELLED], F.one_hot(Y, C).double())
    order = torch.randperm(N)
    torch.testing.assert_close(network(x[order], graph.subgraph(order), IDS[order]).logits, logits[order])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_unseen_ids_are_no_labelled_nodes(weights: str) -> None:
    """Also those between and beyond the known ids, and -1; and without ids nobody is known."""
    network, (x, graph) = _made(weights), _data()
    others = torch.tensor([i for i in range(-1, 300) if i not in set(IDS.tolist())])
    found = [network(x, graph, ids).logits for ids in (others[:N], others[-N:], None)]
    for one in found:
        assert torch.equal(one, found[0])
        assert not torch.equal(one[LABELLED], F.one_hot(Y, C).double())
    if weights == "tra":  # and their scalars are 0, as those of an untrained one
        twin = _made("tra", drawn=False)
        twin.inner.load_state_dict(network.inner.state_dict())
        torch.testing.assert_close(twin(x, graph, None).logits, found[0])


def test_both_kinds_of_scalars_start_alike() -> None:
    (x, graph), (tra, ind) = _data(), (_made(weights, drawn=False) for weights in WEIGHTS)
    ind.inner.load_state_dict(tra.inner.state_dict())
    torch.testing.assert_close(tra(x, graph, IDS).logits, ind(x, graph, IDS).logits)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_sparse_features_and_edge_lists_give_the_same(weights: str) -> None:
    network, (x, graph) = _made(weights), _data()
    want = network(x, graph, IDS).logits
    torch.testing.assert_close(network(CSR.from_dense(x), graph, IDS).logits, want)
    torch.testing.assert_close(network(x, graph.edge_index, IDS).logits, want)


def test_dropout_of_attention_is_of_training_alone() -> None:
    network, (x, graph) = _made("ind", dropout=0.5), _data()
    plain = _made("ind")
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(x, graph, IDS).logits, plain(x, graph, IDS).logits)
    torch.manual_seed(0)
    network.inner.rates = plain.inner.rates = (0.0, 0.0)  # type: ignore[assignment, union-attr]
    assert not torch.allclose(network.train()(x, graph, IDS).logits, plain.train()(x, graph, IDS).logits)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_label_at_all_is_no_mistake(weights: str) -> None:
    none = torch.zeros(0, dtype=torch.long)
    given: dict[str, Any] = {"steps": 2, "weights": weights, "attention_dropout": 0.0}
    network = LabelPropagation(_make, D, C, **given, labelled=none, y=none, nodes=none).double()
    x, graph = _data()
    assert network.eval()(x, graph, IDS).logits.isfinite().all()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_restored_one_gives_the_same_logits_bit_for_bit(weights: str) -> None:
    network, (x, graph) = _made(weights, dropout=0.3), _data()
    other = kinds()["label_propagation"].restored(_make, D, C, network.options).double()
    other.load_state_dict(network.state_dict())
    assert other.n_known == network.n_known == N
    assert torch.equal(other.eval()(x, graph, IDS).logits, network(x, graph, IDS).logits)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_hidden_names_are_those_of_the_network_inside_after_scalars_that_read_features(weights: str) -> None:
    network, (x, graph) = _made(weights), _data()
    output, params = network(x, graph, IDS), dict(network.named_parameters())
    first = {"ind": ["scalars"], "tra": []}[weights]
    assert [name.removeprefix("inner.") for name in output.hidden] == first + list(network.inner(x).hidden)
    assert all(output.hidden[name] is x for name in first)
    assert all(h.shape[1] == params[name].shape[1] for name, h in output.hidden.items())
