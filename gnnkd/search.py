"""A search for the graph of networks that teaches node 0 best: `python -m gnnkd.search --dataset digits --trials 50`.

The same command again continues a search, also beside another process that is at work on it. `--retrain best` trains
the graph it has found on training and validation rows, beside node 0's network alone and mutual learning: on the split
of the search for all seeds.
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
    import optuna

    from gnnkd.ktg.stages import Task
    from gnnkd.ktg.study import Search
    from gnnkd.ktg.study_space import Space

TRIALS = 100
NODES = 3
FLAGS = {
    "dataset": ("NAME", "as for gnnkd.main (digits)"),
    "split": ("NAME", "public, ogb, given, cpf, random (the first of these that the data has)"),
    "setting": ("NAME", "tran, or on graphs ind (tran)"),
    "models": ("A,B", "networks; node 0 is the first, the others choose (the data's student and teacher)"),
    "gates": ("A,B", "gates that edges choose from (through,cutoff,positive,negative,correct)"),
    "name": ("NAME", "of the search; one of the same name is continued (nodesN)"),
    "storage": ("URL", "a database, as sqlite:///search.db (a file in the search's folder)"),
    "retrain": ("WHICH", "then train again: best, or the number of a trial"),
    "seed": ("K", "of the search: split (of --retrain, too), initialisation, the graphs drawn (0)"),
    "seeds": ("N", "of --retrain, for initialisation, order and dropout: 0 to N-1; also 10-19 or 3,5,7 (5)"),
    "data_root": ("DIR", "folder of the raw data ($GNNKD_DATA, or a cache folder of yours)"),
    "out": ("DIR", "folder of the results (runs)"),
    "device": ("NAME", "auto, cpu, cuda (auto)"),
}
NUMBERS = {
    "nodes": (1, "of a graph (3)"),
    "trials": (0, "of the search in all, earlier ones and those of other processes included (100; with --retrain 0)"),
    "timeout": (1, "seconds after which no trial begins"),
}
SWITCHES = {
    "resume": "continue an interrupted search, which the same command does without it, too",
    "quiet": "no bars and no line for each trial",
}
OF_DATA = ("dataset", "split", "setting")
SEARCHED = ("nodes", "gates", "edges")
"""What `--set` cannot say, because the search does."""


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gnnkd.search",
        usage="python -m gnnkd.search [--dataset NAME] [--models A,B] [--nodes N] [--trials N] [flags]",
        description="Search for the graph of networks in which node 0 validates best.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    words = "values of all graphs, as in --set train.epochs=20 temperature=2 loss=gkd"
    parser.add_flags(FLAGS, NUMBERS, SWITCHES, options=words)
    return parser


@final
class Asked:
    """What is to be searched, checked as far as names go.

    Raises:
        UserError: an unknown name or value, or Optuna is not installed.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        from gnnkd import options
        from gnnkd.ktg import study_storage
        from gnnkd.places import checked_tag
        from gnnkd.request import seeds_of
        from gnnkd.train.together.gates import GATES

        study_storage.package()
        gates = [options.word("gate", name, GATES) for name in _words(said.get("gates", ",".join(GATES)))]
        self.space = _space(said, gates)
        self.name = said.get("name", f"nodes{self.space.nodes}")
        try:
            checked_tag(self.name)
        except UserError as mistake:
            raise UserError(str(mistake).replace("tag ", "--name ", 1)) from None
        self.retrain: str | None = said.get("retrain")
        self.trials = said.get("trials", TRIALS if self.retrain is None else 0)
        self.timeout: int | None = said.get("timeout")
        if self.retrain is None and "seeds" in said:
            raise UserError("--seeds are of --retrain; a search has one seed (--seed), or say --retrain best")
        self.seed = options.seed(_number(said.get("seed", 0)))
        self.seeds = seeds_of({"seeds": said.get("seeds", "5")})
        self.storage: str | None = said.get("storage")
        self.out, self.data_root = Path(said.get("out", "runs")), said.get("data_root")
        self.device, self.quiet = said.get("device", "auto"), bool(said.get("quiet"))

    def say(self, text: str) -> None:
        """Print what is no result."""
        if not self.quiet:
            print(text, flush=True)


def _words(said: str) -> list[str]:
    return [word.strip() for word in said.split(",") if word.strip()]


def _number(said: Any) -> Any:
    return int(said) if isinstance(said, str) and said.isdecimal() else said


def _space(said: Mapping[str, Any], gates: Sequence[str]) -> Space:
    from gnnkd import halves
    from gnnkd.ktg.study_space import Space
    from gnnkd.together import overruled

    tree: dict[str, Any] = {}
    for pair in said.get("set") or ():
        if pair.partition("=")[0].split(".")[0].lower() in SEARCHED:
            raise UserError(f"--set {pair}: that is what the search chooses; use --nodes, --models and --gates")
        tree = overruled(tree, pair)
    tree |= {name: said[name] for name in OF_DATA if name in said}
    if "models" in said:
        models = _words(said["models"])
    else:
        plan = halves.plan({"dataset": tree.get("dataset", "digits")}, ())
        models = [plan.student_model, plan.teacher_model]
    return Space.of(tree, said.get("nodes", NODES), models, gates)


# -- the search ------------------------------------------------------------------------------------------------


def run(asked: Asked) -> None:
    """Search, write the report, train the winner again if that is asked for.

    Raises:
        UserError: anything wrong with names, data, places or the storage.
    """
    from gnnkd import options, processes
    from gnnkd.allocator import keep_freed_memory
    from gnnkd.ktg import study, study_report, study_storage, study_trials
    from gnnkd.ktg.plans import planned
    from gnnkd.places import writable
    from gnnkd.train.progress import progress

    device = options.device(asked.device)
    if processes.launched() > 1:
        raise UserError(
            "each process of a search tries graphs of its own; start the command several times, no torchrun"
        )
    writable(asked.out)
    keep_freed_memory()
    first: Any = planned(asked.space.base, asked.seed).first
    dataset: Any = first.load(asked.data_root)
    mine: Task = first.task(dataset, asked.seed).to(device)
    for note in first.notes(mine):
        asked.say(f"{mine.name}: {note}")
    search = study.Search(asked.space, mine, asked.out, asked.name, progress(quiet=asked.quiet), asked.say)
    search.check()
    with study_storage.opened(search.folder, asked.storage) as storage:
        found = study.opened(search, storage)
        try:
            study_trials.run(search, found, asked.trials, asked.timeout)
        finally:
            study_report.write(search, found)
        print(study_report.summary(search, found))
        asked.say(f"optuna-dashboard {asked.storage or study_storage.journal(search.folder)} shows it, too")
        if asked.retrain is not None:
            _retrain(asked.retrain, search, found, asked.seeds)


def _retrain(which: str, search: Search, found: optuna.Study, seeds: Sequence[int]) -> None:
    from gnnkd.ktg import study_report, study_retrain

    compared = study_retrain.compare(search, *study_retrain.chosen(search, found, which), seeds)
    study_report.write(search, found)
    for line in compared.lines():
        print(f"{search.task.name} {search.task.protocol}-{search.task.setting} {search.name}, {line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM)."""
    return ended(lambda: run(Asked(vars(_parser().understood(argv)))))


if __name__ == "__main__":
    sys.exit(main())
