"""The shapes in annotations are checked in tests; without this, a wrong hook would go unnoticed."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from gnnkd.metrics import accuracy
from gnnkd.types import Batch


def test_two_lengths_under_one_letter_are_an_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        accuracy(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long), torch.ones(3, dtype=torch.bool))


def test_a_wrong_dtype_behind_a_union_of_protocols_is_an_error() -> None:
    x, labelled = torch.zeros(3, 2), torch.ones(3, dtype=torch.bool)
    Batch.of(x, torch.zeros(3, dtype=torch.long), None, labelled)
    with pytest.raises(jaxtyping.TypeCheckError):
        Batch.of(x, torch.zeros(3), None, labelled)
    with pytest.raises(jaxtyping.TypeCheckError):
        Batch.of("features", torch.zeros(3, dtype=torch.long), None, labelled)  # type: ignore[arg-type]
