"""What every method of images keeps to, whichever file it is in: two networks of different depth, sizes and widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.base import TASK, Distiller, Lesson
from gnnkd.types import UNKNOWN, Batch, Output, Step

IMAGES = sorted(distillers.image_methods())
BASES = [name for name in IMAGES if not distillers.methods()[name].wraps]
N, C = 40, 3
LATE = Step(30, 60)
"""After the warm-ups."""


class Eye(torch.nn.Module):
    """A small network of images: a stem and stages, whose strides and channels are given."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        ins = (3, *channels[:-1])
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(i, o, 3, stride, 1, bias=False) for i, o, stride in zip(ins, channels, strides, strict=True)
        )
        self.bns = torch.nn.ModuleList(torch.nn.BatchNorm2d(o) for o in channels)
        self.fc = torch.nn.Linear(channels[-1], C)

    def forward(self, x: Tensor) -> Output:
        """Logits with all maps."""
        maps, raw = [], []
        for conv, bn in zip(self.convs, self.bns, strict=True):
            raw.append(bn(conv(x)))
            x = raw[-1].relu()
            maps.append(x)
        pooled = x.mean((2, 3))
        return Output(self.fc(pooled), maps=tuple(maps), raw_maps=tuple(raw), pooled=pooled)


@dataclass
class Scene:
    """A method beside a student in training, a teacher's output, and a batch."""

    batch: Batch
    distiller: Distiller
    student: Eye
    output: Output
    teacher: Output | None

    @property
    def params(self) -> dict[str, Tensor]:
        """All that is trained, by name."""
        part = self.distiller.part
        own = {} if part is None else {f"method.{name}": p for name, p in part.named_parameters()}
        return dict(self.student.named_parameters()) | own

    def look(self) -> None:
        """The student's next output."""
        assert isinstance(self.batch.x, Tensor)
        self.output = self.student(self.batch.x)

    def loss(self, step: Step = LATE) -> dict[str, Tensor]:
        """The method's terms."""
        return self.distiller.loss(self.batch, self.output, self.teacher, step)

    def gradients(self, terms: Mapping[str, Tensor], step: Step = LATE) -> dict[str, Tensor]:
        """What the optimizer gets."""
        found = self.distiller.gradients(terms, self.params, self.batch, self.output, step)
        return self.distiller.combine(found, self.params, self.batch, self.output, step)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}


def _scene(method: str, *, seed: int = 0, y: Tensor | None = None, base: str | None = None) -> Scene:
    """A method with a student and a teacher, prepared."""
    rng = torch.Generator().manual_seed(7)
    labelled = torch.arange(N) < N // 2
    x, y = torch.randn(N, 3, 16, 16, generator=rng), torch.arange(N) % C if y is None else y
    batch = Batch.of(x, y, None, labelled)
    torch.manual_seed(seed)
    student, teacher = Eye((4, 4, 8, 16), (1, 2, 2, 2)), Eye((6, 6, 12, 24, 24), (1, 1, 2, 2, 1)).eval()
    distiller = distillers.build(method, base=base or "kd")
    with torch.no_grad():
        taught, probe = teacher(x), student.eval()(x[:2])
        norms = tuple((bn.weight.clone(), bn.bias.clone()) for bn in teacher.bns)
        distiller.prepare(
            Lesson(probe, teacher(x[:2]) if distiller.needs_teacher else None, norms, batch.y, 0.9, 5e-4, seed)
        )
    if distiller.part is not None:
        distiller.part.train()
    scene = Scene(batch, distiller, student.train(), probe, taught if distiller.needs_teacher else None)
    scene.look()
    return scene


@pytest.mark.parametrize("method", IMAGES)
def test_terms_are_finite_scalars_and_gradients_have_names_and_shapes(method: str) -> None:
    scene = _scene(method)
    assert isinstance(scene.batch.x, Tensor)
    before = _copies({"x": scene.batch.x, "y": scene.batch.y, "logits": scene.output.logits, **scene.params})
    terms = scene.loss()
    assert terms
    for name, term in terms.items():
        assert "/" not in name, "names with a slash are those of diagnostics"
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert torch.isfinite(term)
        assert term.requires_grad
    gradients = scene.gradients(terms)
    assert gradients.keys() <= scene.params.keys()
    assert {name for name in scene.params if name.startswith("method.")} <= gradients.keys(), "all of a part trains"
    assert "fc.weight" in gradients
    for name, g in gradients.items():
        assert g.shape == scene.params[name].shape
        assert g.dtype == scene.params[name].dtype
        assert not g.requires_grad
        assert torch.isfinite(g).all()
    for name, value in scene.distiller.diagnostics().items():
        assert "/" in name
        assert value.shape == ()
    after = _copies({"x": scene.batch.x, "y": scene.batch.y, "logits": scene.output.logits, **scene.params})
    assert all(torch.equal(t, after[name]) for name, t in before.items())
    assert all(p.grad is None for p in scene.params.values())


