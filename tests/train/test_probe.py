"""What a watcher sees of a teacher that is trained on samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gnnkd import nn
from gnnkd.distillers.supervised import Supervised
from gnnkd.graph.sampling import Sampler
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.taken_apart import apart
from gnnkd.train import probe
from gnnkd.train.update import looking
from gnnkd.types import Batch, Step

N, D, C = 60, 6, 3
LABELLED = torch.arange(N) % 3 == 0


def _batch(*, sparse: bool) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g).relu()
    graph = Graph.from_edge_index(torch.randint(N, (2, 300), generator=g), N)
    return Batch.of(CSR.from_dense(x) if sparse else x, torch.arange(N) % C, graph, LABELLED, 5 + 2 * torch.arange(N))


def _probe(batch: Batch, network: nn.Network, fanouts: list[int | None], **given: Any) -> probe.Probe:
    assert isinstance(batch.graph, Graph)
    assert isinstance(batch.x, torch.Tensor | CSR)
    matrices = [layer.matrix for layer in apart(network, batch.x)]
    return probe.Probe(batch, Sampler(batch.graph, fanouts), matrices, **{"batch_size": 7, "seed": 0, **given})


@pytest.mark.parametrize("sparse", [False, True])
def test_pieces_with_all_neighbours_are_the_look_at_all_labelled_nodes(
    monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    monkeypatch.setattr(probe, "PIECE", 1)
    batch, step = _batch(sparse=sparse), Step(0, 2)
    torch.manual_seed(0)
    network = nn.sage(D, C, layers=2, width=8, dropout=0.5, norm="batch")
    seen = _probe(batch, network, [None, None])
    assert [sample.seeds for sample in seen.samples] == [7, 7, 6]
    before, random = {k: t.clone() for k, t in network.state_dict().items()}, torch.get_rng_state()
    output, gradients = seen.look(network, Supervised(), step, 0)(False)
    whole, expected = looking(network, Supervised(), batch, step, 0)(False)
    assert torch.equal(seen.batch.index, batch.index[LABELLED])
    assert torch.equal(seen.batch.y, batch.y[LABELLED])
    torch.testing.assert_close(output.logits, whole.logits[LABELLED])
    for name, h in whole.hidden.items():
        one, other = (t.dense() if isinstance(t, CSR) else t for t in (output.hidden[name], h))
        torch.testing.assert_close(one, other[LABELLED])  # type: ignore[index]
    assert gradients.keys() == expected.keys()
    for name, g in expected.items():
        torch.testing.assert_close(gradients[name], g)
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_looks_with_dropout_differ_and_have_names() -> None:
    batch = _batch(sparse=False)
    torch.manual_seed(0)
    network = nn.sage(D, C, layers=2, width=8, dropout=0.5)
    look = _probe(batch, network, [3, 3]).look(network, Supervised(), Step(0, 2), 4)
    first, second = look(True)[0].logits, look(True)[0].logits
    assert not torch.equal(first, second)
    again = _probe(batch, network, [3, 3]).look(network, Supervised(), Step(0, 2), 4)
    assert torch.equal(again(True)[0].logits, first)


def test_the_nodes_are_few_and_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "NODES", 8)
    batch, network = _batch(sparse=False), nn.sage(D, C, layers=2, width=8)
    one, two, other = (_probe(batch, network, [3, 3], seed=seed).batch.index.tolist() for seed in (0, 0, 1))
    assert len(one) == 8
    assert one == two != other
    assert set(one) <= set(batch.index[LABELLED].tolist())
