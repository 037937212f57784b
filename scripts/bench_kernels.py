"""Time and memory of a weighted neighbour sum and of attention: ours, PyG's, torch's; and when sparse features pay.

    python scripts/bench_kernels.py --sizes cora,photo --threads 2
    python scripts/bench_kernels.py --sections attention --sizes photo
    python scripts/bench_kernels.py --sections density

The floor is the time of copying as many bytes as the sum must touch at least once: the table, the result, the indices
and the weights. Ratios are to our path. Backward is by the table only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from printed import table
from sample_graphs import FEATURES, SIZES, random_features, random_graph
from timing import Work, medians, peak_bytes
from torch import Tensor

from gnnkd.graph import normalise
from gnnkd.graph.kernels import PATHS, neighbour_sum
from gnnkd.graph.structure import CSR, SPARSE_BELOW, Graph
from gnnkd.nn.linear import linear

Kernel = Callable[[Tensor], Tensor]
OURS, FLOOR = "gnnkd", "floor (copy)"
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
REAL = {"cora": "cora", "photo": "amazon-photo"}


def kernels(graph: Graph) -> dict[str, Kernel]:
    """Every way to compute the same sum, its structure prepared."""
    from torch_geometric import EdgeIndex
    from torch_geometric.nn import SimpleConv

    a, n = graph.adjacency, graph.n_nodes
    edge_index, weight = graph.edge_index, a.values()
    source, target = edge_index
    conv = SimpleConv(aggr="sum")
    matrix = torch.sparse_csr_tensor(a.rowptr, a.col, weight, a.shape, check_invariants=False)
    fast = EdgeIndex(edge_index, sparse_size=(n, n), sort_order="col").fill_cache_()

    ways: dict[str, Kernel] = {
        OURS: lambda x: neighbour_sum(a, x),
        "PyG edge_index (scatter)": lambda x: conv(x, edge_index, weight),
        "PyG EdgeIndex.matmul": lambda x: fast.matmul(x, input_value=weight, transpose=True),
        "PyG CSR adjacency": lambda x: conv(x, matrix),
        "torch index_add": lambda x: x.new_zeros(n, x.shape[1]).index_add(0, target, x[source] * weight[:, None]),
    }
    if importlib.util.find_spec("torch_scatter"):
        from torch_scatter import scatter

        ways["torch_scatter scatter"] = lambda x: scatter(x[source] * weight[:, None], target, 0, dim_size=n)
        ways["torch_scatter segment_csr (GNNKD_KERNEL=scatter)"] = lambda x: PATHS["scatter"](a, weight, x)
    return ways


def bytes_touched(a: CSR, width: int) -> int:
    """What a sum reads and writes at least once."""
    index = a.col.element_size() * (a.n_entries + a.shape[0] + 1)
    return index + 4 * a.n_entries + 4 * width * (a.shape[0] + a.shape[1])


def measure_kernels(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, object]]:
    """One row for each graph and path."""
    for name, graph in graphs(args):
        graph = graph.to(device)
        x = torch.randn(graph.n_nodes, args.features, device=device)
        slope, ways = torch.randn_like(x), kernels(graph)
        check(ways, x)
        forward: dict[str, Work] = {way: partial(f, x) for way, f in ways.items()}
        both: dict[str, Work] = {way: partial(forward_backward, f, x, slope) for way, f in ways.items()}
        memory = {way: peak_bytes(work, device) for way, work in both.items()}
        # A copy reads and writes, so half the bytes are enough; backward touches as many again.
        moved = torch.ones(bytes_touched(graph.adjacency, args.features) // 8, device=device)
        forward[FLOOR] = partial(torch.empty_like(moved).copy_, moved)
        both[FLOOR] = partial(torch.empty(2 * moved.numel(), device=device).copy_, moved.repeat(2))
        repeats = args.repeats or max(3, min(50, 5_000_000 // graph.n_edges))
        fast = medians(forward, repeats=repeats, device=device)
        slow = medians(both, repeats=repeats, device=device)
        for way in forward:
            yield {
                "graph": name,
                "path": way,
                "forward_ms": fast[way],
                "forward_ratio": fast[way] / fast[OURS],
                "both_ms": slow[way],
                "both_ratio": slow[way] / slow[OURS],
                "peak_mb": memory[way] / 2**20 if way in memory else None,
                "repeats": repeats,
            }


def measure_attention(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, object]]:
    """A graph attention layer, 8 heads of 32, ours and PyG's with the same weights: outputs, then all gradients."""
    from torch_geometric.nn import GATConv as Theirs

    from gnnkd.nn.gat import GATConv

    for name, graph in graphs(args):
        graph = Graph(graph.adjacency.with_value(None)).to(device)
        x = torch.randn(graph.n_nodes, args.features, device=device, requires_grad=True)
        slope = torch.randn(graph.n_nodes, 256, device=device)
        ours, theirs = GATConv(args.features, 256, heads=8).to(device), Theirs(args.features, 32, heads=8).to(device)
        ours.load_state_dict(theirs.state_dict())
        layers: dict[str, Callable[[], Tensor]] = {
            OURS: partial(ours, x, graph),
            "PyG GATConv": partial(theirs, x, graph.edge_index),
        }
        torch.testing.assert_close(layers[OURS](), layers["PyG GATConv"](), rtol=1e-3, atol=1e-3)
        inputs = {OURS: [x, *ours.parameters()], "PyG GATConv": [x, *theirs.parameters()]}
        both: dict[str, Work] = {way: partial(gradients, f, inputs[way], slope) for way, f in layers.items()}
        memory = {way: peak_bytes(work, device) for way, work in both.items()}
        repeats = args.repeats or max(3, min(25, 2_000_000 // graph.n_edges))
        fast = medians(layers, repeats=repeats, device=device)
        slow = medians(both, repeats=repeats, device=device)
        for way in layers:
            yield {
                "graph": name,
                "layer": way,
                "forward_ms": fast[way],
                "forward_ratio": fast[way] / fast[OURS],
                "both_ms": slow[way],
                "both_ratio": slow[way] / slow[OURS],
                "peak_mb": memory[way] / 2**20,
                "repeats": repeats,
            }


def gradients(f: Callable[[], Tensor], inputs: list[Tensor], slope: Tensor) -> tuple[Tensor, ...]:
    """The gradient of `<f(), slope>` by each of `inputs`."""
    return torch.autograd.grad(f(), inputs, slope)


def forward_backward(f: Kernel, x: Tensor, slope: Tensor) -> Tensor:
    """The gradient of `<f(x), slope>` by `x`."""
    x = x.detach().requires_grad_()
    (by_x,) = torch.autograd.grad(f(x), x, slope)
    return by_x


def check(ways: dict[str, Kernel], x: Tensor) -> None:
    """All paths compute the same."""
    want = ways[OURS](x)
    for way, f in ways.items():
        if not torch.allclose(f(x), want, atol=1e-2, rtol=1e-3):
            raise AssertionError(f"{way} computes something else than {OURS}")


def graphs(args: argparse.Namespace) -> Iterator[tuple[str, Graph]]:
    """The random graphs of the chosen sizes, and the real ones that lie under the data root."""
    for size in args.sizes.split(","):
        yield f"random, size of {size}", random_graph(size)
        if args.data_root and size in REAL:
            from gnnkd.data.graphs import load

            graph = load(REAL[size], root=args.data_root).graph
            yield REAL[size], Graph(graph.derived(normalise.gcn))


def measure_density(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, object]]:
    """A first layer of 256 units, forward and backward by its weight, on features of growing density."""
    n, width = SIZES["cora"][0], FEATURES["cora"][0]
    weight = torch.randn(256, width, device=device)
    slope = torch.randn(n, 256, device=device)
    for density in DENSITIES:
        sparse = random_features(n, width, density).to(device)
        dense = sparse.dense()
        work: dict[str, Work] = {
            "dense": partial(forward_backward, partial(F.linear, dense), weight, slope),
            "sparse": partial(forward_backward, partial(linear, sparse), weight, slope),
        }
        times = medians(work, repeats=args.repeats or 15, device=device)
        yield {"density": density, **times, "ratio": times["dense"] / times["sparse"]}


def show(rows: list[dict[str, object]]) -> None:
    """Print rows as a table."""
    cells = [[f"{v:.3g}" if isinstance(v, float) else "" if v is None else v for v in row.values()] for row in rows]
    print(table(list(rows[0]), cells), "\n")


SECTIONS = {"kernels": measure_kernels, "attention": measure_attention, "density": measure_density}


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="cora,photo,arxiv", help=f"some of {','.join(SIZES)}")
    parser.add_argument("--features", type=int, default=256, help="columns of the table")
    parser.add_argument("--repeats", type=int, default=0, help="rounds; 0: by size")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data_root", default="", help="folder of the real graphs, measured too when given")
    parser.add_argument("--sections", default="kernels,attention,density", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.filterwarnings(
        "ignore", message="Sparse (CSR tensor support is in beta state|invariant checks are implicitly)"
    )
    device = torch.device(args.device)
    print(f"torch {torch.__version__}, {platform.machine()}, {device}, {args.threads} threads, {SPARSE_BELOW = }\n")
    found = {}
    for section in args.sections.split(","):
        found[section] = list(SECTIONS[section](args, device))
        show(found[section])
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
