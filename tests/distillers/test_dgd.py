"""DGD as a wrapper around a base method."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from gnnkd import distillers, nn
from gnnkd.distillers.base import plain_gradients
from gnnkd.distillers.dgd import Dgd, fusion
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import Batch, Output, Step

N, D, C = 60, 12, 4
STEP = Step(0, 10)
CONTROLS = ["none", "untrained", "shuffled", "uniform", "flat"]


def problem(*, sparse: bool = False) -> tuple[Batch, Output]:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.4)
    y = torch.randint(C, (N,), generator=rng)
    graph = Graph.from_edge_index(torch.randint(N, (2, 200), generator=rng), N)
    batch = Batch.of(CSR.from_dense(x) if sparse else x, y, graph, torch.rand(N, generator=rng) < 0.5)
    return batch, Output(torch.randn(N, C, generator=rng))


def bank(m: int = N, layers: int = 3) -> Bank:
    names = tuple(f"layers.{i}.lin.weight" for i in range(layers))
    made = Bank(Layers(names, (*[8] * (layers - 1), C), (1,) * layers, m, N), GeneratorSettings().resolved())
    for epoch in range(3):
        made.offer(0.5, epoch, made.untrained(seed=epoch))
    return made


def student(model: str = "mlp", **options: Any) -> nn.Network:
    torch.manual_seed(0)
    return nn.MODELS[model](D, C, **{"layers": 2, "width": 6, "dropout": 0.0, **options})


def gradients(method: distillers.Distiller, batch: Batch, teacher: Output, model: nn.Network, step: Step = STEP) -> Any:
    params = dict(model.named_parameters())
    output = model(batch.x, batch.graph)
    found = method.gradients(method.loss(batch, output, teacher, step), params, batch, output, step)
    return method.combine(found, params, batch, output, step)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"k": 0}])
@pytest.mark.parametrize("sparse", [False, True])
def test_without_weight_or_generators_it_is_the_base_bit_for_bit(options: dict[str, Any], sparse: bool) -> None:
    batch, teacher = problem(sparse=sparse)
    base = gradients(Glnn(), batch, teacher, student())
    same = gradients(Dgd(Glnn(), None, **options), batch, teacher, student())
    assert base.keys() == same.keys()
    assert all(torch.equal(base[k], same[k]) for k in base)


def test_the_second_order_path_is_skipped_with_beta_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("curvature was computed")

    monkeypatch.setattr(fusion, "curvature", never)
    batch, teacher = problem()
    gradients(Dgd(Glnn(), bank(), beta=0.0), batch, teacher, student())
    gradients(Dgd(Glnn(), bank(), every=3), batch, teacher, student(), Step(1, 10))
    with pytest.raises(AssertionError, match="curvature"):
        gradients(Dgd(Glnn(), bank(), every=3), batch, teacher, student(), Step(3, 10))


@pytest.mark.parametrize("preset", ["tuned", "paper"])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_step_is_the_definition_written_out(preset: str, sparse: bool) -> None:
    batch, teacher = problem(sparse=sparse)
    model, stored = student(), bank()
    found = gradients(Dgd(Glnn(), stored, preset=preset, beta=0.5, limit=0.0, k=2), batch, teacher, model)
    params = dict(model.named_parameters())
    output = model(batch.x, batch.graph)
    grads = plain_gradients(Glnn().loss(batch, output, teacher, STEP), params, create_graph=True)
    names = ["layers.0.weight", "layers.1.weight"]
    total = sum(grads[n].sum() for n in names)
    curved = torch.autograd.grad(total, [params[n] for n in names])
    mu = stored.averaged(2)
    for name, c, dealt in zip(names, curved, ([0, 1], [2]), strict=True):
        g = grads[name].detach().t()
        h = output.hidden[name]
        h = h.dense() if isinstance(h, CSR) else h.detach()
        s = h / h.norm(dim=0).clamp(min=1e-12)
        s = s - s.mean(dim=1, keepdim=True)  # no channel here is dead
        s = (s / s.norm(dim=0)).t()
        guesses = [fusion.resized(s @ mu[j].weight + mu[j].bias, g.shape[1]) for j in dealt]
        if preset == "tuned":
            guesses = [q / q.square().mean().sqrt() for q in guesses]
        keys = g / g.square().mean().sqrt()
        mixed = torch.stack([(q @ keys.t() / g.shape[1] ** 0.5).softmax(1) @ g for q in guesses]).mean(0)
        expected = g + 0.5 * c.t() * (mixed - g)
        torch.testing.assert_close(found[name], expected.t(), rtol=1e-4, atol=1e-7)
    assert torch.equal(found["layers.0.bias"], grads["layers.0.bias"])


@pytest.mark.parametrize("model", ["mlp", "gcn", "sage"])
@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_moves_the_gradient_within_the_limit(model: str, control: str) -> None:
    batch, teacher = problem()
    net = student(model)
    base = gradients(Glnn(), batch, teacher, net)
    method = Dgd(Glnn(), bank(), control=control, beta=100.0, limit=0.3)
    found = gradients(method, batch, teacher, net)
    sizes = method.diagnostics()
    assert sizes.keys() == {f"bias/{n}" for n in net(batch.x, batch.graph).hidden}
    for name, size in ((k.removeprefix("bias/"), v) for k, v in sizes.items()):
        assert 0 < size <= 0.3 + 1e-5
        torch.testing.assert_close((found[name] - base[name]).norm() / base[name].norm(), size, rtol=1e-3, atol=1e-5)


def test_controls_differ_from_the_method_and_from_each_other() -> None:
    batch, teacher = problem()
    trained = bank()
    for copy in trained.copies:
        for key, t in copy.tensors.items():
            if key.endswith("weight"):
                t.mul_(50)
    found = {
        c: gradients(Dgd(Glnn(), trained, control=c), batch, teacher, student())["layers.0.weight"] for c in CONTROLS
    }
    for a in CONTROLS:
        for b in CONTROLS:
            assert a == b or not torch.allclose(found[a], found[b], rtol=1e-3)


def test_only_the_last_layer() -> None:
    batch, teacher = problem()
    base = gradients(Glnn(), batch, teacher, student())
    found = gradients(Dgd(Glnn(), bank(), layers="last"), batch, teacher, student())
    assert torch.equal(found["layers.0.weight"], base["layers.0.weight"])
    assert not torch.equal(found["layers.1.weight"], base["layers.1.weight"])


def test_direct_fusion_aims_at_the_guess() -> None:
    batch, teacher = problem()
    base = gradients(Glnn(), batch, teacher, student())["layers.1.weight"]
    method = Dgd(Glnn(), bank(), fusion="direct", control="flat", beta=1.0, limit=0.0)
    found = gradients(method, batch, teacher, student())["layers.1.weight"]
    torch.testing.assert_close(found.norm(), base.norm())
    assert not torch.allclose(found, base)


def test_dropout_free_states_are_read_when_the_generators_saw_them() -> None:
    method = Dgd(Glnn(), bank())
    assert method.wants_clean(STEP)
    batch, teacher = problem()
    model = student(dropout=0.5, input_dropout=0.5)
    params = dict(model.named_parameters())

    def found(clean: Output | None) -> torch.Tensor:
        torch.manual_seed(1)
        output = dataclasses.replace(model(batch.x, batch.graph), clean=clean)
        found = method.gradients(method.loss(batch, output, teacher, STEP), params, batch, output, STEP)
        return method.combine(found, params, batch, output, STEP)["layers.0.weight"]

    model.eval()
    clean = model(batch.x, batch.graph)
    model.train()
    assert torch.equal(found(None), found(None))
    assert not torch.equal(found(None)[:, 0], found(clean)[:, 0])


def test_guesses_at_constant_features_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, teacher = problem()
    stored, seen = bank(), []
    states = stored.states
    monkeypatch.setattr(stored, "states", lambda h, r: seen.append(h.shape[1]) or states(h, r))
    method, model = Dgd(Glnn(), stored), student()
    for epoch in range(3):
        gradients(method, batch, teacher, model, Step(epoch, 3))
    assert seen.count(D) == 1
    assert seen.count(6) == 3


def test_what_it_needs_is_said() -> None:
    assert "method.generators=true" in (Dgd(Glnn(), None).missing() or "")
    assert Dgd(Glnn(), None, beta=0.0).missing() is None
    assert Dgd(Glnn(), bank()).missing() is None
    assert not Dgd(Supervised(), bank()).needs_teacher


def test_default_bases() -> None:
    assert isinstance(distillers.build("dgd", None).base, Glnn)  # type: ignore[attr-defined]
    on_graph = distillers.build("dgd", None, student_needs_graph=True)
    assert type(on_graph.base).__name__ == "Kd"  # type: ignore[attr-defined]


def test_bases_and_options_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="wraps a method itself"):
        distillers.build("dgd", None, base="dgd")
    with pytest.raises(UserError, match="did you mean 'beta'"):
        distillers.build("dgd", None, betta=1.0)
    with pytest.raises(UserError, match="at least 0"):
        distillers.build("dgd", None, beta=-1.0)
    with pytest.raises(UserError, match="finite"):
        distillers.build("dgd", None, beta=float("nan"))


def test_options_reach_the_base() -> None:
    method = distillers.build("dgd", None, base="kd", temperature=2.0, beta=0.1)
    assert method.base.temperature == 2.0  # type: ignore[attr-defined]


def test_a_base_with_gradients_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="gradients of its own"):
        Dgd(Dgd(Glnn(), None), None)
