"""Networks of images that teach each other: the laws of the loop around many batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gnnkd import distillers
from gnnkd.data.image_task import ImageTask
from gnnkd.data.image_task import task as image_task
from gnnkd.data.images import digits
from gnnkd.distillers.losses import soft_kl
from gnnkd.errors import UserError
from gnnkd.nn.images.cnn import cnn, cnn_small
from gnnkd.train.fit import Fit, Progress
from gnnkd.train.images import image_fit
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.together.gates import gate
from gnnkd.train.together.minibatches import TogetherMinibatches
from gnnkd.train.together.node import Edge, Node
from gnnkd.types import Output

EPOCHS = 4
Toy = Callable[..., ImageTask]


def _settings(**given: Any) -> ImageTrainSettings:
    return ImageTrainSettings(**{"epochs": EPOCHS, "batch_size": 16, "checkpoint_every": 1000, "lr": 0.05, **given})


def _network(seed: int, *, small: bool = True, classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return cnn_small(1, classes) if small else cnn(1, classes, width=16)


def _method(name: str, **options: Any) -> distillers.Distiller:
    return distillers.build(name, **options)


def _kl() -> distillers.Distiller:
    return _method("kd", ce_weight=0.0, kd_weight=1.0, temperature=2.0)


def _own(gated: str = "through") -> Edge:
    return Edge(None, _method("supervised"), gate(gated))


def _from(source: int, gated: str = "through", method: distillers.Distiller | None = None) -> Edge:
    return Edge(source, method or _kl(), gate(gated))


def _node(seed: int, *edges: Edge, settings: ImageTrainSettings | None = None, **more: Any) -> Node:
    return Node("cnn_small", _network(seed), settings or _settings(), edges, **more)


def _pair(**given: Any) -> list[Node]:
    settings = [_settings(**given), _settings(**{**given, "lr": 0.02, "milestones": (0.5,)})]
    return [_node(0, _own(), _from(1), settings=settings[0]), _node(1, _own(), _from(0), settings=settings[1])]


def _run(given: Sequence[Node], images: Any, **more: Any) -> tuple[TogetherMinibatches, Progress]:
    course = TogetherMinibatches(given, images, **more)
    return course, Fit(course, given[0].settings).run()


def _assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, t in one.items():
        torch.testing.assert_close(t, other[name], rtol=0, atol=0, equal_nan=True, msg=name)


def _of(weights: Mapping[str, Tensor], node: int) -> dict[str, Tensor]:
    return {k.removeprefix(f"{node}."): t for k, t in weights.items() if k.startswith(f"{node}.")}


# -- equal to what it generalises --------------------------------------------------------------------------------


@pytest.mark.parametrize(("real", "cached"), [(False, False), (False, True), (True, False)])
def test_a_node_beside_a_frozen_one_is_kd_bit_for_bit(images: Toy, real: bool, cached: bool) -> None:
    data = image_task(digits("digits-images"), seed=0) if real else images()
    classes = len(data.classes)
    settings = _settings(epochs=2, batch_size=128 if real else 16, cache_teacher=cached)
    teacher, student = _network(9, small=False, classes=classes), _network(0, classes=classes)
    expected = image_fit(student, data, _method("kd"), teacher, settings, seed=0).run()
    edges = (Edge(None, _method("supervised"), gate("through"), 1 - 0.9), _from(1, method=_method("kd")))
    still = Node("cnn", _network(9, small=False, classes=classes), settings, (), frozen=True)
    pair = [Node("cnn_small", _network(0, classes=classes), settings, edges), still]
    _, found = _run(pair, data, views=data.augment.views)
    _assert_same(_of(found.last, 0), expected.last)
    _assert_same(_of(found.last, 1), teacher.state_dict())
    for row, other in zip(found.history, expected.history, strict=True):
        assert (row["val_acc"], row["lr"]) == (other["val_acc"], other["lr"])
        assert row["train_acc"] == pytest.approx(other["train_acc"], rel=1e-6)
        assert (row["node0/ce"], row["node0/from1/kd"]) == (other["ce"], other["kd"])


def test_two_that_teach_each_other_are_the_loop_written_by_hand(images: Toy) -> None:
    """Each at a learning rate of its own."""
    data = images()
    _, found = _run(_pair(), data)
    models = [_network(0), _network(1)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4) for m in models]
    for epoch in range(EPOCHS):
        optimizers[0].param_groups[0]["lr"] = 0.05 * 0.1 ** sum(epoch >= e for e in (2, 3, 4))
        optimizers[1].param_groups[0]["lr"] = 0.02 * 0.1 ** (epoch >= 2)
        for batch in data.epoch(epoch, 16):
            z = [m.train()(batch.x).logits for m in models]
            for i in range(2):
                optimizers[i].zero_grad()
                (functional.cross_entropy(z[i], batch.y) + soft_kl(z[i], z[1 - i].detach(), 2.0)).backward()
                optimizers[i].step()
    for i, model in enumerate(models):
        for name, t in model.state_dict().items():
            torch.testing.assert_close(_of(found.last, i)[name], t, rtol=1e-3, atol=1e-5)
    assert [row["node1/lr"] for row in found.history] == pytest.approx([0.02, 0.02, 0.002, 0.002])


def test_features_of_one_that_trains_are_heard_through_a_part(images: Toy) -> None:
    method = _method("fitnet")
    given = [_node(0, _own(), _from(1, method=method), _from(1)), _node(1, _own())]
    course = TogetherMinibatches(given, images())
    start = {name: t.clone() for name, t in course.state().items() if not name.startswith("best.")}
    assert any(name.startswith("node0.edge1.") for name in start)
    found = Fit(course, _settings()).run()
    losses = [row["node0/from1/fitnet"] for row in found.history]
    assert losses[-1] < losses[0]
    weights = [name for name in start if name.endswith("weight")]
    assert all(not torch.equal(start[name], course.state()[name]) for name in weights)


# -- precision, layout, compilation ------------------------------------------------------------------------------


def test_bfloat16_is_of_the_forward_passes_only(images: Toy) -> None:
    given = [*_pair(precision="bfloat16"), _node(5, frozen=True, settings=_settings(precision="bfloat16"))]
    given[0] = replace(given[0], edges=(*given[0].edges, _from(2)))
    plain = [*_pair(), _node(5, frozen=True)]
    plain[0] = replace(plain[0], edges=(*plain[0].edges, _from(2)))
    (_, found), (_, full) = _run(given, images()), _run(plain, images())
    assert all(t.dtype != torch.bfloat16 for t in found.last.values())
    for name in ("node0/ce", "node0/from1/kd", "node0/from2/kd", "node1/ce"):
        assert found.history[0][name] == pytest.approx(full.history[0][name], rel=0.1)
        assert found.history[0][name] != full.history[0][name]


def test_channels_last_changes_the_layout_and_not_the_result(images: Toy) -> None:
    (course, laid), (_, plain) = _run(_pair(), images()), _run(_pair(channels_last=False), images())
    assert course.nodes[1].model.stage1[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index, union-attr]
    for name, t in plain.last.items():
        torch.testing.assert_close(laid.last[name], t, rtol=1e-2, atol=1e-4)


def test_compile_is_of_all_networks_and_all_their_passes(images: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the compiler, which cannot follow the checks of shapes that tests put around functions."""
    passes: dict[int, int] = {}

    def compiled(network: torch.nn.Module) -> Any:
        def run(*args: Any) -> Output:
            passes[id(network)] = passes.get(id(network), 0) + 1
            found: Output = network(*args)
            return found

        return run

    data, settings = images(), _settings(compile=True)
    steps = len(list(data.epoch(0, 16)))
    given = [*_pair(compile=True), _node(5, frozen=True, settings=settings), _node(6, frozen=True, settings=settings)]
    given[0] = replace(given[0], edges=(*given[0].edges, _from(2)))
    monkeypatch.setattr(torch, "compile", compiled)
    _run(given, data)
    # Each batch, and the validation of each epoch; of frozen ones once. The folded twin of the heard one has its own.
    assert sorted(passes.values()) == [1, 1, EPOCHS * steps, EPOCHS * (steps + 1), EPOCHS * (steps + 1)]


