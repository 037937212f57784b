"""How a synthetic graph is drawn: nodes, edges, masks and features, each with generators of its own.

All is drawn in blocks of a fixed size that are vectorised: one seed gives one graph, whatever the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
import numpy.typing as npt

from gnnkd.data.mapped import index_type
from gnnkd.data.plan import Plan
from gnnkd.errors import UserError

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_DRAWS = 1 << 21
"""Edges drawn together."""
_ROWS = 1 << 16
"""Nodes whose features are drawn together."""
_HUB = 4
"""Most neighbours that are expected of a node, in communities: it would hardly find more of them."""


@final
@dataclass(frozen=True, eq=False)
class Nodes:
    """Where the nodes are: slots are the nodes in the order of their communities.

    `id` is the node of a slot, `summed` the weights of the slots before each and of all, `starts` the first slot of
    each community and the end; `community` and `y` are of the nodes.
    """

    id: npt.NDArray[np.signedinteger[Any]]
    summed: Floats
    starts: Ids
    community: npt.NDArray[np.int32]
    y: Ids

    @property
    def weight(self) -> Floats:
        """Of each slot."""
        return np.diff(self.summed)


def _rng(plan: Plan, *about: int) -> np.random.Generator:
    return np.random.default_rng([plan.seed, *about])


def placed(plan: Plan) -> Nodes:
    """Communities, classes and weights of all nodes, drawn by the plan's seed.

    Raises:
        UserError: a class got no node.
    """
    n, rng = plan.nodes, _rng(plan, 0)
    starts = np.arange(plan.ring + 1, dtype=np.int64) * n // plan.ring
    community = np.repeat(np.arange(plan.ring, dtype=np.int32), np.diff(starts))
    # One weight for each quantile, in any order: two graphs of one plan have the same weights.
    weight = rng.permutation(((np.arange(n) + 0.5) / n) ** (-1 / (plan.exponent - 1)))
    bound = _HUB * (n / plan.ring) * weight.mean() / (2 * plan.edges / n)
    summed = np.concatenate([[0.0], np.minimum(weight, bound).cumsum()])
    ids = rng.permutation(n).astype(index_type(n))
    of_node = np.empty(n, dtype=np.int32)
    of_node[ids] = community
    said = (of_node + np.rint(rng.standard_normal(n) * plan.blur).astype(np.int64)) % plan.ring
    y = _classes(plan)[said]
    missing = plan.classes - np.unique(y).size
    if missing:
        raise UserError(f"{missing} of {plan.classes} classes got no node; give more nodes, or fewer classes")
    return Nodes(ids, summed, starts, of_node, y)


def _classes(plan: Plan) -> Ids:
    """The class of each community: one of each, the others as 1, 1/2, 1/3, ..., in stretches in any order."""
    rng = _rng(plan, 1)
    share = 1 / np.arange(1, plan.classes + 1)
    ends = np.rint(share.cumsum() / share.sum() * (plan.ring - plan.classes)).astype(np.int64)
    order = rng.permutation(plan.classes)
    return np.repeat(order, (1 + np.diff(ends, prepend=0))[order])


def edges(plan: Plan, nodes: Nodes) -> Ids:
    """Undirected edges as keys `lower * N + upper`, ascending."""
    keys, rate, block = np.empty(0, dtype=np.int64), 1.0, 0
    while keys.size < plan.edges:
        draws = math.ceil(1.01 * (plan.edges - keys.size) / rate) + 64
        before, end = keys.size, keys.size
        keys = np.concatenate([keys, np.empty(draws, dtype=np.int64)])
        for start in range(0, draws, _DRAWS):
            drawn = _drawn(plan, nodes, _rng(plan, 2, block), min(_DRAWS, draws - start))
            keys[end : end + drawn.size] = drawn
            end, block = end + drawn.size, block + 1
        keys = _distinct(keys[:end])
        rate = (keys.size - before) / draws
        if rate < 0.02:
            raise UserError(
                f"edges is {plan.edges}, but after {keys.size} almost each further one is there already; give "
                "fewer, or more nodes, or raise reach or stray"
            )
    surplus = _rng(plan, 3).choice(keys.size, keys.size - plan.edges, replace=False, shuffle=False)
    return np.delete(keys, surplus)


def _drawn(plan: Plan, nodes: Nodes, rng: np.random.Generator, count: int) -> Ids:
    total, last = nodes.summed[-1], plan.nodes - 1
    # In order, for then each search below is where the one before it was: eight times faster on millions of nodes.
    luck = np.sort(rng.random(count))
    one = np.minimum(np.searchsorted(nodes.summed, luck * total, side="right") - 1, last)
    hops = np.rint(rng.standard_normal(count) * plan.reach).astype(np.int64)
    there = (np.searchsorted(nodes.starts, one, side="right") - 1 + hops) % plan.ring
    low, high = nodes.summed[nodes.starts[there]], nodes.summed[nodes.starts[there + 1]]
    anywhere = rng.random(count) < plan.stray
    low[anywhere], high[anywhere] = 0.0, total
    other = np.searchsorted(nodes.summed, low + rng.random(count) * (high - low), side="right") - 1
    one, other = (nodes.id[slots].astype(np.int64) for slots in (one, np.minimum(other, last)))
    keys = np.minimum(one, other) * plan.nodes + np.maximum(one, other)
    apart: Ids = keys[one != other]
    return apart


def _distinct(keys: Ids) -> Ids:
    keys.sort()
    first = np.empty(keys.size, dtype=bool)
    first[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]


def mirrored(plan: Plan, keys: Ids) -> Ids:
    """Directed edges as keys `target * N + source`, ascending."""
    both = np.empty(2 * keys.size, dtype=np.int64)
    both[: keys.size] = keys
    for start in range(0, keys.size, _DRAWS):
        part = keys[start : start + _DRAWS]
        both[keys.size + start : keys.size + start + part.size] = part % plan.nodes * plan.nodes + part // plan.nodes
    both.sort()
    return both


def parts(keys: Ids) -> Iterator[Ids]:
    """The keys in blocks of a draw's size, in order."""
    return (keys[start : start + _DRAWS] for start in range(0, keys.size, _DRAWS))


