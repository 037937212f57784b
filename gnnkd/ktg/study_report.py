"""What a search has come to, as files beside its trials.

`search.html` is a page of its own: history, importances, the best graph, graphs that were trained again, all trials.
The pictures lie beside it (`search.png`, `graph.svg`, `graph.png`), and `best.yaml` is the best graph as
`python -m gnnkd.together` reads it.
"""

from __future__ import annotations

import base64
import html
import math
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from gnnkd.curves import COLOURS
from gnnkd.ktg import drawing, study, study_retrain
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.study import Search, shown
from gnnkd.ktg.study_storage import WHY
from gnnkd.ktg.study_trials import REFUSED, SAME
from gnnkd.train.checkpoint import write_bytes

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

LEAST = 4
"""Completed trials from which importances are made."""
SHOWN = 15
"""Parameters that are drawn, the most important ones."""
Importances = Mapping[str, float]


def write(search: Search, found: optuna.Study) -> None:
    """Write all files.

    Raises:
        UserError: one cannot be written, or a comparison with other graphs cannot be read.
    """
    trials, weights = found.get_trials(deepcopy=False), importances(found)
    folder, first = search.folder, study.best(found)
    picture = _picture(trials, weights, _title(search))
    write_bytes(folder / "search.png", picture)
    pages = [_image(picture, "png", "history and importances")]
    if first is not None:
        graph = search.space.graph(first.params)
        title = f"trial {first.number}: validation {first.value:.2%}"
        drawing.write(drawing.draw(graph, title=title), folder / "graph.svg", folder / "graph.png")
        write_bytes(folder / "best.yaml", as_yaml(search, graph).encode())
        pages += [f"<h2>The best graph: {title}</h2>", _image((folder / "graph.svg").read_bytes(), "svg+xml", title)]
        pages.append(f"<pre>{html.escape(as_yaml(search, graph))}</pre>")
    for one in study_retrain.there(search):
        about = f"on training and validation rows of the split of seed {one.split_seed}"
        pages.append(f"<h2>Trial {one.trial} trained again, {about}</h2>")
        pages.append(f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in one.lines())}</ul>")
    pages += ["<h2>All trials</h2>", _table(search, trials)]
    write_bytes(folder / "search.html", _page(_title(search), _summary(trials, weights), pages).encode())


def summary(search: Search, found: optuna.Study) -> str:
    """One line: how many trials, the best one, and where to read more."""
    trials, first = found.get_trials(deepcopy=False), study.best(found)
    best = "none of them complete" if first is None else f"best validation {first.value:.2%} of trial {first.number}"
    graph = "" if first is None else f" ({shown(search.space.graph(first.params))})"
    return f"{_title(search)}: {_counted(trials)}; {best}{graph} ({search.folder / 'search.html'})"


def as_yaml(search: Search, graph: Spec) -> str:
    """A graph as `python -m gnnkd.together` reads it."""
    import yaml

    body = yaml.safe_dump(graph.plain(), sort_keys=False, default_flow_style=None)
    return f"# python -m gnnkd.together best.yaml --seed {search.task.seed}\n{body}"


def importances(found: optuna.Study) -> dict[str, float]:
    """Share of each parameter in the variance of the scores, largest first (functional analysis of variance).

    Trials that ended early are not among them. Empty where too few are complete, or all of them score the same.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    scores = {trial.value for trial in found.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(scores) < LEAST:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on parameters with one choice, which it leaves out
        shares = get_param_importances(found, evaluator=FanovaImportanceEvaluator(seed=0))
    return dict(sorted(((name, float(share)) for name, share in shares.items()), key=lambda one: -one[1]))


def _title(search: Search) -> str:
    task = search.task
    return f"{task.name} {task.protocol}-{task.setting}, search {search.name}, seed {task.seed}"


# -- pictures --------------------------------------------------------------------------------------------------


def _picture(trials: Sequence[Any], weights: Importances, title: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    _history(left, trials)
    _shares(right, weights)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    # No date and no version inside: equal searches give equal bytes.
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _history(axes: Axes, trials: Sequence[Any]) -> None:
    complete = [(t.number, 100 * t.value) for t in trials if t.state.name == "COMPLETE"]
    early = [(t.number, 100 * t.value) for t in trials if t.state.name == "PRUNED" and _scored(t)]
    for points, marker, colour, label in (
        (complete, "o", COLOURS[0], "to the end"),
        (early, "x", COLOURS[1], "ended early"),
    ):
        axes.plot(*_columns(points), marker, color=colour, markersize=5, label=label)
    best = [max(value for _, value in complete[: k + 1]) for k in range(len(complete))]
    axes.step([number for number, _ in complete], best, where="post", color=COLOURS[2], linewidth=1.4, label="best")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy of node 0 (%)")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _shares(axes: Axes, weights: Importances) -> None:
    most = list(weights.items())[:SHOWN]
    axes.set_xlabel("importance (share of the variance)")
    if not most:
        axes.text(0.5, 0.5, "too few different scores", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    rows = range(len(most), 0, -1)
    axes.barh(rows, [share for _, share in most], color=COLOURS[0])
    axes.set_yticks(rows, [_parameter(name) for name, _ in most], fontsize=8)


def _parameter(name: str) -> str:
    """`0_1_gate` as people read it."""
    places, _, what = name.rpartition("_")
    return f"gate {places.replace('_', '<-')}" if what == "gate" else f"model of {places}"


# -- the page --------------------------------------------------------------------------------------------------


def _page(title: str, summary: str, parts: Sequence[str]) -> str:
    style = (
        "body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}img{max-width:100%}"
        "table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:left;border-bottom:1px solid #ddd}"
        "td.n{text-align:right}pre{background:#f5f5f5;padding:1em;overflow:auto}"
    )
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(summary)}</p>", *parts])
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n{body}\n</body></html>\n"


def _image(content: bytes, kind: str, words: str) -> str:
    return f'<img alt="{html.escape(words)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def _summary(trials: Sequence[Any], weights: Importances) -> str:
    most = next(iter(weights), None)
    return f"{_counted(trials)}." + (f" Most important: {_parameter(most)}." if most else "")


def _counted(trials: Sequence[Any]) -> str:
    counts: dict[str, int] = {}
    for trial in trials:
        state = _state(trial)
        counts[state] = counts.get(state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{len(trials)} trials" + (f" ({said})" if said else "")


def _scored(trial: Any) -> bool:
    return trial.value is not None and math.isfinite(trial.value)


def _state(trial: Any) -> str:
    if REFUSED in trial.user_attrs:
        return "not run (node 0 would learn nothing)"
    if SAME in trial.user_attrs:
        return "the graph of an earlier trial again"
    if trial.state.name == "PRUNED":
        return "diverged" if WHY in trial.user_attrs else "ended early"
    return {"COMPLETE": "to the end", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}[trial.state.name]


def _table(search: Search, trials: Sequence[Any]) -> str:
    """Trials that came to their end first, the best on top."""
    order = sorted(trials, key=lambda t: (t.state.name != "COMPLETE", -t.value if _scored(t) else 0.0, t.number))
    head = "".join(f"<th>{name}</th>" for name in ("trial", "validation", "epochs", "what", "graph"))
    rows = []
    for trial in order:
        graph = shown(search.space.graph(trial.params)) if trial.params else ""
        score = f"{trial.value:.2%}" if _scored(trial) else ""
        cells = [f'<td class="n">{cell}</td>' for cell in (trial.number, score, trial.last_step or "")]
        cells += [f"<td>{html.escape(cell)}</td>" for cell in (_state(trial), graph)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
