"""DGD, dynamic gradient distillation: the teacher's gradients, imitated, are fused into the student's own.

While the teacher trains, generators learn how its gradients move (`gail`). While the student trains on any base method,
their guesses `g_j` attend over the rows of the student's gradient G (`fusion`), and a weighted bias moves G there:

    F = mean_j softmax(g_j K^T / sqrt(out)) G        G <- G + beta C (F - G)        C = d(sum of all G)/dW

Sources: the published README of DGD and its two figures, which name the parts; the definition in full is in
docs/dgd.md.

Departures from the released code, which cannot run as published:
* labels of training nodes only (it takes all nodes, test nodes included);
* the discriminator's verdict enters the generator's loss (there it does not; its epoch discount does nothing under
  Adam);
* space pairs are matched channel by channel;
* the K best generators are copies with weights summing to one (there aliases, and summed: parameters grow K-fold);
* all generators dealt to a student layer count (there the last one only);
* gradients are this step's (there the previous epoch's);
* keys are normalised (raw gradients are about 1e-4, which makes that softmax uniform);
* pooling and interpolation instead of PCA and zero padding;
* a sketch of the nodes instead of one input a node;
* one fresh student and optimizer a seed (there reused); flags are never replaced by a preset file.

`preset="tuned"` further divides the guesses by their RMS, reads dropout-free states, and limits the bias to `limit`
|G|.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gnnkd.distillers.base import Distiller, Gradients, Lesson, Make, plain_gradients
from gnnkd.distillers.dgd import fusion
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.distillers.space import Between, Range, Whole
from gnnkd.graph.channels import Channels
from gnnkd.graph.sketch import sketch_matrix
from gnnkd.graph.structure import CSR
from gnnkd.types import Batch, Operand, Output, Step

_CURVED = "curvature/"
PRESETS: dict[str, dict[str, Any]] = {
    "tuned": {"beta": 1.0, "limit": 0.3},
    "paper": {"beta": 0.003, "limit": 0.0},
}


@final
class Dgd(Distiller):
    """Gradient fusion on top of a base method.

    Args:
        base: the method whose loss is minimised and whose gradients are moved; it must keep the default gradients.
        bank: the teacher's generators; None only when `k` or `beta` is 0.
        seed: of what the controls draw, so that paired seeds meet different draws.
        preset: "tuned" or "paper"; it fills `beta` and `limit`.
        beta: weight of the bias, at least 0; 0 is the base method.
        limit: largest size of the bias relative to the gradient, above 0; 0 sets no limit.
        k: how many of the best generators are averaged, at least 0; 0 is the base method.
        every: fuse at every n-th epoch, at least 1.
        fusion: "attention", or "direct" to aim at the guesses themselves.
        layers: "all" weight matrices, or the "last" one.
        control: "none"; or what the method is measured against: "untrained" generators, channel-"shuffled" states,
            "uniform" attention, "flat" curvature (C = 1).
    """

    wraps: ClassVar[bool] = True
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {"beta": Between(0.01, 10.0, log=True), "limit": Between(0.05, 1.0), "k": Whole(1, 5)}
    )

    def __init__(
        self,
        base: Distiller,
        bank: Bank | None,
        seed: int = 0,
        *,
        preset: Literal["tuned", "paper"] = "tuned",
        beta: float | None = None,
        limit: float | None = None,
        k: int = 3,
        every: int = 1,
        fusion: Literal["attention", "direct"] = "attention",
        layers: Literal["all", "last"] = "all",
        control: Literal["none", "untrained", "shuffled", "uniform", "flat"] = "none",
    ) -> None:
        if type(base).gradients is not Distiller.gradients:
            raise ValueError(f"method.base {type(base).__name__} has gradients of its own; DGD needs a plain one")
        self.base, self.bank, self.seed, self.preset = base, bank, seed, preset
        self.needs_teacher, self.reads_maps = base.needs_teacher, base.reads_maps
        self.asks_teacher, self.asks_student = base.asks_teacher, base.asks_student
        self.batches = base.batches
        self.beta = _at_least("beta", PRESETS[preset]["beta"] if beta is None else beta, 0)
        self.limit = _at_least("limit", PRESETS[preset]["limit"] if limit is None else limit, 0) or None
        self.k, self.every = int(_at_least("k", k, 0)), int(_at_least("every", every, 1))
        self.fusion, self.layers, self.control = fusion, layers, control
        self._rules: _Guesses | None = None
        self._every: Tensor | None = None
        self._probe = None if bank is None else bank.probe
        self._sizes: dict[str, Tensor] = {}

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The base's."""
        return self.base.learner(make, batch, classes, seed)

    def prepare(self, lesson: Lesson) -> None:
        """Make the base's part, and hear which rows there are."""
        self.base.prepare(lesson)
        self.part, self._every = self.base.part, lesson.index
        probe = lesson.probe if self.bank is None or self.bank.probe is None else self.bank.probe
        self._probe = None if probe is None else probe.to(lesson.y.device)

    def _active(self, step: Step) -> bool:
        return self.beta > 0 and self.k > 0 and step.epoch % self.every == 0

    def _reads(self, step: Step) -> bool:
        return self._active(step) and self.control != "uniform" and self.bank is not None

    def wants_clean(self, step: Step) -> bool:
        """The states are dropout-free when the generators saw dropout-free ones, or when they are those of a probe."""
        return self._reads(step) and self._probe is None and bool(self.bank and self.bank.settings.clean)

    def probe(self, step: Step) -> Int[Tensor, " P"] | None:
        """The rows that the teacher's states were made of, or else those that stand for all on batches.

        They are looked at without dropout under either preset: a pass with dropout would need masks of its own, which
        are no part of the step whose gradient is moved.
        """
        return self._probe if self._reads(step) else None

    def missing(self) -> str | None:
        """Generators, unless beta or k is 0."""
        if self.beta > 0 and self.k > 0 and (self.bank is None or not self.bank.copies):
            return "dgd needs a teacher with generators: train it with method.generators=true and at least 2 epochs"
        if self.bank is not None and self.k > self.bank.settings.keep:
            return f"method.k is {self.k}; the teacher kept {self.bank.settings.keep} generators (method.keep)"
        return self.base.missing()

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The base method's terms."""
        return self.base.loss(batch, student, teacher, step)

    def gradients(
        self, terms: Mapping[str, Tensor], params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """The base's gradients, and `curvature/<weight>` where they are to be moved by it."""
        if not self._active(step):
            return self.base.gradients(terms, params, batch, student, step)
        flat = self.control == "flat"
        found = plain_gradients(terms, params, create_graph=not flat)
        names = _fusible(student, found)
        if not names:
            raise ValueError("DGD found no weight matrix with a gradient in this student")
        weights = {name: params[name] for name in names}
        curved = {} if flat else fusion.curvature({name: found[name] for name in names}, weights)
        return {name: g.detach() for name, g in found.items()} | {_CURVED + name: c for name, c in curved.items()}

    def combine(
        self, gradients: Gradients, params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """The base's gradients, moved towards their fusion with the generators' guesses."""
        self._sizes = {}
        if not self._active(step):
            return gradients
        found = {name: g for name, g in gradients.items() if not name.startswith(_CURVED)}
        names = _fusible(student, found)
        for name in names if self.layers == "all" else names[-1:]:
            gradient, curved = found[name].t(), gradients.get(_CURVED + name)
            fused = self._fused(gradient, name, names, student, batch.index)
            bias = fusion.weighted_bias(gradient, fused, 1.0 if curved is None else curved.t(), self.beta, self.limit)
            self._sizes[f"bias/{name}"] = bias.norm() / gradient.norm().clamp(min=1e-30)
            found[name] = (gradient + bias).t()
        return found

    def diagnostics(self) -> Mapping[str, Tensor]:
        """The base's, and `bias/<weight>`: norm of the bias relative to the gradient's, at the last fused step."""
        return {**self.base.diagnostics(), **self._sizes}

    def state(self) -> dict[str, Tensor]:
        """The base's."""
        return self.base.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`, after `prepare`."""
        self.base.load_state(tensors)

    def _fused(self, gradient: Tensor, name: str, names: list[str], student: Output, index: Tensor) -> Tensor:
        if self.control == "uniform":
            return fusion.uniform(gradient)
        if self._rules is None:
            assert self.bank is not None
            self._rules = _Guesses(self.bank, self.k, self.control, self.seed, index.device, self._every)
        shown, blocks = student.clean or student, student.averaged.get(name, 1)
        if self._probe is not None:
            assert student.probe is not None, "a course shows the rows that a method names"
            shown, index = student.probe, self._probe
        found = self._rules.of(name, names, shown.hidden[name], index)
        guesses = [fusion.spread(g, gradient.shape[1], blocks) for g in found]
        if self.fusion == "direct":
            return fusion.direct(gradient, guesses)
        keys = fusion.rms_normalised(gradient)
        if self.preset == "tuned":
            guesses = [fusion.rms_normalised(g) for g in guesses]
        return fusion.fuse(gradient, torch.stack(guesses), keys)


@final
class _Guesses:
    """Guesses of the averaged generators for a student's layers; those at a constant operand are kept.

    The sketch is that of the rows that are shown, and kept as long as they stay.
    """

    def __init__(
        self, bank: Bank, k: int, control: str, seed: int, device: torch.device, every: Tensor | None = None
    ) -> None:
        self.bank, self.shuffled, self.every = bank, control == "shuffled", every
        generators = bank.untrained(seed=seed) if control == "untrained" else bank.averaged(k)
        self.generators = [g.to(device) for g in generators]
        self._sketch: tuple[Tensor, CSR | None] | None = None
        self._constant: dict[str, tuple[Operand, list[Tensor]]] = {}
        self._orders: dict[str, Tensor] = {}
        self._rng = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def of(self, name: str, names: list[str], h: Operand, index: Tensor) -> list[Tensor]:
        """`mu_j(s)` of every teacher layer dealt to the student's layer `name` of `names`; `index` are the ids of h."""
        kept = self._constant.get(name)
        if kept is not None and kept[0] is h:
            return kept[1]
        states: Channels = self.bank.states(h.detach() if isinstance(h, Tensor) else h, self._sketched(index))
        dealt = fusion.deal(len(self.generators), len(names))[names.index(name)]
        guesses = [self.generators[j](states.project) for j in dealt]
        if self.shuffled:
            order = self._order(name, states.n_channels)
            guesses = [g[order] for g in guesses]
        if not (isinstance(h, Tensor) and h.requires_grad):  # a kept operand must not keep its graph
            self._constant[name] = (h, guesses)
        return guesses

    def _sketched(self, index: Tensor) -> CSR | None:
        if self._sketch is None or self._sketch[0] is not index:
            layers = self.bank.layers
            self._sketch = index, sketch_matrix(index, layers.n_nodes, layers.m, self.every)
        return self._sketch[1]

    def _order(self, name: str, n: int) -> Tensor:
        """A fixed permutation of the channels: guesses from shuffled states are shuffled guesses."""
        if name not in self._orders:
            self._orders[name] = torch.randperm(n, generator=self._rng).to(self.generators[0].weight.device)
        return self._orders[name]


def _fusible(student: Output, gradients: Gradients) -> list[str]:
    """The weight matrices whose input is known and that have a gradient, in forward order."""
    return [name for name in student.hidden if name in gradients]


def _at_least(name: str, value: float, low: float) -> float:
    if not value >= low or value == float("inf"):
        raise ValueError(f"method.{name} is {value}; it must be a finite number of at least {low}")
    return value
