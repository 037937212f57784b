"""Channel states: each input channel of a layer as a unit vector over (sketched) nodes.

`s_c = unit(R H[:, c])`, zero for an all-zero channel; centred, `s_c = unit(unit(R H[:, c]) - mean over channels)`,
because raw ReLU activations share one large direction. Bag-of-words features stay sparse: the mean is subtracted in
the product, never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.sketch import sketch
from gnnkd.graph.structure import CSR
from gnnkd.types import Operand


@final
@dataclass(frozen=True)
class Channels:
    """States of D channels over M buckets, read only through `project`.

    `columns` is [M, D] dense, or a CSR [D, M] whose rows are unit vectors; `mean` [M] and `scale` [D] finish the
    sparse form: row c stands for `scale_c (row_c - mean)`.
    """

    columns: Tensor | CSR
    mean: Float[Tensor, " M"] | None = None
    scale: Float[Tensor, " D"] | None = None

    @property
    def n_channels(self) -> int:
        """D."""
        return self.columns.shape[0] if isinstance(self.columns, CSR) else self.columns.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """All there is, by name, for a checkpoint."""
        parts = {"mean": self.mean, "scale": self.scale}
        if isinstance(self.columns, CSR):
            shape = torch.tensor(self.columns.shape)
            parts |= {
                "rowptr": self.columns.rowptr,
                "col": self.columns.col,
                "value": self.columns.value,
                "shape": shape,
            }
        else:
            parts["columns"] = self.columns
        return {name: t for name, t in parts.items() if t is not None}

    @staticmethod
    def restored(tensors: Mapping[str, Tensor]) -> Channels:
        """The inverse of `tensors`."""
        if "columns" in tensors:
            return Channels(tensors["columns"])
        n, m = tensors["shape"].tolist()
        columns = CSR(tensors["rowptr"], tensors["col"], tensors["value"], (n, m))
        return Channels(columns, tensors.get("mean"), tensors.get("scale"))

    def project(self, weight: Float[Tensor, "M A"]) -> Float[Tensor, "D A"]:
        """`S weight` for the D x M matrix S of states; differentiable by `weight`."""
        if not isinstance(self.columns, CSR):
            return (weight.t() @ self.columns).t()  # several times faster than the other way round for A < 16
        product = neighbour_sum(self.columns, weight)
        if self.mean is None or self.scale is None:
            return product
        return self.scale[:, None] * (product - self.mean @ weight)


def channels(h: Operand, r: CSR | None, *, centre: bool) -> Channels:
    """States of the channels of `h` [N, D] under the sketch `r` [M, N] (None: M = N)."""
    with torch.no_grad():
        return _sparse(h, r, centre) if isinstance(h, CSR) else _dense(h, r, centre)  # type: ignore[arg-type]


def _dense(h: Float[Tensor, "N D"], r: CSR | None, centre: bool) -> Channels:
    u = _unit(sketch(r, h))
    if centre:
        alive = (u != 0).any(dim=0)
        mean = u.sum(dim=1, keepdim=True) / alive.sum().clamp(min=1)
        u = _unit(torch.where(alive, u - mean, 0.0))
    return Channels(u)


def _unit(u: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
    length: Tensor = u.norm(dim=0, keepdim=True)
    return u / length.clamp(min=1e-12)


def _sparse(h: CSR, r: CSR | None, centre: bool) -> Channels:
    rows = h.transpose if r is None else _sketched(h, r)
    value = torch.ones(rows.n_entries, device=rows.device) if rows.value is None else rows.value
    norm = torch.zeros(rows.shape[0], device=rows.device).index_add_(0, rows.row, value**2).sqrt()
    rows = rows.with_value(value / norm.clamp(min=1e-12)[rows.row])
    if not centre:
        return Channels(rows)
    alive = norm > 0
    mean = neighbour_sum(rows.transpose, torch.ones(rows.shape[0], 1, device=rows.device)) / alive.sum().clamp(min=1)
    squared = 1 - 2 * neighbour_sum(rows, mean)[:, 0] + (mean**2).sum()
    scale = torch.where(alive, squared.clamp(min=1e-24).rsqrt(), 0.0)
    return Channels(rows, mean[:, 0], scale)


def _sketched(h: CSR, r: CSR) -> CSR:
    """`(R H)^T` [D, M] in compressed rows, entries that fall into one bucket summed."""
    by_node = r.transpose  # [N, M], one entry a row
    sign = by_node.value if by_node.value is not None else torch.ones(by_node.n_entries, device=h.device)
    node = h.row.long()
    value = sign[node] if h.value is None else sign[node] * h.value
    m, d = r.shape[0], h.shape[1]
    key, place = torch.unique(h.col.long() * m + by_node.col[node].long(), return_inverse=True)
    summed = torch.zeros(key.numel(), dtype=value.dtype, device=h.device).index_add_(0, place, value)
    return CSR.from_coo(key // m, key % m, summed, (d, m))
