"""Gates at the first, a middle and the last epoch, and row by row."""

from __future__ import annotations

import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.train.together.gates import GATES, gate
from gnnkd.types import UNKNOWN, Batch, Output, Step

WEIGHTS = {
    "through": (1.0, 1.0, 1.0),
    "cutoff": (0.0, 0.0, 0.0),
    "positive": (0.0, 0.25, 1.0),
    "negative": (1.0, 0.75, 0.0),
    "correct": (1.0, 1.0, 1.0),
}


def test_all_gates_are_here() -> None:
    assert WEIGHTS.keys() == GATES.keys()


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_at_the_first_a_middle_and_the_last_epoch(name: str) -> None:
    assert tuple(gate(name).weight(Step(epoch, 9)) for epoch in (0, 2, 8)) == WEIGHTS[name]


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_the_two_lines_add_up_to_one_and_stay_in_range(epochs: int) -> None:
    for epoch in range(epochs):
        up, down = (gate(name).weight(Step(epoch, epochs)) for name in ("positive", "negative"))
        assert up + down == 1
        assert 0 <= up <= 1


@pytest.mark.parametrize("name", sorted(set(GATES) - {"correct"}))
def test_other_gates_pass_whole_batches(name: str) -> None:
    batch = Batch.of(torch.zeros(2, 1), torch.tensor([0, 1]), None, torch.ones(2, dtype=torch.bool))
    assert gate(name).rows(batch, Output(torch.randn(2, 3))) is None


def test_correct_rows_are_those_of_the_largest_logit() -> None:
    torch.manual_seed(0)
    y, logits = torch.randint(4, (50,)), torch.randn(50, 4)
    batch = Batch.of(torch.zeros(50, 1), y, None, torch.arange(50) % 3 != 0)
    passed = gate("correct").rows(batch, Output(logits))
    assert passed is not None
    expected = [i % 3 != 0 and max(range(4), key=row.__getitem__) == y[i] for i, row in enumerate(logits.tolist())]
    assert passed.tolist() == expected
    assert 0 < sum(expected) < 50


def test_a_row_without_a_readable_label_does_not_pass() -> None:
    """Not even where the number that stands for no label could be met, or a label is there that may not be read."""
    y = torch.tensor([0, 0, UNKNOWN])
    batch = Batch(torch.zeros(3, 1), y, torch.arange(3), None, torch.tensor([True, False, False]))
    passed = gate("correct").rows(batch, Output(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])))
    assert passed is not None
    assert passed.tolist() == [True, False, False]


def test_an_unknown_gate_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown gate 'throuh'; allowed: .*did you mean 'through'"):
        gate("throuh")
