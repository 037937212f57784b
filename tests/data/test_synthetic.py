"""Synthetic graphs: what was asked for is there, one seed is one graph, and damage is said in one line."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd.data import mapped, planted, synthetic
from gnnkd.data.graphs import load, names, task
from gnnkd.data.plan import Plan
from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN

SMALL = Plan(nodes=3000, edges=15_000, features=16, classes=5, communities=30)
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("made") / "small"
    return folder, synthetic.make(SMALL, folder)


@pytest.fixture
def damaged(made, tmp_path) -> Path:
    """A copy to be spoilt."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in made[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        mapped.read(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


# What is drawn


def test_the_sizes_are_exactly_those_of_the_plan(made) -> None:
    data, a = (found := mapped.read(made[0])), found.graph.adjacency
    assert (data.name, data.protocol, data.classes) == ("small", "given", tuple(range(5)))
    assert data.x.shape == (3000, 16)
    assert a.n_entries == 30_000
    assert torch.equal(data.y.unique(), torch.arange(5))
    assert not bool((a.row == a.col).any())
    within = a.row[1:] == a.row[:-1]
    assert bool((a.col[1:] > a.col[:-1])[within].all())  # ascending, none twice
    assert torch.equal(a.transpose.col, a.col)  # undirected
    assert torch.equal(a.transpose.rowptr, a.rowptr)
    assert data.split.sizes == (1500, 600, 900)
    assert not bool((data.split.train & data.split.val | data.split.train & data.split.test).any())
    assert UNKNOWN not in data.y


def test_the_card_says_what_is_there(made) -> None:
    folder, card = made
    assert json.loads((folder / mapped.CARD).read_text()) == json.loads(json.dumps(card))
    data = mapped.read(folder)
    source, target = data.graph.edge_index
    assert card["homophily"] == pytest.approx(float((data.y[source] == data.y[target]).float().mean()), abs=1e-4)
    degree = data.graph.adjacency.rowptr.diff()
    assert card["degrees"]["most"] == int(degree.max())
    assert card["degrees"]["none"] == int((degree == 0).sum())
    shares = data.y.bincount() / 3000
    assert card["largest_class"] == pytest.approx(float(shares.max()), abs=1e-6)
    assert SMALL.disk == pytest.approx(sum(f.stat().st_size for f in folder.iterdir()), abs=4000)


def test_one_seed_is_one_graph_and_another_is_another(made, tmp_path) -> None:
    same = synthetic.make(SMALL, tmp_path / "same", name="small")
    other = synthetic.make(replace(SMALL, seed=1), tmp_path / "other")
    assert same == made[1]
    assert (tmp_path / "same" / "x.npy").read_bytes() == (made[0] / "x.npy").read_bytes()
    assert not set(other["sha256"].values()) & set(same["sha256"].values())


