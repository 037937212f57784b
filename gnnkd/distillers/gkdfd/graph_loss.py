"""How far a student's graph is from the teacher's: its nodes, its edges, its global embeddings, their mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from gnnkd.distillers.gkdfd.embedding import Embedded


def graph_loss(part: str, student: Embedded, teacher: Embedded, edges: Bool[Tensor, "N N"]) -> Float[Tensor, ""]:
    """One part of the graph distillation loss.

    "node": mean over entries of `(h_s - h_t)^2`. "edge": mean over all pairs of `(A_s - A_t)^2`, or of vectors the mean
    over `edges` and entries of `(e_s - e_t)^2`. "global": `||G_s - G_t||_F^2 / (N K)`. "readout": the same of the mean
    over nodes, `mean over entries of (mean_i g_s,i - mean_i g_t,i)^2`.

    Args:
        part: "node", "edge", "global" or "readout".
        student: what is moved.
        teacher: where to.
        edges: pairs that are joined in the teacher's graph, the diagonal left out.
    """
    if part == "node":
        return F.mse_loss(student.node, teacher.node)
    if part == "edge":
        return _edge_loss(student.edge, teacher.edge, edges)
    if part == "global":
        return F.mse_loss(student.graph, teacher.graph)
    return F.mse_loss(student.graph.mean(0), teacher.graph.mean(0))


def _edge_loss(student: Tensor, teacher: Tensor, edges: Bool[Tensor, "N N"]) -> Float[Tensor, ""]:
    if student.dim() == 2:
        return F.mse_loss(student, teacher)
    squares = (student - teacher).square().mean(2)
    return torch.where(edges, squares, 0).sum() / edges.sum().clamp(min=1)
