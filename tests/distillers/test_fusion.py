"""Gradient fusion as pure functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gnnkd import nn
from gnnkd.distillers.dgd import fusion

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "dgd_fusion_0.npz"


def slow_fuse(gradient: torch.Tensor, generated: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    rows = []
    for g in generated:
        scores = g @ keys.t() / gradient.shape[1] ** 0.5
        rows.append(scores.softmax(dim=1) @ gradient)
    return torch.stack(rows).mean(dim=0)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_fusion_is_the_written_out_attention(rng: torch.Generator) -> None:
    g = torch.randn(11, 5, generator=rng, dtype=torch.float64)
    guesses = torch.randn(3, 11, 5, generator=rng, dtype=torch.float64)
    keys = torch.randn(11, 5, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(fusion.fuse(g, guesses, keys), slow_fuse(g, guesses, keys))
    torch.testing.assert_close(fusion.fuse(g, guesses), slow_fuse(g, guesses, g))


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"reference values {GOLDEN.name} are not here")
def test_golden_values() -> None:
    golden = {k: torch.as_tensor(v) for k, v in np.load(GOLDEN).items()}
    fused = fusion.fuse(golden["gradient"], golden["generated"])
    torch.testing.assert_close(fused, golden["fused"], rtol=1e-6, atol=1e-9)
    bias = fusion.weighted_bias(golden["gradient"], fused, golden["curvature"], float(golden["beta"]))
    torch.testing.assert_close(golden["gradient"] + bias, golden["updated"], rtol=1e-6, atol=1e-9)


def test_rows_of_the_fusion_lie_within_the_rows_of_the_gradient(rng: torch.Generator) -> None:
    g = torch.randn(20, 4, generator=rng)
    fused = fusion.fuse(g, 10 * torch.randn(2, 20, 4, generator=rng))
    assert (fused <= g.max(0).values + 1e-5).all()
    assert (fused >= g.min(0).values - 1e-5).all()


def test_flat_guesses_are_the_uniform_control(rng: torch.Generator) -> None:
    g = torch.randn(20, 4, generator=rng)
    torch.testing.assert_close(fusion.fuse(g, torch.zeros(2, 20, 4)), fusion.uniform(g))


def test_a_sharp_guess_picks_its_own_row(rng: torch.Generator) -> None:
    g = F.normalize(torch.randn(6, 8, generator=rng), dim=1)
    torch.testing.assert_close(fusion.fuse(g, 1e4 * g[None]), g, rtol=1e-4, atol=1e-5)


def test_order_of_channels_and_of_guesses_does_not_matter(rng: torch.Generator) -> None:
    g, guesses = torch.randn(9, 4, generator=rng), torch.randn(2, 9, 4, generator=rng)
    order = torch.randperm(9, generator=rng)
    torch.testing.assert_close(fusion.fuse(g, guesses)[order], fusion.fuse(g[order], guesses[:, order]))
    torch.testing.assert_close(fusion.fuse(g, guesses), fusion.fuse(g, guesses.flip(0)))


def test_direct_fusion_has_the_gradients_scale_and_the_guesses_direction(rng: torch.Generator) -> None:
    g, guess = torch.randn(9, 4, generator=rng), torch.randn(9, 4, generator=rng)
    f = fusion.direct(g, [guess])
    torch.testing.assert_close(f.norm(), g.norm())
    torch.testing.assert_close(F.cosine_similarity(f.flatten(), guess.flatten(), dim=0), torch.tensor(1.0))


def test_limit_of_the_bias(rng: torch.Generator) -> None:
    g, f, c = (torch.randn(7, 3, generator=rng) for _ in range(3))
    raw = fusion.weighted_bias(g, f, c, 2.0)
    torch.testing.assert_close(raw, 2 * c * (f - g))
    limited = fusion.weighted_bias(g, f, c, 2.0, limit=0.1)
    torch.testing.assert_close(limited.norm(), 0.1 * g.norm())
    torch.testing.assert_close(limited / limited.norm(), raw / raw.norm())
    torch.testing.assert_close(fusion.weighted_bias(g, f, c, 1e-6, limit=0.1), 1e-6 * c * (f - g))
    assert not fusion.weighted_bias(g, g, c, 1.0, limit=0.1).any()


def test_curvature_is_the_hessian_times_ones() -> None:
    """Against the full Hessian over both weights, cross terms included."""
    torch.manual_seed(0)
    w1, w2 = torch.randn(4, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy((x @ a.t()).tanh() @ b.t(), y)

    (h11, h12), (h21, h22) = torch.autograd.functional.hessian(loss, (w1, w2))
    weights = {"1": w1.requires_grad_(), "2": w2.requires_grad_()}
    grads = torch.autograd.grad(loss(w1, w2), (w1, w2), create_graph=True)
    found = fusion.curvature(dict(zip(weights, grads, strict=True)), weights)
    torch.testing.assert_close(found["1"], h11.sum((0, 1)) + h21.sum((0, 1)))
    torch.testing.assert_close(found["2"], h12.sum((0, 1)) + h22.sum((0, 1)))


def test_a_linear_loss_has_no_curvature() -> None:
    w = torch.randn(3, 2, requires_grad=True)
    (g,) = torch.autograd.grad((2 * w).sum(), w, create_graph=True)
    assert not fusion.curvature({"w": g}, {"w": w})["w"].any()


def test_behind_layer_norms_there_is_no_curvature() -> None:
    """Why the command refuses them: with batch norms there is some."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 3
    found = {}
    for norm in ("layer", "batch"):
        network = nn.mlp(5, 3, layers=3, width=7, dropout=0.0, norm=norm).double()
        weights = {name: p for name, p in network.named_parameters() if p.dim() == 2}
        loss = F.cross_entropy(network(x, None).logits, y)
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        curved = fusion.curvature(dict(zip(weights, grads, strict=True)), weights)
        found[norm] = max(float(c.abs().max()) for c in curved.values())
    assert found["layer"] < 1e-12
    assert found["batch"] > 1e-4


