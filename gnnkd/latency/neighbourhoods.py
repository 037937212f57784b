"""Ways in which a network that passes messages answers: from a part of the graph, layer by layer, or in one pass."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gnnkd.compare import costs, macs
from gnnkd.compare.fetch import cut, same
from gnnkd.data import room as disk
from gnnkd.data.augment import generator
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.export import close
from gnnkd.graph.structure import CSR
from gnnkd.latency.answers import Answer, Data, Way, reached
from gnnkd.latency.room import Room, of_all, of_matrices, of_piece
from gnnkd.nn.around import ask
from gnnkd.nn.blocks import Blocks
from gnnkd.nn.layerwise import Layerwise
from gnnkd.nn.network import Network
from gnnkd.nn.taken_apart import apart, kept
from gnnkd.predictor import Predictor

_COMPARED = 20
"""Nodes on which the ways are compared with one another before any of them is timed."""


@final
class Neighbourhood(Way):
    """All neighbours of each node, hop by hop, with the weights that they have in the whole graph.

    Args:
        blocks: of a network on the device of `data`.
        data: on the host; its graph has derived what the layers need.
    """

    name: ClassVar[str] = "neighbourhood"

    def __init__(self, blocks: Blocks, data: Data) -> None:
        self.blocks, self.data = blocks, data

    def answer(self, nodes: Int[Tensor, " Q"] | None) -> Answer:
        """Fetch and compute are told apart."""
        data, clock = self.data, self.data.clock
        start = clock.now()
        near = self.blocks.around(data.graph, torch.arange(data.n) if nodes is None else nodes)
        x, there = data.rows(near.nodes).to(data.device), near.to(data.device)
        middle = clock.now()
        logits = self.blocks.logits(x, there).cpu()
        stop = clock.now()
        return Answer(logits, middle - start, stop - start, near.nodes.numel(), near.n_entries, data.size(near.nodes))


@final
class Piece(Way):
    """The neighbourhood is cut out of the graph with the weights of the whole, and the network runs on all of it.

    Args:
        network: on the device of `data`, in eval mode.
        data: on the host.
        hops: how far the network looks.
        margin: hops more whose degrees it reads from the edges.
    """

    name: ClassVar[str] = Neighbourhood.name

    def __init__(self, network: nn.Module, data: Data, hops: int, margin: int = 0) -> None:
        self.network, self.data, self.hops, self.margin = network, data, hops, margin

    @torch.no_grad()
    def answer(self, nodes: Int[Tensor, " Q"] | None) -> Answer:
        """Fetch and compute are told apart."""
        data, clock = self.data, self.data.clock
        asked = torch.arange(data.n) if nodes is None else nodes
        start = clock.now()
        piece = cut(data.graph, asked, self.hops, margin=self.margin)
        here = Data(data.rows(piece.nodes), piece.graph, data.index[piece.nodes], data.device).resident
        middle = clock.now()
        logits = ask(self.network, here.x, here.graph, here.index).logits[piece.rows.to(data.device)].cpu()
        stop = clock.now()
        return Answer(logits, middle - start, stop - start, here.n, piece.graph.n_edges, data.size(piece.nodes))


@final
class LayerByLayer(Way):
    """Each layer is finished for all nodes that the next one needs; no neighbourhood is met twice.

    Args:
        network: of layers that `gnnkd.nn.layerwise` knows, on the device of `data`.
        data: on the host.
        hops: how far the network looks.
        sizes: how much is done at a time.
    """

    name: ClassVar[str] = "layer by layer"

    def __init__(self, network: nn.Module, data: Data, hops: int, sizes: Layerwise) -> None:
        self.network, self.data, self.hops, self.sizes = network, data, hops, sizes

    def answer(self, nodes: Int[Tensor, " Q"] | None) -> Answer:
        """Fetch and compute are one; what was read is counted when the time has been taken."""
        here, clock = self.data.resident, self.data.clock
        start = clock.now()
        if nodes is None:
            logits = self.sizes.logits(self.network, here.x, here.graph).cpu()
            return _of_all(logits, clock.now() - start, self.data)
        ids, place = torch.unique(nodes, return_inverse=True)
        logits = self.sizes.logits(self.network, here.x, here.graph, ids=ids.to(self.data.device)).cpu()[place]
        total = clock.now() - start
        seen = reached(self.data.graph, nodes, self.hops)
        return Answer(logits, None, total, seen.nodes.numel(), seen.edges, self.data.size(seen.nodes))


@final
class OnePass(Way):
    """One forward pass over the whole graph, of which the rows asked about are kept; there is nothing to fetch.

    Args:
        network: on the device of `data`, in eval mode.
        data: on the host.
    """

    name: ClassVar[str] = "one pass"

    def __init__(self, network: nn.Module, data: Data) -> None:
        self.network, self.data = network, data

    @torch.no_grad()
    def answer(self, nodes: Int[Tensor, " Q"] | None) -> Answer:
        """Fetch and compute are one."""
        here, clock = self.data.resident, self.data.clock
        # Other objects: what a network keeps of its inputs it makes again.
        x = here.x.with_value(here.x.value) if isinstance(here.x, CSR) else here.x.view(here.x.shape)
        graph = same(here.graph)
        start = clock.now()
        logits = ask(self.network, x, graph, here.index).logits
        logits = (logits if nodes is None else logits[nodes.to(self.data.device)]).cpu()
        return _of_all(logits, clock.now() - start, self.data)


def _of_all(logits: Tensor, total: float, data: Data) -> Answer:
    return Answer(logits, None, total, data.n, data.graph.n_edges, data.size())


def _no_disk(network: nn.Module, data: Data, sizes: Layerwise) -> str | None:
    """Why what lies between two layers has no place; None where it has one. The GPU is asked by `Tables`."""
    assert isinstance(network, Network)
    layers, widths = apart(network, data.x), [int(layer.out_channels) for layer in network.layers]  # type: ignore[arg-type]
    need, folder = 4 * data.n * max(kept(layers, widths)), Path(tempfile.gettempdir())
    if data.device != "cpu" or need <= sizes.memory or need <= (free := disk.disk(folder)):
        return None
    return f"keeps {disk.gb(need)} between two layers, and {folder} has {disk.gb(free)} free"


@final
class Messenger:
    """A network that passes messages, and the ways in which it answers exactly.

    Args:
        predictor: its network is moved to the device of `data`.
        data: on the host; the matrices that the network derives are kept with its graph from here on, as a service
            would keep them.
        task: the one that `data` is of.
        room: what may be taken of the memory.

    Raises:
        UserError: two ways give different logits, or nothing fits into the memory.
    """

    def __init__(self, predictor: Predictor, data: Data, task: NodeTask, room: Room) -> None:
        self.data, self.room, self.margin = data, room, 0
        self.underived: str | None = None
        network = predictor.network.cpu().eval()
        blocks = Blocks.of(network, data.x)
        if blocks is None:
            # Which neighbourhood is enough is found by asking about all nodes in one pass.
            room.check(of_all(network, data.graph, data.n), f"one pass of {predictor.name} over the whole graph")
            self.hops, self.margin = costs.served(predictor, task).reach or (0, 0)
        else:
            needed = {layer.matrix for layer in blocks.layers if layer.matrix is not None}
            # Layer by layer none is derived as a whole: where there is no room for them that way remains.
            self.underived = room.lack(of_matrices(data.graph, len(needed)))
            for matrix in needed if self.underived is None else ():
                data.graph.derived(matrix)
            self.hops = max(1, macs.hops(network, data.x.shape[1]))
        self.network = network.to(data.device)
        self.whole = OnePass(self.network, data)
        self.piece: Way = Piece(self.network, data, self.hops, self.margin)
        self.layers: Way | None = None
        self.unkept: str | None = None
        if blocks is not None:
            self.piece = Neighbourhood(blocks, data)
            sizes = Layerwise(memory=max(room.left, 1 << 20))
            self.layers = LayerByLayer(self.network, data, self.hops, sizes)
            self.unkept = _no_disk(network, data, sizes)
        self._check()

    def _check(self) -> None:
        nodes = torch.randperm(self.data.n, generator=generator("compared rows", self.data.n))[:_COMPARED]
        there = self.layers is not None and self.unkept is None and self.room.on_device(self.data)
        if not there or self.layers is None or self.lack([nodes]) is not None:
            return
        if not close(self.piece.answer(nodes).logits, self.layers.answer(nodes).logits):
            raise UserError("a neighbourhood and the graph layer by layer give different logits of the same nodes")

    def lack(self, probes: Sequence[Int[Tensor, " Q"]]) -> str | None:
        """Why neighbourhoods of nodes like these should not be fetched; None where they may."""
        if self.underived is not None:
            return self.underived
        if of_piece(self.network, self.data, self.data.n, self.data.graph.n_edges) <= self.room.left:
            return None
        seen = [reached(self.data.graph, nodes, self.hops + self.margin) for nodes in probes]
        need = max(of_piece(self.network, self.data, one.nodes.numel(), one.edges) for one in seen)
        return self.room.lack(2 * need)  # other nodes may see twice as much

    def ways(self, probes: Sequence[Int[Tensor, " Q"]] | None) -> tuple[list[Way], list[str]]:
        """Ways to answer that fit into the memory, and why others are left out.

        Args:
            probes: some sets of nodes like those that will be asked about; None where all are.
        """
        found: list[Way] = []
        lacks: list[str] = []
        if probes is not None:
            lack = self.lack(probes)
            found += [] if lack is not None else [self.piece]
            lacks += [] if lack is None else [f"its {self.piece.name} {lack}"]
        if not self.room.on_device(self.data):
            return found, [*lacks, f"the graph takes more than the {self.data.device} has memory"]
        found += [] if self.layers is None or self.unkept is not None else [self.layers]
        lacks += [] if self.unkept is None else [f"{LayerByLayer.name} {self.unkept}"]
        if probes is None or self._sees_most(probes[0]):
            lack = self.underived or self.room.lack(of_all(self.network, self.data.graph, self.data.n))
            found += [] if lack is not None else [self.whole]
            lacks += [] if lack is None else [f"{self.whole.name} {lack}"]
        return found, lacks

    def _sees_most(self, nodes: Int[Tensor, " Q"]) -> bool:
        """Whether so much is fetched that all may cost less."""
        return 2 * reached(self.data.graph, nodes, self.hops).nodes.numel() > self.data.n
