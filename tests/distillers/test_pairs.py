"""Every method of images takes the house's step on every standard pair of networks, whatever shapes meet."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import final

import pytest
import torch
from torch import Tensor, nn

from gnnkd import distillers
from gnnkd.distillers.base import TASK, Distiller, Lesson
from gnnkd.graph.split import Split
from gnnkd.nn.images import ImageNetwork, family
from gnnkd.train.lessons import in_float32
from gnnkd.train.minibatches import Minibatches
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.update import trained
from gnnkd.types import UNKNOWN, Batch, Output, Step

PLAIN = sorted(name for name, kind in distillers.image_methods().items() if not kind.wraps)
WRAPPED = ["dot over kd", "dot over fitnet", "logitstd over kd"]
METHODS = [*PLAIN, *WRAPPED]
MAPS = [name for name in PLAIN if distillers.build(name).reads_maps]
PAIRS = [
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("vgg13", "vgg8"),
    ("vgg13", "mobilenetv2"),
    ("resnet50", "mobilenetv2"),
    ("resnet50", "vgg8"),
    ("resnet32x4", "shufflev1"),
    ("resnet32x4", "shufflev2"),
    ("wrn_40_2", "shufflev1"),
]
ODD = [
    ("resnet8", "vgg8"),  # three stages teach four
    ("mobilenetv2", "resnet8"),  # the teacher's maps are the smaller ones
    ("vgg8", "cnn_small"),
]
"""Not in the literature, but a user may choose them."""
N, CLASSES = 3, 10
STEP = Step(5, 240)


def test_every_method_is_here() -> None:
    assert {name.split()[0] for name in METHODS} == distillers.image_methods().keys()


@cache
def _batch(size: int) -> Batch:
    x = torch.randn(N, 3, size, size, generator=torch.Generator().manual_seed(size))
    return Batch.of(x, torch.arange(N), None, torch.ones(N, dtype=torch.bool))


@cache
def _network(name: str, size: int) -> ImageNetwork:
    torch.manual_seed(0)
    return family(size)[name](3, CLASSES)


@cache
def _output(name: str, size: int) -> Output:
    """In eval mode, after a pass in train mode, so that statistics are those of some images and not 0 and 1."""
    network, x = _network(name, size), _batch(size).x
    with torch.no_grad():
        network.train()(x)
        return network.eval()(x)


def _lesson(teacher: str, student: str, size: int) -> Lesson:
    y = torch.cat([torch.arange(CLASSES), torch.full((5,), UNKNOWN)])
    norms = [n if n is None else (n.weight.detach(), n.bias.detach()) for n in _network(teacher, size).norms()]
    return Lesson(_output(student, size), _output(teacher, size), tuple(norms), y, 0.9, 5e-4, 0)


@final
@dataclass
class One:
    """One batch is all there is, and its teacher has said already what it says of it."""

    batch: Batch
    said: Output

    def __post_init__(self) -> None:
        self.y = self.batch.y
        rows = torch.ones_like(self.y, dtype=torch.bool)
        self.split = Split(rows, ~rows, ~rows)

    def epoch(
        self, epoch: int, batch_size: int, *, per_class: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """The batch."""
        yield self.batch

    def scan(self, mask: Tensor, batch_size: int) -> Iterator[Batch]:
        """Nothing is scored."""
        raise NotImplementedError

    def teach(self, batch: Batch) -> Output:
        """What the teacher said."""
        return self.said


def _step(student: str, distiller: Distiller, teacher: Output, size: int) -> tuple[nn.Module, dict[str, float]]:
    """A copy of the student after one step of a training, and the terms of its loss."""
    network = copy.deepcopy(_network(student, size))
    shown = One(_batch(size), in_float32(teacher, maps=distiller.reads_maps))
    course = Minibatches(network, shown, distiller, shown if distiller.needs_teacher else None, ImageTrainSettings())
    scalars = {name: float(value) for name, value in course.epoch(STEP).scalars.items()}
    return network, {name: value for name, value in scalars.items() if name not in ("train_acc", "lr")}


@cache
def _by_labels(student: str, size: int) -> Tensor:
    """What cross-entropy alone makes of the first weight."""
    network, _ = _step(student, distillers.build("supervised"), _output(student, size), size)
    return next(network.parameters()).detach()


def _takes_a_step(method: str, teacher: str, student: str, size: int) -> None:
    name, _, base = method.partition(" over ")
    distiller = distillers.build(name, base=base or "auto")
    torch.manual_seed(1)
    distiller.prepare(_lesson(teacher, student, size))
    before = {} if distiller.part is None else copy.deepcopy(distiller.part.state_dict())
    network, terms = _step(student, distiller, _output(teacher, size), size)

    assert TASK in terms
    assert (len(terms) > 1) is distiller.needs_teacher
    assert all(torch.isfinite(torch.tensor(value)) for value in terms.values())
    for key, p in trained(network, distiller).items():
        assert torch.isfinite(p).all(), key
        if key.startswith("method."):
            assert p.grad is not None, key
            assert not torch.equal(p, before[key.removeprefix("method.")]), key
    first, start = next(network.parameters()), next(_network(student, size).parameters())  # below every stage
    moved = (first - start).abs().max()
    assert moved > 0
    if distiller.needs_teacher:
        assert (first - _by_labels(student, size)).abs().max() > 1e-4 * moved, "the teacher reaches it, too"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("teacher", "student"), PAIRS, ids=lambda name: name)
def test_a_standard_pair(method: str, teacher: str, student: str) -> None:
    _takes_a_step(method, teacher, student, 32)


@pytest.mark.parametrize("method", [m for m in MAPS if m != "ofd"])
@pytest.mark.parametrize(("teacher", "student"), ODD, ids=lambda name: name)
def test_a_pair_of_nobodys(method: str, teacher: str, student: str) -> None:
    _takes_a_step(method, teacher, student, 32)


@pytest.mark.parametrize("method", MAPS)
def test_images_whose_maps_are_no_multiples(method: str) -> None:
    _takes_a_step(method, "wrn_16_2", "vgg8", 27)
