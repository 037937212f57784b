"""DOT, distillation-oriented training: the task's and the teacher's gradients keep velocities of their own.

B. Zhao, Q. Cui, R. Song, J. Liang, "DOT: a distillation-oriented trainer", ICCV 2023. With momentum m, weight decay
wd, gradients g_c of the cross-entropy and g_k of all other terms, and weights w,

    v_c <- (m - delta) v_c + g_c + wd w        v_k <- (m + delta) v_k + g_k        w <- w - lr (v_c + v_k)

so that the teacher's direction lasts longer than the task's. A velocity starts at its first force. A parameter that
only one of the two reaches has momentum m; one that only the teacher reaches (a connector) is decayed too, but not in
its first step. With delta 0 all this is SGD on the sum, for a parameter that the task reaches; for one that only the
teacher reaches it is, if wd is 0.

Departures: none; larger sets than CIFAR-100 and Tiny-ImageNet were published with delta 0.09.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from gnnkd.distillers.base import TASK, Distiller, Gradients, Lesson
from gnnkd.distillers.ranges import at_least
from gnnkd.errors import UserError
from gnnkd.tensors import under
from gnnkd.types import Batch, Output, Step

_OTHER = {"task": "teacher", "teacher": "task"}


@final
class Dot(Distiller):
    """Two momenta on top of a base method.

    Args:
        base: the method whose terms are minimised; it must keep the default gradients.
        delta: what the teacher's momentum has more, and the task's less, at least 0; at most the momentum, and below 1
            less the momentum.
    """

    wraps: ClassVar[bool] = True
    graphs: ClassVar[bool] = False
    images: ClassVar[bool] = True
    own_momentum: ClassVar[bool] = True

    def __init__(self, base: Distiller, *, delta: float = 0.075) -> None:
        if type(base).gradients is not Distiller.gradients or type(base).combine is not Distiller.combine:
            raise ValueError(f"method.base {type(base).__name__} has gradients of its own; DOT needs a plain one")
        if not base.images:
            raise ValueError(f"method.base {type(base).__name__} teaches no images; choose another one")
        self.base, self.delta = base, at_least("delta", delta, 0)
        self.needs_teacher, self.reads_maps = base.needs_teacher, base.reads_maps
        self._momentum, self._decay = 0.0, 0.0
        self._velocity: dict[str, Tensor] = {}

    def prepare(self, lesson: Lesson) -> None:
        """Take over momentum and weight decay, and make the base's part.

        Raises:
            UserError: `delta` is larger than the momentum allows.
        """
        m = lesson.momentum
        if self.delta > m or m + self.delta >= 1:
            raise UserError(
                f"method.delta is {self.delta}; with momentum {m} it must be at most {m} and below {1 - m:.6g}"
            )
        self._momentum, self._decay = m, lesson.weight_decay
        self.base.prepare(lesson)
        self.part = self.base.part

    def wants_clean(self, step: Step) -> bool:
        """As the base."""
        return self.base.wants_clean(step)

    def missing(self) -> str | None:
        """As the base."""
        return self.base.missing()

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The base's terms."""
        return self.base.loss(batch, student, teacher, step)

    def diagnostics(self) -> Mapping[str, Tensor]:
        """The base's."""
        return self.base.diagnostics()

    def gradients(
        self, terms: Mapping[str, Tensor], params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """`task/<parameter>`, of the term `ce`, and `teacher/<parameter>`, of the sum of all others."""
        sums = {"task": [terms[TASK]] if TASK in terms else [], "teacher": [t for n, t in terms.items() if n != TASK]}
        found: Gradients = {}
        for kind, parts in sums.items():
            if parts:
                again = kind == "task" and bool(sums["teacher"])
                total = torch.stack(parts).sum()
                gradients = torch.autograd.grad(total, list(params.values()), retain_graph=again, allow_unused=True)
                found |= {f"{kind}/{n}": g for n, g in zip(params, gradients, strict=True) if g is not None}
        return found

    @torch.no_grad()
    def combine(
        self, gradients: Gradients, params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """`v_c + v_k` by parameter, after one step of both."""
        groups: dict[tuple[float, float], list[str]] = defaultdict(list)
        for key in gradients:
            kind, name = key.split("/", 1)
            alone = f"{_OTHER[kind]}/{name}" not in gradients
            shift = 0.0 if alone else -self.delta if kind == "task" else self.delta
            decayed = kind == "task" or (alone and key in self._velocity)
            groups[self._momentum + shift, self._decay if decayed else 0.0].append(key)
        for (momentum, decay), keys in groups.items():
            self._push({key: gradients[key] for key in keys}, params, momentum, decay)
        return self._sums(gradients, params)

    def _push(self, forces: Gradients, params: Mapping[str, Tensor], momentum: float, decay: float) -> None:
        """`v <- momentum v + g + decay w`, all tensors at once; a new velocity is its force."""
        if decay:
            weights = [params[key.split("/", 1)[1]] for key in forces]
            forces = dict(zip(forces, torch._foreach_add(list(forces.values()), weights, alpha=decay), strict=True))
        old = [key for key in forces if key in self._velocity]
        if old:
            velocities = [self._velocity[key] for key in old]
            torch._foreach_mul_(velocities, momentum)
            torch._foreach_add_(velocities, [forces[key] for key in old])
        self._velocity |= {key: force.clone() for key, force in forces.items() if key not in self._velocity}

    def _sums(self, gradients: Gradients, params: Mapping[str, Tensor]) -> Gradients:
        of_task, of_teacher = ({n for n in params if f"{kind}/{n}" in gradients} for kind in _OTHER)
        both = [name for name in params if name in of_task and name in of_teacher]
        alone = {name: "task" if name in of_task else "teacher" for name in params if name in of_task ^ of_teacher}
        found = {name: self._velocity[f"{kind}/{name}"].clone() for name, kind in alone.items()}
        if both:
            parts = [[self._velocity[f"{kind}/{name}"] for name in both] for kind in _OTHER]
            found |= dict(zip(both, torch._foreach_add(*parts), strict=True))
        return found

    def state(self) -> dict[str, Tensor]:
        """The velocities, and the base's state."""
        velocities = {f"velocity.{key}": v for key, v in self._velocity.items()}
        return velocities | {f"base.{name}": t for name, t in self.base.state().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`, after `prepare`."""
        self._velocity = {key: v.clone() for key, v in under(tensors, "velocity.").items()}
        self.base.load_state(under(tensors, "base."))
