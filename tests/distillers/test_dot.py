"""DOT: the published rule step by step, SGD where delta is 0, and what it takes over from its base."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from gnnkd import distillers
from gnnkd.distillers.base import Distiller, Gradients, Lesson, plain_gradients
from gnnkd.distillers.dot import Dot
from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN, Batch, Output, Step

STEP = Step(30, 240)
NAMES = ("shared", "task_only", "teacher_only")


class Quadratic(Distiller):
    """`ce` reaches two parameters, `kd` two; one of each is shared."""

    images = True

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """Two terms, each of the shared column and of one of its own."""
        assert teacher is not None
        z, wanted = student.logits, teacher.logits
        hard = (z + student.raw["task_only"] - 1).square().mean()
        return {"ce": hard, "kd": (z * student.raw["teacher_only"] - wanted).square().mean()}


class Crooked(Quadratic):
    """A base with gradients of its own."""

    def gradients(
        self, terms: Mapping[str, Tensor], params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """Twice the plain ones."""
        return {name: 2 * g for name, g in plain_gradients(terms, params).items()}


class Columns(nn.Module):
    """Three columns of outputs [N, 1], one parameter each: the logits have the shared one."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.task_only, self.teacher_only = (
            nn.Parameter(torch.randn(4, 1, dtype=torch.float64)) for _ in NAMES
        )

    def forward(self, x: Tensor) -> Output:
        """`x` [N, 4] times every parameter."""
        return Output(x @ self.shared, raw={name: x @ getattr(self, name) for name in NAMES[1:]})


def _lesson(momentum: float = 0.9, weight_decay: float = 5e-4, n: int = 6) -> Lesson:
    torch.manual_seed(3)
    student = Output(torch.randn(n, 3), pooled=torch.randn(n, 8))
    teacher = Output(torch.randn(n, 3), pooled=torch.randn(n, 12))
    return Lesson(student, teacher, (), torch.arange(n) % 3, momentum, weight_decay, 0)


def _data(seed: int) -> tuple[Batch, Tensor, Output]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    batch = Batch.of(x, torch.arange(6) % 3, None, torch.ones(6, dtype=torch.bool))
    return batch, x, Output(torch.randn(6, 1, dtype=torch.float64, generator=rng))


def _prepared(base: Distiller, delta: float, momentum: float = 0.9, weight_decay: float = 5e-4) -> Dot:
    dot = Dot(base, delta=delta)
    dot.prepare(_lesson(momentum, weight_decay))
    return dot


def _step(dot: Dot, model: Columns, seed: int, lr: float = 0.05) -> None:
    """One step as a loop takes it: plain SGD on what `combine` returns."""
    batch, x, teacher = _data(seed)
    output = model(x)
    params = dict(model.named_parameters())
    gradients = dot.gradients(dot.loss(batch, output, teacher, STEP), params, batch, output, STEP)
    found = dot.combine(gradients, params, batch, output, STEP)
    assert found.keys() == params.keys()
    with torch.no_grad():
        for name, p in params.items():
            p.sub_(lr * found[name])


def _model() -> Columns:
    torch.manual_seed(0)
    return Columns()


# -- the rule ----------------------------------------------------------------------------------------------------


def _slow(steps: int, m: float, d: float, wd: float, lr: float) -> dict[str, Tensor]:
    """The published rule, parameter by parameter."""
    model = _model()
    task: dict[str, Tensor] = {}
    teacher: dict[str, Tensor] = {}
    for seed in range(steps):
        batch, x, taught = _data(seed)
        params = dict(model.named_parameters())
        terms = Quadratic().loss(batch, model(x), taught, STEP)
        hard = torch.autograd.grad(terms["ce"], list(params.values()), retain_graph=True, allow_unused=True)
        soft = torch.autograd.grad(terms["kd"], list(params.values()), allow_unused=True)
        with torch.no_grad():
            for (name, w), g_c, g_k in zip(params.items(), hard, soft, strict=True):
                move = torch.zeros_like(w)
                if g_c is not None:
                    force = g_c + wd * w
                    momentum = m if g_k is None else m - d
                    task[name] = momentum * task[name] + force if name in task else force
                    move += task[name]
                if g_k is not None:
                    momentum = m if g_c is None else m + d
                    decay = wd * w if g_c is None and name in teacher else 0
                    teacher[name] = momentum * teacher[name] + g_k + decay if name in teacher else g_k
                    move += teacher[name]
                w -= lr * move
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("delta", [0.0, 0.075])
def test_steps_are_the_published_rules(delta: float, weight_decay: float) -> None:
    model, dot = _model(), _prepared(Quadratic(), delta, weight_decay=weight_decay)
    for seed in range(7):
        _step(dot, model, seed)
    expected = _slow(7, 0.9, delta, weight_decay, 0.05)
    torch.testing.assert_close(dict(model.named_parameters()), expected, rtol=1e-10, atol=1e-12)


