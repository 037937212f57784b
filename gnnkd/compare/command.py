"""The command line of a comparison: what each source says, put together and checked."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd import yaml_file
from gnnkd.arguments import Parser, whole
from gnnkd.errors import UserError, unknown

if TYPE_CHECKING:
    from gnnkd.compare.comparison import Comparison
    from gnnkd.halves import Groups

PROGRAM = ("python", "-m", "gnnkd.compare")
GROUPS = ("data", "teacher", "student", "method", "train")
LISTS = {
    "dataset": ("NAME", "graphs, as cora citeseer, or paths of .npz files (digits)"),
    "methods": ("WORD", "mlp (labels alone), glnn, dgd(glnn), fitnet:kd_weight=1, glnn:student.lr=.001 (mlp,glnn,dgd)"),
    "teacher": ("NAME", "networks: gcn, gat, sage, gcnii, appnp, sgc, tag, monet, mlp (gcn)"),
    "students": ("NAME", "networks: mlp, gcn, gat, sage, gcnii, appnp, sgc, tag, monet (mlp)"),
    "setting": ("NAME", "tran, ind (tran)"),
}
"""Words separated by commas or spaces."""
WORDS = {
    "split": ("NAME", "public, ogb, given, cpf, random (the first of these that the data has)"),
    "teacher_logits": ("FILE", "a trained teacher's logits [nodes, classes] in an .npy file, instead of teachers"),
    "against": ("WORD", "the one of the methods that the others are tested against (glnn, or the first)"),
    "seed": ("K", "one seed, for split, initialisation and dropout (0)"),
    "seeds": ("N", "seeds 0 to N-1; also 10-19 or 3,5,7"),
    "jobs": ("N", "processes at work at once; auto: one for each core, one on a GPU (auto)"),
    "data_root": ("DIR", "folder of the raw data ($GNNKD_DATA, or a cache folder of yours)"),
    "out": ("DIR", "folder of the results (runs)"),
    "report": ("DIR", "folder of tables and page (OUT/compare/...)"),
    "device": ("NAME", "auto, cpu, cuda (auto)"),
}
NUMBERS = {
    "tune": (0, "trials of a search for each configuration first, on validation accuracy (0)"),
    "tune_seeds": (1, "of the seeds, how many a trial is trained with (3, or all)"),
}
SWITCHES = {
    "no_train": "only the tables, of what is finished",
    "no_costs": "measure no multiply-adds and no milliseconds",
    "resume": "continue what was interrupted, which the same command does without it, too",
    "overwrite": "train again what is there already",
    "quiet": "print the results only",
}
SHORT = {
    "method": "methods",
    "datasets": "dataset",
    "student": "students",
    "teachers": "teacher",
    "settings": "setting",
}
"""Other forms of flags."""


def parse(argv: Sequence[str] | None) -> Comparison:
    """Understand a command line; flags beat `--set`, which beats the file.

    Raises:
        UserError: an unknown flag, name, option or value, or a broken file.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    said = vars(_parser().understood(argv))
    file, pairs = said.pop("config", None), said.pop("set", [])
    sources = [(yaml_file.read(Path(file)), str(file))] if file else []
    sources += [(_tree(pairs), "--set"), (said, "the command line")]
    values: dict[str, Any] = {}
    levels: list[Groups] = []
    seeds: dict[str, Any] = {"seed": 0}
    for tree, where in sources:
        mine, groups = _sorted(tree, where)
        if mine.keys() & {"seed", "seeds"}:
            seeds = {name: mine[name] for name in ("seed", "seeds") if name in mine}
        if mine.keys() & {"teacher", "teacher_logits"}:  # who said it last says who teaches
            values = {name: value for name, value in values.items() if name not in ("teacher", "teacher_logits")}
        values |= mine
        levels.append(groups)
    from gnnkd.compare.asking import asked

    return asked(values, tuple(level for level in levels if level), seeds, shlex.join([*PROGRAM, *typed]))


def _parser() -> Parser:
    parser = Parser(
        prog=" ".join(PROGRAM),
        usage=f"{' '.join(PROGRAM)} [--dataset NAME ...] [--methods WORD ...] [--teacher NAME] [--seeds N] [flags]",
        description="Train students by several methods on the same data, seeds, splits and teachers, and compare them.",
        epilog=f"Groups of options for --set: {' '.join(GROUPS)}; one of a method concerns the methods that have it. "
        "Exit code: 0 all trained, 1 some failed (the tables say why), 2 a mistake, 130 Ctrl-C, 143 SIGTERM.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    short = {name: flag for flag, name in SHORT.items()}
    for name, (metavar, text) in LISTS.items():
        flags = [f"--{one}" for one in (name, short[name])]
        parser.add_argument(*flags, dest=name, metavar=metavar, nargs="+", action="extend", help=text)
    for name, (metavar, text) in WORDS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    for name, (low, text) in NUMBERS.items():
        parser.add_argument(f"--{name}", metavar="N", type=whole(low), help=text)
    parser.add_argument("--config", metavar="FILE", help="a YAML file: the flags' names, and groups of options")
    words = "options, as in --set student.width=64 train.lr=.01"
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", help=words)
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_")


def _tree(pairs: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        group, dot, option = _canonical(path).partition(".")
        if not equals or not dot or group not in GROUPS or not option:
            raise UserError(f"--set {pair}: it must be group.option=value, with a group of {', '.join(GROUPS)}")
        tree.setdefault(group, {})[option] = yaml_file.value(text, f"--set {pair}")
    return tree


def _sorted(tree: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Values and groups of options of one source."""
    values: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for key, value in tree.items():
        name = _canonical(str(key))
        if name in GROUPS and isinstance(value, Mapping):
            groups[name] = {_canonical(str(option)): v for option, v in value.items()}
            continue
        name = SHORT.get(name, name)
        if name not in {*LISTS, *WORDS, *NUMBERS, *SWITCHES}:
            raise unknown(f"key in {where}:", str(key), [*LISTS, *WORDS, *NUMBERS, *SWITCHES, *GROUPS])
        values[name] = _checked(name, value, where)
    return values, groups


def _checked(name: str, value: Any, where: str) -> Any:
    """A value of the kind that its flag has."""
    if name in LISTS:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
            raise UserError(f"{where}: {name} is {value!r}; it must be words")
        return items
    if name in NUMBERS and (isinstance(value, bool) or not isinstance(value, int) or value < NUMBERS[name][0]):
        raise UserError(f"{where}: {name} is {value!r}; it must be a whole number from {NUMBERS[name][0]} on")
    if name in SWITCHES and not isinstance(value, bool):
        raise UserError(f"{where}: {name} is {value!r}; it must be true or false")
    if name in WORDS and name not in ("seed", "seeds", "jobs") and (not isinstance(value, str) or not value):
        raise UserError(f"{where}: {name} is {value!r}; it must be a word")
    return value
