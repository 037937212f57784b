"""The loop around the step: what is kept, when it ends, and that a run in two pieces is the run in one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.data.dataset import from_arrays
from gnnkd.data.task import NodeTask, task
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.nn.around import ask
from gnnkd.train.course import Course, Epoch
from gnnkd.train.fit import DivergedError, Fit, Progress
from gnnkd.train.settings import TrainSettings
from gnnkd.train.teacher import GeneratorSettings, outputs, teaching
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

EPOCHS = 8
PRESETS = ["tuned", "paper"]


@cache
def _task(n: int = 90, classes: int = 3) -> NodeTask:
    """A planted partition with words that lean to a class; features are sparse."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    a, b = rng.integers(0, n, (2, 8 * n))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((n, 48)) < np.where(np.arange(48) % classes == y[:, None], 0.25, 0.05)
    masks = {f"{part}_mask": np.arange(n) // 30 == i for i, part in enumerate(("train", "val", "test"))}
    arrays = {"edge_index": np.stack([a, b])[:, near], "x": words.astype(np.float32), "y": y, **masks}
    return task(from_arrays(arrays), seed=0)


def _network(name: str, inputs: int = 48, **options: Any) -> nn.Network:
    """A fresh network; dropout draws from the same state afterwards."""
    torch.manual_seed(0)
    found = nn.MODELS[name](inputs, 3, **{"layers": 2, "width": 8, **options})
    assert isinstance(found, nn.Network)
    return found


def _teaching(preset: str | None, file: Path | None = None, norm: str = "none", **settings: Any) -> tuple[Fit, Any]:
    found, network = _task(), _network("gcn", norm=norm, input_dropout=0.2)
    generators = None if preset is None else GeneratorSettings(preset=preset, buckets=32, keep=3)  # type: ignore[arg-type]
    settings = {"epochs": EPOCHS, "checkpoint_every": 1000, **settings}
    batch, validation = found.batch(found.split.train), (found.y, found.split.val)
    return teaching(network, batch, validation, TrainSettings(**settings), generators, seed=3, file=file, key="mine")


@cache
def _taught(preset: str = "tuned") -> tuple[Tensor, Bank]:
    """Logits and generators of a teacher to learn from."""
    fit, watcher = _teaching(preset)
    fit.run()
    return outputs(fit.model, _task().batch(_task().split.train)), watcher.bank


def _student(method: str, file: Path | None = None, preset: str = "tuned", key: str = "mine", **settings: Any) -> Fit:
    found, (logits, bank) = _task(), _taught(preset)
    kind = distillers.graph_methods()[method]
    chosen: dict[str, Any] = {"preset": preset} if kind.wraps else {}
    distiller = distillers.build(method, *([bank] if kind.wraps else []), on_graphs=True, **chosen)
    training = TrainSettings(**{"epochs": EPOCHS, "checkpoint_every": 1000, **settings})
    batch, validation = found.batch(found.split.train), (found.y, found.split.val)
    name = "mlp" if kind.on_rows else "gcn"
    network = distiller.learner(lambda inputs: _network(name, inputs), batch, found.n_classes, 0)
    torch.manual_seed(1)
    teacher = Output(logits, pooled=torch.rand(batch.y.numel(), 8) if distiller.reads_maps else None)
    shown = ask(network.eval(), batch.x, batch.graph, batch.index)
    says = (lambda _: Output(logits + torch.rand(logits.shape))) if distiller.asks_teacher else None
    lesson = Lesson(shown, teacher, (), batch.y, momentum=0.0, weight_decay=0.0, seed=0, batch=batch, ask=says)
    distiller.prepare(lesson)
    torch.manual_seed(0)
    course = WholeBatch(network, batch, distiller, teacher, validation, training)
    return Fit(course, training, file=file, key=key)


def _plain(distiller: Distiller | None = None, **settings: Any) -> Fit:
    found = _task()
    training = TrainSettings(**{"epochs": EPOCHS, **settings})
    batch, validation = found.batch(found.split.train), (found.y, found.split.val)
    return Fit(WholeBatch(_network("mlp"), batch, distiller or Supervised(), None, validation, training), training)


def _assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, t in one.items():
        assert torch.equal(t, other[name]), name


class _Stop:
    """A report that stops a run after some epochs, as a crash would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def within(self, epoch: int, share: float) -> None:
        """Nothing to say."""

    def update(self, epoch: int, values: object) -> None:
        if epoch + 1 > self.after:
            raise MemoryError


def _in_two_pieces(fit: Callable[..., Fit], file: Path, k: int) -> tuple[Fit, Progress]:
    """Checkpointed at epoch k, broken off during the next one, continued by fresh objects."""
    with pytest.raises(MemoryError):
        fit(file=file, checkpoint_every=k).run(_Stop(k))
    again = fit(file=file)
    torch.manual_seed(99)
    assert again.restore() == k
    return again, again.run()


# -- resume ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("preset", [*PRESETS, None])
def test_a_teacher_in_two_pieces_is_the_teacher_in_one(tmp_path: Path, preset: str | None, norm: str, k: int) -> None:
    """Weights, history and generators, bit for bit."""
    watchers: list[Any] = []

    def fit(**settings: Any) -> Fit:
        made, watcher = _teaching(preset, norm=norm, **settings)
        watchers.append(watcher)
        return made

    whole = fit()
    expected = whole.run()
    pieces, reached = _in_two_pieces(fit, tmp_path / "checkpoint.safetensors", k)
    assert reached.history == expected.history
    assert [list(row) for row in reached.history] == [list(row) for row in expected.history], "columns keep their order"
    assert (reached.best_epoch, reached.best_score) == (expected.best_epoch, expected.best_score)
    _assert_same(pieces.model.state_dict(), whole.model.state_dict())
    if preset is not None:
        assert len(watchers[0].bank.copies) == 3
        assert watchers[-1].bank.meta() == watchers[0].bank.meta()
        _assert_same(watchers[-1].bank.tensors(), watchers[0].bank.tensors())
        _assert_same(watchers[-1].state(), watchers[0].state())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", sorted(distillers.graph_methods()))
def test_a_student_in_two_pieces_is_the_student_in_one(tmp_path: Path, method: str, preset: str) -> None:
    whole = _student(method, preset=preset)
    expected = whole.run()
    made = lambda **settings: _student(method, preset=preset, **settings)  # noqa: E731
    pieces, reached = _in_two_pieces(made, tmp_path / "checkpoint.safetensors", 3)
    assert reached.history == expected.history
    _assert_same(pieces.model.state_dict(), whole.model.state_dict())


def test_time_spent_adds_up_over_the_pieces(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    first = _student("kd", file=file, epochs=2, checkpoint_every=2).run()
    again = _student("kd", file=file)
    again.restore()
    assert again.progress.seconds == first.seconds
    assert again.run().seconds > first.seconds


def test_checkpoints_have_no_influence(tmp_path: Path) -> None:
    silent = _student("dgd")
    expected = silent.run()
    saving = _student("dgd", file=tmp_path / "checkpoint.safetensors", checkpoint_every=1)
    assert saving.run().history == expected.history
    _assert_same(silent.model.state_dict(), saving.model.state_dict())


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    _student("glnn", file=file, checkpoint_every=1).run()
    other = _student("glnn", file=file, key="another")
    before = {name: t.clone() for name, t in other.model.state_dict().items()}
    with pytest.raises(UserError, match="of another configuration"):
        other.restore()
    _assert_same(other.model.state_dict(), before)
    assert other.progress.epoch == 0


def test_a_finished_run_that_is_resumed_trains_no_further(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    whole = _student("kd", file=file, checkpoint_every=EPOCHS)
    expected = whole.run()
    again = _student("kd", file=file)
    again.restore()
    assert again.run().history == expected.history
    _assert_same(again.model.state_dict(), whole.model.state_dict())


# -- watching --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_teacher_is_the_same_with_and_without_generators(preset: str, norm: str) -> None:
    alone, _ = _teaching(None, norm=norm)
    plain = alone.run()
    watched, watcher = _teaching(preset, norm=norm)
    seen = watched.run()
    _assert_same(alone.model.state_dict(), watched.model.state_dict())
    assert [row["val_acc"] for row in plain.history] == [row["val_acc"] for row in seen.history]
    assert [row["ce"] for row in plain.history] == [row["ce"] for row in seen.history]
    assert watcher.bank.copies
    assert any(key.startswith("imitation/") for key in seen.history[-1])


# -- selection and the end ---------------------------------------------------------------------------------------


class _Record:
    """A report that keeps the weights after every epoch."""

    def __init__(self, fit: Fit) -> None:
        self.fit, self.weights, self.shown = fit, [], []  # type: ignore[var-annotated]

    def within(self, epoch: int, share: float) -> None:
        """Nothing to say."""

    def update(self, epoch: int, values: Any) -> None:
        assert epoch == len(self.weights)
        self.shown.append(dict(values))
        self.weights.append({name: t.detach().clone() for name, t in self.fit.model.state_dict().items()})


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_first_best_epoch_is_kept(norm: str) -> None:
    fit, _ = _teaching(None, norm=norm, epochs=25)
    record = _Record(fit)
    reached = fit.run(record)
    scores = [row["val_acc"] for row in reached.history]
    best = scores.index(max(scores))
    assert scores.count(max(scores)) > 1, "there is a tie to break"
    assert (reached.best_epoch, reached.best_score) == (best, max(scores))
    _assert_same(fit.model.state_dict(), record.weights[best])
    assert any(not torch.equal(t, record.weights[-1][name]) for name, t in record.weights[best].items())


def test_history_has_a_row_an_epoch_and_the_report_its_scalars() -> None:
    fit = _student("dgd")
    record = _Record(fit)
    reached = fit.run(record)
    assert [row["epoch"] for row in reached.history] == list(range(EPOCHS))
    assert all({"epoch", "val_acc", "kd"} <= row.keys() for row in reached.history)
    assert any(key.startswith("bias/") for key in reached.history[-1])
    assert all(shown.keys() == {"val_acc", "kd"} for shown in record.shown)


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_epochs_without_a_better_score(patience: int) -> None:
    still = _plain(lr=1e-12, patience=patience, epochs=50).run()
    assert (still.best_epoch, still.epoch) == (0, 1 + patience)


def test_patience_ends_a_run_and_changes_nothing_before() -> None:
    patient, stopped = _plain(epochs=60).run(), _plain(epochs=60, patience=4).run()
    assert 5 < stopped.epoch < 60
    assert stopped.epoch == stopped.best_epoch + 1 + 4
    assert stopped.history == patient.history[: stopped.epoch]


def test_zero_patience_never_stops() -> None:
    assert _plain(lr=1e-12, patience=0, epochs=20).run().epoch == 20


class _Broken(Distiller):
    """Fine for two epochs, then one of its terms is infinite."""

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        fine = Supervised().loss(batch, student, teacher, step)["ce"]
        return {"fine": fine, "broken": fine * (float("inf") if step.epoch == 2 else 1.0)}


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_terms() -> None:
    fit = _plain(_Broken())
    with pytest.raises(DivergedError, match=r"not finite at epoch 2 \(broken inf, fine [\d.]+\)"):
        fit.run()
    assert len(fit.progress.history) == 2
    assert all(torch.isfinite(t).all() for t in fit.progress.best.values())


def test_a_diverging_run_ends_in_one_line_for_the_user() -> None:
    with pytest.raises(UserError, match=r"ce (nan|inf)\); try a smaller train.lr"):
        _plain(lr=1e30, epochs=50).run()


# -- epochs without a score ----------------------------------------------------------------------------------------


@final
class _Scores(Course):
    """A course whose scores are given; None is an epoch that is not scored."""

    def __init__(self, scores: list[float | None]) -> None:
        self.scores, self.device = scores, torch.device("cpu")
        self.model = self.line = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def epoch(self, step: Step) -> Epoch:
        with torch.no_grad():
            self.line.weight.fill_(step.epoch)
        score = self.scores[step.epoch]
        return Epoch(score, {"ce": 1.0}, scored=score is not None)


@pytest.mark.parametrize(
    ("scores", "patience", "best", "epochs"),
    [
        ([None, 0.5, None, 0.5, None, 0.4], 0, 1, 6),
        ([None, 0.5, None, 0.6, None, 0.4], 0, 3, 6),
        ([None, 0.5, None, 0.4, None, 0.9], 2, 1, 4),  # behind a score alone
        ([None, 0.5, None, None, None, 0.9], 2, 5, 6),
        ([None, None, None, None, None, 0.0], 3, 5, 6),
    ],
)
def test_an_epoch_without_a_score_is_neither_kept_nor_an_end(
    scores: list[float | None], patience: int, best: int, epochs: int
) -> None:
    reached = Fit(_Scores(scores), TrainSettings(epochs=6, patience=patience)).run()
    assert (reached.best_epoch, reached.epoch) == (best, epochs)
    assert float(reached.best["weight"]) == best
    assert ["val_acc" in row for row in reached.history] == [score is not None for score in scores[:epochs]]


@pytest.mark.parametrize(("every", "epochs", "scored"), [(1, 3, [0, 1, 2]), (2, 5, [1, 3, 4]), (9, 4, [3])])
def test_the_last_epoch_always_validates(every: int, epochs: int, scored: list[int]) -> None:
    settings = TrainSettings(epochs=epochs, validate_every=every)
    assert [epoch for epoch in range(epochs) if settings.validates(Step(epoch, epochs))] == scored