def test_the_size_of_a_block_of_edges_or_rows_does_not_lose_any(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(planted, "_DRAWS", 1000)
    monkeypatch.setattr(planted, "_ROWS", 700)
    synthetic.make(SMALL, tmp_path / "blocks")
    data = mapped.read(tmp_path / "blocks")
    assert data.graph.n_edges == 30_000
    assert torch.equal(data.graph.adjacency.transpose.col, data.graph.adjacency.col)
    assert data.x.std() == pytest.approx((1 + SMALL.signal**2 / 16) ** 0.5, rel=0.03)


@pytest.mark.parametrize("exponent", [2.3, 3.0, 4.0])
def test_degrees_follow_the_power_law(exponent: float, tmp_path) -> None:
    """P(degree > t) = (t / least)^(1 - exponent): the slope between two points far out, on a log scale."""
    plan = replace(SMALL, nodes=40_000, edges=400_000, communities=5, stray=1.0, features=1, exponent=exponent)
    nodes = planted.placed(plan)
    keys = planted.mirrored(plan, planted.edges(plan, nodes))
    degree = np.bincount(keys // plan.nodes, minlength=plan.nodes)
    low, high = 40, 120
    slope = np.log((degree > high).mean() / (degree > low).mean()) / np.log(high / low)
    assert slope == pytest.approx(1 - exponent, rel=0.12)
    assert degree.mean() == 20


def test_classes_are_uneven_stretches_and_edges_stay_near() -> None:
    plan = replace(SMALL, blur=0.0, reach=0.0, stray=0.0)
    nodes = planted.placed(plan)
    keys = planted.edges(plan, nodes)
    assert planted.homophily(plan, keys, nodes.y) == 1
    assert (nodes.community[keys // 3000] == nodes.community[keys % 3000]).all()
    of = [np.unique(nodes.y[nodes.community == c]) for c in range(30)]
    assert all(y.size == 1 for y in of)
    ring = np.concatenate(of)
    assert (ring != np.roll(ring, 1)).sum() == 5  # one stretch each
    sizes = np.sort(np.bincount(ring))
    assert sizes[-1] > 3 * sizes[0] >= 3


def test_stray_edges_and_blurred_labels_go_anywhere() -> None:
    plan = replace(SMALL, stray=1.0)
    nodes = planted.placed(plan)
    chance = float((np.bincount(nodes.y) / 3000) @ (np.bincount(nodes.y) / 3000))
    assert planted.homophily(plan, planted.edges(plan, nodes), nodes.y) == pytest.approx(chance, abs=0.03)
    wide = planted.placed(replace(SMALL, blur=1000.0))
    assert not np.array_equal(wide.y, nodes.y)


def test_popular_nodes_train_where_asked(tmp_path) -> None:
    for popular in (False, True):
        folder = tmp_path / str(popular)
        synthetic.make(replace(SMALL, popular=popular, fractions=(0.08, 0.02, 0.9)), folder)
        data = mapped.read(folder)
        degree = data.graph.adjacency.rowptr.diff().float()
        times = degree[data.split.train].mean() / degree[data.split.test].mean()
        assert data.split.sizes == (240, 60, 2700)
        assert times > 3 if popular else times == pytest.approx(1, abs=0.3)


def test_a_network_beats_an_mlp_on_it(tmp_path) -> None:
    from gnnkd.nn.mlp import mlp
    from gnnkd.nn.sage import sage

    synthetic.make(replace(SMALL, blur=1.0, signal=2.0), tmp_path / "g")
    data, scores = mapped.read(tmp_path / "g"), {}
    train, test = data.split.train, data.split.test
    for make in (mlp, sage):
        torch.manual_seed(0)
        network = make(16, 5, layers=2, width=32, dropout=0.0)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(data.x, data.graph).logits[train], data.y[train]).backward()
            optimizer.step()
        scores[make] = float((network(data.x, data.graph).logits.argmax(1) == data.y)[test].float().mean())
    assert scores[sage] > scores[mlp] + 0.1
    assert scores[mlp] > float((data.y.bincount() / 3000).max())


# What is read


def test_features_and_edges_stay_on_disk(made) -> None:
    data, again = mapped.read(made[0]), mapped.arrays(made[0])[1]
    assert data.x.dtype == torch.float32
    assert data.graph.adjacency.col.dtype == torch.int32
    assert np.array_equal(data.x.numpy(), again["x"])
    at = {data.x.data_ptr(), data.graph.adjacency.col.data_ptr()}
    if sys.platform == "linux":
        spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        files = {
            s[5]
            for s in spans
            if len(s) > 5
            for p in at
            if int(s[0].split("-")[0], 16) <= p < int(s[0].split("-")[1], 16)
        }
        assert files == {str(made[0] / "x.npy"), str(made[0] / "col.npy")}


def test_half_features_stay_on_disk_and_can_be_read_in_full(made, tmp_path) -> None:
    card = synthetic.make(replace(SMALL, half=True), tmp_path / "half")
    data, full = mapped.read(tmp_path / "half"), mapped.read(made[0])
    assert (data.x.dtype, data.notes) == (torch.float16, ())
    copy = data.in_full()
    assert (copy.x.dtype, copy.notes) == (torch.float32, ("features of type float16 read as float32",))
    assert torch.equal(copy.x, full.x.half().float())
    assert full.in_full() is full
    assert card["sha256"]["col"] == made[1]["sha256"]["col"]
    one, other = task(data, seed=0), task(copy, seed=0)
    assert (one.x.dtype, one.content, one.fingerprint) == (torch.float16, other.content, other.fingerprint)


def test_half_features_are_read_in_full_unless_they_are_wanted(tmp_path) -> None:
    card = tmp_path / "half" / mapped.CARD
    synthetic.make(replace(SMALL, half=True), card.parent)
    assert load(card).x.dtype == torch.float32
    assert load(card, half=True).x.dtype == torch.float16
    assert load(card, half=True, graph="knn", k=2).x.dtype == torch.float32


def test_a_task_is_made_of_it(made) -> None:
    found = task(mapped.read(made[0]), seed=0)
    assert (found.protocol, found.features, found.n_nodes) == ("given", "raw", 3000)
    assert task(mapped.read(made[0]), seed=0, setting="ind").whole is not None


def test_they_are_known_by_name_and_the_command_is_named(tmp_path) -> None:
    assert {"synth-arxiv", "synth-products"} <= set(names())
    with pytest.raises(UserError, match=r"make it with: python scripts/make_synthetic\.py synth-arxiv --data_root"):
        load("Synth_Arxiv", root=tmp_path)


def test_by_name_and_by_path(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(synthetic, "PLANS", {"synth-arxiv": SMALL})
    synthetic.make(SMALL, synthetic.place("synth-arxiv", tmp_path))
    by_name = load("synth-arxiv", root=tmp_path)
    by_path = load(tmp_path / "synthetic" / "synth-arxiv" / mapped.CARD)
    assert by_name.name == by_path.name == "synth-arxiv"
    assert torch.equal(by_name.x, by_path.x)
    assert load("synth-arxiv", root=tmp_path, graph="knn", k=3).made is not None
    with pytest.raises(UserError, match=r"data\.k is 3, but the edges of 'synth-arxiv' are given"):
        load("synth-arxiv", root=tmp_path, k=3)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 50}, "nodes is 50; it must be at least 2 for each of 30 communities"),
        ({"edges": 2_000_000}, "edges is 2000000; it must be from 1 to a quarter of all pairs, 1124625"),
        ({"classes": 1}, "classes is 1"),
        ({"communities": 4}, "communities is 4; it must be at least one of each class, 5"),
        ({"exponent": 2.0}, "exponent is 2.0; it must be above 2"),
        ({"stray": 1.1}, "stray is 1.1"),
        ({"signal": -1.0}, "signal is -1.0; it must be >= 0"),
        ({"fractions": (0.5, 0.5, 0.5)}, "fractions are"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_plan_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SMALL, **changes)


def test_edges_that_cannot_be_had_are_said(tmp_path) -> None:
    plan = replace(SMALL, edges=400_000, reach=0.0, stray=0.0)
    with pytest.raises(UserError, match=r"edges is 400000, but after \d+ almost each further one"):
        synthetic.make(plan, tmp_path / "dense")
    assert list(tmp_path.iterdir()) == []  # no half a folder


def test_a_folder_is_not_written_over(made) -> None:
    with pytest.raises(UserError, match="is there already; remove it"):
        synthetic.make(SMALL, made[0])


def test_room_is_asked_for_before_the_work(tmp_path, monkeypatch) -> None:
    synthetic.check_room(SMALL, tmp_path / "not" / "there")
    with pytest.raises(UserError, match=r"takes \d+\.\d GB of disk and"):
        synthetic.check_room(replace(SMALL, nodes=10**13), tmp_path)
    monkeypatch.setattr(synthetic, "_available", lambda: 10**8)
    with pytest.raises(UserError, match=r"a graph of 15000 edges takes 0\.4 GB of memory to make and 0\.1 GB are free"):
        synthetic.check_room(SMALL, tmp_path)


@pytest.mark.parametrize("name", ["x", "col", "y", "rowptr", "test_mask"])
def test_a_truncated_array_is_said(damaged, name: str) -> None:
    file = damaged / f"{name}.npy"
    file.write_bytes(file.read_bytes()[:-1])
    refused(damaged, f"{name}.npy is missing, truncated or damaged")


def test_labels_that_are_not_one_for_each_class_are_refused(damaged) -> None:
    card = json.loads((damaged / mapped.CARD).read_text())
    for labels in ([1, 2], "abcde", [1, 2, 3, 4, None]):
        (damaged / mapped.CARD).write_text(json.dumps(card | {"labels": labels}))
        refused(damaged, "has labels that are not one integer for each class")


def test_what_is_missing_or_of_another_size_is_said(damaged) -> None:
    (damaged / "y.npy").unlink()
    refused(damaged, r"y\.npy is missing")
    np.save(damaged / "y.npy", np.zeros(7, np.int64))
    refused(damaged, r"y\.npy has shape \[7\]; graph\.json says \[3000\]")
    np.save(damaged / "y.npy", np.full(3000, 5))
    refused(damaged, r"y\.npy holds a class outside 0\.\.4")


def test_an_adjacency_that_points_outside_is_refused(damaged) -> None:
    good = np.load(damaged / "col.npy")
    col = good.copy()
    col[-1] = 3000
    np.save(damaged / "col.npy", col)
    refused(damaged, r"col\.npy holds a node outside 0\.\.2999")
    np.save(damaged / "col.npy", good.astype(np.float32))
    refused(damaged, r"col\.npy is of type float32")
    np.save(damaged / "col.npy", good)
    rowptr = np.load(damaged / "rowptr.npy")
    rowptr[5] = rowptr[4] - 1
    np.save(damaged / "rowptr.npy", rowptr)
    refused(damaged, r"rowptr\.npy does not rise")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is not of format 1"),
        ('{"format": 2, "name": "a"}', "is not of format 1"),
        ('{"format": 1, "name": "a", "nodes": 0}', "lacks one of nodes, edges"),
    ],
)
def test_a_broken_card_is_said(damaged, text: str, message: str) -> None:
    (damaged / mapped.CARD).write_text(text)
    refused(damaged, message)


