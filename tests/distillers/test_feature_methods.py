"""Methods of feature maps: what is zero, what does not matter, what learns, and what a user is told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.at import attention_loss
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.fitnet import Regressor
from gnnkd.distillers.kdsvd import GAP, aligned, turning_loss, vectors
from gnnkd.distillers.maps import one_size, paired
from gnnkd.distillers.nst import over_channels, over_pixels, selectivity_loss
from gnnkd.distillers.ofd import margins, partial_square
from gnnkd.distillers.pkt import neighbourhood_loss
from gnnkd.distillers.reviewkd import hierarchical_loss
from gnnkd.distillers.rkd import angle_loss, angles, distance_loss, distances
from gnnkd.distillers.sp import similarity_loss
from gnnkd.distillers.vid import negative_log_likelihood
from gnnkd.errors import UserError
from gnnkd.nn.images import family
from gnnkd.types import UNKNOWN, Batch, Output, Step

METHODS = ["fitnet", "at", "nst", "pkt", "kdsvd", "ofd", "rkd", "vid", "sp", "crd", "reviewkd"]
WITH_PART = ["fitnet", "ofd", "vid", "crd", "reviewkd"]
STEP = Step(3, 10)
SMALL = ((4, 12), (4, 12), (6, 6), (8, 3))
"""Channels and size of a student's maps, the stem's first."""
LARGE = ((5, 16), (7, 16), (9, 8), (12, 4), (14, 2))
ROWS = 12


def _output(shapes: tuple[tuple[int, int], ...], n: int, seed: int, **kind: torch.dtype) -> Output:
    """Maps that hang together as in a network: each is made of the one before, so a gradient can go all the way."""
    rng = torch.Generator().manual_seed(seed)
    weights = [torch.randn(k, n, size, size, generator=rng).transpose(0, 1).to(**kind) for k, size in shapes]
    raw: list[Tensor] = []
    for own in weights:
        below = (
            torch.zeros(()) if not raw else F.adaptive_avg_pool2d(F.relu(raw[-1]), own.shape[2:]).mean(1, keepdim=True)
        )
        raw.append((own + below).to(**kind).requires_grad_())
    maps = tuple(F.relu(r) for r in raw)
    pooled = maps[-1].mean((2, 3))
    return Output(
        pooled @ torch.randn(shapes[-1][0], 3, generator=rng).to(**kind), maps=maps, raw_maps=tuple(raw), pooled=pooled
    )


def _lesson(student: Output, teacher: Output) -> Lesson:
    y = torch.arange(ROWS) % 3
    y[-2:] = UNKNOWN
    rng = torch.Generator().manual_seed(9)
    norms = tuple((torch.rand(m.shape[1], generator=rng), torch.randn(m.shape[1], generator=rng)) for m in teacher.maps)
    return Lesson(student, teacher, norms, y, 0.9, 5e-4, 0)


def _batch(n: int) -> Batch:
    return Batch.of(torch.zeros(n, 1), torch.arange(n) % 3, None, torch.ones(n, dtype=torch.bool))


def _made(method: str, **options: float):  # type: ignore[no-untyped-def]
    """A prepared method, and the outputs of a student and a teacher on five images."""
    student, teacher = _output(SMALL, 5, 0), _output(LARGE, 5, 1)
    distiller = distillers.build(method, **options)
    torch.manual_seed(0)
    distiller.prepare(_lesson(student, teacher))
    return distiller, student, teacher


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _maps(rng: torch.Generator, k: int = 6, size: int = 4, n: int = 5) -> Tensor:
    return torch.randn(n, k, size, size, generator=rng, dtype=torch.float64)


# -- every method ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_reaches_the_student_and_the_methods_part_and_never_the_teacher(method: str) -> None:
    distiller, student, teacher = _made(method)
    terms = distiller.loss(_batch(5), student, teacher, STEP)
    assert "ce" in terms
    total = torch.stack([t for name, t in terms.items() if name != "ce"]).sum()
    own = [] if distiller.part is None else list(distiller.part.parameters())
    assert bool(own) is (method in WITH_PART)
    raw = [*student.raw_maps, *teacher.raw_maps]
    found = torch.autograd.grad(total, raw + own, allow_unused=True)
    of_student, of_teacher = found[: len(student.raw_maps)], found[len(student.raw_maps) : len(raw)]
    assert any(g is not None and g.abs().max() > 0 for g in of_student)
    assert all(g is None for g in of_teacher)
    assert all(g is not None and torch.isfinite(g).all() for g in found[len(raw) :])


@pytest.mark.parametrize("method", METHODS)
def test_two_images_are_a_batch(method: str) -> None:
    distiller, _, _ = _made(method)
    student = _output(SMALL, 2, 3)
    terms = distiller.loss(_batch(2), student, _output(LARGE, 2, 4), STEP)
    found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), student.raw_maps, allow_unused=True)
    assert all(torch.isfinite(t) for t in terms.values())
    assert all(g is None or torch.isfinite(g).all() for g in found)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_that_shows_nothing_yet_still_gets_a_gradient(method: str) -> None:
    """Dead features are alike, of length zero and without directions: each a place to divide by zero."""
    distiller, _, teacher = _made(method)
    maps = tuple(torch.zeros(5, k, size, size, requires_grad=True) for k, size in SMALL)
    pooled = torch.zeros(5, SMALL[-1][0], requires_grad=True)
    dead = Output(torch.zeros(5, 3, requires_grad=True), maps=maps, raw_maps=maps, pooled=pooled)
    terms = distiller.loss(_batch(5), dead, teacher, STEP)
    found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), [*maps, pooled], allow_unused=True)
    assert all(torch.isfinite(t) for t in terms.values())
    assert all(g is None or torch.isfinite(g).all() for g in found)
    assert all(g is None or g.abs().max() < 1e8 for g in found)


@pytest.mark.parametrize("method", METHODS)
def test_prepare_depends_on_the_seed_alone(method: str) -> None:
    states = [_made(method)[0].state() for _ in range(2)]
    assert bool(states[0]) is (method in WITH_PART)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(t, states[1][name]) for name, t in states[0].items())


@pytest.mark.parametrize("method", WITH_PART)
def test_a_state_read_back_gives_the_same_loss(method: str) -> None:
    (one, student, teacher), (other, _, _) = _made(method), _made(method)
    assert other.part is not None
    with torch.no_grad():
        for p in other.part.parameters():
            p.add_(1)
    other.load_state({name: t.clone() for name, t in one.state().items()})
    losses = []
    for distiller in (one, other):
        torch.manual_seed(4)
        losses.append(distiller.loss(_batch(5), student, teacher, STEP))
    assert all(torch.equal(t, losses[1][name]) for name, t in losses[0].items())


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_changes_a_loss_by_what_it_rounds_and_no_more(method: str) -> None:
    distiller, student, teacher = _made(method)
    short = [_output(shapes, 5, seed, dtype=torch.bfloat16) for shapes, seed in ((SMALL, 0), (LARGE, 1))]
    found = []
    for given in ((student, teacher), short):
        torch.manual_seed(4)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=given is short):
            found.append(distiller.loss(_batch(5), *given, STEP))
    assert found[1].keys() == found[0].keys()
    for name, term in found[1].items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, found[0][name], rtol=0.1, atol=1e-3)
    # Maps of 16 bits may also come without autocast.
    assert all(torch.isfinite(t) for t in distiller.loss(_batch(5), *short, STEP).values())


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_numbers_in_memory_does_not_matter(method: str) -> None:
    (one, student, teacher), (other, _, _) = _made(method), _made(method)

    def last(output: Output) -> Output:
        maps, raw = (
            [m.contiguous(memory_format=torch.channels_last) for m in of] for of in (output.maps, output.raw_maps)
        )
        return replace(output, maps=tuple(maps), raw_maps=tuple(raw))

    found = []
    for distiller, s, t in ((one, student, teacher), (other, last(student), last(teacher))):
        torch.manual_seed(4)
        found.append(distiller.loss(_batch(5), s, t, STEP))
    for name, term in found[0].items():
        torch.testing.assert_close(term, found[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "rkd"])
def test_weights_are_schedules_with_a_warm_up(method: str) -> None:
    def term(epoch: int, **options: object) -> float:
        distiller, student, teacher = _made(method, **options)  # type: ignore[arg-type]
        torch.manual_seed(4)
        return distiller.loss(_batch(5), student, teacher, Step(epoch, 100))[method].item()

    full = term(0, weight=2.0, warmup=0)
    assert term(99, weight=2.0, warmup=20) == pytest.approx(full, rel=1e-5)
    assert term(0, weight=2.0, warmup=20) == pytest.approx(full / 20, rel=1e-5)
    assert term(9, weight=2.0, warmup=20) == pytest.approx(full / 2, rel=1e-5)
    assert term(5, weight=((0.0, 0.0), (10.0, 4.0)), warmup=0) == pytest.approx(full, rel=1e-5)
    distiller, student, teacher = _made(method, weight=0.0)
    assert distiller.loss(_batch(5), student, teacher, STEP).keys() == {"ce"}


def test_published_weights_and_warm_ups() -> None:
    published = {"fitnet": 100, "at": 1000, "nst": 50, "pkt": 30000, "kdsvd": 1, "ofd": 1e-3, "vid": 1, "sp": 3000}
    published |= {"crd": 0.8, "reviewkd": 1}
    for method, weight in published.items():
        options = distillers.options(method)
        assert options["weight"].default == weight
        assert options["warmup"].default == (20 if method == "reviewkd" else 0)
    options = distillers.options("rkd")
    assert (options["distance_weight"].default, options["angle_weight"].default) == (25, 50)


# -- what a user is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["at", "nst", "ofd", "vid", "kdsvd"])
def test_networks_without_stages_are_named(method: str) -> None:
    distiller, student, teacher = _made(method)
    flat = replace(student, maps=student.maps[:1], raw_maps=student.raw_maps[:1])
    with pytest.raises(UserError, match=r"shows 0.*kd"):
        distiller.loss(_batch(5), flat, teacher, STEP)
    if method in WITH_PART:
        with pytest.raises(UserError, match=r"shows 0.*kd"):
            distiller.prepare(_lesson(flat, teacher))


def test_one_stage_does_not_turn() -> None:
    distiller, student, teacher = _made("kdsvd")
    with pytest.raises(UserError, match="2 or more stages"):
        distiller.loss(_batch(5), replace(student, maps=student.maps[-2:]), teacher, STEP)


@pytest.mark.parametrize("method", ["pkt", "rkd", "crd", "reviewkd"])
def test_a_network_that_hides_its_pooled_features_is_named(method: str) -> None:
    distiller, student, teacher = _made(method)
    with pytest.raises(UserError, match="pooled"):
        distiller.loss(_batch(5), replace(student, pooled=None), teacher, STEP)


def test_a_hint_beyond_the_last_stage_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.hint is 4; .* 0 to 3"):
        _made("fitnet", hint=4)


def test_margins_need_batch_norms() -> None:
    distiller, student, teacher = _made("ofd")
    lesson = _lesson(student, teacher)
    norms = (None, None, *lesson.norms[2:])  # the stem and the first stage, which this student has no partner for
    distiller.prepare(replace(lesson, norms=norms))
    with pytest.raises(UserError, match="stage 3 has none"):
        distiller.prepare(replace(lesson, norms=(*norms[:3], None, norms[4])))


def test_margins_need_an_activation() -> None:
    """A stage that ends with its batch norm has nothing that a margin cuts; one without a partner may."""
    distiller, student, teacher = _made("ofd")
    maps = teacher.maps
    shallow, deep = (replace(teacher, maps=(*maps[:i], teacher.raw_maps[i], *maps[i + 1 :])) for i in (1, 3))
    distiller.prepare(_lesson(student, shallow))
    with pytest.raises(UserError, match="stage 3 ends without one"):
        distiller.prepare(_lesson(student, deep))


def test_networks_with_linear_bottlenecks_teach_no_margins() -> None:
    for size in (32, 64):
        torch.manual_seed(0)
        network = family(size)["mobilenetv2"](3, 3).eval()
        with torch.no_grad():
            teacher = network(torch.randn(2, 3, size, size))
        norms = tuple(None if n is None else (n.weight.detach(), n.bias.detach()) for n in network.norms())
        with pytest.raises(UserError, match="ends without one; choose another teacher"):
            distillers.build("ofd").prepare(replace(_lesson(_output(SMALL, 2, 0), teacher), norms=norms))


# -- pairs -------------------------------------------------------------------------------------------------------


def test_stages_are_paired_from_the_deepest() -> None:
    a, b = [torch.zeros(1, 1, i, i) for i in (1, 2, 3)], [torch.zeros(1, 1, i, i) for i in (1, 2, 3, 4)]
    assert [(s.shape[2], t.shape[2]) for s, t in paired(a, b)] == [(1, 2), (2, 3), (3, 4)]
    assert [(s.shape[2], t.shape[2]) for s, t in paired(b, a)] == [(2, 1), (3, 2), (4, 3)]


def test_the_larger_map_is_pooled(rng: torch.Generator) -> None:
    large, small = _maps(rng, size=8), _maps(rng, size=4)
    s, t = one_size(large, small)
    torch.testing.assert_close(s, F.avg_pool2d(large, 2))
    assert torch.equal(t, small)
    assert one_size(_maps(rng, size=7), _maps(rng, size=3))[0].shape[2:] == (3, 3)


# -- attention, selectivity, neighbourhoods, similarities, relations -----------------------------------------------


def test_losses_of_relations_are_zero_at_the_teacher(rng: torch.Generator) -> None:
    f, p = _maps(rng), torch.randn(5, 7, generator=rng, dtype=torch.float64)
    later = _maps(rng)
    for loss in (
        attention_loss([(f, f)], 2),
        selectivity_loss([(f, f)]),
        neighbourhood_loss(p, p),
        similarity_loss(f, f),
        distance_loss(p, p),
        angle_loss(p, p),
        turning_loss([(f, f), (later, later)], 2),
        hierarchical_loss(f, f),
        partial_square(f, f, torch.full((6,), -0.5, dtype=torch.float64)),
    ):
        assert loss.item() == pytest.approx(0, abs=1e-12)


def test_which_channel_is_which_does_not_matter(rng: torch.Generator) -> None:
    s, t = _maps(rng), _maps(rng, k=3)
    mixed = s[:, torch.randperm(6, generator=rng)]
    torch.testing.assert_close(attention_loss([(s, t)], 2), attention_loss([(mixed, t)], 2))
    torch.testing.assert_close(selectivity_loss([(s, t)]), selectivity_loss([(mixed, t)]))
    torch.testing.assert_close(similarity_loss(s, t), similarity_loss(mixed, t))


def test_how_loud_an_image_is_does_not_matter_to_attention(rng: torch.Generator) -> None:
    s, t = _maps(rng), _maps(rng)
    loud = torch.rand(5, 1, 1, 1, generator=rng, dtype=torch.float64) + 0.5
    torch.testing.assert_close(attention_loss([(s * loud, t)], 2), attention_loss([(s, t)], 2))
    assert not torch.allclose(attention_loss([(s, t)], 1), attention_loss([(s, t)], 2))


def test_selectivity_over_pixels_is_selectivity_over_channels(rng: torch.Generator) -> None:
    s, t = (F.normalize(_maps(rng, k=k).flatten(2), dim=2) for k in (6, 3))
    torch.testing.assert_close(over_pixels(s, t), over_channels(s, t))
    slow = sum(
        sign * torch.einsum("bip,bjp->bij", a, b).square().mean() for sign, a, b in ((1, t, t), (1, s, s), (-2, s, t))
    )
    torch.testing.assert_close(over_channels(s, t), slow)
    # Twice the same channels are the same set of patterns.
    torch.testing.assert_close(over_pixels(s.repeat(1, 2, 1), t), over_channels(s, t))


def test_lengths_and_rotations_do_not_matter_to_neighbourhoods(rng: torch.Generator) -> None:
    s, t = (torch.randn(5, 7, generator=rng, dtype=torch.float64) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(7, 7, generator=rng, dtype=torch.float64)).Q
    lengths = torch.rand(5, 1, generator=rng, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        neighbourhood_loss(lengths * s @ turn, t), neighbourhood_loss(s, t), rtol=1e-5, atol=1e-9
    )
    assert neighbourhood_loss(s, t) > 0


def test_rotation_scale_and_place_do_not_matter_to_relations(rng: torch.Generator) -> None:
    s, t = (torch.randn(5, 7, generator=rng, dtype=torch.float64) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(7, 7, generator=rng, dtype=torch.float64)).Q
    for loss in (distance_loss, angle_loss):
        torch.testing.assert_close(loss(3 * s @ turn + 1, t), loss(s, t))
        assert loss(s, t) > 0


def test_relations_written_out(rng: torch.Generator) -> None:
    x = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    d = torch.cdist(x, x)
    torch.testing.assert_close(distances(x), d / d[d > 0].mean())
    found = angles(x)
    for i in range(4):
        for j in range(4):
            for k in range(4):
                there = i not in (j, k)
                cosine = F.cosine_similarity(x[j] - x[i], x[k] - x[i], dim=0) if there else torch.zeros(()).double()
                torch.testing.assert_close(found[i, j, k], cosine)


# -- singular vectors --------------------------------------------------------------------------------------------


def _slow_turning(pairs: list[tuple[Tensor, Tensor]], k: int) -> float:
    total, n = 0.0, len(pairs[0][0])
    for i in range(n):
        before = None
        for s, t in pairs:
            (_, _, v_s), (_, values, v_t) = (
                np.linalg.svd(f[i].reshape(-1, f.shape[3]).numpy(), full_matrices=False) for f in (s, t)
            )
            scale = values[:k] / np.linalg.norm(values[:k])
            rows_t = [v if v.sum() >= 0 else -v for v in v_t[:k]]
            rows_s = []
            for v in rows_t:
                best = max(v_s[: k + 3], key=lambda u: abs(float(u @ v)))
                rows_s.append(best * np.sign(best @ v))
            now = [np.array(rows) * scale[:, None] for rows in (rows_s, rows_t)]
            if before is not None:
                r = [np.exp(-((a[:, :, None] - b[:, None, :]) ** 2) / 8) for a, b in zip(now, before, strict=True)]
                total += ((r[0] - r[1]) ** 2).sum()
            before = now
    return total / n


@pytest.mark.parametrize("k", [1, 2, 4])
def test_turning_is_the_one_written_out(k: int, rng: torch.Generator) -> None:
    pairs = [(_maps(rng, size=size), _maps(rng, k=3, size=size)) for size in (8, 6, 4)]
    assert turning_loss(pairs, k).item() == pytest.approx(_slow_turning(pairs, k), rel=1e-9)


def test_maps_of_two_sizes_turn_too(rng: torch.Generator) -> None:
    pairs = [(_maps(rng, size=8), _maps(rng, size=16)), (_maps(rng, size=4), _maps(rng, size=2))]
    pooled = [one_size(*pair) for pair in pairs]
    torch.testing.assert_close(turning_loss(pairs, 1), turning_loss(pooled, 1))


def test_singular_vectors_have_the_gradient_of_torch_where_it_is_well_defined(rng: torch.Generator) -> None:
    x = _maps(rng).requires_grad_()
    target = torch.randn(5, 4, 2, generator=rng, dtype=torch.float64)
    v = vectors(x, 2)[1]
    slow = torch.linalg.svd(x.flatten(1, 2), full_matrices=False)[2].mT[:, :, :2]
    torch.testing.assert_close(aligned(slow, v), v)
    found, expected = (torch.autograd.grad((u * target).sum(), x)[0] for u in (v, aligned(slow, v.detach())))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "x",
    [torch.eye(4).expand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), 1e-20 * torch.ones(2, 3, 4, 4)],
    ids=["equal values", "zero", "rank one", "tiny"],
)
def test_singular_values_that_coincide_leave_the_gradient_finite(x: Tensor) -> None:
    student = x.clone().requires_grad_()
    teacher = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    loss = turning_loss([(student, teacher), (teacher.flip(0), teacher)], 3)
    found = torch.autograd.grad(loss, student)[0]
    assert torch.isfinite(found).all()
    assert found.norm() * student.detach().norm() < 10 / GAP


# -- connectors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wanted", "kernel"),
    [
        ((8, 8), (4, 4), (3, 3)),
        ((4, 4), (8, 8), (4, 4)),
        ((5, 5), (5, 5), (1, 1)),
        ((8, 7), (3, 5), (6, 3)),
        ((3, 3), (8, 8), (1, 1)),
        ((4, 8), (8, 4), (1, 1)),
    ],
)
def test_a_regressor_has_the_teachers_shape(
    size: tuple[int, int], wanted: tuple[int, int], kernel: tuple[int, int]
) -> None:
    regressor = Regressor((3, *size), (5, *wanted))
    assert regressor(torch.randn(2, 3, *size)).shape == (2, 5, *wanted)
    assert regressor.conv.kernel_size == kernel


def test_margins_are_the_mean_of_what_a_relu_cuts(rng: torch.Generator) -> None:
    scale, shift = torch.tensor([1.0, -0.5, 2.0, 0.3]), torch.tensor([0.0, 0.4, -1.0, -0.2])
    x = torch.randn(4, 400_000, generator=rng) * scale[:, None] + shift[:, None]
    drawn = torch.stack([row[row < 0].mean() for row in x])
    torch.testing.assert_close(margins(scale, shift), drawn, rtol=2e-2, atol=0)


def test_margins_where_nothing_is_negative_or_nothing_varies() -> None:
    rare = margins(torch.tensor([0.1, -0.1]), torch.tensor([1.0, 5.0]))
    torch.testing.assert_close(rare, torch.tensor([-0.3, -0.3]))
    constant = margins(torch.zeros(3), torch.tensor([-0.7, 0.0, 0.7]))
    torch.testing.assert_close(constant, torch.tensor([-0.7, 0.0, 0.0]))


def test_partial_square_is_the_published_three_cases(rng: torch.Generator) -> None:
    s, t = _maps(rng), _maps(rng)
    margin = -torch.rand(6, generator=rng, dtype=torch.float64)
    m = margin[:, None, None]
    low = (s - m) ** 2 * ((s > m) & (t <= m))
    middle = (s - t) ** 2 * ((s > t) & (t > m) & (t <= 0))
    high = (s - t) ** 2 * (t > 0)
    torch.testing.assert_close(partial_square(s, t, margin), (low + middle + high).mean(0).sum())


def test_what_the_relu_cuts_is_not_to_be_met_from_below() -> None:
    s = torch.full((1, 1, 1, 1), -5.0, requires_grad=True)
    loss = partial_square(s, torch.full((1, 1, 1, 1), -0.2), torch.tensor([-1.0]))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, s)[0].item() == 0


def test_a_later_stage_counts_twice_the_one_before() -> None:
    ofd, student, teacher = _made("ofd", weight=1.0)
    full = ofd.loss(_batch(5), student, teacher, STEP)["ofd"].item()
    parts = []
    assert isinstance(ofd.part, torch.nn.ModuleList)
    for i, connector in enumerate(ofd.part):
        found, wanted = (
            connector(student.raw_maps[1 + i]),
            F.adaptive_avg_pool2d(teacher.raw_maps[2 + i], SMALL[1 + i][1]),
        )
        parts.append(partial_square(found, wanted, connector.margin).item())
    assert full == pytest.approx(parts[0] / 4 + parts[1] / 2 + parts[2], rel=1e-5)


def test_the_best_variance_is_the_mean_squared_error(rng: torch.Generator) -> None:
    mean, value = _maps(rng), _maps(rng)
    error = (mean - value).square().mean((0, 2, 3))
    raw = (error - 1e-5).expm1().log().requires_grad_()
    found = torch.autograd.grad(negative_log_likelihood(mean, value, raw), raw)[0]
    torch.testing.assert_close(found, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)


def test_variances_start_where_they_are_told_and_learn() -> None:
    vid, _, _ = _made("vid", variance=3.0)
    assert vid.part is not None
    raw = {name: p for name, p in vid.part.named_parameters() if name.endswith("raw_variance")}
    assert len(raw) == 3
    for p in raw.values():
        torch.testing.assert_close(F.softplus(p) + 1e-5, torch.full_like(p, 3.0))


def test_levels_of_a_review_written_out(rng: torch.Generator) -> None:
    s, t = _maps(rng, size=8), _maps(rng, size=8)
    total = sum(
        weight * F.mse_loss(F.adaptive_avg_pool2d(s, n), F.adaptive_avg_pool2d(t, n))
        for weight, n in ((1, 8), (0.5, 4), (0.25, 2), (0.125, 1))
    )
    torch.testing.assert_close(hierarchical_loss(s, t), total / 1.875)
    s, t = _maps(rng, size=4), _maps(rng, size=4)
    total = F.mse_loss(s, t) + 0.5 * F.mse_loss(F.avg_pool2d(s, 2), F.avg_pool2d(t, 2))
    total = total + 0.25 * F.mse_loss(s.mean((2, 3)), t.mean((2, 3)))
    torch.testing.assert_close(hierarchical_loss(s, t), total / 1.75)
    s, t = _maps(rng, size=1), _maps(rng, size=1)
    torch.testing.assert_close(hierarchical_loss(s, t), F.mse_loss(s, t))


def test_a_review_sees_the_deeper_levels() -> None:
    """The first level's loss has a gradient in the last map of the student: that is the review."""
    review, student, teacher = _made("reviewkd")
    assert isinstance(review.part, torch.nn.ModuleList)
    assert len(review.part) == 4
    levels = [*student.maps[1:], student.pooled[:, :, None, None]]
    fused = None
    for fusion, level in reversed(list(zip(review.part, levels, strict=True))):
        found, fused = fusion(level, fused, level.shape[2:])
    assert torch.autograd.grad(found.sum(), student.raw_maps[-1])[0].abs().max() > 0
    plain, pre = (
        _made("reviewkd", preact=preact)[0].loss(_batch(5), student, teacher, STEP)["reviewkd"].item()
        for preact in (False, True)
    )
    assert not math.isclose(plain, pre)
