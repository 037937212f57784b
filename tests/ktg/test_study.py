"""The search for a graph of networks: what it chooses among, what a trial's end means, processes that come and go."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gnnkd.data import images
from gnnkd.errors import UserError
from gnnkd.ktg import stages, study, study_report, study_retrain, study_storage, study_trials
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.stages import Task
from gnnkd.ktg.study import Search
from gnnkd.ktg.study_retrain import Compared
from gnnkd.ktg.study_space import Space
from gnnkd.paired import outcomes, wilcoxon
from gnnkd.train.checkpoint import write_json
from gnnkd.train.fit import DivergedError
from gnnkd.train.progress import Silent
from gnnkd.train.together.gates import GATES

searches = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed (pip install 'gnnkd[search]')"
)
ALL = tuple(GATES)
SAID = {"dataset": "digits-images", "train": {"epochs": 9}}


def space(nodes: int = 2, models: tuple[str, ...] = ("cnn_small", "cnn"), gates: tuple[str, ...] = ALL) -> Space:
    return Space.of(SAID, nodes, models, gates)


# -- what is searched --------------------------------------------------------------------------------------------


def test_every_ordered_pair_has_a_gate_and_every_node_but_the_first_a_model() -> None:
    choices = space(nodes=3).choices()
    gates = {f"{i}_{j}_gate" for i in range(3) for j in range(3)}
    assert choices.keys() == gates | {"1_model", "2_model"}
    assert choices["1_model"] == ["cnn_small", "cnn"]
    assert all(set(choices[name]) == set(ALL) - ({"correct"} if name[0] == name[2] else set()) for name in gates)


def test_a_choice_is_the_graph_that_it_says() -> None:
    chosen = {
        "1_model": "cnn",
        "0_0_gate": "negative",
        "0_1_gate": "correct",
        "1_0_gate": "cutoff",
        "1_1_gate": "cutoff",
    }
    graph = space().graph(chosen)
    said = {**SAID, "nodes": ["cnn_small", "cnn"], "gates": [["negative", "correct"], ["cutoff", "cutoff"]]}
    assert graph == Spec.of(said)
    assert graph.alone() == [1]


def test_controls_are_node_0_alone_and_mutual_learning_with_the_same_training() -> None:
    found = Space.of({**SAID, "temperature": 2.0}, 3, ["cnn_small", "cnn"], ALL)
    graph = found.graph({name: choices[-1] for name, choices in found.choices().items()})
    single, mutual = found.single(), found.mutual(graph)
    assert (single.nodes, single.gates) == (graph.nodes[:1], (("through",),))
    assert (mutual.nodes, mutual.gates) == (graph.nodes, (("through",) * 3,) * 3)
    assert mutual.temperature == 2.0
    assert single.train == mutual.train == graph.train == {"epochs": 9}


def test_every_model_is_seen_before_a_search() -> None:
    assert [node.model for node in space(models=("cnn_small", "cnn", "vgg8")).everyone().nodes] == [
        "cnn_small", "cnn", "vgg8",
    ]  # fmt: skip
    assert len(space(models=("cnn",)).everyone().nodes) == 2
    assert len(space(nodes=1, models=("cnn",)).everyone().nodes) == 1


@pytest.mark.parametrize(
    ("nodes", "models", "gates", "words"),
    [
        (0, ["cnn"], ALL, "one node or more"),
        (2, [], ALL, "models is empty"),
        (2, ["cnn"], ["thruogh"], "did you mean 'through'"),
        (2, ["cnn"], ["cutoff", "correct"], "no label passes"),
    ],
)
def test_a_space_without_a_graph_is_refused(nodes: int, models: list[str], gates: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Space.of(SAID, nodes, models, gates)


def test_a_search_without_optuna_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=re.escape("pip install 'gnnkd[search]'")):
        study_storage.package()


# -- trials ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal waits for the disk after each line, which takes most of a test's time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def task() -> Task:
    return images.task(images.load("digits-images"), seed=0)


Make = Callable[..., Search]


@pytest.fixture
def made(tmp_path: Path, task: Task) -> Make:
    """Makes a search whose lines are kept in `said`."""

    def make(
        where: Space | None = None, folder: str = "runs", name: str = "one", said: list[str] | None = None
    ) -> Search:
        lines: list[str] = [] if said is None else said
        return Search(where or space(), task, tmp_path / folder, name, Silent(), lines.append)

    return make


def score(graph: Spec) -> float:
    """What a stand-in for a training reaches: the more open gates, the better."""
    return sum(gate == "through" for row in graph.gates for gate in row) / 10 + len(graph.nodes[-1].model) / 1000


def reached(graph: Spec, value: float) -> Any:
    models = [node.model for node in graph.nodes]
    bests = tuple(SimpleNamespace(score=value, epoch=3) for _ in models)
    return SimpleNamespace(score=value, bests=bests, plans=SimpleNamespace(model=lambda i: models[i]))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Spec]]:
    """The graphs that were trained; a stand-in climbs to its score in its epochs."""
    graphs: list[Spec] = []

    def run(task: Task, graph: Spec, progress: Any, *, report: Callable[[int, float], None]) -> Any:
        graphs.append(graph)
        epochs = int(graph.train["epochs"])
        for epoch in range(epochs):
            report(epoch, score(graph) * (epoch + 1) / epochs)
        return reached(graph, score(graph))

    def settled(self: Search, graph: Spec, task: Task) -> Spec:
        return graph

    monkeypatch.setattr(stages, "run", run)
    monkeypatch.setattr(Search, "settled", settled)
    return graphs


def searched(search: Search, trials: int, url: str | None = None) -> list[Any]:
    """All trials after a search of so many."""
    with study_storage.opened(search.folder, url) as storage:
        found = study.opened(search, storage)
        study_trials.run(search, found, trials)
        return found.get_trials()


def states(trials: list[Any]) -> list[str]:
    return [trial.state.name for trial in trials]


@searches
def test_a_search_has_so_many_trials_in_all_and_the_best_is_the_first_of_equals(
    made: Make, trained: list[Spec]
) -> None:
    search = made()
    assert len(searched(search, 4)) == 4
    trials = searched(search, 12)
    assert [trial.number for trial in trials] == list(range(12))
    assert len(searched(search, 12)) == 12, "enough are there"
    with study_storage.opened(search.folder, None) as storage:
        best = study.best(study.opened(search, storage))
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert best.value == max(trial.value for trial in complete)
    assert best.number == min(trial.number for trial in complete if trial.value == best.value)
    assert best.value == pytest.approx(score(search.space.graph(best.params)))


@searches
def test_a_search_repeats_itself_and_another_seed_does_not(
    made: Make, trained: list[Spec], task: Task, tmp_path: Path
) -> None:
    first, again = (searched(made(folder=folder), 15) for folder in ("a", "b"))
    assert [t.params for t in first] == [t.params for t in again]
    assert states(first) == states(again)
    other = images.task(images.load("digits-images"), seed=1)
    unlike = searched(Search(space(), other, tmp_path / "c", "one", Silent(), lambda _: None), 15)
    assert [t.params for t in first] != [t.params for t in unlike]


@searches
@pytest.mark.parametrize("epochs", [9, 20, 27])
def test_trials_that_fall_behind_end_early(made: Make, trained: list[Spec], epochs: int) -> None:
    """After two thirds of the epochs at the latest; a step of Hyperband may be later (18 of 20)."""
    said: list[str] = []
    where = Space.of({**SAID, "train": {"epochs": epochs}}, 2, ("cnn_small", "cnn"), ALL)
    trials = searched(made(where, said=said), 20)
    early = [t for t in trials if t.state.name == "PRUNED" and study_trials.REFUSED not in t.user_attrs]
    assert 3 <= len(early) <= 17
    assert all(study.LEAST <= t.last_step <= epochs * 2 / 3 for t in early)
    assert all(f"trial {t.number}: ended early, after {t.last_step} epochs" in "\n".join(said) for t in early)
    assert len([line for line in said if "ended early" in line]) == len(early)


@searches
def test_a_graph_in_which_node_0_learns_nothing_is_told_and_not_run(made: Make, trained: list[Spec]) -> None:
    said: list[str] = []
    trials = searched(made(space(gates=("positive", "cutoff")), said=said), 16)
    refused = [t for t in trials if study_trials.REFUSED in t.user_attrs]
    assert refused
    assert all(t.state.name == "PRUNED" for t in refused)
    assert all(graph.lack() is None for graph in trained)
    assert len([line for line in said if "node 0 (cnn_small) is the one that counts" in line]) == len(refused)


@searches
def test_a_gate_that_never_opens_in_one_epoch_is_no_end_of_the_search(made: Make) -> None:
    """Networks are trained here: the course refuses a node 0 whose gates are all 0."""
    said: list[str] = []
    once = Space.of({**SAID, "train": {"epochs": 1, "batch_size": 512}}, 1, ("cnn_small",), ("through", "positive"))
    trials = searched(made(once, said=said), 6)
    shut = [t for t in trials if t.params["0_0_gate"] == "positive"]
    assert 1 <= len(shut) <= 5
    assert all(study_trials.REFUSED in t.user_attrs for t in shut)
    assert all(t.state.name == "COMPLETE" for t in trials if t not in shut)


@searches
def test_a_graph_that_was_trained_is_not_trained_again(made: Make, trained: list[Spec]) -> None:
    trials = searched(made(space(nodes=1, models=("cnn",), gates=("through", "positive"))), 12)
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    same = [t for t in complete if study_trials.SAME in t.user_attrs]
    assert same
    assert all(t.value == trials[t.user_attrs[study_trials.SAME]].value for t in same)
    assert len(trained) == 12 - len(same)


@searches
def test_a_training_that_diverges_is_no_end_of_the_search(
    made: Make, trained: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    once, run = [True], stages.run

    def diverges(*given: Any, **named: Any) -> Any:
        if once:
            once.clear()
            raise DivergedError("the loss is not finite")
        return run(*given, **named)

    monkeypatch.setattr(stages, "run", diverges)
    trials = searched(made(), 3)
    assert trials[0].state.name == "PRUNED"
    assert trials[0].user_attrs[study_storage.WHY] == "the loss is not finite"
    assert len(trials) == 3


@searches
def test_a_mistake_ends_the_search_and_its_trial(
    made: Make, trained: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise UserError("no such thing")

    search, run = made(), stages.run
    monkeypatch.setattr(stages, "run", refuses)
    with pytest.raises(UserError, match="no such thing"):
        searched(search, 3)
    monkeypatch.setattr(stages, "run", run)
    trials = searched(search, 3)
    assert trials[0].state.name == "FAIL"
    assert trials[0].user_attrs[study_storage.WHY] == "no such thing"
    assert not any(study_storage.QUEUED in t.user_attrs for t in trials)
    assert len(trials) == 4, "what failed does not count"


@searches
def test_an_interrupted_graph_is_tried_again(made: Make, trained: list[Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    search, run = made(space(gates=("through", "positive"))), stages.run
    monkeypatch.setattr(stages, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(search, 3)
    monkeypatch.setattr(stages, "run", run)
    trials = searched(search, 3)
    assert states(trials)[0] == "FAIL"
    assert trials[1].params == trials[0].params
    assert trials[1].user_attrs[study_storage.QUEUED] == 0
    assert len(trials) == 4, "what failed does not count"


@searches
def test_another_search_of_the_same_name_is_refused(made: Make, trained: list[Spec]) -> None:
    searched(made(), 1)
    with pytest.raises(UserError, match=r"search 'one' is another one: space.gates is .*; choose another --name"):
        searched(made(space(gates=("through", "positive"))), 1)
    assert len(searched(made(space(gates=("through", "positive")), name="two"), 1)) == 1


@searches
def test_nothing_to_validate_nothing_to_search(made: Make, task: Task, tmp_path: Path) -> None:
    without = images.task(images.load("digits-images"), seed=0, val_fraction=0.0)
    with pytest.raises(UserError, match="no row of digits-images validates"):
        Search(space(), without, tmp_path, "one", Silent(), print).check()
    made().check()


# -- storage and processes ---------------------------------------------------------------------------------------


@searches
def test_a_database_is_a_storage_too(made: Make, trained: list[Spec], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = made()
    searched(search, 3, url)
    trials = searched(search, 6, url)
    assert [t.params for t in trials] == [t.params for t in searched(made(folder="journal"), 6)]


@searches
@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "what://x"])
def test_a_database_that_is_none_is_the_users_mistake(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--storage .* cannot be opened"), study_storage.opened(tmp_path, url):
        pass


@searches
def test_a_line_that_was_cut_off_is_no_end_of_a_journal(made: Make, trained: list[Spec]) -> None:
    search = made()
    before = searched(search, 3)
    file = study_storage.journal(search.folder)
    with file.open("a") as journal:
        journal.write('{"op_code":4,"worker_id":"x","stu')
    trials = searched(search, 5)
    assert [t.params for t in trials[:3]] == [t.params for t in before]
    assert len(trials) == 5
    assert all(json.loads(line) for line in file.read_text().splitlines())


@searches
def test_a_file_that_is_no_journal_is_the_users_mistake(made: Make, trained: list[Spec]) -> None:
    search = made()
    search.folder.mkdir(parents=True)
    study_storage.journal(search.folder).write_text("hello\nworld\n")
    with pytest.raises(UserError, match="no journal of a search"):
        searched(search, 1)


def test_of_two_who_need_the_same_network_one_trains_it(
    made: Make, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, inside, most = made(), [0], [0]

    def settled(plans: Any, *_: Any, **__: Any) -> Spec:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        return plans.spec  # type: ignore[no-any-return]

    monkeypatch.setattr(study.alone, "settled", settled)
    cut = {"1_model": "cnn", "0_0_gate": "through", "0_1_gate": "through", "1_0_gate": "cutoff", "1_1_gate": "cutoff"}
    graph = search.space.graph(cut)
    threads = [threading.Thread(target=search.settled, args=(graph, task)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_a_network_that_hears_nothing_is_trained_once(task: Task, tmp_path: Path) -> None:
    found = Space.of({**SAID, "train": {"epochs": 1}}, 2, ["cnn_small"], ALL)
    search = Search(found, task, tmp_path, "one", Silent(), print)
    cut = {"1_model": "cnn_small", "0_0_gate": "through", "0_1_gate": "correct"}
    graph = found.graph({**cut, "1_0_gate": "cutoff", "1_1_gate": "cutoff"})
    settled = search.settled(graph, task)
    weights = Path(str(settled.nodes[1].weights))
    assert weights == search.root / "cnn_small" / "teacher" / "seed0" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert search.settled(graph, task) == settled
    assert weights.stat().st_mtime_ns == written
    other = search.settled(graph, search.seeded(1))
    tagged = search.root / "cnn_small" / "teacher@one" / "seed1"
    assert Path(str(other.nodes[1].weights)) == tagged / "model.safetensors"
    assert not (search.root / "cnn_small" / "teacher" / "seed1").exists(), "it would be on another split"


def test_seeds_of_one_search_have_its_split(made: Make, task: Task) -> None:
    search = made()
    other = search.seeded(5)
    assert other.seed == 5
    assert all(torch.equal(getattr(other.split, name), getattr(task.split, name)) for name in ("train", "val", "test"))
    assert other.fingerprint != task.fingerprint, "its files are not those of seed 5, nor those of the search"
    assert other.fingerprint != images.task(images.load("digits-images"), seed=5).fingerprint
    with_index = next(iter(other.epoch(0, 64))).index, next(iter(task.epoch(0, 64))).index
    assert not torch.equal(*with_index), "order and crops are those of the seed"


WORKER = """
import sys, time
sys.path[:0] = [{here!r}, {root!r}]
import test_study as t
from gnnkd.data import images
from gnnkd.ktg import stages, study
from gnnkd.ktg.study import Search
from gnnkd.train.progress import Silent
from pathlib import Path