# -- frozen and following ----------------------------------------------------------------------------------------


def test_a_frozen_node_stays_and_one_that_nobody_hears_is_not_asked(images: Toy) -> None:
    given = [_node(0, _own(), _from(1)), _node(1, frozen=True), _node(2, frozen=True)]
    calls: list[bool] = []
    given[2].model.register_forward_hook(lambda m, _, __: calls.append(m.training))
    before = [{k: t.clone() for k, t in node.model.state_dict().items()} for node in given]
    course, found = _run(given, images())
    for i in (1, 2):
        _assert_same(_of(found.last, i), before[i])
        _assert_same(course.bests[i].weights, before[i])
        assert course.bests[i].epoch == -1
        assert course.bests[i].score == found.history[-1][f"val_acc_{i}"]
    assert calls == [False, False], "shown images before the first step, and scored once"


def test_a_follower_is_heard_and_moves_by_its_momentum_alone(images: Toy) -> None:
    still = _node(3, follows=(0, 1.0))
    given = [_node(0, _own(), _from(1)), still]
    course, found = _run(given, images())
    start = _network(0)
    for name, p in start.named_parameters():
        assert torch.equal(_of(found.last, 1)[name], p), "it began as a copy, and momentum 1 stays"
    assert not torch.equal(_of(found.last, 1)["stem.1.running_mean"], start.state_dict()["stem.1.running_mean"])
    assert found.history[-1]["node0/from1/kd"] > 0
    assert "node1/lr" not in found.history[-1]
    assert "val_acc_1" not in found.history[-1], "nobody asks for its accuracy"
    assert course.bests[1].score is None
    _assert_same(course.bests[1].weights, _of(found.last, 1))
    assert list(course.optimizers) == [0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: [_node(0, _own(), _from(1), settings=s), _node(1, _own(), settings=s)], "nobody hears one"),
        (
            lambda s: [_node(0, _own(), _from(1, method=_method("at")), settings=s), _node(1, frozen=True, settings=s)],
            "of node 1 features are read",
        ),
        (lambda s: [_node(0, _own(), _from(1), settings=s), _node(1, frozen=True, settings=s)], "too many views"),
    ],
)
def test_a_cache_that_keeps_nothing_is_refused(images: Toy, change: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        TogetherMinibatches(change(_settings(cache_teacher=True)), images())


# -- what is kept ------------------------------------------------------------------------------------------------


def test_without_validation_the_last_epoch_is_kept_of_all(images: Toy) -> None:
    course, found = _run(_pair(), images(0.0))
    assert not any(name.startswith("val_acc") for name in found.history[-1])
    for i, best in enumerate(course.bests):
        assert (best.score, best.epoch) == (None, EPOCHS - 1)
        _assert_same(best.weights, _of(found.last, i))


def test_a_judge_and_an_optimizer_of_ones_own(images: Toy) -> None:
    """As networks have that learn without labels: node 0's score chooses, and no accuracy is shown."""
    scores: dict[int, list[float]] = {}

    def judge(model: torch.nn.Module) -> float:
        assert not model.training
        found = scores.setdefault(id(model), [])
        found.append(0.5 - abs(len(found) - 1))
        return found[-1]

    def adam(params: Mapping[str, Tensor], settings: ImageTrainSettings) -> torch.optim.Optimizer:
        return torch.optim.Adam(params.values(), lr=settings.lr)

    course, found = _run(_pair(), images(), judge=judge, make_optimizer=adam)
    assert found.best_epoch == 1
    assert [best.epoch for best in course.bests] == [1, 1]
    assert [row["val_acc_1"] for row in found.history] == [-0.5, 0.5, -0.5, -1.5]
    assert not any("train_acc" in name for name in found.history[-1])
    assert all(isinstance(optimizer, torch.optim.Adam) for optimizer in course.optimizers.values())
    assert [group["lr"] for group in course.optimizers[1].param_groups] == pytest.approx([0.002])


class _Stop:
    """A report that stops a run within an epoch, as a crash would, and keeps what it hears."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.shown: set[str] = set()

    def within(self, epoch: int, share: float) -> None:
        self.shares.append(share)
        if epoch == 2 and share > 0.5:
            raise MemoryError

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        self.shown |= values.keys()


def _mixed(data: ImageTask, file: Path | None, every: int = 1000) -> tuple[TogetherMinibatches, Fit]:
    settings = _settings(checkpoint_every=every)
    given = [
        _node(0, _own(), _from(1, "positive", _method("crd")), _from(2, "correct"), settings=settings),
        _node(1, _own("negative"), _from(0, "correct", _method("fitnet")), _from(2), settings=settings),
        _node(2, frozen=True, settings=settings),
        _node(3, follows=(0, 0.5), settings=settings),
    ]
    torch.manual_seed(11)
    course = TogetherMinibatches(given, data, seed=3)
    return course, Fit(course, settings, file=file, key="k")


def test_a_run_killed_within_an_epoch_goes_on_bit_for_bit(images: Toy, tmp_path: Path) -> None:
    data = images()
    course, fit = _mixed(data, None)
    expected, report, file = fit.run(), _Stop(), tmp_path / "checkpoint.safetensors"
    with pytest.raises(MemoryError):
        _mixed(data, file, 2)[1].run(report)
    other, again = _mixed(data, file)
    torch.manual_seed(99)
    assert again.restore() == 2
    reached = again.run()
    assert reached.history == expected.history
    _assert_same(reached.last, expected.last)
    _assert_same(reached.best, expected.best)
    _assert_same(other.state(), course.state())
    _assert_same(other.optimizer_state(), course.optimizer_state())
    assert report.shown == {"val_acc", "val_acc_1", "val_acc_2", "train_acc", "lr"}
    assert max(report.shares) == 1


# -- what is not read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["val", "test"])
def test_labels_outside_training_touch_no_weight(images: Toy, part: str) -> None:
    data = images()
    mask, y = getattr(data.split, part), data.y.clone()
    y[mask] = y[mask].roll(1)
    assert not torch.equal(y, data.y)
    runs = [_mixed(given, None)[1].run() for given in (data, replace(data, y=y))]
    _assert_same(runs[0].last, runs[1].last)
    assert any(row["node0/from2/kd"] > 0 for row in runs[0].history)
    if part == "test":
        assert runs[0].history == runs[1].history
