"""Trainings without labels: each learns, no label has a say, a stopped one continues, networks help each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor

import gnnkd
from gnnkd.data.image_task import ImageTask
from gnnkd.errors import UserError
from gnnkd.places import Place
from gnnkd.selfsup import results
from gnnkd.selfsup.config import Plan, resolve
from gnnkd.selfsup.nodes import lars
from gnnkd.selfsup.objectives import objectives
from gnnkd.selfsup.pairs import Pairs
from gnnkd.selfsup.stage import Learnt, learn, made
from gnnkd.train.checkpoint import write_json
from gnnkd.train.fit import Fit
from gnnkd.train.progress import Silent
from gnnkd.train.together.minibatches import TogetherMinibatches
from gnnkd.types import Step

Toy = Callable[..., ImageTask]
SHORT = {"train": {"epochs": 3, "batch_size": 32, "warmup_epochs": 1, "checkpoint_every": 1}}


def plan(
    objective: str = "simclr", models: tuple[str, ...] = ("cnn_small",), *, gates: Any = "through", **options: Any
) -> Plan:
    return resolve("digits", method=objective, models=models, gates=gates, levels=[SHORT, options])


def weights(learnt: Learnt, which: int = 0) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in learnt.encoders[which].state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


@pytest.mark.parametrize("method", objectives())
def test_labels_have_no_say_in_any_weight(toy: Toy, method: str) -> None:
    """All labels mixed up: scores differ, and the weights after the last epoch do not."""
    task = toy()
    mixed = replace(task, y=task.y[torch.randperm(len(task.y), generator=torch.Generator().manual_seed(0))])
    found = [learn(t, plan(method), Silent()) for t in (task, mixed)]
    assert same(*map(weights, found))
    assert found[0].reached.history[-1]["val_acc"] != found[1].reached.history[-1]["val_acc"]


@pytest.mark.parametrize("method", objectives())
def test_a_stopped_training_continues_bit_for_bit(
    toy: Toy, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("cnn_small", "cnn_small") if method == "moco" else ("cnn_small",)
    whole, place = learn(toy(), plan(method, models), Silent()), Place(tmp_path)
    write_json(place.config, {})
    epoch = Fit._epoch

    def stopping(self: Fit, step: Any) -> dict[str, float]:
        if step.epoch == 2:
            raise KeyboardInterrupt
        return epoch(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            learn(toy(), plan(method, models), Silent(), place=place)
    found = learn(toy(), plan(method, models), Silent(), place=place, resume=True)
    for i in range(len(models)):
        assert same(weights(whole, i), weights(found, i))
        assert same(whole.bests[i].weights, found.bests[i].weights)
    assert whole.reached.history == found.reached.history


def test_networks_that_hear_each_other_learn_otherwise_than_cut_ones(toy: Toy) -> None:
    """Behind cut gates node 0 hears nobody; behind open ones the other's similarities are among its terms."""
    cut = learn(toy(), plan(models=("cnn_small", "cnn"), gates="cutoff"), Silent())
    together = learn(toy(), plan(models=("cnn_small", "cnn")), Silent())
    assert not same(weights(together), weights(cut))
    assert [name for name in together.reached.history[0] if name.startswith("node0/")] == [
        "node0/simclr",
        "node0/from1/similarity",
    ]
    assert "node1/from0/similarity" in together.reached.history[0]
    assert "node0/from1/similarity" not in cut.reached.history[0]


def test_a_momentum_encoder_is_the_moving_average(toy: Toy) -> None:
    """After one step from weights w to v, it is at m w + (1 - m) v; nothing else moves it."""
    task, chosen = toy(), plan("moco", method={"momentum": 0.75})
    members = made(task, chosen)
    start = {name: p.detach().clone() for name, p in members[0].model.named_parameters()}
    pairs = Pairs(task, chosen.views_of(task))
    course = TogetherMinibatches(members, pairs, make_optimizer=lars(0.001, matrices=False), judge=lambda _: 0.0)
    assert not any(p.requires_grad for p in members[1].model.parameters())
    batch = next(pairs.epoch(0, 96))
    outputs = {i: node.model.train()(batch.x) for i, node in enumerate(members)}
    course.step(batch, outputs, Step(0, 3))
    learner, follower = (dict(node.model.named_parameters()) for node in members)
    moved = [name for name in learner if not torch.equal(learner[name], start[name])]
    assert {name.split(".")[0] for name in moved} == {"backbone", "projector"}
    for name, p in follower.items():
        torch.testing.assert_close(p, 0.75 * start[name] + 0.25 * learner[name])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_files_and_a_backbone_that_loads(toy: Toy, tmp_path: Path, precision: str) -> None:
    task = toy()
    chosen = plan(models=("cnn_small", "cnn"), train={"precision": precision, "epochs": 4})
    place = Place(tmp_path)
    write_json(place.config, chosen.describe(task))
    result = results.run(task, chosen, place, resume=False, progress=Silent())
    names = {file.name for file in tmp_path.iterdir()} - {"last.safetensors"}
    assert names == {
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
        "node1.safetensors",
        "result.json",
    }
    assert result["test_acc"] == result["nodes"][0]["test_acc"]
    assert result["n_parameters"] == result["nodes"][0]["n_parameters"]
    assert [node["model"] for node in result["nodes"]] == ["cnn_small", "cnn"]
    test = task.split.test
    for name, node in zip(("model", "node1"), result["nodes"], strict=True):
        predictor = gnnkd.load(tmp_path / f"{name}.safetensors")
        pixels = task.store.data[test].numpy()  # type: ignore[attr-defined]
        said = [task.classes.index(str(word)) for word in predictor.predict(pixels)]
        hits = torch.tensor(said) == task.y[test]
        assert hits.double().mean().item() == pytest.approx(node["test_acc_means"])


