"""Networks of graphs and rows that teach each other: the laws of the loop around one batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gnnkd import distillers, nn
from gnnkd.data.task import NodeTask
from gnnkd.distillers.losses import soft_kl
from gnnkd.train.fit import Fit, Progress
from gnnkd.train.settings import TrainSettings
from gnnkd.train.together.gates import gate
from gnnkd.train.together.node import Edge, Node
from gnnkd.train.together.whole import TogetherWhole
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Output, Step

EPOCHS = 8
SETTINGS = TrainSettings(epochs=EPOCHS, checkpoint_every=1000)
KINDS = ("gcn", "sage", "mlp")


def _network(kind: str, seed: int = 0, **options: Any) -> nn.Network:
    torch.manual_seed(seed)
    return nn.MODELS[kind](48, 3, **{"layers": 2, "width": 8, "dropout": 0.0, **options})


def _kl() -> distillers.Distiller:
    return distillers.build("kd", ce_weight=0.0, kd_weight=1.0, temperature=2.0)


def _nodes(gates: Sequence[str], settings: TrainSettings = SETTINGS, **options: Any) -> list[Node]:
    """A node for each row of the matrix of gates, of all kinds in turn; letters are the gates' first ones."""
    names = {name[:1]: name for name in ("through", "positive", "negative", "cutoff")} | {"r": "correct"}
    found = []
    for i, row in enumerate(gates):
        methods = [distillers.build("supervised") if i == j else _kl() for j in range(len(row))]
        edges = [Edge(None if i == j else j, methods[j], gate(names[letter])) for j, letter in enumerate(row)]
        kind = KINDS[i % len(KINDS)]
        found.append(Node(kind, _network(kind, i, **options), settings, tuple(edges), frozen=set(row) == {"c"}))
    return found


def _course(given: NodeTask, nodes: Sequence[Node], mask: Tensor | None = None, **more: Any) -> TogetherWhole:
    val = given.split.val if mask is None else mask
    return TogetherWhole(nodes, given.batch(given.split.train), (given.y, val), **more)


def _assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, t in one.items():
        torch.testing.assert_close(t, other[name], rtol=0, atol=0, equal_nan=True, msg=name)


def _of(weights: Mapping[str, Tensor], node: int) -> dict[str, Tensor]:
    return {k.removeprefix(f"{node}."): t for k, t in weights.items() if k.startswith(f"{node}.")}


# -- equal to what it generalises --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gcn", "mlp"])
def test_a_node_beside_a_frozen_one_is_kd_bit_for_bit(nodes: NodeTask, kind: str) -> None:
    """Dropout included: the whole training of a student of `kd`, weight by weight and epoch by epoch."""
    batch, teacher = nodes.batch(nodes.split.train), _network("gcn", 7, width=16).eval()
    with torch.no_grad():
        said = Output(teacher(batch.x, batch.graph).logits)
    student = _network(kind, 0, dropout=0.5)
    course = WholeBatch(student, batch, distillers.build("kd"), said, (nodes.y, nodes.split.val), SETTINGS)
    torch.manual_seed(5)
    expected = Fit(course, SETTINGS).run()

    edges = (
        Edge(None, distillers.build("supervised"), gate("through"), 1 - 0.9),
        Edge(1, distillers.build("kd", alpha=0.9), gate("through")),
    )
    pair = [
        Node(kind, _network(kind, 0, dropout=0.5), SETTINGS, edges),
        Node("gcn", _network("gcn", 7, width=16), SETTINGS, (), frozen=True),
    ]
    together = _course(nodes, pair)
    torch.manual_seed(5)
    found = Fit(together, SETTINGS).run()
    _assert_same(_of(found.last, 0), expected.last)
    _assert_same(_of(found.best, 0), expected.best)
    _assert_same(_of(found.last, 1), teacher.state_dict())
    for row, other in zip(found.history, expected.history, strict=True):
        assert row["val_acc"] == other["val_acc"]
        assert (row["node0/ce"], row["node0/from1/kd"]) == (other["ce"], other["kd"])


