"""What the two sides of the imitation minimise, as functions of tensors.

The judge's logit is high for the teacher's own gradient row ("real") and low for a guess ("fake"). Rows of dead
channels (real = 0) count for nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.dgd.measure import alive, mean_over
from gnnkd.nn.agent import Discriminator


def judge_loss(
    judge: Discriminator,
    embedded: Float[Tensor, "D F"],
    real: Float[Tensor, "D A"],
    fake: Float[Tensor, "D A"],
    share: Float[Tensor, "D 1"] | None,
    *,
    smoothing: float,
    penalty: float,
) -> Float[Tensor, ""]:
    """`BCE(real, 1 - smoothing) + BCE(fake, 0) + penalty (|slope at a mix| - 1)^2`, mean over living rows.

    Args:
        embedded: what the states contribute (`judge.embed`).
        share: of the real row in the mix where the slope is taken, in [0, 1]; None leaves the penalty out.
    """
    on_real, on_fake = judge.logit(embedded, real), judge.logit(embedded, fake)
    want = torch.full_like(on_real, 1 - smoothing)
    losses = F.binary_cross_entropy_with_logits(on_real, want, reduction="none") + F.softplus(on_fake)
    if share is not None:
        slope = judge.slope(embedded, share * real + (1 - share) * fake)
        losses = losses + penalty * ((slope.square().sum(1) + 1e-12).sqrt() - 1).square()
    return mean_over(losses, alive(real))


def generator_loss(
    judge: Discriminator,
    embedded: Float[Tensor, "D F"],
    real: Float[Tensor, "D A"],
    mu: Float[Tensor, "D A"],
    sigma: Float[Tensor, " A"],
    noise: Float[Tensor, "D A"],
    *,
    estimator: str,
    clone_weight: float,
) -> Float[Tensor, ""]:
    """`-log D(s, g) + clone_weight |mu - real|^2`, mean over living rows, for `g = mu + sigma noise`.

    `estimator="pathwise"` differentiates through g; `"score"` weighs the log density of g by the same reward, less its
    mean.
    """
    living = alive(real)
    if estimator == "score":
        sample = (mu + sigma * noise).detach()
        reward = F.logsigmoid(judge.logit(embedded, sample)).detach()
        log_density = (-0.5 * ((sample - mu) / sigma).square() - sigma.log()).sum(dim=1)
        losses = -(reward - mean_over(reward, living)) * log_density
    else:
        losses = F.softplus(-judge.logit(embedded, mu + sigma * noise))
    if clone_weight:
        losses = losses + clone_weight * (mu - real).square().sum(dim=1)
    return mean_over(losses, living)
