"""Every method of feature maps takes a step on every standard pair of networks, whatever shapes meet."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from gnnkd import distillers
from gnnkd.distillers.base import TASK, Lesson
from gnnkd.nn.images import ImageNetwork, family
from gnnkd.types import UNKNOWN, Batch, Output, Step

METHODS = ["fitnet", "at", "nst", "pkt", "kdsvd", "ofd", "rkd", "vid", "sp", "crd", "reviewkd"]
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


def _takes_a_step(method: str, teacher: str, student: str, size: int) -> None:
    distiller = distillers.build(method)
    torch.manual_seed(1)
    distiller.prepare(_lesson(teacher, student, size))
    network = copy.deepcopy(_network(student, size)).train()
    params = dict(network.named_parameters())
    own = {} if distiller.part is None else dict(distiller.part.train().named_parameters())

    batch = _batch(size)
    output = network(batch.x)
    terms = distiller.loss(batch, output, _output(teacher, size), STEP)
    assert TASK in terms
    taught = {name: term for name, term in terms.items() if name != TASK}
    assert taught
    assert all(torch.isfinite(term) for term in terms.values())

    found = distiller.gradients(taught, params | own, batch, output, STEP)
    assert own.keys() <= found.keys()
    assert all(torch.isfinite(g).all() for g in found.values())
    first = next(iter(params))  # below every stage
    assert found[first].abs().max() > 0

    before = params[first].detach().clone()
    for name, p in (params | own).items():
        p.grad = found.get(name)
    torch.optim.SGD([*params.values(), *own.values()], lr=1e-3).step()
    assert all(torch.isfinite(p).all() for p in [*params.values(), *own.values()])
    assert not torch.equal(params[first], before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("teacher", "student"), PAIRS, ids=lambda name: name)
def test_a_standard_pair(method: str, teacher: str, student: str) -> None:
    _takes_a_step(method, teacher, student, 32)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "ofd"])
@pytest.mark.parametrize(("teacher", "student"), ODD, ids=lambda name: name)
def test_a_pair_of_nobodys(method: str, teacher: str, student: str) -> None:
    _takes_a_step(method, teacher, student, 32)


@pytest.mark.parametrize("method", METHODS)
def test_images_whose_maps_are_no_multiples(method: str) -> None:
    _takes_a_step(method, "wrn_16_2", "vgg8", 27)
