"""Many steps an epoch: each image once, the published step, means over images, and runs that continue bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnkd import distillers
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.graph.split import Split
from gnnkd.nn.images.cnn import cnn, cnn_small
from gnnkd.train import minibatches
from gnnkd.train.fit import Fit
from gnnkd.train.lessons import Cached, Live, in_float32
from gnnkd.train.minibatches import Minibatches
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.types import UNKNOWN, Batch, Output, Step

N, C, VIEWS = 24, 3, 2


class Net(nn.Module):
    """A convolution, a batch norm, a classifier."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, C)
        self.asked = 0

    def forward(self, x: Tensor, graph: object = None) -> Output:
        self.asked += x.shape[0]
        raw = self.bn(self.conv(x))
        pooled = raw.relu().mean((2, 3))
        return Output(self.fc(pooled), maps=(raw.relu(),), raw_maps=(raw,), pooled=pooled)


class Toy:
    """Images in memory; a view is the image or its mirror."""

    def __init__(self, val: int = 6) -> None:
        g = torch.Generator().manual_seed(0)
        self.y = torch.arange(N) % C
        self.x = torch.randn(N, 1, 6, 6, generator=g) + self.y.view(-1, 1, 1, 1)
        ids = torch.arange(N)
        self.split = Split(ids < 14, (ids >= 14) & (ids < 14 + val), ids >= 20)
        self.seen: list[int] = []
        self.asked: set[int | None] = set()

    def epoch(
        self, epoch: int, batch_size: int, *, per_class: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        self.asked.add(per_class)
        g = torch.Generator().manual_seed(epoch)
        rows = self.split.train.nonzero().flatten()
        rows = rows[torch.randperm(rows.numel(), generator=g)]
        for ids in rows.split(batch_size):
            view = torch.randint(0, VIEWS, (ids.numel(),), generator=g)
            self.seen += ids.tolist()
            x = torch.where(view.view(-1, 1, 1, 1) == 1, self.x[ids].flip(3), self.x[ids])
            yield Batch(x, self.y[ids], ids, None, torch.ones_like(ids, dtype=torch.bool), view)

    def scan(self, mask: Tensor, batch_size: int) -> Iterator[Batch]:
        for ids in mask.nonzero().flatten().split(batch_size):
            yield Batch.of(self.x[ids], self.y[ids], None, torch.zeros_like(ids, dtype=torch.bool), ids)


def _settings(**given: Any) -> ImageTrainSettings:
    return ImageTrainSettings(**{"epochs": 4, "batch_size": 4, "checkpoint_every": 1000, "lr": 0.05, **given})


def _net(seed: int = 0, width: int = 4) -> Net:
    torch.manual_seed(seed)
    return Net(width)


def _fit(method: str = "supervised", file: Path | None = None, toy: Toy | None = None, **given: Any) -> Fit:
    toy, settings = toy or Toy(), _settings(**given)
    model, distiller = _net(), distillers.build(method)
    teacher = Live(_net(1, width=8), settings, maps=distiller.reads_maps) if distiller.needs_teacher else None
    batch = next(toy.scan(toy.split.train, 4))
    with torch.no_grad():
        shown = model.eval()(batch.x)
    distiller.prepare(Lesson(shown, shown if teacher else None, (), toy.y, 0.9, 5e-4, 0))
    return Fit(Minibatches(model, toy, distiller, teacher, settings), settings, file=file, key="k")


def test_each_training_image_is_seen_once_an_epoch_and_no_other() -> None:
    toy = Toy()
    _fit(toy=toy, epochs=2).run()
    assert sorted(toy.seen) == sorted(2 * list(range(14)))


@pytest.mark.parametrize("per_class", [None, 2])
def test_balanced_batches_are_asked_for(per_class: int | None) -> None:
    toy = Toy()
    _fit(toy=toy, epochs=2, per_class=per_class).run()
    assert toy.asked == {per_class}


def test_the_step_is_plain_gradient_descent_with_momentum() -> None:
    """Equal to the loop that one writes by hand, learning rate drops included."""
    settings = _settings(milestones=(0.5,))
    fit = _fit(milestones=(0.5,))
    fit.run()
    model, toy = _net(), Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.05 if epoch < 2 else 0.005
        for batch in toy.epoch(epoch, settings.batch_size):
            model.train()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.x).logits, batch.y).backward()
            optimizer.step()
    for name, t in model.state_dict().items():
        torch.testing.assert_close(fit.progress.last[name], t, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["supervised", "kd"])
def test_a_run_in_two_pieces_is_the_run_in_one(tmp_path: Path, method: str) -> None:
    whole = _fit(method)
    expected = whole.run()
    file = tmp_path / "checkpoint.safetensors"
    part = _fit(method, file=file)
    for epoch in range(2):
        part._epoch(Step(epoch, 4))
    part.save()
    again = _fit(method, file=file)
    torch.manual_seed(99)
    assert again.restore() == 2
    reached = again.run()
    assert reached.history == expected.history
    for name, t in reached.last.items():
        assert torch.equal(t, expected.last[name]), name


