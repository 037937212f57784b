"""A set of images, a protocol and a seed make the task that a number is reported on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.data import balanced, image_split
from gnnkd.data.augment import Augment, Normalisation, chosen, generator
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.store import Loaded, Pixels, Store
from gnnkd.errors import UserError, unknown
from gnnkd.graph.split import Split
from gnnkd.types import Batch

PROTOCOLS = ("public", "given", "random")
VAL_FRACTION = 0.1
LEAST = 2
"""Images of a training batch on each rank: batch norm cannot train on one."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet, for images in files, which would all have to be read for their own."""


@final
@dataclass(frozen=True, eq=False)
class ImageTask:
    """Images to classify, and which of them train, validate and test.

    Rows are the images of the dataset in its order. `mean` and `std` are of pixels in [0, 1], one for each channel;
    `size` is the input's height and width. Which order the images of an epoch come in, and how each is varied, depends
    on seed, epoch and row only: not on labels, on the device, on the number of processes or on what ran before. Where
    batches are to be balanced, the order depends on the labels of the training images, too.
    """

    name: str
    protocol: str
    seed: int
    store: Store
    y: Int[Tensor, " N"]
    split: Split
    classes: tuple[int | str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    notes: tuple[str, ...] = ()
    setting: str = "tran"

    @property
    def n_images(self) -> int:
        """Number of images N."""
        return self.y.numel()

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)

    @property
    def size(self) -> int:
        """Height and width of the input, in pixels."""
        return self.store.size

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.store.in_channels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of number of rows, masks, protocol and seed; not of labels or pixels.

        Two tasks of one dataset with the same fingerprint have the same rows in the same roles.
        """
        digest = hashlib.sha256(f"{self.protocol}|{self.setting}|{self.seed}|{self.n_images}".encode())
        for mask in (self.split.train, self.split.val, self.split.test):
            digest.update(mask.cpu().numpy().astype("u1").tobytes())
        return digest.hexdigest()

    @cached_property
    def content(self) -> str:
        """SHA-256 of images, labels, classes, size and normalisation: what `fingerprint` leaves out.

        Of images in files it is their names and lengths that count.
        """
        about = (self.classes, self.size, self.in_channels, self.mean, self.std, self.store.digest())
        digest = hashlib.sha256(repr(about).encode())
        digest.update(self.y.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> ImageTask:
        """The same task, with its batches on `device`."""
        return replace(self, store=self.store.to(device), y=self.y.to(device), split=self.split.to(device))

    def epoch(
        self, epoch: int, batch_size: int, *, per_class: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """The training images once each, shuffled and varied, with their labels.

        The last batch is what is left over; where that is fewer than two images a rank, it joins the batch before. Each
        batch is dealt to the ranks in turn: their shares, which differ by one image at most, make up the batch of one
        rank alone.

        With `per_class`, batches are balanced (`gnnkd.data.balanced`): of batch_size / per_class classes, and so are
        their shares, as the images of a class lie together. What is left over may be any batch of the epoch then.

        Args:
            epoch: from 0.
            batch_size: images of a step, of all ranks together; at least two for each.
            per_class: images of a class in a batch, 1 .. batch_size; None takes images regardless of their classes.
            rank: 0 .. world - 1.
            world: number of processes.

        Raises:
            UserError: a batch, or all the training images, too small for batch norm.
        """
        least = LEAST * world
        if batch_size < least:
            raise UserError(f"batch_size is {batch_size}; it must be at least {least}, {LEAST} for each process")
        rows = self.split.train.cpu().nonzero().flatten()
        if rows.numel() < least:
            raise UserError(f"{self.name} has {rows.numel()} training images; training needs at least {least}")
        shares = [batch[rank::world] for batch in self._order(rows, epoch, batch_size, per_class, least)]
        return self._batches(self.store.augmented(shares, self.augment, self.seed, epoch), readable=True)

    def _order(
        self, rows: Int[Tensor, " rows"], epoch: int, size: int, per_class: int | None, least: int
    ) -> Sequence[Int[Tensor, " _"]]:
        if per_class is None:
            drawn = torch.randperm(rows.numel(), generator=generator("order", self.seed, epoch))
            return _cut(rows[drawn], size, least)
        draw = generator("balanced order", self.seed, epoch)
        y = self.y.cpu()[rows]
        return [rows[batch] for batch in balanced.batches(y, per_class, max(1, size // per_class), least, draw)]

    def scan(self, mask: Bool[Tensor, " N"], batch_size: int) -> Iterator[Batch]:
        """The images of `mask` in their order, not varied, without their labels.

        Args:
            batch_size: images of a batch, at least 1.
        """
        rows = mask.cpu().nonzero().flatten()
        batches = [rows[start : start + batch_size] for start in range(0, rows.numel(), batch_size)]
        return self._batches(self.store.plain(batches), readable=False)

    def _batches(self, images: Iterable[Loaded], *, readable: bool) -> Iterator[Batch]:
        normalised = Normalisation.of(self.mean, self.std, self.y.device)
        for found in images:
            y = self.y.index_select(0, found.index)
            labelled = torch.full_like(y, readable, dtype=torch.bool)
            yield Batch.of(normalised(found.pixels), y, None, labelled, found.index, found.view)


def _cut(order: Int[Tensor, " rows"], size: int, least: int) -> Sequence[Int[Tensor, " _"]]:
    n = order.numel()
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] < least:
        starts.pop()
    return [order[a:b] for a, b in zip(starts, [*starts[1:], n], strict=True)]


def protocols(dataset: ImageDataset) -> list[str]:
    """The protocols that a dataset has, its default first."""
    return [*([] if dataset.test is None else [dataset.protocol]), "random"]


def task(
    dataset: ImageDataset,
    *,
    protocol: str | None = None,
    seed: int,
    val_fraction: float = VAL_FRACTION,
    augment: str = "auto",
) -> ImageTask:
    """Split a dataset by a protocol.

    Args:
        protocol: `public` (the published test set), `given` (the folder's), or `random` (a fifth of all images tests);
            by default the first that exists.
        seed: 0 .. 2^32 - 1, of what is drawn: the test images under `random`, the validation images, order and
            augmentation of training.
        val_fraction: of the images that do not test, to validate: 0 .. 0.5, drawn class by class. A folder that says
            which images validate has them all validate, whatever this is.
        augment: `auto`, `none`, `crop` or `crop_flip`; see `gnnkd.data.augment.chosen`.

    Raises:
        UserError: an unknown word, a protocol that the dataset does not have, a set without an image.
    """
    there = protocols(dataset)
    protocol = (protocol or there[0]).lower()
    if protocol not in PROTOCOLS:
        raise unknown("split of images", protocol, PROTOCOLS)
    if protocol not in there:
        raise UserError(f"dataset '{dataset.name}' has no split '{protocol}'; it has {', '.join(there)}")
    fixed = protocol != "random"
    made = image_split.split(
        dataset.y,
        seed,
        val_fraction=val_fraction,
        test=dataset.test if fixed else None,
        val=dataset.val if fixed else None,
    )
    mean, std = _normalisation(dataset, made.train)
    return ImageTask(
        name=dataset.name,
        protocol=protocol,
        seed=seed,
        store=dataset.store,
        y=dataset.y,
        split=made,
        classes=dataset.classes,
        mean=mean,
        std=std,
        augment=chosen(augment, size=dataset.store.size, large=dataset.store.large, flips=dataset.flips),
        notes=dataset.notes,
    )


def _normalisation(dataset: ImageDataset, train: Bool[Tensor, " N"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation as published, else of the training rows: other rows have no say in any weight."""
    if dataset.mean is not None and dataset.std is not None:
        return dataset.mean, dataset.std
    if not isinstance(dataset.store, Pixels):
        return IMAGENET
    return moments(dataset.store, train)


def moments(store: Pixels, rows: Bool[Tensor, " N"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel's pixels in [0, 1]; a deviation of 0 counts as 1.

    By the counts of the 256 values, so that it is exact and the same on any machine.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in store.data[rows].transpose(0, 1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(share @ values)
        means.append(mean)
        deviations.append(float(share @ (values - mean) ** 2) ** 0.5 or 1.0)
    return tuple(means), tuple(deviations)
