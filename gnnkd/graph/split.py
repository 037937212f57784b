"""Which nodes train, validate and test: pure functions of labels and edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN

TRAIN_PER_CLASS = 20
VAL_PER_CLASS = 30
FRACTIONS = (0.1, 0.1, 0.8)
UNSEEN = 0.2
"""Share of the test nodes that an inductive task keeps from training."""

Ids = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class Split:
    """Three disjoint sets of nodes as masks; a node may be in none of them."""

    train: Bool[Tensor, " N"]
    val: Bool[Tensor, " N"]
    test: Bool[Tensor, " N"]

    @staticmethod
    def of_ids(n: int, train: Ids, val: Ids, test: Ids) -> Split:
        """The masks [n] of three sets of node ids."""
        masks = [torch.zeros(n, dtype=torch.bool) for _ in range(3)]
        for mask, ids in zip(masks, (train, val, test), strict=True):
            mask[torch.from_numpy(ids)] = True
        return Split(*masks)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of training, validation and test nodes."""
        return int(self.train.sum()), int(self.val.sum()), int(self.test.sum())

    def rows(self, kept: Bool[Tensor, " N"]) -> Split:
        """The masks over the rows that `kept` keeps."""
        return Split(self.train[kept], self.val[kept], self.test[kept])

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`."""
        return Split(self.train.to(device), self.val.to(device), self.test.to(device))


def cpf(y: Int[Tensor, " N"], seed: int, *, labels: Sequence[object] | None = None) -> Split:
    """Draw 20 nodes of each class for training, then 30 of each for validation; the other known nodes test.

    The draws are `RandomState(seed).choice(ids, count, replace=False)` with ids ascending, one class after another in
    ascending order, all of training before all of validation: the published splits, draw for draw.

    Args:
        y: class ids; `UNKNOWN` nodes are in no set.
        seed: 0 .. 2^32 - 1.
        labels: how to call each class id in an error.

    Raises:
        UserError: a class that occurs has fewer than 51 known nodes, or none is known.
    """
    ids = y.cpu().numpy()
    classes = [int(c) for c in np.unique(ids) if c != UNKNOWN]
    members = [np.flatnonzero(ids == c) for c in classes]
    least = TRAIN_PER_CLASS + VAL_PER_CLASS + 1
    for c, nodes in zip(classes, members, strict=True):
        if nodes.size < least:
            raise UserError(
                f"the split 'cpf' needs at least {least} nodes of each class ({TRAIN_PER_CLASS} to train, "
                f"{VAL_PER_CLASS} to validate, 1 to test); class {labels[c] if labels else c} has {nodes.size}; "
                "try --split random"
            )
    if not members:
        raise UserError("the split 'cpf' needs nodes whose class is known; there are none")
    generator = _generator(seed)
    train = np.concatenate([generator.choice(nodes, TRAIN_PER_CLASS, replace=False) for nodes in members])
    rest = [np.setdiff1d(nodes, train) for nodes in members]
    val = np.concatenate([generator.choice(nodes, VAL_PER_CLASS, replace=False) for nodes in rest])
    test = np.setdiff1d(np.concatenate(rest), val)
    return Split.of_ids(ids.size, train, val, test)


def random(y: Int[Tensor, " N"], seed: int, fractions: Sequence[float] = FRACTIONS) -> Split:
    """Permute the nodes whose class is known and cut the row at the cumulated fractions.

    Args:
        y: class ids; `UNKNOWN` nodes are in no set.
        seed: 0 .. 2^32 - 1.
        fractions: of training, validation and test; each > 0, their sum <= 1.

    Raises:
        UserError: fractions out of range, or so small that a set has no node.
    """
    shares = [float(f) for f in fractions]
    if len(shares) != 3 or not all(0 < f < 1 for f in shares) or math.fsum(shares) > 1 + 1e-9:
        raise UserError(
            f"fractions are {shares}; they must be three numbers > 0 (train, validation, test) with a sum of at most 1"
        )
    known = np.flatnonzero(y.cpu().numpy() != UNKNOWN)
    order = _generator(seed).permutation(known)
    a, b, c = (min(known.size, round(math.fsum(shares[: i + 1]) * known.size)) for i in range(3))
    parts = order[:a], order[a:b], order[b:c]
    for name, part, share in zip(("training", "validation", "test"), parts, shares, strict=True):
        if not part.size:
            raise UserError(
                f"the split 'random' gives no {name} node: {share} of {known.size} nodes of known class; "
                "give larger fractions"
            )
    return Split.of_ids(y.numel(), *parts)


def unseen(test: Bool[Tensor, " N"], seed: int) -> Bool[Tensor, " N"]:
    """Draw the test nodes that training does not see: a fifth of them, rounded, at least one and not all.

    The draw is `RandomState(seed).choice(ids, count, replace=False)` with ids ascending. The generator is of this draw
    alone, so the sets of training and validation are those of the same seed without it.

    Args:
        test: the test nodes.
        seed: 0 .. 2^32 - 1.

    Raises:
        UserError: fewer than two test nodes, for one must be unseen and one observed.
    """
    ids = np.flatnonzero(test.cpu().numpy())
    if ids.size < 2:
        raise UserError(
            f"the setting 'ind' needs at least 2 test nodes, one unseen in training and one observed; the split has "
            f"{ids.size}; use --setting tran, or a split with more test nodes"
        )
    chosen = _generator(seed).choice(ids, max(1, round(UNSEEN * ids.size)), replace=False)
    mask = torch.zeros(test.numel(), dtype=torch.bool)
    mask[torch.from_numpy(chosen)] = True
    return mask.to(test.device)


def largest_component(edge_index: Int[Tensor, "2 E"], n: int) -> Int[Tensor, " K"]:
    """Ids, ascending, of the nodes in the largest weakly connected component; of equal ones that of the lowest id."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    source, target = edge_index.cpu().numpy()
    links = coo_array((np.ones(source.size, dtype=np.int8), (source, target)), shape=(n, n))
    _, component = connected_components(links, directed=False)
    sizes = np.bincount(component, minlength=1)
    # Components are numbered in the order of their lowest node, so the first maximum is the one of the lowest id.
    return torch.from_numpy(np.flatnonzero(component == sizes.argmax()))


def _generator(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; it must be an integer from 0 to {2**32 - 1}")
    return np.random.RandomState(seed)
