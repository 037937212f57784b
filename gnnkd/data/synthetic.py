"""Graphs of real size, drawn and written as a folder that is mapped into memory (see `plan` for the model).

Memory: 24 bytes an undirected edge, 40 a node, and 0.4 GB for the process and the blocks that are drawn and written;
features are never in memory as a whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gnnkd.data import planted
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.labels import MASKS
from gnnkd.data.mapped import Writer, index_type, read, writing
from gnnkd.data.plan import Plan
from gnnkd.data.room import gb as _gb
from gnnkd.data.room import memory as _available
from gnnkd.errors import UserError

PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "synth-arxiv": Plan(
            nodes=169_343,
            edges=1_166_243,
            features=128,
            classes=40,
            fractions=(0.54, 0.18, 0.28),
        ),
        "synth-products": Plan(
            nodes=2_400_000,
            edges=62_000_000,
            features=100,
            classes=47,
            reach=0.8,
            stray=0.04,
            blur=1.5,
            signal=4.0,
            fractions=(0.08, 0.02, 0.90),
            popular=True,
        ),
    }
)
"""Graphs of the size of published ones, by name."""


def place(name: str, root: Path) -> Path:
    """Where the graph `name` lies below the data root."""
    return root / "synthetic" / name


def load(name: str, root: Path) -> NodeDataset:
    """A graph of `PLANS`, made before.

    Raises:
        UserError: it is not there, with the command that makes it, or damaged.
    """
    folder = place(name, root)
    if not folder.exists():
        raise UserError(
            f"dataset '{name}' is not in {folder}; make it with: python scripts/make_synthetic.py {name} "
            f"--data_root {root}"
        )
    return read(folder, name=name)


def check_room(plan: Plan, folder: Path) -> None:
    """Ask before hours of work whether there is room for it.

    Raises:
        UserError: less free disk or memory than `make` takes.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < plan.disk:
        raise UserError(f"{folder} takes {_gb(plan.disk)} of disk and {_gb(free)} are free; give another --data_root")
    available = _available()
    if available is not None and available < plan.memory:
        raise UserError(
            f"a graph of {plan.edges} edges takes {_gb(plan.memory)} of memory to make and {_gb(available)} are free; "
            "make a smaller one, or make it on another machine"
        )


def make(plan: Plan, folder: Path, *, name: str | None = None) -> dict[str, Any]:
    """Draw a graph and write it as a folder that `gnnkd.data.mapped` reads.

    Args:
        plan: what is drawn.
        folder: must not be there.
        name: of the graph; the folder's by default.

    Returns:
        What its `graph.json` says: sizes, plan, homophily (the share of edges within a class), degrees, digests.

    Raises:
        UserError: the folder is there or cannot be written, or so many distinct edges cannot be had.
    """
    with writing(folder) as writer:
        nodes = planted.placed(plan)
        facts = {**_facts(plan, nodes, name or folder.name), **_edges(plan, nodes, writer)}
        writer.array("y", np.int64, (plan.nodes,), [nodes.y])
        for mask, chosen in zip(MASKS, planted.masks(plan, nodes), strict=True):
            writer.array(mask, np.bool_, (plan.nodes,), [chosen])
        shape = (plan.nodes, plan.features)
        writer.array("x", np.float16 if plan.half else np.float32, shape, planted.features(plan, nodes))
        return writer.card(facts)


def _facts(plan: Plan, nodes: planted.Nodes, name: str) -> dict[str, Any]:
    shares = np.bincount(nodes.y) / plan.nodes
    return {
        "name": name,
        "nodes": plan.nodes,
        "edges": 2 * plan.edges,
        "features": plan.features,
        "classes": plan.classes,
        "largest_class": round(float(shares.max()), 6),
        "smallest_class": round(float(shares.min()), 6),
        "plan": asdict(plan),
    }


def _edges(plan: Plan, nodes: planted.Nodes, writer: Writer) -> dict[str, Any]:
    """Draw and write the edges, and say what they are like; they are gone from memory before the features come."""
    n = plan.nodes
    keys = planted.edges(plan, nodes)
    homophily = planted.homophily(plan, keys, nodes.y)
    both = planted.mirrored(plan, keys)
    del keys
    rowptr = np.searchsorted(both, np.arange(n + 1) * n)
    kind = index_type(n, both.size)
    writer.array("rowptr", kind, (n + 1,), [rowptr])
    writer.array("col", kind, (both.size,), (part % n for part in planted.parts(both)))
    degree = np.diff(rowptr)
    most = {"least": degree.min(), "median": np.median(degree), "most": degree.max(), "none": (degree == 0).sum()}
    return {"homophily": round(homophily, 4), "degrees": {what: int(count) for what, count in most.items()}}