class _Heard:
    """A report that keeps what it hears."""

    def __init__(self) -> None:
        self.shares: list[tuple[int, float]] = []

    def update(self, epoch: int, values: object) -> None:
        self.shares.append((epoch, 2.0))

    def within(self, epoch: int, share: float) -> None:
        self.shares.append((epoch, share))


def test_progress_is_heard_within_an_epoch() -> None:
    report = _Heard()
    _fit(epochs=2).run(report)
    expected = [4 / 14, 8 / 14, 12 / 14, 1.0, 2.0]
    assert report.shares == [(epoch, share) for epoch in range(2) for share in expected]


def test_without_validation_the_last_epoch_is_kept() -> None:
    fit = _fit(toy=Toy(val=0))
    reached = fit.run()
    assert reached.best_epoch == 3
    assert all("val_acc" not in row for row in reached.history)
    for name, t in fit.model.state_dict().items():
        assert torch.equal(t, reached.last[name])


def test_channels_last_changes_the_layout_and_not_the_result() -> None:
    plain, laid = _fit(channels_last=False), _fit()
    plain.run()
    laid.run()
    assert laid.model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, t in plain.progress.last.items():
        torch.testing.assert_close(laid.progress.last[name], t, rtol=1e-3, atol=1e-5)


def test_compile_is_of_both_networks_and_all_their_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the compiler, which cannot follow the checks of shapes that tests put around functions."""
    passes: dict[int, int] = {}

    def compiled(network: nn.Module) -> Any:
        def run(*args: Any) -> Output:
            passes[id(network)] = passes.get(id(network), 0) + 1
            return network(*args)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    found, plain = _fit("kd", compile=True, epochs=2).run(), _fit("kd", epochs=2).run()
    assert sorted(passes.values()) == [2 * 4, 2 * (4 + 1)], "the teacher's batches; the student's, and its validation"
    assert all(torch.equal(found.last[name], t) for name, t in plain.last.items())


def test_bfloat16_is_of_the_forward_pass_only() -> None:
    fit = _fit("kd", precision="bfloat16")
    reached = fit.run()
    assert all(t.dtype != torch.bfloat16 for t in reached.last.values())
    assert reached.history[-1]["ce"] > 0
    plain = _fit("kd").run()
    assert reached.history[0]["ce"] == pytest.approx(plain.history[0]["ce"], rel=0.05)
    assert reached.history[0]["ce"] != plain.history[0]["ce"]


def test_scalars_are_means_over_images_not_over_batches() -> None:
    """The last batch is smaller: its images count as much as others."""
    fit = _fit(lr=1e-12, weight_decay=0.0, batch_size=9)
    row = fit._epoch(Step(0, 4))
    model, toy, total = _net().train(), Toy(), 0.0
    for batch in toy.epoch(0, 9):
        with torch.no_grad():
            total += float(nn.functional.cross_entropy(model(batch.x).logits, batch.y, reduction="sum"))
    assert row["ce"] == pytest.approx(total / 14, rel=1e-5)


class _Loud(Distiller):
    """A method with a part of its own, which the student's loss reads."""

    images = True

    def prepare(self, lesson: Lesson) -> None:
        self.part = nn.Linear(C, C)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        return {"ce": nn.functional.cross_entropy(self.part(student.logits), batch.y)}  # type: ignore[misc]


def test_the_methods_own_part_trains_with_the_student_and_is_in_the_checkpoint(tmp_path: Path) -> None:
    def made() -> tuple[Fit, _Loud]:
        model, loud, settings = _net(), _Loud(), _settings()
        loud.prepare(None)  # type: ignore[arg-type]
        course = Minibatches(model, Toy(), loud, None, settings)
        return Fit(course, settings, file=tmp_path / "c.safetensors"), loud

    fit, loud = made()
    before = loud.part.weight.detach().clone()  # type: ignore[union-attr]
    fit.run()
    fit.save()
    after = loud.part.weight.detach()  # type: ignore[union-attr]
    assert not torch.equal(before, after)
    other, loud = made()
    other.restore()
    assert torch.equal(loud.part.weight, after)  # type: ignore[union-attr]
    assert not any(name.startswith("method.") for name in fit.model.state_dict())


def test_a_cached_teacher_says_what_the_live_one_says_and_is_asked_once_a_view() -> None:
    toy, network, settings = Toy(), _net(1), _settings()
    live = Live(network, settings, maps=False)
    cached = Cached(live, N, VIEWS, C, toy.y.device)
    for epoch in range(30):
        for batch in toy.epoch(epoch, 4):
            torch.testing.assert_close(cached.teach(batch).logits, network(batch.x).logits, rtol=1e-5, atol=1e-6)
    network.asked = 0
    for batch in toy.epoch(31, 4):
        cached.teach(batch)
    assert network.asked == 0


@pytest.mark.parametrize(("rows", "views"), [(10, 0), (10**9, 162)])
def test_what_cannot_be_kept_is_refused(rows: int, views: int) -> None:
    with pytest.raises(UserError, match=r"data\.augment=none"):
        Cached(Live(_net(), _settings(), maps=False), rows, views, 100, torch.device("cpu"))


