"""The graph tokenizer: a graph layer whose rows become codes that keep rows, edges and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.linalg import vector_norm

from gnnkd.data.augment import drawn_apart, generator, key
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.nodes.vqgraph.codebook import followed, nearest, perplexity, unit
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.gcn import GCNConv
from gnnkd.nn.sage import SAGEConv
from gnnkd.types import Batch

LAYERS = {"gcn": GCNConv, "sage": SAGEConv}
"""The graph layers that a tokenizer may be made of."""
ROWS, EDGES = 1e-3, 0.03
"""Published weights of how well codes tell rows, and edges."""
LR, WEIGHT_DECAY = 0.01, 5e-4
"""Of Adam, as the published teachers are trained."""


@final
@dataclass(frozen=True)
class Settings:
    """How a tokenizer is made and trained.

    `codes` are at most as many as there are nodes; `dim` is their size; `pairs` of nodes, half of them edges, are
    drawn for the edges at each epoch.
    """

    layer: str
    codes: int
    dim: int
    decay: float
    commitment: float
    pairs: int
    epochs: int


@final
@dataclass(frozen=True)
class Tokens:
    """What a tokenizer has found: a unit row for each node, the codes, and how evenly these are used."""

    rows: Float[Tensor, "N F"]
    codes: Float[Tensor, "K F"]
    perplexity: Float[Tensor, ""]
    used: Float[Tensor, ""]


@final
class Tokenizer(nn.Module):
    """Encoder, decoders of rows and of edges, and a head of classes that reads what the edges are decoded from."""

    def __init__(self, n_features: int, n_classes: int, *, layer: str, dim: int) -> None:
        super().__init__()
        self.encoder = LAYERS[layer](n_features, dim)
        self.of_rows = nn.Linear(dim, dim)
        self.of_edges = nn.Linear(dim, dim)
        self.hidden = LAYERS[layer](dim, dim)
        self.head = nn.Linear(dim, n_classes)

    def rows(self, x: Tensor | CSR, graph: Graph) -> Float[Tensor, "N F"]:
        """Unit rows."""
        return unit(F.relu(self.encoder(x, graph)))

    def loss(
        self,
        graph: Graph,
        u: Float[Tensor, "N F"],
        code: Float[Tensor, "N F"],
        pairs: tuple[Tensor, Tensor, Tensor],
        y: Int[Tensor, " N"],
        commitment: float,
    ) -> Float[Tensor, ""]:
        """CE + 1e-3 MSE of rows + .03 root of the MSE of edges + commitment MSE(row, its code).

        Args:
            graph: along which the head looks.
            u: the rows.
            code: of each row, without a gradient.
            pairs: nodes i, nodes j, and 1 where the two share an edge, 0 where not.
            y: labels, `UNKNOWN` where they may not be read.
            commitment: weight of its term.
        """
        q = u + (code - u).detach()  # a row's code, with the row's gradient
        edges = self.of_edges(q)
        logits = self.head(F.relu(self.hidden(edges, graph)))
        i, j, there = pairs
        told = _stretched((edges[i] * edges[j]).sum(1)) - there
        loss = cross_entropy(logits, y) + ROWS * F.mse_loss(self.of_rows(q), u)
        of_edges: Tensor = vector_norm(told) / max(1, i.numel()) ** 0.5
        return loss + EDGES * of_edges + commitment * F.mse_loss(u, code)


def trained(batch: Batch, n_classes: int, settings: Settings, seed: int) -> Tokens:
    """Train a tokenizer on a batch for a fixed number of epochs, for nothing but training labels may be read.

    The global random state stays as it is.
    """
    x, graph = cast("Tensor | CSR", batch.x), batch.graph
    x = x if isinstance(x, CSR) else full_precision(x)
    assert isinstance(graph, Graph)
    device, n = batch.y.device, batch.y.numel()
    with drawn_apart(device, key("vqgraph tokenizer", seed)):
        tokenizer = Tokenizer(x.shape[1], n_classes, layer=settings.layer, dim=settings.dim).to(device)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    first = torch.randperm(n, generator=generator("vqgraph codes", seed))[: settings.codes].to(device)
    with torch.no_grad():
        codes = tokenizer.rows(x, graph)[first]
    for epoch in range(settings.epochs):
        u = tokenizer.rows(x, graph)
        at = nearest(u.detach(), codes)
        pairs = drawn(graph.adjacency, settings.pairs, generator("vqgraph pairs", seed, epoch))
        loss = tokenizer.loss(graph, u, codes[at], pairs, batch.y, settings.commitment)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        codes = followed(codes, u.detach(), at, settings.decay)
    with torch.no_grad():
        u = tokenizer.rows(x, graph)
    at = nearest(u, codes)
    share = torch.tensor(len(set(at.tolist())) / codes.shape[0], device=device)
    return Tokens(u, codes, perplexity(at, codes.shape[0]), share)


def drawn(a: CSR, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """`count // 2` edges of `a` and as many pairs of any nodes, with 1 where the two share an edge and 0 where not."""
    n, half = a.shape[0], max(1, count // 2)
    i, j = torch.randint(n, (2, half), generator=rng).to(a.device)
    key_of = a.row.long() * n + a.col.long()
    if key_of.numel() == 0:
        return i, j, torch.zeros(half, device=a.device)
    entry = torch.randint(a.n_entries, (half,), generator=rng).to(a.device)
    place = torch.searchsorted(key_of, i * n + j).clamp(max=key_of.numel() - 1)
    there = torch.cat([torch.ones(half, device=a.device), (key_of[place] == i * n + j).float()])
    return torch.cat([a.row[entry].long(), i]), torch.cat([a.col[entry].long(), j]), there


def _stretched(scores: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Moved and scaled to [0, 1]."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low).clamp(min=1e-12)
