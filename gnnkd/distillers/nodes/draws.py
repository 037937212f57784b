"""What a method draws at random, each draw named by what it is for: the same name gives the same draws anywhere."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.data.augment import generator, key
from gnnkd.distillers.nodes.features import compared
from gnnkd.graph.structure import CSR
from gnnkd.types import Batch, Operand


def bernoulli(chance: Float[Tensor, " E"], *name: object) -> Bool[Tensor, " E"]:
    """True with the given chance, in [0, 1], entry by entry; 0 is never and 1 always."""
    drawn = torch.rand(chance.shape, generator=generator(*name), dtype=torch.float32)
    return drawn.to(chance.device) < chance


def beta(b: float, like: Float[Tensor, " E"], *name: object) -> Float[Tensor, " E"]:
    """Draws from Beta(b, b), b > 0, as many as `like` has entries, in [0, 1], of its type and on its device."""
    drawn = np.random.default_rng(key(*name)).beta(b, b, like.numel())
    return torch.from_numpy(drawn).to(like.dtype).to(like.device)


def noised(x: Operand, deviation: float, *name: object) -> Float[Tensor, "N D"]:
    """Features plus independent normal noise of mean 0; dense, also where `x` is sparse.

    Takes memory for one dense matrix [N, D] beside `x`.
    """
    assert isinstance(x, Tensor | CSR)
    noise = torch.randn(tuple(x.shape), generator=generator(*name), dtype=x.dtype).mul_(deviation).to(x.device)
    if isinstance(x, Tensor):
        return noise.add_(x)
    return noise.index_put_((x.row, x.col), x.values(), accumulate=True)


def sampled(places: Int[Tensor, " P"], samples: int, *name: object) -> Int[Tensor, " S"]:
    """At most `samples` of `places`, in their order, each at most once."""
    if places.numel() <= samples:
        return places
    drawn = torch.randperm(places.numel(), generator=generator(*name))[:samples]
    return places[drawn.sort().values.to(places.device)]


def compared_rows(batch: Batch, samples: int, *name: object, labelled: bool) -> Int[Tensor, " S"]:
    """Ascending places in a batch of the rows that a method compares: of the labelled ones, or of all.

    Args:
        samples: the most rows; where there are more, they are drawn from.
    """
    return sampled(compared(batch, labelled=labelled).nonzero().flatten(), samples, *name)
