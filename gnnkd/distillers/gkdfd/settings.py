"""The options of GK-DFD, filled by a recipe and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, final, get_args

from gnnkd.distillers.gkdfd.discriminative import Choice, Mode
from gnnkd.distillers.gkdfd.embedding import Conv, Head
from gnnkd.distillers.gkdfd.relations import Connection, Input, Parts
from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.distillers.schedule import Schedule, check_some

Recipe: TypeAlias = Literal["paper", "prototype", "paper+kd", "prototype+kd"]
Labels: TypeAlias = Literal["true", "pred"]
Whose: TypeAlias = Literal["shared", "own"]
Edges: TypeAlias = Literal["scalar", "vector"]

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "tau": 4.0, "labels": "true", "graph": "shared", "node_weight": 0.0, "edge_weight": 0.0, "mode": "align",
        "whiten": False, "k2": 56,
    },
    "prototype": {
        "tau": 1.0, "labels": "pred", "graph": "own", "node_weight": 1.0, "edge_weight": 1.0, "mode": "contrast",
        "whiten": True, "k2": 0,
    },
}  # fmt: skip
"""By reading of the source. With `+kd`, `kd_weight` is 1; without it 0."""
DEFAULTS: dict[str, Any] = {
    "global_weight": 1.0, "readout_weight": 0.0, "edge_embedding": "scalar", "k1": 7, "pca_ratio": 2.0,
    "temperature": 4.0,
}  # fmt: skip
"""Of options that are None because they must be left out where they would do nothing."""
PARTS = ("node", "edge", "global", "readout")
"""Of the graph distillation loss."""
TERMS = ("graph", "dfd", "kd")
OF_GRAPH = (*(f"{part}_weight" for part in PARTS), "edge_embedding")
"""Options that the term `graph` alone reads."""
OF_DFD = ("k1", "k2", "mode", "whiten", "pca_ratio")
"""Options that the term `dfd` alone reads."""
WORDS: dict[str, tuple[str, ...]] = {
    "recipe": get_args(Recipe), "uem_input": get_args(Input), "parts": get_args(Parts), "labels": get_args(Labels),
    "graph": get_args(Whose), "conv": get_args(Conv), "edge_embedding": get_args(Edges), "mode": get_args(Mode),
    "teacher_head": get_args(Head),
}  # fmt: skip
WHOLE = ("topk", "dim", "k1", "k2", "classes", "samples")
NUMBERS = ("tau", "cac", "pca_ratio", "temperature")


@final
@dataclass(frozen=True)
class Settings:
    """All options in use.

    `weights` holds a schedule for each of `PARTS` and `TERMS`; the other fields are as `Gkdfd` explains them, `own`
    whether the student has a graph of its own, and `vectors` whether edges are embedded.
    """

    connection: Connection
    choice: Choice
    weights: Mapping[str, Schedule]
    predicted: bool
    own: bool
    dim: int
    conv: Conv
    vectors: bool
    head: Head
    temperature: float
    classes: int
    samples: int

    @staticmethod
    def of(given: Mapping[str, Any]) -> Settings:
        """The options as they are given by name, those that are None filled by the recipe.

        Raises:
            ValueError: a word that does not exist, a value out of range or of another type, or an option that would do
                nothing.
        """
        _check_type("recipe", given["recipe"])
        reading, _, more = given["recipe"].partition("+")
        says = RECIPES[reading] | DEFAULTS | {"kd_weight": 1.0 if more else 0.0}
        full: dict[str, Any] = {name: says.get(name) if value is None else value for name, value in given.items()}
        for name, value in full.items():
            _check_type(name, value)
        weights = {name: Schedule.of(f"{name}_weight", full[f"{name}_weight"]) for name in (*PARTS, *TERMS)}
        found = Settings(
            connection=Connection(full["uem_input"], full["tau"], full["parts"], full["cac"], full["topk"]),
            choice=Choice(full["mode"], full["k1"], full["k2"], full["pca_ratio"], full["whiten"]),
            weights=weights,
            predicted=full["labels"] == "pred",
            own=full["graph"] == "own",
            dim=int(at_least("dim", full["dim"], 1)),
            conv=full["conv"],
            vectors=full["edge_embedding"] == "vector" and not weights["edge"].never,
            head=full["teacher_head"],
            temperature=above_zero("temperature", full["temperature"]),
            classes=int(at_least("classes", full["classes"], 1)),
            samples=int(at_least("samples", full["samples"], 1)),
        )
        found._check(given)
        return found

    def _check(self, given: Mapping[str, Any]) -> None:
        """Refuse options that would be ignored, and settings that leave nothing to compare."""
        w = self.weights
        check_some({"graph_weight": w["graph"], "dfd_weight": w["dfd"]})
        if not w["graph"].never:
            check_some({f"{part}_weight": w[part] for part in PARTS})
        ignored = (
            ("tau", self.connection.given == "softmax", "method.uem_input is softmax"),
            *((name, not w["graph"].never, "method.graph_weight is above 0") for name in OF_GRAPH),
            ("edge_embedding", not w["edge"].never, "method.edge_weight is above 0"),
            *((name, not w["dfd"].never, "method.dfd_weight is above 0") for name in OF_DFD),
            ("temperature", not w["kd"].never, "method.kd_weight is above 0"),
        )
        for name, used, when in ignored:
            if given[name] is not None and not used:
                raise ValueError(f"method.{name} is {given[name]}; it must be left out unless {when}")
        if self.classes == 1 and not w["dfd"].never:
            raise ValueError(
                "method.classes is 1 and method.dfd_weight above 0, and rows of one class have no others to lie apart "
                "from; set method.classes to 2 or more, or method.dfd_weight=0"
            )
        if not (w["graph"].never or w["edge"].never or self.own or self.vectors):
            raise ValueError(
                "method.edge_weight is above 0, and both networks share a graph whose edges are the same for both; "
                "set method.edge_embedding=vector, method.graph=own or method.edge_weight=0"
            )


def _check_type(name: str, value: Any) -> None:
    """Refuse a word that an option does not have, and a value of another type, also where no command line has."""
    if name in WORDS:
        fits, wanted = isinstance(value, str) and value in WORDS[name], f"one of {', '.join(WORDS[name])}"
    elif name in WHOLE:
        fits, wanted = isinstance(value, Integral) and not isinstance(value, bool), "a whole number"
    elif name in NUMBERS:
        fits, wanted = isinstance(value, Real) and not isinstance(value, bool), "a finite number"
    elif name.endswith("_weight"):
        fits, wanted = _is_weight(value), "a number, or pairs [epoch, weight]"
    else:
        fits, wanted = name != "whiten" or isinstance(value, bool), "true or false"
    if not fits:
        raise ValueError(f"method.{name} is {value!r}; it must be {wanted}")


def _is_weight(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return isinstance(value, int | float)
    return all(isinstance(x, int | float) for pair in value for x in (pair if isinstance(pair, list | tuple) else [""]))
