"""A network on features that have been passed along the edges before: rows S^k x.

S = D^-1/2 (A + I) D^-1/2, or of A alone, with D its row sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Self

from gnnkd.graph import normalise
from gnnkd.graph.csr import CSR, SPARSE_BELOW
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.pattern import Pattern
from gnnkd.graph.structure import Graph
from gnnkd.nn.around import Around, Make, inside
from gnnkd.nn.kept import Kept
from gnnkd.types import Output


@final
class Propagated(Around):
    """`inner`, which looks at rows alone, on rows S^k x; so it needs the edges of whatever it is asked about.

    Args:
        inner: for rows of as many features.
        k: steps along the edges, at least 0.
        loops: whether each node is its own neighbour.
    """

    needs_graph: ClassVar[bool] = True

    def __init__(self, inner: nn.Module, *, k: int, loops: bool) -> None:
        super().__init__()
        self.inner, self.k, self.loops = inner, k, loops
        self._kept: Kept[Tensor | CSR] = Kept()

    @property
    def options(self) -> dict[str, Any]:
        """Steps, and whether there are loops."""
        return {"k": self.k, "loops": self.loops}

    @classmethod
    def restored(cls, make: Make, n_features: int, n_classes: int, options: Mapping[str, Any]) -> Self:
        """One of as many steps."""
        return cls(make(n_features), k=options["k"], loops=options["loops"])

    def forward(self, x: Tensor | CSR, graph: Graph | Tensor | None = None, index: Tensor | None = None) -> Output:
        """Logits of rows `x` [N, D], along the edges of `graph`; the rows' ids are not looked at."""

        def make() -> Tensor | CSR:
            way = normalise.gcn if self.loops else normalise.symmetric
            return propagated(Graph.of(graph, x.shape[0]).derived(way), x, self.k)

        return inside(self.inner(self._kept.of(make, x, graph) if self.k else x, None))


def propagated(a: CSR, x: Float[Tensor, "N D"] | CSR, k: int) -> Float[Tensor, "N D"] | CSR:
    """`a^k x`; sparse features stay so while they are sparse enough to be worth it."""
    for _ in range(k):
        x = neighbour_sum(a, x) if isinstance(x, Tensor) else _product(a, x)
    return x


def _product(a: CSR, x: CSR) -> Float[Tensor, "N D"] | CSR:
    """`a x` of two sparse matrices, computed on the CPU."""
    from scipy.sparse import csr_array

    def turned(m: CSR) -> Any:
        parts = (m.values(x.dtype), m.col, m.rowptr)
        return csr_array(tuple(part.detach().cpu().numpy() for part in parts), shape=m.shape)

    out = turned(a) @ turned(x)
    if out.nnz >= SPARSE_BELOW * out.shape[0] * out.shape[1]:
        return torch.from_numpy(out.toarray()).to(x.device)
    out.sort_indices()
    rowptr, col, value = (torch.from_numpy(part).to(x.device) for part in (out.indptr, out.indices, out.data))
    return CSR.on(Pattern(rowptr, col, x.shape), value)
