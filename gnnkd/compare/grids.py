"""The tables of a section, as text in cells; `tables` writes them as Markdown, LaTeX, HTML, or on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gnnkd.compare.grid import Grid, Item, number, percent
from gnnkd.compare.latency import ALL, SIZES
from gnnkd.compare.measures import BINS, LOST, NOISES
from gnnkd.compare.sections import Cell, Section
from gnnkd.compare.statistics import ALPHA, Difference
from gnnkd.scores import PARTS

UP, DOWN = "▲", "▼"
"""Marks of a difference that is there beyond doubt."""
ASKED = (*map(str, SIZES), ALL)


def grids(section: Section) -> list[Grid]:
    """Every table of a section; those without a number are left out."""
    found = [accuracy(section), *([parts(section)] if section.setting == "ind" else [])]
    return [grid for grid in (*found, paired(section), measures(section), costs(section)) if grid.body]


def accuracy(section: Section) -> Grid:
    """Methods x data sets."""
    marks = {label: section.differences(label) for label in section.labels}
    best = {dataset: section.best(dataset) for dataset in section.datasets}
    protocols = section.protocols
    one = len(set(protocols.values())) == 1
    notes: dict[str, int] = {}
    wants = _wants(section)
    body = []
    for label, cells in section.cells.items():
        said = [notes.setdefault(wants[label], len(notes) + 1)] if label in wants else []
        row = [Item(section.named(label), notes=tuple(said))]
        for name in section.datasets:
            cell, mark = cells.get(name), _mark(marks.get(label, {}).get(name))
            row.append(Item("") if cell is None else _scored(section, cell, label in best[name], mark, notes))
        body.append(tuple(row))
    split = f", split {next(iter(protocols.values()))}" if one else ""
    head = tuple(name if one else f"{name} ({protocols[name]})" for name in section.datasets)
    what = "test accuracy" if section.setting != "ind" else "test accuracy in production (.8 tran + .2 ind)"
    title = f"{what}, {section.title}{split}"
    return Grid(title, ("method", *head), tuple(body), _about(section), notes=tuple(notes))


def _wants(section: Section) -> dict[str, str]:
    """What predictions need beside features, by method; nothing where all methods need features alone."""
    found = {label: needs(next(iter(cells.values()))) for label, cells in section.cells.items()}
    said = {label: f"A prediction needs {need}." for label, need in found.items() if need not in ("", "features")}
    return said if said.keys() & set(section.labels) else {}


def _scored(section: Section, cell: Cell, best: bool, mark: str, notes: dict[str, int]) -> Item:
    numbers = tuple(notes.setdefault(_reason(why, seeds, section), len(notes) + 1) for why, seeds in _why(cell))
    found = cell.spread("test_acc")
    if found is None:
        return Item(_why(cell)[0][0].partition(":")[0] if numbers else "", notes=numbers)
    asked = len(cell.rows)
    count = f"{found.n}" if found.n == asked else f"{found.n} of {asked}"
    return Item(f"{percent(found)} ({count})", best, mark, numbers)


def _why(cell: Cell) -> list[tuple[str, list[Any]]]:
    return list(cell.reasons.items())


def _reason(why: str, seeds: Sequence[Any], section: Section) -> str:
    which = "" if tuple(seeds) == section.seeds else f" (seed {', '.join(map(str, seeds))})"
    return why + which


def _mark(found: Difference | None) -> str:
    if found is None or not found.shown:
        return ""
    return UP if found.spread.mean > 0 else DOWN


def _about(section: Section) -> str:
    n = len(section.seeds)
    text = (
        "Percent: mean +- standard deviation (ddof 1) over seeds (number of seeds). Bold: the highest mean of a "
        "student, which says nothing about how sure it is."
    )
    if section.against not in section.cells:
        return text
    text += (
        f" {UP} {DOWN}: above or below {section.against} by Wilcoxon's signed-rank test, two-sided and paired by seed, "
        f"p < {ALPHA:g} after Holm over the data sets."
    )
    least = 2 ** (1 - n)
    return text + (
        f" With {n} {'seed' if n == 1 else 'seeds'} p cannot fall below {least:.3g}." if least >= ALPHA / 10 else ""
    )


def parts(section: Section) -> Grid:
    """What an inductive accuracy is made of."""
    keys = ("test_acc", *(f"test_acc_{part}" for part in PARTS))
    body = [(*names, *(_percent(cell, key) for key in keys)) for names, cell in _lines(section)]
    caption = (
        "Percent, mean +- standard deviation (ddof 1), seeds as in the table before. tran: observed test nodes on the "
        "observed graph; ind: unseen nodes with all their edges; cold: unseen nodes without any edge; prod: .8 tran + "
        ".2 ind."
    )
    return Grid(f"new nodes, {section.title}", ("data", "method", "prod", *PARTS), tuple(body), caption, names=2)


def paired(section: Section) -> Grid:
    """Differences from the reference, data set by data set."""
    found = {label: section.differences(label) for label in section.labels}
    body = [
        (Item(dataset), Item(label), *_difference(found[label][dataset]))
        for dataset in section.datasets
        for label in section.labels
        if dataset in found[label]
    ]
    caption = (
        "Points of test accuracy, mean +- standard deviation (ddof 1) of the differences paired by seed. p: Wilcoxon's "
        "exact signed-rank test, two-sided (zeros dropped); p (Holm): corrected over the data sets of this table."
    )
    head = ("data", "method", "difference", "p", "p (Holm)", "wins/ties/losses", "seeds")
    return Grid(f"against {section.against}, {section.title}", head, tuple(body), caption, names=2)


def _difference(found: Difference) -> Iterator[Item]:
    yield Item(number(found.spread, 100, "+.2f", ".2f"), mark=_mark(found))
    yield Item(_p(found.p))
    yield Item(_p(found.holm))
    yield Item(f"{found.wins}/{found.ties}/{found.losses}")
    yield Item(str(found.spread.n))


def measures(section: Section) -> Grid:
    """Fidelity, calibration, robustness."""
    shares = {f"noise {s:g}": f"measures/robust_noise_{s:g}" for s in NOISES}
    shares |= {f"edges -{100 * p:g}%": f"measures/robust_edges_{p:g}" for p in LOST}
    body = [
        (
            *names,
            _percent(cell, "measures/agreement"),
            *(_plain(cell, f"measures/{key}") for key in ("kl_teacher", "ece", "nll")),
            *(_percent(cell, key) for key in shares.values()),
        )
        for names, cell in _lines(section)
        if cell.spread("measures/nll") is not None
    ]
    caption = (
        "Mean +- standard deviation (ddof 1) over seeds, on the tested rows. Agreement with the teacher's class in "
        "percent; KL(teacher || student) and negative log likelihood in nats; expected calibration error with "
        f"{BINS} bins; accuracy in percent with Gaussian noise on the features, so many of their standard deviations "
        "wide, and with that share of the edges dropped."
    )
    head = ("data", "method", "agreement", "KL", "ECE", "NLL", *shares)
    return Grid(f"fidelity, calibration, robustness, {section.title}", head, tuple(body), caption, names=2)


def costs(section: Section) -> Grid:
    """What a network costs when it ships."""
    body = [(*names, *_cost(cell)) for names, cell in _lines(section) if cell.costs]
    caption = (
        "Of the first seed on one CPU thread. Stored numbers: those beside the parameters that a prediction needs "
        "(positions, labels, ids of known nodes). Multiply-adds per node of one pass over all nodes: features counted "
        "as dense, what works element by element left out (activations, norms, softmax). Milliseconds, median / 95th "
        "percentile, for so many rows at once: the forward pass, and apart from it the fetch of the neighbourhood and "
        "its features by whoever needs edges; normalised edge weights lie ready. Networks of gcn, sage and gat layers "
        "apply each layer only to the nodes that the next one reads; other ones that need edges run on the whole "
        "neighbourhood; for all rows there is one pass over the graph. Training: mean seconds over seeds."
    )
    answers = (f"answer {size}" for size in ASKED)
    fetches = (f"fetch {size}" for size in ASKED[:-1])
    head = ("data", "method", "needs", "parameters", "stored numbers", "MACs/node", *answers, *fetches, "training s")
    return Grid(f"costs, {section.title}", head, tuple(body), caption, names=3)


def needs(cell: Cell) -> str:
    """What a prediction needs, in words."""
    said = cell.first.get("needs")
    return "" if said is None else ", ".join(dict.fromkeys(["features", *said]))


def _cost(cell: Cell) -> Iterator[Item]:
    found = cell.costs
    yield Item(needs(cell))
    yield Item(f"{found['n_parameters']:,}")
    yield Item(f"{found['n_stored']:,}" if "n_stored" in found else "")
    yield Item(f"{found['macs']:,.0f}")
    for size in ASKED:
        yield Item(_milliseconds(found.get("latency_ms", {}).get(size)))
    for size in ASKED[:-1]:
        yield Item(_milliseconds(found.get("fetch_ms", {}).get(size)))
    seconds = cell.spread("seconds")
    yield Item("" if seconds is None else f"{seconds.mean:.1f}")


def _lines(section: Section) -> Iterator[tuple[tuple[Item, Item], Cell]]:
    """Cells with numbers by data set, then method, with their names."""
    for dataset in section.datasets:
        for label, cells in section.cells.items():
            if dataset in cells and cells[dataset].finished:
                yield (Item(dataset), Item(section.named(label))), cells[dataset]


def _percent(cell: Cell, key: str) -> Item:
    found = cell.spread(key)
    return Item("" if found is None else percent(found))


def _plain(cell: Cell, key: str) -> Item:
    found = cell.spread(key)
    return Item("" if found is None else number(found, 1, ".3f", ".3f"))


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _milliseconds(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{_short(found['p50'])} / {_short(found['p95'])}"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
