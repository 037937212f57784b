"""All that one measurement says, as `latency.json` holds it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from gnnkd.compare import macs
from gnnkd.compare.latency import ALL
from gnnkd.data.task import NodeTask
from gnnkd.latency import writing
from gnnkd.latency.contenders import STUDENT, TEACHER
from gnnkd.latency.measuring import Effort
from gnnkd.latency.networks import Pair
from gnnkd.latency.room import Room
from gnnkd.latency.rows import Row
from gnnkd.options import plain
from gnnkd.predictor import Predictor
from gnnkd.provenance import commit, versions


def report(
    rows: Sequence[Row],
    pair: Pair,
    task: NodeTask,
    effort: Effort,
    room: Room,
    *,
    device: str,
    method: str | None,
    load: tuple[float | None, float | None] = (None, None),
    command: str | None = None,
) -> dict[str, Any]:
    """What was measured, with what it was measured on.

    Args:
        rows: of `measuring.measure`.
        pair: of networks.
        task: whose nodes were asked about.
        effort: sizes, repeats, threads, engines.
        room: what might be taken of the memory.
        device: cpu or cuda.
        method: that taught the student; None where the networks are untrained.
        load: processes that wanted to compute before and after, as `writing.load` says.
        command: as it was typed.
    """
    known = task if task.whole is None else task.whole
    sides: Mapping[str, Predictor] = {TEACHER: pair.teacher, STUDENT: pair.student}
    found = {side: _network(predictor, task) for side, predictor in sides.items()}
    found[STUDENT]["method"] = method
    for i, side in enumerate(sides):
        found[side]["folder"] = None if pair.folders is None else str(pair.folders[i])
    shared = {"processor": writing.processor(), "load": None if None in load else list(load)}
    return {
        "format": writing.FORMAT,
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "seed": task.seed,
        "trained": method is not None,
        "nodes": known.graph.n_nodes,
        "edges": known.graph.n_edges,
        "features": task.n_features,
        "classes": task.n_classes,
        **found,
        "device": device,
        "machine": {**shared, "gpu": torch.cuda.get_device_name() if device == "cuda" else None},
        "threads": effort.threads,
        "repeats": effort.repeats,
        "seconds": effort.seconds,
        "sizes": [ALL if size is None else size for size in effort.sizes],
        "engines": list(effort.engines),
        "memory": asdict(room)["left"],
        "finished": len({row["size"] for row in rows}) == len(effort.sizes),
        "rows": list(rows),
        "versions": versions(),
        "commit": commit(),
        "command": command,
    }


def _network(predictor: Predictor, task: NodeTask) -> dict[str, Any]:
    network = copy.deepcopy(predictor.network).cpu()  # which may still be asked on its device
    return {
        "model": predictor.name,
        "options": plain(predictor.options),
        "n_parameters": predictor.n_parameters,
        "n_stored": predictor.n_stored,
        "hops": macs.hops(network, task.n_features),
    }