def test_features_are_handed_on_only_where_they_are_read() -> None:
    x = torch.randn(2, 1, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = _net()(x)
    assert in_float32(output, maps=False).maps == ()
    full = in_float32(output, maps=True)
    assert full.maps[0].dtype == full.pooled.dtype == full.logits.dtype == torch.float32  # type: ignore[union-attr]


def test_the_teacher_stands_still() -> None:
    network = _net(1)
    before = {k: t.clone() for k, t in network.state_dict().items()}
    live, toy = Live(network, _settings(), maps=True), Toy()
    output = live.teach(next(toy.epoch(0, 4)))
    assert not output.logits.requires_grad
    assert not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())


def test_test_images_are_scored_only_when_asked_for_and_choose_nothing() -> None:
    settings, toy = _settings(), Toy()
    plain = _fit().run()
    course = Minibatches(_net(), toy, Supervised(), None, settings, track_test=True)
    tracked = Fit(course, settings).run()
    assert all("test_acc" in row for row in tracked.history)
    assert not any("test_acc" in row for row in plain.history)
    assert tracked.best_epoch == plain.best_epoch
    assert all(torch.equal(t, plain.last[k]) for k, t in tracked.last.items())


def test_accuracy_is_over_the_masked_rows() -> None:
    toy, model = Toy(), _net()
    found = minibatches.accuracy(model, model, toy, toy.split.test, _settings())
    expected = (model(toy.x[toy.split.test]).logits.argmax(1) == toy.y[toy.split.test]).double().mean()
    assert found == float(expected)


# -- the learning rate -------------------------------------------------------------------------------------------


def test_the_published_schedule_drops_at_150_180_and_210() -> None:
    rate = ImageTrainSettings().rate
    assert [rate(e) for e in (0, 149, 150, 179, 180, 209, 210, 239)] == pytest.approx(
        [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005]
    )


def test_cosine_and_warmup() -> None:
    settings = ImageTrainSettings(lr=1.0, schedule="cosine", epochs=10, warmup_epochs=4)
    assert settings.rate(0) == pytest.approx(0.25)
    assert settings.rate(5) == pytest.approx(0.5)
    assert 0 < settings.rate(9) < 0.05


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0}, {"momentum": 1.0}, {"momentum": -0.1}, {"batch_size": 1}, {"epochs": 0}, {"milestones": (0.5, 0.4)},
     {"milestones": (0.0,)}, {"milestones": (150.0,)}, {"decay": 0.0}, {"decay": 1.5}, {"warmup_epochs": -1},
     {"nesterov": True, "momentum": 0}, {"weight_decay": -1.0}, {"per_class": 0}, {"per_class": -2},
     {"per_class": 48}, {"per_class": 128}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        ImageTrainSettings(**wrong)


# -- broken off in the middle ------------------------------------------------------------------------------------


class _Stop:
    """A report that stops a run within an epoch, as a crash would."""

    def __init__(self, epoch: int, share: float) -> None:
        self.epoch, self.share = epoch, share

    def within(self, epoch: int, share: float) -> None:
        if epoch == self.epoch and share >= self.share:
            raise MemoryError

    def update(self, epoch: int, values: object) -> None:
        """Nothing to say."""


def _taught(method: str, base: str = "auto", file: Path | None = None, **given: Any) -> Fit:
    """Two networks with stages taught by a method that has a memory, velocities or connectors of its own."""
    toy, settings = Toy(), _settings(**given)
    torch.manual_seed(0)
    model, network = cnn_small(1, C), cnn(1, C)
    distiller = distillers.build(method, base=base)
    teacher = Live(network, settings, maps=distiller.reads_maps)
    batch = next(toy.scan(toy.split.train, 4))
    with torch.no_grad():
        student = model.eval()(batch.x)
        said = network.eval()(batch.x)
    y = toy.y.masked_fill(~toy.split.train, UNKNOWN)
    distiller.prepare(Lesson(student, said, (), y, settings.momentum, settings.weight_decay, 0))
    return Fit(Minibatches(model, toy, distiller, teacher, settings), settings, file=file, key="k")


@pytest.mark.parametrize(("method", "base"), [("crd", "auto"), ("fitnet", "auto"), ("dot", "kd"), ("dot", "fitnet")])
def test_a_run_killed_within_an_epoch_goes_on_bit_for_bit(tmp_path: Path, method: str, base: str) -> None:
    """Checkpointed after two epochs, broken off in the middle of the next one, continued by fresh objects."""
    whole = _taught(method, base)
    expected = whole.run()
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(MemoryError):
        _taught(method, base, file, checkpoint_every=2).run(_Stop(2, 0.5))
    again = _taught(method, base, file)
    torch.manual_seed(99)
    assert again.restore() == 2
    reached = again.run()
    assert reached.history == expected.history
    for name, t in expected.last.items():
        assert torch.equal(reached.last[name], t), name
    ours, theirs = again.course.state(), whole.course.state()
    assert ours.keys() == theirs.keys()
    assert ours, "the method keeps something"
    assert all(torch.equal(t, theirs[name]) for name, t in ours.items())
