"""Where the run of a graph of networks lies, what determines its result, and whether the place may be written to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnkd import claims, options
from gnnkd.data.image_task import ImageTask
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.images.config import NOT_COMPARED
from gnnkd.ktg import alone
from gnnkd.ktg.plans import Plan, Plans
from gnnkd.places import Place
from gnnkd.train.settings import said

METHOD = "together"
"""What results call it."""
_WHERE = ("dataset", "protocol", "setting", "seed", "fingerprint", "content", "data", "processes")
"""Of a run's description: which data, which split, how many processes."""


def root(out: Path, task: NodeTask | ImageTask) -> Path:
    """`OUT/D/<protocol>-<setting>`."""
    return out / task.name / f"{task.protocol}-{task.setting}"


def place(out: Path, task: NodeTask | ImageTask, name: str, tag: str | None = None) -> Place:
    """`OUT/D/<protocol>-<setting>/together/<name>[@tag]/seed<k>`."""
    folder = f"{name}@{tag}" if tag else name
    return Place(root(out, task) / METHOD / folder / f"seed{task.seed}")


def named(file: Path) -> str:
    """The name of a graph in a file, as it can be part of a path.

    Raises:
        UserError: nothing of the file's name can.
    """
    found = re.sub(r"[^\w.+-]+", "_", file.stem, flags=re.ASCII).strip("._+-")
    if not found:
        raise UserError(f"{file} has a name that no folder can have; call it otherwise, as graph.yaml")
    return found[:64]


def node(there: Place, i: int) -> Path:
    """The best weights of a node; `gnnkd.load` reads them."""
    return there.folder / f"node{i}.safetensors"


def svg(there: Place) -> Path:
    """The graph drawn."""
    return there.folder / "graph.svg"


def png(there: Place) -> Path:
    """The same as pixels."""
    return there.folder / "graph.png"


def claim(
    there: Place, description: Mapping[str, Any], plan: Plan, *, resume: bool = False, overwrite: bool = False
) -> bool:
    """As `gnnkd.claims.claim`, with the files that graphs of networks have.

    Raises:
        UserError: as there.
    """
    anew = claims.claim(there, description, plan.DIFFERING, resume=resume, overwrite=overwrite)
    if overwrite:
        for file in (svg(there), png(there)):
            file.unlink(missing_ok=True)
    return anew


def described(plans: Plans, task: NodeTask | ImageTask, *, split_seed: int | None = None) -> dict[str, Any]:
    """All that determines the result, as plain values.

    Args:
        split_seed: of a training on training and validation rows together: the seed that has split them.
    """
    spec = plans.spec
    first = _of_student(plans.first, task)
    found = {name: first[name] for name in _WHERE if name in first}
    found |= {"nodes": {str(i): _node(plans, i, task) for i in range(len(spec.nodes))}}
    edges = {f"{i}<-{j}": {"gate": name} | plans.described(i, j) for i, j, name in spec.links()}
    again = {} if split_seed is None else {"retrain": True, "split_seed": split_seed}
    return found | {"method": METHOD, "edges": options.plain(edges)} | again


def _of_student(plan: Plan, task: Any) -> dict[str, Any]:
    return plan.describe_student(task, {})


def _node(plans: Plans, i: int, task: NodeTask | ImageTask) -> dict[str, Any]:
    found: dict[str, Any] = {"model": plans.model(i)}
    if i in plans.spec.alone():
        return found | {"alone": alone.described(plans.nodes[i], task)}
    weights = {} if i not in plans.weights else {"weights": plans.weights[i].described()}
    if plans.spec.frozen(i):
        return found | weights | {"frozen": True, "options": options.plain(plans.options(i))}
    settings = options.plain(dataclasses.asdict(plans.settings(i)))
    train = said({name: value for name, value in settings.items() if name not in NOT_COMPARED})
    return found | weights | {"options": options.plain(plans.options(i)), "train": train}