def test_the_classifier_that_is_saved_says_the_nearest_mean(toy: Toy) -> None:
    from gnnkd.nn.images.cnn import cnn_small
    from gnnkd.selfsup.nodes import read_by_means

    torch.manual_seed(0)
    backbone, task = cnn_small(1, 3).eval(), toy()
    batch = next(task.scan(torch.ones_like(task.split.train), 150))
    with torch.no_grad():
        rows = backbone(batch.x).pooled
        read_by_means(backbone, rows[:90], task.y[:90], 3)
        logits = backbone(batch.x).logits
    means = torch.stack([rows[:90][task.y[:90] == c].mean(0) for c in range(3)])
    assert torch.equal(logits.argmax(1), torch.cdist(rows, means).argmin(1))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gates": (("through",), ("through",))}, "2 networks need 2 rows of 2 gates"),
        ({"gates": "correct"}, "gate 0<-1 is correct, which asks for labels"),
        ({"gates": "throug"}, "unknown gate 'throug'"),
        ({"objective": "simcrl"}, "simclr"),
        ({"views": {"hue": 1.0}}, "views.hue is 1.0"),
        ({"views": {"huge": 1.0}}, "views.hue"),
        ({"train": {"per_class": 4}}, "unknown option 'train.per_class'"),
        ({"train": {"trust": 0.0}}, "trust is 0.0"),
        ({"data": {"val_fraction": 0.0}}, "val_fraction is 0"),
        ({"edges": {"temperature": 0.0}}, "edges.temperature is 0.0"),
        ({"model": {"widht": 3}}, "model.width"),
        ({"student": {}}, "unknown group of options 'student'"),
    ],
)
def test_mistakes_are_said(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(**{"models": ("cnn_small", "cnn_small"), **wrong})


def test_node_0_that_can_learn_nothing_is_refused(toy: Toy) -> None:
    gates = (("positive", "cutoff"), ("through", "through"))
    with pytest.raises(UserError, match=r"node 0 .* can learn nothing"):
        made(toy(), plan(models=("cnn_small", "cnn_small"), gates=gates, train={"epochs": 1, "warmup_epochs": 0}))


C, T = "cutoff", "through"


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        (((C, T), (T, C)), "node 0 can learn nothing: of the networks 0, 1, .* each has its own gate cut off"),
        (((C, C), (T, T)), "node 0 can learn nothing: all its gates are cutoff; open one of its gates"),
        (((T, T), (C, C)), "node 1 can learn nothing: all its gates are cutoff; open one of its gates"),
        (((T, T, C), (C, C, T), (C, T, C)), "node 1 can learn nothing: of the networks 1, 2"),
    ],
)
def test_gates_behind_which_no_objective_is_heard_are_refused(gates: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(models=("cnn_small",) * len(gates), gates=gates)


def test_an_objective_may_be_heard_over_others() -> None:
    """Network 0 hears 1, which hears 2, which has one."""
    gates = ((C, "positive", C), (C, C, "negative"), (C, C, T))
    assert plan(models=("cnn_small",) * 3, gates=gates).gates == gates


def test_a_momentum_encoder_is_not_scored(toy: Toy) -> None:
    found = learn(toy(), plan("moco"), Silent())
    assert [name for name in found.reached.history[0] if name.startswith("val_acc")] == ["val_acc"]


def test_the_bar_is_half_full_in_the_middle_of_an_epoch(toy: Toy) -> None:
    """A batch has two rows for each image."""
    told: list[tuple[int, float]] = []

    @final
    class Told:
        @contextmanager
        def stage(self, title: str, total: int) -> Iterator[Told]:
            yield self

        def update(self, epoch: int, values: Mapping[str, float]) -> None:
            pass

        def within(self, epoch: int, share: float) -> None:
            told.append((epoch, share))

    learn(toy(), plan(train={"epochs": 1, "warmup_epochs": 0, "batch_size": 48}), Told())
    assert told == [(0, 0.5), (0, 1.0)]
