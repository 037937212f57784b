"""gnnkd as a library: compress a GNN into a small student, and bring saved networks back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import options as checks
from gnnkd.data.graphs import from_pyg
from gnnkd.data.task import task as make_task
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.metrics import accuracy
from gnnkd.predictor import Predictor, load
from gnnkd.run import resolve
from gnnkd.stages import run_student, run_teacher, train_student, train_teacher
from gnnkd.train.progress import progress as bars
from gnnkd.train.teacher import outputs

if TYPE_CHECKING:
    import numpy as np
    from torch_geometric.data import Data

__all__ = ["Distilled", "Predictor", "distill", "load", "run_student", "run_teacher"]


@final
@dataclass(frozen=True)
class Distilled:
    """A student and its teacher.

    Accuracies lie in [0, 1]; test accuracy is of nodes that no choice has seen. `notes` say what reading the data
    changed.
    """

    student: Predictor
    teacher: Predictor
    test_acc: float
    val_acc: float
    teacher_test_acc: float
    notes: tuple[str, ...] = ()

    def predict(
        self, x: Tensor | np.ndarray | CSR, graph: Graph | Tensor | np.ndarray | None = None
    ) -> Int[Tensor, " N"]:
        """Class of each row, as a label of the training data; an MLP student needs no graph."""
        return self.student.predict(x, graph)

    def predict_proba(
        self, x: Tensor | np.ndarray | CSR, graph: Graph | Tensor | np.ndarray | None = None
    ) -> Float[Tensor, "N C"]:
        """Probability of each class."""
        return self.student.predict_proba(x, graph)

    def save(self, folder: Path | str) -> None:
        """Write the student to `folder/model.safetensors`, for `gnnkd.load`."""
        self.student.save(folder)


def distill(
    data: Data,
    *,
    teacher: str = "gcn",
    student: str = "mlp",
    method: str = "dgd",
    seed: int = 0,
    split: str | None = None,
    device: str = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    quiet: bool = False,
) -> Distilled:
    """Train a teacher on a graph and a student on the teacher.

    Args:
        data: a PyG `Data` with `x` [N, D], `edge_index` [2, E], `y` [N] (-1: unknown) and, optionally, `train_mask`,
            `val_mask`, `test_mask` [N]; it is not changed.
        teacher: network, as `gnnkd.nn.MODELS`.
        student: network.
        method: as `gnnkd.distillers.methods()`.
        seed: of split, initialisation and dropout of both stages, at least 0.
        split: protocol; masks in the data if it has them, else `cpf`.
        device: "auto", "cpu" or "cuda".
        options: groups `data`, `teacher`, `student`, `method`, `train` of options, as on the command line.
        quiet: no progress bars.

    Returns:
        The student with its teacher; `predict(x)` gives labels.

    Raises:
        UserError: (a ValueError) data, names or options that do not fit.
    """
    config = resolve(
        "data", split=split, teacher_model=teacher, student_model=student, method=method, levels=(options or {},)
    )
    if config.data.k is not None:
        raise UserError("data.k is of graphs made from features; this one has its edges: leave it out")
    where = checks.device(device)
    dataset = from_pyg(data, undirected=config.data.undirected)
    task = make_task(
        dataset,
        protocol=config.split,
        seed=checks.seed(seed),
        normalise=config.data.normalise,
        fractions=config.data.fractions,
    ).to(where)
    shown = bars(quiet=quiet)
    taught = train_teacher(task, config, shown)
    predictor, reached = train_student(task, config, taught.logits, taught.bank, shown)
    test = task.split.test
    logits = outputs(predictor.network, task.batch(task.split.train))
    return Distilled(
        student=predictor,
        teacher=taught.predictor,
        test_acc=accuracy(logits, task.y, test),
        val_acc=reached.best_score,
        teacher_test_acc=accuracy(taught.logits, task.y, test),
        notes=task.notes,
    )
