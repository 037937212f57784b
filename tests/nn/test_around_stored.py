"""What a prediction needs beside the parameters is counted, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from gnnkd import nn
from gnnkd.nn.around import Around, kinds
from gnnkd.nn.around.ensemble import Ensemble
from gnnkd.nn.around.label_propagation import LabelPropagation
from gnnkd.nn.around.peers import Peers
from gnnkd.nn.around.positions import Positions
from gnnkd.nn.around.propagated import Propagated
from gnnkd.predictor import Predictor

D, C = 6, 3
IDS = torch.tensor([2, 3, 5, 7, 11])


def _make(inputs: int) -> torch.nn.Module:
    """With a norm, which has buffers of its own."""
    return nn.MODELS["mlp"](inputs, C, layers=2, width=4, norm="batch")


def _propagation(weights: str) -> LabelPropagation:
    labelled, y = IDS[:2], torch.tensor([0, 1])
    return LabelPropagation(
        _make, D, C, steps=2, weights=weights, attention_dropout=0.0, labelled=labelled, y=y, nodes=IDS
    )


CASES: dict[str, tuple[Around, int]] = {
    "ensemble": (Ensemble(_make, D, count=4), 4),
    "label_propagation, free": (_propagation("tra"), 2 + 2 + 5),
    "label_propagation, of features": (_propagation("ind"), 2 + 2),
    "peers": (Peers(_make, D, dim=5), 0),
    "positions": (Positions(_make(D + 8), IDS, torch.zeros(5, 8), n_features=D), 5 + 5 * 8),
    "propagated": (Propagated(_make(D), k=2, loops=True), 0),
}


def test_every_kind_is_here() -> None:
    assert {name.partition(",")[0] for name in CASES} == set(kinds())


@pytest.mark.parametrize("name", CASES)
def test_ids_positions_labels_and_votes_are_counted_and_norms_are_not(name: str) -> None:
    network, want = CASES[name]
    assert network.n_stored == want
    found = Predictor(network, "mlp", {}, tuple(range(C)), "raw", D)
    assert found.n_stored == want
    assert found.n_parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", CASES)
def test_a_restored_one_stores_as_much(name: str) -> None:
    network, want = CASES[name]
    assert type(network).restored(_make, D, C, network.options).n_stored == want


def test_a_network_without_anything_around_it_stores_nothing() -> None:
    assert Predictor(_make(D), "mlp", {}, tuple(range(C)), "raw", D).n_stored == 0
