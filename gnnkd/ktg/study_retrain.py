"""The graph that a search has found, trained again: beside node 0's network alone and mutual learning, seed by seed.

All three train on training and validation rows together and keep the last epoch; what is compared is test accuracy,
which nothing has looked at before. Networks that are trained alone first are those of the stage `tea`: they keep their
own validation rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from gnnkd import paired
from gnnkd.errors import UserError
from gnnkd.ktg import places, results, stages, study
from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.stages import Task
from gnnkd.ktg.study import Search
from gnnkd.ktg.study_storage import held
from gnnkd.places import Place, read_result, summarise
from gnnkd.train.checkpoint import write_json

if TYPE_CHECKING:
    import optuna

BEST = "best"


@final
@dataclass(frozen=True)
class Compared:
    """Test accuracies of a graph and of its controls.

    Args:
        trial: number of the graph's trial.
        seeds: of the trainings.
        accuracies: by name of the graph or control, of each seed, in [0, 1]; the graph is the first one.
    """

    trial: int
    seeds: tuple[int, ...]
    accuracies: dict[str, list[float]]

    def differences(self, control: str) -> list[float]:
        """The graph's accuracy less a control's, of each seed."""
        graph = next(iter(self.accuracies))
        return [a - b for a, b in zip(self.accuracies[graph], self.accuracies[control], strict=True)]

    def lines(self) -> list[str]:
        """In words: mean and spread of each, then each control's differences and the test of them."""
        graph, *controls = self.accuracies
        said = [f"{name}: test {_spread(found)}, {_seeds(self.seeds)}" for name, found in self.accuracies.items()]
        for name in controls:
            differences = self.differences(name)
            said.append(
                f"{graph} less {name}: {_spread(differences, signed=True)}, above/equal/below "
                f"{paired.outcomes(differences)}, p {paired.wilcoxon(differences):.3g} (paired signed-rank test)"
            )
        return said

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        _, *controls = self.accuracies
        tests = {
            name: {"mean": statistics.fmean(d), "differences": d, "p": paired.wilcoxon(d)}
            for name, d in ((name, self.differences(name)) for name in controls)
        }
        return {"trial": self.trial, "seeds": list(self.seeds), "test_acc": self.accuracies, "less": tests}


def _spread(values: Sequence[float], *, signed: bool = False) -> str:
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.2%}"
    return mean + (f" +- {statistics.stdev(values):.2%}" if len(values) > 1 else "")


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds (mean, standard deviation with ddof 1)"


def chosen(search: Search, found: optuna.Study, said: str) -> tuple[int, Spec]:
    """The number and the graph of a trial: the best one, or that of a number.

    Raises:
        UserError: there is no such trial, or its graph cannot be trained.
    """
    if said == BEST:
        trial = study.best(found)
        if trial is None:
            raise UserError("no trial of this search is complete; give more of them with --trials")
    else:
        there = {str(t.number): t for t in found.get_trials(deepcopy=False) if t.params}
        if said not in there:
            raise UserError(f"retrain is '{said}'; it must be best, or the number of a trial that there is")
        trial = there[said]
    graph = search.space.graph(trial.params)
    if lack := graph.lack():
        raise UserError(f"trial {trial.number}: {lack}")
    return trial.number, graph


def compare(search: Search, number: int, graph: Spec, tasks: Callable[[int], Task], seeds: Sequence[int]) -> Compared:
    """Train a trial's graph and its controls with each seed, unless they are there; the comparison is written, too.

    Args:
        tasks: the task of a seed.

    Raises:
        UserError: a place is taken by something else.
    """
    arms = {f"trial{number}": graph, f"single-{search.space.models[0]}": search.space.single()}
    if search.space.nodes > 1:
        arms[f"trial{number}-dml"] = search.space.mutual(graph)
    accuracies: dict[str, list[float]] = {name: [] for name in arms}
    for seed in seeds:
        task = tasks(seed)
        for name, spec in arms.items():
            accuracies[name].append(float(_trained(search, name, spec, task)["test_acc"]))
    found = Compared(number, tuple(seeds), accuracies)
    write_json(search.folder / "retrain.json", found.plain())
    return found


def _trained(search: Search, name: str, spec: Spec, task: Task) -> dict[str, Any]:
    """The result of one training, of several processes by the first that comes."""
    plans = planned(spec, task.seed)
    place = Place(search.folder / name / f"seed{task.seed}")
    with held([place.folder.parent / f"{place.folder.name}.lock"]):
        if not places.claim(place, places.described(plans, task, retrain=True), plans.first, resume=True):
            return read_result(place.result)
        settled = search.settled(spec, task)
        reached = stages.run(task, settled, search.progress, place=place, resume=True, retrain=True)
        title = f"{task.name} ({task.protocol}), {name} of {search.name}, on training and validation, seed {task.seed}"
        found = results.finish(reached, place, spec, title=title)
        summarise(place)
    search.say(f"{name}, seed {task.seed}: test {found['test_acc']:.2%} ({place.folder})")
    return found
