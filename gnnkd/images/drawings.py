"""What pictures of trained image networks show, from numbers alone: t-SNE, and correlations of logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from gnnkd.errors import UserError
from gnnkd.train.checkpoint import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Float[np.ndarray, "N K"]
NAMED = 20
"""Classes whose names can be written beside a picture."""
WIDE = 50
"""Columns that t-SNE is given at most: principal components of more."""
LEAST = 4
"""Images for a t-SNE."""
COLUMNS = 3
DPI = 150


def correlation(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "C C"]:
    """Pearson's correlation between the logits of each two classes over the images, in [-1, 1].

    A class whose logit is the same for all images has correlation 0 with the others, and 1 with itself.

    Raises:
        UserError: fewer than two images.
    """
    if logits.shape[0] < 2:
        raise UserError(f"a correlation over {logits.shape[0]} images says nothing; take at least 2")
    centred = np.asarray(logits, np.float64)
    centred = centred - centred.mean(0)
    size = np.linalg.norm(centred, axis=0)
    # Rounding leaves a little of a constant column.
    still = size <= 1e-9 * np.abs(logits).max(0) * math.sqrt(len(logits))
    unit = centred / np.where(still, 1, size) * ~still
    found: Float[np.ndarray, "C C"] = np.clip(unit.T @ unit, -1, 1)
    np.fill_diagonal(found, 1)
    return found


def off_diagonal(matrix: Float[np.ndarray, "C C"]) -> float:
    """The mean absolute value of all entries but those on the diagonal."""
    c = len(matrix)
    return float((np.abs(matrix).sum() - np.abs(matrix.diagonal()).sum()) / (c * (c - 1)))


def tsne(features: Rows, seed: int) -> Float[np.ndarray, "N 2"]:
    """Two coordinates for each row, near each other where rows are.

    t-SNE on the first 50 principal components, with perplexity 30 (less for few rows), started from the first two
    components; equal rows and seeds give equal pictures on one machine.

    Raises:
        UserError: fewer than four rows.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(features)
    if n < LEAST:
        raise UserError(f"t-SNE needs at least {LEAST} images, and there are {n}")
    rows = np.asarray(features, np.float64)
    parts = min(WIDE, n - 1, rows.shape[1])
    reduced = PCA(parts, svd_solver="full").fit_transform(rows)
    model = TSNE(perplexity=min(30.0, (n - 1) / 3), init="pca", learning_rate="auto", random_state=seed)
    found: Float[np.ndarray, "N 2"] = np.asarray(model.fit_transform(reduced), np.float64)
    return found


# -- pictures --------------------------------------------------------------------------------------------------


def draw_tsne(panels: Mapping[str, Rows], y: Int[np.ndarray, " N"], classes: Sequence[object], title: str) -> Figure:
    """Points [N, 2] of each panel, by its title, in the colours of their classes; a legend where they can be named."""
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    named = len(classes) <= NAMED
    figure = blank(4.6 * columns + (1.3 if named else 0), 4.6 * lines + 0.7)
    figure.suptitle(title, fontsize=11)
    of_class = colours(len(classes))
    # Later classes would cover earlier ones if they came class by class.
    order = np.random.RandomState(0).permutation(len(y))
    area = float(np.clip(18_000 / len(y), 4, 28))
    for position, (name, points) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, position)
        axes.scatter(points[order, 0], points[order, 1], c=of_class[y[order]], s=area, linewidths=0, alpha=0.85)
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal", "datalim")
        axes.spines[:].set_color("0.7")
    if named:
        dots = [
            figure.axes[0].scatter([], [], color=of_class[c], s=28, label=str(name)) for c, name in enumerate(classes)
        ]
        figure.legend(handles=dots, loc="outside right center", fontsize=9, frameon=False, title="class")
    return figure


def draw_difference(
    difference: Float[np.ndarray, "C C"], classes: Sequence[object], title: str, limit: float | None = None
) -> Figure:
    """The matrix as a map: white is no difference, colours are symmetric about it and end at +-`limit`, the largest."""
    most = max(float(np.abs(difference).max()), 1e-6)
    limit = most if limit is None else limit
    figure = blank(7.2, 6.4)
    axes = figure.add_subplot()
    image = axes.imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(f"{title}\nmean |difference| {off_diagonal(difference):.4f}, largest {most:.3f}", fontsize=10)
    _name_classes(axes, classes)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, extend="both" if most > limit else "neither")
    bar.set_label("correlation of logits: student's minus teacher's", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def _name_classes(axes: Axes, classes: Sequence[object]) -> None:
    axes.set_xlabel("class")
    axes.set_ylabel("class")
    axes.tick_params(labelsize=8)
    if len(classes) > NAMED:
        return
    words = [str(name) for name in classes]
    upright = max(map(len, words)) > 2
    axes.set_xticks(range(len(words)), words, rotation=60 if upright else 0, ha="right" if upright else "center")
    axes.set_yticks(range(len(words)), words)


def colours(n: int) -> Float[np.ndarray, "C 4"]:
    """As many colours as there are classes: a qualitative palette, or hues all round."""
    from matplotlib import colormaps

    few = colormaps["tab10" if n <= 10 else "tab20"]
    found: Float[np.ndarray, "C 4"] = np.asarray(
        few(np.arange(n)) if n <= NAMED else colormaps["hsv"](np.arange(n) / n)
    )
    # Pure yellow and cyan are pale on white.
    return found if n <= NAMED else found * np.array([0.9, 0.9, 0.9, 1])


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which draws without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write(figure: Figure, file: Path) -> None:
    """Write a PNG file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    # No date and no version inside: equal numbers give equal bytes.
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_bytes(file, picture.getvalue())
