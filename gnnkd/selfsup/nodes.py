"""Networks that learn without labels as nodes: each has its objective, and hears the others' similarities."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images import ImageNetwork
from gnnkd.selfsup.encoder import Encoder
from gnnkd.selfsup.lars import Lars
from gnnkd.selfsup.objectives import Objective
from gnnkd.selfsup.similarity import Similarity
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.together.gates import Correct, Cutoff, gate
from gnnkd.train.together.node import Edge, Node
from gnnkd.types import Output

Gates: TypeAlias = Sequence[Sequence[str]]
"""Row i: what reaches node i; column j: from node j; the diagonal is a node's own objective."""


def all_of(word: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Every network's own objective goes through, and between networks the gate is `word`."""
    return tuple(tuple("through" if i == j else word for j in range(count)) for i in range(count))


def check(gates: Gates, count: int) -> None:
    """Refuse a matrix of gates that so many networks cannot learn behind.

    Raises:
        UserError: a wrong size, an unknown gate, one that asks for labels, or a network that no objective reaches.
    """
    if len(gates) != count or any(len(row) != count for row in gates):
        sizes = ", ".join(str(len(row)) for row in gates)
        raise UserError(f"gates has {len(gates)} rows of {sizes}; {count} networks need {count} rows of {count} gates")
    for i, row in enumerate(gates):
        for j, word in enumerate(row):
            if isinstance(gate(word), Correct):
                raise UserError(f"gate {i}<-{j} is correct, which asks for labels, and there are none; choose through")
    for i in range(count):
        _check_reached(i, gates)


def _check_reached(node: int, gates: Gates) -> None:
    """Refuse a network that neither has an objective nor hears, over whatever number of others, one that has."""
    hears = [[j for j, word in enumerate(row) if not isinstance(gate(word), Cutoff)] for row in gates]
    near, reached = [node], {node}
    while near:
        here = near.pop()
        if here in hears[here]:
            return
        near += [j for j in hears[here] if j not in reached]
        reached.update(hears[here])
    if not hears[node]:
        why = "all its gates are cutoff; open one of its gates"
    else:
        heard = ", ".join(str(j) for j in sorted(reached))
        why = f"of the networks {heard}, that hear each other, each has its own gate cut off; open one of these"
    raise UserError(f"node {node} can learn nothing: {why}")


def features_of(backbone: ImageNetwork, channels: int, size: int) -> int:
    """Width of the pooled features."""
    with torch.no_grad():
        output: Output = backbone.eval()(torch.zeros(2, channels, size, size))
    assert output.pooled is not None
    return output.pooled.shape[1]


def nodes(
    backbones: Mapping[int, tuple[str, ImageNetwork, int]],
    objective: Callable[[], Objective],
    settings: ImageTrainSettings,
    gates: Gates,
    *,
    temperature: float,
) -> tuple[Node, ...]:
    """A node for each backbone, in their order, then the momentum encoders.

    Args:
        backbones: by number: name, network, width of its pooled features.
        objective: makes one; each network has its own.
        settings: of every network's training.
        gates: see `Gates`.
        temperature: of the similarities.

    Raises:
        UserError: gates that do not fit.
    """
    check(gates, len(backbones))
    learners: list[Node] = []
    followers: list[Node] = []
    for i, (name, backbone, features) in backbones.items():
        own = objective()
        encoder = Encoder(backbone, own.projector(features))
        source = len(backbones) + len(followers) if own.follower else None
        edges = [Edge(source, own, gate(gates[i][i]))]
        edges += [Edge(j, Similarity(temperature=temperature), gate(word)) for j, word in enumerate(gates[i]) if j != i]
        learners.append(Node(name, encoder, settings, tuple(edges)))
        if own.follower:
            follows = (i, own.pace(settings.epochs))
            followers.append(Node(f"{name}, followed", copy.deepcopy(encoder), settings, (), follows=follows))
    return (*learners, *followers)


def lars(trust: float, *, matrices: bool) -> Callable[[Mapping[str, Tensor], ImageTrainSettings], Lars]:
    """Makes the optimizer of a node."""

    def made(params: Mapping[str, Tensor], settings: ImageTrainSettings) -> Lars:
        return Lars(
            params.values(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            trust=trust,
            matrices=matrices,
        )

    return made


@torch.no_grad()
def read_by_means(backbone: nn.Module, rows: Tensor, y: Tensor, n_classes: int) -> None:
    """Make a backbone's classifier say the class whose mean feature is nearest: `f . m_c - |m_c|^2 / 2`.

    Args:
        backbone: its last linear layer of `n_classes` outputs is the classifier.
        rows: features [N, K] of some images.
        y: their classes [N].
    """
    linear = [m for m in backbone.modules() if isinstance(m, nn.Linear) and m.out_features == n_classes]
    last = linear[-1]
    counts = torch.bincount(y, minlength=n_classes).clamp(min=1)
    means = torch.zeros(n_classes, rows.shape[1], device=rows.device).index_add_(0, y, rows) / counts[:, None]
    last.weight.copy_(means)
    last.bias.copy_(-means.square().sum(1) / 2)