def test_pickles_are_never_read(damaged) -> None:
    # Writes the file that a reader must refuse.
    np.save(damaged / "y.npy", np.array([{}] * 3000, dtype=object), allow_pickle=True)
    refused(damaged, r"y\.npy is missing, truncated or damaged")


# The script


@pytest.fixture
def script(monkeypatch) -> Any:
    def run(*args: str) -> None:
        monkeypatch.setattr(sys, "argv", ["make_synthetic.py", *args])
        importlib.import_module("make_synthetic").main()

    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield run
    sys.modules.pop("make_synthetic", None)


def test_the_script_makes_what_its_flags_say(script, tmp_path, capsys) -> None:
    flags = ["--nodes", "900", "--edges", "3000", "--features", "7", "--classes", "4", "--popular", "--half"]
    script("--name", "tiny", "--data_root", str(tmp_path), *flags, "--fractions", "0.2", "0.1", "0.7", "--signal", "9")
    data, (card, found) = (
        load(tmp_path / "synthetic" / "tiny" / "graph.json"),
        mapped.arrays(tmp_path / "synthetic/tiny"),
    )
    assert (data.name, data.graph.n_edges, data.x.shape) == ("tiny", 6000, (900, 7))
    assert (card["plan"]["popular"], card["plan"]["signal"], found["x"].dtype) == (True, 9.0, np.float16)
    assert data.split.sizes == (180, 90, 630)
    assert "900 nodes, 6000 directed edges" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nodes", "900"], "give --nodes, --edges and --name"),
        (["synth-arxive"], "did you mean 'synth-arxiv'"),
        (["synth-arxiv", "--nodes", "9000"], "nodes would make another graph of synth-arxiv; give it a --name"),
    ],
)
def test_the_script_says_what_is_missing(script, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        script(*flags)
