"""A trained teacher's logits, ready made: an array in a file or in memory, instead of a teacher.

Only training labels are looked at to tell whether the rows are in the order of the nodes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import scores
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.metrics import accuracy
from gnnkd.scores import Scores
from gnnkd.types import UNKNOWN

NAME = "logits"
"""What stands for the teacher's network in results."""
BY_CHANCE = 0.01
"""Rows whose agreement with the training labels has at least this probability by chance are refused."""
_NPY = b"\x93NUMPY"


@final
@dataclass(frozen=True, eq=False)
class Logits:
    """One row for each node of a dataset in its order, one column for each class in ascending order.

    `where` is how errors call the place that they are from.
    """

    values: Float[Tensor, "N C"]
    where: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape and values (as float32)."""
        digest = hashlib.sha256(str(tuple(self.values.shape)).encode())
        digest.update(self.values.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """What looks odd about them."""
        shares = bool((self.values >= 0).all()) and torch.allclose(self.values.sum(dim=1), torch.tensor(1.0), atol=1e-3)
        return (f"{self.where} holds probabilities, taken as logits; log(p) would give these back",) if shares else ()

    def describe(self) -> dict[str, Any]:
        """What a student's result depends on, as plain values."""
        return {"teacher_model": NAME, "sha256": self.digest}

    def check(self, dataset: NodeDataset) -> None:
        """Compare the shape with a dataset's.

        Raises:
            UserError: another number of nodes or of classes.
        """
        (rows, columns), nodes, classes = self.values.shape, dataset.graph.n_nodes, len(dataset.classes)
        if rows != nodes:
            raise UserError(
                f"{self.where} has {rows} rows; the data has {nodes} nodes: give one row for each, in their order"
            )
        if columns != classes:
            raise UserError(
                f"{self.where} has {columns} columns; the data has {classes} classes: give one for each, ascending"
            )

    def notes_on(self, task: NodeTask) -> tuple[str, ...]:
        """How many of a task's training labels they agree with, and what looks odd about them."""
        _, share = self._agreement(task)
        return (f"{self.where} agrees with {share:.0%} of the training labels", *self.notes)

    def on(self, task: NodeTask) -> Float[Tensor, "K C"]:
        """The rows of a task, on its device.

        Raises:
            UserError: they agree with the labels of the training nodes no better than chance would.
        """
        labels, share = self._agreement(task)
        n, largest = labels.numel(), float(labels.bincount().max()) / labels.numel()
        # Too few nodes, or nearly all of one class: not even a perfect teacher could be told from chance.
        if largest**n < BY_CHANCE and _at_least(round(share * n), n, largest) >= BY_CHANCE:
            raise UserError(
                f"{self.where} agrees with only {share:.0%} of the training labels, as chance would: are its rows in "
                "the node order of the data, and do its columns ascend by class?"
            )
        return self.values[task.index.cpu()].to(task.y.device)

    def _agreement(self, task: NodeTask) -> tuple[Int[Tensor, " T"], float]:
        """The training labels, and the share of them that the rows agree with, in [0, 1]."""
        known = (task.split.train & (task.y != UNKNOWN)).cpu()
        rows, y = self.values[task.index.cpu()], task.y.cpu()
        return y[known], accuracy(rows, y, known)

    def scores(self, task: NodeTask) -> Scores:
        """Test accuracies; under `ind` those of a teacher that saw the unseen nodes' edges, or how it was made."""
        tran, whole = accuracy(self.values[task.index.cpu()], task.y.cpu(), task.split.test.cpu()), task.whole
        if whole is None:
            return {"test_acc": tran}
        rows = self.values[whole.index.cpu()]
        return scores.inductive(tran, accuracy(rows, whole.y.cpu(), whole.unseen.cpu()))


def read(file: Path) -> Logits:
    """The logits in an .npy file; nothing in it is executed. The last file is not read twice while it is the same.

    Raises:
        UserError: no such file, another kind of file, or what `of` refuses.
    """
    try:
        there = file.stat()
    except OSError as problem:
        raise UserError(f"{file} cannot be read ({problem.strerror})") from None
    return _read(file, there.st_ino, there.st_mtime_ns, there.st_size)


@lru_cache(maxsize=1)
def _read(file: Path, *_: int) -> Logits:
    """As `read`; the numbers change with the file."""
    try:
        with file.open("rb") as stream:
            if stream.read(len(_NPY)) != _NPY:
                raise UserError(f"{file} is not an .npy file; write the array alone, with numpy.save")
        return of(np.load(file, allow_pickle=False), str(file))
    except UserError:
        raise
    except OSError as problem:
        raise UserError(f"{file} cannot be read ({problem.strerror or 'broken off'})") from None
    except (ValueError, EOFError) as problem:
        pickled = "holds pickled objects" if "pickle" in str(problem) or "bject" in str(problem) else "is damaged"
        raise UserError(f"{file} {pickled}; it must hold one array of floating point numbers, [N, C]") from None


def of(array: Any, where: str = "teacher") -> Logits:
    """An array or a tensor as logits.

    Raises:
        UserError: it is no matrix of finite floating point numbers.
    """
    values = array.detach().cpu() if isinstance(array, Tensor) else np.asarray(array)
    floating = values.is_floating_point() if isinstance(values, Tensor) else values.dtype.kind == "f"
    if len(values.shape) != 2:
        raise UserError(f"{where} has shape {list(values.shape)}; it must be logits [N, C]")
    if not floating:
        raise UserError(f"{where} is of type {values.dtype}; logits must be floating point")
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        exact = values.float() if isinstance(values, Tensor) else torch.from_numpy(values.astype(np.float32))
    if not bool(exact.isfinite().all()):
        row, column = (~exact.isfinite()).nonzero()[0].tolist()
        raise UserError(f"{where}[{row}, {column}] is {float(values[row, column])}; logits must be finite float32")
    return Logits(exact.contiguous(), where)


def _at_least(hits: int, n: int, p: float) -> float:
    """Probability of `hits` or more among `n` draws that hit with probability p."""
    from scipy.special import bdtrc

    return float(bdtrc(hits - 1, n, p)) if hits > 0 else 1.0
