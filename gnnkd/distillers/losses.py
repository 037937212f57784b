"""Loss functions that several methods share, on tensors."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.types import UNKNOWN


def cross_entropy(logits: Float[Tensor, "N C"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the rows whose label may be read (`y` is `UNKNOWN` elsewhere)."""
    return F.cross_entropy(logits, y, ignore_index=UNKNOWN)


def soft_kl(
    student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """`T^2 mean_i KL(softmax(t_i / T) || softmax(s_i / T))` in nats; `T^2` keeps the gradient's size apart from T."""
    log_s = F.log_softmax(student / temperature, dim=-1)
    log_t = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
