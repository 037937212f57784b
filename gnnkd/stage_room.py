"""What a stage of a run on a graph takes, before it begins.

Memory of a stage in bytes, beside the process, the graph, the features and mapped files, about

    on all nodes    sum over weight matrices of 4 N (3 I + 4 O), and E (72 + 80 heads)
    on batches      the larger of
        a step       sum over layers of 4 n (2 I + 4 O), and 40 e
        inference    as `nn.layerwise` says, with `MEMORY` for what lies between two layers

and 16 a parameter and 29 a node; rows take a `RowStore`'s in place of a sample's. N are the nodes, E the edges, I and O
the inputs and outputs of a matrix or layer; of sparse features I is the mean number of entries of a row, heads is 0 but
for gat. n are the nodes that a layer reads, at most B (1 + k1 + k1 k2 + ...) for B seeds and the fan-outs k of the
layers from it on; nodes that are met twice count once. e are the edges of a sample. What a method adds is not counted
on all nodes; on batches DGD keeps the features of the rows that its states are made of, 4 P D for P rows, and the
samples around them.

Disk: `train.outputs.size` for a teacher on batches, and where there are more than `MEMORY` bytes between two layers of
inference all of these, 4 N times the columns that `nn.layerwise` keeps, for each process that torchrun has started
here.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from gnnkd import models, nn
from gnnkd.batching import MEMORY, edge_layers
from gnnkd.data import room
from gnnkd.data.room import gb
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.models import Teacher
from gnnkd.nn.gat import GATConv
from gnnkd.nn.layerwise import Layerwise
from gnnkd.nn.taken_apart import apart, kept
from gnnkd.train import outputs
from gnnkd.train.settings import TrainSettings


def check(task: NodeTask, config: Config, folder: Path | None, *, teacher: bool, student: bool) -> None:
    """Refuse a stage that has no room, with the estimate. What a GPU has is not asked, nor what a user's module takes.

    Args:
        folder: where results go; None keeps them in memory.
        teacher: whether one is trained.
        student: the same.

    Raises:
        UserError: less free memory or disk than it takes.
    """
    free = room.memory()
    for role, wanted in (("teacher", teacher), ("student", student)):
        network = _of(config, role)[0]
        if not wanted or not isinstance(network, str) or task.y.device.type != "cpu":
            continue
        need = memory(task, config, role)
        if free is not None and need > free:
            raise UserError(
                f"the {role} takes about {gb(need)} of memory and {gb(free)} are free; {_less(config, role)}"
            )
        _check_disk(task, config, role, folder)


def _less(config: Config, role: str) -> str:
    """How a stage takes less memory."""
    network, _, train = _of(config, role)
    if train.batch_size is not None:
        return f"give a smaller {role}.batch_size, fewer {role}.fanouts, or a narrower network"
    if not isinstance(network, str) or edge_layers(network, {}) is None:
        return f"it learns on all nodes at once: give a narrower network, or gcn, sage or gat with {role}.batch_size"
    fanouts = f" and {role}.fanouts" if models.needs_graph(network) else ""
    return f"it learns on all nodes at once: set {role}.batch_size{fanouts}, or give a narrower network"


def _check_disk(task: NodeTask, config: Config, role: str, folder: Path | None) -> None:
    """Refuse files that a stage on batches has no room for: what inference keeps, and a teacher's outputs beside it."""
    if _of(config, role)[2].batch_size is None:
        return
    between = tables(task, config, role)
    between = 0 if between <= MEMORY else room.sharing() * between
    said = 0 if role == "student" or folder is None else outputs.size(task.n_nodes, task.n_classes, config.data.storage)
    where = folder or Path(tempfile.gettempdir())
    if (left := room.disk(where)) < between + said:
        what = "outputs" if not between else "outputs and what lies between its layers" if said else "inference"
        raise UserError(
            f"the {role}'s {what} take{'s' * (what == 'inference')} {gb(between + said)} of disk and {where} has "
            f"{gb(left)} free; choose another {'--out' if folder else 'TMPDIR'}"
            + (", or data.storage=float16" if said and config.data.storage == "float32" else "")
        )


