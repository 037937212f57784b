"""The command line of learning without labels: what each source says, put together and checked."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd import yaml_file
from gnnkd.arguments import Parser
from gnnkd.errors import UserError, unknown
from gnnkd.selfsup.presets import GROUPS

if TYPE_CHECKING:
    from gnnkd.selfsup.config import Plan

WORDS = {
    "dataset": ("NAME", "digits, cifar10, cifar100, tiny-imagenet, or a folder of class folders (digits)"),
    "method": ("NAME", "simclr, moco, simsiam, byol, barlow, swav, dino (simclr)"),
    "models": ("NAMES", "networks, as resnet32,wrn_28_2; the first one counts, the others help it (by dataset)"),
    "gates": ("WORDS", "between networks: one word, or rows as through,positive/negative,through (through)"),
    "epochs": ("N", "passes over the images; short for train.epochs"),
    "split": ("NAME", "public, given, random (the first of these that the data has)"),
    "val_fraction": ("X", "share of the training images that validate, up to 0.5 (0.1)"),
    "seed": ("K", "one seed, for split, views and initialisation (0)"),
    "seeds": ("N", "seeds 0 to N-1; also 10-19 or 3,5,7"),
    "data_root": ("DIR", "folder of the raw data ($GNNKD_DATA, or a cache folder of yours)"),
    "out": ("DIR", "folder of the results (runs)"),
    "tag": ("NAME", "keeps a second configuration beside the first"),
    "device": ("NAME", "auto, cpu, cuda (auto)"),
}
SHORT = {"epochs": ("train", "epochs"), "val_fraction": ("data", "val_fraction")}
"""Flags that are short for an option of a group."""
SWITCHES = {
    "resume": "continue an interrupted run",
    "overwrite": "run again what is there already",
    "quiet": "print the results only",
    "tensorboard": "write TensorBoard's files beside the results (pip install 'gnnkd[log]')",
}


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be done, checked."""

    plan: Plan
    seeds: tuple[int, ...]
    data_root: str | None
    out: Path
    tag: str | None
    device: str
    resume: bool
    overwrite: bool
    quiet: bool
    tensorboard: bool


def parse(argv: Sequence[str] | None) -> Asked:
    """Understand a command line; flags beat `--set`, which beats the file.

    Raises:
        UserError: an unknown flag, name, option or value, or a broken file.
    """
    said = vars(_parser().understood(argv))
    file, pairs = said.pop("config", None), said.pop("set", [])
    sources = [(yaml_file.read(Path(file)), str(file))] if file else []
    sources += [(_tree(pairs), "--set"), (said, "the command line")]
    values: dict[str, Any] = {}
    levels: list[dict[str, dict[str, Any]]] = []
    seeds: dict[str, Any] = {}
    for tree, where in sources:
        mine, groups = _sorted(tree, where)
        if mine.keys() & {"seed", "seeds"}:
            seeds = {name: mine[name] for name in ("seed", "seeds") if name in mine}
        values |= mine
        levels.append(groups)
    return _asked(values, levels, seeds or {"seed": 0})


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gnnkd.selfsup",
        usage="python -m gnnkd.selfsup [--dataset NAME] [--method NAME] [--models NAMES] [flags]",
        description="Learn from images without labels; nearest neighbours say what has been learnt.",
        epilog=f"Groups of options: {' '.join(GROUPS)}. An unknown option is answered with those that there are.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for name, (metavar, text) in WORDS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--config", metavar="FILE", help="a YAML file: the flags' names, and groups of options")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", action="extend", help="options, as in --set train.lr=.5 views.hue=0"
    )
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def _tree(pairs: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        group, dot, option = path.lower().replace("-", "_").partition(".")
        if not equals or not dot or group not in GROUPS or not option:
            raise UserError(f"--set {pair}: it must be group.option=value, with a group of {', '.join(GROUPS)}")
        tree.setdefault(group, {})[option] = yaml_file.value(text, f"--set {pair}")
    return tree


def _sorted(tree: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Values and groups of options of one source."""
    values: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for key, value in tree.items():
        name = str(key).lower().replace("-", "_")
        if name in GROUPS and isinstance(value, Mapping):
            options = {str(option).lower().replace("-", "_"): v for option, v in value.items()}
            groups[name] = {**groups.get(name, {}), **options}
        elif name in SHORT:
            group, option = SHORT[name]
            said = yaml_file.value(value, f"{where}: {name}") if isinstance(value, str) else value
            groups.setdefault(group, {})[option] = said
        elif name in WORDS or name in SWITCHES:
            values[name] = value
        elif name in GROUPS:
            raise UserError(f"{where}: {name} is {value!r}; it must be a mapping of options")
        else:
            raise unknown(f"key in {where}:", str(key), list(dict.fromkeys([*WORDS, *SWITCHES, *GROUPS])))
    return values, groups


def _asked(values: Mapping[str, Any], levels: Sequence[Mapping[str, Any]], seeds: Mapping[str, Any]) -> Asked:
    from gnnkd.options import DEVICES, word
    from gnnkd.places import checked_tag
    from gnnkd.request import seeds_of
    from gnnkd.selfsup.config import resolve

    _check_kinds(values)
    if values.get("resume") and values.get("overwrite"):
        raise UserError("--resume continues what is there, and --overwrite removes it; give one of them")
    names = {name: values[name] for name in ("dataset", "split", "method") if name in values}
    if "models" in values:
        names["models"] = _listed(values["models"], ",")
    if "gates" in values:
        names["gates"] = _gates(values["gates"])
    return Asked(
        plan=resolve(**names, levels=levels),
        seeds=seeds_of(seeds),
        data_root=values.get("data_root"),
        out=Path(values.get("out", "runs")),
        tag=checked_tag(values["tag"]) if "tag" in values else None,
        device=word("device", values.get("device", "auto"), DEVICES),
        **{name: values.get(name, False) for name in SWITCHES},
    )


def _check_kinds(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in SWITCHES and not isinstance(value, bool):
            raise UserError(f"{name} is {value!r}; it must be true or false")
        lists = name in ("models", "gates", "seeds", "seed")
        if name in WORDS and not lists and not (isinstance(value, str) and value):
            raise UserError(f"{name} is {value!r}; it must be a word")


def _listed(said: Any, sign: str) -> tuple[str, ...]:
    items = said.split(sign) if isinstance(said, str) else said
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item.strip() for item in items):
        raise UserError(f"{said!r} is no list of words; separate them with '{sign}'")
    return tuple(item.strip().lower() for item in items)


def _gates(said: Any) -> Any:
    """One word, or rows of words; the number of rows is checked where the networks are known."""
    rows = said.split("/") if isinstance(said, str) else said
    if isinstance(said, str) and "," not in said and "/" not in said:
        return said.strip().lower()
    if not isinstance(rows, list):
        raise UserError(f"gates is {said!r}; it must be a word, or a list of rows")
    return tuple(_listed(row, ",") for row in rows)