def test_two_that_teach_each_other_are_the_loop_written_by_hand(nodes: NodeTask) -> None:
    pair = _nodes(["tt", "tt"])
    found = Fit(_course(nodes, pair), SETTINGS).run()
    batch, models = nodes.batch(nodes.split.train), [_network("gcn", 0), _network("sage", 1)]
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=5e-4) for m in models]
    for _ in range(EPOCHS):
        z = [m.train()(batch.x, batch.graph).logits for m in models]
        for i in range(2):
            optimizers[i].zero_grad()
            labelled = batch.labelled
            loss = functional.cross_entropy(z[i][labelled], batch.y[labelled]) + soft_kl(z[i], z[1 - i].detach(), 2.0)
            loss.backward()
            optimizers[i].step()
    for i, model in enumerate(models):
        for name, t in model.state_dict().items():
            torch.testing.assert_close(_of(found.last, i)[name], t, rtol=1e-4, atol=1e-6)


def test_the_order_of_nodes_changes_nothing_but_their_numbers(nodes: NodeTask) -> None:
    """All hear what the others said before any of them moved."""
    gates = ["tpn", "rtt", "nrt"]
    order = (0, 2, 1)
    first = Fit(_course(nodes, _nodes(gates)), SETTINGS).run()
    swapped = []
    for i in order:
        node = _nodes(gates)[i]
        edges = [replace(e, source=None if e.source is None else order.index(e.source)) for e in node.edges]
        swapped.append(replace(node, edges=tuple(edges)))
    second = Fit(_course(nodes, swapped), SETTINGS).run()
    for i in order:
        for name, t in _of(first.last, i).items():
            torch.testing.assert_close(_of(second.last, order.index(i))[name], t, rtol=1e-5, atol=1e-7)


def test_the_first_update_does_not_show_in_the_second(nodes: NodeTask) -> None:
    """Bit for bit: a node that hears others moves in its first step as it would if these stood still."""
    course = _course(nodes, _nodes(["tt", "tt"], TrainSettings(epochs=1)))
    still = _nodes(["tt", "tt"], TrainSettings(epochs=1))
    alone = _course(nodes, [replace(still[1], edges=(still[1].edges[1], replace(still[1].edges[0], source=1))),
                            replace(still[0], edges=(), frozen=True)])  # fmt: skip
    both, one = Fit(course, TrainSettings(epochs=1)).run(), Fit(alone, TrainSettings(epochs=1)).run()
    for name, t in _of(one.last, 0).items():
        torch.testing.assert_close(_of(both.last, 1)[name], t, rtol=1e-6, atol=1e-8)


# -- who runs, and how often -------------------------------------------------------------------------------------


def _counted(model: torch.nn.Module) -> list[bool]:
    """A list that grows with every forward pass by whether it was in training."""
    calls: list[bool] = []
    model.register_forward_hook(lambda m, _, __: calls.append(m.training))
    return calls


def test_a_frozen_node_is_asked_once_and_one_that_nobody_hears_for_its_score_alone(nodes: NodeTask) -> None:
    given = [*_nodes(["ttc", "ccc"]), Node("mlp", _network("mlp"), SETTINGS, (), frozen=True)]
    calls = [_counted(node.model) for node in given]
    before = copy.deepcopy(given[1].model.state_dict())
    found = Fit(_course(nodes, given), SETTINGS).run()
    assert calls[0] == [True, False] * EPOCHS
    assert calls[1] == [False, False], "one for its sources' sake, one for its score"
    assert calls[2] == [False]
    _assert_same(_of(found.last, 1), before)
    assert all(p.grad is None for p in given[1].model.parameters())
    assert len({row["val_acc_1"] for row in found.history}) == 1


