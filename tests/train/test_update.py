"""The one optimisation step, against `backward` and a plain Adam; looks at gradients, which must change nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import nn
from gnnkd.distillers.base import Distiller, Gradients
from gnnkd.distillers.kd import Kd
from gnnkd.distillers.supervised import Supervised
from gnnkd.graph.structure import CSR, Graph
from gnnkd.options import of
from gnnkd.train.update import forward, looking, update
from gnnkd.types import Batch, Output, Step

N, D, C = 40, 30, 3
STEP = Step(0, 1)


def _batch(sparse: bool) -> Batch:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.random((N, D)) * (rng.random((N, D)) < 0.15), dtype=torch.float32)
    graph = Graph.from_edge_index(torch.from_numpy(rng.integers(0, N, (2, 4 * N))), N)
    labelled = torch.arange(N) < N // 2
    return Batch.of(CSR.from_dense(x) if sparse else x, torch.arange(N) % C, graph, labelled)


def _network(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(1)
    wanted = {"layers": 3, "width": 8, **options}
    return nn.MODELS[name](D, C, **{key: wanted[key] for key in of(nn.MODELS[name]) if key in wanted})


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", sorted(nn.MODELS))
def test_updates_equal_backward_and_a_plain_adam(name: str, sparse: bool) -> None:
    """Sparse features give the first weight a transposed gradient, which the fused optimizer would misread."""
    batch, ours, plain = _batch(sparse), _network(name), _network(name)
    fast = torch.optim.Adam(ours.parameters(), lr=0.01, weight_decay=1e-3, fused=True)
    slow = torch.optim.Adam(plain.parameters(), lr=0.01, weight_decay=1e-3, fused=False)
    for epoch in range(3):
        torch.manual_seed(epoch)
        terms = update(ours, fast, Supervised(), batch, None, Step(epoch, 3))
        torch.manual_seed(epoch)
        slow.zero_grad()
        logits = plain.train()(batch.x, batch.graph).logits
        loss = torch.nn.functional.cross_entropy(logits[batch.labelled], batch.y[batch.labelled])
        loss.backward()
        slow.step()
        torch.testing.assert_close(terms["ce"], loss.detach())
    for (key, p), q in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=lambda text, key=key: f"{key}: {text}")


def test_the_sparse_gradient_is_laid_out_as_its_weight() -> None:
    """What the test above stands on: autograd does return a transposed view here."""
    batch, model = _batch(sparse=True), _network("gcn")
    weight = model.get_parameter("layers.0.lin.weight")
    loss = Supervised().loss(batch, model(batch.x, batch.graph), None, STEP)["ce"]
    assert not torch.autograd.grad(loss, weight)[0].is_contiguous()
    update(model, torch.optim.SGD(model.parameters(), lr=0.0), Supervised(), batch, None, STEP)
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


class _Spy(Distiller):
    """Supervised on the biases only, with a diagnostic; it notes what it was shown."""

    def __init__(self, *, clean: bool) -> None:
        self.clean, self.seen = clean, Output(torch.empty(0, 0))

    def wants_clean(self, step: Step) -> bool:
        return self.clean

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        self.seen = student
        return Supervised().loss(batch, student, teacher, step)

    def gradients(
        self, terms: Mapping[str, Tensor], params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        every = super().gradients(terms, params, batch, student, step)
        return {name: g for name, g in every.items() if name.endswith("bias")}

    def diagnostics(self) -> Mapping[str, Tensor]:
        return {"spy/size": torch.tensor(7.0)}


def test_a_parameter_without_a_gradient_stays_and_diagnostics_are_returned() -> None:
    batch, model = _batch(sparse=False), _network("gcn")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1, fused=True)
    shown = update(model, optimizer, _Spy(clean=False), batch, None, STEP)
    assert {name: float(t) for name, t in shown.items()}["spy/size"] == 7
    assert shown.keys() == {"ce", "spy/size"}
    assert not any(t.requires_grad for t in shown.values())
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.endswith("bias")}


def test_all_terms_of_a_method_are_returned() -> None:
    batch, model = _batch(sparse=False), _network("mlp")
    optimizer = torch.optim.Adam(model.parameters())
    assert update(model, optimizer, Kd(), batch, Output(torch.zeros(N, C)), STEP).keys() == {"ce", "kd"}


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_clean_output_is_the_evaluation_of_the_same_weights_and_costs_nothing(norm: str) -> None:
    """The step is the same with and without it; a method that does not ask gets none."""
    batch, models, spies = _batch(sparse=False), [], []
    for clean in (True, False):
        model, spy = _network("gcn", norm=norm), _Spy(clean=clean)
        expected = model.eval()(batch.x, batch.graph).logits.detach()
        torch.manual_seed(5)
        update(model, torch.optim.Adam(model.parameters()), spy, batch, None, STEP)
        models.append(model)
        spies.append(spy)
        if clean:
            assert spy.seen.clean is not None
            assert torch.equal(spy.seen.clean.logits, expected)
            assert not spy.seen.clean.logits.requires_grad
    assert spies[1].seen.clean is None
    assert torch.equal(spies[0].seen.logits, spies[1].seen.logits)
    for p, q in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(p, q)


class _Curious(_Spy):
    """A method that asks the student about other features."""

    asks_student = True


def test_another_question_is_answered_as_in_training_and_moves_no_running_statistics() -> None:
    batch, model = _batch(sparse=False), _network("mlp", norm="batch")
    output = forward(model, _Curious(clean=False), batch, STEP)
    assert output.again is not None
    state = {name: t.clone() for name, t in model.state_dict().items()}
    assert int(state["norms.0.num_batches_tracked"]) == 1, "the step itself counts"
    x = 2 * torch.rand(N, D)
    torch.manual_seed(3)
    found = output.again(x).logits
    assert found.requires_grad
    for name, t in model.state_dict().items():
        assert torch.equal(t, state[name]), name
    assert model.training
    torch.manual_seed(3)
    assert torch.equal(model(x).logits, found)
    assert int(model.norms[0].num_batches_tracked) == 2, "and it is a norm as before"  # type: ignore[index, union-attr]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
def test_a_look_changes_nothing(sparse: bool, training: bool) -> None:
    batch, model = _batch(sparse), _network("gcn", norm="batch", input_dropout=0.3).train(training)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    random = torch.get_rng_state()
    look = looking(model, Supervised(), batch, STEP, noise=3)
    for dropout in (True, False, True):
        output, gradients = look(dropout)
        assert gradients.keys() == dict(model.named_parameters()).keys()
        shown = [output.logits, *output.hidden.values(), *output.raw.values(), *gradients.values()]
        assert not any(t.requires_grad for t in shown if isinstance(t, Tensor))
    assert model.training is training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    for name, t in model.state_dict().items():
        assert torch.equal(t, state[name]), name


def test_looks_differ_in_their_dropout_only() -> None:
    batch, model = _batch(sparse=False), _network("gcn")
    look = looking(model, Supervised(), batch, STEP, noise=3)
    first, second = look(True)[1], look(True)[1]
    assert not torch.equal(first["layers.1.lin.weight"], second["layers.1.lin.weight"])
    still = [look(False)[1] for _ in range(2)]
    for name, g in still[0].items():
        assert torch.equal(g, still[1][name])
    again = looking(model, Supervised(), batch, STEP, noise=3)
    assert torch.equal(again(True)[1]["layers.1.lin.weight"], first["layers.1.lin.weight"])
    other = looking(model, Supervised(), batch, STEP, noise=4)
    assert not torch.equal(other(True)[1]["layers.1.lin.weight"], first["layers.1.lin.weight"])


def test_a_look_without_dropout_shows_the_gradient_at_the_weights() -> None:
    batch, model = _batch(sparse=True), _network("gcn")
    output, gradients = looking(model, Supervised(), batch, STEP, noise=0)(False)
    fresh = model.eval()(batch.x, batch.graph)
    Supervised().loss(batch, fresh, None, STEP)["ce"].backward()
    assert torch.equal(output.logits, fresh.logits.detach())
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(gradients[name], p.grad)
