"""What a network says of the rows that its method names, on all nodes, on samples and on rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from gnnkd import nn
from gnnkd.data.row_store import RowStore
from gnnkd.distillers.supervised import Supervised
from gnnkd.graph.sampling import Sampler
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.taken_apart import apart
from gnnkd.train import probed
from gnnkd.train.probed import Probed, among_all, sampled
from gnnkd.train.rows import Rows
from gnnkd.train.settings import TrainSettings
from gnnkd.types import Batch

N, D, C = 60, 6, 3
INDEX = 5 + 2 * torch.arange(N)
IDS = INDEX[3::4]


def _batch(*, sparse: bool = False) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g).relu()
    graph = Graph.from_edge_index(torch.randint(N, (2, 300), generator=g), N)
    return Batch.of(
        CSR.from_dense(x) if sparse else x, torch.arange(N) % C, graph, torch.ones(N, dtype=torch.bool), INDEX
    )


def _network(name: str) -> nn.Network:
    torch.manual_seed(0)
    found = nn.MODELS[name](D, C, layers=2, width=8, dropout=0.5, norm="batch")
    assert isinstance(found, nn.Network)
    return found


def _sampled(network: nn.Network, batch: Batch, fanouts: Sequence[int | None], seed: int = 0) -> Probed:
    assert isinstance(batch.graph, Graph)
    assert isinstance(batch.x, torch.Tensor | CSR)
    matrices = [layer.matrix for layer in apart(network, batch.x)]
    return sampled(network, batch, Sampler(batch.graph, fanouts), matrices, batch_size=7, seed=seed)


def _rows(network: nn.Network, batch: Batch) -> Probed:
    assert isinstance(batch.x, torch.Tensor)
    x, y, learn = batch.x.numpy(), batch.y.numpy(), batch.labelled.numpy()
    store = RowStore(x=x, y=y, learn=learn, labelled=learn, logits=None, seed=0, block=8, index=INDEX.numpy())
    return Rows(network, store, Supervised(), learn, TrainSettings(epochs=1), batch_size=9).show


KINDS: dict[str, Callable[[nn.Network, Batch], Probed]] = {
    "whole": among_all,
    "sampled": lambda network, batch: _sampled(network, batch, [None, None]),
    "rows": _rows,
}


@pytest.mark.parametrize(
    ("kind", "model", "sparse"),
    [
        ("whole", "sage", False),
        ("whole", "mlp", True),
        ("sampled", "sage", False),
        ("sampled", "sage", True),
        ("sampled", "mlp", True),
        ("rows", "mlp", False),
    ],
)
def test_it_is_the_evaluation_of_all_nodes_at_those_rows(
    monkeypatch: pytest.MonkeyPatch, kind: str, model: str, sparse: bool
) -> None:
    """In pieces too; nothing is drawn from the random state, and the features are one object in all steps."""
    monkeypatch.setattr(probed, "PIECE", 1)
    batch, network = _batch(sparse=sparse), _network(model)
    show = KINDS[kind](network, batch)
    before, random = {k: t.clone() for k, t in network.state_dict().items()}, torch.get_rng_state()
    found, again = show(IDS), show(IDS)
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    whole = network.eval()(batch.x, batch.graph)
    torch.testing.assert_close(found.logits, whole.logits[3::4])
    assert not found.logits.requires_grad
    assert list(found.hidden) == list(whole.hidden)
    for name, h in whole.hidden.items():
        one, other = (t.dense() if isinstance(t, CSR) else t for t in (found.hidden[name], h))
        torch.testing.assert_close(one, other[3::4])  # type: ignore[index]
        assert (again.hidden[name] is found.hidden[name]) == (h is batch.x)


def test_neighbours_are_drawn_once_and_follow_the_seed() -> None:
    """Whatever came before: a run that is continued draws the same."""
    batch, network = _batch(), _network("sage")
    show = _sampled(network, batch, [2, 2])
    first = show(IDS).logits
    torch.manual_seed(9)
    assert torch.equal(show(IDS).logits, first)
    assert torch.equal(_sampled(network, batch, [2, 2])(IDS).logits, first)
    assert not torch.equal(_sampled(network, batch, [2, 2], seed=1)(IDS).logits, first)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rows_that_are_not_there_are_refused(kind: str) -> None:
    batch, network = _batch(), _network("mlp" if kind == "rows" else "sage")
    with pytest.raises(ValueError, match="none of th"):
        KINDS[kind](network, batch)(torch.tensor([5, 6]))
