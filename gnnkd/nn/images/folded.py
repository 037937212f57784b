"""A network that is only asked: its batch norms multiplied into the convolutions before them.

In eval mode a batch norm is a fixed scale and shift of each channel, which the convolution can do itself: nothing but
rounding changes, and a pass over every feature map is saved.
"""

from __future__ import annotations

import copy
from collections import Counter
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
    """A copy of `network` in eval mode without the batch norms that are all that reads a convolution.

    Which these are is seen on a few images. Should there be none, or the copy say anything else about the images than
    the network does, as where a layer is used twice, the network itself comes back.

    Args:
        x: images that the network reads; few will do.
    """
    twin = copy.deepcopy(network).eval()
    pairs = _pairs(twin, x)
    for conv, norm in pairs.items():
        one = fuse_conv_bn_eval(twin.get_submodule(conv), twin.get_submodule(norm))  # type: ignore[type-var, arg-type]
        twin.set_submodule(conv, one)
        twin.set_submodule(norm, nn.Identity())
    same = all(
        bool((a - b).abs().max() <= CLOSE * a.abs().max())
        for a, b in zip(_tensors(network.eval()(x)), _tensors(twin(x)), strict=True)
    )
    return twin if pairs and same else network


def _tensors(output: Output) -> list[Tensor]:
    return [output.logits, *([] if output.pooled is None else [output.pooled]), *output.maps, *output.raw_maps]


@torch.enable_grad()
def _pairs(network: nn.Module, x: Tensor) -> dict[str, str]:
    """For each convolution that one batch norm reads and nothing else, by name: the batch norm's name."""
    made: dict[Any, str] = {}
    norms: dict[Any, str] = {}
    hooks = []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(lambda _, __, out, name=name: made.update({out.grad_fn: name})))
        elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            hooks.append(
                part.register_forward_pre_hook(lambda _, given, name=name: norms.update({given[0].grad_fn: name}))
            )
    readers = _readers(_tensors(network(x.detach().clone().requires_grad_())))
    for hook in hooks:
        hook.remove()
    return {made[node]: norm for node, norm in norms.items() if node in made and readers[node] == 1}


def _readers(outputs: list[Tensor]) -> Counter[Any]:
    """How often each step of a computation is read by later ones, or is an output."""
    found: Counter[Any] = Counter(tensor.grad_fn for tensor in outputs)
    left = list(found)
    while left:
        for node, _ in left.pop().next_functions:
            if node is not None:
                if node not in found:
                    left.append(node)
                found[node] += 1
    return found
