"""Methods of features on graphs: their terms against slow loops, what they look at, and that they train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.data.dataset import from_arrays
from gnnkd.data.task import NodeTask, task
from gnnkd.distillers.base import Distiller, Lesson, plain_gradients
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.nodes.at import At
from gnnkd.distillers.nodes.features import FeatureDistiller, Projectors
from gnnkd.distillers.nodes.fitnet import FitNet
from gnnkd.distillers.nodes.gcrd import Gcrd
from gnnkd.distillers.nodes.graphakd import GraphAkd
from gnnkd.distillers.nodes.gsp import WEIGHTS, Gsp
from gnnkd.distillers.nodes.rkd import Rkd
from gnnkd.distillers.nodes.sp import Sp
from gnnkd.train.fit import Fit
from gnnkd.train.settings import TrainSettings
from gnnkd.train.teacher import GeneratorSettings, teaching
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

N, C = 9, 3
STEP = Step(0, 10)
FEATURES: dict[str, Callable[..., FeatureDistiller]] = {
    "fitnet": FitNet,
    "at": At,
    "gsp": Gsp,
    "sp": Sp,
    "rkd": Rkd,
    "gcrd": Gcrd,
}
METHODS: dict[str, Callable[..., Distiller]] = {**FEATURES, "graphakd": GraphAkd}
DRAWN = {"gsp": "samples", "sp": "samples", "rkd": "samples", "gcrd": "samples"}


def _rows(k: int, seed: int) -> Tensor:
    return torch.randn(N, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = _rows(4, 0), _rows(6, 1)


def _batch(n: int = N, labelled: int = 5) -> Batch:
    return Batch.of(torch.zeros(n, 2), torch.arange(n) % C, None, torch.arange(n) < labelled)


def _prepared(method: FeatureDistiller, student: Tensor = STUDENT, teacher: Tensor = TEACHER) -> FeatureDistiller:
    torch.manual_seed(0)
    logits = torch.zeros(len(student), C)
    hidden = {"layers.0.weight": student.float(), "layers.1.weight": student.float()}
    shown = Output(logits, hidden), Output(logits, pooled=teacher.float())
    method.prepare(Lesson(*shown, (), torch.zeros(len(student), dtype=torch.long), 0.0, 0.0, 3, _batch(len(student))))
    if method.part is not None:
        method.part.to(student.dtype)
    return method


def _projected(method: FeatureDistiller, rows: slice, student: Tensor = STUDENT) -> tuple[Tensor, Tensor]:
    """Both projections by their formula: linear, standardised over rows, positive part."""
    assert isinstance(method.part, Projectors)
    found = []
    for way, h in ((method.part.student, student[rows]), (method.part.teacher, TEACHER[rows])):
        z = h @ way[0].weight.T + way[0].bias
        found.append(((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()).clamp(min=0))
    return found[0], found[1]


# -- terms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_fitnet_is_the_mean_square_on_the_sphere(labelled: bool) -> None:
    method = _prepared(FitNet(dim=7, labelled=labelled))
    count = 5 if labelled else N
    s, t = _projected(method, slice(count))
    expected = sum(((a / a.norm() - b / b.norm()) ** 2).sum() for a, b in zip(s, t, strict=True)) / (count * 7)
    torch.testing.assert_close(method.term(_batch(), STUDENT, TEACHER, STEP), expected)


@pytest.mark.parametrize("labelled", [True, False])
def test_at_compares_squared_lengths(labelled: bool) -> None:
    count = 5 if labelled else N
    a, b = ([float((row**2).sum()) for row in h[:count]] for h in (STUDENT, TEACHER))
    lengths = [math.sqrt(sum(v**2 for v in values)) for values in (a, b)]
    expected = sum((x / lengths[0] - y / lengths[1]) ** 2 for x, y in zip(a, b, strict=True)) / count
    found = At(labelled=labelled).term(_batch(), STUDENT, TEACHER, STEP)
    assert float(found) == pytest.approx(expected)
    torch.testing.assert_close(At(labelled=labelled).term(_batch(), 3 * STUDENT, TEACHER, STEP), found)


@pytest.mark.parametrize("kernel", sorted(WEIGHTS))
def test_gsp_compares_the_similarity_of_every_pair(kernel: Any) -> None:
    method = _prepared(Gsp(kernel=kernel, dim=7, labelled=False))
    of: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cosine": lambda a, b: F.cosine_similarity(a, b, dim=0),
        "poly": lambda a, b: F.cosine_similarity(a, b, dim=0) ** 2,
        "rbf": lambda a, b: (-((a - b) ** 2).sum() / 2).exp(),
        "l2": lambda a, b: ((a - b) ** 2).sum().sqrt(),
    }
    pairs = [
        (of[kernel](s_i, s_j) - of[kernel](t_i, t_j)) ** 2
        for (s_i, t_i), (s_j, t_j) in product(list(zip(*_projected(method, slice(N)), strict=True)), repeat=2)
    ]
    found = method.term(_batch(), STUDENT, TEACHER, STEP)
    torch.testing.assert_close(found, torch.stack(pairs).mean())
    assert Gsp(kernel=kernel).weight == WEIGHTS[kernel]


def test_sp_compares_normalised_gram_matrices() -> None:
    gram = [[[float(a @ b) for b in h] for a in h] for h in (STUDENT, TEACHER)]
    unit = [[[v / math.sqrt(sum(w**2 for w in row)) for v in row] for row in g] for g in gram]
    expected = sum((unit[0][i][j] - unit[1][i][j]) ** 2 for i in range(N) for j in range(N)) / N**2
    assert float(Sp().term(_batch(), STUDENT, TEACHER, STEP)) == pytest.approx(expected)


def _huber(a: float, b: float) -> float:
    d = abs(a - b)
    return d * d / 2 if d < 1 else d - 0.5


def test_rkd_compares_distances_and_angles() -> None:
    far = [[[float((a - b).norm()) for b in h] for a in h] for h in (STUDENT, TEACHER)]
    mean = [sum(map(sum, f)) / (N * (N - 1)) for f in far]
    pairs = list(product(range(N), repeat=2))
    distance = sum(_huber(far[0][i][j] / mean[0], far[1][i][j] / mean[1]) for i, j in pairs) / N**2
    angle = 0.0
    for i, j, k in product(range(N), repeat=3):
        if i not in (j, k):
            cosines = [float(F.cosine_similarity(h[j] - h[i], h[k] - h[i], dim=0)) for h in (STUDENT, TEACHER)]
            angle += _huber(*cosines) / N**3
    method = Rkd(distance_weight=2.0, angle_weight=3.0)
    assert float(method.term(_batch(), STUDENT, TEACHER, STEP)) == pytest.approx(2 * distance + 3 * angle)
    shown = method.diagnostics()
    assert (float(shown["rkd/distance"]), float(shown["rkd/angle"])) == pytest.approx((distance, angle))


def _turned(h: Tensor) -> Tensor:
    q, _ = torch.linalg.qr(_rows(N, 5)[: h.shape[1], : h.shape[1]])
    return h @ q


def test_the_teachers_features_themselves_leave_nothing_to_learn() -> None:
    batch = _batch()
    assert float(At().term(batch, TEACHER, TEACHER, STEP)) == 0
    for same in (TEACHER, _turned(TEACHER), 3 * _turned(TEACHER)):
        assert float(Sp().term(batch, same, TEACHER, STEP)) == pytest.approx(0, abs=1e-20)
        assert float(Rkd().term(batch, same + 5, TEACHER, STEP)) == pytest.approx(0, abs=1e-20)
    for method in (FitNet(), *(Gsp(kernel=kernel) for kernel in sorted(WEIGHTS))):  # type: ignore[arg-type]
        part = _prepared(method, student=TEACHER).part
        assert isinstance(part, Projectors)
        part.student.load_state_dict(part.teacher.state_dict())
        assert float(method.term(batch, TEACHER, TEACHER, STEP).detach()) == 0


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_the_order_of_the_rows_does_not_matter(name: str) -> None:
    method, order = _prepared(FEATURES[name]()), torch.randperm(N, generator=torch.Generator().manual_seed(2))
    batch = _batch()
    other = Batch.of(torch.zeros(N, 2), batch.y[order], None, batch.labelled[order], order)
    found = method.term(other, STUDENT[order], TEACHER[order], STEP)
    torch.testing.assert_close(found, method.term(batch, STUDENT, TEACHER, STEP))


# -- which rows are looked at --------------------------------------------------------------------------------------


def _looked_at(method: FeatureDistiller, batch: Batch, epoch: int = 0) -> Tensor:
    """The rows of the student that its term has a gradient of."""
    n = batch.y.numel()
    student, teacher = (torch.randn(n, k, generator=torch.Generator().manual_seed(k)) for k in (4, 6))
    student.requires_grad_()
    _prepared(method, student.detach(), teacher)
    (g,) = torch.autograd.grad(method.term(batch, student, teacher, Step(epoch, 10)), student)
    return (g != 0).any(1).nonzero().flatten()


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_labelled_rows_alone_or_all(name: str) -> None:
    assert _looked_at(FEATURES[name](labelled=True), _batch(20, 12)).tolist() == list(range(12))
    assert _looked_at(FEATURES[name](labelled=False), _batch(20, 12)).tolist() == list(range(20))


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_sample_is_drawn_by_seed_and_epoch(name: str) -> None:
    options = {"angle_weight": 0.0} if name == "rkd" else {}
    method = FEATURES[name](samples=8, labelled=True, **options)
    batch = _batch(60, 40)
    first = _looked_at(method, batch)
    assert len(first) == 8
    assert int(first.max()) < 40
    state = torch.get_rng_state()
    assert torch.equal(_looked_at(FEATURES[name](samples=8, labelled=True, **options), batch), first)
    assert not torch.equal(_looked_at(method, batch, epoch=1), first)
    torch.set_rng_state(state)


def test_angles_have_a_sample_of_their_own() -> None:
    batch = _batch(60, 40)
    assert len(_looked_at(Rkd(angle_samples=7, distance_weight=0.0), batch)) == 7
    assert len(_looked_at(Rkd(angle_samples=7), batch)) == 60


@pytest.mark.parametrize("labelled", [0, 1])
@pytest.mark.parametrize("name", sorted(FEATURES))
def test_too_few_rows_have_nothing_to_compare(name: str, labelled: int) -> None:
    student = STUDENT.clone().requires_grad_()
    term = _prepared(FEATURES[name](labelled=True)).term(_batch(labelled=labelled), student, TEACHER, STEP)
    (g,) = torch.autograd.grad(term, student)
    assert labelled == 1 or float(term.detach()) == 0
    assert not g.any()


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_soft_labels_alone_are_glnn(name: str) -> None:
    weights = {"distance_weight": 0.0, "angle_weight": 0.0} if name == "rkd" else {"weight": 0.0}
    method = FEATURES[name](**weights, label_weight=0.0, kd_weight=1.0, temperature=1.0)
    student, teacher = Output(torch.randn(N, C)), Output(torch.randn(N, C))
    found, glnn = (m.loss(_batch(), student, teacher, STEP) for m in (method, Glnn()))
    assert found.keys() == glnn.keys()
    torch.testing.assert_close(found["kd"], glnn["kd"])


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_a_search_has_no_option_that_the_defaults_leave_idle(name: str) -> None:
    """The temperature is that of the soft labels, which have no weight unless the search gives them one."""
    found: list[Tensor] = []
    for temperature in (4.0, 5.0):
        method = _prepared(FEATURES[name](temperature=temperature))
        student = Output(torch.ones(N, C), pooled=STUDENT)
        terms = method.loss(_batch(), student, Output(torch.randn(N, C), pooled=TEACHER), STEP)
        found.append(torch.stack(list(terms.values())).sum())
    assert torch.equal(*found)
    assert "temperature" not in distillers.graph_methods()[name].space


# -- training ------------------------------------------------------------------------------------------------------


@cache
def _task() -> NodeTask:
    """A planted partition with words that lean to a class; features are sparse."""
    rng, n = np.random.default_rng(0), 180
    y = np.arange(n) % C
    a, b = rng.integers(0, n, (2, 8 * n))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((n, 48)) < np.where(np.arange(48) % C == y[:, None], 0.3, 0.05)
    masks = {f"{part}_mask": np.arange(n) // 60 == i for i, part in enumerate(("train", "val", "test"))}
    return task(
        from_arrays({"edge_index": np.stack([a, b])[:, near], "x": words.astype(np.float32), "y": y, **masks}), seed=0
    )


@cache
def _taught() -> tuple[Output, Bank]:
    found = _task()
    torch.manual_seed(0)
    network = nn.gcn(48, C, layers=2, width=16, dropout=0.2)
    batch = found.batch(found.split.train)
    fit, watcher = teaching(
        network,
        batch,
        (found.y, found.split.val),
        TrainSettings(epochs=40),
        GeneratorSettings(buckets=32, keep=3),
        seed=0,
    )
    fit.run()
    assert watcher is not None
    with torch.no_grad():
        return network.eval()(batch.x, batch.graph), watcher.bank


def _student(
    distiller: Distiller, *, name: str = "mlp", sparse: bool = True, file: Path | None = None, **settings: Any
) -> Fit:
    found, (teacher, _) = _task(), _taught()
    batch = found.batch(found.split.train)
    batch = batch if sparse else replace(batch, x=batch.x.dense())
    torch.manual_seed(0)
    network = nn.MODELS[name](48, C, layers=2, width=8, dropout=0.5)
    with torch.no_grad():
        shown = network.eval()(batch.x, batch.graph)
    distiller.prepare(Lesson(shown, teacher, (), batch.y, 0.0, 0.0, 0, batch))
    training = TrainSettings(**{"epochs": 40, "checkpoint_every": 1000, **settings})
    course = WholeBatch(network, batch, distiller, teacher, (found.y, found.split.val), training)
    return Fit(course, training, file=file, key="mine")


def _accuracy(fit: Fit) -> float:
    found = _task()
    with torch.no_grad():
        logits = fit.model.eval()(found.x, found.graph).logits
    return float((logits.argmax(1) == found.y)[found.split.test].float().mean())


@pytest.mark.parametrize("name", ["mlp", "gcn"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_student_learns_and_the_methods_part_with_it(method: str, name: str) -> None:
    # The published weight of AT is for a mean over 90,000 nodes; here 60 are labelled.
    distiller = METHODS[method](**({"weight": 100.0} if method == "at" else {}))
    fit = _student(distiller, name=name)
    before = {key: t.clone() for key, t in distiller.state().items()}
    fit.run()
    assert _accuracy(fit) > 0.6
    for key, t in distiller.state().items():
        assert not torch.equal(t, before[key]), key


@pytest.mark.parametrize("method", sorted(METHODS))
def test_sparse_features_are_dense_ones(method: str) -> None:
    one, other = (_student(METHODS[method](), sparse=sparse, epochs=4).run().history for sparse in (True, False))
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_run_in_two_pieces_is_the_run_in_one(tmp_path: Path, method: str) -> None:
    options = {"d_every": 2} if method == "graphakd" else {DRAWN[method]: 20} if method in DRAWN else {}
    file = tmp_path / "checkpoint.safetensors"
    whole = _student(METHODS[method](**options), epochs=6)
    expected = whole.run()
    _student(METHODS[method](**options), file=file, epochs=3, checkpoint_every=3).run()
    again = _student(METHODS[method](**options), file=file, epochs=6)
    assert again.restore() == 3
    assert again.run().history == expected.history
    for key, t in whole.model.state_dict().items():
        assert torch.equal(t, again.model.state_dict()[key]), key


@pytest.mark.parametrize("name", ["mlp", "gcn"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_dgd_on_top_runs(method: str, name: str) -> None:
    distiller = distillers.build("dgd", _taught()[1], base=method, on_graphs=True)
    history = _student(distiller, name=name, epochs=5).run().history
    assert any(key.startswith("bias/") for key in history[-1])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_gradients_can_be_differentiated_where_rows_are_empty(method: str) -> None:
    """Gradient fusion reads the curvature; dropout empties whole rows of narrow layers."""
    found, (teacher, _) = _task(), _taught()
    batch = found.batch(found.split.train)
    torch.manual_seed(0)
    network = nn.mlp(48, C, layers=2, width=4, dropout=0.7)
    output = network.train()(batch.x, batch.graph)
    assert bool((output.hidden["layers.1.weight"] == 0).all(1).any())
    options = {"label_weight": 0.0} | ({"l1_weight": 0.0} if method == "graphakd" else {})
    distiller = METHODS[method](**options)
    distiller.prepare(Lesson(output, teacher, (), batch.y, 0.0, 0.0, 0, batch))
    params = dict(network.named_parameters())
    first = plain_gradients(distiller.loss(batch, output, teacher, STEP), params, create_graph=True)
    second = plain_gradients({name: g.sum() for name, g in first.items()}, params)
    assert second
    for g in (*first.values(), *second.values()):
        assert torch.isfinite(g).all()