def run(task, graph, progress, *, report):
    print("began", flush=True)
    time.sleep({seconds})
    return t.reached(graph, t.score(graph))

stages.run = run
Search.settled = lambda self, graph, task: graph
task = images.task(images.load("digits-images"), seed=0)
t.searched(Search(t.space(gates=("through", "positive")), task, Path({out!r}), "one", Silent(), print), {trials})
"""


def worker(search: Search, trials: int, seconds: float) -> subprocess.Popen[str]:
    """Another process at work on a search; a trial takes it so long."""
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    program = WORKER.format(here=str(here), root=str(root), out=str(search.out), seconds=seconds, trials=trials)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)


@searches
def test_a_killed_search_continues(made: Make, trained: list[Spec]) -> None:
    said: list[str] = []
    search = made(space(gates=("through", "positive")), said=said)
    process = worker(search, 3, seconds=600)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    trials = searched(search, 3)
    assert states(trials)[0] == "FAIL"
    assert "trial 0 was running when its process ended" in said[0]
    assert trials[1].params == trials[0].params
    assert len([s for s in states(trials) if s in ("COMPLETE", "PRUNED")]) == 3
    assert len(trials) == 4


@searches
def test_two_processes_share_the_trials(made: Make, trained: list[Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    search, run = made(space(gates=("through", "positive"))), stages.run

    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return run(*given, **named)

    monkeypatch.setattr(stages, "run", slow)
    process = worker(search, 10, seconds=0.2)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    trials = searched(search, 10)
    process.communicate(timeout=60)
    assert process.returncode == 0
    trials = searched(search, 10)
    assert [t.number for t in trials] == list(range(10)), "no number twice, none too many"
    assert len({t.user_attrs[study_storage.WORKER] for t in trials}) == 2
    assert {t.state.name for t in trials} <= {"COMPLETE", "PRUNED"}


# -- the report --------------------------------------------------------------------------------------------------


@searches
def test_the_report_is_a_page_of_its_own_and_the_best_graph_a_file(made: Make, trained: list[Spec]) -> None:
    search = made()
    searched(search, 14)
    with study_storage.opened(search.folder, None) as storage:
        found = study.opened(search, storage)
        both = [Compared(k, 0, (0, 1), {f"trial{k}": [0.9, 0.8], "<single>": [0.7, 0.6]}) for k in (10, 2)]
        for one in both:
            write_json(study_retrain.file(search, one.trial), one.plain())
        study_report.write(search, found)
        first, weights = study.best(found), study_report.importances(found)
        line = study_report.summary(search, found)
    page = (search.folder / "search.html").read_text()
    assert not re.search(r"(src|href)=\"?https?:", page)
    assert len(re.findall(r'src="data:image/(?:png|svg\+xml);base64,', page)) == 2
    assert base64.b64encode((search.folder / "search.png").read_bytes()).decode() in page
    assert "trial2 less &lt;single&gt;: +20.00%" in page
    assert page.index("Trial 2 trained again") < page.index("Trial 10 trained again")
    assert study_retrain.there(search) == both[::-1]
    assert page.count("<tr>") == 1 + 14
    assert Spec.of(yaml.safe_load((search.folder / "best.yaml").read_text())) == search.space.graph(first.params)
    assert sum(weights.values()) == pytest.approx(1)
    assert list(weights.values()) == sorted(weights.values(), reverse=True)
    assert f"best validation {first.value:.2%} of trial {first.number}" in line
    assert "14 trials" in line


@searches
def test_a_search_without_a_trial_has_a_report(made: Make) -> None:
    search = made()
    with study_storage.opened(search.folder, None) as storage:
        found = study.opened(search, storage)
        study_report.write(search, found)
        assert "none of them complete" in study_report.summary(search, found)
        with pytest.raises(UserError, match="no trial of this search is complete"):
            study_retrain.chosen(search, found, "best")
    assert (search.folder / "search.html").exists()


@searches
def test_what_is_trained_again_is_the_best_or_a_number(made: Make, trained: list[Spec]) -> None:
    search = made(space(gates=("positive", "cutoff")))
    searched(search, 12)
    with study_storage.opened(search.folder, None) as storage:
        found = study.opened(search, storage)
        first = study.best(found)
        assert study_retrain.chosen(search, found, "best") == (first.number, search.space.graph(first.params))
        assert study_retrain.chosen(search, found, str(first.number))[0] == first.number
        refused = next(t.number for t in found.get_trials() if study_trials.REFUSED in t.user_attrs)
        with pytest.raises(UserError, match=f"trial {refused}: node 0"):
            study_retrain.chosen(search, found, str(refused))
        with pytest.raises(UserError, match="retrain is 'worst'; it must be best, or the number"):
            study_retrain.chosen(search, found, "worst")


# -- the comparison ----------------------------------------------------------------------------------------------


def test_a_comparison_is_paired_by_seed() -> None:
    found = Compared(7, 3, (0, 1, 2), {"trial7": [0.9, 0.8, 0.7], "single": [0.8, 0.8, 0.5]})
    assert found.differences("single") == pytest.approx([0.1, 0.0, 0.2])
    lines = found.lines()
    assert lines[0] == "trial7: test 80.00% +- 10.00%, 3 seeds on one split (mean, standard deviation with ddof 1)"
    assert lines[2] == (
        "trial7 less single: +10.00% +- 10.00%, above/equal/below 2/1/0, p 0.5 (paired signed-rank test)"
    )
    assert found.plain()["less"]["single"]["mean"] == pytest.approx(0.1)
    assert Compared(7, 3, (4,), {"trial7": [0.9], "single": [0.8]}).lines()[0] == "trial7: test 90.00%, seed 4"


@pytest.mark.parametrize("n", [3, 5, 8])
def test_the_signed_rank_test_is_that_of_scipy_where_that_is_exact(n: int) -> None:
    from scipy.stats import wilcoxon as theirs

    for seed in range(5):
        d = list(np.random.default_rng(seed).normal(0.3, 1, n))
        assert wilcoxon(d) == pytest.approx(theirs(d, method="exact").pvalue)
        assert wilcoxon(d, "greater") == pytest.approx(theirs(d, alternative="greater", method="exact").pvalue)
    assert wilcoxon([0.0, 1e-12]) == 1.0
    assert outcomes([0.1, 0.0, -0.2, -0.1]) == "1/1/2"
