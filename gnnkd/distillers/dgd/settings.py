"""Options of the generators that learn beside a teacher, with the two presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

PRESETS: dict[str, dict[str, Any]] = {
    "tuned": {
        "clean": True, "centre": True, "average": 0.8, "bounded": False, "space": False, "form": "projection",
        "smoothing": 0.1, "penalty": 1.0, "beta1": 0.0, "generator_lr": 0.01, "steps": 5, "clone_weight": 1.0,
    },
    "paper": {
        "clean": False, "centre": False, "average": 0.0, "bounded": True, "space": True, "form": "concat",
        "smoothing": 0.0, "penalty": 0.0, "beta1": 0.9, "generator_lr": 0.001, "steps": 1, "clone_weight": 0.0,
    },
}  # fmt: skip
"""`paper` takes the definition literally; `tuned` is what was measured to imitate."""


@dataclass(frozen=True)
class GeneratorSettings:
    """How the generators of the tea stage learn; None means what the preset says.

    Args:
        preset: "tuned" or "paper".
        buckets: size M of a state; graphs with at most M nodes are not sketched. At least 1.
        clean: states and target gradients from a pass without dropout.
        centre: subtract the mean over channels from the states.
        average: decay of the targets' moving average over epochs, in [0, 1); 0 takes the raw next-epoch gradient.
        bounded: tanh on the generator's mean.
        space: judge pairs across layers too (channel o of one layer's output, row o of the next gradient).
        form: the discriminator, "projection" or "concat".
        smoothing: real pairs get the label `1 - smoothing`, in [0, 0.5).
        penalty: weight of the gradient penalty on interpolates, at least 0.
        beta1: first Adam coefficient, in [0, 1).
        generator_lr: Adam's step size for generator and discriminator, above 0.
        steps: alternating discriminator and generator steps an epoch, at least 1.
        clone_weight: weight of behaviour cloning, `mean over channels of |mu - target|^2`, at least 0.
        estimator: generator gradient by reparameterisation ("pathwise") or by the score function ("score").
        keep: copies kept, best by the teacher's validation accuracy, at least 1.
    """

    preset: Literal["tuned", "paper"] = "tuned"
    buckets: int = 2048
    clean: bool | None = None
    centre: bool | None = None
    average: float | None = None
    bounded: bool | None = None
    space: bool | None = None
    form: Literal["projection", "concat"] | None = None
    smoothing: float | None = None
    penalty: float | None = None
    beta1: float | None = None
    generator_lr: float | None = None
    steps: int | None = None
    clone_weight: float | None = None
    estimator: Literal["pathwise", "score"] = "pathwise"
    keep: int = 8

    def resolved(self) -> GeneratorSettings:
        """The same settings with every None replaced by the preset's value, checked."""
        chosen = {name: value for name, value in PRESETS[self.preset].items() if getattr(self, name) is None}
        full = dataclasses.replace(self, **chosen)
        for name, low, high in _RANGES:
            value = getattr(full, name)
            if not low <= value < high:
                raise ValueError(f"method.{name} is {value}; it must lie in [{low}, {high})")
        if not full.generator_lr or full.generator_lr < 0:
            raise ValueError(f"method.generator_lr is {full.generator_lr}; it must be above 0")
        return full


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("buckets", 1, float("inf")),
    ("average", 0, 1),
    ("smoothing", 0, 0.5),
    ("penalty", 0, float("inf")),
    ("beta1", 0, 1),
    ("steps", 1, float("inf")),
    ("clone_weight", 0, float("inf")),
    ("keep", 1, float("inf")),
)
