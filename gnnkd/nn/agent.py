"""DGD's adversarial pair: a generator that guesses gradient rows and a discriminator that judges them.

Both read a channel state `s` [M] through a linear map only, given here as `Channels.project`, so sparse states stay
sparse. Convention, once: the discriminator's logit is high for the teacher's own gradient ("real") and low for a
guess ("fake").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Project: TypeAlias = Callable[[Tensor], Tensor]
"""`weight [M, A] -> S weight [D, A]` for the D states of a layer."""

SLOPE = 0.2
"""Negative slope of the discriminator's leaky ReLU."""


@final
class Generator(nn.Module):
    """Policy `pi(g | s) = Normal(mu(s), diag(sigma^2))` with `mu(s) = A s + b`, through tanh when `bounded`.

    Args:
        m: size of a state.
        width: size of an action.
        bounded: whether mu passes through tanh.
        rng: source of the initial weights, `N(0, 0.02^2)`.
    """

    def __init__(self, m: int, width: int, *, bounded: bool, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(m, width, generator=rng, device=rng.device))
        self.bias = nn.Parameter(torch.zeros(width, device=rng.device))
        self.log_sigma = nn.Parameter(torch.full((width,), -1.0, device=rng.device))
        self.bounded = bounded

    def forward(self, project: Project) -> Float[Tensor, "D A"]:
        """The mean action `mu` of every channel."""
        mu = project(self.weight) + self.bias
        return mu.tanh() if self.bounded else mu

    def sigma(self) -> Float[Tensor, " A"]:
        """Standard deviation of each coordinate, kept within e^-4 and e^0.5."""
        return self.log_sigma.clamp(-4.0, 0.5).exp()


@final
class Discriminator(nn.Module):
    """Judge of (state, action) pairs.

    `form="projection"`: `(V s) . g / sqrt(A) + MLP(g)`; its slope by g depends on s, so it can teach a linear
    generator. `form="concat"`: an MLP on `[s, g]`.

    Args:
        m: size of a state.
        width: size of an action, A.
        hidden: units of the hidden layer.
        form: "projection" or "concat".
        rng: source of the initial weights.
    """

    def __init__(self, m: int, width: int, *, hidden: int = 128, form: str, rng: torch.Generator) -> None:
        super().__init__()

        def draw(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=rng, device=rng.device))

        self.projection = form == "projection"
        self.state = draw(m, width if self.projection else hidden, scale=0.02)
        self.action = draw(hidden, width, scale=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(hidden, device=rng.device))
        self.out = draw(hidden, scale=hidden**-0.5)

    def embed(self, project: Project) -> Float[Tensor, "D F"]:
        """What the state contributes, computed once for all actions judged at it."""
        return project(self.state)

    def logit(self, embedded: Float[Tensor, "D F"], g: Float[Tensor, "D A"]) -> Float[Tensor, " D"]:
        """Log-odds that `g` is the teacher's."""
        judged = F.leaky_relu(self._before(embedded, g), SLOPE) @ self.out
        return judged + (embedded * g).sum(dim=1) / g.shape[1] ** 0.5 if self.projection else judged

    def slope(self, embedded: Float[Tensor, "D F"], g: Float[Tensor, "D A"]) -> Float[Tensor, "D A"]:
        """`d logit / d g`, in closed form (the hidden layer is piecewise linear), differentiable by the parameters."""
        gate = torch.where(self._before(embedded, g).detach() > 0, 1.0, SLOPE)
        by_action = (gate * self.out) @ self.action
        return by_action + embedded / g.shape[1] ** 0.5 if self.projection else by_action

    def _before(self, embedded: Tensor, g: Tensor) -> Tensor:
        before = g @ self.action.t() + self.bias
        return before if self.projection else before + embedded
