"""A network that is only asked: its batch norms multiplied into the convolutions before them.

In eval mode a batch norm is a fixed scale and shift of each channel, which the convolution can do itself: nothing but
rounding changes, and a pass over every feature map is saved.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gnnkd.types import Output

CLOSE = 1e-3
"""Largest difference that counts as rounding, in units of the largest value."""


@torch.no_grad()
def folded(network: nn.Module, x: Float[Tensor, "N K H W"]) -> nn.Module:
    """A copy of `network` in eval mode without the batch norms that directly follow a convolution.

    Which these are is seen on a few images. If the copy says anything else about them than the network, as one would
    whose convolution is also read by something else, the network itself comes back.

    Args:
        x: images that the network reads; few will do.
    """
    twin = copy.deepcopy(network).eval()
    for conv, norm in _pairs(twin, x).items():
        twin.set_submodule(conv, fuse_conv_bn_eval(twin.get_submodule(conv), twin.get_submodule(norm)))  # type: ignore[type-var]
        twin.set_submodule(norm, nn.Identity())
    return twin if _same(network.eval()(x), twin(x)) else network


def _pairs(network: nn.Module, x: Tensor) -> dict[str, str]:
    """For each convolution that a batch norm reads, by name: the batch norm's name."""
    made: dict[int, tuple[str, Tensor]] = {}
    found: dict[str, str] = {}
    hooks = []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d):

            def made_by(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
                made[id(out)] = (name, out)  # kept, so that no other tensor gets its id

            hooks.append(part.register_forward_hook(made_by))
        elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:

            def read_by(_: nn.Module, given: tuple[Tensor], name: str = name) -> None:
                if id(given[0]) in made:
                    found[made[id(given[0])][0]] = name

            hooks.append(part.register_forward_pre_hook(read_by))
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def _same(a: Output, b: Output) -> bool:
    pairs = [(a.logits, b.logits), *zip(a.maps, b.maps, strict=True), *zip(a.raw_maps, b.raw_maps, strict=True)]
    return all(bool((u - v).abs().max() <= CLOSE * u.abs().max()) for u, v in pairs)
