"""A teacher of images in action: asked about each batch, or once about each view of each image."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images.folded import folded
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.types import Batch, Output

CACHE_BYTES = 4 << 30
"""The most that a teacher's kept logits may take."""


class Teacher(Protocol):
    """Whoever teaches."""

    def teach(self, batch: Batch) -> Output:
        """What it says about a batch, without gradients."""


def autocast(device: torch.device, settings: ImageTrainSettings) -> AbstractContextManager[Any]:
    """The precision of forward passes."""
    if settings.precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def in_float32(output: Output, *, maps: bool) -> Output:
    """Logits, and the features if `maps`, in float32; without them otherwise."""
    found = replace(output, logits=output.logits.float(), maps=(), raw_maps=(), pooled=None)
    if not maps:
        return found
    return replace(
        found,
        maps=tuple(m.float() for m in output.maps),
        raw_maps=tuple(m.float() for m in output.raw_maps),
        pooled=None if output.pooled is None else output.pooled.float(),
    )


@final
class Live:
    """Asks a network, in eval mode, about each batch.

    Args:
        network: put into eval mode here; its weights take no gradients from now on.
        settings: precision and layout.
        maps: whether features are wanted beside the logits.
    """

    def __init__(self, network: nn.Module, settings: ImageTrainSettings, *, maps: bool) -> None:
        self.network, self.settings, self.maps = network.eval().requires_grad_(False), settings, maps
        self.run: Callable[..., Output] | None = None

    @torch.no_grad()
    def teach(self, batch: Batch) -> Output:
        """A forward pass."""
        if self.run is None:
            assert isinstance(batch.x, Tensor)
            self.run = self._made(batch.x)
        with autocast(batch.y.device, self.settings):
            return in_float32(self.run(batch.x, None), maps=self.maps)

    def _made(self, x: Tensor) -> Callable[..., Output]:
        """The network as it is asked: batch norms folded, laid out and compiled as the settings say."""
        asked = folded(self.network, x[:2])
        asked = asked.to(memory_format=self.settings.layout(x.device))  # type: ignore[call-overload]
        return torch.compile(asked) if self.settings.compile else asked


@final
class Cached:
    """Asks another teacher about what it has not seen yet, and keeps the logits of every view of every image.

    Args:
        teacher: whom to ask.
        rows: number of images that a batch can name.
        views: number of views of an image, at least 1.
        classes: number of classes C.
        device: where the logits are kept.

    Raises:
        UserError: views that cannot be counted, or too much to keep.
    """

    def __init__(self, teacher: Teacher, rows: int, views: int, classes: int, device: torch.device) -> None:
        if views < 1:
            raise UserError("cache_teacher: an image has too many views here to be kept; use data.augment=none")
        size = rows * views * classes * 4
        if size > CACHE_BYTES:
            raise UserError(
                f"cache_teacher: {views} views of {rows} images would take {size / 2**30:.1f} GiB; use "
                "data.augment=none, or leave it out"
            )
        self.teacher = teacher
        self.logits = torch.zeros(rows, views, classes, device=device)
        self.known = torch.zeros(rows, views, dtype=torch.bool, device=device)

    def teach(self, batch: Batch) -> Output:
        """Logits alone; those of unknown views are asked for and kept."""
        view = batch.view if batch.view is not None else torch.zeros_like(batch.index)
        new = ~self.known[batch.index, view]
        if bool(new.any()):
            assert isinstance(batch.x, Tensor)
            asked = Batch(batch.x[new], batch.y[new], batch.index[new], None, batch.labelled[new], view[new])
            self.logits[asked.index, view[new]] = self.teacher.teach(asked).logits
            self.known[asked.index, view[new]] = True
        return Output(self.logits[batch.index, view])
