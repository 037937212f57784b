"""What the stages of a run on a graph learn on: all nodes at once, samples of a graph, or rows from disk.

What a stage takes is said in `gnnkd.stage_room`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from gnnkd import models, nn
from gnnkd.errors import Unfit, UserError
from gnnkd.graph_config import Config
from gnnkd.logits import Logits
from gnnkd.models import Model
from gnnkd.nn.layerwise import Layerwise
from gnnkd.nn.own import Own
from gnnkd.nn.taken_apart import apart
from gnnkd.train.sampled import hops
from gnnkd.train.settings import TrainSettings

Kind: TypeAlias = Literal["whole", "sampled", "rows"]
MEMORY = 1 << 30
"""Bytes of what lies between two layers that inference on the host keeps in memory; the rest lies in files.

It is the same on every machine, so that the estimate is of what is done: what was free when a stage began says little
about an hour later, and pages of files stay in memory anyway as long as nobody needs it.
"""


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


def casts_rows(config: Config) -> bool:
    """Whether no stage reads all features at once, so that those of float16 can stay on the disk as they are."""
    taught = config.logits is not None or of_teacher(config) != "whole"
    return taught and of_student(config) != "whole" and not config.reads_features


def layerwise(train: TrainSettings, folder: Path | None = None) -> Layerwise | None:
    """How a network that was trained on batches is asked about many rows; None for all at once.

    Args:
        folder: of the results, where what does not lie in memory goes; None is the system's place for such files.
    """
    return None if train.batch_size is None else Layerwise(memory=MEMORY, folder=folder)


def check(config: Config) -> None:
    """Refuse batches that a network or a method cannot learn on.

    Raises:
        Unfit: that.
        UserError: fan-outs that do not fit the network.
    """
    if not isinstance(config.teacher_network, Logits) and config.teacher_train.batch_size is not None:
        found = _hops("teacher", config.teacher_network, config)
        _check_fanouts("teacher", config.teacher_model, found, config.teacher_train)
    if config.student_train.batch_size is None:
        return
    found, kind, method = _hops("student", config.student_network, config), of_student(config), config.base
    if kind not in batches(config):
        raise Unfit(
            f"student.batch_size is {config.student_train.batch_size}, and {method or config.method} needs all nodes "
            "at once: set student.batch_size=null, or choose a method such as glnn or kd"
        )
    if kind == "sampled" and not found and not config.student_train.fanouts:
        raise Unfit(
            f"{method or config.method} learns on more than rows and logits: with student.batch_size say how many "
            "neighbours are drawn for a node, as student.fanouts=[10]"
        )
    if kind == "rows" or found:
        _check_fanouts("student", config.student_model, found, config.student_train)


def _hops(role: str, network: Model, config: Config) -> int:
    """Layers that look at edges."""
    able = [name for name in sorted(nn.MODELS) if edge_layers(name, {}) is not None]
    options = config.teacher if role == "teacher" else config.student
    found = None if isinstance(network, Own) else edge_layers(network, options)
    if found is None:
        train = config.teacher_train if role == "teacher" else config.student_train
        raise Unfit(
            f"{role}.batch_size is {train.batch_size}, and {models.name(network)} cannot be asked about some nodes at "
            f"a time: set {role}.batch_size=null, or choose {', '.join(able[:-1])} or {able[-1]}"
        )
    return found


def edge_layers(name: str, options: Mapping[str, Any]) -> int | None:
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
    if needed and len(given or ()) != needed:
        said = "not given" if given is None else list(given)
        raise UserError(
            f"{role}.fanouts is {said}, and {name} has {needed} layers that look at edges: give the most neighbours of "
            f"a node for each hop, as {role}.fanouts={[15, 10, 5][:needed] if needed <= 3 else [10] * needed}"
        )
