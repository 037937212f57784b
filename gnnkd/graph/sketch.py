"""CountSketch of the node axis: a vector over N nodes becomes one over M buckets, inner products kept in expectation.

Each node id is hashed to one bucket and one sign, so `R [M, N]` has one entry a column and `R h` is one scatter-add.
The hash reads ids only: mini-batches and nodes never seen before fall into the same buckets.

Source: M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams", ICALP 2002.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR

_MASK = (1 << 31) - 1


def _mix(ids: Int[Tensor, " N"], salt: int) -> Int[Tensor, " N"]:
    """Hash ids to 31 bits: two rounds of multiply and xor-shift, in int64 without overflow."""
    h = (ids.long() + salt) & _MASK
    for multiplier in (0x45D9F3B, 0x2C1B3C6D):
        h = ((h ^ (h >> 15)) * multiplier) & _MASK
    return h ^ (h >> 16)


def buckets_and_signs(ids: Int[Tensor, " N"], m: int) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Bucket in [0, m) and sign in {-1, +1} of every node id; the same ids give the same answer on any machine."""
    return _mix(ids, 0x5BD1E995) % m, 1.0 - 2.0 * (_mix(ids, 0x1B873593) >> 7 & 1).float()


def sketch_matrix(ids: Int[Tensor, " N"], n_total: int, m: int, every: Int[Tensor, " V"] | None = None) -> CSR | None:
    """`R [m, N]` for the rows `ids` of a graph with `n_total` nodes: columns of the R of all of them.

    So the sketches of disjoint batches add up to that of the whole. With `n_total <= m` each node has a bucket of its
    own; None stands for the identity, of a batch that holds all nodes in order.

    Args:
        ids: of the rows in the full data, distinct.
        n_total: number of nodes.
        m: number of buckets, >= 1.
        every: ids of all nodes, ascending; where it is None and `ids` are fewer, all ids from 0 on.

    Raises:
        ValueError: an id that is none of these.
    """
    column = torch.arange(ids.numel(), device=ids.device)
    if n_total > m:
        bucket, sign = buckets_and_signs(ids, m)
        return CSR.from_coo(bucket, column, sign, (m, ids.numel()))
    if every is None and ids.numel() == n_total:
        every = ids.sort().values
    place = ids if every is None else torch.searchsorted(every, ids).clamp(max=max(0, n_total - 1))
    if torch.equal(place, column) and ids.numel() == n_total:
        return None
    if bool((place >= n_total).any() if every is None else (every[place] != ids).any()):
        raise ValueError(f"a row of this batch is none of the {n_total} nodes that states are of")
    return CSR.from_coo(place, column, None, (m, ids.numel()))


def sketch(r: CSR | None, h: Float[Tensor, "N D"]) -> Float[Tensor, "M D"]:
    """`R h`; `h` itself when `r` is None."""
    return h if r is None else neighbour_sum(r, h)
