"""The command line and the configuration file: what the user said, put together into a request.

Flags beat `--set`, which beats the file, which beats presets and defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, final

from gnnkd import yaml_file
from gnnkd.errors import UserError, unknown
from gnnkd.options import DEVICES, GROUPS

if TYPE_CHECKING:
    from gnnkd.run import Config

MODES = ("tea", "stu", "tea/stu")
SHORT = {"teacher": "teacher_model", "student": "student_model"}
NAMED = {"teacher": "teacher_model", "student": "student_model", "method": "method"}
"""Groups that are also names: `method: kd`, or `method: {name: kd, alpha: 0.5}`."""

VALUES = {
    "dataset": ("NAME", "cora, citeseer, pubmed, amazon-photo, digits, or the path of a graph's .npz file (digits)"),
    "teacher_model": ("NAME", "gcn, sage, mlp (gcn); short: --teacher"),
    "student_model": ("NAME", "mlp, gcn, sage (mlp); short: --student"),
    "method": ("NAME", "dgd, glnn, kd, supervised (dgd)"),
    "mode": ("MODE", "tea trains the teacher, stu the student, tea/stu both (tea/stu)"),
    "split": ("NAME", "public, given, cpf, random (the first of these that the data has)"),
    "setting": ("NAME", "tran: every node is seen in training (tran)"),
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
}


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be done, checked."""

    config: Config
    mode: str
    seeds: tuple[int, ...]
    data_root: str | None
    out: Path
    tag: str | None
    device: str
    resume: bool
    overwrite: bool
    quiet: bool


@final
@dataclass
class Level:
    """What one source says: top-level values by long flag name, and groups of options."""

    values: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)


def parse(argv: Sequence[str]) -> Request:
    """Understand a command line.

    Raises:
        UserError: an unknown flag, name, option or value, a broken file, or contradicting flags.
    """
    said = vars(_parser().parse_args([_plain(token) for token in argv]))
    file, pairs = said.pop("config", None), said.pop("set", [])
    flags = level(said, "the command line")
    levels = [level(yaml_file.read(Path(file)), file)] if file else []
    levels += [level(_tree(pairs), "--set"), flags]
    return _request(levels)


# -- sources ---------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are the user's, in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            flags = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
            if rest[0].startswith("-"):
                raise unknown("flag", rest[0].split("=")[0].lstrip("-"), flags)
            raise UserError(f"unexpected argument '{rest[0]}'; options are given as --name value")
        return found


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gnnkd",
        usage="python -m gnnkd.main [--dataset NAME] [--mode tea|stu|tea/stu] [--method NAME] [flags]",
        description="Train a graph network as a teacher, and distil it into a small student.",
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


def _plain(token: str) -> str:
    """A flag with its dashes as underscores, in lower case; other tokens, and what follows `=`, as they are."""
    if not token.startswith("--"):
        return token
    name, equals, value = token[2:].partition("=")
    return f"--{_canonical(name)}{equals}{value}"


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
    for name, target in NAMED.items():
        if "name" in found.groups.get(name, {}):
            _put(found.values, target, found.groups[name].pop("name"), where)
    return found


def _put(values: dict[str, Any], name: str, value: Any, where: str) -> None:
    if values.get(name, value) != value:
        raise UserError(f"{where} says {name} twice: {values[name]!r} and {value!r}")
    values[name] = value


# -- the request -----------------------------------------------------------------------------------------------


def _request(levels: list[Level]) -> Request:
    from gnnkd import run
    from gnnkd.options import word
    from gnnkd.places import checked_tag

    values: dict[str, Any] = {}
    seeds: tuple[int, ...] = (0,)
    for one in levels:
        if "seed" in one.values or "seeds" in one.values:
            seeds = _seeds(one.values)
        values |= one.values
    for name in VALUES:
        if name in values and name not in ("seed", "seeds") and not isinstance(values[name], str):
            raise UserError(f"{name} is {values[name]!r}; it must be a word")
        if values.get(name) == "":
            raise UserError(f"{name} is empty; leave it out, or say which")
    for name in SWITCHES:
        if not isinstance(values.get(name, False), bool):
            raise UserError(f"{name} is {values[name]!r}; it must be true or false")
    names = ("dataset", "split", "setting", "teacher_model", "student_model", "method")
    mode = word("mode", values.get("mode", "tea/stu"), MODES)
    device = word("device", values.get("device", "auto"), DEVICES)
    tag = checked_tag(values["tag"]) if "tag" in values else None
    config = run.resolve(**{n: values[n] for n in names if n in values}, levels=tuple(one.groups for one in levels))
    return Request(
        config=config,
        mode=mode,
        seeds=seeds,
        data_root=values.get("data_root"),
        out=Path(values.get("out", "runs")),
        tag=tag,
        device=device,
        resume=values.get("resume", False),
        overwrite=values.get("overwrite", False),
        quiet=values.get("quiet", False),
    )


def _seeds(values: Mapping[str, Any]) -> tuple[int, ...]:
    """`seed: 3`, or `seeds` as a number N (0 to N-1), a range "10-19", or a list "3,5,7"."""
    from gnnkd.options import seed

    if "seed" in values and "seeds" in values:
        raise UserError("--seed and --seeds contradict each other; give one of them")
    if "seed" in values:
        return (seed(_number(values["seed"])),)
    said = values["seeds"]
    items = said if isinstance(said, list) else str(said).split(",")
    if len(items) > 1 or isinstance(said, list):
        return tuple(dict.fromkeys(seed(_number(item)) for item in items)) or _no_seeds(said)
    low, dash, high = str(said).partition("-")
    first, last = (_number(low), _number(high)) if low and dash else (0, _number(said))
    if not isinstance(first, int) or not isinstance(last, int):
        return _no_seeds(said)
    last = last if low and dash else last - 1
    if not 0 <= first <= last or last - first >= 100_000:
        return _no_seeds(said)
    return tuple(seed(k) for k in range(first, last + 1))


def _no_seeds(said: Any) -> NoReturn:
    raise UserError(f"seeds is {said!r}; it must be a number from 1 on, a range as 10-19, or a list as 3,5,7")


def _number(said: Any) -> Any:
    """The whole number in a word from the command line; everything else as it is."""
    try:
        return int(said) if isinstance(said, str) else said
    except ValueError:
        return said