@pytest.mark.parametrize(("m", "s", "dealt"), [
    (3, 2, [[0, 1], [2]]), (3, 3, [[0], [1], [2]]), (2, 3, [[0], [0], [1]]), (6, 4, [[0, 1], [2, 3], [4], [5]]),
    (1, 3, [[0], [0], [0]]), (5, 1, [[0, 1, 2, 3, 4]]),
])  # fmt: skip
def test_teacher_layers_are_dealt_in_order(m: int, s: int, dealt: list[list[int]]) -> None:
    assert fusion.deal(m, s) == dealt
    if m >= s:
        assert dealt == [a.tolist() for a in np.array_split(np.arange(m), s)]


def test_resizing() -> None:
    g = torch.arange(12.0).view(2, 6)
    assert fusion.resized(g, 6) is g
    torch.testing.assert_close(fusion.resized(g, 3), g.view(2, 3, 2).mean(2))
    wider = fusion.resized(g, 12)
    assert wider.shape == (2, 12)
    torch.testing.assert_close(wider.mean(1), g.mean(1))


def test_scale_free() -> None:
    g = torch.randn(5, 4)
    torch.testing.assert_close(fusion.rms_normalised(g), fusion.rms_normalised(1e-8 * g), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fusion.rms_normalised(g).square().mean(), torch.tensor(1.0))
    assert not fusion.rms_normalised(torch.zeros(2, 2)).any()


# -- several blocks of outputs that are averaged: attention heads ----------------------------------------------------


def test_pooling_averages_what_each_block_is_pooled_to(rng: torch.Generator) -> None:
    g = torch.randn(7, 3 * 10, generator=rng)
    want = torch.stack([fusion.resized(block, 4) for block in g.split(10, dim=1)]).mean(0)
    torch.testing.assert_close(fusion.pooled(g, 4, blocks=3), want)
    torch.testing.assert_close(fusion.pooled(g, 4), fusion.resized(g, 4))


def test_spreading_gives_every_block_the_same_and_pooling_takes_it_back(rng: torch.Generator) -> None:
    g = torch.randn(7, 5, generator=rng)
    wide = fusion.spread(g, 3 * 10, blocks=3)
    for block in wide.split(10, dim=1):
        torch.testing.assert_close(block, fusion.resized(g, 10))
    torch.testing.assert_close(fusion.pooled(fusion.spread(g, 3 * 5, blocks=3), 5, blocks=3), g)
