"""A graph of networks with the names and options of its nodes and edges resolved, for one seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from gnnkd import halves, nn
from gnnkd.distillers import Distiller, build
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError, unknown
from gnnkd.graph_config import Config
from gnnkd.images import presets
from gnnkd.images.config import ImageConfig
from gnnkd.images.resolve import OF_STUDENT
from gnnkd.ktg import written
from gnnkd.ktg.spec import EdgeSpec, Spec
from gnnkd.ktg.weights import Weights
from gnnkd.ktg.written import KL
from gnnkd.train.settings import ImageTrainSettings, TrainSettings
from gnnkd.train.together.node import SHARED

Plan: TypeAlias = Config | ImageConfig
PLAIN = "supervised"
WORDS = {"teacher model": "model", "student model": "model"} | dict.fromkeys(
    ("student.", "teacher.", "method.", "student: ", "teacher: "), ""
)
"""Of runs of one teacher and one student, and what they are called in a graph."""


@final
@dataclass(frozen=True)
class Plans:
    """Configurations of a graph's nodes and edges.

    Args:
        nodes: of each node; a trained one is its student, one that is trained alone its teacher.
        edges: by (node, source), for edges that are not cut, not `kl` and not self edges.
        weights: what nodes start from, by number.
    """

    spec: Spec
    nodes: tuple[Plan, ...]
    edges: Mapping[tuple[int, int], Plan]
    weights: Mapping[int, Weights]

    @property
    def first(self) -> Plan:
        """That of node 0, which also says how the data is read."""
        return self.nodes[0]

    @property
    def of_images(self) -> bool:
        """Whether the graph is of networks of images."""
        return isinstance(self.first, ImageConfig)

    def model(self, node: int) -> str:
        """The network's name, as results call it."""
        return self.nodes[node].student_model

    def options(self, node: int) -> dict[str, Any]:
        """Of the network's constructor."""
        plan = self.nodes[node]
        return dict(plan.teacher if node in self.spec.alone() else plan.student)

    def settings(self, node: int) -> TrainSettings | ImageTrainSettings:
        """Of a node's training."""
        return self.nodes[node].student_train

    def factor(self, node: int, source: int) -> float:
        """What an edge's loss is multiplied by."""
        return self.spec.edges.get((node, source), EdgeSpec()).factor

    def method(self, node: int, source: int) -> str:
        """The name of an edge's method, `kl` or that of a self edge among them."""
        return PLAIN if node == source else self.spec.edges.get((node, source), EdgeSpec()).method or self.spec.loss

    def described(self, node: int, source: int) -> dict[str, Any]:
        """All that determines an edge's loss, as plain values."""
        found: dict[str, Any] = {"method": self.method(node, source), "factor": self.factor(node, source)}
        if (plan := self.edges.get((node, source))) is not None:
            return found | {"method": plan.method, "base": plan.base, "options": dict(plan.options)}
        return found if node == source else found | {"temperature": self._temperature(node, source)}

    def distiller(self, node: int, source: int) -> Distiller:
        """The method of an edge, an object of its own."""
        if node == source:
            return Supervised()
        plan = self.edges.get((node, source))
        if plan is None:
            return build("kd", alpha=1.0, temperature=self._temperature(node, source))
        chosen = {name: value for name, value in plan.options.items() if name != "base"}
        on_graph = self.of_images or nn.needs_graph(self.model(node))
        return build(plan.method, base=plan.base or "auto", student_needs_graph=on_graph, **chosen)

    def _temperature(self, node: int, source: int) -> float:
        said = self.spec.edges.get((node, source), EdgeSpec()).options
        return float(said.get("temperature", self.spec.temperature))


