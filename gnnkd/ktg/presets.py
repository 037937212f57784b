"""Graphs that have a name: one network alone, mutual learning, a teacher and its student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gnnkd.errors import UserError
from gnnkd.ktg.spec import CUTOFF

THROUGH = "through"
ALPHA = 0.9
"""Weight of what the teacher says, and of the labels what is left: those of the method `kd`."""


def single(models: Sequence[str]) -> dict[str, Any]:
    """One network that hears its labels, as the method `supervised`.

    Raises:
        UserError: not one model.
    """
    _check(models, 1, 1, "single", "one network")
    return {"nodes": list(models), "gates": [[THROUGH]]}


def dml(models: Sequence[str]) -> dict[str, Any]:
    """Deep mutual learning: every network hears its labels and all others, through and through.

    Raises:
        UserError: fewer than two models.
    """
    _check(models, 2, None, "dml", "two networks or more")
    return {"nodes": list(models), "gates": [[THROUGH] * len(models) for _ in models]}


def kd(models: Sequence[str]) -> dict[str, Any]:
    """A student and its teacher, which is trained first: the method `kd` as a graph.

    Raises:
        UserError: not two models.
    """
    _check(models, 2, 2, "kd", "a student and its teacher")
    edges = {"0<-0": {"factor": round(1 - ALPHA, 12)}, "0<-1": {"method": "kd", "alpha": ALPHA}}
    return {"nodes": list(models), "gates": [[THROUGH, THROUGH], [CUTOFF, CUTOFF]], "edges": edges}


PRESETS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {"single": single, "dml": dml, "kd": kd}
"""By name; each makes a graph, in values that `Spec.of` reads, of the names of its networks, node 0 first."""


def _check(models: Sequence[str], least: int, most: int | None, name: str, words: str) -> None:
    if len(models) < least or (most is not None and len(models) > most):
        said = ",".join(models) or "none"
        raise UserError(f"the preset {name} is of {words}, and the models are {said}; say which with --models A,B")
