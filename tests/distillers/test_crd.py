"""Contrastive representation distillation: who is drawn, what is scored, what is remembered."""

from __future__ import annotations

import copy
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.crd.contrast import contrast_loss, exp_scores
from gnnkd.distillers.crd.memory import Memory
from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN, Batch, Output, Step

STEP = Step(0, 10)


def _labels(sizes: tuple[int, ...] = (7, 1, 0, 12), unknown: int = 9) -> Tensor:
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    y = torch.cat([y, torch.full((unknown,), UNKNOWN)])
    return y[torch.randperm(y.numel(), generator=torch.Generator().manual_seed(3))]


def _memory(y: Tensor, negatives: int = 4) -> Memory:
    torch.manual_seed(0)
    return Memory(6, 10, 5, y, negatives)


def _outputs(n: int, seed: int = 0) -> tuple[Output, Output]:
    rng = torch.Generator().manual_seed(seed)
    s, t = torch.randn(n, 6, generator=rng), torch.randn(n, 10, generator=rng)
    logits = torch.randn(n, 4, generator=rng)
    return Output(logits.requires_grad_(), pooled=s.requires_grad_()), Output(torch.randn(n, 4), pooled=t)


def _prepared(y: Tensor, **options: float) -> Distiller:
    distiller = distillers.build("crd", **({"negatives": 4, "dim": 5} | options))
    torch.manual_seed(0)
    student, teacher = _outputs(2)
    distiller.prepare(Lesson(student, teacher, (), y, 0.9, 5e-4, 0))
    return distiller


def _batch(y: Tensor, index: Tensor) -> Batch:
    return Batch.of(torch.zeros(index.numel(), 1), y[index], None, y[index] != UNKNOWN, index)


# -- who is drawn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", [1, 3, 8, 16384])
def test_negatives_are_labelled_rows_of_other_classes_without_repetition(negatives: int) -> None:
    y = _labels()
    memory = _memory(y, negatives)
    assert memory.negatives == min(negatives, 20 - 12)
    anchors = torch.tensor([0, 3, 1, 0, 3, 3])
    for seed in range(30):
        torch.manual_seed(seed)
        rows = memory.draw(anchors)
        assert rows.shape == (6, memory.negatives)
        assert (y[rows] != UNKNOWN).all()
        assert (y[rows] != anchors[:, None]).all()
        assert all(row.unique().numel() == memory.negatives for row in rows)


def test_every_row_of_another_class_is_drawn_equally_often() -> None:
    y = _labels((5, 4, 6), 3)
    memory, n = _memory(y, 3), 2000
    counts = torch.zeros(3, y.numel())
    torch.manual_seed(0)
    for _ in range(n):
        rows = memory.draw(torch.arange(3))
        counts.scatter_add_(1, rows, torch.ones(3, 3))
    for kind in range(3):
        others = (y != UNKNOWN) & (y != kind)
        p = 3 / int(others.sum())
        deviation = (counts[kind, others] - n * p) / (n * p * (1 - p)) ** 0.5
        assert deviation.abs().max() < 4
        assert deviation.square().mean() < 2
        assert counts[kind, ~others].sum() == 0


def test_two_rows_are_drawn_together_as_often_as_chance_has_it() -> None:
    y = _labels((3, 5), 0)
    memory, n = _memory(y, 2), 2000
    both = torch.zeros(5, 5)
    others = {int(row): i for i, row in enumerate((y == 1).nonzero()[:, 0])}
    torch.manual_seed(0)
    for _ in range(n):
        i, j = (others[int(row)] for row in memory.draw(torch.zeros(1, dtype=torch.long))[0])
        both[i, j] += 1
    p = 1 / 20
    pairs = both[~torch.eye(5, dtype=torch.bool)]
    assert ((pairs - n * p) / (n * p * (1 - p)) ** 0.5).abs().max() < 4


def test_one_class_has_nobody_to_contrast_with() -> None:
    with pytest.raises(UserError, match="one class"):
        _prepared(torch.tensor([1, 1, UNKNOWN]))


# -- what is scored ----------------------------------------------------------------------------------------------


def test_scores_are_those_of_gathered_rows() -> None:
    rng = torch.Generator().manual_seed(0)
    anchors, bank = torch.randn(3, 5, generator=rng, requires_grad=True), torch.randn(20, 5, generator=rng)
    rows = torch.stack([torch.randperm(20, generator=rng)[:7] for _ in range(3)])
    found = exp_scores(anchors, bank, rows, 0.5)
    slow = (torch.einsum("nk,nsk->ns", anchors, bank[rows]) / 0.5).exp()
    torch.testing.assert_close(found, slow)
    gradients = [torch.autograd.grad(x.log().square().sum(), anchors)[0] for x in (found, slow)]
    torch.testing.assert_close(*gradients)


def test_the_contrast_is_least_where_it_is_sure() -> None:
    n, yes = 50, torch.ones(2, dtype=torch.bool)
    sure = torch.tensor([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]])
    assert contrast_loss(sure, n, yes).item() == pytest.approx(0, abs=1e-4)
    assert contrast_loss(torch.ones(2, 3), n, yes) > 1
    unknown = torch.tensor([True, False])
    torch.testing.assert_close(contrast_loss(torch.rand(2, 3), n, ~yes), torch.tensor(0.0))
    mixed = torch.cat([torch.ones(1, 3), sure[:1]])
    torch.testing.assert_close(contrast_loss(mixed, n, unknown), contrast_loss(torch.ones(1, 3), n, yes[:1]))


