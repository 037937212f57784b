"""TinyGNN: its loss by hand, and what its student is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from gnnkd import nn
from gnnkd.distillers.nodes.tinygnn import Tinygnn
from gnnkd.distillers.supervised import Supervised
from gnnkd.nn.around.peers import Peers
from gnnkd.types import Batch, Output, Step

N, D, C = 30, 6, 3
STEP = Step(0, 10)


def _problem() -> tuple[Batch, Output, Output]:
    batch = Batch.of(torch.rand(N, D), torch.arange(N) % C, None, torch.arange(N) < 9)
    return batch, *(Output(torch.randn(N, C, dtype=torch.float64)) for _ in range(2))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_terms_are_cross_entropy_of_labelled_and_soft_divergence_of_all_nodes(temperature: float) -> None:
    batch, student, teacher = _problem()
    terms = Tinygnn(kd_weight=0.7, temperature=temperature).loss(batch, student, teacher, STEP)
    p, log_q = (teacher.logits / temperature).softmax(1), (student.logits / temperature).log_softmax(1)
    want = sum(float((p[i] * (p[i].log() - log_q[i])).sum()) for i in range(N)) / N
    assert terms["kd"].item() == pytest.approx(0.7 * temperature**2 * want)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(student.logits[:9], torch.arange(9) % C))


def test_without_a_weight_it_is_supervised_and_with_the_teachers_logits_nothing_is_left() -> None:
    batch, student, teacher = _problem()
    terms = Tinygnn(kd_weight=0.0).loss(batch, student, teacher, STEP)
    assert terms.keys() == {"ce"}
    assert torch.equal(terms["ce"], Supervised().loss(batch, student, None, STEP)["ce"])
    assert Tinygnn().loss(batch, teacher, teacher, STEP)["kd"].item() == 0


def test_the_students_layers_follow_the_module() -> None:
    batch, *_ = _problem()
    student = Tinygnn(dim=5).learner(partial(nn.MODELS["gcn"], out_channels=C, layers=1), batch, C, 0)
    assert isinstance(student, Peers)
    assert student.options == {"dim": 5}
    assert not Tinygnn.on_rows
