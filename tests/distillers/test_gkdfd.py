"""GK-DFD: whom it joins, what it compares, which space it finds, and that its embeddings do not collapse."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gnnkd import distillers, nn
from gnnkd.data.augment import generator
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.gkdfd import Gkdfd, measure
from gnnkd.distillers.gkdfd.batches import balanced
from gnnkd.distillers.gkdfd.discriminative import (
    Choice,
    align_loss,
    alignment,
    basis,
    contrast_loss,
    count,
    nearest,
    principal,
    space,
    weights,
)
from gnnkd.distillers.gkdfd.embedding import EDGE, Embedded, Embedding
from gnnkd.distillers.gkdfd.graph_loss import graph_loss
from gnnkd.distillers.gkdfd.settings import Settings
from gnnkd.distillers.losses import soft_kl
from gnnkd.errors import UserError
from gnnkd.graph.structure import Graph
from gnnkd.nn.gcn import GCNConv
from gnnkd.nn.sage import SAGEConv
from gnnkd.nn.tag import TAGConv
from gnnkd.train.fit import DivergedError, Fit
from gnnkd.train.settings import TrainSettings
from gnnkd.train.whole import WholeBatch
from gnnkd.types import UNKNOWN, Batch, Output, Step

STEP = Step(0, 10)
C = 5


def _labels(*sizes: int) -> Tensor:
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return y[torch.randperm(y.numel(), generator=torch.Generator().manual_seed(1))]


BATCHES = {
    "balanced": _labels(6, 6, 6, 6),
    "uneven": _labels(9, 1, 4, 2),
    "one class": _labels(0, 8),
    "singles": torch.arange(5),
    "two rows": torch.tensor([0, 1]),
    "one row": torch.tensor([3]),
}


@dataclass
class Scene:
    """A method, a batch, and what two networks say of it."""

    method: Gkdfd
    batch: Batch
    student: Output
    teacher: Output

    @property
    def part(self) -> Embedding:
        """What the method trains."""
        assert isinstance(self.method.part, Embedding)
        return self.method.part

    def terms(self, step: Step = STEP) -> dict[str, Tensor]:
        """The method's."""
        return self.method.loss(self.batch, self.student, self.teacher, step)

    def gradients(self, term: str) -> dict[str, Tensor]:
        """By whatever a term reaches: `logits` and `pooled` of the student, and the part."""
        assert self.student.pooled is not None
        sources = {"logits": self.student.logits, "pooled": self.student.pooled}
        sources |= {name: p for name, p in self.part.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(self.terms()[term], list(sources.values()), allow_unused=True)
        return {name: g for name, g in zip(sources, found, strict=True) if g is not None}


def _scene(
    y: Tensor | None = None, *, labelled: Tensor | None = None, graph: Graph | None = None, **options: Any
) -> Scene:
    """Features and logits that lean to the classes, in float32."""
    y = BATCHES["balanced"] if y is None else y
    n, rng = y.numel(), torch.Generator().manual_seed(0)
    small: dict[str, Any] = {"dim": 12} if options.get("dfd_weight") == 0 else {"dim": 12, "k1": 3}
    if "k1" in small and not options.get("recipe", "paper").startswith("prototype"):
        small["k2"] = 9
    method = Gkdfd(**(small | options))
    means = torch.randn(C, 9, generator=rng)
    student = Output(
        torch.randn(n, C, generator=rng).requires_grad_(),
        pooled=(means[y, :7] + torch.randn(n, 7, generator=rng)).requires_grad_(),
    )
    teacher = Output(
        4 * torch.eye(C)[y] + torch.randn(n, C, generator=rng), pooled=means[y] + torch.randn(n, 9, generator=rng)
    )
    batch = Batch.of(torch.zeros(n, 1), y, graph, torch.ones(n, dtype=torch.bool) if labelled is None else labelled)
    method.prepare(Lesson(student, teacher, (), batch.y, 0.9, 5e-4, 0))
    return Scene(method, batch, student, teacher)


# -- neighbours and their alignment ------------------------------------------------------------------------------


def _slow_weights(points: Tensor, y: Tensor, k1: int, k2: int) -> Tensor:
    w = torch.zeros(len(y), len(y), dtype=points.dtype)
    for i in range(len(y)):
        by_distance = sorted((float((points[i] - points[j]).square().sum()), j) for j in range(len(y)) if j != i)
        same = [j for _, j in by_distance if y[j] == y[i]][:k1]
        others = [j for _, j in by_distance if y[j] != y[i]][: k2 or None]
        if same and others:
            w[i, same] = 1
            w[i, others] = -len(same) / len(others)
    return w


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 5), (2, 0), (1000, 1000)])
def test_neighbours_are_those_of_a_slow_search_ties_included(kind: str, k1: int, k2: int) -> None:
    y = BATCHES[kind]
    rng = torch.Generator().manual_seed(2)
    for points in (
        torch.randn(len(y), 3, generator=rng).double(),
        torch.randint(2, (len(y), 2), generator=rng).double(),  # many distances are equal
        torch.zeros(len(y), 2).double(),
    ):
        w = weights(points, y, k1=k1, k2=k2)
        torch.testing.assert_close(w, _slow_weights(points, y, k1, k2))
        torch.testing.assert_close(w.sum(1), torch.zeros(len(y)).double(), atol=1e-12, rtol=0)


