"""The picture of a graph: who is in it, which way arrows go, and that both files are whole and the same each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Ellipse, FancyArrowPatch
from PIL import Image

from gnnkd.ktg import drawing, presets
from gnnkd.ktg.spec import Spec

CUT = ["cutoff"] * 3


def _figure(tree: dict[str, Any], **more: Any) -> Any:
    return drawing.draw(Spec.of(tree), title="digits random-tran, graph, seed 0", **more)


def _texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_nodes_have_their_network_and_accuracy_and_edges_their_gate() -> None:
    tree = {
        "nodes": ["cnn_small", "cnn", "resnet8x4"],
        "gates": [["through", "positive", "cutoff"], CUT, ["negative", "correct", "through"]],
        "edges": {"0<-1": {"method": "gkd"}, "0<-0": {"factor": 0.1}},
    }
    texts = _texts(_figure(tree, accuracies=[0.9, 0.95, None]))
    assert texts[:3] == ["0: cnn_small\ntest 90.00%", "1: cnn\ntest 95.00%\nfrozen", "2: resnet8x4"]
    edges = ["labels: through x 0.1", "gkd: positive", "negative", "correct", "labels: through"]
    assert texts[3:] == edges, "a cut edge is not drawn"


@pytest.mark.parametrize("n", range(1, 8))
def test_every_open_gate_is_an_arrow_and_names_do_not_hide_each_other(n: int) -> None:
    models = ["mlp"] * n
    figure = _figure(presets.dml(models) if n > 1 else presets.single(models))
    axes = figure.axes[0]
    assert sum(isinstance(one, FancyArrowPatch) for one in axes.patches) == n * n
    bodies = [one for one in axes.patches if isinstance(one, Ellipse)]
    assert len(bodies) == n
    places = np.array([text.get_position() for text in axes.texts])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(len(places))
    assert apart.min() > (0.25 if n <= 4 else 0.0), "no two names on one spot"
    low, high = axes.get_xlim()
    assert low < places[:, 0].min() - 0.5
    assert places[:, 0].max() + 0.5 < high


def test_an_arrow_goes_from_who_is_heard_to_who_hears() -> None:
    axes = _figure({"nodes": ["a", "b"], "gates": [["through", "positive"], ["cutoff", "cutoff"]]}).axes[0]
    hears, heard = (one for one in axes.patches if isinstance(one, Ellipse))
    between = [one for one in axes.patches if isinstance(one, FancyArrowPatch) and one.patchA is not None]
    assert [(one.patchA, one.patchB) for one in between] == [(heard, hears)]


def test_the_two_directions_of_a_pair_are_two_curves() -> None:
    """Each bends to its own left: their names lie on different sides of the line between the nodes."""
    axes = _figure(presets.dml(["a", "b"])).axes[0]
    named = [text for text in axes.texts if text.get_text() == "through"]
    (x0, y0), (x1, y1) = (text.get_position() for text in named)
    assert y0 * y1 < 0
    assert x0 != x1, "past the middle of their own curve"


def test_both_files_are_written_and_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        figure = _figure(presets.dml(["gcn", "sage", "mlp"]), accuracies=[0.8, 0.7, 0.6])
        drawing.write(figure, tmp_path / f"{name}.svg", tmp_path / f"{name}.png")
    for suffix in ("svg", "png"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    assert ET.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 400
        assert np.asarray(picture.convert("L")).std() > 5, "not blank"
