"""The trainable part of contrastive distillation: two embeddings, their banks, and who is drawn from them."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.distillers.crd.contrast import exp_scores
from gnnkd.distillers.crd.share import mean_of_all, rows_of_all
from gnnkd.distillers.losses import full_precision
from gnnkd.types import UNKNOWN


@final
class Memory(nn.Module):
    """Embeddings of both networks' pooled features and a bank for each, a row for every row of the task.

    Args:
        given: features of the student.
        wanted: features of the teacher.
        dim: of the embeddings.
        y: labels of all rows; one that is `UNKNOWN` is never drawn.
        negatives: drawn for each image, without repetition; at most as many as all classes have others.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    normalisers: Tensor
    rows: Tensor
    kinds: Tensor
    sizes: Tensor
    starts: Tensor

    def __init__(self, given: int, wanted: int, dim: int, y: Int[Tensor, " R"], negatives: int) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(given, dim), nn.Linear(wanted, dim)
        bound = (3 / dim) ** 0.5
        for bank in ("student_bank", "teacher_bank"):
            self.register_buffer(bank, torch.empty(y.numel(), dim).uniform_(-bound, bound))
        self.register_buffer("normalisers", torch.zeros(2))
        known = (y != UNKNOWN).nonzero()[:, 0]
        rows = known[y[known].argsort(stable=True)]
        sizes = y[rows].bincount()
        # These follow from the labels, so a checkpoint need not hold them.
        for name, table in {
            "rows": rows,
            "kinds": y[rows],
            "sizes": sizes,
            "starts": sizes.cumsum(0) - sizes,
        }.items():
            self.register_buffer(name, table, persistent=False)
        self.n, self.largest = rows.numel(), int(sizes.max())
        self.negatives = min(negatives, self.n - self.largest)

    def embedded(
        self, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"]
    ) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]]:
        """Both networks' features on the unit sphere."""
        s, t = full_precision(self.student(student)), full_precision(self.teacher(teacher))
        return F.normalize(s, dim=1), F.normalize(t, dim=1)

    def draw(self, y: Int[Tensor, " N"]) -> Int[Tensor, "N S"]:
        """Rows of other classes than `y`, for each image a random set without repetition.

        All rows are put in one random order; an image gets those of other classes that follow a random place in it.
        The j-th row of another class has j such rows before it, and all those of the image's own class that have at
        most j such rows before them: a search in a sorted list says how many.
        """
        device, kinds = y.device, y.clamp(min=0)
        order, first = torch.randperm(self.n).to(device), torch.randint(2**31 - 1, y.shape).to(device)
        slots = torch.arange(self.n, device=device)
        places = torch.empty_like(order).scatter_(0, order, slots)
        places = (self.kinds * self.n + places).sort().values - self.kinds * self.n
        others_before = places - (slots - self.starts[self.kinds])
        member = torch.arange(self.largest, device=device)
        own = others_before[(self.starts[kinds, None] + member).clamp(max=self.n - 1)]
        own = torch.where(member < self.sizes[kinds, None], own, self.n)
        j = (first[:, None] + torch.arange(self.negatives, device=device)) % (self.n - self.sizes[kinds, None])
        return self.rows[order[j + torch.searchsorted(own, j, right=True)]]

    def scores(
        self,
        student: Float[Tensor, "N K"],
        teacher: Float[Tensor, "N K"],
        index: Int[Tensor, " N"],
        rows: Int[Tensor, "N S"],
        temperature: float,
    ) -> list[Tensor]:
        """`exp(v . m / T) / Z` of each network's embeddings v in the other's bank, [N, 1 + S], the image's own first.

        Z, one for each network, is set by the first batch: the number of rows times the mean.
        """
        rows = torch.cat([index[:, None], rows], dim=1)
        found = []
        for i, (anchors, bank) in enumerate(((student, self.teacher_bank), (teacher, self.student_bank))):
            scores = exp_scores(anchors, bank, rows, temperature)
            z = torch.where(self.normalisers[i] > 0, self.normalisers[i], mean_of_all(scores.detach().mean()) * self.n)
            self.normalisers[i] = z
            found.append(scores / z)
        return found

    @torch.no_grad()
    def remember(
        self, student: Float[Tensor, "N K"], teacher: Float[Tensor, "N K"], index: Int[Tensor, " N"], momentum: float
    ) -> None:
        """Move the banks' rows towards these embeddings and those of other processes, on the sphere."""
        index, both = rows_of_all(index, torch.cat([student, teacher], dim=1))
        student, teacher = both.chunk(2, dim=1)
        # New banks, since the gradient still needs the old ones.
        self.student_bank = _moved(self.student_bank, student, index, momentum)
        self.teacher_bank = _moved(self.teacher_bank, teacher, index, momentum)


def _moved(bank: Tensor, rows: Tensor, index: Tensor, momentum: float) -> Tensor:
    return bank.index_copy(0, index, F.normalize(momentum * bank[index] + (1 - momentum) * rows, dim=1))
