"""A graph of networks with its files: what a run leaves in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gnnkd import processes, scores
from gnnkd.data.image_task import ImageTask
from gnnkd.data.task import NodeTask
from gnnkd.ktg import drawing, history, places
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.stages import Reached
from gnnkd.places import LAST, Place, read_json
from gnnkd.provenance import commit, versions
from gnnkd.train import checkpoint
from gnnkd.train.images import image_accuracy
from gnnkd.train.settings import ImageTrainSettings

Found = dict[str, Any]


def node_scores(reached: Reached, node: int) -> Found:
    """Accuracies of a node by forward passes: `test_acc` (under `ind` with its parts) and `val_acc`.

    They are of its own best epoch by validation; where nothing validates, of the last one, and `val_acc` is None. Of
    images they are asked in float32, as a saved network is.
    """
    task, network = reached.task, reached.predictors[node].network
    if isinstance(task, NodeTask):
        return {**scores.of_network(network, task), "val_acc": reached.bests[node].score}
    settings = _settings(reached, node)
    validates = bool(task.split.val.any())
    val = image_accuracy(network, task, task.split.val, settings) if validates else None
    return {"test_acc": image_accuracy(network, task, task.split.test, settings), "val_acc": val}


def finish(reached: Reached, place: Place, spec: Spec, *, title: str) -> Found:
    """Score all nodes, write their files and, last, the result; of several processes the first one writes.

    Args:
        spec: the graph as it was written, without the files of nodes that were trained alone for it.
        title: of its pictures.

    Returns:
        The content of `result.json`: at the top node 0's, under `nodes` everyone's.
    """
    plans, run, task = reached.plans, reached.run, reached.task
    nodes = [_node(reached, i) for i in range(len(plans.nodes))]
    others = [one["model"] for one in nodes[1:]]
    first = {name: value for name, value in nodes[0].items() if name not in ("node", "model", "frozen")}
    result = {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "teacher_model": "+".join(others) or "none",
        "student_model": plans.model(0),
        "method": places.METHOD,
        "base": None,
        "seed": task.seed,
        **first,
        **_last(reached),
        "epochs": run.epoch,
        "seconds": round(run.seconds, 3),
        "nodes": nodes,
        "graph": spec.plain(),
        "processes": processes.world(),
        "config": read_json(place.config),
        "versions": versions(),
        "commit": commit(),
    }
    if processes.rank() == 0:
        _write(reached, place, result, title)
    return result


def _node(reached: Reached, i: int) -> Found:
    best = reached.bests[i]
    return {
        "node": i,
        "model": reached.plans.model(i),
        "frozen": reached.plans.spec.frozen(i),
        **node_scores(reached, i),
        "best_epoch": None if best.epoch < 0 else best.epoch,
        "n_parameters": reached.predictors[i].n_parameters,
    }


def _last(reached: Reached) -> Found:
    """Of images: node 0's accuracy after the last epoch."""
    if not isinstance(reached.task, ImageTask):
        return {}
    network = reached.predictors[0].network
    kept = {name: t.clone() for name, t in network.state_dict().items()}
    network.load_state_dict(reached.last(0))
    found = image_accuracy(network, reached.task, reached.task.split.test, _settings(reached, 0))
    network.load_state_dict(kept)
    return {LAST: found}


def _settings(reached: Reached, node: int) -> ImageTrainSettings:
    settings = reached.plans.settings(node)
    assert isinstance(settings, ImageTrainSettings)
    return replace(settings, precision="float32")


def _write(reached: Reached, place: Place, result: Found, title: str) -> None:
    for i, predictor in enumerate(reached.predictors):
        predictor.save(place.folder, places.node(place, i).name)
    checkpoint.write_lines(place.metrics, reached.run.history)
    names = [f"{i} {one['model']}" for i, one in enumerate(result["nodes"])]
    history.draw(reached.run.history, place.curves, names, title=title, best_epoch=result["best_epoch"])
    picture = drawing.draw(reached.plans.spec, title=title, accuracies=[one["test_acc"] for one in result["nodes"]])
    drawing.write(picture, places.svg(place), places.png(place))
    checkpoint.write_json(place.result, result)
    place.checkpoint.unlink(missing_ok=True)