@pytest.mark.parametrize("method", IMAGES)
def test_the_names_of_the_terms_stay_and_the_task_has_its_own(method: str) -> None:
    scene = _scene(method)
    names = [scene.loss(Step(epoch, 240)).keys() for epoch in (0, 19, 239)]
    assert names[0] == names[1] == names[2]
    assert TASK in names[0]
    assert (len(names[0]) > 1) is scene.distiller.needs_teacher


def _total(scene: Scene, teacher: Output | None) -> Tensor:
    """The loss, with the same random numbers each time."""
    torch.manual_seed(0)
    scene.teacher = teacher
    return torch.stack(list(scene.loss().values())).sum()


@pytest.mark.parametrize("method", IMAGES)
def test_the_teacher_is_read_as_far_as_the_method_says(method: str) -> None:
    scene = _scene(method)
    teacher = scene.teacher
    if teacher is None:
        assert not scene.distiller.needs_teacher
        assert scene.loss()
        return
    only = Output(teacher.logits)
    if not scene.distiller.reads_maps:
        assert torch.equal(_total(scene, teacher), _total(scene, only))
        assert not torch.equal(_total(scene, teacher), _total(scene, Output(teacher.logits.flip(0))))
        return
    assert teacher.pooled is not None
    mirrored = replace(
        teacher,
        maps=tuple(f.flip(0) for f in teacher.maps),
        raw_maps=tuple(f.flip(0) for f in teacher.raw_maps),
        pooled=teacher.pooled.flip(0),
    )
    # A memory learns from each step; the same one twice needs the same state.
    state = _copies(scene.distiller.state())
    first = _total(scene, teacher)
    scene.distiller.load_state(state)
    assert not torch.equal(first, _total(scene, mirrored))


@pytest.mark.parametrize("method", IMAGES)
def test_no_label_outside_the_mask_reaches_a_loss(method: str) -> None:
    plain = _scene(method)
    other = _scene(method, y=torch.where(torch.arange(N) < N // 2, torch.arange(N) % C, 2 - torch.arange(N) % C))
    assert (other.batch.y[N // 2 :] == UNKNOWN).all()
    assert torch.equal(_total(plain, plain.teacher), _total(other, other.teacher))


@pytest.mark.parametrize("method", IMAGES)
def test_a_run_is_repeated_by_its_seed_and_continued_by_its_state(method: str) -> None:
    first, twin = _scene(method), _scene(method)
    for scene in (first, twin):
        torch.manual_seed(5)
        for _ in range(2):
            scene.look()
            gradients = scene.gradients(scene.loss())
            with torch.no_grad():
                for name, p in scene.params.items():
                    p -= 0.01 * gradients.get(name, torch.zeros_like(p))
    assert all(torch.equal(p, twin.params[name]) for name, p in first.params.items())

    later = _scene(method, seed=1)
    later.student.load_state_dict(_copies(first.student.state_dict()))
    later.teacher = first.teacher
    later.distiller.load_state(_copies(first.distiller.state()))
    found = []
    for scene in (first, later):
        torch.manual_seed(6)
        scene.look()
        terms = scene.loss()
        found.append((terms, scene.gradients(terms)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(t, theirs[name]) for name, t in ours.items())


@pytest.mark.parametrize("method", IMAGES)
def test_sixteen_bits_inside_autocast_give_finite_losses_in_thirty_two(method: str) -> None:
    scene = _scene(method)
    assert isinstance(scene.batch.x, Tensor)
    with torch.autocast("cpu", torch.bfloat16):
        scene.look()
        assert scene.output.logits.dtype == torch.bfloat16
        terms = scene.loss()
    for name, g in scene.gradients(terms).items():
        assert torch.isfinite(g).all(), name
    for term in terms.values():
        assert term.dtype == torch.float32
        assert torch.isfinite(term)


@pytest.mark.parametrize("base", BASES)
def test_dot_wraps_every_method_of_images(base: str) -> None:
    """Its first step, for what the task reaches, is that of the base with decay: velocities start at their forces."""
    plain, dot = _scene(base), _scene("dot", base=base)
    gradients = []
    for scene in (plain, dot):
        torch.manual_seed(0)
        gradients.append(scene.gradients(scene.loss()))
    assert gradients[0].keys() == gradients[1].keys()
    for name, g in gradients[0].items():
        reached = not name.startswith("method.")
        decay = 5e-4 * plain.params[name].detach() if reached else torch.zeros_like(g)
        torch.testing.assert_close(gradients[1][name], g + decay, rtol=1e-4, atol=1e-5 * float(g.abs().max()) + 1e-7)