def homophily(plan: Plan, keys: Ids, y: Ids) -> float:
    """Share of edges whose ends are of one class."""
    same = sum(int((y[part // plan.nodes] == y[part % plan.nodes]).sum()) for part in parts(keys))
    return same / keys.size


def masks(plan: Plan, nodes: Nodes) -> Iterator[npt.NDArray[np.bool_]]:
    """Which nodes train, validate and test, one mask [N] after another."""
    n = plan.nodes
    order = nodes.id[np.argsort(-nodes.weight, kind="stable")] if plan.popular else _rng(plan, 4).permutation(n)
    ends = np.rint(np.cumsum([0.0, *plan.fractions]) * n).astype(np.int64)
    for start, end in pairwise(ends):
        mask = np.zeros(n, dtype=bool)
        mask[order[start:end]] = True
        yield mask


def features(plan: Plan, nodes: Nodes) -> Iterator[npt.NDArray[np.float32]]:
    """Rows of features, block by block: the centre of a node's community with noise."""
    centre = plan.signal * _centres(plan)
    for block, start in enumerate(range(0, plan.nodes, _ROWS)):
        community = nodes.community[start : start + _ROWS]
        noise = _rng(plan, 6, block).standard_normal((community.size, plan.features), dtype=np.float32)
        yield noise + centre[community]


def _centres(plan: Plan) -> npt.NDArray[np.float32]:
    """One row of norm 1 a community: noise, smoothed along the ring by a Gaussian of deviation `alike`."""
    noise = _rng(plan, 5).standard_normal((plan.ring, plan.features))
    turns = np.fft.rfftfreq(plan.ring)[:, None]
    smooth = np.fft.irfft(
        np.fft.rfft(noise, axis=0) * np.exp(-2 * (np.pi * plan.alike * turns) ** 2), plan.ring, axis=0
    )
    centre: npt.NDArray[np.float32] = (smooth / np.linalg.norm(smooth, axis=1, keepdims=True)).astype(np.float32)
    return centre
