"""What may not be read is not read: changing it changes no bit of any weight, whatever the method.

These are labels outside training and, under the inductive setting, everything about unseen nodes.

Both stages run as the command line runs them. A new method is tested here by being there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import distillers, stages
from gnnkd.data.dataset import from_arrays
from gnnkd.data.task import NodeTask, task
from gnnkd.graph.split import unseen
from gnnkd.run import Config, resolve
from gnnkd.stages import Taught, train_student, train_teacher
from gnnkd.train import whole as steps_of
from gnnkd.train.progress import Silent
from gnnkd.types import UNKNOWN, Batch

METHODS = sorted(distillers.graph_methods())
N, C, PART = 120, 3, 30
"""Nodes and classes; the first 30 nodes train, the next 30 validate."""
TRAIN, VAL, REST = (np.arange(N) // PART == i if i < 2 else np.arange(N) // PART > 1 for i in range(3))
SMALL = {"epochs": 6, "width": 8}


def _labels(shuffled: Any = None) -> Any:
    """The classes 0, 1, 2 in turn, permuted among the nodes of one part."""
    y = np.arange(N) % C
    if shuffled is not None:
        y[shuffled] = np.random.default_rng(1).permutation(y[shuffled])
    return y


def _arrays(shuffled: Any = None) -> dict[str, Any]:
    """A planted partition with masks; features and edges stay when labels are permuted."""
    rng, y = np.random.default_rng(0), _labels()
    a, b = rng.integers(0, N, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((N, 30)) < np.where(np.arange(30) % C == y[:, None], 0.4, 0.05)
    masks = {"train_mask": TRAIN, "val_mask": VAL, "test_mask": REST}
    return {"edge_index": np.stack([a, b])[:, near], "x": words.astype(np.float32), "y": _labels(shuffled), **masks}


def _task(shuffled: Any = None, setting: str = "tran") -> NodeTask:
    return task(from_arrays(_arrays(shuffled)), seed=0, setting=setting)


def _student(method: str) -> str:
    """A network that a method teaches."""
    return "mlp" if distillers.graph_methods()[method].on_rows else "gcn"


def _config(method: str, student: str | None = None, **options: Any) -> Config:
    student = student or _student(method)
    read = {"generators": distillers.graph_methods()[method].wraps}  # others would not look at them
    levels = {"train": SMALL, "teacher": {"norm": "batch"}, "method": read | options}
    return resolve("data", student_model=student, method=method, levels=(levels,))


@dataclass
class Steps:
    """What the only optimisation step in the house was shown, and the weights after it, step by step."""

    batches: list[Batch]
    weights: list[dict[str, Tensor]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """A record of every step of both stages from here on."""
    record, step = Steps([], []), steps_of.update

    def update(model: torch.nn.Module, optimizer: Any, distiller: Any, batch: Batch, *rest: Any) -> Any:
        shown = step(model, optimizer, distiller, batch, *rest)
        record.batches.append(batch)
        record.weights.append({name: t.detach().clone() for name, t in model.state_dict().items()})
        return shown

    monkeypatch.setattr(steps_of, "update", update)
    return record


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(t, other[name]) for name, t in one.items())


def _weights(taught: Taught) -> dict[str, Tensor]:
    return taught.predictor.network.state_dict() | (taught.bank.tensors() if taught.bank else {})


def _both(data: NodeTask, config: Config) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the teacher with its generators, and of the student."""
    taught = train_teacher(data, config, Silent())
    assert bool(taught.bank and taught.bank.copies) is distillers.graph_methods()[config.method].wraps
    student = train_student(
        data, config, taught.logits, taught.bank, Silent(), asked=taught.predictor.network
    ).predictor
    return _weights(taught), student.network.state_dict()


CASES = [(method, _student(method), {}) for method in METHODS]
CASES += [(method, "sage", {}) for method in METHODS if distillers.graph_methods()[method].on_graphs]
CASES += [("dgd", "gcn", {"preset": "paper", "base": "kd"}), ("dgd", "sage", {"base": "supervised"})]
CASES += [("krd", "mlp", {"warmup_epochs": 1})]  # pairs are drawn behind the warm-up alone
CASES += [("dgd", "mlp", {"base": "krd", "warmup_epochs": 1}), ("dgd", "mlp", {"base": "nosmog"})]
CASES += [("dgd", "mlp", {"base": "adagmlp"})]
SETTINGS = ["tran", "ind"]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("method", "student", "options"), CASES)
def test_labels_outside_training_and_validation_touch_no_weight(
    method: str, student: str, options: dict[str, Any], setting: str
) -> None:
    plain, shuffled = _task(setting=setting), _task(REST, setting)
    assert not torch.equal(plain.y, shuffled.y)
    assert plain.fingerprint == shuffled.fingerprint
    config = _config(method, student, **options)
    for one, other in zip(_both(plain, config), _both(shuffled, config), strict=True):
        assert _same(one, other)


UNSEEN = unseen(torch.from_numpy(REST), seed=0).numpy()


def _inductive(changes: dict[str, Any]) -> NodeTask:
    return task(from_arrays(_arrays() | changes), seed=0, setting="ind")


def _changed_unseen() -> dict[str, Any]:
    """Other features, labels and edges of the unseen nodes: some edges gone, some new, to observed nodes too."""
    rng, arrays = np.random.default_rng(2), _arrays()
    x, y, (a, b) = arrays["x"].copy(), arrays["y"].copy(), arrays["edge_index"]
    x[UNSEEN] = rng.random(x[UNSEEN].shape) < 0.15
    y[UNSEEN] = (y[UNSEEN] + rng.integers(1, C, UNSEEN.sum())) % C
    kept = ~(UNSEEN[a] | UNSEEN[b]) | (rng.random(a.size) < 0.5)
    new = np.stack([rng.choice(np.flatnonzero(UNSEEN), 40), rng.integers(0, N, 40)])
    return {"x": x, "y": y, "edge_index": np.concatenate([arrays["edge_index"][:, kept], new], axis=1)}


