"""Where the nodes of a picture go: a graph laid out by its weights, and rows along two axes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Points = Float[np.ndarray, "N 2"]
Weights = Float[np.ndarray, "N N"]
Classes = Int[np.ndarray, " N"]
STEPS = 300
ROOM = 1.35
"""Distance of two nodes, times the root of their number, where all have a square of 2 x 2 and none is nearer."""


def placed(weights: Weights, y: Classes) -> Points:
    """Places of nodes: joined ones near each other, none on another, all in [-1, 1].

    Springs whose force is the weight, and a repulsion between all, from a start where classes stand on a circle in
    their order; the same for the same weights.
    """
    kinds, kind = np.unique(y, return_inverse=True)
    n, angle = len(y), 2 * np.pi * kind / len(kinds)
    inner = 2 * np.pi * (np.arange(n) * 0.618034 % 1)
    at = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.2 * np.stack([np.cos(inner), np.sin(inner)], 1)
    pull = np.where(np.eye(n, dtype=bool), 0, np.maximum((weights + weights.T) / 2, 0))
    pull = pull / max(pull.sum(1).mean(), 1e-9)
    rest = 1 / np.sqrt(n)
    for step in range(STEPS):
        gap = at[:, None] - at[None]
        far = np.maximum(np.linalg.norm(gap, axis=2), 1e-3)
        push = rest**2 / far**2
        move = (gap * (push - n * rest * pull * far)[:, :, None]).sum(1) - 0.3 * at
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        at = at + move / length * np.minimum(length, 0.15 * (1 - step / STEPS))
    return _within(_apart(_within(at), ROOM / np.sqrt(n)))


def _apart(at: Points, least: float) -> Points:
    """Nodes that are nearer than `least` pushed away from each other, and those behind them."""
    for _ in range(STEPS):
        gap = at[:, None] - at[None]
        far = np.maximum(np.linalg.norm(gap, axis=2), 1e-9)
        at = at + (gap / far[:, :, None] * np.maximum(least - far, 0)[:, :, None]).sum(1) / 4
    return at


def _within(at: Points) -> Points:
    at = at - (at.min(0) + at.max(0)) / 2
    return at / max(float(np.abs(at).max()), 1e-9)


def strongest(weights: Weights, most: int) -> tuple[Int[np.ndarray, "2 E"], int]:
    """The pairs with the largest weights above 0, at most so many, weakest first, and how many there are in all."""
    i, j = np.triu_indices(len(weights), k=1)
    w = np.maximum(weights, weights.T)[i, j]
    there = np.flatnonzero(w > 0)
    kept = there[np.argsort(-w[there], kind="stable")[:most][::-1]]
    return np.stack([i[kept], j[kept]]), len(there)


def first_two(rows: Float[np.ndarray, "N K"]) -> Points:
    """Coordinates of rows along their first two principal axes; 0 along an axis that they do not have."""
    centred = np.asarray(rows, np.float64) - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return padded(centred @ axes.T)


def padded(rows: Float[np.ndarray, "N _"]) -> Points:
    """The first two columns of rows, 0 for one that they do not have."""
    found: Points = np.zeros((len(rows), 2))
    found[:, : rows.shape[1]] = rows[:, :2]
    return found
