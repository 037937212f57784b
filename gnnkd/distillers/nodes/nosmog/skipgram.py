"""Skip-gram with negative sampling on walks: nodes that are met together get rows that point the same way.

T. Mikolov et al., "Distributed representations of words and phrases", NeurIPS 2013, equation 4, as B. Perozzi et al.,
"DeepWalk", KDD 2014 apply it to walks:

    L = - sum over pairs (i, j) [ log sigma(u_i . v_j) + k E_{n ~ noise} log sigma(-u_i . v_n) ]

where j stands at most b places from i in a walk, b drawn anew for each i from 1 .. window, and noise is the number of
times that a node is met, to the power 3/4. Rows are u.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.nodes.walks import ENDED

NEGATIVES = 5
"""k: negative pairs for each pair."""
_SHARED = 256
"""Negative nodes that all walks of a step share; each counts as many times as makes k for each pair."""
_RATE = 0.05
"""Of Adagrad."""


@torch.no_grad()
def skip_gram(
    walks: Int[Tensor, "W L"], n: int, *, dim: int, window: int, iterations: int, draws: torch.Generator
) -> Float[Tensor, "{n} {dim}"]:
    """A row for each of `n` nodes; those that meet no other node have zeros.

    Time is linear in W L (2 L + 256) dim.

    Args:
        walks: nodes along walks, `ENDED` behind their ends; on the CPU.
        n: number of nodes.
        dim: width of a row, at least 1.
        window: most places between the nodes of a pair, at least 1.
        iterations: passes over the walks, at least 1.
        draws: what all that is drawn comes from.
    """
    rows = torch.rand(n, dim, generator=draws).sub_(0.5).div_(dim)
    tables = (rows, torch.zeros_like(rows))
    squares = tuple(torch.zeros(n, 1) for _ in tables)
    met = torch.bincount(walks[walks != ENDED], minlength=n)
    noise = met.double().pow(0.75)
    at_once = max(1, n // (4 * walks.shape[1]))  # so many that few nodes are met twice in a step
    for _ in range(iterations):
        order = torch.randperm(walks.shape[0], generator=draws)
        for chosen in torch.split(order, at_once):
            walk = walks[chosen]
            near = _near(walk, window, draws)
            others = torch.multinomial(noise, _SHARED, replacement=True, generator=draws)
            _step(tables, squares, walk.clamp(min=0), near, others)
    alone = walks[:, 1] == ENDED if walks.shape[1] > 1 else torch.ones(walks.shape[0], dtype=torch.bool)
    rows[walks[alone, 0]] = 0
    return rows


def _near(walk: Int[Tensor, "W L"], window: int, draws: torch.Generator) -> Float[Tensor, "W L L"]:
    """1 where the second place is in the window of the first and both are in the walk, else 0."""
    places = torch.arange(walk.shape[1])
    apart = (places[:, None] - places).abs()
    reach = torch.randint(1, window + 1, walk.shape, generator=draws)
    there = walk != ENDED
    return ((apart > 0) & (apart <= reach[:, :, None]) & there[:, :, None] & there[:, None]).to(torch.float32)


def _step(
    tables: tuple[Tensor, ...],
    squares: tuple[Tensor, ...],
    walk: Int[Tensor, "W L"],
    near: Float[Tensor, "W L L"],
    others: Int[Tensor, " S"],
) -> None:
    """One step of Adagrad, by rows, on the loss of some walks, whose derivative by u . v is sigma - 1 or sigma."""
    u, v, noise = tables[0][walk], tables[1][walk], tables[1][others]
    pull = (torch.bmm(u, v.transpose(1, 2)).sigmoid_() - 1) * near
    push = (u @ noise.t()).sigmoid_() * (near.sum(2, keepdim=True) * (NEGATIVES / _SHARED))
    by_u = torch.bmm(pull, v) + push @ noise
    by_v = torch.bmm(pull.transpose(1, 2), u)
    by_noise = push.flatten(0, 1).t() @ u.flatten(0, 1)
    places = (walk.flatten(), torch.cat([walk.flatten(), others]))
    for table, square, place, by in zip(
        tables, squares, places, (by_u.flatten(0, 1), torch.cat([by_v.flatten(0, 1), by_noise])), strict=True
    ):
        gradient = torch.zeros_like(table).index_add_(0, place, by)
        square += gradient.square().mean(1, keepdim=True)
        table -= _RATE * gradient / (square.sqrt() + 1e-10)
