"""Two-stage gradient fusion as pure functions: curvature, attention over gradient rows, the weighted bias.

Gradients are read by input channel, `[in, out]`; row c is what input channel c contributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def rms_normalised(g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`g / RMS(g)`: the direction without the scale; zeros stay zeros."""
    return g / g.square().mean().sqrt().clamp(min=torch.finfo(g.dtype).tiny ** 0.5)


def resized(g: Float[Tensor, "D A"], width: int) -> Float[Tensor, "D B"]:
    """`g` brought to `width` columns: adaptive average pooling downwards, linear interpolation upwards."""
    if g.shape[1] == width:
        return g
    if g.shape[1] > width:
        return F.adaptive_avg_pool1d(g[None], width)[0]
    return F.interpolate(g[None], size=width, mode="linear", align_corners=False)[0]


def pooled(g: Float[Tensor, "D O"], width: int, blocks: int = 1) -> Float[Tensor, "D A"]:
    """`g` brought to `width` columns; of several equal blocks (averaged attention heads) the mean is taken first.

    Pooling and averaging are linear, so this is the mean over blocks of what each is pooled to.
    """
    return resized(g.reshape(g.shape[0], blocks, -1).mean(1) if blocks > 1 else g, width)


def spread(g: Float[Tensor, "D A"], width: int, blocks: int = 1) -> Float[Tensor, "D B"]:
    """`g` brought to `width` columns; with several blocks every one gets the same, as each shares the gradient."""
    return resized(g, width // blocks).repeat(1, blocks)


def deal(n_teacher: int, n_student: int) -> list[list[int]]:
    """Teacher layers of each student layer, in order.

    With at least as many teacher layers, `array_split`: runs of equal length, the first ones longer by one where it
    does not divide. With fewer, student layer i takes teacher layer `floor(i M / S)`.
    """
    if n_teacher < n_student:
        return [[i * n_teacher // n_student] for i in range(n_student)]
    size, longer = divmod(n_teacher, n_student)
    ends = [size * (i + 1) + min(i + 1, longer) for i in range(n_student)]
    return [list(range(start, end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def curvature(gradients: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`d(sum of all entries of all gradients)/dW` for each weight: one Hessian-vector product with the vector of ones.

    `gradients` must carry their graph. A loss that is linear in a weight has curvature zero there.
    """
    total = torch.stack([g.sum() for g in gradients.values()]).sum()
    if not total.requires_grad:
        return {name: torch.zeros_like(w) for name, w in weights.items()}
    found = torch.autograd.grad(total, list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def fuse(
    gradient: Float[Tensor, "D O"], generated: Float[Tensor, "J D O"], keys: Float[Tensor, "D O"] | None = None
) -> Float[Tensor, "D O"]:
    """`F = mean_j softmax(g_j K^T / sqrt(O)) V` with `V = gradient` and `K = keys` (default: `gradient`).

    Rows attend over rows, so every row of F is an average of rows of `gradient`. Never forms the [D, D] matrix.
    """
    keys = gradient if keys is None else keys
    j = generated.shape[0]
    attended: Tensor = F.scaled_dot_product_attention(
        generated[None], keys.expand(1, j, *keys.shape), gradient.expand(1, j, *gradient.shape)
    )
    return attended[0].mean(dim=0)


def uniform(gradient: Float[Tensor, "D O"]) -> Float[Tensor, "D O"]:
    """Fusion with flat attention, a control: every row is the mean row."""
    return gradient.mean(dim=0, keepdim=True).expand_as(gradient)


def direct(gradient: Float[Tensor, "D O"], generated: Sequence[Tensor] | Tensor) -> Float[Tensor, "D O"]:
    """The guesses themselves, averaged and brought to the gradient's scale."""
    guess = torch.stack([rms_normalised(g) for g in generated]).mean(dim=0)
    return rms_normalised(guess) * gradient.square().mean().sqrt()


def weighted_bias(
    gradient: Float[Tensor, "D O"],
    fused: Float[Tensor, "D O"],
    curved: Float[Tensor, "D O"] | float,
    beta: float,
    limit: float | None = None,
) -> Float[Tensor, "D O"]:
    """`beta C (F - G)`, elementwise, shrunk to at most `limit` times the Frobenius norm of G when a limit is given."""
    bias = beta * curved * (fused - gradient)
    if limit is None:
        return bias
    tiny = torch.finfo(bias.dtype).tiny
    shrunk: Tensor = (limit * gradient.norm() / bias.norm().clamp(min=tiny)).clamp(max=1.0)
    return bias * shrunk
