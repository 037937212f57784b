"""Networks that teach each other, trained as a graph says: `python -m gnnkd.together graph.yaml`.

`gnnkd.ktg.spec` says what is in the file. `--preset dml --models resnet20,resnet32` needs none: `dml` is mutual
learning, `single` one network alone, `kd` a student and its teacher.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd.arguments import Parser
from gnnkd.errors import UserError
from gnnkd.main import ended

if TYPE_CHECKING:
    from gnnkd.ktg.spec import Spec
    from gnnkd.ktg.stages import Task
    from gnnkd.places import Place
    from gnnkd.train.progress import Progress

FLAGS = {
    "dataset": ("NAME", "as for gnnkd.main, instead of the file's (digits)"),
    "split": ("NAME", "public, ogb, given, cpf, random (the first of these that the data has)"),
    "setting": ("NAME", "tran, or on graphs ind (tran)"),
    "preset": ("NAME", "instead of a file: dml, single or kd, of the networks in --models"),
    "models": ("A,B", "networks of the preset, the one that counts first"),
    "seed": ("K", "one seed, for split, initialisation and dropout (0)"),
    "seeds": ("N", "seeds 0 to N-1; also 10-19 or 3,5,7"),
    "data_root": ("DIR", "folder of the raw data ($GNNKD_DATA, or a cache folder of yours)"),
    "out": ("DIR", "folder of the results (runs)"),
    "tag": ("NAME", "keeps a second configuration beside the first"),
    "device": ("NAME", "auto, cpu, cuda (auto)"),
}
SWITCHES = {
    "resume": "continue an interrupted run",
    "overwrite": "run again what is there already",
    "quiet": "print the results only",
    "tensorboard": "write TensorBoard's files beside the results (pip install 'gnnkd[log]')",
}
OF_DATA = ("dataset", "split", "setting")
"""Flags that a file has, too."""


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gnnkd.together",
        usage="python -m gnnkd.together GRAPH.yaml | --preset dml|single|kd --models A,B [flags]",
        description="Train networks that teach each other over gated edges.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("graph", metavar="FILE", nargs="?", default=None, help="a YAML file: nodes, gates, edges, ...")
    for name, (metavar, text) in FLAGS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    words = "values of the file, as in --set train.epochs=20 nodes.1.model=cnn gates.0.1=positive"
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", help=words)
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


@final
class Asked:
    """What is to be done: a graph, its name, and the flags of the command line.

    Raises:
        UserError: an unknown name or value, a broken file, or contradicting flags.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        from gnnkd.ktg.spec import Spec
        from gnnkd.places import checked_tag
        from gnnkd.request import seeds_of

        self.name, tree = _graph(said)
        for pair in said.get("set") or ():
            tree = overruled(tree, pair)
        self.spec: Spec = Spec.of(tree | {name: said[name] for name in OF_DATA if name in said})
        self.seeds = seeds_of(said) if {"seed", "seeds"} & said.keys() else (0,)
        self.tag = checked_tag(said["tag"]) if "tag" in said else None
        self.out, self.data_root = Path(said.get("out", "runs")), said.get("data_root")
        self.device = said.get("device", "auto")
        self.resume, self.overwrite, self.quiet, self.tensorboard = (bool(said.get(name)) for name in SWITCHES)
        if self.resume and self.overwrite:
            raise UserError("--resume continues what is there, and --overwrite begins anew; give one of them")

    def say(self, text: str) -> None:
        """Print what is no result."""
        if not self.quiet:
            print(text)


