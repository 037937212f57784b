"""All that a node hears is one loss: its values, its names, and what it must not reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnnkd import distillers
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.losses import cross_entropy
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.nn.images.cnn import cnn, cnn_small
from gnnkd.train.settings import TrainSettings
from gnnkd.train.together.gates import gate
from gnnkd.train.together.incoming import Incoming, detached
from gnnkd.train.together.node import Edge, Node, checked
from gnnkd.types import UNKNOWN, Batch, Output, Step

GOLDEN = sorted((Path(__file__).parents[4] / "shared" / "golden").glob("losses_*.npz"))
N, C = 12, 3
FIRST, LAST = Step(0, 5), Step(4, 5)


def _kl(temperature: float = 1.0) -> Distiller:
    """What a knowledge transfer graph has on an edge: T^2 KL and no labels."""
    return distillers.build("kd", ce_weight=0.0, kd_weight=1.0, temperature=temperature)


def _batch(known: int = N) -> Batch:
    return Batch.of(torch.zeros(N, 2), torch.arange(N) % C, None, torch.arange(N) < known)


def _logits(seed: int) -> Tensor:
    return 2 * torch.randn(N, C, generator=torch.Generator().manual_seed(seed))


@final
class Leading(Distiller):
    """A method that forgets to cut its source off: it moves both towards each other, in all that they show."""

    reads_maps = True

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        assert teacher is not None
        assert teacher.pooled is not None
        shown = [teacher.logits, teacher.pooled, *teacher.maps, *teacher.raw_maps, *teacher.raw.values()]
        shown += [h for h in teacher.hidden.values() if isinstance(h, Tensor)]
        return {"near": torch.stack([(t.mean() - student.logits.mean()).square() for t in shown]).sum()}


@final
class Raising(Distiller):
    """A method that must not be asked."""

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        raise AssertionError("a cut edge was computed")


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN, reason="reference values are not in ../shared/golden")
@pytest.mark.parametrize("temperature", [1, 3])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_published_divergence_and_its_gradient(file: Path, temperature: int) -> None:
    with np.load(file) as golden:
        student, source, y = (torch.from_numpy(golden[k]) for k in ("logits_student", "logits_teacher", "target"))
        value, gradient = (torch.tensor(golden[f"ktg_kl_T{temperature}{end}"]) for end in ("", "_grad"))
    z = student.clone().requires_grad_()
    batch = Batch.of(torch.zeros(len(y), 1), y, None, torch.ones(len(y), dtype=torch.bool))
    incoming = Incoming(0, [Edge(1, _kl(float(temperature)), gate("through"))])
    incoming.hear([Output(z), Output(source)])
    (term,) = incoming.loss(batch, Output(z), None, FIRST).values()
    torch.testing.assert_close(term.detach(), value, rtol=1e-4, atol=0)
    (found,) = torch.autograd.grad(term, z)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


def test_the_loss_is_the_gated_sum_over_edges_and_its_terms_say_where_they_are_from() -> None:
    student, first, second = (Output(_logits(seed)) for seed in range(3))
    edges = [
        Edge(None, distillers.build("supervised"), gate("through"), 0.3),
        Edge(1, distillers.build("dkd", warmup=0), gate("positive"), 2.0),
        Edge(2, _kl(), gate("negative")),
    ]
    incoming, batch = Incoming(0, edges), _batch()
    incoming.hear([student, first, second])
    terms = incoming.loss(batch, student, None, Step(1, 5))
    alone = distillers.build("dkd", warmup=0).loss(batch, student, first, Step(1, 5))
    (kl,) = _kl().loss(batch, student, second, Step(1, 5)).values()
    expected = {
        "node0/ce": 0.3 * cross_entropy(student.logits, batch.y),
        "node0/from1/tckd": 0.25 * 2 * alone["tckd"],
        "node0/from1/nckd": 0.25 * 2 * alone["nckd"],
        "node0/from2/kd": 0.75 * kl,
    }
    assert list(terms) == list(expected), "labels reach a node by its self edge alone"
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_edges_from_one_source_add_up() -> None:
    student, source, batch = Output(_logits(0)), Output(_logits(1)), _batch()
    incoming = Incoming(3, [Edge(0, _kl(), gate("through")), Edge(0, _kl(2.0), gate("through"))])
    incoming.hear([source])
    found = incoming.loss(batch, student, None, FIRST)
    expected = sum(_kl(t).loss(batch, student, source, FIRST)["kd"] for t in (1.0, 2.0))
    assert list(found) == ["node3/from0/kd"]
    torch.testing.assert_close(found["node3/from0/kd"], expected)


def test_a_positive_gate_is_zero_at_the_first_epoch_and_no_error() -> None:
    z = _logits(0).requires_grad_()
    incoming = Incoming(0, [Edge(1, _kl(), gate("positive"))])
    incoming.hear([Output(z), Output(_logits(1))])
    for step, zero in ((FIRST, True), (LAST, False)):
        terms = incoming.loss(_batch(), Output(z), None, step)
        found = incoming.gradients(terms, {"z": z}, _batch(), Output(z), step)
        assert (float(terms["node0/from1/kd"].detach()) == 0) is zero
        assert bool((found["z"] == 0).all()) is zero


def test_methods_without_a_term_are_refused() -> None:
    incoming = Incoming(0, [Edge(1, distillers.build("kd", ce_weight=1.0, kd_weight=0.0), gate("through"))])
    incoming.hear([Output(_logits(0)), Output(_logits(1))])
    with pytest.raises(UserError, match="node 0 has no loss"):
        incoming.loss(_batch(), Output(_logits(0)), None, FIRST)


# -- what is not reached -----------------------------------------------------------------------------------------


def test_a_method_that_forgets_to_cut_cannot_reach_its_source() -> None:
    torch.manual_seed(0)
    ours, theirs = cnn_small(1, C), cnn(1, C)
    x = torch.randn(N, 1, 8, 8)
    student, source = ours(x), theirs(x)
    extra = {"w": theirs.fc(source.pooled)}  # as networks of graphs show what their weights multiply
    source = Output(source.logits, extra, extra, {}, source, source.maps, source.raw_maps, source.pooled)
    Leading().loss(_batch(), student, source, FIRST)["near"].backward(retain_graph=True)
    assert all(p.grad is not None for p in theirs.fc.parameters()), "it would reach it"
    for p in [*ours.parameters(), *theirs.parameters()]:
        p.grad = None
    incoming = Incoming(0, [Edge(1, Leading(), gate("through"))])
    incoming.hear([student, source])
    torch.stack(list(incoming.loss(_batch(), student, None, FIRST).values())).sum().backward()
    assert all(p.grad is None for p in theirs.parameters())
    assert ours.fc.weight.grad is not None


def test_all_of_an_output_is_cut_off() -> None:
    t = torch.randn(N, C, requires_grad=True)
    m = t.view(N, C, 1, 1)
    inner = Output(t * 1)
    shown = detached(
        Output(t * 1, {"a": t * 1, "b": CSR.from_dense(t.detach())}, {"a": t * 1}, {}, inner, (m,), (m,), t)
    )
    found = [shown.logits, shown.hidden["a"], shown.raw["a"], shown.clean, *shown.maps, *shown.raw_maps, shown.pooled]
    tensors = [one.logits if isinstance(one, Output) else one for one in found]
    assert not any(one.requires_grad for one in tensors if isinstance(one, Tensor))
    assert len(tensors) == 7
    assert isinstance(shown.hidden["b"], CSR)


def test_cut_edges_are_not_computed() -> None:
    edges = (Edge(None, distillers.build("supervised"), gate("through")), Edge(1, Raising(), gate("cutoff")))
    still = Node("other", nn.Linear(1, 1), TrainSettings(), (), frozen=True)
    nodes = checked([Node("mlp", nn.Linear(1, 1), TrainSettings(), edges), still])
    incoming = Incoming(0, nodes[0].edges)
    incoming.hear([Output(_logits(0)), Output(_logits(1))])
    assert list(incoming.loss(_batch(), Output(_logits(0)), None, FIRST)) == ["node0/ce"]


# -- gated rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [N, 7, 0])
def test_the_correct_gate_is_a_mean_over_all_rows(known: int) -> None:
    """Against a loop over rows; where no label may be read, nothing passes, and all is zero but there."""
    z, source, batch, t = _logits(0).requires_grad_(), _logits(1), _batch(known), 2.0
    incoming = Incoming(0, [Edge(1, _kl(t), gate("correct"))])
    incoming.hear([Output(z), Output(source)])
    (term,) = incoming.loss(batch, Output(z), None, FIRST).values()
    total, passed = torch.zeros(()), 0
    for i in range(N):
        if batch.y[i] != UNKNOWN and source[i].argmax() == batch.y[i]:
            p, q = (source[i] / t).softmax(0), (z[i] / t).softmax(0)
            total, passed = total + t**2 * (p * (p / q).log()).sum(), passed + 1
    assert (passed > 0) is (known > 0)
    assert passed < N
    torch.testing.assert_close(term, total / N)
    (found,) = torch.autograd.grad(term, z)
    expected = torch.autograd.grad(total / N, z)[0] if passed else torch.zeros_like(z)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("right", [0, 1, 3, N])
def test_features_of_few_rows_reach_what_those_of_many_do(right: int) -> None:
    """A batch norm needs two rows; and every process and step must have gradients of the same parameters."""
    torch.manual_seed(0)
    ours, theirs, x, batch = cnn_small(1, C), cnn(1, C), torch.randn(N, 1, 8, 8), _batch()
    student, source = ours(x), theirs(x)
    said = torch.nn.functional.one_hot(torch.where(torch.arange(N) < right, batch.y, (batch.y + 1) % C), C).float()
    source = Output(said, {}, {}, {}, None, source.maps, source.raw_maps, source.pooled)
    for method in ("fitnet", "rkd", "crd", "vid"):
        incoming = Incoming(0, [Edge(1, distillers.build(method), gate("correct"))])
        incoming.prepare(Lesson(student, source, (None,) * 4, batch.y, 0.9, 0.0, 0))
        incoming.hear([student, source])
        terms = incoming.loss(batch, student, None, FIRST)
        params: dict[str, Tensor] = dict(ours.named_parameters())
        params |= {} if incoming.part is None else dict(incoming.part.named_parameters())
        found = torch.autograd.grad(
            torch.stack(list(terms.values())).sum(), list(params.values()), allow_unused=True, retain_graph=True
        )
        reached = {name for name, g in zip(params, found, strict=True) if g is not None}
        assert all(bool(g.isfinite().all()) for g in found if g is not None)
        assert "stage1.0.weight" in reached or "stage3.0.weight" in reached, reached
        if incoming.part is not None:
            assert reached >= {name for name in params if name.startswith("edge0.") and "student" in name}
        assert all((float(term.detach()) == 0) == (right < 2) for term in terms.values()), method


def test_rows_of_everything_go_together() -> None:
    """A method on the rows that pass hears these of the batch and of both outputs."""
    seen: list[tuple[Batch, Output, Output]] = []

    @final
    class Noting(Distiller):
        def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
            assert teacher is not None
            seen.append((batch, student, teacher))
            return {"it": student.logits.sum()}

    ids = torch.arange(N)
    batch = Batch.of(torch.zeros(N, 2), ids % C, None, ids < N, ids + 100, ids + 200)
    logits = torch.nn.functional.one_hot(torch.where(ids % 4 == 0, ids % C, (ids + 1) % C), C).float()
    rows = ids.float()[:, None]
    maps = (rows.view(N, 1, 1, 1),)
    operands = {"w": rows, "s": CSR.from_dense(rows)}
    whole = Output(logits, operands, {"w": rows}, {}, Output(logits), maps, maps, rows)
    incoming = Incoming(0, [Edge(1, Noting(), gate("correct"))])
    incoming.hear([whole, whole])
    (term,) = incoming.loss(batch, whole, None, FIRST).values()
    assert float(term) == pytest.approx(3 / N * 3)
    for given in seen[0][1:]:
        assert given.hidden.keys() == {"w"}
        parts = [given.hidden["w"], given.raw["w"], given.maps[0], given.raw_maps[0], given.pooled]
        assert all(part.flatten().tolist() == [0, 4, 8] for part in parts if isinstance(part, Tensor))
        assert given.clean is not None
        assert given.logits.shape == given.clean.logits.shape == (3, C)
    short = seen[0][0]
    assert short.y.tolist() == [0, 1, 2]
    assert short.index.tolist() == [100, 104, 108]
    assert short.view is not None
    assert short.view.tolist() == [200, 204, 208]
    assert short.labelled.tolist() == [True] * 3


# -- what is passed through --------------------------------------------------------------------------------------


def _two_parts() -> tuple[Incoming, Lesson]:
    torch.manual_seed(0)
    ours, theirs, x = cnn_small(1, C), cnn(1, C), torch.randn(N, 1, 8, 8)
    with torch.no_grad():
        lesson = Lesson(ours.eval()(x), theirs.eval()(x), (None,) * 4, _batch().y, 0.9, 0.0, 0)
    edges = [Edge(1, distillers.build("crd"), gate("through")), Edge(2, _kl(), gate("through")),
             Edge(2, distillers.build("fitnet"), gate("through"))]  # fmt: skip
    incoming = Incoming(0, edges)
    incoming.prepare(lesson)
    return incoming, lesson


def test_parts_and_states_are_the_nodes() -> None:
    incoming, _ = _two_parts()
    assert incoming.reads_maps
    assert not incoming.needs_teacher
    assert isinstance(incoming.part, nn.ModuleDict)
    assert list(incoming.part) == ["edge0", "edge2"]
    saved = {name: t.clone() for name, t in incoming.state().items()}
    assert {name.split(".")[0] for name in saved} == {"edge0", "edge2"}
    other, _ = _two_parts()
    other.load_state({name: t + 1 for name, t in saved.items()})
    for name, t in other.state().items():
        assert torch.equal(t, saved[name] + 1), name


def test_each_pair_has_a_lesson_of_its_own() -> None:
    heard: list[Lesson] = []

    @final
    class Hearing(Distiller):
        def prepare(self, lesson: Lesson) -> None:
            heard.append(lesson)

        def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
            return {}

        def diagnostics(self) -> dict[str, Tensor]:
            return {"size": torch.ones(())}

        def missing(self) -> str | None:
            return "a screw"

    incoming, lesson = _two_parts()
    lessons = [replace(lesson, seed=seed) for seed in (1, 2)]
    own = Incoming(4, [Edge(None, Hearing(), gate("through")), Edge(2, Hearing(), gate("through"))])
    own.meet(lessons)
    assert heard == lessons
    assert list(own.diagnostics()) == ["node4/size", "node4/from2/size"]
    assert own.missing() == "a screw"
    assert own.part is None
    assert incoming.missing() is None
    assert not own.wants_clean(FIRST)
    assert lesson.teacher is not None
