"""Pictures of a batch's graph and embeddings: where nodes go, which edges are drawn, and what stands in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnkd.distillers.gkdfd import Seen
from gnnkd.images import relations
from gnnkd.images.layout import ROOM, first_two, padded, placed, strongest

N, C = 24, 3
RNG = np.random.RandomState


def clustered(factor: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Weights near 1 within three classes and `factor` between them."""
    y = np.arange(N) % C
    noise = RNG(0).rand(N, N)
    weights = np.where(y[:, None] == y[None], 1.0, factor) * (0.9 + 0.1 * (noise + noise.T) / 2)
    return weights, y


def seen(own: bool = False, width: int = 2, shift: float = 0.0) -> Seen:
    weights, y = clustered()
    student = weights.T * 0.5 if own else weights
    rows = RNG(1).rand(N, 6) + np.eye(6)[y]
    low = rows[:, :width]
    numbers = (weights, student, rows, rows + shift, low, low + shift)
    return Seen(torch.arange(N), torch.from_numpy(y), *map(torch.from_numpy, numbers))


# -- numbers ---------------------------------------------------------------------------------------------------


def test_joined_nodes_are_near_and_none_is_on_another() -> None:
    weights, y = clustered()
    at = placed(weights, y)
    assert np.abs(at).max() == pytest.approx(1)
    assert np.array_equal(at, placed(weights, y))
    far = np.linalg.norm(at[:, None] - at[None], axis=2) + 10 * np.eye(N)
    same = y[:, None] == y[None]
    assert far[same & ~np.eye(N, dtype=bool)].mean() < 0.5 * far[~same].mean()
    assert far.min() > 0.6 * ROOM / np.sqrt(N)


def test_a_node_stands_by_those_it_is_joined_to_whatever_its_class() -> None:
    weights, y = clustered(0.0)
    weights[0] = weights[:, 0] = np.where(y == 1, 1, 0)
    at = placed(weights, y)
    middles = [at[1:][y[1:] == k].mean(0) for k in range(C)]
    assert np.argmin([np.linalg.norm(at[0] - m) for m in middles]) == 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_graphs_without_edges_and_of_few_nodes_are_laid_out(n: int) -> None:
    at = placed(np.zeros((n, n)), np.zeros(n, np.int64))
    assert np.isfinite(at).all()
    assert len(np.unique(at.round(3), axis=0)) == n


def test_the_strongest_edges_come_last_and_are_counted_once() -> None:
    weights = np.array([[1, 0.5, 0, 0.1], [0.5, 1, 0.9, 0], [0, 0.2, 1, 0.3], [0, 0, 0.3, 1]])
    (i, j), there = strongest(weights, 2)
    assert list(zip(i, j, strict=True)) == [(0, 1), (1, 2)]
    assert there == 4
    edges, there = strongest(np.eye(3), 5)
    assert edges.shape == (2, 0)
    assert there == 0


def test_principal_axes_keep_distances_in_a_plane() -> None:
    flat = RNG(0).randn(20, 2) * [3, 1] @ RNG(1).randn(2, 7)
    found = first_two(flat)
    gaps = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (flat, found)]
    np.testing.assert_allclose(*gaps, atol=1e-9)
    assert found[:, 0].var() >= found[:, 1].var()
    assert first_two(RNG(0).randn(5, 1)).shape == (5, 2)
    assert padded(np.ones((3, 1))).tolist() == [[1, 0]] * 3


# -- pictures --------------------------------------------------------------------------------------------------

GREY = RNG(2).randint(0, 256, (N, 1, 8, 8)).astype(np.uint8)
NAMES = ("low", "middle", "high")