def test_ties_go_to_the_lower_column_and_0_takes_all() -> None:
    allowed = ~torch.eye(4, dtype=torch.bool)
    found = nearest(torch.zeros(4, 4), allowed, 2)
    assert [row.nonzero()[:, 0].tolist() for row in found] == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert torch.equal(nearest(torch.zeros(4, 4), allowed, 0), allowed)


@pytest.mark.parametrize("kind", BATCHES)
def test_the_closed_form_is_the_sum_of_all_patches(kind: str) -> None:
    y, rng = BATCHES[kind], torch.Generator().manual_seed(0)
    points = torch.randn(len(y), 4, generator=rng).double()
    w = weights(points, y, k1=2, k2=3)
    total = torch.zeros(len(y), len(y)).double()
    for i in range(len(y)):
        members = [i, *w[i].nonzero()[:, 0].tolist()]
        own = w[i, members[1:]]
        patch = torch.cat([torch.cat([own.sum()[None], -own])[None], torch.cat([-own[:, None], own.diag()], 1)])
        select = torch.zeros(len(y), len(members)).double()
        select[members, range(len(members))] = 1
        total += select @ patch @ select.t()
    torch.testing.assert_close(alignment(w), total)
    u = torch.randn(4, 2, generator=rng).double()
    squares = ((points[:, None] - points) @ u).square().sum(2)
    torch.testing.assert_close((u.t() @ points.t() @ alignment(w) @ points @ u).trace(), (w * squares).sum())


# -- principal components and the space ---------------------------------------------------------------------------


def test_principal_directions_are_those_of_a_singular_value_decomposition() -> None:
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, 7)
    mean, axes = principal(x, ratio=2.0, whiten=False)
    torch.testing.assert_close(mean, x.mean(0))
    v = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:3].t()
    torch.testing.assert_close((axes * v).sum(0).abs(), torch.ones(3).double())
    assert principal(x, ratio=1.0, whiten=False)[1].shape == (6, 6)
    assert principal(x[:3], ratio=2.0, whiten=False)[1].shape == (6, 2), "at most as many as rows less one"
    assert principal(x[:1], ratio=2.0, whiten=False)[1].shape == (6, 1)


def test_whitened_components_have_variance_1_and_empty_ones_are_left_out() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double() @ torch.ones(3, 6).double().tril()
    mean, axes = principal(x, ratio=1.0, whiten=True)
    covariance = ((x - mean) @ axes).t().cov()
    rank = int(torch.linalg.matrix_rank(x - mean))
    wanted = torch.zeros(6, 6).double()
    wanted[range(rank), range(rank)] = 1
    torch.testing.assert_close(covariance, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", BATCHES)
def test_the_space_has_one_dimension_less_than_there_are_classes(kind: str) -> None:
    y = BATCHES[kind]
    x = torch.randn(len(y), 16, generator=torch.Generator().manual_seed(0))
    found = space(x, y, Choice("align", 3, 5, 2.0, whiten=False))
    assert count(y) == y.unique().numel()
    wanted = min(y.unique().numel() - 1, found.basis.shape[1])
    torch.testing.assert_close(
        found.basis.t() @ found.basis, (torch.arange(len(found.basis)) < wanted).float().diag(), atol=1e-5, rtol=0
    )
    assert not any(t.requires_grad for t in found)


def test_no_directions_have_nearer_positives_and_farther_negatives() -> None:
    y, rng = BATCHES["balanced"], torch.Generator().manual_seed(0)
    points = torch.randn(len(y), 6, generator=rng).double()
    m = points.t() @ alignment(weights(points, y, k1=3, k2=5)) @ points
    u = basis(points, alignment(weights(points, y, k1=3, k2=5)))[:, :3]
    least = (u.t() @ m @ u).trace()
    for _ in range(50):
        other = torch.linalg.qr(torch.randn(6, 3, generator=rng).double()).Q
        assert (other.t() @ m @ other).trace() >= least


@pytest.mark.parametrize("mode", ["align", "contrast"])
@pytest.mark.parametrize("whiten", [False, True])
def test_turning_and_shifting_both_networks_changes_no_loss(mode: Any, whiten: bool) -> None:
    y, rng = BATCHES["uneven"], torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(len(y), 8, generator=rng).double() for _ in range(2))
    turn = torch.linalg.qr(torch.randn(8, 8, generator=rng).double()).Q
    shift = torch.randn(8, generator=rng).double()
    losses = []
    for moved in (lambda x: x, lambda x: x @ turn + shift):
        method = Choice(mode, 2, 5, 2.0, whiten=whiten)
        found = space(moved(teacher), y, method)
        low = [found.of(moved(x)) for x in (student, teacher)]
        losses.append(align_loss(*low) if mode == "align" else contrast_loss(*low, found.weights))
    torch.testing.assert_close(losses[0], losses[1])


def test_contrast_is_the_sum_over_pairs() -> None:
    y, rng = BATCHES["uneven"], torch.Generator().manual_seed(0)
    s, t = (torch.randn(len(y), 3, generator=rng).double() for _ in range(2))
    w = weights(t, y, k1=2, k2=4)
    total, size = 0.0, 0.0
    for i, j in itertools.product(range(len(y)), repeat=2):
        v = float(w[i, j]) + (i == j)
        total += v * float((t[i] / t[i].norm() - s[j] / s[j].norm()).square().sum())
        size += abs(v)
    assert float(contrast_loss(s, t, w)) == pytest.approx(total / size)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_rows_that_are_not_finite_stop_no_decomposition(value: float) -> None:
    y = BATCHES["balanced"]
    x = torch.randn(len(y), 8, generator=torch.Generator().manual_seed(0))
    x[3, 2] = value
    found = space(x, y, Choice("align", 3, 5, 2.0, whiten=False))
    torch.testing.assert_close(found.axes, torch.eye(8)[:, :4])
    torch.testing.assert_close(found.basis, torch.diag(torch.arange(4) < 3).float())


