"""What a synthetic graph is to be: sizes, and how much its edges and features say.

A degree-corrected stochastic block model. Communities of equal size lie on a ring, and classes are stretches of it of
uneven length, so communities side by side are alike:

    node        a weight w, P(w > t) = t^(1 - exponent), up to a bound, and a community c
    edge        one end by weight among all nodes; the other by weight in the community c + round(N(0, reach^2)), or,
                for a share `stray` of the edges, among all nodes. Loops are left out, equal edges count once.
    features    signal * centre of c + N(0, I), centres of norm 1 and smooth along the ring
    label       the class at c + round(N(0, blur^2)): near the border of two classes nobody can be sure

Node ids have no order, the worst case for caches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from gnnkd.data.labels import MASKS
from gnnkd.data.mapped import index_type
from gnnkd.errors import UserError


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is drawn.

    Args:
        nodes: N, at least 2 a community.
        edges: undirected ones, exactly so many, distinct and without loops.
        features: D, >= 1.
        classes: C, >= 2.
        communities: of equal size, >= C; 10 a class by default.
        exponent: of the degrees' power law, > 2: a density of k^-exponent.
        reach: how far an edge goes along the ring, in communities, >= 0.
        stray: share of edges that go anywhere, in [0, 1].
        blur: how far from a node its label is taken, in communities, >= 0.
        alike: how far centres resemble each other along the ring, in communities, >= 0.
        signal: distance of the features' centres from 0, in deviations of one feature, >= 0.
        fractions: of the nodes that train, validate and test; each > 0, their sum <= 1.
        popular: whether the nodes of the largest weight train, then validate, as the best sold products do in OGB;
            else each draws from all nodes.
        half: whether features are kept as float16.
        seed: >= 0.

    Raises:
        UserError: a value out of range.
    """

    nodes: int
    edges: int
    features: int = 100
    classes: int = 40
    communities: int | None = None
    exponent: float = 2.5
    reach: float = 1.5
    stray: float = 0.08
    blur: float = 3.0
    alike: float = 3.0
    signal: float = 3.5
    fractions: tuple[float, float, float] = (0.5, 0.2, 0.3)
    popular: bool = False
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        pairs = self.nodes * (self.nodes - 1) // 2
        ranges = (
            ("classes", self.classes, self.classes >= 2, "at least 2"),
            ("communities", self.ring, self.ring >= self.classes, f"at least one of each class, {self.classes}"),
            ("nodes", self.nodes, self.nodes >= 2 * self.ring, f"at least 2 for each of {self.ring} communities"),
            ("edges", self.edges, 1 <= self.edges <= pairs // 4, f"from 1 to a quarter of all pairs, {pairs // 4}"),
            ("features", self.features, self.features >= 1, "at least 1"),
            ("exponent", self.exponent, self.exponent > 2, "above 2, for the mean degree to exist"),
            ("stray", self.stray, 0 <= self.stray <= 1, "in [0, 1]"),
            ("seed", self.seed, self.seed >= 0, "at least 0"),
            *(
                (key, getattr(self, key), getattr(self, key) >= 0, ">= 0")
                for key in ("reach", "blur", "alike", "signal")
            ),
        )
        for name, value, fine, allowed in ranges:
            if not fine:
                raise UserError(f"{name} is {value}; it must be {allowed}")
        if min(self.fractions) <= 0 or math.fsum(self.fractions) > 1 + 1e-9 or len(self.fractions) != 3:
            raise UserError(f"fractions are {list(self.fractions)}; they must be three numbers > 0 with a sum up to 1")

    @property
    def ring(self) -> int:
        """Number of communities."""
        return 10 * self.classes if self.communities is None else self.communities

    @property
    def memory(self) -> int:
        """Most bytes that `make` holds."""
        return 24 * self.edges + 40 * self.nodes + 400_000_000

    @property
    def disk(self) -> int:
        """Bytes of the folder, up to a few thousand."""
        index = index_type(self.nodes, 2 * self.edges).itemsize
        features = (2 if self.half else 4) * self.features
        return self.nodes * (features + index + 8 + len(MASKS)) + 2 * self.edges * index
