"""Graphs for the benchmarks: random ones of the size of published ones (random node ids, the worst case for caches)."""

from __future__ import annotations

import torch

from gnnkd.graph.structure import CSR, Graph

SIZES = {"cora": (2_708, 13_264, 0.0), "photo": (7_650, 245_812, 0.0), "arxiv": (169_343, 2_484_941, 0.6)}
"""Nodes, directed edges with self loops, and the exponent of the nodes' popularity as a source."""

FEATURES = {"cora": (1433, 0.0127, 7), "photo": (745, 0.3474, 8)}
"""Features of a node, share that is not zero, classes."""


def random_graph(name: str, seed: int = 0) -> Graph:
    """A weighted graph of the size of `name`."""
    n, edges, exponent = SIZES[name]
    g = torch.Generator().manual_seed(seed)
    popularity = torch.arange(1, n + 1, dtype=torch.float64).pow(-exponent)[torch.randperm(n, generator=g)]
    source = torch.searchsorted(popularity.cumsum(0) / popularity.sum(), torch.rand(edges, generator=g).double())
    target = torch.randint(n, (edges,), generator=g)
    edge_index = torch.stack([source.clamp(max=n - 1), target])
    return Graph.from_edge_index(edge_index, n, torch.rand(edges, generator=g))


def random_features(n: int, width: int, density: float, seed: int = 0) -> CSR:
    """A bag of words: ones at random places."""
    g = torch.Generator().manual_seed(seed)
    return CSR.from_dense((torch.rand(n, width, generator=g) < density).float())
