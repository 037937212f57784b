"""Losses of feature maps against numbers that the published codes gave."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd.distillers.at import attention_loss
from gnnkd.distillers.crd.contrast import contrast_loss
from gnnkd.distillers.kdsvd import aligned, radial, turning_loss, vectors
from gnnkd.distillers.nst import selectivity_loss
from gnnkd.distillers.ofd import partial_square
from gnnkd.distillers.pkt import neighbourhood_loss
from gnnkd.distillers.reviewkd import hierarchical_loss
from gnnkd.distillers.rkd import angle_loss, distance_loss
from gnnkd.distillers.sp import similarity_loss
from gnnkd.distillers.vid import negative_log_likelihood

GOLDEN = [Path(__file__).parents[3] / "shared" / "golden" / f"losses_{i}.npz" for i in range(3)]


def wave(*shape: int, a: float = 0.37, b: float = 1.3, c: float = 0.0) -> Tensor:
    """`sin(a n + b sqrt(n + 1) + c)`, n the place in row-major order, in float64."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(a * n + b * (n + 1).sqrt() + c).reshape(shape)


S, T = wave(6, 8, 4, 4, c=0.1), wave(6, 8, 4, 4, a=0.29, b=1.1, c=0.7)
S_NEXT, T_NEXT = 2 * S + 0.1 * wave(6, 8, 4, 4, a=0.11), 0.5 * T + 0.1 * wave(6, 8, 4, 4, a=0.17)
S_POOLED, T_POOLED = wave(6, 12, c=0.2), wave(6, 12, a=0.31, c=0.9)


@pytest.mark.parametrize(
    ("found", "value"),
    [
        pytest.param(lambda: attention_loss([(S, T)], 2), 0.0128067112065, id="at"),
        pytest.param(lambda: selectivity_loss([(S, T)]), 0.395686301169, id="nst"),
        pytest.param(lambda: neighbourhood_loss(S_POOLED, T_POOLED), 0.0437954115127, id="pkt"),
        pytest.param(lambda: similarity_loss(S, T), 0.252308829507, id="sp"),
        pytest.param(
            lambda: 25 * distance_loss(S_POOLED, T_POOLED) + 50 * angle_loss(S_POOLED, T_POOLED),
            8.03753389655,
            id="rkd",
        ),
        pytest.param(
            lambda: negative_log_likelihood(
                S, T, torch.full((8,), math.log(math.exp(5 - 1e-5) - 1), dtype=torch.float64)
            ),
            0.9053519144,
            id="vid",
        ),
        pytest.param(lambda: partial_square(S, T, torch.full((8,), -0.5).double()), 104.888462534, id="ofd"),
        pytest.param(lambda: hierarchical_loss(S, T), 0.732543214609, id="hcl"),
        pytest.param(
            lambda: contrast_loss(torch.sigmoid(wave(6, 5, a=0.7)), 50, torch.ones(6, dtype=torch.bool)),
            7.99738932532,
            id="crd",
        ),
    ],
)
def test_values_in_float64(found, value: float) -> None:  # type: ignore[no-untyped-def]
    assert found().item() == pytest.approx(value, rel=1e-9)


def test_kdsvd_is_the_published_value_up_to_the_signs_that_a_decomposition_leaves_open() -> None:
    """The published value hangs on the signs that LAPACK happens to give the teacher's vectors of each image."""
    by_signs = []
    for flipped in (1, -1):
        before, after = vectors(T, 1)[1], vectors(T_NEXT, 1)[1]
        before, after = (v * torch.where(v.sum(1, keepdim=True) < 0, -1, 1) for v in (before, after))
        after = after * flipped
        s_before, s_after = aligned(vectors(S, 4)[1], before), aligned(vectors(S_NEXT, 4)[1], after)
        by_signs.append((radial(s_after, s_before) - radial(after, before)).square().sum((1, 2, 3)) / 6)
    ours = turning_loss([(S, T), (S_NEXT, T_NEXT)], 1)
    torch.testing.assert_close(ours, by_signs[0].sum())
    all_signs = [sum(by_signs[f][i] for i, f in enumerate(flips)) for flips in itertools.product((0, 1), repeat=6)]
    assert min(abs(float(value) / 0.000101238721982 - 1) for value in all_signs) < 1e-5  # it is in float32


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_values_on_features_of_three_stages(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"reference values {path.name} are not here")
    golden = {name: torch.as_tensor(value) for name, value in np.load(path).items()}
    pairs = [(golden[f"feat/feat_student_{i}"], golden[f"feat/feat_teacher_{i}"]) for i in range(3)]
    s, t = golden["feat/pooled_student"], golden["feat/pooled_teacher"]
    found = {
        "at_p2": attention_loss(pairs, 2),
        "nst": selectivity_loss(pairs),
        "pkt": neighbourhood_loss(s, t),
        "rkd_d25_a50": 25 * distance_loss(s, t) + 50 * angle_loss(s, t),
        "sp": torch.stack([similarity_loss(*pair) for pair in pairs]).sum(),  # the reference sums over the stages
    }
    for name, value in found.items():
        torch.testing.assert_close(value, golden[f"feat/{name}"], rtol=1e-4, atol=0, msg=lambda m, n=name: f"{n}: {m}")
