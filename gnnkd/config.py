"""The command line and the configuration file: what each source says, in one form, to be put together.

Flags beat `--set`, which beats the file, which beats presets and defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gnnkd import yaml_file
from gnnkd.arguments import Parser
from gnnkd.errors import UserError, unknown
from gnnkd.flags import NAMED, OPTIONS, SHORT, SWITCHES, VALUES
from gnnkd.options import GROUPS
from gnnkd.request import Level, Request, request


def parse(argv: Sequence[str]) -> Request:
    """Understand a command line.

    Raises:
        UserError: an unknown flag, name, option or value, a broken file, or contradicting flags.
    """
    said = vars(_parser().understood(argv))
    file, pairs = said.pop("config", None), said.pop("set", [])
    flags = level(said, "the command line")
    levels = [replace(level(yaml_file.read(Path(file)), file), file=True)] if file else []
    levels += [level(_tree(pairs), "--set"), flags]
    return request(levels)


# -- sources ---------------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="gnnkd",
        usage="python -m gnnkd.main [--dataset NAME] [--mode tea|stu|tea/stu] [--method NAME] [flags]",
        description="Train a network of graphs or images as a teacher, and distil it into a small student.",
        epilog="Groups of options: data teacher student method train; `train.X` sets both stages. An unknown option is "
        "answered with those that there are.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"gnnkd {_version()}")
    short = {name: flag for flag, name in SHORT.items()}
    for name, (metavar, text) in VALUES.items():
        flags = [f"--{name}", *([f"--{short[name]}"] if name in short else [])]
        parser.add_argument(*flags, dest=name, metavar=metavar, help=text)
    parser.add_argument("--config", metavar="FILE", help="a YAML file: the flags' names, and groups of options")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        help="options, as in --set student.width=64 train.lr=.01",
    )
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gnnkd")
    except PackageNotFoundError:
        return "(not installed)"


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_")


def _tree(pairs: Iterable[str]) -> dict[str, Any]:
    """`a.b=1` pairs as a mapping of mappings; the last one wins."""
    tree: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        keys = [_canonical(key) for key in path.split(".")]
        if not equals or not all(keys) or len(keys) > 2:
            raise UserError(f"--set {pair}: it must be group.option=value, as in --set student.width=64")
        value = yaml_file.value(text, f"--set {pair}")
        if len(keys) == 1 and keys[0] in GROUPS:
            keys.append("name")
        inner = tree if len(keys) == 1 else tree.setdefault(keys[0], {})
        inner[keys[-1]] = value
    return tree


def level(tree: Mapping[str, Any], where: str) -> Level:
    """Sort what a source says into values and groups.

    Raises:
        UserError: an unknown key, with the nearest match, or a group that is no mapping.
    """
    found = Level()
    for key, value in tree.items():
        name = _canonical(str(key))
        if name in GROUPS and isinstance(value, Mapping):
            group = found.groups.setdefault(name, {})
            group.update({_canonical(str(option)): v for option, v in value.items()})
        elif name in NAMED and isinstance(value, str):
            _put(found.values, NAMED[name], value, where)
        elif name in GROUPS:
            raise UserError(f"{where}: {name} is {value!r}; it must be a mapping of options")
        elif name in VALUES or name in SWITCHES:
            _put(found.values, name, value, where)
        else:
            raise unknown(f"key in {where}:", str(key), list(dict.fromkeys([*VALUES, *SWITCHES, *GROUPS])))
    for name, (short_for, option) in OPTIONS.items():
        if name in found.values:
            said = found.values.pop(name)
            said = yaml_file.value(said, f"{where}: {name}") if isinstance(said, str) else said
            _put(found.groups.setdefault(short_for, {}), option, said, where)
    for name, target in NAMED.items():
        if "name" in found.groups.get(name, {}):
            _put(found.values, target, found.groups[name].pop("name"), where)
    return found


def _put(values: dict[str, Any], name: str, value: Any, where: str) -> None:
    if values.get(name, value) != value:
        raise UserError(f"{where} says {name} twice: {values[name]!r} and {value!r}")
    values[name] = value
