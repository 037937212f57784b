"""What is searched for an entry of a comparison: the method's own options, and the training of its student."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gnnkd import distillers, options
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.space import Between, OneOf, Range, Whole
from gnnkd.errors import UserError
from gnnkd.graph_config import Config

Groups = Mapping[str, Mapping[str, Any]]
Plan = Callable[[Groups], Config]
"""The configuration of an entry with options that the user's own beat."""

TRAINING: Mapping[str, Range] = MappingProxyType(
    {
        "lr": OneOf((0.001, 0.005, 0.01)),
        "weight_decay": OneOf((0.0, 5e-4, 0.001, 0.002, 0.005, 0.01)),
        "dropout": OneOf((0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
    }
)
"""Of the student, whichever method teaches it: the grid that GLNN was searched on, and the usual weight decay."""


def of_method(method: str, base: str | None) -> dict[str, Range]:
    """What a method on graphs, and its base if it wraps one, say of their options.

    An option that the teacher's generators have, too, is left out: with another value there would be another teacher.
    """
    there = distillers.graph_methods()
    own = distillers.options(method, on_graphs=True)
    found = {} if base is None else {name: r for name, r in there[base].space.items() if name not in own}
    found |= there[method].space
    return {name: r for name, r in found.items() if not (there[method].wraps and name in options.of(GeneratorSettings))}


def space(plan: Plan) -> dict[str, Range]:
    """What is searched, by `group.option`: nothing that the user has said, or that what he has said leaves no room for.

    The student's own setting is added to the grid of its training, if it is not there.
    """
    config = plan({})
    found = {f"student.{name}": _with(r, _setting(config, name)) for name, r in TRAINING.items() if _has(config, name)}
    found |= {f"method.{name}": r for name, r in of_method(config.method, config.base).items()}
    return {key: r for key, r in found.items() if key not in config.given and _fits(plan, key, r)}


def _has(config: Config, name: str) -> bool:
    return name in config.student or name in options.of(type(config.student_train))


def _setting(config: Config, name: str) -> Any:
    return config.student[name] if name in config.student else getattr(config.student_train, name)


def _with(searched: Range, value: Any) -> Range:
    if not isinstance(searched, OneOf) or value in searched.values:
        return searched
    return replace(searched, values=tuple(sorted((*searched.values, value))))


def _fits(plan: Plan, key: str, searched: Range) -> bool:
    """Whether every end of a range makes a configuration, as the temperature of a term that is left out does not."""
    try:
        for value in ends(searched):
            plan(groups({key: value}))
    except UserError:
        return False
    return True


def ends(searched: Range) -> tuple[Any, ...]:
    """The ends of a range, or all of its values."""
    return searched.values if isinstance(searched, OneOf) else (searched.low, searched.high)


def default(config: Config, searched: Mapping[str, Range]) -> dict[str, Any]:
    """The settings of a configuration, by `group.option`, as far as they lie in a space."""
    said = {f"student.{name}": _setting(config, name) for name in TRAINING if _has(config, name)}
    said |= {f"method.{name}": value for name, value in config.options.items()}
    return {key: said[key] for key, r in searched.items() if _contains(r, said[key])}


def _contains(searched: Range, value: Any) -> bool:
    if isinstance(searched, OneOf):
        return value in searched.values
    return isinstance(value, int | float) and searched.low <= value <= searched.high


def groups(chosen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values by `group.option` as groups of options."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in chosen.items():
        group, _, name = key.partition(".")
        found.setdefault(group, {})[name] = value
    return found


def described(searched: Mapping[str, Range]) -> dict[str, dict[str, Any]]:
    """A space as plain values."""
    return {key: dict(_described(r)) for key, r in searched.items()}


def _described(searched: Range) -> Iterator[tuple[str, Any]]:
    if isinstance(searched, OneOf):
        yield "values", list(searched.values)
    else:
        yield from (("low", searched.low), ("high", searched.high))
        yield "scale", "log" if isinstance(searched, Between) and searched.log else "linear"
        yield "whole", isinstance(searched, Whole)


def distributions(searched: Mapping[str, Range]) -> dict[str, Any]:
    """A space as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(r: Range) -> Any:
        if isinstance(r, OneOf):
            return CategoricalDistribution(r.values)
        return IntDistribution(r.low, r.high) if isinstance(r, Whole) else FloatDistribution(r.low, r.high, log=r.log)

    return {key: of(r) for key, r in searched.items()}
