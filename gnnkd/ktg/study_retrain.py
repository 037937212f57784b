"""The graph that a search has found, trained again: beside node 0's network alone and mutual learning, seed by seed.

All three train on training and validation rows together and keep the last epoch; what is compared is test accuracy.
All seeds have the split of the search, whose test rows nothing has looked at before: a seed varies initialisation,
order and dropout. Networks that are trained alone first are those of the stage `tea`, on that split, too: they keep
their validation rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd import paired
from gnnkd.errors import UserError
from gnnkd.ktg import places, results, stages, study
from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.stages import Task
from gnnkd.ktg.study import Search
from gnnkd.ktg.study_storage import held
from gnnkd.places import Place, read_json, read_result, summarise
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
        split_seed: the search's, which split the rows.
        seeds: of the trainings.
        accuracies: by name of the graph or control, of each seed, in [0, 1]; the graph is the first one.
    """

    trial: int
    split_seed: int
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
        found: dict[str, Any] = {"trial": self.trial, "split_seed": self.split_seed, "seeds": list(self.seeds)}
        return found | {"test_acc": self.accuracies, "less": tests}

    @staticmethod
    def of(tree: Mapping[str, Any]) -> Compared:
        """From `plain`, with the names in any order."""
        graph = named(tree["trial"])
        accuracies = {name: tree["test_acc"][name] for name in sorted(tree["test_acc"], key=lambda name: name != graph)}
        return Compared(tree["trial"], tree["split_seed"], tuple(tree["seeds"]), accuracies)


def named(number: int) -> str:
    """What a trial's graph is called among the graphs that are trained again."""
    return f"trial{number}"


def file(search: Search, number: int) -> Path:
    """The comparison of a trial."""
    return search.folder / f"retrain-trial{number}.json"


def there(search: Search) -> list[Compared]:
    """All comparisons of a search, by trial.

    Raises:
        UserError: one cannot be read.
    """
    found = [Compared.of(read_json(one)) for one in search.folder.glob("retrain-trial*.json")]
    return sorted(found, key=lambda one: one.trial)


def _spread(values: Sequence[float], *, signed: bool = False) -> str:
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.2%}"
    return mean + (f" +- {statistics.stdev(values):.2%}" if len(values) > 1 else "")


def _seeds(seeds: Sequence[int]) -> str:
    many = f"{len(seeds)} seeds on one split (mean, standard deviation with ddof 1)"
    return f"seed {seeds[0]}" if len(seeds) == 1 else many


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
        drawn = {str(t.number): t for t in found.get_trials(deepcopy=False) if t.params}
        if said not in drawn:
            raise UserError(f"retrain is '{said}'; it must be best, or the number of a trial that there is")
        trial = drawn[said]
    graph = search.space.graph(trial.params)
    if lack := search.lack(graph):
        raise UserError(f"trial {trial.number}: {lack}")
    return trial.number, graph


def compare(search: Search, number: int, graph: Spec, seeds: Sequence[int]) -> Compared:
    """Train a trial's graph and its controls with each seed, unless they are there; the comparison is written, too.

    Raises:
        UserError: a place is taken by something else.
    """
    arms = {named(number): graph, f"single-{search.space.models[0]}": search.space.single()}
    if search.space.nodes > 1:
        arms[f"{named(number)}-dml"] = search.space.mutual(graph)
    accuracies: dict[str, list[float]] = {name: [] for name in arms}
    for seed in seeds:
        task = search.seeded(seed)
        for name, spec in arms.items():
            accuracies[name].append(float(_trained(search, name, spec, task)["test_acc"]))
    found = Compared(number, search.task.seed, tuple(seeds), accuracies)
    write_json(file(search, number), found.plain())
    return found


def _trained(search: Search, name: str, spec: Spec, task: Task) -> dict[str, Any]:
    """The result of one training, of several processes by the first that comes."""
    plans = planned(spec, task.seed)
    place = Place(search.folder / name / f"seed{task.seed}")
    with held([place.folder.parent / f"{place.folder.name}.lock"]):
        description = places.described(plans, task, split_seed=search.task.seed)
        if not places.claim(place, description, plans.first, resume=True):
            return read_result(place.result)
        settled = search.settled(spec, task)
        reached = stages.run(task, settled, search.progress, place=place, resume=True, retrain=True)
        about = f"{name} of {search.name}, on training and validation (split {search.task.seed}), seed {task.seed}"
        title = f"{task.name} ({task.protocol}), {about}"
        found = results.finish(reached, place, spec, title=title)
        summarise(place)
    search.say(f"{name}, seed {task.seed}: test {found['test_acc']:.2%} ({place.folder})")
    return found
