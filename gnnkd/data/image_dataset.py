"""A labelled set of images, as reading leaves it and before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.data.store import Store


@final
@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with one class each.

    `y` holds class ids 0 .. C - 1; `classes` says what each id stands for. `test` are the rows that test, where that
    came with the data, and `protocol` is then the name of that split: `public` if it was published, `given` if a folder
    says it; else `random`. `val` are the rows that validate, where a folder says that, too. `mean` and `std` are the
    published ones, of pixels in [0, 1], None where there are none. `flips`: a mirrored image is of the same class.
    """

    name: str
    store: Store
    y: Int[Tensor, " N"]
    classes: tuple[int | str, ...]
    protocol: str = "random"
    test: Bool[Tensor, " N"] | None = None
    val: Bool[Tensor, " N"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flips: bool = True
    notes: tuple[str, ...] = ()

    @property
    def n_images(self) -> int:
        """Number of images N."""
        return self.y.numel()
