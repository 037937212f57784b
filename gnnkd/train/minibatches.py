"""The course of images: many steps an epoch, each on a batch of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.distillers.base import Distiller
from gnnkd.graph.split import Split
from gnnkd.train.course import Course, Epoch
from gnnkd.train.lessons import Teacher, autocast, in_float32
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.update import apply, trained
from gnnkd.types import Batch, Output, Step


class Images(Protocol):
    """What a training knows of images; `data.image_task.ImageTask` is the one in use."""

    @property
    def y(self) -> Int[Tensor, " N"]:
        """Class of each row."""

    @property
    def split(self) -> Split:
        """Which rows train, validate and test."""

    def epoch(
        self, epoch: int, batch_size: int, *, per_class: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """The training images, shuffled and augmented; with `per_class`, so many of each class of a batch."""

    def scan(self, mask: Bool[Tensor, " N"], batch_size: int) -> Iterator[Batch]:
        """The masked rows in order, as they are."""


@final
class Minibatches(Course):
    """One network trained by one method with stochastic gradient descent.

    Args:
        model: what learns; `model(x, None) -> Output`.
        images: what it learns on.
        distiller: the method, prepared.
        teacher: whoever is asked about each batch, or None.
        settings: learning rate and the like.
        track_test: score the test images too after each epoch, as `test_acc`; nothing is chosen by it.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        distiller: Distiller,
        teacher: Teacher | None,
        settings: ImageTrainSettings,
        *,
        track_test: bool = False,
    ) -> None:
        self.device = images.y.device
        model.to(memory_format=settings.layout(self.device))  # type: ignore[call-overload]
        self.model, self.images, self.distiller, self.teacher = model, images, distiller, teacher
        self.settings, self.track_test = settings, track_test
        self.rows = int(images.split.train.sum())
        self.run = torch.compile(model) if settings.compile else model
        if distiller.part is not None:
            distiller.part.to(self.device).train()
        plain = distiller.own_momentum
        self.optimizer = torch.optim.SGD(
            trained(model, distiller).values(),
            lr=settings.lr,
            momentum=0.0 if plain else settings.momentum,
            weight_decay=0.0 if plain else settings.weight_decay,
            nesterov=settings.nesterov and not plain,
            fused=True,
        )

    def epoch(self, step: Step) -> Epoch:
        """A step for each batch, then the validation accuracy; scalars are means over the images."""
        settings = self.settings
        rate = settings.rate(step.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums: dict[str, Tensor] = {}
        hits, rows = torch.zeros((), device=self.device), 0
        share = {"rank": processes.rank(), "world": processes.world()}
        for given in self.images.epoch(step.epoch, settings.batch_size, per_class=settings.per_class, **share):
            batch, n = _laid_out(given, settings), given.y.numel()
            output = self._forward(batch)
            taught = self.teacher.teach(batch) if self.teacher is not None else None
            taken = apply(self.model, self.optimizer, self.distiller, batch, output, taught, step)
            for name, value in taken.items():
                sums[name] = sums[name] + n * value if name in sums else n * value
            hits = hits + (output.logits.detach().argmax(1) == batch.y).sum()
            rows += n
            if self.heard is not None:
                self.heard(step.epoch, min(1.0, rows * processes.world() / self.rows))
        processes.same(self.model.buffers())
        sums = processes.total({**sums, "train_acc": hits, "rows": torch.tensor(rows)})
        rows_of_all = sums.pop("rows")
        scalars: dict[str, Tensor | float] = {name: total / rows_of_all for name, total in sums.items()}
        scalars["lr"] = rate
        if self.track_test:
            scalars["test_acc"] = accuracy(self.run, self.model, self.images, self.images.split.test, settings)
        return Epoch(self._score(), scalars)

    def _forward(self, batch: Batch) -> Output:
        self.model.train()
        with autocast(self.device, self.settings):
            output = self.run(batch.x, None)
        return in_float32(output, maps=self.distiller.reads_maps)

    def _score(self) -> float | None:
        if not bool(self.images.split.val.any()):
            return None
        return accuracy(self.run, self.model, self.images, self.images.split.val, self.settings)

    def state(self) -> dict[str, Tensor]:
        """The method's."""
        return self.distiller.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self.distiller.load_state(tensors)


def _laid_out(batch: Batch, settings: ImageTrainSettings) -> Batch:
    assert isinstance(batch.x, Tensor)
    x = batch.x.contiguous(memory_format=settings.layout(batch.x.device))
    return Batch(x, batch.y, batch.index, None, batch.labelled, batch.view)


@torch.no_grad()
def logits(
    run: Callable[..., Output],
    model: nn.Module,
    images: Images,
    mask: Bool[Tensor, " N"],
    settings: ImageTrainSettings,
) -> Float[Tensor, "M C"]:
    """Logits of the masked rows in order, in eval mode.

    Args:
        run: the network, or its compiled twin.
        model: the network itself, put into eval mode here.
    """
    model.eval()
    found = []
    for batch in images.scan(mask, 4 * settings.batch_size):
        with autocast(batch.y.device, settings):
            found.append(run(_laid_out(batch, settings).x, None).logits.float())
    return torch.cat(found)


def accuracy(
    run: Callable[..., Output],
    model: nn.Module,
    images: Images,
    mask: Bool[Tensor, " N"],
    settings: ImageTrainSettings,
) -> float:
    """Share of the masked rows whose largest logit is their label, in [0, 1]."""
    hits = logits(run, model, images, mask, settings).argmax(1) == images.y[mask]
    return float(hits.double().mean())