def test_sixteen_bits_are_decomposed_in_thirty_two_and_sixty_four_stay() -> None:
    y = BATCHES["balanced"]
    x = torch.randn(len(y), 8, generator=torch.Generator().manual_seed(0))
    for given, wanted in ((torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2):
        with torch.autocast("cpu", torch.bfloat16):
            found = space(x.to(given), y, Choice("align", 3, 5, 2.0, whiten=False))
        assert {t.dtype for t in found} == {wanted}


# -- the graph loss ----------------------------------------------------------------------------------------------


def test_parts_of_the_graph_loss() -> None:
    rng, n = torch.Generator().manual_seed(0), 4
    s, t = (
        Embedded(*(torch.randn(n, k, generator=rng) for k in (3, 3, n)))  # type: ignore[arg-type]
        for _ in range(2)
    )
    joined = torch.rand(n, n, generator=rng) < 0.5
    assert graph_loss("node", s, t, joined) == (s.node - t.node).square().mean()
    assert graph_loss("edge", s, t, joined) == (s.edge - t.edge).square().mean()
    torch.testing.assert_close(graph_loss("global", s, t, joined), (s.graph - t.graph).norm() ** 2 / (n * 3))
    torch.testing.assert_close(graph_loss("readout", s, t, joined), (s.graph.mean(0) - t.graph.mean(0)).square().mean())
    s, t = (one._replace(edge=torch.randn(n, n, 5, generator=rng)) for one in (s, t))
    there = [(i, j) for i, j in itertools.product(range(n), repeat=2) if joined[i, j]]
    slow = torch.stack([(s.edge[i, j] - t.edge[i, j]).square().mean() for i, j in there]).mean()
    torch.testing.assert_close(graph_loss("edge", s, t, joined), slow)
    assert graph_loss("edge", s, t, torch.zeros_like(joined)) == 0


def test_measures_of_a_collapse() -> None:
    y = torch.tensor([0, 0, 0, 1, 2])
    apart = torch.eye(3)[y]
    assert measure.between(apart, y) == 0
    torch.testing.assert_close(measure.between(torch.ones(5, 3), y), torch.ones(()))
    assert measure.spread(torch.ones(5, 3)) == 0
    torch.testing.assert_close(measure.spread(apart), apart.numpy().std(0).mean() * torch.ones(()))
    assert measure.between(apart[:3], y[:3]) == 0, "one class"
    means = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    cosines = [float(means[i] @ means[j]) for i, j in itertools.combinations(range(3), 2)]
    assert float(measure.between(means[y], y)) == pytest.approx(sum(cosines) / 3), "a class counts once, not its rows"
    joined = measure.edges(torch.tensor([[1.0, 0.2], [0.0, 1.0]]))
    assert joined.tolist() == [[False, True], [False, False]]
    assert measure.share(joined) == 0.5


# -- options -----------------------------------------------------------------------------------------------------


def _adjacency(**options: Any) -> Tensor:
    scene = _scene(**options)
    return scene.method.seen(scene.batch, scene.student, scene.teacher, STEP).adjacency


def test_relations_follow_their_options() -> None:
    y = BATCHES["balanced"]
    same = y[:, None] == y
    teacher = _scene().teacher.logits
    p = (teacher / 4).softmax(1)
    cosine, near = (1 + F.cosine_similarity(p[:, None], p, dim=2)) / 2, (-torch.cdist(p, p)).exp()
    both = cosine + near - 1
    factor = torch.where(same, 1, 0.5)
    close = lambda found, wanted: torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)  # noqa: E731
    close(_adjacency(), (both * factor).relu())
    close(_adjacency(parts="cosine"), cosine * factor)
    close(_adjacency(parts="euclidean"), near * factor)
    close(_adjacency(cac=1.0), both.relu())
    close(_adjacency(cac=0.0), (both * same).relu())
    close(_adjacency(tau=1e6), factor)
    assert _adjacency(tau=0.5)[~same].sum() < _adjacency()[~same].sum()
    raw = (1 + F.cosine_similarity(teacher[:, None], teacher, dim=2)) / 2 + (-torch.cdist(teacher, teacher)).exp() - 1
    found = _adjacency(uem_input="logits")
    close(found, (raw * factor).relu())
    assert not (found[~same] > 0).any(), "rows of two classes are far apart"
    assert (found[same & ~torch.eye(len(y), dtype=torch.bool)] > 0).any()
    unit = F.normalize(teacher, dim=1)
    wanted = (1 + unit @ unit.t()) / 2 + (-torch.cdist(unit, unit)).exp() - 1
    close(_adjacency(uem_input="l2"), (wanted * factor).relu())
    assert torch.equal(_adjacency(topk=len(y)), _adjacency())
    kept = _adjacency(topk=2)
    assert ((kept > 0).sum(1) >= 3).all()
    assert (kept > 0).sum() < (_adjacency() > 0).sum()
    assert torch.equal(kept[kept > 0], _adjacency()[kept > 0])


