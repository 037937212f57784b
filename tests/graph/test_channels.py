"""Channel states."""

from __future__ import annotations

import pytest
import torch

from gnnkd.graph.channels import Channels, channels
from gnnkd.graph.sketch import sketch_matrix
from gnnkd.graph.structure import CSR


def features() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(40, 9, generator=rng) * (torch.rand(40, 9, generator=rng) < 0.3)
    x[:, 4] = 0
    return x


def written_out(states: Channels, m: int) -> torch.Tensor:
    return states.project(torch.eye(m))


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("m", [16, 40])
def test_sparse_states_are_the_dense_ones(centre: bool, m: int) -> None:
    x = features()
    r = sketch_matrix(torch.arange(40), 40, m)
    dense, sparse = channels(x, r, centre=centre), channels(CSR.from_dense(x), r, centre=centre)
    torch.testing.assert_close(written_out(sparse, m), written_out(dense, m), rtol=1e-5, atol=1e-6)
    assert dense.n_channels == sparse.n_channels == 9


@pytest.mark.parametrize("centre", [False, True])
def test_states_have_unit_length_and_dead_channels_are_zero(centre: bool) -> None:
    states = written_out(channels(features(), None, centre=centre), 40)
    length = states.norm(dim=1)
    assert length[4] == 0
    torch.testing.assert_close(length[torch.arange(9) != 4], torch.ones(8))


def test_centring_removes_a_shared_direction() -> None:
    rng = torch.Generator().manual_seed(0)
    h = torch.randn(50, 20, generator=rng) * 0.1 + torch.rand(50, 1, generator=rng)
    raw, centred = (written_out(channels(h, None, centre=c), 50) for c in (False, True))
    assert (raw @ raw.t()).mean() > 0.9
    assert (centred @ centred.t()).mean() < 0.1


def test_scale_of_a_channel_does_not_matter() -> None:
    x = features()
    scaled = x * torch.logspace(-3, 3, 9)
    torch.testing.assert_close(
        written_out(channels(x, None, centre=True), 40), written_out(channels(scaled, None, centre=True), 40)
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_projection_is_differentiable_by_the_weight(sparse: bool) -> None:
    x = features()
    states = channels(CSR.from_dense(x) if sparse else x, None, centre=True)
    weight = torch.randn(40, 3, requires_grad=True)
    (grad,) = torch.autograd.grad((states.project(weight) ** 2).sum(), weight)
    s = written_out(states, 40)
    torch.testing.assert_close(grad, 2 * s.t() @ s @ weight.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_checkpoint_holds_all_of_it(sparse: bool) -> None:
    x = features()
    states = channels(CSR.from_dense(x) if sparse else x, None, centre=True)
    again = Channels.restored(states.tensors())
    assert torch.equal(written_out(again, 40), written_out(states, 40))
