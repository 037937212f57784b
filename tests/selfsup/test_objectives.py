"""Objectives without labels: values of the published codes, slow versions, limits and symmetries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd.distillers.base import Lesson
from gnnkd.errors import UserError
from gnnkd.selfsup.objectives import Objective, build, objectives
from gnnkd.selfsup.objectives.barlow import correlations, redundancy
from gnnkd.selfsup.objectives.byol import distance
from gnnkd.selfsup.objectives.dino import Centre
from gnnkd.selfsup.objectives.moco import Queue, info_nce
from gnnkd.selfsup.objectives.simclr import nt_xent
from gnnkd.selfsup.objectives.simsiam import apart
from gnnkd.selfsup.objectives.swav import assigned
from gnnkd.selfsup.similarity import Similarity, similarities
from gnnkd.types import Batch, Output, Step

GOLDEN = sorted((Path(__file__).parents[3] / "shared" / "golden").glob("losses_*.npz"))
STEP = Step(2, 10)
NEEDS = [name for name, kind in objectives().items() if kind.follower]


def wave(*shape: int, a: float = 0.37, b: float = 1.3, c: float = 0.0) -> Tensor:
    """`sin(a n + b sqrt(n + 1) + c)`, n the place in row-major order, in float64."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(a * n + b * (n + 1).sqrt() + c).reshape(shape)


def rows(n: int, seed: int, dim: int = 6) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def pairs(n: int) -> Batch:
    nothing = torch.zeros(2 * n, dtype=torch.bool)
    index = torch.arange(n).repeat(2)
    return Batch.of(torch.zeros(2 * n, 1), torch.zeros(2 * n, dtype=torch.long), None, nothing, index)


def prepared(name: str, n: int = 8, seed: int = 0, **options: float) -> Objective:
    made = build(name, **options)
    torch.manual_seed(seed)
    shown = Output(rows(4, 9), pooled=rows(4, 10, 5))
    made.prepare(
        Lesson(
            student=shown,
            teacher=None,
            norms=(),
            y=torch.zeros(n, dtype=torch.long),
            momentum=0.9,
            weight_decay=0.0,
            seed=0,
        )
    )
    return made


def value(objective: Objective, student: Tensor, teacher: Tensor | None = None, step: Step = STEP) -> Tensor:
    taught = None if teacher is None else Output(teacher)
    (term,) = objective.loss(pairs(len(student) // 2), Output(student), taught, step).values()
    return term


# -- of all ----------------------------------------------------------------------------------------------------


def test_all_are_found() -> None:
    assert sorted(objectives()) == ["barlow", "byol", "dino", "moco", "simclr", "simsiam", "swav"]


@pytest.mark.parametrize("name", objectives())
def test_an_objective_reads_no_label_reaches_its_projector_and_names_one_term(name: str) -> None:
    made = build(name)
    assert made.needs_teacher == made.follower == (name in NEEDS)
    projector, features = made.projector(5), rows(16, 1, 5)
    z = projector(features)
    made.prepare(
        Lesson(
            student=Output(z.detach(), pooled=features), teacher=None, norms=(), y=torch.zeros(16, dtype=torch.long),
            momentum=0.9, weight_decay=0.0, seed=0,
        )
    )  # fmt: skip
    terms = made.loss(pairs(8), Output(z), Output(z.detach().flip(1)) if made.follower else None, STEP)
    assert list(terms) == [name]
    every = [*projector.parameters(), *([] if made.part is None else made.part.parameters())]
    for p, g in zip(every, torch.autograd.grad(terms[name], every), strict=True):
        assert g.shape == p.shape
        assert g.isfinite().all()


@pytest.mark.parametrize("name", objectives())
def test_views_have_no_first_and_second(name: str) -> None:
    """Both networks' views swapped give the same loss."""
    student, teacher = rows(16, 1), rows(16, 2) if name in NEEDS else None
    swapped = [None if z is None else z.roll(8, 0) for z in (student, teacher)]
    found = [value(prepared(name), s, t) for s, t in ((student, teacher), swapped)]  # type: ignore[arg-type]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in objectives() if name != "moco"])
def test_images_have_no_order(name: str) -> None:
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    both = torch.cat([order, order + 8])
    student, teacher = rows(16, 1), rows(16, 2) if name in NEEDS else None
    found = value(prepared(name), student, teacher)
    mixed = value(prepared(name), student[both], None if teacher is None else teacher[both])
    torch.testing.assert_close(mixed, found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NEEDS)
def test_the_momentum_encoder_gets_no_gradient(name: str) -> None:
    student, teacher = rows(16, 1).requires_grad_(), rows(16, 2)
    (g,) = torch.autograd.grad(value(prepared(name), student, teacher), [student])
    assert g.abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in objectives() if objectives()[name].pace is not Objective.pace])