class Frugal(Quadratic):
    """A teacher's term of the shared column alone: the task reaches every parameter that is trained."""

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """As `Quadratic`, the third column in the task's term."""
        assert teacher is not None
        z = student.logits
        hard = (z * student.raw["teacher_only"] + student.raw["task_only"] - 1).square().mean()
        return {"ce": hard, "kd": (z - teacher.logits).square().mean()}


@pytest.mark.parametrize(
    ("base", "weight_decay"), [(Quadratic(), 0.0), (Frugal(), 0.0), (Frugal(), 5e-2)], ids=["", "task", "task, decayed"]
)
def test_without_delta_it_is_sgd_on_the_sum(base: Distiller, weight_decay: float) -> None:
    """From the first step on where the task reaches a parameter, elsewhere without decay; up to the order of sums."""
    model, dot = _model(), _prepared(base, 0.0, weight_decay=weight_decay)
    twin = _model()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=weight_decay)
    for seed in range(8):
        _step(dot, model, seed)
        batch, x, teacher = _data(seed)
        optimizer.zero_grad()
        sum(base.loss(batch, twin(x), teacher, STEP).values(), start=torch.zeros(())).backward()
        optimizer.step()
        torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=1e-9, atol=1e-12)


def test_what_only_the_teacher_reaches_is_not_decayed_in_its_first_step() -> None:
    decayed, plain = (_prepared(Quadratic(), 0.075, weight_decay=wd) for wd in (0.1, 0.0))
    models = [_model(), _model()]
    for dot, model in zip((decayed, plain), models, strict=True):
        _step(dot, model, 0)
    assert torch.equal(models[0].teacher_only, models[1].teacher_only)
    assert not torch.equal(models[0].task_only, models[1].task_only)
    assert not torch.equal(models[0].shared, models[1].shared)
    models[1].load_state_dict(models[0].state_dict())
    for dot, model in zip((decayed, plain), models, strict=True):
        _step(dot, model, 1)
    assert not torch.equal(models[0].teacher_only, models[1].teacher_only)


def test_gradients_have_the_names_of_their_cause() -> None:
    batch, x, teacher = _data(0)
    model, dot = _model(), _prepared(Quadratic(), 0.075)
    output, params = model(x), dict(model.named_parameters())
    terms = dot.loss(batch, output, teacher, STEP)
    found = dot.gradients(terms, params, batch, output, STEP)
    assert set(found) == {"task/shared", "task/task_only", "teacher/shared", "teacher/teacher_only"}
    both = plain_gradients(Quadratic().loss(batch, model(x), teacher, STEP), params)
    torch.testing.assert_close(found["task/shared"] + found["teacher/shared"], both["shared"])


def test_what_is_returned_shares_no_memory_with_what_is_kept() -> None:
    model, dot = _model(), _prepared(Quadratic(), 0.075)
    batch, x, teacher = _data(0)
    output, params = model(x), dict(model.named_parameters())
    gradients = dot.gradients(dot.loss(batch, output, teacher, STEP), params, batch, output, STEP)
    found = dot.combine(gradients, params, batch, output, STEP)
    before = {name: v.clone() for name, v in dot.state().items()}
    for t in (*found.values(), *gradients.values()):
        t.zero_()
    assert all(torch.equal(v, before[name]) for name, v in dot.state().items())


# -- going on ----------------------------------------------------------------------------------------------------


