"""Some nodes get from the blocks of their neighbourhood the logits that one pass over the whole graph gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gnnkd import nn
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn import blocks
from gnnkd.nn.blocks import Blocks, heard
from gnnkd.nn.network import Network

N, D, C = 300, 12, 3
KINDS: dict[str, dict[str, Any]] = {"gcn": {}, "sage": {}, "gat": {"heads": 2}, "mlp": {}}
QUESTIONS = (torch.tensor([7]), torch.tensor([N - 1, 3, 3, 0]), torch.randperm(N)[:50], torch.arange(N))


def graph(*, weighted: bool = False) -> Graph:
    """Directed, of small degree, with a hub, loops, equal edges and nodes without any."""
    g = torch.Generator().manual_seed(0)
    index = torch.randint(N - 5, (2, 500), generator=g)
    hub = torch.stack([torch.arange(40), torch.full((40,), 7)])
    index = torch.cat([index, hub, index[:, :9], torch.tensor([[3, 9], [3, 9]])], 1)
    return Graph.from_edge_index(index, N, torch.rand(index.shape[1], generator=g) + 0.1 if weighted else None)


def features(*, sparse: bool) -> torch.Tensor | CSR:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(N, D, generator=g) * (torch.rand(N, D, generator=g) < 0.4)
    return CSR.from_dense(x) if sparse else x


def network(kind: str, x: torch.Tensor | CSR, **given: Any) -> Network:
    """With running statistics that are not those of a new network."""
    torch.manual_seed(2)
    made = nn.MODELS[kind](D, C, **{"width": 8, **KINDS[kind], **given})
    assert isinstance(made, Network)
    made.train()(x, graph())
    return made.eval()


def rows(x: torch.Tensor | CSR, ids: torch.Tensor) -> torch.Tensor | CSR:
    return x.select_rows(ids) if isinstance(x, CSR) else x[ids]


@pytest.mark.parametrize(
    "options",
    [{"layers": 1}, {"layers": 2}, {"layers": 3, "norm": "batch"}, {"layers": 3, "width": 40, "norm": "layer"}],
    ids=["one layer", "two", "three with norm", "three, wider than the features"],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_whole_graph(kind: str, sparse: bool, weighted: bool, options: dict[str, Any]) -> None:
    x, g = features(sparse=sparse), graph(weighted=weighted)
    made = network(kind, x, **options)
    with torch.no_grad():
        want = made(x, g).logits
    service = Blocks.of(made, x)
    assert service is not None
    for asked in QUESTIONS:
        near = service.around(g, asked)
        found = service.logits(rows(x, near.nodes), near)
        torch.testing.assert_close(found, want[asked], rtol=1e-5, atol=1e-5)
        assert not found.requires_grad


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_no_layer_is_applied_to_more_than_the_next_one_reads(layers: int) -> None:
    """Block by block, from the last one back, against powers of the dense adjacency."""
    x, g = features(sparse=False), graph()
    asked = torch.tensor([100, 5])
    near = Blocks(network("sage", x, layers=layers), x).around(g, asked)
    dense = g.adjacency.dense() > 0
    wanted = torch.zeros(N, dtype=torch.bool)
    wanted[asked] = True
    entries = 0
    for block in reversed(near.blocks):
        assert block.a is not None
        read = wanted | dense[wanted].any(0)
        assert block.a.shape == (int(wanted.sum()), int(read.sum()))
        entries += int(dense[wanted].sum())
        wanted = read
    assert near.nodes.tolist() == wanted.nonzero().flatten().tolist()
    assert near.n_entries == entries
    assert len(near.blocks) == layers


@pytest.mark.parametrize("share", [0, 1 << 40], ids=["sorting", "marks"])
def test_a_block_has_the_rows_asked_for_and_the_columns_that_they_hear(
    share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_DENSE", share)
    a = graph(weighted=True).adjacency
    ids = torch.tensor([3, 7, N - 1])
    block, source = heard(a, ids)
    assert block.a is not None
    want = a.dense()[ids]
    assert torch.equal(block.a.dense(), want[:, source])
    assert torch.equal(source[block.place], ids)
    assert set(source.tolist()) == {*want.nonzero()[:, 1].tolist(), *ids.tolist()}


@pytest.mark.parametrize("kind", sorted(set(nn.MODELS) - set(KINDS)))
def test_other_networks_have_no_blocks(kind: str) -> None:
    x = features(sparse=False)
    other = nn.MODELS[kind](D, C)
    assert Blocks.of(other, x) is None
    if isinstance(other, Network):
        with pytest.raises(UserError, match="cannot be applied to some nodes"):
            Blocks(other, x)