def _graph(said: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a graph, and what its file or preset says."""
    from gnnkd import options, yaml_file
    from gnnkd.ktg import places
    from gnnkd.ktg.presets import PRESETS

    file, preset = said.get("graph"), said.get("preset")
    if (file is None) == (preset is None):
        what = "no graph is named" if file is None else "a file and --preset are two graphs"
        raise UserError(f"{what}; give either GRAPH.yaml, or --preset {'|'.join(PRESETS)} with --models A,B")
    if preset is not None:
        name = options.word("preset", preset, PRESETS)
        return name, PRESETS[name]([model.strip() for model in said.get("models", "").split(",") if model.strip()])
    if "models" in said:
        raise UserError("--models is of a preset, and a file names its own; say --set nodes.0.model=NAME")
    return places.named(Path(str(file))), yaml_file.read(Path(str(file)))


def overruled(tree: dict[str, Any], pair: str) -> dict[str, Any]:
    """What a file says, with a `key.path=value` that beats it; `train.X` beats what nodes say of X, too.

    Raises:
        UserError: no such pair, or a path that leads nowhere.
    """
    from gnnkd import yaml_file

    path, equals, text = pair.partition("=")
    keys = [key if "<-" in key else key.lower().replace("-", "_") for key in path.split(".")]
    if not equals or not all(keys):
        raise UserError(f"--set {pair}: it must be key=value, as in --set train.epochs=20 or gates.0.1=cutoff")
    if keys[0] == "train" and len(keys) == 2:
        nodes = [_without(node, keys[1]) for node in tree.get("nodes") or ()]
        tree = tree | ({"nodes": nodes} if nodes else {})
    found: dict[str, Any] = _put(tree, keys, yaml_file.value(text, f"--set {pair}"), pair)
    return found


def _without(node: Any, name: str) -> Any:
    if not isinstance(node, Mapping) or not isinstance(node.get("train"), Mapping):
        return node
    return {**node, "train": {key: value for key, value in node["train"].items() if key != name}}


def _put(tree: Any, keys: Sequence[str], value: Any, pair: str) -> Any:
    """`tree` with `value` at the end of a path; a node that is a name alone is a mapping with its model."""
    if not keys:
        return value
    first, rest = keys[0], keys[1:]
    if isinstance(tree, list):
        if not first.isdecimal() or int(first) >= len(tree):
            raise UserError(f"--set {pair}: {first} is none of the {len(tree)} there, which are counted from 0")
        return [_put(one, rest, value, pair) if i == int(first) else one for i, one in enumerate(tree)]
    tree = {"model": tree} if isinstance(tree, str) else {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise UserError(f"--set {pair}: there is nothing below {tree!r} that {first} could name")
    return {**tree, first: _put(tree.get(first), rest, value, pair)}


# -- runs ------------------------------------------------------------------------------------------------------


def run(asked: Asked) -> None:
    """Train the graph, seed after seed.

    Raises:
        UserError: anything wrong with names, data or places.
    """
    from gnnkd import options, processes, tensorboard
    from gnnkd.allocator import keep_freed_memory
    from gnnkd.places import writable

    device = options.device(asked.device)
    if asked.tensorboard:
        tensorboard.check()
    writable(asked.out)
    keep_freed_memory()
    with processes.joined(device) as here:
        asked.quiet = asked.quiet or processes.rank() > 0
        _seeds(asked, here)


def _seeds(asked: Asked, device: str) -> None:
    from gnnkd import messages, processes
    from gnnkd.ktg.plans import planned
    from gnnkd.train.progress import progress

    plans = planned(asked.spec, asked.seeds[0])
    if processes.world() > 1 and not plans.of_images:
        raise UserError("several processes share a training on images only; start a graph's run without torchrun")
    dataset: Any = plans.first.load(asked.data_root)
    shown, results = progress(quiet=asked.quiet), []
    for seed in asked.seeds:
        task: Any = plans.first.task(dataset, seed)
        if seed == asked.seeds[0]:
            for note in (*plans.first.notes(task), *(note for one in plans.weights.values() for note in one.notes)):
                asked.say(f"{task.name}: {note}")
        results.append(_seed(asked, task.to(device), shown))
    if len(asked.seeds) > 1 and processes.rank() == 0:
        print(messages.mean(results))


def _seed(asked: Asked, task: Task, shown: Progress) -> dict[str, Any]:
    """One seed, unless it is there already; its result."""
    from gnnkd import messages, processes
    from gnnkd.claims import undisturbed
    from gnnkd.ktg import places, stages
    from gnnkd.ktg.plans import planned
    from gnnkd.places import read_result, summarise

    first, plans = processes.rank() == 0, planned(asked.spec, task.seed)
    place = places.place(asked.out, task, asked.name, asked.tag)
    stages.check(task, asked.spec)
    description = places.described(plans, task)
    flags = {"resume": asked.resume, "overwrite": asked.overwrite}
    with undisturbed(place, overwrite=asked.overwrite):
        if processes.any_of(first and places.claim(place, description, plans.first, **flags)):
            result = _trained(asked, task, place, shown)
        else:
            asked.say(f"{place.folder} is finished, with the same configuration: reused (--overwrite runs it again)")
            result = read_result(place.result)
    if first:
        summarise(place)
    processes.any_of(False)  # nobody reads before all is written
    if first:
        print(messages.line(result, place.folder))
    return result


def _trained(asked: Asked, task: Task, place: Place, shown: Progress) -> dict[str, Any]:
    """Train the nodes that are trained alone, then all together, and write the files."""
    from gnnkd import tensorboard
    from gnnkd.ktg import alone, places, results, stages
    from gnnkd.ktg.plans import planned

    root, plans = places.root(asked.out, task), planned(asked.spec, task.seed)
    settled = alone.settled(plans, task, root, shown, tag=asked.tag, resume=asked.resume)
    with tensorboard.beside(shown, place.folder, wanted=asked.tensorboard) as told:
        reached = stages.run(task, settled, told, place=place, resume=asked.resume)
        tensorboard.rest(told, reached.run.history)
    title = f"{task.name} {task.protocol}-{task.setting}, {asked.name}, seed {task.seed}"
    return results.finish(reached, place, asked.spec, title=title)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM)."""
    return ended(lambda: run(Asked(vars(_parser().understood(argv)))))


if __name__ == "__main__":
    sys.exit(main())