def test_any_mix_of_networks_learns(nodes: NodeTask) -> None:
    settings = TrainSettings(epochs=40)
    found = Fit(_course(nodes, _nodes(["trn", "ptt", "ttt"], settings, dropout=0.5)), settings).run()
    last = found.history[-1]
    assert min(last["val_acc"], last["val_acc_1"], last["val_acc_2"]) > 0.6
    assert {"node0/ce", "node0/from1/kd", "node2/from0/kd"} <= last.keys()


def test_features_of_a_source_are_heard(nodes: NodeTask) -> None:
    """GK-DFD reads what weights multiply: of a frozen source and of one that trains."""
    edges = tuple(Edge(j, distillers.build("gkdfd", dim=8), gate("through")) for j in (1, 2))
    given = [Node("mlp", _network("mlp"), SETTINGS, edges), *_nodes(["ccc", "ctc", "cct"])[1:]]
    given[1] = replace(given[1], edges=(), frozen=True)
    course = _course(nodes, given, seed=3)
    start = {name: t.clone() for name, t in course.state().items()}
    found = Fit(course, SETTINGS).run()
    assert {"node0/from1/graph", "node0/from2/dfd", "node0/from2/gkdfd/edges"} <= found.history[-1].keys()
    moved = [
        name for name, t in course.state().items() if name.startswith("node0.edge") and not torch.equal(t, start[name])
    ]
    assert {name.split(".")[1] for name in moved} == {"edge0", "edge1"}


# -- followers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.75, 1.0, ((0, 0.5), (7, 1.0))])
def test_a_follower_is_a_moving_average(nodes: NodeTask, momentum: Any) -> None:
    given = _nodes(["t"])
    given.append(Node("twin", _network("gcn", 9), SETTINGS, (), follows=(0, momentum)))
    course = _course(nodes, given)
    mean = {name: t.clone() for name, t in given[0].model.state_dict().items()}
    _assert_same(given[1].model.state_dict(), mean)
    calls = _counted(given[1].model)
    fit = Fit(course, SETTINGS)
    for epoch in range(EPOCHS):
        fit._epoch(Step(epoch, EPOCHS))
        m = momentum if isinstance(momentum, float) else 0.5 + 0.5 * epoch / 7
        mean = {name: m * t + (1 - m) * given[0].model.state_dict()[name] for name, t in mean.items()}
        for name, t in given[1].model.state_dict().items():
            torch.testing.assert_close(t, mean[name], rtol=1e-5, atol=1e-7)
    assert calls == [True] * EPOCHS, "in train mode in each step, and never asked for a score"
    assert not any(p.requires_grad for p in given[1].model.parameters())


# -- what is kept ------------------------------------------------------------------------------------------------


def test_each_node_keeps_its_own_first_best(nodes: NodeTask) -> None:
    settings = TrainSettings(epochs=30)
    seen: list[list[dict[str, Tensor]]] = []
    course = _course(nodes, _nodes(["ttt", "ttt", "ttt"], settings))
    inner = course.epoch

    def epoch(step: Any) -> Any:
        done = inner(step)
        seen.append([copy.deepcopy(node.model.state_dict()) for node in course.nodes])
        return done

    course.epoch = epoch  # type: ignore[method-assign]
    found = Fit(course, settings).run()
    for i, best in enumerate(course.bests):
        scores = [row["val_acc" if i == 0 else f"val_acc_{i}"] for row in found.history]
        assert best.score == max(scores)
        assert best.epoch == scores.index(max(scores))
        _assert_same(best.weights, seen[best.epoch][i])
    assert found.best_epoch == course.bests[0].epoch
    _assert_same(_of(found.best, 0), course.bests[0].weights)
    assert len({best.epoch for best in course.bests}) > 1