def test_a_sparse_graph_gives_what_its_dense_twin_gives() -> None:
    """`topk` changes how entries are held; those of all neighbours are the same graph."""
    for conv in ("tag", "gcn", "sage"):
        terms = [_scene(topk=topk, conv=conv).terms() for topk in (0, 10**6)]
        for name, term in terms[0].items():
            torch.testing.assert_close(term, terms[1][name])


@pytest.mark.parametrize(("conv", "kind"), [("tag", TAGConv), ("gcn", GCNConv), ("sage", SAGEConv)])
def test_convolutions_are_those_of_the_networks_of_graphs(conv: str, kind: type) -> None:
    scene = _scene(conv=conv)
    assert type(scene.part.student.conv) is type(scene.part.teacher.conv) is kind
    assert set(scene.gradients("graph")) >= {"student.conv.bias" if conv != "sage" else "student.conv.lin_l.bias"}
    if conv == "tag":
        assert len(scene.part.student.conv.lins) == 2, "one step"


@pytest.mark.parametrize("topk", [0, 3])
@pytest.mark.parametrize("conv", ["tag", "gcn", "sage"])
def test_convolutions_are_dense_products_with_the_weights_of_the_edges(conv: str, topk: int) -> None:
    scene = _scene(conv=conv, topk=topk)
    relations = scene.method.settings.connection.among(scene.teacher.logits, scene.batch.y)
    side, features = scene.part.student, scene.student.pooled
    assert features is not None
    for vector in (p for p in side.parameters() if p.dim() == 1):
        torch.nn.init.normal_(vector)  # biases are 0 at first
    a, p = relations.adjacency, dict(side.conv.named_parameters())
    assert len(a[a > 0].unique()) > 10, "weights differ"
    assert topk == 0 or (a == 0).any()
    h = F.normalize(features @ side.node.weight.t() + side.node.bias, dim=1)
    degree = a.sum(1)
    both_ways, mean = a / (degree[:, None] * degree).sqrt() @ h, a / degree[:, None] @ h
    g = {
        "tag": lambda: h @ p["lins.0.weight"].t() + both_ways @ p["lins.1.weight"].t() + p["bias"],
        "gcn": lambda: both_ways @ p["lin.weight"].t() + p["bias"],
        "sage": lambda: mean @ p["lin_l.weight"].t() + p["lin_l.bias"] + h @ p["lin_r.weight"].t(),
    }[conv]()
    torch.testing.assert_close(side(features, relations).graph, F.normalize(g, dim=1), atol=1e-5, rtol=1e-4)


