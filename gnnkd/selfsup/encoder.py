"""A backbone with a projector: what learns without labels."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images import ImageNetwork
from gnnkd.types import Neighbours, Output


@final
class Encoder(nn.Module):
    """`logits` are the projections of the backbone's pooled features; the backbone's classifier has no say in them.

    Both views of all images go through in one pass, so a batch norm sees them together.

    Args:
        backbone: an image network; it is what remains.
        projector: rows of pooled features to projections.
    """

    def __init__(self, backbone: ImageNetwork, projector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Projections and pooled features."""
        found: Output = self.backbone(x, graph)
        return replace(found, logits=self.projector(found.pooled))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Those of the backbone."""
        return self.backbone.norms()