def test_without_validation_the_last_epoch_is_kept_of_all(nodes: NodeTask) -> None:
    course = _course(nodes, _nodes(["tt", "tt"]), torch.zeros(nodes.y.numel(), dtype=torch.bool))
    found = Fit(course, SETTINGS).run()
    assert found.best_epoch == EPOCHS - 1
    assert not any(name.startswith("val_acc") for name in found.history[-1])
    for i, best in enumerate(course.bests):
        assert (best.score, best.epoch) == (None, EPOCHS - 1)
        _assert_same(best.weights, _of(found.last, i))


class _Stop:
    """A report that stops a run after some epochs, as a crash would."""

    def within(self, epoch: int, share: float) -> None:
        """Nothing to say."""

    def update(self, epoch: int, values: object) -> None:
        if epoch == 4:
            raise MemoryError


def _mixed(given: NodeTask, file: Path | None, every: int = 1000) -> tuple[TogetherWhole, Fit]:
    settings = replace(SETTINGS, checkpoint_every=every)
    some = _nodes(["trnc", "ptrt", "nttt", "cccc"], settings, dropout=0.5)
    method = distillers.build("gkdfd", dim=8)
    some[1] = replace(some[1], edges=(*some[1].edges, Edge(3, method, gate("positive"))))
    some.append(Node("twin", _network("gcn", dropout=0.5), settings, (), follows=(0, 0.5)))
    torch.manual_seed(11)
    course = _course(given, some)
    return course, Fit(course, settings, file=file, key="k")


def test_a_run_killed_and_continued_is_the_run_in_one(nodes: NodeTask, tmp_path: Path) -> None:
    course, fit = _mixed(nodes, None)
    expected = fit.run()
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(MemoryError):
        _mixed(nodes, file, 3)[1].run(_Stop())
    other, again = _mixed(nodes, file)
    torch.manual_seed(99)
    assert again.restore() == 3
    reached: Progress = again.run()
    assert reached.history == expected.history
    _assert_same(reached.last, expected.last)
    _assert_same(reached.best, expected.best)
    _assert_same(other.state(), course.state())
    _assert_same(other.optimizer_state(), course.optimizer_state())
    assert [(b.score, b.epoch) for b in other.bests] == [(b.score, b.epoch) for b in course.bests]


# -- what is not read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["val", "test"])
def test_labels_outside_training_touch_no_weight(nodes: NodeTask, part: str) -> None:
    """Whatever the gates, that of correct rows included."""
    mask = getattr(nodes.split, part)
    y = nodes.y.clone()
    y[mask] = y[mask].roll(1)
    assert not torch.equal(y, nodes.y)
    both = [
        Fit(_course(task, _nodes(["trn", "rtr", "rrt"], dropout=0.5)), SETTINGS)
        for task in (nodes, replace(nodes, y=y))
    ]
    runs = []
    for fit in both:
        torch.manual_seed(1)
        runs.append(fit.run())
    _assert_same(runs[0].last, runs[1].last)
    assert any(row["node0/from1/kd"] > 0 for row in runs[0].history)
    if part == "test":
        assert runs[0].history == runs[1].history


def test_the_optimizer_may_be_another(nodes: NodeTask) -> None:
    def sgd(params: Mapping[str, Tensor], settings: TrainSettings) -> torch.optim.Optimizer:
        assert any(name.endswith("weight") for name in params)
        return torch.optim.SGD(params.values(), lr=settings.lr)

    given = _nodes(["t"])
    start = copy.deepcopy(given[0].model)
    course = _course(nodes, given, make_optimizer=sgd)
    Fit(course, TrainSettings(epochs=1)).run()
    batch = nodes.batch(nodes.split.train)
    loss = functional.cross_entropy(start(batch.x, batch.graph).logits[batch.labelled], batch.y[batch.labelled])
    loss.backward()
    for p, q in zip(given[0].model.parameters(), start.parameters(), strict=True):
        assert q.grad is not None
        torch.testing.assert_close(p.detach(), (q - 0.01 * q.grad).detach(), rtol=1e-5, atol=1e-7)