def test_a_continued_run_takes_the_same_steps_bit_for_bit() -> None:
    whole, dot = _model(), _prepared(Quadratic(), 0.075)
    for seed in range(3):
        _step(dot, whole, seed)
    again, loaded = _model(), _prepared(Quadratic(), 0.075)
    again.load_state_dict(whole.state_dict())
    state = {name: t.clone() for name, t in dot.state().items()}
    loaded.load_state(state)
    for seed in range(3, 6):
        _step(dot, whole, seed)
        _step(loaded, again, seed)
    for name, p in whole.named_parameters():
        assert torch.equal(p, dict(again.named_parameters())[name])
    assert loaded.state().keys() == dot.state().keys()
    assert not torch.equal(dot.state()["velocity.task/shared"], state["velocity.task/shared"]), "a state is a copy"


def test_the_state_has_the_bases_too() -> None:
    dot = distillers.build("dot", base="fitnet")
    torch.manual_seed(0)
    maps = [tuple(torch.randn(6, k, s, s) for k, s in ((4, 8), (4, 8), (8, 4), (16, 2))) for _ in range(2)]
    outputs = [Output(torch.randn(6, 3), maps=m, raw_maps=m, pooled=m[-1].mean((2, 3))) for m in maps]
    dot.prepare(Lesson(outputs[0], outputs[1], (None,) * 4, torch.full((9,), UNKNOWN), 0.9, 0.0, 0))
    assert isinstance(dot, Dot)
    assert dot.part is dot.base.part is not None
    state = {name: t.clone() for name, t in dot.state().items()}
    assert {name.split(".", 1)[0] for name in state} == {"base"}
    with torch.no_grad():
        for p in dot.part.parameters():
            p.zero_()
    dot.load_state(state)
    assert all(torch.equal(t, state[name]) for name, t in dot.state().items())


# -- the base ----------------------------------------------------------------------------------------------------


def _bases() -> list[str]:
    return [name for name, kind in distillers.image_methods().items() if not kind.wraps]


@pytest.mark.parametrize("base", _bases())
def test_it_is_what_its_base_is(base: str) -> None:
    plain, dot = distillers.build(base), distillers.build("dot", base=base)
    assert dot.needs_teacher is plain.needs_teacher
    assert dot.reads_maps is plain.reads_maps
    assert dot.own_momentum
    assert distillers.build("dot", base=base, delta=0.09).missing() is None


def test_options_reach_the_base() -> None:
    dot = distillers.build("dot", base="gkd", delta=0.09, k=0.5, temperature=2.0)
    assert isinstance(dot, Dot)
    assert (dot.delta, dot.base.temperature, dot.base.k) == (0.09, 2.0, 0.5)  # type: ignore[attr-defined]


def test_without_a_teacher_it_is_sgd() -> None:
    """Supervised: no parameter has two gradients, so all have momentum m, whatever delta is."""
    torch.manual_seed(0)
    p, q = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    dot, optimizer = _prepared(distillers.build("supervised"), 0.075), torch.optim.SGD([q], 0.1, 0.9, weight_decay=5e-4)
    for seed in range(5):
        batch, x, _ = _data(seed)
        for w in (p, q):
            output = Output(x.float() @ w)
            terms = dot.loss(batch, output, None, STEP)
            if w is p:
                gradients = dot.gradients(terms, {"p": p}, batch, output, STEP)
                found = dot.combine(gradients, {"p": p}, batch, output, STEP)
                with torch.no_grad():
                    p.sub_(0.1 * found["p"])
            else:
                optimizer.zero_grad()
                terms["ce"].backward()
                optimizer.step()
        torch.testing.assert_close(p, q, rtol=1e-6, atol=0)


def test_a_base_with_gradients_of_its_own_is_refused() -> None:
    for base in (Crooked(), Dot(Quadratic())):
        with pytest.raises(ValueError, match=rf"method\.base {type(base).__name__} has gradients of its own"):
            Dot(base)


def test_a_base_of_graphs_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.base Glnn teaches no images"):
        distillers.build("dot", base="glnn")


@pytest.mark.parametrize(("delta", "momentum"), [(0.2, 0.9), (0.1, 0.9), (0.075, 0.0), (0.6, 0.5), (0.4, 0.3)])
def test_a_delta_that_the_momentum_does_not_allow_is_refused(delta: float, momentum: float) -> None:
    with pytest.raises(UserError, match=rf"method\.delta is {delta}; with momentum {momentum}"):
        _prepared(Quadratic(), delta, momentum=momentum)