@pytest.mark.parametrize(("method", "student", "options"), CASES)
def test_nothing_of_an_unseen_node_touches_a_weight(method: str, student: str, options: dict[str, Any]) -> None:
    """Under `ind`: neither its features, nor its label, nor an edge at it, be it new or gone."""
    plain, changed = _inductive({}), _inductive(_changed_unseen())
    assert plain.whole is not None
    assert changed.whole is not None
    assert torch.equal(plain.whole.unseen, torch.from_numpy(UNSEEN))
    assert not torch.equal(plain.whole.y, changed.whole.y)
    assert plain.whole.graph.n_edges != changed.whole.graph.n_edges
    assert plain.content != changed.content
    config = _config(method, student, **options)
    for one, other in zip(_both(plain, config), _both(changed, config), strict=True):
        assert _same(one, other)


def test_the_test_of_unseen_nodes_would_notice() -> None:
    """The same changes at nodes that are observed do change a weight; so does one edge between two of them."""
    arrays, config = _arrays(), _config("dgd")
    edge = np.array([[0], [1]])
    assert not (arrays["edge_index"] == edge).all(axis=0).any()
    plain = _both(_inductive({}), config)
    more = _both(_inductive({"edge_index": np.concatenate([arrays["edge_index"], edge], axis=1)}), config)
    tran = [_both(task(from_arrays(_arrays() | c), seed=0), config) for c in ({}, _changed_unseen())]
    for (one, other), (seen, changed) in zip(zip(plain, more, strict=True), zip(*tran, strict=True), strict=True):
        assert not _same(one, other)
        assert not _same(seen, changed)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("model", ["gcn", "sage"])
@pytest.mark.parametrize("preset", ["tuned", "paper"])
def test_labels_of_validation_touch_no_weight_of_any_epoch_of_a_teacher(
    steps: Steps, preset: str, model: str, setting: str
) -> None:
    """They choose among epochs, and that is all they do."""
    plain, shuffled = _task(setting=setting), _task(VAL, setting)
    assert not torch.equal(plain.y, shuffled.y)
    levels = {"train": SMALL, "method": {"preset": preset}}
    config = resolve("data", teacher_model=model, method="dgd", levels=(levels,))
    reached = [train_teacher(data, config, Silent()).reached for data in (plain, shuffled)]
    half = len(steps.weights) // 2
    assert half == SMALL["epochs"]
    assert all(_same(*pair) for pair in zip(steps.weights[:half], steps.weights[half:], strict=True))
    chosen = [[{k: v for k, v in row.items() if k != "val_acc"} for row in r.history] for r in reached]
    assert chosen[0] == chosen[1], "the generators see the same teacher too"
    assert reached[0].best_score != reached[1].best_score


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("method", "student", "options"), CASES)
def test_labels_of_validation_touch_no_weight_of_any_epoch_of_a_student(
    steps: Steps, method: str, student: str, options: dict[str, Any], setting: str
) -> None:
    """With the teacher's outputs and generators held fixed."""
    plain, shuffled = _task(setting=setting), _task(VAL, setting)
    config = _config(method, student, **options)
    taught = train_teacher(plain, config, Silent())
    del steps.weights[:]
    for data in (plain, shuffled):
        train_student(data, config, taught.logits, taught.bank, Silent(), asked=taught.predictor.network)
    half = len(steps.weights) // 2
    assert half == SMALL["epochs"]
    assert all(_same(*pair) for pair in zip(steps.weights[:half], steps.weights[half:], strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_step_of_both_stages_sees_training_labels_only(steps: Steps, method: str) -> None:
    data = _task()
    _both(data, _config(method))
    assert len(steps.batches) == 2 * SMALL["epochs"]
    for batch in steps.batches:
        assert torch.equal(batch.labelled, data.split.train)
        assert (batch.y[~batch.labelled] == UNKNOWN).all()
        assert torch.equal(batch.y[batch.labelled], data.y[batch.labelled])


def test_a_batch_blanks_what_is_not_labelled_and_leaves_the_task_alone() -> None:
    data = _task()
    before = data.y.clone()
    for mask in (data.split.train, data.split.val, torch.zeros(N, dtype=torch.bool)):
        batch = data.batch(mask)
        assert torch.equal(batch.y != UNKNOWN, mask)
    assert torch.equal(data.y, before)
    assert (data.y != UNKNOWN).all()


@pytest.mark.parametrize("method", METHODS)
def test_these_tests_would_notice(method: str) -> None:
    """Labels of training nodes do change teacher and student; and a stage that reads all labels would be caught."""
    config = _config(method)
    for one, other in zip(_both(_task(), config), _both(_task(TRAIN), config), strict=True):
        assert not _same(one, other)


def test_a_stage_that_reads_all_labels_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = stages.teaching

    def careless(model: Any, batch: Batch, validation: tuple[Tensor, Tensor], *rest: Any, **named: Any) -> Any:
        every = torch.ones_like(batch.labelled)
        return teaching(model, replace(batch, y=validation[0], labelled=every), validation, *rest, **named)

    monkeypatch.setattr(stages, "teaching", careless)
    config = _config("supervised")
    one, other = (train_teacher(data, config, Silent()) for data in (_task(), _task(REST)))
    assert not _same(_weights(one), _weights(other))
