"""A search for the graph of networks in which node 0 validates best: what it is about, and the study of its trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd import claims
from gnnkd.errors import UserError
from gnnkd.ktg import alone, places, stages, study_storage
from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.stages import Task
from gnnkd.ktg.study_space import Space
from gnnkd.ktg.study_storage import held
from gnnkd.train.progress import Progress

if TYPE_CHECKING:
    import optuna

SHARE, LEAST = 9, 2
"""The first decision on a trial falls after 1 / 9 of its epochs, and after two of them at the earliest: a gate that
opens line by line has let nothing through in the first one."""
DESCRIPTION = "description"


@final
@dataclass(frozen=True)
class Search:
    """What is searched, and where.

    Args:
        space: the graphs.
        task: what they learn; its seed and its split are the search's.
        out: the folder of all results.
        name: of the search.
        progress: where trainings report.
        say: hears a line for each trial.
    """

    space: Space
    task: Task
    out: Path
    name: str
    progress: Progress
    say: Callable[[str], None]

    @property
    def root(self) -> Path:
        """`OUT/D/<protocol>-<setting>`."""
        return places.root(self.out, self.task)

    @property
    def folder(self) -> Path:
        """`OUT/D/<protocol>-<setting>/search/<name>`."""
        return self.root / "search" / self.name

    @property
    def lock(self) -> Path:
        """Of this folder's processes: one at a time begins a trial."""
        return self.folder / "search.lock"

    @property
    def epochs(self) -> int:
        """Of each trial."""
        return planned(self.space.base, self.task.seed).first.student_train.epochs

    def check(self) -> None:
        """Refuse what no trial could be trained with.

        Raises:
            UserError: nothing validates, or a network, an option or a loss does not fit the data.
        """
        if not bool(self.task.split.val.any()):
            raise UserError(f"a search compares validation accuracies, and no row of {self.task.name} validates")
        stages.check(self.task, self.space.everyone())

    def described(self) -> dict[str, Any]:
        """All that determines a trial's score, given its graph."""
        everyone = planned(self.space.everyone(), self.task.seed)
        return {"space": self.space.described(), **places.described(everyone, self.task)}

    def lack(self, graph: Spec) -> str | None:
        """Why node 0 can learn nothing in a graph, in words; None if it can."""
        return graph.lack(once=self.epochs == 1)

    def seeded(self, seed: int) -> Task:
        """The search's task on its own split, with another seed of initialisation, order and dropout.

        Rows that trained or validated in the search test nowhere: its graph was chosen by them.
        """
        return replace(self.task, seed=seed)

    def settled(self, graph: Spec, task: Task) -> Spec:
        """The graph with the networks that are trained alone in it; of several processes one trains each.

        With another seed than the search's they lie in places tagged with its name: what the plain ones hold was
        trained on the split of that seed.

        Raises:
            UserError: the place of one is taken by another configuration.
        """
        plans = planned(graph, task.seed)
        models = [plans.model(i) for i in graph.alone()]
        with held([self.root / model / f"teacher.{task.seed}.lock" for model in models]):
            apart = task.seed != self.task.seed
            return alone.settled(plans, task, self.root, self.progress, tag=self.name, apart=apart, resume=True)


# -- the study -------------------------------------------------------------------------------------------------


def opened(search: Search, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The study of a search, made if it is not there yet.

    Raises:
        UserError: it is there, and is of something else.
    """
    optuna = study_storage.package()
    where = f"{search.task.name} {search.task.protocol}-{search.task.setting} {search.name}"
    first = min(search.epochs, max(LEAST, search.epochs // SHARE))
    pruner = optuna.pruners.HyperbandPruner(min_resource=first, max_resource=search.epochs, reduction_factor=3)
    with held([search.lock]):
        study: optuna.Study = optuna.create_study(
            storage=storage, study_name=where, direction="maximize", pruner=pruner, load_if_exists=True
        )
        there, here = study.user_attrs.get(DESCRIPTION), search.described()
        if there is None:
            study.set_user_attr(DESCRIPTION, here)
        elif changed := claims.differences(there, here):
            # What follows from the user's choices is not worth saying beside them.
            chosen = [one for one in changed if one[0].startswith("space.")]
            what = claims.said(chosen or changed)
            raise UserError(f"the search '{search.name}' is another one: {what}; choose another --name")
    return study


def shown(graph: Spec) -> str:
    """A graph in one line."""
    models = ", ".join(node.model for node in graph.nodes)
    return f"{models}; {' | '.join(' '.join(row) for row in graph.gates)}"


def best(study: optuna.Study) -> Any:
    """The trial that validates best, the first one of equals; None where none has been completed."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(done, key=lambda trial: (-trial.value, trial.number), default=None)
