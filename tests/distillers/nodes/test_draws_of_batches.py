"""On samples each batch of an epoch has draws of its own; the first has those of a step on the whole graph."""

from __future__ import annotations

from typing import Any, final

import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import SAMPLED, Distiller, Lesson
from gnnkd.graph.structure import Graph
from gnnkd.train.sampled import Sampled
from gnnkd.train.settings import TrainSettings
from gnnkd.types import Batch, Output, Step

N, D, C = 40, 6, 4
CASES: list[tuple[str, dict[str, Any]]] = [
    ("hgmd", {"mode": "mixup"}),
    ("hgmd", {"mode": "weight"}),
    ("krd", {"warmup_epochs": 0}),
    ("sp", {"samples": 8}),
    ("gsp", {"samples": 8}),
    ("rkd", {"samples": 8, "angle_weight": 0.0}),
    ("rkd", {"angle_samples": 8, "distance_weight": 0.0}),
    ("gcrd", {"samples": 8}),
    ("graphakd", {"samples": 8}),
    ("vqgraph", {"samples": 8, "tokenizer_epochs": 1, "code_weight": 1.0}),
]


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _batch() -> Batch:
    graph = Graph.from_edge_index(torch.randint(N, (2, 4 * N), generator=torch.Generator().manual_seed(0)), N)
    return Batch.of(_random(N, D, seed=9), torch.arange(N) % C, graph, torch.arange(N) < N // 2)


def _output(seed: int) -> Output:
    return Output(
        _random(N, C, seed=seed), {"first": _random(N, D, seed=seed + 1), "last": _random(N, D, seed=seed + 2)}
    )


def _loss(method: str, options: dict[str, Any], step: Step) -> float:
    batch, teacher = _batch(), _output(1)
    made = distillers.build(method, on_graphs=True, **options)
    torch.manual_seed(0)
    made.prepare(Lesson(_output(5), teacher, (), batch.y, 0.0, 0.0, 5, batch, lambda _: _output(7)))
    return float(torch.stack(list(made.loss(batch, _output(11), teacher, step).values())).sum().detach())


@pytest.mark.parametrize(("method", "options"), CASES)
def test_each_batch_of_an_epoch_is_drawn_for_by_itself(method: str, options: dict[str, Any]) -> None:
    whole, first, *later = (_loss(method, options, step) for step in (Step(2, 9), *(Step(2, 9, b) for b in range(3))))
    assert first == whole
    assert len({first, *later}) == 3


@final
class _Spy(Distiller):
    """Keeps what its steps are called."""

    batches = SAMPLED

    def __init__(self) -> None:
        self.names: list[tuple[int, ...]] = []

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        self.names.append(step.name)
        return {"kd": student.logits.square().mean()}


def test_a_course_of_samples_counts_its_batches() -> None:
    batch, spy = _batch(), _Spy()
    nothing = (batch.y, torch.zeros(N, dtype=torch.bool))
    course = Sampled(
        nn.MODELS["mlp"](D, C, layers=1),
        batch,
        spy,
        _output(1),
        nothing,
        TrainSettings(epochs=2, lr=0.01, weight_decay=0.0),
        fanouts=(3,),
        batch_size=15,
    )
    for epoch in range(2):
        course.epoch(Step(epoch, 2))
    assert spy.names == [(0,), (0, 1), (0, 2), (1,), (1, 1), (1, 2)]
