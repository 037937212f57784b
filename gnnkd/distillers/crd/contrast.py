"""Scores against a memory bank, and the noise-contrastive loss of them."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.distillers.maps import precise

EPS = 1e-7


@precise
def exp_scores(
    anchors: Float[Tensor, "N K"], bank: Float[Tensor, "R K"], rows: Int[Tensor, "N S"], temperature: float
) -> Float[Tensor, "N S"]:
    """`exp(v_i . m_r / T)` for the rows r of the bank that each anchor i names."""
    return ((anchors @ bank.mT).gather(1, rows) / temperature).exp()


@precise
def contrast_loss(p: Float[Tensor, "N S"], n: int, counts: Bool[Tensor, " N"]) -> Float[Tensor, ""]:
    """`-(log p_0 / (p_0 + m/n) + sum over the m others of log (m/n) / (p + m/n))`, mean over the images that count.

    Args:
        p: probabilities, the positive one first.
        n: rows of the bank that can be drawn; one is noise with probability 1 / n.
        counts: False for an image whose class is not known.
    """
    noise = (p.shape[1] - 1) / n
    positive = (p[:, 0] / (p[:, 0] + noise + EPS)).log()
    negative = (noise / (p[:, 1:] + noise + EPS)).log().sum(1)
    return -((positive + negative) * counts).sum() / counts.sum().clamp(min=1)
