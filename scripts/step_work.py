"""What `bench_step.py` times: training steps of networks, ours and PyG's of equal form, ready to be repeated."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from sample_graphs import FEATURES, random_features, random_graph
from torch import Tensor, nn

from gnnkd.distillers import Distiller
from gnnkd.distillers.dgd import Dgd
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.glnn import Glnn
from gnnkd.graph.structure import CSR, SPARSE_BELOW, Graph
from gnnkd.nn import gcn, mlp
from gnnkd.train.update import update
from gnnkd.types import Batch, Output
from gnnkd.types import Step as TrainStep

Step = Callable[[], object]
Make = Callable[[], Step]
"""Builds the network, its optimizer and what it keeps of the graph; what is not asked for takes no memory."""
NAMES = {"cora": "cora", "photo": "amazon-photo", "arxiv": "synth-arxiv"}
DENSE = {"arxiv": (128, 40)}
"""Columns of the features and classes of random graphs whose features are not words."""
WIDTH, LAYERS, RATE = 256, 3, 0.5
OURS = "gnnkd"


@dataclass(frozen=True)
class Sample:
    """A labelled graph; `x` as the toolkit would keep it, sparse or dense."""

    name: str
    x: Tensor | CSR
    y: Tensor
    graph: Graph
    classes: int

    @property
    def train(self) -> Tensor:
        """The first 20 nodes a class, roughly: 20 C nodes."""
        return torch.arange(20 * self.classes, device=self.y.device)

    @property
    def dense(self) -> Tensor:
        """The features written out."""
        return self.x.dense() if isinstance(self.x, CSR) else self.x


def sample(size: str, args: argparse.Namespace) -> Sample:
    """The real graph when there is a data root, else a random one of its size."""
    if args.data_root:
        from gnnkd.data.graphs import load

        data = load(NAMES[size], root=args.data_root)
        x, y, graph, classes = data.x, data.y, data.graph, len(data.classes)
    else:
        graph = Graph.from_edge_index(random_graph(size).edge_index, random_graph(size).n_nodes)
        if size in DENSE:
            width, classes = DENSE[size]
            x = torch.randn(graph.n_nodes, width)
        else:
            width, density, classes = FEATURES[size]
            x = random_features(graph.n_nodes, width, density)
        y = torch.randint(classes, (graph.n_nodes,))
    if isinstance(x, CSR) and x.density >= SPARSE_BELOW:
        x = x.dense()
    device = torch.device(args.device)
    return Sample(
        NAMES[size] if args.data_root else f"random, size of {size}",
        x.to(device),
        y.to(device),
        graph.to(device),
        classes,
    )


def training(model: nn.Module, logits: Callable[[], Tensor], data: Sample) -> Step:
    """A step of training, ready to be repeated."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    y = data.y[data.train]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits()[data.train], y).backward()
        optimizer.step()

    return step


def gcn_steps(data: Sample, input_dropout: float) -> dict[str, Make]:
    """Our network and PyG's, in each form that PyG offers."""

    def ours(operand: Callable[[], Tensor | CSR]) -> Step:
        x = operand()
        net = gcn(x.shape[1], data.classes, layers=LAYERS, width=WIDTH, dropout=RATE, input_dropout=input_dropout)
        net = net.to(data.y.device)
        return training(net, lambda: net(x, data.graph).logits, data)

    def theirs(compressed: bool, cached: bool) -> Step:
        from torch_geometric.nn.models import GCN
        from torch_geometric.utils import to_torch_csr_tensor

        x, edges = data.dense, data.graph.edge_index
        if compressed:
            edges = to_torch_csr_tensor(edges.flip(0), size=(data.graph.n_nodes,) * 2)
        net = GCN(x.shape[1], WIDTH, LAYERS, data.classes, dropout=RATE, cached=cached).to(x.device)
        return training(net, lambda: net(F.dropout(x, input_dropout, True), edges), data)

    return {
        OURS: partial(ours, lambda: data.x),
        "gnnkd, dense features": partial(ours, lambda: data.dense),
        "PyG edge_index": partial(theirs, False, False),
        "PyG edge_index, cached": partial(theirs, False, True),
        "PyG CSR, cached": partial(theirs, True, True),
    }


def mlp_steps(data: Sample, input_dropout: float) -> dict[str, Make]:
    """Our MLP on features as kept, on dense ones, and PyG's."""

    def ours(operand: Callable[[], Tensor | CSR]) -> Step:
        x = operand()
        net = mlp(x.shape[1], data.classes, layers=LAYERS, width=WIDTH, dropout=RATE, input_dropout=input_dropout)
        net = net.to(data.y.device)
        return training(net, lambda: net(x).logits, data)

    def theirs() -> Step:
        from torch_geometric.nn.models import MLP

        x = data.dense
        net = MLP([x.shape[1], *[WIDTH] * (LAYERS - 1), data.classes], dropout=RATE, norm=None).to(x.device)
        return training(net, lambda: net(F.dropout(x, input_dropout, True)), data)

    return {
        OURS: partial(ours, lambda: data.x),
        "gnnkd, dense features": partial(ours, lambda: data.dense),
        "PyG": theirs,
    }


def dgd_steps(data: Sample, input_dropout: float) -> dict[str, Make]:
    """A 2 x 64 MLP student by GLNN, and by DGD on it with parts of its work left out.

    "curvature" adds the Hessian-vector product (flat attention needs no guesses), "generator" the guesses (aimed at
    directly, without attention), the last line is the whole method.
    """
    n = data.graph.n_nodes
    batch = Batch.of(data.x, data.y, data.graph, torch.ones(n, dtype=torch.bool, device=data.y.device))
    teacher = Output(torch.randn(n, data.classes, device=data.y.device))
    names = tuple(f"layers.{i}.lin.weight" for i in range(LAYERS))
    widths, blocks = (*[64] * (LAYERS - 1), data.classes), (1,) * LAYERS
    bank = Bank(Layers(names, widths, blocks, min(n, 2048), n), GeneratorSettings().resolved())
    bank.offer(1.0, 0, bank.untrained(seed=0))
    methods: dict[str, Distiller] = {
        OURS: Glnn(),
        "+ curvature": Dgd(Glnn(), bank, control="uniform"),
        "+ generator": Dgd(Glnn(), bank, fusion="direct"),
        "+ attention (all of DGD)": Dgd(Glnn(), bank),
    }
    return {
        name: partial(_student_step, data, input_dropout, method, batch, teacher) for name, method in methods.items()
    }


def _student_step(data: Sample, input_dropout: float, method: Distiller, batch: Batch, teacher: Output) -> Step:
    net = mlp(data.x.shape[1], data.classes, layers=2, width=64, dropout=RATE, input_dropout=input_dropout)
    net = net.to(data.y.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    return lambda: update(net, optimizer, method, batch, teacher, TrainStep(0, 1))


STEPS: dict[str, Callable[[Sample, float], dict[str, Make]]] = {"gcn": gcn_steps, "mlp": mlp_steps, "dgd": dgd_steps}
"""Steps by section and path; ratios are to the first path."""
