"""Which graphs of networks are refused, and what becomes of cut edges."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from gnnkd import distillers
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.dgd import Dgd
from gnnkd.errors import UserError
from gnnkd.train.settings import ImageTrainSettings, TrainSettings
from gnnkd.train.together.gates import gate
from gnnkd.train.together.node import Edge, Node, allowed, checked


def _edge(source: int | None, gated: str = "through", method: str | Distiller = "auto", **more: Any) -> Edge:
    name = ("supervised" if source is None else "kd") if method == "auto" else method
    return Edge(source, distillers.build(name) if isinstance(name, str) else name, gate(gated), **more)


def _node(*edges: Edge, name: str = "mlp", **more: Any) -> Node:
    return Node(name, nn.Linear(2, 3), more.pop("settings", TrainSettings(epochs=5)), edges, **more)


def test_cycles_are_fine_and_cut_edges_go() -> None:
    nodes = checked(
        [
            _node(_edge(None), _edge(1), _edge(2, "cutoff")),
            _node(_edge(None, "negative"), _edge(0, "positive")),
            _node(_edge(0, "cutoff"), frozen=True),
        ]
    )
    assert [[edge.source for edge in node.edges] for node in nodes] == [[None, 1], [None, 0], []]
    assert [node.trained for node in nodes] == [True, True, False]


def test_a_node_may_hear_others_alone() -> None:
    assert checked([_node(_edge(1)), _node(frozen=True)])[0].edges[0].source == 1


def test_several_edges_from_one_source_are_fine() -> None:
    assert len(checked([_node(_edge(1), _edge(1, method="glnn")), _node(frozen=True)])[0].edges) == 2


ZERO = [
    (lambda: [_node(_edge(None, "cutoff"), _edge(1, "cutoff")), _node(_edge(None))], "all its incoming gates are cut"),
    (lambda: [_node(), _node(_edge(None))], "no incoming edge"),
    (lambda: [_node(frozen=True), _node(_edge(None))], "it is frozen"),
    (lambda: [_node(follows=(1, 0.9)), _node(_edge(None))], "it follows node 1"),
    (lambda: [_node(_edge(None, "positive"), settings=TrainSettings(epochs=1))], "0 in a training of 1 epoch"),
]


@pytest.mark.parametrize(("nodes", "why"), ZERO, ids=[why for _, why in ZERO])
def test_a_node_0_that_can_learn_nothing_is_refused_with_the_reason(nodes: Any, why: str) -> None:
    with pytest.raises(UserError, match=rf"node 0 \(mlp\) is the one that counts and can learn nothing: .*{why}"):
        checked(nodes())


def _dgd() -> Distiller:
    return Dgd(distillers.build("kd"), None, k=0)


OWN = distillers.build("dot", base="kd")
SHARED_METHOD = distillers.build("kd")
WRONG = [
    (list, "at least one node"),
    (lambda: [_node(_edge(None), _edge(2)), _node(_edge(None))], "edge 0<-2: there is no node 2; the nodes are 0"),
    (lambda: [_node(_edge(None), _edge(-1)), _node(_edge(None))], "there is no node -1"),
    (lambda: [_node(_edge(0))], "does not teach itself"),
    (lambda: [_node(_edge(None, "correct"))], "edge 0<-0: the gate correct asks a source"),
    (lambda: [_node(_edge(None)), _node(_edge(0, method=_dgd()))], r"1<-0: Dgd has gradients of its own; .*\bkd\b"),
    (lambda: [_node(_edge(1, method=OWN)), _node(_edge(None))], "Dot has gradients of its own; choose one of at"),
    (lambda: [_node(_edge(None, method="kd"))], "Kd needs a teacher, and a self edge has none"),
    (lambda: [_node(_edge(1, method="supervised")), _node(frozen=True)], "does not listen to a source"),
    (lambda: [_node(_edge(None, weight=0.0))], "its weight is 0.0; it must be"),
    (lambda: [_node(_edge(None, weight=float("nan")))], "its weight is nan"),
    (lambda: [_node(_edge(None)), _node(_edge(0, "cutoff"))], r"node 1 \(mlp\) hears nothing; freeze it"),
    (lambda: [_node(_edge(None)), _node(_edge(0), frozen=True)], "is frozen and has edges that are not cut"),
    (lambda: [_node(_edge(None)), _node(_edge(0), follows=(0, 0.9))], "follows another and has edges"),
    (lambda: [_node(_edge(None)), _node(follows=(1, 0.9))], "it must be another node that is trained"),
    (lambda: [_node(_edge(None)), _node(follows=(2, 0.9)), _node(frozen=True)], "another node that is trained"),
    (lambda: [_node(_edge(None)), _node(follows=(0, 0.9), frozen=True)], "frozen and follows"),
    (lambda: [_node(_edge(None)), _node(follows=(0, 1.1))], "momentum 1.1; it must lie in"),
    (lambda: [_node(_edge(None)), _node(follows=(0, -0.1))], "momentum -0.1; it must lie in"),
    (lambda: [_node(_edge(None)), Node("b", nn.Linear(2, 9), TrainSettings(), (), follows=(0, 0.9))], "has no weight"),
    (lambda: [_node(_edge(1, method=SHARED_METHOD), _edge(1, method=SHARED_METHOD)), _node(frozen=True)],
     "distiller is used twice"),
    (lambda: [_node(_edge(None)), _node(_edge(None), settings=TrainSettings(epochs=6))], "epochs 6, and node 0 has 5"),
    (lambda: [_node(_edge(None)), _node(_edge(None), settings=ImageTrainSettings())], "settings of another kind"),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_cannot_be_is_refused(nodes: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        checked(nodes())


def test_one_network_in_two_places_is_refused() -> None:
    node = _node(_edge(None))
    with pytest.raises(UserError, match="network is used twice"):
        checked([node, Node("twin", node.model, node.settings, (_edge(None),))])


def test_batches_are_one_for_all_nodes_that_train() -> None:
    def settings(**more: Any) -> ImageTrainSettings:
        return ImageTrainSettings(epochs=5, **more)

    for name, value in {"batch_size": 32, "per_class": 4, "patience": 3}.items():
        with pytest.raises(UserError, match=f"has {name} {value}, and node 0 has"):
            checked([_node(_edge(None), settings=settings()), _node(_edge(None), settings=settings(**{name: value}))])
        still = _node(frozen=True, settings=settings(**{name: value}))
        checked([_node(_edge(None), settings=settings(lr=0.1)), still])
    checked([_node(_edge(None), settings=settings()), _node(_edge(None), settings=settings(lr=0.1, momentum=0.5))])


def test_methods_of_edges_are_those_with_plain_gradients() -> None:
    assert {"dgd", "dot"} == set(distillers.methods()) - set(allowed())
