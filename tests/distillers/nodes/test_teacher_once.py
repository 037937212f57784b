"""What a method makes of a teacher that stays is made once, and the same to the bit as if it were made at each step."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.nodes import ffg2m
from gnnkd.distillers.nodes.ffg2m import difference_divergence, differing
from gnnkd.distillers.nodes.pairs import met
from gnnkd.graph.structure import Graph
from gnnkd.types import Batch, Output, Step

N, D, C, STEPS = 40, 6, 4, 3
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("ffg2m", {}, "said"),
    ("ffg2m", {"low_mean": "nodes"}, "_shares"),
    ("ffg2m", {}, "differing"),
    ("hgmd", {}, "likeness"),
    ("hgmd", {"mode": "weight"}, "likeness"),
    ("krd", {}, "said"),
    ("adagmlp", {"align_weight": 0.0}, "Adagmlp._told"),
    ("adagmlp", {"align_weight": 0.0, "temperature": 0.5}, "Adagmlp._told"),
    ("lsp", {}, "weighed"),
    ("lsp", {"labelled": False, "kernel": "cosine"}, "weighed"),
]
"""A method, its options, and what it makes of a teacher, in its module."""


def _random(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _batch() -> Batch:
    edges = torch.randint(N, (2, 4 * N), generator=torch.Generator().manual_seed(0))
    graph = Graph.from_edge_index(edges, N)
    return Batch.of(torch.zeros(N, 1), torch.arange(N) % C, graph, torch.arange(N) < N // 2)


def _output(seed: int) -> Output:
    hidden = {"first": _random(N, D, seed=seed), "last": _random(N, D, seed=seed + 100)}
    members = tuple(Output(_random(N, C, seed=seed + k)) for k in (200, 201))
    return Output(_random(N, C, seed=seed), hidden, members=members)


def _made(method: str, options: dict[str, Any], batch: Batch, teacher: Output) -> Distiller:
    made = distillers.build(method, on_graphs=True, **options)
    noisy = Output(_random(N, C, seed=77))
    made.prepare(Lesson(_output(50), teacher, (), batch.y, 0.0, 0.0, 5, batch, lambda _: noisy))
    return made


@pytest.mark.parametrize(("method", "options", "made_of"), CASES)
def test_the_teachers_part_is_made_once_and_changes_no_bit(
    method: str, options: dict[str, Any], made_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, teachers = _batch(), [_output(1), _output(2)]
    place: Any = importlib.import_module(f"gnnkd.distillers.nodes.{method}")
    *owner, name = made_of.split(".")
    place, calls = getattr(place, owner[0]) if owner else place, []
    makes = getattr(place, name)

    def counted(*given: Any) -> Any:
        calls.append(given)
        return makes(*given)

    kept = _made(method, options, batch, teachers[0])
    for number, teacher in enumerate(teachers, 1):
        for epoch in range(STEPS):
            step, student = Step(epoch, 60), _output(10 + epoch)
            fresh = _made(method, options, batch, teachers[0]).loss(batch, student, teacher, step)
            with monkeypatch.context() as patched:
                patched.setattr(place, name, counted)
                found = kept.loss(batch, student, teacher, step)
            assert found.keys() == fresh.keys()
            assert all(torch.equal(found[term], fresh[term]) for term in found)
        assert len(calls) == number, "once for each teacher"


def test_a_teacher_that_is_changed_in_place_is_read_again() -> None:
    batch, teacher = _batch(), _output(1)
    kept = _made("ffg2m", {}, batch, teacher)
    before = kept.loss(batch, _output(10), teacher, Step(0, 9))["high"]
    teacher.logits.mul_(2)
    after = kept.loss(batch, _output(10), teacher, Step(1, 9))["high"]
    assert torch.equal(after, _made("ffg2m", {}, batch, teacher).loss(batch, _output(10), teacher, Step(1, 9))["high"])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_differences_of_a_teacher_are_kept_up_to_a_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without them the divergence and its gradient are the same, in one block and in many."""
    monkeypatch.setattr(ffg2m, "_BLOCK", block)
    a, t, s = met(_batch()), _random(N, C, seed=1), _random(N, C, seed=2).requires_grad_()
    differ = differing(a, t, 1.3)
    assert differ is not None
    assert sum(each.numel() for each in differ) == a.n_entries * C
    found = [difference_divergence(a, s, t, 1.3, *told) for told in ((), (differ,))]
    assert torch.equal(*found)
    assert torch.equal(*(torch.autograd.grad(value, s)[0] for value in found))
    monkeypatch.setattr(ffg2m, "KEPT", 4 * a.n_entries * C - 1)
    assert differing(a, t, 1.3) is None
