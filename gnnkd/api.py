"""gnnkd as a library: compress a GNN into a small student, and bring saved networks back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import batching, logits, scores
from gnnkd import options as checks
from gnnkd.data.graphs import from_pyg
from gnnkd.data.task import NodeTask
from gnnkd.data.task import task as make_task
from gnnkd.graph.structure import CSR, Graph
from gnnkd.predictor import Predictor, load
from gnnkd.run import Config, resolve
from gnnkd.scores import Scores
from gnnkd.stages import Learnt, check_student, train_student, train_teacher
from gnnkd.train.progress import progress as bars

if TYPE_CHECKING:
    import numpy as np
    from torch_geometric.data import Data

    from gnnkd.halves import Plan
    from gnnkd.places import Place
    from gnnkd.train.progress import Progress

__all__ = ["Distilled", "Predictor", "distill", "load", "run_student", "run_teacher"]


@final
@dataclass(frozen=True)
class Distilled:
    """A student and its teacher.

    `scores` are the accuracies in [0, 1], by the names that a run's `result.json` has: `test_acc`, `val_acc`,
    `teacher_test_acc`, and under the setting `ind` what the test accuracies are made of. Test accuracy is of nodes that
    no choice has seen. `teacher` is None where ready logits stood for it. `notes` say what reading the data changed,
    and which weights DGD could not reach. `index` are the ids, in the data, of the nodes of the training, ascending.
    """

    student: Predictor
    teacher: Predictor | None
    scores: Mapping[str, float]
    notes: tuple[str, ...] = ()
    index: Int[Tensor, " R"] | None = field(default=None, compare=False)

    @property
    def test_acc(self) -> float:
        """The student's accuracy on test nodes."""
        return self.scores["test_acc"]

    @property
    def val_acc(self) -> float:
        """The student's accuracy on validation nodes, by which its epoch was chosen."""
        return self.scores["val_acc"]

    @property
    def teacher_test_acc(self) -> float:
        """The teacher's accuracy on test nodes."""
        return self.scores["teacher_test_acc"]

    def predict(
        self,
        x: Tensor | np.ndarray | CSR,
        graph: Graph | Tensor | np.ndarray | None = None,
        *,
        index: Tensor | np.ndarray | None = None,
    ) -> Int[Tensor, " N"]:
        """Class of each row, as a label of the training data.

        An MLP student needs no graph, unless its method does: `gnnkd.distillers.graph_methods()[method].needs` has
        what a student needs beside its own network's needs. One that knows nodes of its training (of `nosmog`, `cpf`)
        is told by `index` [N] which nodes of the data the rows are, -1 for new ones; with None all rows are new, and a
        UserWarning says so where there are as many as it knows. The nodes of the training are `Distilled.index`.
        """
        return self.student.predict(x, graph, index=index)

    def predict_proba(
        self,
        x: Tensor | np.ndarray | CSR,
        graph: Graph | Tensor | np.ndarray | None = None,
        *,
        index: Tensor | np.ndarray | None = None,
    ) -> Float[Tensor, "N C"]:
        """Probability of each class; arguments as of `predict`."""
        return self.student.predict_proba(x, graph, index=index)

    def save(self, folder: Path | str) -> None:
        """Write the student to `folder/model.safetensors`, for `gnnkd.load`."""
        self.student.save(folder)


def distill(
    data: Data,
    *,
    teacher: str | torch.nn.Module | Tensor | np.ndarray = "gcn",
    student: str | torch.nn.Module = "mlp",
    method: str = "dgd",
    seed: int = 0,
    split: str | None = None,
    setting: str = "tran",
    device: str = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    quiet: bool = False,
) -> Distilled:
    """Train a teacher on a graph and a student on the teacher.

    A module of yours is called as `module(x)` or, if its `forward` has a second argument for edges, as `module(x,
    edge_index)`, and returns logits [N, C]; `gnnkd.nn.own.Own(module, graph=...)` says it outright. It is copied, never
    changed, and trained from the weights that it has: of a teacher that is trained already, give the logits.

    Args:
        data: a PyG `Data` with `x` [N, D], `edge_index` [2, E], `y` [N] (-1: unknown) and, optionally, `train_mask`,
            `val_mask`, `test_mask` [N]; it is not changed. Without `edge_index`, or if the option `graph` of the group
            `data` says so, edges are made of `x`.
        teacher: a network's name, as in `gnnkd.nn.MODELS`; a module; or ready logits [N, C], a row for each node in
            its order and a column for each class, ascending.
        student: a network's name, or a module.
        method: as `gnnkd.distillers.graph_methods()`.
        seed: of split, initialisation and dropout of both stages, at least 0.
        split: protocol; masks in the data if it has them, else `cpf`.
        setting: "tran", every node is seen in training, or "ind", a fifth of the test nodes and their edges are not.
        device: "auto", "cpu" or "cuda".
        options: groups `data`, `teacher`, `student`, `method`, `train` of options, as on the command line.
        quiet: no progress bars.

    Returns:
        The student with its teacher; `predict(x)` gives labels.

    Raises:
        UserError: (a ValueError) data, names or options that do not fit.
    """
    config = resolve(
        "data",
        split=split,
        setting=setting,
        teacher_model=logits.of(teacher) if isinstance(teacher, Tensor) or hasattr(teacher, "__array__") else teacher,
        student_model=student,
        method=method,
        levels=(options or {},),
    )
    config.check_generators()
    if not config.wants_generators:  # a command keeps them for later students; here there is one
        config = replace(config, generators=None)
    where = checks.device(device)
    task, shown = _task(data, config, checks.seed(seed)).to(where), bars(quiet=quiet)
    check_student(task, config)
    if config.logits is not None:
        learnt = train_student(task, config, config.logits.on(task), None, shown)
        return _distilled(task, config, learnt, None, config.logits.scores(task), config.notes(task))
    taught = train_teacher(task, config, shown)
    learnt = train_student(task, config, taught.logits, taught.bank, shown, asked=taught.predictor.network)
    layerwise = batching.layerwise(config.teacher_train)
    found = scores.of_logits(taught.predictor.network, task, taught.logits, layerwise=layerwise)
    return _distilled(task, config, learnt, taught.predictor, found, (*config.notes(task), *taught.notes))


def _task(data: Data, config: Config, seed: int) -> NodeTask:
    dataset = from_pyg(data, undirected=config.data.undirected, graph=config.data.graph, k=config.data.k)
    if config.logits is not None:
        config.logits.check(dataset)
    return make_task(
        dataset,
        protocol=config.split,
        seed=seed,
        setting=config.setting,
        normalise=config.data.normalise,
        fractions=config.data.fractions,
    )


def _distilled(
    task: NodeTask,
    config: Config,
    learnt: Learnt,
    teacher: Predictor | None,
    of_teacher: Scores,
    notes: tuple[str, ...],
) -> Distilled:
    layerwise = batching.layerwise(config.student_train)
    of_student = scores.of_network(learnt.predictor.network, task, layerwise=layerwise)
    found = {**of_student, "val_acc": learnt.reached.best_score}
    return Distilled(
        student=learnt.predictor,
        teacher=teacher,
        scores=found | scores.of_teacher(of_teacher),
        notes=(*notes, *learnt.notes),
        index=task.index,
    )


def run_teacher(task: Any, config: Plan, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train a teacher of graphs or images, write its files to `place` and return the content of `result.json`."""
    return config.run_teacher(task, place, resume=resume, progress=progress)


def run_student(task: Any, config: Plan, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train a student from the files of its teacher, write its own to `place`; the content of `result.json`."""
    return config.run_student(task, place, resume=resume, progress=progress)
