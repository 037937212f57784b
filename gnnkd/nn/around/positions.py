"""A network that reads where a node stands beside what it is: rows [x ; P].

P is a table of positions of known nodes, learnt from the graph of the training. A node that is not in it, because it
is new, has the mean of the positions of its known neighbours, or zeros if there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import Self

from gnnkd.graph import normalise
from gnnkd.graph.csr import CSR
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.pattern import Pattern
from gnnkd.graph.structure import Graph
from gnnkd.nn.around import Around, Make, inside
from gnnkd.nn.kept import Kept
from gnnkd.types import Output


@final
class Positions(Around):
    """`inner` on rows [x ; P]; it needs the edges of new nodes, and those only to know where they stand.

    Rows that are as wide as [x ; P] have their positions already and are taken as they are.

    Args:
        inner: for rows of `n_features` + d.
        ids: of the known nodes in the full data, ascending and distinct.
        table: the position of each of them.
        n_features: D, of rows without positions.
    """

    reads_index: ClassVar[bool] = True
    ids: Tensor
    table: Tensor

    def __init__(
        self, inner: nn.Module, ids: Int[Tensor, " R"], table: Float[Tensor, "R d"], *, n_features: int
    ) -> None:
        super().__init__()
        self.inner, self.n_features = inner, n_features
        self.register_buffer("ids", ids)
        self.register_buffer("table", table)
        self._kept: Kept[Tensor | CSR] = Kept()

    @property
    def options(self) -> dict[str, Any]:
        """The numbers of known nodes and of places in a position."""
        return {"known": self.table.shape[0], "dim": self.table.shape[1]}

    @property
    def n_known(self) -> int:
        """Nodes with a position."""
        return self.ids.numel()

    def reads_edges(self, index: Int[Tensor, " N"] | None) -> bool:
        """Whether one of the rows is new."""
        return index is None or not bool(torch.isin(index, self.ids).all())

    @classmethod
    def restored(cls, make: Make, n_features: int, n_classes: int, options: Mapping[str, Any]) -> Self:
        """One that knows as many nodes."""
        known, dim = options["known"], options["dim"]
        ids = torch.zeros(known, dtype=torch.int64)
        return cls(make(n_features + dim), ids, torch.zeros(known, dim), n_features=n_features)

    def forward(self, x: Tensor | CSR, graph: Graph | Tensor | None = None, index: Tensor | None = None) -> Output:
        """Logits of rows `x` [N, D], or [N, D + d] with positions.

        Args:
            graph: edges among the rows; read for the rows that are not known, and by `inner` if it passes messages.
            index: ids of the rows in the full data; None if all are new.
        """
        graph = Graph.from_edge_index(graph, x.shape[0]) if isinstance(graph, Tensor) else graph
        wide = x if x.shape[1] == self.n_features + self.table.shape[1] else self.widened(x, graph, index)
        return inside(self.inner(wide, graph))

    def widened(self, x: Tensor | CSR, graph: Graph | None, index: Tensor | None) -> Tensor | CSR:
        """Rows [x ; P] [N, D + d], sparse where `x` is; made once for the same three inputs."""

        def make() -> Tensor | CSR:
            return beside(x, self.placed(x.shape[0], graph, index).to(x.dtype))

        return self._kept.of(make, x, graph, index, self.ids, self.table)

    def placed(self, n: int, graph: Graph | None, index: Int[Tensor, " {n}"] | None) -> Float[Tensor, "{n} d"]:
        """The positions of `n` rows."""
        found = self.table.new_zeros(n, self.table.shape[1])
        known = torch.zeros(n, dtype=torch.bool, device=found.device)
        if index is not None and self.ids.numel():
            row = torch.searchsorted(self.ids, index).clamp(max=self.ids.numel() - 1)
            known = self.ids[row] == index
            found[known] = self.table[row[known]]
        if graph is None or bool(known.all()):
            return found
        new = (~known).nonzero().flatten()
        near = graph.adjacency.select_rows(new)
        weight = known[near.col].to(found.dtype)
        found[new] = neighbour_sum(normalise.mean(near.with_value(weight)), found)
        return found


def beside(x: Float[Tensor, "N D"] | CSR, p: Float[Tensor, "N d"]) -> Float[Tensor, "N W"] | CSR:
    """The columns of `x`, then those of `p`; sparse where `x` is, with all entries of `p`."""
    if isinstance(x, Tensor):
        return torch.cat([x, p], 1)
    n, more = p.shape
    kept = torch.arange(x.n_entries, device=x.device) + x.row.long() * more
    rowptr = x.rowptr.long() + torch.arange(n + 1, device=x.device) * more
    new = (rowptr[1:, None] - more + torch.arange(more, device=x.device)).flatten()
    col = x.col.new_empty(x.n_entries + n * more)
    value = p.new_empty(col.numel())
    col[kept], value[kept] = x.col, x.values(p.dtype)
    col[new] = (x.shape[1] + torch.arange(more, device=x.device, dtype=col.dtype)).repeat(n)
    value[new] = p.flatten()
    return CSR.on(Pattern(rowptr, col, (n, x.shape[1] + more)), value)
