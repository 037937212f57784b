"""What the stages of a run on a graph learn on: all nodes at once, samples of a graph, or rows from disk.

Memory of a stage on batches, in bytes beside mapped files, about the larger of

    a step       sum over layers of 4 n (2 I + 4 O), and 40 e
    inference    as `nn.layerwise` says

and 16 a parameter and 29 a node; rows take a `RowStore`'s in place of a sample's. n are the nodes that a layer with I
inputs and O outputs reads, at most B (1 + k1 + k1 k2 + ...) for B seeds and the fan-outs k of the layers from it on;
nodes that are met twice count once. e are the edges of a sample. DGD keeps the features of the rows that its states are
made of, 4 P D for P rows, and the samples around them. Disk: `train.outputs.size` for a teacher, and what
`Tables` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch

from gnnkd import models, nn
from gnnkd.data import room
from gnnkd.data.room import gb
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.logits import Logits
from gnnkd.models import Model
from gnnkd.nn.layerwise import Layerwise, apart
from gnnkd.nn.own import Own
from gnnkd.train import outputs
from gnnkd.train.sampled import hops
from gnnkd.train.settings import TrainSettings

Kind: TypeAlias = Literal["whole", "sampled", "rows"]
MEMORY = 1 << 30
"""Bytes of what lies between two layers that inference keeps in memory at least, where so much is free."""


def of_teacher(config: Config) -> Kind:
    """What the teacher is trained on."""
    return "whole" if config.teacher_train.batch_size is None else "sampled"


def of_student(config: Config) -> Kind:
    """What the student is trained on: rows, where its method and its network need no more."""
    if config.student_train.batch_size is None:
        return "whole"
    return "sampled" if models.needs_graph(config.student_network) or "rows" not in batches(config) else "rows"


def batches(config: Config) -> frozenset[str]:
    """What the method, or its base, works on."""
    return frozenset.intersection(*(kind.batches for kind in config.kinds if not kind.wraps))


def layerwise(train: TrainSettings) -> Layerwise | None:
    """How a network that was trained on batches is asked about many rows; None for all at once."""
    if train.batch_size is None:
        return None
    free = room.memory()
    return Layerwise(memory=MEMORY if free is None else max(MEMORY, free // 3))


# -- before anything is read ---------------------------------------------------------------------------------------


def check(config: Config) -> None:
    """Refuse batches that a network or a method cannot learn on.

    Raises:
        UserError: that, or fan-outs that do not fit the network.
    """
    if not isinstance(config.teacher_network, Logits) and config.teacher_train.batch_size is not None:
        found = _hops("teacher", config.teacher_network, config)
        _check_fanouts("teacher", config.teacher_model, found, config.teacher_train)
    if config.student_train.batch_size is None:
        return
    found, kind, method = _hops("student", config.student_network, config), of_student(config), config.base
    if kind not in batches(config):
        raise UserError(
            f"student.batch_size is {config.student_train.batch_size}, and {method or config.method} needs all nodes "
            "at once: set student.batch_size=null, or choose a method such as glnn or kd"
        )
    if kind == "sampled" and not found and not config.student_train.fanouts:
        raise UserError(
            f"{method or config.method} learns on more than rows and logits: with student.batch_size say how many "
            "neighbours are drawn for a node, as student.fanouts=[10]"
        )
    if kind == "rows" or found:
        _check_fanouts("student", config.student_model, found, config.student_train)


def _hops(role: str, network: Model, config: Config) -> int:
    """Layers that look at edges."""
    able = [name for name in sorted(nn.MODELS) if _apart(name, {}) is not None]
    options = config.teacher if role == "teacher" else config.student
    found = None if isinstance(network, Own) else _apart(network, options)
    if found is None:
        train = config.teacher_train if role == "teacher" else config.student_train
        raise UserError(
            f"{role}.batch_size is {train.batch_size}, and {models.name(network)} cannot be asked about some nodes at "
            f"a time: set {role}.batch_size=null, or choose {', '.join(able[:-1])} or {able[-1]}"
        )
    return found


def _apart(name: str, options: Mapping[str, Any]) -> int | None:
    """How many layers of a network look at edges; None where it cannot be taken apart."""
    with torch.device("meta"):
        network = nn.MODELS[name](2, 2, **options)
    try:
        return hops([layer.matrix for layer in apart(network, torch.empty(1, 2, device="meta"))])
    except UserError:
        return None


def _check_fanouts(role: str, name: str, needed: int, train: TrainSettings) -> None:
    given = train.fanouts
    if not needed and given is not None:
        raise UserError(
            f"{role}.fanouts is {list(given)}, and {name} looks at rows alone: leave it out, or give it to the other "
            "stage, as teacher.fanouts"
        )
    if needed and len(given or ()) < needed:
        said = "not given" if given is None else list(given)
        raise UserError(
            f"{role}.fanouts is {said}, and {name} has {needed} layers that look at edges: give the most neighbours of "
            f"a node for each hop, as {role}.fanouts={[15, 10, 5][:needed] if needed <= 3 else [10] * needed}"
        )


# -- before anything is trained ------------------------------------------------------------------------------------


def check_room(task: NodeTask, config: Config, folder: Path, *, teacher: bool, student: bool) -> None:
    """Refuse a stage on batches that has no room, with the estimate.

    Args:
        folder: where results go.
        teacher: whether one is trained.
        student: the same.

    Raises:
        UserError: less free memory or disk than it takes.
    """
    free = room.memory()
    for role, wanted in (("teacher", teacher), ("student", student)):
        train = config.teacher_train if role == "teacher" else config.student_train
        if not wanted or train.batch_size is None or task.y.device.type != "cpu":
            continue
        need = memory(task, config, role)
        if free is not None and need > free:
            raise UserError(
                f"the {role} takes about {gb(need)} of memory and {gb(free)} are free; give a smaller "
                f"{role}.batch_size, fewer {role}.fanouts, or a narrower network"
            )
    if teacher and config.logits is None and config.teacher_train.batch_size is not None:
        bytes_of_file = outputs.size(task.n_nodes, task.n_classes, config.data.storage)
        if (left := room.disk(folder)) < bytes_of_file:
            raise UserError(
                f"the teacher's outputs take {gb(bytes_of_file)} and {folder} has {gb(left)} free; choose another "
                "--out, or data.storage=float16"
            )


def memory(task: NodeTask, config: Config, role: str) -> int:
    """About the most bytes that a stage on batches takes at a time."""
    train = config.teacher_train if role == "teacher" else config.student_train
    network, options = (
        (config.teacher_network, config.teacher) if role == "teacher" else (config.student_network, config.student)
    )
    assert isinstance(network, str), "modules and ready logits learn on no batches"
    assert train.batch_size is not None
    with torch.device("meta"):
        model = nn.MODELS[network](task.n_features, task.n_classes, **options)
    parameters: int = sum(p.numel() for p in model.parameters())
    outs = [int(layer.out_channels) for layer in cast("nn.Network", model).layers]  # type: ignore[arg-type]
    widths = list(pairwise([task.n_features, *outs]))
    nodes, edges = _sample(task, train.batch_size, train.fanouts or ())
    read = [*reversed(nodes[: len(widths) + 1]), *[nodes[0]] * len(widths)][-len(widths) - 1 :]
    step = 40 * edges + sum(4 * n * (2 * i + 4 * o) for n, (i, o) in zip(read, widths, strict=False))
    n, wide = task.n_nodes, max(i + o for i, o in widths)
    asked = min(MEMORY, 8 * n * wide) + 8 * n * (len(widths) + 2) + 16 * min(n, Layerwise.nodes) * wide
    asked += min(task.graph.n_edges, Layerwise.entries) * (100 + 24 * int(options.get("heads", 0)))
    return max(step, asked) + 16 * parameters + 29 * task.n_nodes


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