class _Waits(TorchDispatchMode):
    """Notes operations for which a device would have to be waited."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(word in name for word in ("nonzero", "_local_scalar_dense", "unique", "masked_select")):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", ["paper", "prototype"])
@pytest.mark.parametrize("conv", ["tag", "gcn", "sage"])
def test_a_step_waits_for_no_device(conv: str, recipe: str) -> None:
    """But for decompositions, which do so within."""
    scene = _scene(conv=conv, recipe=recipe)
    scene.terms()  # the places of a complete graph are made once
    with _Waits() as waits:
        torch.stack(list(scene.terms().values())).sum().backward()
    assert waits.found == []


def test_classes_are_those_of_the_labels_or_the_predicted_ones() -> None:
    scene, predicted = _scene(), _scene(labels="pred")
    for one in (scene, predicted):
        one.teacher = replace(one.teacher, logits=one.teacher.logits.roll(1, 1))
    seen, other = (one.method.seen(one.batch, one.student, one.teacher, STEP) for one in (scene, predicted))
    assert torch.equal(seen.y, scene.batch.y)
    assert torch.equal(other.y, scene.teacher.logits.argmax(1))
    unknown = torch.arange(24) < 12
    half = _scene(labelled=~unknown)
    half.method._whole = None  # look at all rows
    found = half.method.seen(half.batch, half.student, half.teacher, STEP).y
    assert torch.equal(found, torch.where(unknown, half.teacher.logits.argmax(1), BATCHES["balanced"]))


def test_the_student_has_a_graph_of_its_own_where_it_is_asked_to() -> None:
    shared, own = _scene(), _scene(graph_weight=1.0, recipe="prototype")
    seen = shared.method.seen(shared.batch, shared.student, shared.teacher, STEP)
    assert torch.equal(seen.adjacency, seen.adjacency_student)
    assert "logits" not in shared.gradients("graph")
    seen = own.method.seen(own.batch, own.student, own.teacher, STEP)
    assert not torch.equal(seen.adjacency, seen.adjacency_student)
    assert own.gradients("graph")["logits"].abs().max() > 0
    assert own.gradients("dfd")["logits"].abs().max() > 0
    classes = own.student.logits.argmax(1)
    u = own.method.settings.connection.among(own.student.logits, classes).adjacency
    assert torch.equal(seen.adjacency_student, u), "by its own predictions"
    named = _scene(recipe="prototype", labels="true")
    seen = named.method.seen(named.batch, named.student, named.teacher, STEP)
    u = named.method.settings.connection.among(named.student.logits, named.batch.y).adjacency
    assert torch.equal(seen.adjacency_student, u)


def test_the_graph_loss_is_linear_in_its_weights() -> None:
    options = {"recipe": "prototype", "graph_weight": 2.0}
    names = [f"{name}_weight" for name in ("node", "edge", "global", "readout")]
    alone = [_scene(**options, **(dict.fromkeys(names, 0.0) | {name: 1.0})).terms()["graph"] for name in names]
    assert len({term.item() for term in alone}) == 4
    mixed = _scene(**options, **dict(zip(names, (0.5, 2.0, 3.0, 0.25), strict=True))).terms()["graph"]
    torch.testing.assert_close(mixed, 0.5 * alone[0] + 2 * alone[1] + 3 * alone[2] + 0.25 * alone[3])


def test_weights_change_by_epoch_and_what_is_always_0_has_no_term() -> None:
    scene = _scene(
        graph_weight=((0, 1.0), (4, 3.0)), dfd_weight=((0, 0.0), (4, 2.0)), global_weight=((0, 2.0), (4, 1.0))
    )
    first, later = scene.terms(Step(0, 10)), scene.terms(Step(4, 10))
    torch.testing.assert_close(later["graph"], 1.5 * first["graph"])
    assert first["dfd"] == 0
    assert later["dfd"] > 0
    assert _scene(dfd_weight=0.0).terms().keys() == {"ce", "graph", "teacher_head"}
    assert _scene(graph_weight=0.0).terms().keys() == {"ce", "dfd", "teacher_head"}
    assert _scene(graph_weight=0.0, recipe="paper+kd", teacher_head="fixed").terms().keys() == {"ce", "dfd", "kd"}
    torch.testing.assert_close(_scene(dfd_weight=2.4).terms()["dfd"], 2 * _scene().terms()["dfd"])


def test_edges_may_be_vectors() -> None:
    scene = _scene(edge_weight=1.0, edge_embedding="vector", global_weight=0.0)
    assert not {name for name in scene.gradients("graph") if name.startswith("teacher.")}
    assert {"student.edge.0.weight", "student.node.weight", "pooled"} <= scene.gradients("graph").keys()
    assert scene.part.student.edge is not None
    joint = _scene(edge_weight=1.0, edge_embedding="vector", global_weight=0.0, teacher_head="joint")
    assert "teacher.edge.0.weight" in joint.gradients("graph")
    relations = scene.method.settings.connection.among(scene.teacher.logits, scene.batch.y)
    features = scene.student.pooled
    assert features is not None
    embedded = scene.part.student(features, relations)
    h = embedded.node
    pair = torch.cat([(h[2] - h[5]).abs(), h[2] * h[5], relations.strength[2, 5][None]])
    torch.testing.assert_close(embedded.edge[2, 5], scene.part.student.edge(pair))
    assert embedded.edge.shape == (24, 24, EDGE)


@pytest.mark.parametrize(
    "options",
    [{"mode": "contrast"}, {"whiten": True}, {"k1": 1}, {"k2": 1}, {"pca_ratio": 4.0}, {"dim": 20}, {"conv": "gcn"}],
    ids=str,
)
def test_each_option_of_the_space_moves_its_loss(options: dict[str, Any]) -> None:
    assert _scene().terms()["dfd"] != _scene(**options).terms()["dfd"]


def test_more_neighbours_than_there_are_is_all_of_them() -> None:
    terms = [_scene(k1=k1, k2=k2).terms()["dfd"] for k1, k2 in ((5, 0), (5, 18), (1000, 1000))]
    assert terms[0] == terms[1] == terms[2]


def test_distillation_of_logits_is_that_of_kd() -> None:
    scene = _scene(kd_weight=0.5, temperature=2.0)
    torch.testing.assert_close(scene.terms()["kd"], 0.5 * soft_kl(scene.student.logits, scene.teacher.logits, 2.0))
    recipe = _scene(recipe="prototype+kd")
    torch.testing.assert_close(recipe.terms()["kd"], soft_kl(recipe.student.logits, recipe.teacher.logits, 4.0))


def test_presets_are_the_two_readings() -> None:
    paper, prototype = Gkdfd().settings, Gkdfd(recipe="prototype").settings
    parts = ("node", "edge", "global", "readout")
    assert [paper.weights[name].at(STEP) for name in parts] == [0, 0, 1, 0]
    assert [prototype.weights[name].at(STEP) for name in parts] == [1, 1, 1, 0]
    assert (paper.own, paper.predicted, paper.choice) == (False, False, Choice("align", 7, 56, 2.0, whiten=False))
    assert (prototype.own, prototype.predicted) == (True, True)
    assert prototype.choice == Choice("contrast", 7, 0, 2.0, whiten=True)
    assert (paper.connection.tau, prototype.connection.tau) == (4, 1)
    for plain, more in (("paper", "paper+kd"), ("prototype", "prototype+kd")):
        plain_weights, more_weights = (Gkdfd(recipe=name).settings.weights for name in (plain, more))  # type: ignore[arg-type]
        assert plain_weights["kd"].never
        assert more_weights["kd"].at(STEP) == 1
        assert plain_weights | {"kd": None} == more_weights | {"kd": None}
        assert plain_weights["graph"].at(STEP) == 0.7
        assert plain_weights["dfd"].at(STEP) == 1.2
    assert Gkdfd(recipe="prototype", graph="shared", edge_weight=0.0).settings.own is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 2.0, "uem_input": "logits"}, "method.tau is 2.0; .* unless method.uem_input is softmax"),
        ({"edge_embedding": "vector"}, "method.edge_embedding is vector; .* unless method.edge_weight"),
        ({"temperature": 2.0}, "method.temperature is 2.0; .* unless method.kd_weight"),
        ({"edge_weight": 1.0}, "share a graph"),
        ({"recipe": "prototype", "graph": "shared"}, "share a graph"),
        ({"graph_weight": 0.0, "dfd_weight": 0.0}, "method.graph_weight and method.dfd_weight are 0"),
        ({"global_weight": 0.0}, "method.readout_weight are 0"),
        *(
            ({"dfd_weight": 0.0, name: value}, f"method.{name} is {value}; .* unless method.dfd_weight is above 0")
            for name, value in {"k1": 7, "k2": 56, "mode": "align", "whiten": False, "pca_ratio": 2.0}.items()
        ),
        *(
            (
                {"graph_weight": 0.0, f"{name}_weight": 1.0},
                f"method.{name}_weight .* unless method.graph_weight is above 0",
            )
            for name in ("node", "edge", "global", "readout")
        ),
        (
            {"graph_weight": 0.0, "edge_embedding": "vector"},
            "method.edge_embedding is vector; .* unless method.graph_weight",
        ),
        ({"classes": 1}, "method.classes is 1 and method.dfd_weight above 0, .*; set method.classes to 2 or more"),
    ],
    ids=str,
)
def test_what_would_do_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        distillers.build("gkdfd", **options)


def test_a_term_that_is_off_leaves_its_options_alone() -> None:
    for recipe in ("paper", "prototype"):
        for off in ({"dfd_weight": 0.0}, {"graph_weight": 0.0}, {"dfd_weight": ((0, 0.0), (5, 0.0))}):
            distillers.build("gkdfd", recipe=recipe, **off)
    distillers.build("gkdfd", classes=1, dfd_weight=0.0)
    distillers.build("gkdfd", dfd_weight=((0, 0.0), (5, 1.0)), k1=3)
    distillers.build("gkdfd", recipe="prototype", graph="shared", graph_weight=0.0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("recipe", "papper", "'papper'; it must be one of paper, prototype, paper"),
        ("recipe", "paper+dk", "it must be one of"),
        ("recipe", None, "it must be one of paper"),
        ("mode", "alignment", "'alignment'; it must be one of align, contrast"),
        ("labels", "predicted", "true, pred"),
        ("graph", "mine", "shared, own"),
        ("teacher_head", "freeze", "ce, fixed, joint"),
        ("uem_input", "logit", "softmax, logits, l2"),
        ("uem_input", ["l2"], "softmax, logits, l2"),
        ("parts", "all", "both, cosine, euclidean"),
        ("conv", "gat", "tag, gcn, sage"),
        ("edge_embedding", "vectors", "scalar, vector"),
        *((name, 2.5, "2.5; it must be a whole number") for name in ("topk", "dim", "k1", "k2", "classes", "samples")),
        ("k1", "7", "'7'; it must be a whole number"),
        ("topk", None, "it must be a whole number"),
        ("dim", True, "it must be a whole number"),
        ("tau", "4", "'4'; it must be a finite number"),
        ("cac", None, "it must be a finite number"),
        ("whiten", "yes", "'yes'; it must be true or false"),
        ("graph_weight", None, "it must be a number, or pairs"),
        ("kd_weight", [0, 1.0], "it must be a number, or pairs"),
    ],
)
def test_the_library_says_what_an_option_allows(name: str, value: Any, words: str) -> None:
    """By `Settings`, as calls of the constructor are checked in tests before they reach it."""
    defaults = {option: p.default for option, p in distillers.options("gkdfd").items()}
    assert Settings.of(defaults) == Gkdfd().settings
    with pytest.raises(ValueError, match=rf"method\.{name} is .*{re.escape(words)}"):
        Settings.of(defaults | {name: value})


# -- who learns from what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["paper", "prototype"])
def test_the_teachers_side_learns_as_its_head_says(recipe: str) -> None:
    ours = {"student.node.weight", "student.conv.lins.0.weight", "student.conv.lins.1.weight", "pooled"}
    teachers = {name.replace("student", "teacher") for name in ours - {"pooled"}}
    ce, fixed, joint = (_scene(recipe=recipe, teacher_head=head) for head in ("ce", "fixed", "joint"))
    for scene, by_teacher in ((ce, set()), (fixed, set()), (joint, teachers)):
        for term in ("graph", "dfd"):
            reached = set(scene.gradients(term))
            assert ours <= reached
            assert {name for name in reached if name.startswith("teacher.") and "bias" not in name} == by_teacher
    reached = set(ce.gradients("teacher_head"))
    assert teachers | {"probe.weight"} <= reached
    assert not {name for name in reached if name.startswith("student") or name in ("pooled", "logits")}
    for scene in (fixed, joint):
        assert scene.part.probe is None
        assert "teacher_head" not in scene.terms()
    assert not any(p.requires_grad for p in fixed.part.teacher.parameters())


def test_the_probe_learns_the_classes_that_are_looked_at() -> None:
    scene = _scene()
    seen = scene.method.seen(scene.batch, scene.student, scene.teacher, STEP)
    assert scene.part.probe is not None
    torch.testing.assert_close(scene.terms()["teacher_head"], F.cross_entropy(scene.part.probe(seen.teacher), seen.y))


def _trained(head: str, seed: int) -> Mapping[str, Tensor]:
    """Signs of a collapse after 100 steps on features of both networks that show the classes, drawn anew each step."""
    torch.manual_seed(seed)
    y = torch.arange(4).repeat_interleave(8)
    wide, narrow = torch.randn(4, 10), torch.randn(4, 6)
    body, fc = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6)), torch.nn.Linear(6, 4)
    method = Gkdfd(teacher_head=head, dim=16, k1=3)  # type: ignore[arg-type]

    def shown() -> tuple[Output, Output]:
        pooled = body(narrow[y] + 0.3 * torch.randn(32, 6))
        logits = 4 * torch.eye(4)[y] + 0.5 * torch.randn(32, 4)
        return Output(fc(pooled), pooled=pooled), Output(logits, pooled=wide[y] + 0.3 * torch.randn(32, 10))

    method.prepare(Lesson(*shown(), (), y, 0.9, 0.0, seed))
    assert method.part is not None
    batch = Batch.of(torch.zeros(32, 1), y, None, torch.ones(32, dtype=torch.bool))
    trained = [p for module in (body, fc, method.part) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    for epoch in range(100):
        terms = method.loss(batch, *shown(), Step(epoch, 100))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    return method.diagnostics()


def test_both_sides_learning_from_each_other_collapse_and_the_default_does_not() -> None:
    joint, ours = _trained("joint", 0), _trained("ce", 0)
    for network in ("teacher", "student"):
        assert joint[f"gkdfd/between_{network}"] > 0.9, "all classes in one place"
        assert joint[f"gkdfd/spread_{network}"] < 0.06
        assert ours[f"gkdfd/between_{network}"] < 0.0
        assert ours[f"gkdfd/spread_{network}"] > 0.18, "of at most 0.25"


# -- batches of all kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["paper", "prototype"])
@pytest.mark.parametrize("kind", BATCHES)
def test_every_batch_has_a_finite_loss_with_finite_gradients(kind: str, recipe: str) -> None:
    scene = _scene(BATCHES[kind], recipe=recipe, k1=1000)
    for name, term in scene.terms().items():
        assert torch.isfinite(term), name
        for source, g in scene.gradients(name).items():
            assert torch.isfinite(g).all(), (name, source)
    assert all(torch.isfinite(value) and value.shape == () for value in scene.method.diagnostics().values())
    seen = scene.method.seen(scene.batch, scene.student, scene.teacher, STEP)
    low = max(1, min(BATCHES[kind].unique().numel() - 1, 6, len(BATCHES[kind]) - 1))
    assert seen.teacher_low.shape == seen.student_low.shape == (len(BATCHES[kind]), low)


def test_one_class_has_nothing_to_discriminate() -> None:
    for recipe in ("paper", "prototype"):
        scene = _scene(BATCHES["one class"], recipe=recipe, labels="true")
        assert scene.terms()["dfd"] == 0
        assert all((g == 0).all() for g in scene.gradients("dfd").values())
        assert scene.terms()["graph"] > 0
        assert scene.gradients("graph")["pooled"].abs().max() > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("recipe", ["paper", "prototype"])
def test_logits_and_features_that_are_not_finite_end_the_training(value: float, recipe: str) -> None:
    for of in ("student", "teacher"):
        for what in ("logits", "pooled"):
            scene = _scene(recipe=recipe)
            output = getattr(scene, of)
            broken = getattr(output, what).detach().clone()
            broken[2, 1] = value
            setattr(scene, of, replace(output, **{what: broken}))
            assert not all(torch.isfinite(term) for term in scene.terms().values()), (of, what)


# -- whole graphs ------------------------------------------------------------------------------------------------


def test_rows_are_drawn_by_class_without_repetition() -> None:
    y = _labels(30, 2, 9, 0, 12)
    for classes, samples in ((2, 4), (4, 8), (9, 100), (1, 1)):
        found = [balanced(y, classes, samples, generator(seed)) for seed in range(20)]
        for rows in found:
            assert rows.unique().numel() == rows.numel()
            kinds, sizes = y[rows].unique(return_counts=True)
            assert kinds.numel() == min(classes, 4)
            assert sizes.tolist() == [min(samples, int((y == kind).sum())) for kind in kinds]
            assert (y[rows].diff() >= 0).all()
        assert {int(kind) for rows in found for kind in y[rows]} == {0, 1, 2, 4}
        assert torch.equal(found[0], balanced(y, classes, samples, generator(0)))


def test_every_row_of_a_class_is_drawn_equally_often() -> None:
    y, n = torch.tensor([0] * 6 + [1] * 3), 1500
    rows = torch.cat([balanced(y, 2, 2, generator(seed)) for seed in range(n)])
    shares = rows.bincount(minlength=9) / n
    wanted = torch.tensor([1 / 3] * 6 + [2 / 3] * 3)
    assert ((shares - wanted).abs() < 4 * (wanted * (1 - wanted) / n).sqrt()).all()


def _whole(**options: Any) -> Scene:
    """A graph of 60 nodes, of which 20 have a label."""
    y = torch.arange(60) % 4
    edges = torch.randint(60, (2, 240), generator=torch.Generator().manual_seed(0))
    return _scene(y, labelled=torch.arange(60) < 20, graph=Graph.from_edge_index(edges, 60), **options)


def _seen_rows(scene: Scene, epoch: int) -> Tensor:
    return scene.method.seen(scene.batch, scene.student, scene.teacher, Step(epoch, 10)).rows


def test_a_whole_graph_is_drawn_from_by_seed_and_epoch() -> None:
    scene, twin = _whole(classes=3, samples=5), _whole(classes=3, samples=5)
    assert _seen_rows(scene, 0).numel() == 15
    assert torch.equal(_seen_rows(scene, 4), _seen_rows(twin, 4))
    assert not torch.equal(_seen_rows(scene, 4), _seen_rows(scene, 5))
    scene.method._seed = 1
    assert not torch.equal(_seen_rows(scene, 4), _seen_rows(twin, 4))
    seen = twin.method.seen(twin.batch, twin.student, twin.teacher, STEP)
    known = seen.rows < 20
    assert known.any()
    assert (~known).any(), "rows without a label are looked at too"
    assert torch.equal(seen.y[known], twin.batch.y[seen.rows][known])
    assert torch.equal(seen.y[~known], twin.teacher.logits.argmax(1)[seen.rows][~known])
    assert seen.adjacency.shape == (15, 15)


def test_a_step_draws_no_global_random_numbers() -> None:
    scene, state = _whole(), torch.get_rng_state()
    scene.terms()
    assert torch.equal(state, torch.get_rng_state())
    _whole()
    assert torch.equal(state, torch.get_rng_state()), "nor does the preparation"


def test_a_part_of_its_task_is_looked_at_whole_and_all_of_it_is_drawn_from() -> None:
    scene = _scene(labelled=torch.arange(24) < 12, classes=2, samples=3)
    assert _seen_rows(scene, 0).numel() == 6, "all rows of a task, not all of them labelled, without a graph"
    rows = torch.arange(12)
    b, s, t = scene.batch, scene.student, scene.teacher
    assert s.pooled is not None
    assert t.pooled is not None
    some = Batch(b.x[rows], b.y[rows], rows, None, b.labelled[rows])  # type: ignore[index]
    s, t = Output(s.logits[rows], pooled=s.pooled[rows]), Output(t.logits[rows], pooled=t.pooled[rows])
    assert torch.equal(scene.method.seen(some, s, t, STEP).rows, rows)


def test_unlabelled_rows_leave_the_cross_entropy_to_the_labelled() -> None:
    scene = _whole()
    wanted = F.cross_entropy(scene.student.logits[:20], scene.batch.y[:20])
    torch.testing.assert_close(scene.terms()["ce"], wanted)
    assert (scene.batch.y[20:] == UNKNOWN).all()


# -- training ----------------------------------------------------------------------------------------------------


def _bank(batch: Batch) -> Bank:
    torch.manual_seed(1)
    teacher = nn.gcn(9, 4, layers=2, width=6).eval()
    layers = Layers.of(teacher(batch.x, batch.graph), dict(teacher.named_parameters()), 60, 16)
    bank = Bank(layers, GeneratorSettings().resolved())
    for epoch in range(4):
        bank.offer(0.5, epoch, bank.untrained(seed=epoch))
    return bank


def _fit(file: Path | None, epochs: int, *, wrapped: bool, spoil: Callable[[Tensor], Tensor] = lambda x: x) -> Fit:
    rng = torch.Generator().manual_seed(0)
    y, graph = torch.arange(60) % 4, Graph.from_edge_index(torch.randint(60, (2, 240), generator=rng), 60)
    batch = Batch.of(torch.rand(60, 9, generator=rng), y, graph, torch.arange(60) < 20)
    torch.manual_seed(3)
    teacher, model = nn.gcn(9, 4, layers=2, width=6).eval(), nn.mlp(9, 4, layers=2, width=5)
    options = {"classes": 3, "samples": 6, "dim": 8}
    distiller = distillers.build(
        "dgd" if wrapped else "gkdfd",
        *([_bank(batch)] if wrapped else []),
        **({"base": "gkdfd"} if wrapped else options),
    )
    with torch.no_grad():
        taught = teacher(batch.x, batch.graph)
        taught = replace(taught, logits=spoil(taught.logits))
        distiller.prepare(Lesson(model.eval()(batch.x, None), taught, (), batch.y, 0.0, 0.0, 3))
    settings = TrainSettings(epochs=epochs, checkpoint_every=1)
    course = WholeBatch(model, batch, distiller, taught, (y, torch.arange(60) >= 40), settings)
    return Fit(course, settings, file=file)


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "under dgd"])
def test_a_training_on_a_graph_continues_bit_for_bit(tmp_path: Path, wrapped: bool) -> None:
    whole = _fit(None, 6, wrapped=wrapped)
    reached = whole.run()
    assert {"ce", "graph", "dfd", "teacher_head", "gkdfd/edges", "gkdfd/spread_student"} <= reached.history[-1].keys()
    assert ("bias/layers.0.weight" in reached.history[-1]) is wrapped
    file = tmp_path / "checkpoint.safetensors"
    early = _fit(file, 6, wrapped=wrapped)
    early.settings = replace(early.settings, epochs=3)
    early.run()
    later = _fit(file, 6, wrapped=wrapped)
    assert later.restore() == 3
    assert later.run().history == reached.history
    for ours, theirs in ((later.model, whole.model), (later.course.distiller.part, whole.course.distiller.part)):  # type: ignore[attr-defined]
        assert all(torch.equal(p, theirs.state_dict()[name]) for name, p in ours.state_dict().items())


def test_a_teacher_that_is_not_finite_ends_the_training_with_a_word() -> None:
    with pytest.raises(DivergedError, match="not finite at epoch 0"):
        _fit(None, 2, wrapped=False, spoil=lambda x: torch.full_like(x, torch.nan)).run()


def test_the_part_follows_the_runs_seed_alone() -> None:
    states = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        scene = _scene()
        scene.method.prepare(Lesson(scene.student, scene.teacher, (), scene.batch.y, 0.9, 0.0, seed))
        states.append({name: t.clone() for name, t in scene.method.state().items()})
    assert all(torch.equal(t, states[1][name]) for name, t in states[0].items())
    assert not torch.equal(states[0]["student.node.weight"], states[2]["student.node.weight"])
