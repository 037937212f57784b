"""A network applied to all neighbours of each node, one layer at a time and some nodes at a time.

Each layer is finished for all nodes before the next one begins, so no neighbourhood is looked at twice: the cost is
that of one pass over the graph, and what is kept between two layers may lie on disk.

Memory, in bytes, beside inputs, logits and mapped files: at most

    memory + 8 N (L + 2) + 16 nodes (inputs + outputs) + max(entries, d) (100 + 24 heads)

for L layers, of which the one with the widest rows has so many inputs and outputs; d is the largest degree, heads is 0
but for gat, and `memory`, `nodes`, `entries` are those of `Layerwise`. What is kept between two layers are tables of N
rows, of a layer's input, of what its nodes send and of its output: 4 N bytes a column, in memory as long as `memory`
lasts and mapped else. Of several processes that work together each has all tables, and the rows that another one sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.graph.rows import Rows, check_sizes, some_rows
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.messages import Messages
from gnnkd.nn.network import Network
from gnnkd.nn.tables import Tables
from gnnkd.nn.taken_apart import apart, kept, known, widths_of

Ids = Int[Tensor, " _"]
Work: TypeAlias = Callable[[Ids], list[Tensor]]
Share: TypeAlias = Callable[[Iterable[Ids], Work, Work], Iterator[tuple[Ids, list[Tensor]]]]
"""As `processes.divided`."""
TURNS = 8
"""Stretches of nodes for each of several processes, at least."""


@final
@dataclass(frozen=True, kw_only=True)
class Layerwise:
    """How much is done at a time, and where what lies between two layers is kept; neither changes the logits.

    Networks of gcn, sage, gat and mlp layers can be asked; not those of tag, whose layers look several edges far, nor
    monet, appnp, sgc and gcnii.

    Args:
        nodes: most nodes at a time, >= 1.
        entries: most edges at a time, >= 1; a node of more is alone.
        memory: bytes of what is kept between layers that may be in memory, >= 0.
        folder: where the rest goes; None is the system's place for temporary files.

    Raises:
        ValueError: a size out of range.
    """

    nodes: int = 1 << 16
    entries: int = 1 << 21
    memory: int = 1 << 30
    folder: Path | None = None

    def __post_init__(self) -> None:
        check_sizes(self.nodes, self.entries)
        if self.memory < 0:
            raise ValueError(f"memory is {self.memory}; it must be at least 0 bytes")

    def logits(
        self,
        network: nn.Module,
        x: Float[Tensor, "N D"] | CSR,
        graph: Graph | None = None,
        *,
        ids: Int[Tensor, " Q"] | None = None,
        into: Float[Tensor, "Q C"] | None = None,
    ) -> Float[Tensor, "Q C"]:
        """Logits in eval mode, of all nodes or of some; the network is put into eval mode.

        Args:
            network: a `Network` of layers that can be taken apart (see `messages`).
            x: features; dense ones of any floating type, in memory or over a mapped file, or sparse.
            graph: needed by graph layers only; no matrix is derived of it as a whole.
            ids: ascending and distinct; only what these need is computed. None is all.
            into: where the logits go, as into a mapped file.

        Raises:
            UserError: another network, or no room on the disk.
            ValueError: ids in another order, or no graph where one is needed.
        """
        at = 0
        for part, found in self.parts(network, x, graph, ids=ids):
            if into is None:
                into = found.new_empty(x.shape[0] if ids is None else ids.numel(), found.shape[1])
            into[at : at + part.numel()] = found
            at += part.numel()
        if into is None:
            return next(network.parameters()).new_empty(0, widths_of(network)[-1])
        return into

    def parts(
        self,
        network: nn.Module,
        x: Float[Tensor, "N D"] | CSR,
        graph: Graph | None = None,
        *,
        ids: Int[Tensor, " Q"] | None = None,
        together: bool = False,
    ) -> Iterator[tuple[Ids, Tensor]]:
        """The same, some ids and their logits at a time, in the order of the ids.

        Args:
            network: as in `logits`.
            x: the same.
            graph: the same.
            ids: the same.
            together: whether all processes of a group ask for the same at the same time; each then does its share of
                every layer and hears the others' rows. All must take the parts to the end.
        """
        if together:
            return self._shared(x.shape[0], graph)._parts(network, x, graph, ids, processes.divided)
        return self._parts(network, x, graph, ids, _alone)

    def _shared(self, n: int, graph: Graph | None) -> Layerwise:
        """The same in stretches of which each process gets several, so that no process does much more than another."""
        if processes.world() == 1:
            return self
        stretches = TURNS * processes.world()
        entries = self.entries if graph is None else max(1, min(self.entries, -(-graph.n_edges // stretches)))
        return replace(self, nodes=max(1, min(self.nodes, -(-n // stretches))), entries=entries)

    def _parts(
        self, network: nn.Module, x: Tensor | CSR, graph: Graph | None, ids: Ids | None, share: Share
    ) -> Iterator[tuple[Ids, Tensor]]:
        network.eval()
        layers = apart(network, x)
        if graph is None and any(m.matrix is not None for m in layers):
            raise ValueError("this network passes messages along edges; give it a Graph")
        like = next(network.parameters())
        if ids is None:
            ids = torch.arange(x.shape[0], device=like.device)
        if bool((ids.diff() < 1).any()):
            raise ValueError("ids must be ascending and distinct")
        classes = widths_of(network)[-1]
        if all(layer.matrix is None for layer in layers):
            # Where no layer looks at edges nothing lies between two of them.
            yield from _first_of(
                share(
                    torch.split(ids, self.nodes),
                    torch.no_grad()(lambda part: [network(_read(x, part, like.dtype), None).logits]),
                    lambda part: [like.new_empty(part.numel(), classes)],
                )
            )
            return
        rows = None if graph is None else Rows(graph, nodes=self.nodes, entries=self.entries)
        tables = Tables(self.memory, self.folder, like)
        yield from self._run(known(network), layers, x, rows, _wanted(layers, ids, rows), tables, share)

    def _run(
        self,
        network: Network,
        layers: Sequence[Messages],
        x: Tensor | CSR,
        rows: Rows | None,
        wanted: Sequence[Ids],
        tables: Tables,
        share: Share,
    ) -> Iterator[tuple[Ids, Tensor]]:
        widths = widths_of(network)
        tables.check(x.shape[0] * tables.like.element_size() * max(kept(layers, widths)))
        for depth, layer in enumerate(layers[:-1]):
            out = tables.make(x.shape[0], widths[depth])
            for part, found in self._layer(layer, x, rows, wanted[depth : depth + 2], widths[depth], tables, share):
                with torch.no_grad():  # around no yield, or it would hold for whoever takes the parts
                    out[_place(part)] = network.activation(network.norms[depth](found))
            if isinstance(x, Tensor):
                tables.drop(x)
            x = out
        yield from self._layer(layers[-1], x, rows, wanted[-2:], widths[-1], tables, share)

    def _layer(
        self,
        layer: Messages,
        x: Tensor | CSR,
        rows: Rows | None,
        wanted: Sequence[Ids],
        width: int,
        tables: Tables,
        share: Share,
    ) -> Iterator[tuple[Ids, Tensor]]:
        """Output rows of a layer, some at a time; its tables are gone when the last of them has been taken.

        Args:
            wanted: the nodes that send and those that receive.
            width: columns of the output.
        """
        like = tables.like
        sent = [tables.make(x.shape[0], w) for w in layer.widths]
        for part, messages_of in share(
            torch.split(wanted[0], self.nodes) if sent else (),
            torch.no_grad()(lambda part: [one.contiguous() for one in layer.send(_read(x, part, like.dtype))]),
            lambda part: [like.new_empty(part.numel(), w) for w in layer.widths],
        ):
            for table, message in zip(sent, messages_of, strict=True):
                table[_place(part)] = message
        heard = sent or ([x] if isinstance(x, Tensor) else [])

        @torch.no_grad()
        def received(part: Ids) -> list[Tensor]:
            a = None if layer.matrix is None or rows is None else rows.of(layer.matrix, part)
            return [layer.receive(a, heard, part, _read(x, part, like.dtype)).contiguous()]

        pieces = self._pieces(wanted[1], rows if layer.matrix is not None else None)
        yield from _first_of(share(pieces, received, lambda part: [like.new_empty(part.numel(), width)]))
        for table in sent:
            tables.drop(table)

    def _pieces(self, ids: Ids, rows: Rows | None) -> Iterator[Ids]:
        return iter(torch.split(ids, self.nodes)) if rows is None else rows.pieces(ids)


def _alone(parts: Iterable[Ids], work: Work, _: Work) -> Iterator[tuple[Ids, list[Tensor]]]:
    return ((part, work(part)) for part in parts)


def _first_of(found: Iterator[tuple[Ids, list[Tensor]]]) -> Iterator[tuple[Ids, Tensor]]:
    return ((part, one) for part, (one,) in found)


def _wanted(layers: Sequence[Messages], ids: Ids, rows: Rows | None) -> list[Ids]:
    """The nodes whose rows each layer reads, and last those asked about."""
    found = [ids]
    for layer in reversed(layers):
        found.append(found[-1] if layer.matrix is None or rows is None else rows.sources(found[-1]))
    return found[::-1]


def _read(x: Tensor | CSR, ids: Ids, dtype: torch.dtype) -> Tensor | CSR:
    return x[_place(ids)].to(dtype) if isinstance(x, Tensor) else some_rows(x, ids)


def _place(ids: Ids) -> slice | Ids:
    """Ascending ids as a slice where they are side by side: a view of the rows, not a copy."""
    if ids.numel() and int(ids[-1]) - int(ids[0]) + 1 == ids.numel():
        return slice(int(ids[0]), int(ids[-1]) + 1)
    return ids