def test_normalisers_are_set_by_the_first_batch_and_stay() -> None:
    y = _labels()
    crd = _prepared(y, negatives=8)
    memory = crd.part
    assert isinstance(memory, Memory)
    assert (memory.normalisers == 0).all()
    index = torch.arange(6)
    scores = memory.scores(*memory.embedded(torch.randn(6, 6), torch.randn(6, 10)), index, memory.draw(y[index]), 0.07)
    first = memory.normalisers.clone()
    assert (first > 0).all()
    for one in scores:
        # So that scores are probabilities of 1 / n on average, n the rows that can be drawn.
        assert one.mean().item() == pytest.approx(1 / 20, rel=1e-5)
    memory.scores(*memory.embedded(torch.randn(6, 6), torch.randn(6, 10)), index, memory.draw(y[index]), 0.07)
    assert torch.equal(memory.normalisers, first)


# -- what is remembered ------------------------------------------------------------------------------------------


def test_banks_move_after_the_loss_by_the_momentum_and_only_at_the_batch() -> None:
    y = _labels()
    crd = _prepared(y, momentum=0.25)
    memory = crd.part
    assert isinstance(memory, Memory)
    index = torch.tensor([4, 0, 9])
    before = copy.deepcopy(memory)
    student, teacher = _outputs(3)
    assert teacher.pooled is not None
    crd.loss(_batch(y, index), student, teacher, STEP)
    for name, embedded in (
        ("student_bank", memory.student(student.pooled)),
        ("teacher_bank", memory.teacher(teacher.pooled)),
    ):
        old, new = getattr(before, name), getattr(memory, name)
        moved = F.normalize(0.25 * old[index] + 0.75 * F.normalize(embedded, dim=1), dim=1)
        torch.testing.assert_close(new[index], moved.detach())
        others = torch.ones(y.numel(), dtype=torch.bool)
        others[index] = False
        assert torch.equal(new[others], old[others])
        assert not new.requires_grad


def test_a_gradient_may_come_after_the_banks_have_moved() -> None:
    y = _labels()
    crd = _prepared(y)
    student, teacher = _outputs(4)
    index = torch.arange(4)
    torch.manual_seed(5)
    still = copy.deepcopy(crd)
    terms = crd.loss(_batch(y, index), student, teacher, STEP)
    assert student.pooled is not None
    found = torch.autograd.grad(terms["crd"], student.pooled)[0]

    memory = still.part
    assert isinstance(memory, Memory)
    torch.manual_seed(5)
    assert teacher.pooled is not None
    s, t = memory.embedded(student.pooled, teacher.pooled)
    scores = memory.scores(s, t, index, memory.draw(y[index]), 0.07)
    known = y[index] != UNKNOWN
    expected = 0.8 * torch.stack([contrast_loss(one, 20, known) for one in scores]).sum()
    torch.testing.assert_close(terms["crd"], expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, student.pooled)[0])


def test_an_image_whose_class_may_not_be_read_teaches_nothing() -> None:
    y = _labels()
    known, unknown = (y != UNKNOWN).nonzero()[:3, 0], (y == UNKNOWN).nonzero()[:2, 0]
    student, teacher = _outputs(5)
    crd = _prepared(y)
    terms = crd.loss(_batch(y, torch.cat([known, unknown])), student, teacher, STEP)
    assert student.pooled is not None
    found = torch.autograd.grad(terms["crd"], student.pooled)[0]
    assert (found[:3].abs().sum(1) > 0).all()
    assert (found[3:] == 0).all()


def test_a_loss_after_a_resume_is_bit_for_bit_the_one_without() -> None:
    y = _labels()
    crd, resumed = _prepared(y), _prepared(y, momentum=0.5)
    for step in range(3):
        crd.loss(_batch(y, torch.arange(step, step + 5)), *_outputs(5, step), STEP)
    saved = {name: t.clone() for name, t in crd.state().items()}
    assert {"student_bank", "teacher_bank", "normalisers"} < saved.keys()
    assert "rows" not in saved
    random = torch.get_rng_state()
    ours = [crd.loss(_batch(y, torch.arange(i, i + 5)), *_outputs(5, i), STEP)["crd"] for i in range(3)]

    resumed.loss(_batch(y, torch.arange(5)), *_outputs(5, 7), STEP)
    resumed.load_state(saved)
    torch.set_rng_state(random)
    theirs = [resumed.loss(_batch(y, torch.arange(i, i + 5)), *_outputs(5, i), STEP)["crd"] for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# -- several processes -------------------------------------------------------------------------------------------

SHARES = (slice(0, 3), slice(3, 5))


def _two_steps(share: slice) -> dict[str, Tensor]:
    """Of one process; with all negatives, so that the score of an image does not depend on what is drawn."""
    y = _labels()
    known = (y != UNKNOWN).nonzero()[:, 0]
    crd = _prepared(y, negatives=8)
    for step in range(2):
        index = known[step : step + 5]
        (student, teacher), batch = _outputs(5, step), _batch(y, index[share])
        assert student.pooled is not None
        assert teacher.pooled is not None
        student = Output(student.logits[share], pooled=student.pooled[share])
        crd.loss(batch, student, Output(teacher.logits[share], pooled=teacher.pooled[share]), STEP)
    return crd.state()


def _process(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(_two_steps(SHARES[rank]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_keep_the_banks_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(str(tmp_path), port), nprocs=2)
    whole = _two_steps(slice(0, 5))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name in ("student_bank", "teacher_bank", "normalisers"):
        assert torch.equal(first[name], second[name])
    for name in ("student_bank", "teacher_bank"):
        torch.testing.assert_close(first[name], whole[name])
