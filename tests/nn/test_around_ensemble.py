"""An ensemble is the mixture of its members' probabilities, weighted by their votes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gnnkd import nn
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import kind_of, kinds
from gnnkd.nn.around.ensemble import Ensemble, mixture

N, D, C = 30, 9, 4


def _ensemble(count: int, model: str = "mlp") -> Ensemble:
    torch.manual_seed(0)
    return Ensemble(lambda inputs: nn.MODELS[model](inputs, C, layers=2, width=8), D, count=count).eval()


def _data() -> tuple[Tensor, Graph]:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.4)
    return x, Graph.from_edge_index(torch.randint(N, (2, 3 * N), generator=rng), N)


def test_the_softmax_of_the_logits_is_the_weighted_mean_of_softmaxes() -> None:
    logits, votes = torch.randn(3, N, C, dtype=torch.float64), torch.tensor([0.5, 2.0, 3.5], dtype=torch.float64)
    want = (votes[:, None, None] * logits.softmax(2)).sum(0) / votes.sum()
    torch.testing.assert_close(mixture(logits, votes).softmax(1), want)
    torch.testing.assert_close(mixture(logits, votes).exp(), want, msg="they are log-probabilities already")


@pytest.mark.parametrize("model", ["mlp", "gcn", "sage"])
def test_equal_members_are_one_member_whatever_their_votes(model: str) -> None:
    ensemble, (x, graph) = _ensemble(3, model), _data()
    for member in ensemble.members:
        member.load_state_dict(ensemble.members[0].state_dict())
    alone = ensemble.members[0](x, graph).logits.softmax(1)
    for votes in ([1.0, 1.0, 1.0], [0.1, 5.0, 2.0], [1e-16, 1e-16, 1e-16]):
        ensemble.votes.copy_(torch.tensor(votes))
        torch.testing.assert_close(ensemble(x, graph).logits.softmax(1), alone)


def test_votes_count() -> None:
    ensemble, (x, graph) = _ensemble(3), _data()
    second = ensemble.members[1](x, graph).logits.softmax(1)
    before = ensemble(x, graph).logits.softmax(1)
    ensemble.votes.copy_(torch.tensor([0.0, 2.0, 0.0]))
    torch.testing.assert_close(ensemble(x, graph).logits.softmax(1), second)
    assert not torch.allclose(before, second)


def test_a_vote_of_zero_leaves_finite_gradients() -> None:
    ensemble, (x, graph) = _ensemble(2), _data()
    ensemble.votes.copy_(torch.tensor([1.0, 0.0]))
    found = torch.autograd.grad(ensemble(x, graph).logits.square().sum(), list(ensemble.parameters()))
    assert all(bool(g.isfinite().all()) for g in found)


@pytest.mark.parametrize("model", ["mlp", "gcn", "sage", "gat"])
def test_hidden_names_are_parameters_layer_by_layer(model: str) -> None:
    """Weights of one depth stand together, so a teacher's layers are dealt to those of the same depth."""
    ensemble, (x, graph) = _ensemble(2, model), _data()
    output, params = ensemble(x, graph), dict(ensemble.named_parameters())
    assert set(output.hidden) <= params.keys()
    assert [o.logits.shape for o in output.members] == [(N, C)] * 2
    inner = list(output.members[0].hidden)
    assert list(output.hidden) == [f"members.{k}.{name}" for name in inner for k in range(2)]
    for name, h in output.hidden.items():
        k, own = int(name.split(".")[1]), name.split(".", 2)[2]
        assert h is output.members[k].hidden[own]
        assert h.shape[1] == params[name].shape[1]
    assert set(output.raw) <= set(output.hidden)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_restored_one_gives_the_same_logits_bit_for_bit(sparse: bool) -> None:
    ensemble, (x, graph) = _ensemble(3, "gcn"), _data()
    given = CSR.from_dense(x) if sparse else x
    ensemble.votes.copy_(torch.tensor([0.3, 1.7, 0.2]))
    make = lambda inputs: nn.MODELS["gcn"](inputs, C, layers=2, width=8)  # noqa: E731
    other = kinds()["ensemble"].restored(make, D, C, ensemble.options)
    other.load_state_dict(ensemble.state_dict())
    assert torch.equal(other.eval()(given, graph).logits, ensemble(given, graph).logits)
    assert kind_of(ensemble) == "ensemble"