def test_a_rising_momentum_starts_where_it_is_said_and_ends_near_one(name: str) -> None:
    points = build(name, momentum=0.9).pace(50)
    assert isinstance(points, tuple)
    momenta = [m for _, m in points]
    assert momenta[0] == pytest.approx(0.9)
    assert momenta == sorted(momenta)
    assert 0.9999 < momenta[-1] < 1
    assert momenta[25] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("simclr", {"temperature": 0.0}, "method.temperature is 0.0; it must be a finite number above 0"),
        ("moco", {"momentum": 1.0}, r"method.momentum is 1.0; it must lie in \[0, 1\)"),
        ("moco", {"queue": 0}, "method.queue is 0"),
        ("barlow", {"weight": -1.0}, "method.weight is -1.0"),
        ("swav", {"prototypes": 1}, "method.prototypes is 1"),
        ("dino", {"centre_momentum": 1.5}, "method.centre_momentum is 1.5"),
        ("byol", {"dim": 0}, "method.dim is 0"),
    ],
)
def test_an_option_out_of_range(name: str, wrong: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(name, **wrong)


# -- SimCLR ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN, reason="reference values are not in ../shared/golden")
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_simclr_and_similarities_of_the_published_code(file: Path) -> None:
    with np.load(file) as golden:
        z = [torch.from_numpy(golden[f"feat/z{i}"]) for i in range(4)]
        wanted = [torch.tensor(golden[f"feat/{name}"]) for name in ("simclr_T0.3", "simmatrix_kl_T0.3")]
    torch.testing.assert_close(nt_xent(z[0], z[1], 0.3), wanted[0], rtol=1e-4, atol=0)
    terms = Similarity().loss(pairs(len(z[0])), Output(torch.cat(z[:2])), Output(torch.cat(z[2:])), STEP)
    torch.testing.assert_close(terms["similarity"], wanted[1], rtol=1e-4, atol=0)


def test_values_in_float64() -> None:
    z1, z2 = wave(6, 7, a=0.41), wave(6, 7, a=0.43, c=0.2)
    w1, w2 = wave(6, 7, a=0.47), wave(6, 7, a=0.49, c=0.3)
    assert nt_xent(z1, z2, 0.3).item() == pytest.approx(1.33794308011, rel=1e-9)
    terms = Similarity().loss(pairs(6), Output(torch.cat([z1, z2])), Output(torch.cat([w1, w2])), STEP)
    # The published code adds 1e-10 inside its logarithms.
    assert terms["similarity"].item() == pytest.approx(0.0942248280911, rel=1e-7)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_nt_xent_is_the_loop_for_any_batch(n: int) -> None:
    first, second = rows(n, 1).double(), rows(n, 2).double()
    z = [v / v.norm() for v in torch.cat([first, second])]
    losses = []
    for i in range(2 * n):
        scores = {k: math.exp(float(z[i] @ z[k]) / 0.2) for k in range(2 * n) if k != i}
        losses.append(-math.log(scores[(i + n) % (2 * n)] / sum(scores.values())))
    assert nt_xent(first, second, 0.2).item() == pytest.approx(sum(losses) / (2 * n), rel=1e-10, abs=1e-12)


def test_equal_views_of_far_images_cost_nothing_when_cold_and_equal_rows_cost_the_logarithm_of_the_others() -> None:
    far = torch.eye(6)
    assert nt_xent(far, far, 0.01).item() == pytest.approx(0, abs=1e-6)
    same = torch.ones(5, 3)
    assert nt_xent(same, same, 0.5).item() == pytest.approx(math.log(9), rel=1e-5)


# -- MoCo ------------------------------------------------------------------------------------------------------


def test_info_nce_is_the_loop() -> None:
    q, k, others = (F.normalize(rows(n, s).double(), dim=1) for n, s in ((4, 1), (4, 2), (9, 3)))
    losses = []
    for i in range(4):
        own = math.exp(float(q[i] @ k[i]) / 0.2)
        losses.append(-math.log(own / (own + sum(math.exp(float(q[i] @ o) / 0.2) for o in others))))
    assert info_nce(q, k, others, 0.2).item() == pytest.approx(sum(losses) / 4, rel=1e-10)


def test_the_queue_holds_the_latest_keys_and_forgets_the_oldest_first() -> None:
    queue, sent = Queue(2, 10), []
    for size in (4, 3, 6, 1, 13, 2):
        keys = rows(size, len(sent), 2)
        queue.push(keys)
        sent.extend(keys)
        there = {tuple(row) for row in queue.keys.tolist()}
        assert {tuple(row.tolist()) for row in sent[-10:]} <= there
        assert int(queue.place) == len(sent) % 10


def test_the_keys_of_a_batch_are_no_negatives_of_its_own() -> None:
    made = prepared("moco", queue=16)
    assert isinstance(made.part, Queue)
    before = made.part.keys.clone()
    student, teacher = rows(16, 1), rows(16, 2)
    q, k = (F.normalize(z, dim=1).chunk(2) for z in (student, teacher))
    wanted = (info_nce(q[0], k[1], before, 0.2) + info_nce(q[1], k[0], before, 0.2)) / 2
    torch.testing.assert_close(value(made, student, teacher), wanted)
    torch.testing.assert_close(made.part.keys, F.normalize(teacher, dim=1))


# -- SimSiam and BYOL ------------------------------------------------------------------------------------------


def test_what_is_wanted_stands_still() -> None:
    said, wanted = rows(4, 1).requires_grad_(), rows(4, 2).requires_grad_()
    g = torch.autograd.grad(apart(said, wanted), [said, wanted], allow_unused=True)
    assert g[0].abs().sum() > 0
    assert g[1] is None


def test_distances_are_of_directions() -> None:
    z = rows(5, 1)
    assert apart(z, 3 * z).item() == pytest.approx(-1)
    assert apart(z, -z).item() == pytest.approx(1)
    assert distance(z, 3 * z).item() == pytest.approx(0, abs=1e-6)
    a, b = F.normalize(z, dim=1), F.normalize(rows(5, 2), dim=1)
    torch.testing.assert_close(distance(z, rows(5, 2)), (a - b).square().sum(1).mean())


# -- Barlow Twins ----------------------------------------------------------------------------------------------


def test_identical_views_without_correlations_cost_nothing() -> None:
    """Columns of a Hadamard matrix have mean 0, variance 1, and no correlation."""
    h = torch.ones(1, 1)
    for _ in range(3):
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    z = h[:, 1:].double()
    torch.testing.assert_close(correlations(z, z), torch.eye(7).double(), rtol=0, atol=2e-5)
    assert redundancy(correlations(z, z), 1.0).item() == pytest.approx(0, abs=1e-8)
    assert redundancy(correlations(z, -z), 0.0).item() == pytest.approx(7 * 4, rel=1e-4)


def test_redundancy_is_the_loop_and_scales_do_not_matter() -> None:
    first, second = rows(12, 1).double(), rows(12, 2).double()
    c = torch.from_numpy(np.corrcoef(first.T.numpy(), second.T.numpy())[:6, 6:])
    torch.testing.assert_close(correlations(first, second), c, rtol=1e-4, atol=1e-5)
    wanted = sum((1 - c[i, j]) ** 2 if i == j else 0.3 * c[i, j] ** 2 for i in range(6) for j in range(6))
    torch.testing.assert_close(redundancy(c, 0.3), wanted)
    scaled = correlations(100 * first + 3, second * torch.linspace(50, 60, 6))
    torch.testing.assert_close(scaled, c, rtol=1e-4, atol=1e-5)


# -- SwAV ------------------------------------------------------------------------------------------------------


def test_assignments_are_distributions_and_even_over_the_prototypes() -> None:
    q = assigned(rows(40, 1, 5).double(), 0.5, 200)
    torch.testing.assert_close(q.sum(1), torch.ones(40).double())
    torch.testing.assert_close(q.sum(0), torch.full((5,), 8.0).double(), rtol=1e-4, atol=0)
    few = assigned(rows(40, 1, 5), 0.05, 3)
    torch.testing.assert_close(few.sum(1), torch.ones(40))


def test_assignments_are_sinkhorn_and_knopps_matrix() -> None:
    scores = rows(9, 1, 4).double().tanh()
    q = (scores / 0.05).exp().T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 4
        q = q / q.sum(0, keepdim=True) / 9
    torch.testing.assert_close(assigned(scores, 0.05, 3), 9 * q.T)


def test_assignments_of_large_scores_stay_finite() -> None:
    assert assigned(1e4 * rows(8, 1), 0.05, 3).isfinite().all()


def test_prototypes_stand_still_in_the_first_epoch() -> None:
    made = prepared("swav", prototypes=4)
    assert made.part is not None
    params = dict(made.part.named_parameters())
    for epoch, reached in ((0, False), (1, True)):
        z = rows(16, 1).requires_grad_()
        term = value(made, z, step=Step(epoch, 10))
        g = torch.autograd.grad(term, [z, *params.values()], allow_unused=True)
        assert g[0].abs().sum() > 0
        assert (g[1] is not None) == reached


# -- DINO ------------------------------------------------------------------------------------------------------


def test_the_centre_is_the_moving_mean_of_what_the_momentum_encoder_says() -> None:
    made, wanted = prepared("dino", centre_momentum=0.8), torch.zeros(6)
    for seed in range(4):
        teacher = rows(16, seed)
        value(made, rows(16, 9), teacher)
        wanted = 0.8 * wanted + 0.2 * teacher.mean(0)
        assert isinstance(made.part, Centre)
        torch.testing.assert_close(made.part.mean, wanted)


def test_dino_is_the_loop() -> None:
    made = prepared("dino")
    assert isinstance(made.part, Centre)
    made.part.mean = rows(1, 5)[0]
    student, teacher, centre = rows(8, 1), rows(8, 2), made.part.mean.clone()
    total = 0.0
    for i in range(8):
        p = ((teacher[(i + 4) % 8] - centre) / 0.04).softmax(0)
        total -= float((p * (student[i] / 0.1).log_softmax(0)).sum()) / 8
    assert value(made, student, teacher).item() == pytest.approx(total, rel=1e-5)


# -- similarities ----------------------------------------------------------------------------------------------


def test_networks_that_agree_teach_each_other_nothing_whatever_their_widths() -> None:
    z = rows(12, 1)
    wider = torch.cat([z, torch.zeros(12, 3)], dim=1)
    found = Similarity().loss(pairs(6), Output(z.requires_grad_()), Output(2 * wider), STEP)["similarity"]
    assert found.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(found, [z])[0].abs().max() < 1e-6


def test_similarities_are_cosines_of_first_with_second_views() -> None:
    z = rows(10, 1)
    found = similarities(z)
    for i in range(5):
        for j in range(5):
            assert found[i, j].item() == pytest.approx(F.cosine_similarity(z[i], z[5 + j], dim=0).item(), abs=1e-6)