def _of(config: Config, role: str) -> tuple[Teacher, Mapping[str, Any], TrainSettings]:
    if role == "teacher":
        return config.teacher_network, config.teacher, config.teacher_train
    return config.student_network, config.student, config.student_train


def _empty(task: NodeTask, config: Config, role: str) -> torch.nn.Module:
    """A stage's network without memory for its parameters."""
    network, options, _ = _of(config, role)
    assert isinstance(network, str), "modules and ready logits have no sizes that are known"
    with torch.device("meta"):
        return nn.MODELS[network](task.n_features, task.n_classes, **options)


def memory(task: NodeTask, config: Config, role: str) -> int:
    """About the most bytes that a stage takes at a time, as the module says."""
    network, _, train = _of(config, role)
    model = _empty(task, config, role)
    heads = max((int(layer.heads) for layer in model.modules() if isinstance(layer, GATConv)), default=0)
    parameters: int = sum(p.numel() for p in model.parameters())
    if train.batch_size is not None:
        most = _batched(task, model, heads, train)
    else:
        along = task.graph.n_edges if isinstance(network, str) and models.needs_graph(network) else 0
        most = _whole(task, model) + along * (72 + 80 * heads)
    return most + 16 * parameters + 29 * task.n_nodes


def _whole(task: NodeTask, model: torch.nn.Module) -> int:
    """Of the rows in a training step on all nodes."""
    n, of_x = task.n_nodes, task.n_features
    if not isinstance(task.x, torch.Tensor):
        of_x = -(-task.x.n_entries // max(1, n))
    matrices = [p.shape for p in model.parameters() if p.dim() == 2]
    return 4 * n * sum(3 * (of_x if i == task.n_features else i) + 4 * o for o, i in matrices)


def _batched(task: NodeTask, model: torch.nn.Module, heads: int, train: TrainSettings) -> int:
    """Of a step on a sample, or of inference, whichever takes more."""
    assert train.batch_size is not None
    widths = list(pairwise([task.n_features, *_outs(model)]))
    nodes, edges = _sample(task, train.batch_size, train.fanouts or ())
    read = [*reversed(nodes[: len(widths) + 1]), *[nodes[0]] * len(widths)][-len(widths) - 1 :]
    step = 40 * edges + sum(4 * n * (2 * i + 4 * o) for n, (i, o) in zip(read, widths, strict=False))
    n, wide = task.n_nodes, max(i + o for i, o in widths)
    asked = min(MEMORY, _tables(task, model)) + 8 * n * (len(widths) + 2) + 16 * min(n, Layerwise.nodes) * wide
    return max(step, asked + min(task.graph.n_edges, Layerwise.entries) * (100 + 24 * heads))


def tables(task: NodeTask, config: Config, role: str) -> int:
    """Bytes of what lies between two layers at most when a network that learns on batches is asked about all nodes."""
    return _tables(task, _empty(task, config, role))


def _tables(task: NodeTask, model: torch.nn.Module) -> int:
    layers = apart(model, task.x)
    # Of layers of rows alone all are applied to some rows at a time.
    return 0 if all(one.matrix is None for one in layers) else 4 * task.n_nodes * max(kept(layers, _outs(model)))


def _outs(model: torch.nn.Module) -> list[int]:
    return [int(layer.out_channels) for layer in cast("nn.Network", model).layers]  # type: ignore[arg-type]


def _sample(task: NodeTask, batch_size: int, fanouts: tuple[int | None, ...]) -> tuple[list[int], int]:
    """About the nodes of a sample within 0, 1, ... hops, and its edges."""
    n = max(1, task.n_nodes)
    mean = task.graph.n_edges / n
    last = total = float(min(batch_size, n))
    within, edges = [int(last)], 0.0
    for k in fanouts:
        last *= mean if k is None else min(k, mean)
        edges, total = edges + last, total + last
        within.append(int(max(within[-1], -n * math.expm1(-total / n))))
    return within, int(min(edges, task.graph.n_edges))
