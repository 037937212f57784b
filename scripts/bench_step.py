"""Time of a training step (forward, cross entropy, backward, Adam) of 3 x 256 networks, ours and PyG's of equal form.

    python scripts/bench_step.py --data_root ../shared/data --threads 2

Without a data root the graphs are random ones of the same size. Ratios are PyG's time by ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from printed import table
from sample_graphs import FEATURES, random_features, random_graph
from timing import medians, peak_bytes
from torch import Tensor, nn

from gnnkd.distillers import Distiller
from gnnkd.distillers.dgd import Dgd
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.glnn import Glnn
from gnnkd.graph.structure import CSR, SPARSE_BELOW, Graph
from gnnkd.nn import gcn, mlp
from gnnkd.nn.dropout import dropout
from gnnkd.train.update import update
from gnnkd.types import Batch, Output
from gnnkd.types import Step as TrainStep

Step = Callable[[], object]
Row = dict[str, object]
NAMES = {"cora": "cora", "photo": "amazon-photo"}
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
        width, density, classes = FEATURES[size]
        graph = Graph.from_edge_index(random_graph(size).edge_index, random_graph(size).n_nodes)
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


def gcn_steps(data: Sample, input_dropout: float) -> dict[str, Step]:
    """Our network and PyG's, in each form that PyG offers."""
    from torch_geometric.nn.models import GCN
    from torch_geometric.utils import to_torch_csr_tensor

    x, edge_index = data.dense, data.graph.edge_index
    adj_t = to_torch_csr_tensor(edge_index.flip(0), size=(data.graph.n_nodes,) * 2)
    steps: dict[str, Step] = {}
    for name, operand in {OURS: data.x, "gnnkd, dense features": x}.items():
        net = gcn(x.shape[1], data.classes, layers=LAYERS, width=WIDTH, dropout=RATE, input_dropout=input_dropout)
        net = net.to(x.device)
        steps[name] = training(net, lambda net=net, operand=operand: net(operand, data.graph).logits, data)
    forms = {"edge_index": (edge_index, False), "edge_index, cached": (edge_index, True), "CSR, cached": (adj_t, True)}
    for name, (edges, cached) in forms.items():
        theirs = GCN(x.shape[1], WIDTH, LAYERS, data.classes, dropout=RATE, cached=cached).to(x.device)
        work = lambda theirs=theirs, edges=edges: theirs(F.dropout(x, input_dropout, True), edges)  # noqa: E731
        steps[f"PyG {name}"] = training(theirs, work, data)
    return steps


def mlp_steps(data: Sample, input_dropout: float) -> dict[str, Step]:
    """Our MLP on features as kept, on dense ones, and PyG's."""
    from torch_geometric.nn.models import MLP

    x = data.dense
    steps: dict[str, Step] = {}
    for name, operand in {OURS: data.x, "gnnkd, dense features": x}.items():
        net = mlp(x.shape[1], data.classes, layers=LAYERS, width=WIDTH, dropout=RATE, input_dropout=input_dropout)
        net = net.to(x.device)
        steps[name] = training(net, lambda net=net, operand=operand: net(operand).logits, data)
    sizes = [x.shape[1], *[WIDTH] * (LAYERS - 1), data.classes]
    theirs = MLP(sizes, dropout=RATE, norm=None).to(x.device)
    steps["PyG"] = training(theirs, lambda: theirs(F.dropout(x, input_dropout, True)), data)
    return steps


def measure(name: str, steps: Callable[[Sample, float], dict[str, Step]], args: argparse.Namespace) -> Iterator[Row]:
    """One row for each graph, input dropout and implementation."""
    device = torch.device(args.device)
    for data in (sample(size, args) for size in args.sizes.split(",")):
        for input_dropout in (0.0, RATE):
            works = steps(data, input_dropout)
            times = medians(works, repeats=args.repeats, device=device)
            for way, ms in times.items():
                memory = peak_bytes(works[way], device) / 2**20
                yield {
                    "step": name,
                    "graph": data.name,
                    "input_dropout": input_dropout,
                    "path": way,
                    "ms": ms,
                    "ratio": ms / times[OURS],
                    "peak_mb": memory,
                }


def gcn_section(args: argparse.Namespace) -> Iterator[Row]:
    """A GCN's step."""
    return measure("gcn", gcn_steps, args)


def mlp_section(args: argparse.Namespace) -> Iterator[Row]:
    """An MLP's step."""
    return measure("mlp", mlp_steps, args)


def dropout_section(args: argparse.Namespace) -> Iterator[Row]:
    """Dropout alone, forward and backward: ours and torch's."""
    device = torch.device(args.device)
    for rows in (200, 2708, 7650):
        x = torch.randn(rows, WIDTH, device=device, requires_grad=True)
        slope = torch.randn_like(x)
        works = {
            OURS: lambda x=x, slope=slope: torch.autograd.grad(dropout(x, RATE, True), x, slope),
            "torch": lambda x=x, slope=slope: torch.autograd.grad(F.dropout(x, RATE, True), x, slope),
        }
        times = medians(works, repeats=args.repeats, device=device)
        for way, ms in times.items():
            ns = 1e6 * ms / x.numel()
            yield {
                "step": "dropout",
                "shape": f"{rows} x {WIDTH}",
                "path": way,
                "ns_each": ns,
                "ratio": ms / times[OURS],
            }


def dgd_steps(data: Sample, input_dropout: float) -> dict[str, Step]:
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
    return {name: _student_step(data, input_dropout, method, batch, teacher) for name, method in methods.items()}


def _student_step(data: Sample, input_dropout: float, method: Distiller, batch: Batch, teacher: Output) -> Step:
    net = mlp(data.x.shape[1], data.classes, layers=2, width=64, dropout=RATE, input_dropout=input_dropout)
    net = net.to(data.y.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    return lambda: update(net, optimizer, method, batch, teacher, TrainStep(0, 1))


def dgd_section(args: argparse.Namespace) -> Iterator[Row]:
    """A student's step by DGD, its parts added one by one; the ratio is to the base method's step."""
    return measure("dgd", dgd_steps, args)


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "gcn": gcn_section,
    "mlp": mlp_section,
    "dropout": dropout_section,
    "dgd": dgd_section,
}
"""What is measured; each yields rows of one table."""


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="cora,photo", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data_root", default="", help="folder of the real graphs")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="what to measure")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.filterwarnings(
        "ignore", message="Sparse (CSR tensor support is in beta state|invariant checks are implicitly)"
    )
    print(
        f"torch {torch.__version__}, {platform.machine()}, {args.device}, {args.threads} threads, "
        f"median of {args.repeats}\n"
    )
    found = {}
    for section in args.sections.split(","):
        found[section] = list(SECTIONS[section](args))
        cells = [[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in found[section]]
        print(table(list(found[section][0]), cells), "\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
