"""A graph of networks as people write it: what it means, what is refused, and what comes of names and options."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gnnkd import yaml_file
from gnnkd.distillers.kd import Kd
from gnnkd.distillers.losses import soft_kl
from gnnkd.errors import UserError
from gnnkd.ktg import presets
from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import EdgeSpec, NodeSpec, Spec
from gnnkd.types import Batch, Output, Step

OPEN = ["through"] * 3
CUT = ["cutoff"] * 3
THREE: dict[str, Any] = {"nodes": ["cnn_small", "cnn", "cnn_small"], "gates": [OPEN, OPEN, OPEN]}


def _three(**said: Any) -> Spec:
    return Spec.of(copy.deepcopy(THREE) | said)


# -- what it means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tree",
    [
        THREE,
        presets.single(["mlp"]),
        presets.dml(["gcn", "sage", "mlp"]) | {"dataset": "cora", "split": "cpf", "setting": "ind"},
        presets.kd(["mlp", "gcn"]) | {"data": {"normalise": "row"}, "train": {"lr": 0.02}},
        {
            "nodes": [
                {"model": "cnn_small", "options": {"width": 4}, "train": {"milestones": [0.5, 0.75]}},
                {"model": "cnn", "weights": "runs/seed{seed}", "frozen": True},
            ],
            "gates": [["negative", "correct"], ["cutoff", "cutoff"]],
            "edges": {"0<-1": {"method": "gkd", "factor": 0.5, "temperature": 2.0}, "0<-0": {"factor": 2.0}},
        },
        THREE | {"loss": "dkd"},
        THREE | {"temperature": 3.0},
    ],
)
def test_what_is_written_is_read_back(tree: dict[str, Any], tmp_path: Path) -> None:
    spec = Spec.of(tree)
    file = tmp_path / "graph.yaml"
    file.write_text(yaml.safe_dump(spec.plain()))
    assert Spec.of(yaml_file.read(file)) == spec
    assert Spec.of(spec.plain()).plain() == spec.plain()


def test_words_are_as_on_the_command_line() -> None:
    said = {"Nodes": ["a", "b"], "gates": [["Through", "POSITIVE"], ["cutoff", "Cutoff"]], "Edges": {" 0 <- 1 ": {}}}
    spec = Spec.of(said | {"train": {"Batch-Size": 8}})
    assert spec.gates == (("through", "positive"), ("cutoff", "cutoff"))
    assert spec.train == {"batch_size": 8}
    assert spec.edges == {(0, 1): EdgeSpec()}


def test_rows_are_who_hears_and_columns_are_who_is_heard() -> None:
    spec = _three(gates=[["through", "cutoff", "positive"], CUT, ["cutoff", "negative", "cutoff"]])
    assert list(spec.links()) == [(0, 0, "through"), (0, 2, "positive"), (2, 1, "negative")]
    assert [spec.open(i) for i in range(3)] == [[0, 2], [], [1]]
    assert [spec.frozen(i) for i in range(3)] == [False, True, False]
    assert spec.alone() == [1], "it has no weights, so they are trained first"
    assert _three(nodes=["a", {"model": "b", "weights": "w"}, "c"], gates=[OPEN, CUT, OPEN]).alone() == []


# -- what node 0 can learn -----------------------------------------------------------------------------------------

TO_0 = ["through", "cutoff", "cutoff"]
WEIGHED: list[Any] = ["a", "b", {"model": "c", "weights": "w"}]


@pytest.mark.parametrize(
    ("gates", "nodes", "learns"),
    [
        ([OPEN, OPEN, OPEN], None, True),
        ([CUT, OPEN, OPEN], None, False),
        ([["cutoff", "through", "cutoff"], ["through", "cutoff", "cutoff"], OPEN], None, False),
        ([["cutoff", "through", "cutoff"], ["cutoff", "cutoff", "through"], TO_0], None, False),
        ([["cutoff", "through", "cutoff"], ["cutoff", "cutoff", "through"], CUT], None, True),
        ([["cutoff", "through", "cutoff"], ["cutoff", "cutoff", "correct"], TO_0], WEIGHED, True),
        ([["cutoff", "positive", "cutoff"], ["cutoff", "negative", "cutoff"], CUT], None, True),
        ([["through", "cutoff", "cutoff"], CUT, CUT], None, True),
    ],
    ids=["all", "cut", "two in a ring", "three in a ring", "from a frozen one", "from weights", "from labels", "alone"],
)  # fmt: skip
def test_node_0_learns_where_labels_or_trained_weights_reach_it(gates: Any, nodes: Any, learns: bool) -> None:
    said = THREE | {"gates": gates} | ({"nodes": nodes} if nodes else {})
    if learns:
        assert Spec.of(said).lack() is None
    else:
        with pytest.raises(UserError, match=r"node 0 .* can learn nothing: "):
            Spec.of(said)


def test_a_gate_that_opens_line_by_line_is_shut_in_one_epoch() -> None:
    two = [["positive", "cutoff"], ["through", "through"]]
    assert Spec.of({"nodes": ["a", "b"], "gates": two}).lack() is None
    assert "none that opens in a training of one epoch" in str(
        Spec.of({"nodes": ["a", "b"], "gates": two}).lack(once=True)
    )
    ring = [["cutoff", "through"], ["through", "positive"]]
    assert Spec.of({"nodes": ["a", "b"], "gates": ring}).lack() is None
    assert "no label" in str(Spec.of({"nodes": ["a", "b"], "gates": ring}).lack(once=True))


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"gates": [OPEN, OPEN]}, "gates has 2 rows; it must have 3 rows of 3 gates"),
        ({"gates": [OPEN, ["through"], OPEN]}, "row 1 of gates has 1 gate; it must have 3 rows of 3"),
        ({"gates": [OPEN]}, "the graph: gates has 1 row; it must have 3 rows of 3 gates"),
        ({"gates": OPEN}, "row 0 of gates is 'through'"),
        ({"gates": None}, "gates are missing"),
        (
            {"gates": [OPEN, ["through", "thruogh", "cutoff"], OPEN]},
            "edge 1<-1: unknown gate 'thruogh'.*mean 'through'",
        ),
        ({"gates": [OPEN, OPEN, ["through", "through", "correct"]]}, "edge 2<-2: the gate correct .*choose through"),
        (
            {"nodes": ["a", {"model": "b", "frozen": True}, "c"]},
            r"node 1 \(b\) is frozen, and row 1 of the gates is not",
        ),
        ({"nodes": [{"model": "a", "frozen": True}, "b", "c"]}, "node 0 .* is frozen; freeze other nodes"),
        ({"nodes": ["a", {"model": "b", "wieghts": "w"}, "c"]}, "key of node 1: 'wieghts'.*mean 'weights'"),
        ({"nodes": ["a", {"weights": "w"}, "c"]}, "node 1: model is None"),
        ({"nodes": ["a", 3, "c"]}, "node 1 is 3; it must be a mapping"),
        ({"nodes": []}, "nodes must be a list of networks"),
        ({"nodez": []}, "key of the graph: 'nodez'.*mean 'nodes'"),
        ({"edges": {"0->1": {}}}, "'0->1' is no edge"),
        ({"edges": {"0<-3": {}}}, "edge 0<-3: there is no node 3"),
        ({"edges": {"0<-1": {"method": "dot"}}}, "edge 0<-1: dot has gradients of its own; choose one of .*gkd, "),
        ({"edges": {"0<-1": {"method": "dgd"}}}, "edge 0<-1: dgd has gradients of its own; choose one of .*kl, "),
        ({"edges": {"0<-1": {"method": "supervised"}}}, "edge 0<-1: unknown method of an edge 'supervised'"),
        ({"edges": {"0<-1": {"method": "gdk"}}}, "edge 0<-1: .*'gdk'.*did you mean 'gkd'"),
        ({"edges": {"0<-0": {"method": "kd"}}}, "edge 0<-0: method: a self edge"),
        ({"edges": {"0<-1": {"factor": 0}}}, "edge 0<-1: factor is 0; it must be a number above 0"),
        ({"edges": {"0<-1": {"factor": True}}}, "edge 0<-1: factor is True"),
        ({"loss": "dot"}, "loss: dot has gradients of its own"),
        ({"temperature": 0}, "temperature is 0; it must be a number above 0"),
        ({"temperature": 2.0, "loss": "dkd"}, "temperature is 2.0 and no edge is kl"),
        ({"dataset": 3}, "dataset is 3; it must be a word"),
        ({"train": [1]}, r"train is \[1\]; it must be a mapping"),
    ],
)
def test_mistakes_name_the_node_or_the_edge(said: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        _three(**said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"nodes": ["cnn_small", "gcn", "cnn"]}, "node 1: model 'gcn' reads graphs"),
        ({"nodes": ["gcn", "cnn", "mlp"]}, "node 1: model 'cnn' is a network of images"),
        ({"nodes": ["cnn_small", "cnm", "cnn"]}, "node 1: unknown model 'cnm'.*mean 'cnn'"),
        (
            {"nodes": ["cnn_small", {"model": "cnn", "options": {"widht": 3}}, "cnn"]},
            "node 1: .* 'widht'.*mean 'width'",
        ),
        ({"nodes": ["cnn_small", {"model": "cnn", "options": {"width": "a"}}, "cnn"]}, "node 1: width is 'a'; it must"),
        ({"nodes": ["cnn_small", {"model": "cnn", "train": {"lrr": 3}}, "cnn"]}, "node 1: .* 'lrr'.*mean 'lr'"),
        ({"nodes": ["cnn_small", {"model": "cnn", "train": {"lr": -1}}, "cnn"]}, "node 1: .*lr is -1"),
        ({"train": {"epochs": 0}}, "^node 0: epochs is 0; it must be"),
        (
            {"gates": [["through", "cutoff", "through"], OPEN, OPEN], "edges": {"0<-1": {"alpha": 2}}},
            "edge 0<-1: unknown option of kl 'alpha'",
        ),
        (
            {"gates": [["through", "cutoff", "through"], OPEN, OPEN], "edges": {"0<-1": {"method": "dkd", "bta": 2}}},
            "edge 0<-1: unknown option 'bta'; .*mean 'beta'",
        ),
        ({"train": {"epoch": 3}}, "'train.epoch'.*mean 'train.epochs'"),
        ({"data": {"val_fracton": 0.1}}, "'data.val_fracton'.*mean 'data.val_fraction'"),
        ({"edges": {"0<-1": {"method": "gkd", "temprature": 2}}}, "edge 0<-1: .*'temprature'.*mean 'temperature'"),
        ({"edges": {"0<-1": {"alpha": 2}}}, "edge 0<-1: unknown option of kl 'alpha'; allowed: temperature"),
        ({"edges": {"0<-1": {"temperature": 0}}}, "edge 0<-1: temperature is 0; it must be a number above 0"),
        ({"nodes": ["cnn_small", {"model": "cnn", "weights": "no.safetensors"}, "cnn"]}, "node 1: .*do not exist"),
    ],
)
def test_mistakes_in_names_and_options(said: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        planned(_three(**said), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "models"), [("single", ["a", "b"]), ("dml", ["a"]), ("kd", ["a"]), ("kd", ["a"] * 3)])
def test_presets_say_how_many_models_they_have(name: str, models: list[str]) -> None:
    with pytest.raises(UserError, match=f"preset {name} is of .*--models"):
        presets.PRESETS[name](models)


# -- names and options ---------------------------------------------------------------------------------------------


def test_settings_of_all_nodes_are_weaker_than_those_of_one() -> None:
    nodes = [{"model": "cnn_small", "train": {"epochs": 7}}, {"model": "cnn", "train": {"lr": 0.3}}, "cnn_small"]
    plans = planned(_three(nodes=nodes, train={"lr": 0.2, "epochs": 9}), 0)
    assert [plans.settings(i).lr for i in range(3)] == [0.2, 0.3, 0.2]
    assert plans.settings(0).epochs == 7


def test_epochs_and_batches_of_node_0_are_everybodys() -> None:
    nodes = [{"model": "cnn_small", "train": {"epochs": 7, "batch_size": 16, "patience": 2}}, "cnn", "cnn_small"]
    for settings in map(planned(_three(nodes=nodes), 0).settings, range(3)):
        assert (settings.epochs, settings.patience, getattr(settings, "batch_size")) == (7, 2, 16)  # noqa: B009


def test_nodes_have_the_presets_of_their_dataset() -> None:
    plans = planned(Spec.of(presets.dml(["mlp", "gcn"]) | {"dataset": "cora"}), 0)
    assert plans.options(0) == dict(plans.first.student)
    assert plans.options(0)["dropout"] == 0.6
    assert plans.options(1)["input_dropout"] == 0.5


def test_a_node_that_is_trained_alone_has_a_teachers_presets() -> None:
    spec = Spec.of(presets.kd(["mlp", "gcn"]) | {"dataset": "cora"})
    assert planned(spec, 0).options(1)["width"] == 256
    assert planned(Spec.of(presets.dml(["mlp", "gcn"]) | {"dataset": "cora"}), 0).options(1)["width"] == 64


def test_an_edge_that_says_nothing_is_the_kl_of_two_networks() -> None:
    plans = planned(_three(temperature=3.0, edges={"1<-0": {"temperature": 2.0}}), 0)
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    y = torch.tensor([0, 1, 2, 3, 0])
    batch = Batch.of(s, y, None, torch.ones(5, dtype=torch.bool))
    for edge, temperature in (((0, 1), 3.0), ((1, 0), 2.0)):
        terms = plans.distiller(*edge).loss(batch, Output(s), Output(t), Step(0, 1))
        torch.testing.assert_close(terms["kd"], soft_kl(s, t, temperature))
    assert plans.distiller(0, 1) is not plans.distiller(0, 1), "an object for each edge"


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 2.3606399854), (2.0, 4.22075993056)])
def test_the_kl_of_two_networks_is_that_of_the_published_code(temperature: float, value: float) -> None:
    """Its value in float64 on rows of sines; what the code adds within its logarithms is 1e-10."""
    n = torch.arange(60, dtype=torch.float64).reshape(6, 10)
    student = 3 * torch.sin(0.37 * n + 1.3 * torch.sqrt(n + 1))
    source = 5 * torch.sin(0.53 * n + 0.9 * torch.sqrt(n + 1) + 0.4)
    batch = Batch.of(student, torch.tensor([0, 3, 3, 7, 9, 1]), None, torch.ones(6, dtype=torch.bool))
    edge = planned(_three(temperature=temperature), 0).distiller(0, 1)
    found = edge.loss(batch, Output(student), Output(source), Step(0, 1))["kd"]
    torch.testing.assert_close(found.double(), torch.tensor(value, dtype=torch.float64), rtol=1e-6, atol=0)


def test_an_edge_has_the_options_of_its_method() -> None:
    plans = planned(
        _three(edges={"0<-1": {"method": "kd", "temperature": 2.5}, "0<-2": {"method": "logitstd(gkd)"}}), 0
    )
    distiller = plans.distiller(0, 1)
    assert isinstance(distiller, Kd)
    assert distiller.temperature == 2.5
    assert plans.described(0, 1)["options"]["temperature"] == 2.5
    assert plans.described(0, 2)["base"] == "gkd"
    assert plans.described(0, 0) == {"method": "supervised", "factor": 1.0}


def test_batches_of_few_classes_where_an_edge_asks_for_them() -> None:
    spec = _three(edges={"0<-1": {"method": "gkdfd"}})
    assert [getattr(planned(spec, 0).settings(i), "per_class") for i in range(3)] == [8, 8, 8]  # noqa: B009
    cut = _three(edges={"0<-1": {"method": "gkdfd"}}, gates=[["through", "cutoff", "through"], OPEN, OPEN])
    assert getattr(planned(cut, 0).settings(0), "per_class") is None  # noqa: B009
    assert planned(cut, 0).edges == {}, "and what is cut is not computed"
    assert getattr(planned(_three(loss="gkdfd"), 0).settings(0), "per_class") == 8  # noqa: B009
    alone = Spec.of({"nodes": ["cnn"], "gates": [["through"]], "loss": "gkdfd", "edges": {"0<-0": {"factor": 2}}})
    assert getattr(planned(alone, 0).settings(0), "per_class") is None  # noqa: B009
    other = Spec(tuple(NodeSpec(n) for n in ("cnn", "cnn")), (("through", "through"),) * 2)
    assert getattr(planned(other, 0).settings(0), "per_class") is None  # noqa: B009