def planned(spec: Spec, seed: int) -> Plans:
    """Resolve the names and options of a graph; `{seed}` in the names of files becomes `seed`.

    Raises:
        UserError: an unknown name or option, a value out of range, or weights of another network.
    """
    weights = {i: Weights.of(node.weights, seed, i) for i, node in enumerate(spec.nodes) if node.weights is not None}
    nodes: list[Plan] = []
    for i in range(len(spec.nodes)):
        with _at(f"node {i}"):
            nodes.append(_node(spec, i, weights.get(i), nodes[0].student_train if nodes else None))
    edges: dict[tuple[int, int], Plan] = {}
    links = [(i, j) for i, j, _ in spec.links()]
    # What a cut edge says is read, too: its gate may be open tomorrow.
    for i, j in dict.fromkeys([*links, *spec.edges]):
        said = spec.edges.get((i, j), EdgeSpec())
        with _at(f"edge {i}<-{j}"):
            if i != j and (said.method or spec.loss) != KL:
                found = _edge(spec, i, j, said)
                if (i, j) in links:
                    edges[i, j] = found
            elif i != j:
                _check_kl(said)
    return Plans(spec, tuple(nodes), edges, weights)


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as mistake:
        text = str(mistake)
        for theirs, ours in WORDS.items():
            text = text.replace(theirs, ours)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from None


def _plan(spec: Spec, target: str, source: str, method: str, groups: Mapping[str, Mapping[str, Any]]) -> Plan:
    said: dict[str, Any] = {"dataset": _dataset(spec, source), "setting": spec.setting, "method": method}
    said |= {"teacher_model": source, "student_model": target}
    said |= {} if spec.split is None else {"split": spec.split}
    found = halves.plan(said, ({"data": spec.data}, groups))
    assert isinstance(found, Config | ImageConfig)
    return found


def _dataset(spec: Spec, model: str) -> str:
    """Name or path; `digits`, which are images or a graph as the model says, are what node 0 says."""
    of_images = halves.about_images(spec.dataset, spec.nodes[0].model)
    if halves.about_images(spec.dataset, model) is of_images:
        return spec.dataset
    return "digits-images" if of_images else "digits-graph"


# -- nodes -----------------------------------------------------------------------------------------------------


def _node(spec: Spec, i: int, weights: Weights | None, first: TrainSettings | ImageTrainSettings | None) -> Plan:
    """A node's configuration; `first` are the settings of node 0, which batches and epochs follow."""
    node = spec.nodes[i]
    plain = _plan(spec, node.model, node.model, PLAIN, {})
    fields = {field.name for field in dataclasses.fields(plain.student_train)}
    for name in node.options:
        if name not in plain.student:
            raise unknown(f"option of {plain.student_model}", name, plain.student)
    for name in node.train:
        if name not in fields:
            raise unknown("setting of training", name, fields)
    for name in spec.train:
        if name not in fields:
            raise unknown("setting of training of all nodes", f"train.{name}", [f"train.{known}" for known in fields])
    stored = {} if weights is None else weights.options_for(plain.student_model, node.options)
    low = _low(spec) if first is None else {name: getattr(first, name) for name in SHARED if name in fields}
    said = {**spec.train, **stored, **node.options, **node.train}
    alone = {name: value for name, value in said.items() if name not in OF_STUDENT} if i in spec.alone() else {}
    return _plan(spec, node.model, node.model, PLAIN, {"student": {**low, **said}, "teacher": alone})


def _low(spec: Spec) -> dict[str, Any]:
    """Settings of training that a method of an open edge asks for, as GK-DFD for batches of few classes."""
    found: dict[str, Any] = {}
    for i, j, _ in spec.links():
        if i != j:
            found |= presets.OF_METHODS.get(spec.edges.get((i, j), EdgeSpec()).method or spec.loss, {})
    return found if halves.about_images(spec.dataset, spec.nodes[0].model) else {}


# -- edges -----------------------------------------------------------------------------------------------------


def _edge(spec: Spec, i: int, j: int, said: EdgeSpec) -> Plan:
    method = said.method or spec.loss
    found = _plan(spec, spec.nodes[i].model, spec.nodes[j].model, method, {"method": said.options})
    for name in said.options:
        if name not in found.options:
            raise unknown(f"option of {found.method}", name, found.options)
    return found


def _check_kl(said: EdgeSpec) -> None:
    for name, value in said.options.items():
        if name != "temperature":
            raise unknown("option of kl", name, ["temperature"])
        written.above_zero(value, name)
