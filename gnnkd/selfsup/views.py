"""Two views of each image: crop, flip, colours, in a few operations on the whole batch, on its device.

The views are SimCLR's (T. Chen, S. Kornblith, M. Norouzi, G. Hinton, ICML 2020, appendix A): a crop of random area and
shape brought back to size, a flip, colour jitter, grey.

Departures: every change of colours here is a linear map of an image's three channels, so that all of them are one
product of matrices: brightness, contrast, saturation and hue come in this order, and values are clipped to [0, 1] once,
at the end. Hue turns around the grey axis (of YIQ), not on HSV's hexagon. There is no blur, as in SimCLR on CIFAR. A
crop that would be wider than the image is as wide as the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.errors import UserError

_NAMES = ("area", "ratio", "down", "right", "flip", "jitter", "brightness", "contrast", "saturation", "hue", "grey")
DRAWS = len(_NAMES)
"""Random numbers that one view takes."""
_LUMA = (0.299, 0.587, 0.114)
_YIQ = (_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_LEAST_AREA, _AREA, _RATIO = 0.01, 0.2, 4 / 3


@final
@dataclass(frozen=True, kw_only=True)
class Views:
    """What happens to an image to become a view; grey images keep their hue and saturation, having none.

    Args:
        least_area: of a crop, as share of the image, in [.01, 1]; the area is uniform up to 1.
        ratio: the crop's width over height is log-uniform in [1 / ratio, ratio], >= 1.
        flip: half of the views are mirrored.
        jitter: share of the views with other colours, in [0, 1].
        brightness: factors are uniform in 1 -+ brightness, in [0, 1].
        contrast: likewise, around the image's mean grey.
        saturation: likewise, around each pixel's grey.
        hue: turns are uniform in -+ hue of a full circle, in [0, .5].
        grey: share of the views without colours, in [0, 1].

    Raises:
        UserError: an option outside its range.
    """

    least_area: float = _AREA
    ratio: float = _RATIO
    flip: bool = True
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.2

    def __post_init__(self) -> None:
        highs = dict.fromkeys(("jitter", "brightness", "contrast", "saturation", "grey", "least_area"), 1.0)
        for name, high in (highs | {"hue": 0.5, "ratio": math.inf}).items():
            low = {"least_area": _LEAST_AREA, "ratio": 1.0}.get(name, 0.0)
            if not low <= getattr(self, name) <= high:
                raise UserError(f"views.{name} is {getattr(self, name)}; it must lie in [{low:g}, {high:g}]")


def seen(x: Float[Tensor, "N K H W"], draws: Float[Tensor, "N draws"], views: Views) -> Float[Tensor, "N K H W"]:
    """One view of each image.

    Args:
        x: pixels in [0, 1], of one or three channels.
        draws: `DRAWS` numbers in [0, 1) for each image; equal numbers give equal views.
    """
    u = dict(zip(_NAMES, draws.unbind(1), strict=True))
    return _recoloured(_cropped(x, u, views), u, views)


def _cropped(x: Tensor, u: dict[str, Tensor], views: Views) -> Tensor:
    area = views.least_area + (1 - views.least_area) * u["area"]
    ratio = torch.exp((2 * u["ratio"] - 1) * math.log(views.ratio))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    right, down = (2 * u["right"] - 1) * (1 - width), (2 * u["down"] - 1) * (1 - height)
    width = torch.where((u["flip"] < 0.5) & views.flip, -width, width)
    zero = torch.zeros_like(width)
    rows = torch.stack([width, zero, right, zero, height, down], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recoloured(x: Tensor, u: dict[str, Tensor], views: Views) -> Tensor:
    jittered = u["jitter"] < views.jitter
    b, c, s = (
        torch.where(jittered, 1 + (2 * u[name] - 1) * getattr(views, name), 1)
        for name in ("brightness", "contrast", "saturation")
    )
    if x.shape[1] == 1:
        mean = x.mean((1, 2, 3))
        scale, shift = b * c, (1 - c) * b * mean
        return (x * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)).clamp(0, 1)
    turn = torch.where(jittered, (2 * u["hue"] - 1) * views.hue, 0)
    luma = x.new_tensor(_LUMA)
    mean = torch.einsum("nkhw,k->n", x, luma) / x[0, 0].numel()
    matrix = (b * c).view(-1, 1, 1) * hues(turn) @ _towards_grey(s)
    matrix = torch.where((u["grey"] < views.grey).view(-1, 1, 1), _towards_grey(torch.zeros_like(s)) @ matrix, matrix)
    # Grey is a fixed point of hue and saturation, so the contrast's shift passes all of them unchanged.
    shift = ((1 - c) * b * mean).view(-1, 1, 1)
    return torch.baddbmm(shift, matrix, x.flatten(2)).clamp(0, 1).view(x.shape)


def _towards_grey(s: Float[Tensor, " N"]) -> Float[Tensor, "N 3 3"]:
    """`s x + (1 - s) grey(x)` as matrices."""
    grey = s.new_tensor(_LUMA).expand(3, 3)
    s = s.view(-1, 1, 1)
    return s * torch.eye(3, dtype=s.dtype, device=s.device) + (1 - s) * grey


def hues(turn: Float[Tensor, " N"]) -> Float[Tensor, "N 3 3"]:
    """The matrices that turn colours by a share of a full circle around the grey axis."""
    to = torch.tensor(_YIQ, dtype=torch.float64)
    back = torch.linalg.inv(to).to(turn)
    cos, sin = torch.cos(2 * math.pi * turn), torch.sin(2 * math.pi * turn)
    one, zero = torch.ones_like(turn), torch.zeros_like(turn)
    turned = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    found: Tensor = back @ turned @ to.to(turn)
    return found
