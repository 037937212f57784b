"""What is searched for an entry: options that there are, in ranges that methods accept, and nothing that was said."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gnnkd import distillers, options
from gnnkd.compare import spaces
from gnnkd.compare.spaces import TRAINING, Groups, of_method, space
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.space import Between, OneOf, Range, Whole
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.run import resolve

METHODS = sorted(distillers.graph_methods())
PLAIN = [name for name in METHODS if not distillers.graph_methods()[name].wraps]
WRAPPING = sorted(set(METHODS) - set(PLAIN))
EVERY = [(name, None) for name in PLAIN] + [(name, base) for name in WRAPPING for base in PLAIN]


def corners(searched: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Every combination of the ends of ranges."""
    ends = (dict.fromkeys((spaces.ends(r)[0], spaces.ends(r)[-1])) for r in searched.values())
    return [dict(zip(searched, chosen, strict=True)) for chosen in itertools.product(*ends)]


def plan(method: str, *levels: Groups, **said: Any) -> Any:
    """A configuration by the settings below the user's, as a comparison makes it."""

    def go(settings: Groups) -> Config:
        return resolve("cora", **{"method": method, **said}, levels=(*levels, settings))

    return go


# -- of methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_space_names_options_of_the_method(method: str) -> None:
    kind = distillers.graph_methods()[method]
    assert set(kind.space) <= set(distillers.options(method, on_graphs=True))
    assert all(isinstance(r, Between | Whole | OneOf) for r in kind.space.values())
    assert len(kind.space) <= 6
    with pytest.raises(TypeError):
        kind.space["another"] = Whole(1, 2)  # type: ignore[index]


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_not_empty(method: str) -> None:
    for name, r in distillers.graph_methods()[method].space.items():
        if isinstance(r, OneOf):
            assert len(set(r.values)) == len(r.values) > 1, name
        else:
            assert r.low < r.high, name
            assert not (isinstance(r, Between) and r.log and r.low <= 0), name


@pytest.mark.parametrize(("method", "base"), EVERY, ids=[f"{m}+{b}" if b else m for m, b in EVERY])
def test_every_corner_builds(method: str, base: str | None) -> None:
    """Of what wraps, all of its own options are at one end together; alone each is on `kd`."""
    found, kind = of_method(method, base), distillers.graph_methods()[method]
    own = {name: r for name, r in found.items() if name in kind.space and base not in (None, "kd")}
    others = {name: r for name, r in found.items() if name not in own}
    for chosen in corners(others):
        for end in (0, -1) if own else (0,):
            whole = {**chosen, **{name: spaces.ends(r)[end] for name, r in own.items()}}
            context = [None] if base else []
            distillers.build(method, *context, base=base or "auto", on_graphs=True, **whole)


@pytest.mark.parametrize("method", METHODS)
def test_values_have_the_types_of_the_options(method: str) -> None:
    kind = distillers.graph_methods()[method]
    for name, r in kind.space.items():
        for value in spaces.ends(r):
            options.checked("method", {name: value}, options.of(kind))


@pytest.mark.parametrize("method", WRAPPING)
@pytest.mark.parametrize("base", PLAIN)
def test_a_wrapping_method_searches_its_own_and_its_bases_options(method: str, base: str) -> None:
    there = distillers.graph_methods()
    found, own = of_method(method, base), distillers.options(method, on_graphs=True)
    assert {name: found[name] for name in there[method].space} == dict(there[method].space)
    of_generators = options.of(GeneratorSettings)
    rest = {n: r for n, r in there[base].space.items() if n not in own and n not in of_generators}
    assert found == {**rest, **there[method].space}
    assert not found.keys() & of_generators.keys()


# -- of entries --------------------------------------------------------------------------------------------------


def test_students_are_searched_alike_whichever_method_teaches_them() -> None:
    found = {
        m: {k: r for k, r in space(plan(m)).items() if k.startswith("student.")} for m in ("supervised", "kd", "dgd")
    }
    assert found["supervised"] == found["kd"] == found["dgd"]
    assert found["kd"].keys() == {f"student.{name}" for name in TRAINING}


def test_the_grid_has_the_settings_of_the_data() -> None:
    """Presets that are no value of the grid (a weight decay of 5e-5 on pubmed) are added to it, in order."""
    found = space(lambda groups: resolve("pubmed", method="glnn", levels=(groups,)))
    assert found["student.weight_decay"] == OneOf((0.0, 5e-5, 5e-4, 0.001, 0.002, 0.005, 0.01))
    assert found["student.lr"] == TRAINING["lr"]


def test_a_student_without_an_option_is_not_searched_for_it() -> None:
    assert "student.dropout" not in space(plan("kd", student_model="sgc"))
    assert "student.lr" in space(plan("kd", student_model="sgc"))


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        ({"student": {"lr": 0.02}}, {"student.lr"}),
        ({"train": {"weight_decay": 0.0, "lr": 0.1}}, {"student.lr", "student.weight_decay"}),
        ({"teacher": {"lr": 0.02}}, set()),
        ({"method": {"alpha": 0.7}}, {"method.alpha"}),
        ({"method": {"ce_weight": 1.0, "kd_weight": 1.0}}, {"method.alpha"}),
        ({"method": {"recipe": "kd_ce1_kd1_warmup20"}}, {"method.alpha"}),
    ],
)
def test_what_was_said_is_not_searched(said: Groups, gone: set[str]) -> None:
    """Nor what leaves nothing to it: with both weights given, alpha would have nothing to say."""
    assert set(space(plan("kd"))) - set(space(plan("kd", said))) == gone


def test_a_configuration_that_is_wrong_says_so() -> None:
    with pytest.raises(UserError, match="alpha"):
        space(plan("kd", {"method": {"alpha": 3.0}}))


def test_the_first_trial_is_what_the_configuration_says() -> None:
    config = plan("dgd")({})
    first = spaces.default(config, space(plan("dgd")))
    assert first["method.k"] == config.options["k"] == 3
    assert first["student.dropout"] == config.student["dropout"]
    assert first["student.lr"] == config.student_train.lr
    assert "method.beta" not in first  # None: the preset says it
    low = replace(config, options={**config.options, "k": 0})
    assert "method.k" not in spaces.default(low, space(plan("dgd")))  # outside the range


def test_settings_by_name_are_groups_of_options() -> None:
    chosen = {"student.lr": 0.1, "method.alpha": 0.5, "student.dropout": 0.0}
    assert spaces.groups(chosen) == {"student": {"lr": 0.1, "dropout": 0.0}, "method": {"alpha": 0.5}}
    assert spaces.groups({}) == {}


def test_a_space_in_plain_values() -> None:
    found = spaces.described({"a": OneOf((1, 2)), "b": Between(0.1, 1.0, log=True), "c": Whole(1, 5)})
    assert found == {
        "a": {"values": [1, 2]},
        "b": {"low": 0.1, "high": 1.0, "scale": "log", "whole": False},
        "c": {"low": 1, "high": 5, "scale": "linear", "whole": True},
    }
