"""Laws of the methods that read logits: identities, invariances, gradients, and numbers at the edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers import options
from gnnkd.distillers.gkd import gate, weighed
from gnnkd.distillers.losses import correlation, decoupled, mean_of_labelled, soft_kl, standardised
from gnnkd.distillers.sp import Sp
from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN, Batch, Output, Step

N, C = 12, 5
LATE = Step(239, 240)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd": ("kd", {}),
    "dkd": ("dkd", {}),
    "gkd": ("gkd", {}),
    "gkd of dkd": ("gkd", {"loss": "dkd"}),
    "edkd": ("edkd", {}),
    "edkd code": ("edkd", {"variant": "code"}),
    "dist": ("dist", {}),
    "logitstd of kd": ("logitstd", {"base": "kd"}),
    "logitstd of dkd": ("logitstd", {"base": "dkd"}),
    "logitstd of gkd": ("logitstd", {"base": "gkd"}),
}
KL = [name for name in METHODS if name != "dist"]


def _logits(seed: int, size: float = 3.0, n: int = N) -> Tensor:
    return size * torch.randn(n, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _batch(y: Tensor | None = None, labelled: Tensor | None = None) -> Batch:
    y = torch.arange(N) % C if y is None else y
    return Batch.of(
        torch.zeros(len(y), 1), y, None, torch.ones(len(y), dtype=torch.bool) if labelled is None else labelled
    )


def _terms(method: str, student: Tensor, teacher: Tensor, batch: Batch | None = None, **more: Any) -> dict[str, Tensor]:
    name, options = METHODS[method]
    distiller = distillers.build(name, **(options | more))
    return distiller.loss(batch or _batch(), Output(student), Output(teacher), LATE)


def _taught(method: str, student: Tensor, teacher: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """The sum of the teacher's terms, and its gradient by the student's logits."""
    z = student.clone().requires_grad_()
    terms = _terms(method, z, teacher, **more)
    total = torch.stack([term for name, term in terms.items() if name != "ce"]).sum()
    return total.detach(), torch.autograd.grad(total, z)[0]


# -- all of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(method: str) -> None:
    value, gradient = _taught(method, _logits(0), _logits(0))
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)
    assert _taught(method, _logits(0), _logits(1))[0] > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_of_a_row_is_not_seen(method: str) -> None:
    shift = torch.linspace(-5, 5, N, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        _taught(method, _logits(0) + shift, _logits(1) - shift), _taught(method, _logits(0), _logits(1))
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_is_that_of_the_value_but_for_gkd(method: str) -> None:
    z = _logits(0).requires_grad_()

    def value(logits: Tensor) -> Tensor:
        return torch.stack([t for name, t in _terms(method, logits, _logits(1)).items() if name != "ce"]).sum()

    assert torch.autograd.gradcheck(value, (z,), raise_exception=False, fast_mode=True) is ("gkd" not in method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "case", ["sure teacher", "sure student", "both sure", "sure and wrong", "flat", "flat student"]
)
def test_extreme_logits_have_finite_losses_and_gradients(method: str, case: str, dtype: torch.dtype) -> None:
    y = torch.arange(N) % C
    sure, flat = 1e4 * torch.eye(C)[y], torch.zeros(N, C)
    pairs = {
        "sure teacher": (_logits(0).float(), sure),
        "sure student": (sure, _logits(0).float()),
        "both sure": (sure, sure),
        "sure and wrong": (sure, sure.flip(1)),
        "flat": (flat, flat),
        "flat student": (flat, _logits(0).float()),
    }
    student, teacher = (logits.to(dtype) for logits in pairs[case])
    student = student.clone().requires_grad_()
    for temperature in (1.0, 4.0):
        terms = _terms(method, student, teacher, temperature=temperature)
        for name, term in terms.items():
            assert torch.isfinite(term), name
            assert term.dtype == torch.float32
            (gradient,) = torch.autograd.grad(term, student, retain_graph=True)
            assert torch.isfinite(gradient).all(), name


@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_inside_autocast_lose_no_more_than_their_rounding(method: str) -> None:
    student, teacher = _logits(0).bfloat16(), _logits(1).bfloat16()
    expected = _terms(method, student.float(), teacher.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(_terms(method, student, teacher), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", [name for name in METHODS if name.split()[0] in ("dkd", "edkd")])
def test_rows_without_a_label_are_left_out_where_the_target_is_read(method: str) -> None:
    labelled = torch.arange(N) < 7
    some = _terms(method, _logits(0), _logits(1), _batch(labelled=labelled))
    few = _terms(method, _logits(0)[:7], _logits(1)[:7], _batch(y=torch.arange(7) % C))
    torch.testing.assert_close(some, few)
    none = _terms(method, _logits(0), _logits(1), _batch(labelled=torch.zeros(N, dtype=torch.bool)))
    assert all(term == 0 for name, term in none.items() if name != "ce")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kd", {"ce_weight": 0.0, "kd_weight": 0.0}),
        ("dkd", {"ce_weight": 0.0, "alpha": 0.0, "beta": 0.0}),
        ("gkd", {"ce_weight": 0.0, "kd_weight": 0.0}),
        ("edkd", {"ce_weight": 0.0, "kd_weight": 0.0}),
        ("dist", {"ce_weight": 0.0, "beta": 0.0, "gamma": 0.0}),
        ("logitstd", {"base": "kd", "ce_weight": 0.0, "kd_weight": 0.0}),
    ],
)
def test_nothing_to_learn_is_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="one of them must be above 0"):
        distillers.build(method, **options)


# -- KD ----------------------------------------------------------------------------------------------------------


def test_the_control_has_both_weights_one_and_a_warm_up_of_twenty_epochs() -> None:
    control = distillers.build("kd", recipe="kd_ce1_kd1_warmup20")
    plain = distillers.build("kd", ce_weight=1.0, kd_weight=1.0)
    for epoch, share in ((0, 0.05), (9, 0.5), (19, 1.0), (239, 1.0)):
        batch, outputs = _batch(), (Output(_logits(0)), Output(_logits(1)))
        terms, full = (d.loss(batch, *outputs, Step(epoch, 240)) for d in (control, plain))
        torch.testing.assert_close(terms, {"ce": full["ce"], "kd": share * full["kd"]})


def test_alpha_says_what_no_weight_says() -> None:
    by_alpha = _terms("kd", _logits(0), _logits(1), alpha=0.25)
    torch.testing.assert_close(by_alpha, _terms("kd", _logits(0), _logits(1), ce_weight=0.75, kd_weight=0.25))
    torch.testing.assert_close(by_alpha, _terms("kd", _logits(0), _logits(1), ce_weight=0.75, alpha=0.25))
    torch.testing.assert_close(
        _terms("kd", _logits(0), _logits(1)), _terms("kd", _logits(0), _logits(1), alpha=0.9, recipe="mixed")
    )


@pytest.mark.parametrize("options", [{"recipe": "kd_ce1_kd1_warmup20"}, {"ce_weight": 1.0, "kd_weight": 2.0}])
def test_alpha_beside_all_weights_contradicts_them(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"method\.alpha is 0\.5; it must be left out"):
        distillers.build("kd", alpha=0.5, **options)


# -- DKD, EDKD ---------------------------------------------------------------------------------------------------


def test_dkd_is_kd_where_its_weights_are_kds() -> None:
    """Row by row: alpha 1 and beta 1 - p, p being the same for all rows of a teacher that is a permutation."""
    teacher = torch.stack([_logits(1)[0].roll(i % C) for i in range(N)])
    y = torch.arange(N) % C
    p = float((teacher / 4).softmax(1)[0, 0])
    dkd = _terms("dkd", _logits(0), teacher, _batch(y), alpha=1.0, beta=1 - p)
    torch.testing.assert_close(dkd["tckd"] + dkd["nckd"], soft_kl(_logits(0), teacher, 4.0))


def test_a_part_of_weight_zero_is_left_out() -> None:
    assert _terms("dkd", _logits(0), _logits(1), alpha=0.0).keys() == {"ce", "nckd"}
    assert _terms("dkd", _logits(0), _logits(1), beta=0.0).keys() == {"ce", "tckd"}
    assert _terms("dist", _logits(0), _logits(1), gamma=0.0, ce_weight=0.0).keys() == {"inter"}


def test_the_others_do_not_see_the_targets_logit() -> None:
    y, moved = torch.arange(N) % C, _logits(0)
    moved[torch.arange(N), y] += 2
    torch.testing.assert_close(decoupled(moved, _logits(1), y).others, decoupled(_logits(0), _logits(1), y).others)


def test_both_variants_of_edkd_agree_where_all_rows_are_alike_and_sure() -> None:
    """One p for all rows, above a half: then the mean of products is the product of means."""
    teacher = 8 * torch.eye(C, dtype=torch.float64)[torch.arange(N) % C]
    paper, code = (_terms(method, _logits(0), teacher, temperature=2.0) for method in ("edkd", "edkd code"))
    torch.testing.assert_close(paper, code)
    paper, code = (_terms(method, _logits(0), _logits(1)) for method in ("edkd", "edkd code"))
    torch.testing.assert_close(paper["tckd"], code["tckd"])
    assert not torch.isclose(paper["nckd"], code["nckd"], rtol=0.05)


def test_edkd_lies_between_dkd_of_its_least_and_of_its_largest_weight() -> None:
    found = _terms("edkd", _logits(0), _logits(1), gamma=8.0)["nckd"]
    others = _terms("dkd", _logits(0), _logits(1), beta=8.0)["nckd"]
    assert others * torch.exp(torch.tensor(-1.0)) < found < others


# -- GKD ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gated", "plain"), [("gkd", "kd"), ("gkd of dkd", "dkd")])
def test_gkd_has_the_value_of_its_loss_and_weighs_the_gradient_of_all_but_the_target(gated: str, plain: str) -> None:
    more = {"ce_weight": 1.0, "kd_weight": 1.0} if plain == "kd" else {}
    value, gradient = _taught(gated, _logits(0), _logits(1), k=5.0, scale=3.0)
    expected, full = _taught(plain, _logits(0), _logits(1), **more)
    assert value == expected
    confidence = (_logits(1) / 4).softmax(1).max(1).values
    factor = 3 * torch.sigmoid(5 * (confidence - confidence.mean()))
    assert factor.min() < 1.4 < 1.6 < factor.max(), "the rows differ"
    target = torch.nn.functional.one_hot(torch.arange(N) % C, C).bool()
    torch.testing.assert_close(gradient[target], full[target])
    torch.testing.assert_close(gradient[~target], (full * factor[:, None])[~target])
    assert gradient.sum(1).abs().max() > 1e-4, "a row's gradient no longer sums to zero"
    assert full.sum(1).abs().max() < 1e-9


def test_without_steepness_gkd_is_its_loss() -> None:
    """`k = 0` weighs every row by `scale / 2`, which is 1."""
    torch.testing.assert_close(
        _taught("gkd of dkd", _logits(0), _logits(1), k=0.0), _taught("dkd", _logits(0), _logits(1))
    )


def test_without_scale_the_targets_gradient_is_left_alone() -> None:
    _, gradient = _taught("gkd", _logits(0), _logits(1), scale=0.0)
    target = torch.nn.functional.one_hot(torch.arange(N) % C, C).bool()
    assert (gradient[~target] == 0).all()
    assert (gradient[target] != 0).all()


def test_a_row_without_a_label_has_no_target_to_spare() -> None:
    y = torch.arange(N) % C
    y[3] = UNKNOWN
    factors = gate(_logits(1), y, 4.0, 0.6, 2.0)
    assert (factors[3] == factors[3, 0]).all()
    assert (factors[4] == 1).sum() == 1


def test_weighed_logits_are_the_same_and_their_gradient_is_not() -> None:
    z, factors = _logits(0).requires_grad_(), _logits(1)
    found = weighed(z, factors)
    assert torch.equal(found, z)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), z)[0], 2 * z.detach() * factors)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_weights_of_dkd_without_dkd_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{name} is 2\.0; it must be left out unless method\.loss is dkd"):
        distillers.build("gkd", **{name: 2.0})


# -- DIST --------------------------------------------------------------------------------------------------------


def test_correlation_is_numpys_and_sees_no_affine_change_of_a_row() -> None:
    x, y = _logits(0), _logits(1)
    rows = [torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(correlation(x, y), torch.stack(rows), rtol=1e-6, atol=1e-8)
    scale, shift = torch.rand(N, 1, dtype=torch.float64) + 0.5, torch.randn(N, 1, dtype=torch.float64)
    torch.testing.assert_close(correlation(scale * x + shift, y), correlation(x, y), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(correlation(-x, y), -correlation(x, y))
    assert (correlation(torch.ones_like(x), y) == 0).all()


def test_dist_is_of_rows_and_of_columns() -> None:
    s, t = _logits(0), _logits(1)
    terms = _terms("dist", s, t, beta=1.0, gamma=3.0, temperature=2.0)
    p, q = (s / 2).softmax(1), (t / 2).softmax(1)
    torch.testing.assert_close(terms["inter"], 4 * (1 - correlation(p, q).mean()))
    torch.testing.assert_close(terms["intra"], 3 * 4 * (1 - correlation(p.t(), q.t()).mean()))


def test_dist_of_one_row_is_finite() -> None:
    s = _logits(0, n=1).requires_grad_()
    terms = _terms("dist", s, _logits(1, n=1), _batch(torch.tensor([2])))
    (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), s)
    assert torch.isfinite(gradient).all()


# -- logit standardisation ---------------------------------------------------------------------------------------


def test_standardised_rows_have_mean_zero_and_deviation_one() -> None:
    z = standardised(_logits(0))
    torch.testing.assert_close(z.mean(1), torch.zeros(N, dtype=torch.float64))
    torch.testing.assert_close(z.std(1), torch.ones(N, dtype=torch.float64))
    assert (standardised(torch.full((2, C), 7.0)) == 0).all()


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("logitstd")])
def test_no_affine_change_of_a_row_is_seen_but_by_the_cross_entropy(method: str) -> None:
    scale = torch.linspace(0.1, 9, N, dtype=torch.float64)[:, None]
    shift = torch.linspace(-5, 5, N, dtype=torch.float64)[:, None]
    plain = _terms(method, _logits(0), _logits(1))
    moved = _terms(method, scale * _logits(0) + shift, _logits(1) / scale - shift)
    assert not torch.isclose(moved.pop("ce"), plain.pop("ce"), rtol=1e-2)
    torch.testing.assert_close(moved, plain)


def test_standardised_kd_comes_out_as_published() -> None:
    """`0.1 CE + 9 T^2 KL`, T 2, of z-scores with C - 1 degrees of freedom."""
    s, t = _logits(0), _logits(1)
    z_s, z_t = ((x - x.mean(1, keepdim=True)) / (1e-7 + x.std(1, keepdim=True)) for x in (s, t))
    p, q = (z_t / 2).softmax(1), (z_s / 2).softmax(1)
    expected = {
        "ce": 0.1 * torch.nn.functional.cross_entropy(s, torch.arange(N) % C),
        "kd": 9 * 4 * (p * (p.log() - q.log())).sum(1).mean(),
    }
    torch.testing.assert_close(_terms("logitstd of kd", s, t), expected, rtol=1e-6, atol=0)


def test_standardised_dkd_multiplies_both_of_its_weights() -> None:
    z_s, z_t = standardised(_logits(0)), standardised(_logits(1))
    found = _terms("logitstd of dkd", _logits(0), _logits(1), beta=6.0, kd_weight=3.0, temperature=1.5)
    plain = _terms("dkd", z_s, z_t, beta=6.0, temperature=1.5)
    torch.testing.assert_close({n: found[n] for n in ("tckd", "nckd")}, {n: 3 * plain[n] for n in ("tckd", "nckd")})


def test_a_base_that_reads_maps_has_no_logits_to_standardise() -> None:
    with pytest.raises(ValueError, match=r"method\.base Sp reads more than logits"):
        distillers.methods()["logitstd"](Sp())
    with pytest.raises(UserError, match=r"method\.base Supervised"):
        distillers.build("logitstd", base="supervised")


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.5), ("alpha", 0.9), ("recipe", "kd_ce1_kd1_warmup20")])
def test_standardised_kd_has_no_other_say_in_its_weights(name: str, value: Any) -> None:
    """Not even the default, if the user says it: it would not hold."""
    with pytest.raises(UserError, match=rf"method\.{name} is {value}; it must be left out with logitstd"):
        distillers.build("logitstd", base="kd", **{name: value})
    distillers.build("logitstd", base="kd", alpha=None, recipe="mixed")


@pytest.mark.parametrize("base", ["kd", "dkd", "gkd", "edkd", "dist"])
def test_what_standardisation_sets_is_not_the_bases_to_set(base: str) -> None:
    kind, wrapper = distillers.methods()[base], distillers.methods()["logitstd"]
    wrapper(kind())
    named = {name: value for name, value in {"kd_weight": 3.0, "temperature": 3.0}.items() if name in options(base)}
    for name, value in named.items():
        with pytest.raises(ValueError, match=rf"method\.base {kind.__name__} has a {name} of its own"):
            wrapper(kind(**{name: value}))
    # The base of a key gets none of these: they are the wrapper's options of the same names.
    distillers.build("logitstd", base=base, kd_weight=3.0, temperature=3.0)


def test_the_cross_entropy_of_standardised_kd_has_the_weight_that_it_is_given() -> None:
    plain, weighed = (_terms("logitstd of kd", _logits(0), _logits(1), **more) for more in ({}, {"ce_weight": 1.0}))
    torch.testing.assert_close(weighed, {"ce": 10 * plain["ce"], "kd": plain["kd"]})


def test_options_of_the_same_name_that_say_something_else_stay() -> None:
    """DKD's alpha is the weight of one of its parts."""
    plain, double = (_terms("logitstd of dkd", _logits(0), _logits(1), alpha=a) for a in (1.0, 2.0))
    torch.testing.assert_close(double, plain | {"tckd": 2 * plain["tckd"]})


# -- means -------------------------------------------------------------------------------------------------------


def test_the_mean_of_labelled_rows_reads_no_other_row() -> None:
    values = torch.tensor([1.0, float("nan"), 5.0])
    assert mean_of_labelled(values, torch.tensor([0, UNKNOWN, 1])) == 3
    assert mean_of_labelled(values, torch.full((3,), UNKNOWN)) == 0