def test_a_shared_graph_is_drawn_once_and_two_beside_each_other() -> None:
    one = relations.draw_graph(seen(), GREY, NAMES, "title")
    (axes,) = one.axes
    assert "both networks share: 276 edges, weights up to 0.99" in axes.get_title()
    assert len(axes.images) == len(axes.patches) == N
    two = relations.draw_graph(seen(own=True), GREY, NAMES, "title")
    assert [axes.get_title().split(":")[0] for axes in two.axes] == ["teacher's graph", "student's graph"]
    widths = [axes.collections[0].get_linewidths() for axes in two.axes]
    assert max(widths[0]) > max(widths[1]), "weights of both panels are compared"
    assert [text.get_text() for text in one.legends[0].get_texts()] == [*NAMES]


def test_edges_are_as_wide_as_their_weights_and_too_many_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "MOST_EDGES", 90)
    (axes,) = relations.draw_graph(seen(), GREY, NAMES, "title").axes
    assert "the strongest 90 of 276 edges" in axes.get_title()
    (edges,) = axes.collections
    widths, drawn = edges.get_linewidths(), edges.get_colors()
    assert len(widths) == 90
    assert list(widths) == sorted(widths)
    assert list(drawn[:, 3]) == sorted(drawn[:, 3])
    assert (drawn[:6, :3] == 0).all(), "6 weak ones are between classes"
    assert (drawn[6:, :3].max(1) > 0.2).all(), "84 are within a class"


def test_large_images_are_dots_and_small_ones_are_themselves_in_colour() -> None:
    large = np.zeros((N, 3, 65, 65), np.uint8)
    (axes,) = relations.draw_graph(seen(), large, NAMES, "title").axes
    assert len(axes.images) == 0
    assert len(axes.collections[1].get_offsets()) == N
    rgb = RNG(0).randint(0, 256, (N, 3, 8, 8)).astype(np.uint8)
    (axes,) = relations.draw_graph(seen(), rgb, NAMES, "title").axes
    np.testing.assert_allclose(axes.images[3].get_array(), np.moveaxis(rgb[3], 0, 2) / 255)
    black = relations._thumbnail(np.zeros((1, 2, 2), np.uint8), np.array([1, 0.5, 0]))
    white = relations._thumbnail(np.full((1, 2, 2), 255, np.uint8), np.array([1, 0.5, 0]))
    assert black.tolist() == [[[1, 1, 1]] * 2] * 2, "the ground is white"
    assert white.tolist() == [[[1, 0.5, 0]] * 2] * 2, "the stroke has its class's colour"


def test_rows_of_the_batch_choose_the_images() -> None:
    given = seen()
    turned = Seen(torch.arange(N).flip(0), *[getattr(given, f) for f in list(Seen.__dataclass_fields__)[1:]])
    (axes,) = relations.draw_graph(turned, np.repeat(GREY, 3, 1), NAMES, "title").axes
    np.testing.assert_allclose(axes.images[0].get_array()[:, :, 0], GREY[-1, 0] / 255)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_spaces_have_both_networks_before_and_after(width: int) -> None:
    figure = relations.draw_spaces(seen(width=width, shift=0.5), seen(width=width), NAMES, "title")
    assert len(figure.axes) == 4
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.partition(":")[0] for title in titles] == ["before training"] * 2 + ["after the last epoch"] * 2
    assert [float(title.rpartition(" ")[2]) for title in titles] == pytest.approx(
        [0.5 * 6**0.5, 0.5 * width**0.5, 0, 0], abs=5e-3
    )
    for axes in figure.axes:
        lines, teacher, student = axes.collections
        segments = np.array(lines.get_segments())
        np.testing.assert_allclose(segments[:, 0], teacher.get_offsets())
        np.testing.assert_allclose(segments[:, 1], student.get_offsets())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["teacher", "student", *NAMES]


def test_of_many_classes_those_of_the_batch_have_their_colours() -> None:
    y = np.array([70, 3, 99, 3])
    found = relations._of_class(y, range(100))
    assert found.tolist() == relations.colours(3)[[1, 0, 2, 0]].tolist()
    assert relations._of_class(np.array([2, 0]), NAMES).tolist() == relations.colours(3)[[2, 0]].tolist()
