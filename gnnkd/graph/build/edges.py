"""Weighted graphs between the rows of a batch: unified edge measurement and class-aware connection, dense and smooth.

Everything stays on the device and in the dtype of its input and is differentiable by it. Memory is O(N^2 C), so this is
for batches; `features` makes the graphs of whole data sets.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.errors import UserError, unknown
from gnnkd.graph.csr import CSR
from gnnkd.graph.pattern import Pattern, pointers
from gnnkd.graph.structure import Graph

PARTS = ("both", "cosine", "euclidean")
"""What `uem` measures with."""


def uem(p: Float[Tensor, "N C"], *, parts: str = "both") -> Float[Tensor, "N N"]:
    """Unified edge measurement `u_ij = c_ij - e_ij` with `c = (1 + cos(p_i, p_j)) / 2`, `e = 1 - exp(-||p_i - p_j||)`.

    `c` and `e` are in [0, 1], so `u` is in [-1, 1] and 1 for equal rows. It is exactly symmetric. A row of zeros has
    cosine 0 with every row, itself included, so `c` is 1/2 there, on the diagonal too. Between equal rows the distance
    has no derivative; 0 stands for it.

    Args:
        p: what the rows are compared by, finite: logits, or probabilities.
        parts: "both"; "cosine" is `c` alone; "euclidean" is `1 - e` alone, in (0, 1].

    Raises:
        UserError: a word for `parts` that does not exist.
    """
    if parts not in PARTS:
        raise unknown("parts", parts, PARTS)
    cosine = (1 + _cosine(p)) / 2 if parts != "euclidean" else p.new_ones(())
    near = torch.exp(-_distance(p)) if parts != "cosine" else p.new_ones(())
    return cosine + near - 1


def class_aware(u: Float[Tensor, "N N"], y: Int[Tensor, " N"], factor: float = 0.5) -> Float[Tensor, "N N"]:
    """Class-aware connection `A_ij = relu(u_ij)` within a class, `relu(factor u_ij)` between two; the diagonal stays.

    Args:
        u: strength of each pair.
        y: class of each row; equal numbers are one class.
        factor: in [0, 1]; 1 makes no difference between classes, 0 joins none of them.

    Raises:
        UserError: `factor` out of range.
    """
    if not 0 <= factor <= 1:
        raise UserError(f"the class-aware factor is {factor}; give a number in [0, 1]")
    return torch.where(y[:, None] == y, u, factor * u).relu()


def strongest(a: Float[Tensor, "N N"], k: int) -> Float[Tensor, "N N"]:
    """`a` where an entry is among the k largest of its row or of its column, 0 elsewhere; `k >= N - 1` is `a` itself.

    The diagonal always stays and is not counted. Equal entries are broken by the lower index.

    Raises:
        UserError: k below 1.
    """
    if k < 1:
        raise UserError(f"k is {k}; keep 1 or more edges of each node")
    if k >= a.shape[0] - 1:
        return a
    kept = _largest_of_rows(a, k) | _largest_of_rows(a.t(), k).t()
    return torch.where(kept.fill_diagonal_(True), a, 0)


def complete(a: Float[Tensor, "N N"]) -> Graph:
    """The graph of all N^2 entries of `a`, explicit zeros included, differentiable by `a`; entry ij is the edge j -> i.

    The places are made once for each N and device, so nothing waits for the device afterwards.
    """
    return Graph(CSR.on(_everywhere(a.shape[0], str(a.device)), a.flatten()))


def sparse(a: Float[Tensor, "N N"]) -> Graph:
    """The graph of the entries of `a` above 0, differentiable by them; waits for the device, to count them."""
    row, col = (a > 0).nonzero(as_tuple=True)
    return Graph(CSR.on(Pattern(pointers(row, a.shape[0]), col, (a.shape[0], a.shape[1])), a[row, col]))


def _cosine(p: Float[Tensor, "N C"]) -> Float[Tensor, "N N"]:
    length = _root(p.square().sum(1, keepdim=True))
    unit = p / torch.where(length == 0, 1, length)
    product = unit @ unit.t()
    return (product + product.t()) / 2  # matrix products may round ij and ji apart


def _distance(p: Float[Tensor, "N C"]) -> Float[Tensor, "N N"]:
    """Euclidean distances from differences: those from inner products lose half the digits between close rows."""
    return _root((p[:, None] - p).square().sum(2))


def _root(square: Tensor) -> Tensor:
    """Square root with gradient 0 at 0, of any order."""
    zero = square == 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


def _largest_of_rows(a: Float[Tensor, "N N"], k: int) -> Bool[Tensor, "N N"]:
    """Mask of the k largest entries of each row beside the diagonal, of equal ones those of the lower column."""
    others = a.detach().clone().fill_diagonal_(-torch.inf)
    order = others.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(others, dtype=torch.bool).scatter_(1, order, True)


@lru_cache(maxsize=16)
def _everywhere(n: int, device: str) -> Pattern:
    """The places of a full matrix [n, n]; kept, as are their rows and their transposition."""
    with torch.inference_mode(mode=False):  # what is kept must also serve a later training
        place = torch.arange(n * n, device=device)
        pattern = Pattern(torch.arange(0, n * n + 1, max(1, n), device=device), place % max(1, n), (n, n))
        _ = pattern.row, pattern.flipped
    return pattern
