"""The command line of latencies: which networks, on what, and how much is measured."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, final

from gnnkd.arguments import Parser
from gnnkd.errors import UserError, unknown
from gnnkd.flags import SHORT, VALUES
from gnnkd.latency import ENGINES, REPEATS, SECONDS

if TYPE_CHECKING:
    from gnnkd.request import Request

PROGRAM = ("python", "-m", "gnnkd.latency")
TAKEN = (
    "dataset",
    "split",
    "setting",
    "teacher_model",
    "student_model",
    "method",
    "seed",
    "data_root",
    "out",
    "tag",
    "device",
)
"""Flags of `gnnkd.main` that say which networks on what; they mean the same here."""
OWN = {
    "sizes": ("LIST", "how many nodes are asked about at once, separated by commas (1,10,1000,all)"),
    "engines": ("LIST", "what runs a student that looks at rows alone: eager, compiled, onnx (all of them)"),
}
NUMBERS = {
    "repeats": (1, "timed answers for each size (50)"),
    "threads": (1, "of the processor, at most as many as it has cores (1)"),
    "seconds": (1, "for each size, after which three repeats will do (60)"),
    "memory": (1, "MiB that an answer may take (half of what is free)"),
}
SWITCHES = {
    "untrained": "time networks of these sizes with the weights that they begin with; no run is needed",
    "quiet": "print the table only",
}


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured, checked.

    Args:
        request: the networks and their data, as `gnnkd.main` understands them.
        sizes: numbers of nodes, None for all.
        engines: among `ENGINES`.
        repeats: timed answers.
        seconds: for each size.
        threads: of the processor.
        memory: bytes, None for half of what is free.
        untrained: whether fresh networks are made.
        words: of a command of `gnnkd.main` that is about the same networks.
        command: as it was typed.
    """

    request: Request
    sizes: tuple[int | None, ...]
    engines: tuple[str, ...]
    repeats: int
    seconds: float
    threads: int
    memory: int | None
    untrained: bool
    words: tuple[str, ...]
    command: str


def parse(argv: Sequence[str] | None) -> Asked:
    """Understand a command line.

    Raises:
        UserError: an unknown flag, name, option or value.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    said = vars(_parser().understood(argv))
    sizes, engines = _sizes(said.get("sizes", "1,10,1000,all")), _engines(said.get("engines", ",".join(ENGINES)))
    from gnnkd.config import parse as understood

    words = _words(said)
    request = understood([*words, *(["--quiet"] if said.get("quiet") else [])])
    asked = Asked(
        request=request,
        sizes=sizes,
        engines=engines,
        repeats=said.get("repeats", REPEATS),
        seconds=float(said.get("seconds", SECONDS)),
        threads=said.get("threads", 1),
        memory=said["memory"] << 20 if "memory" in said else None,
        untrained=said.get("untrained", False),
        words=tuple(words),
        command=shlex.join([*PROGRAM, *typed]),
    )
    _check(asked)
    return asked


def _parser() -> Parser:
    parser = Parser(
        prog=" ".join(PROGRAM),
        usage=f"{' '.join(PROGRAM)} [--dataset NAME] [--teacher NAME] [--student NAME] [--method NAME] [flags]",
        description="Milliseconds of an answer about some nodes and about all: a finished teacher against its student.",
        epilog="Exit code: 0 measured, 2 a mistake in the command, 130 after Ctrl-C.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    said = {**{name: VALUES[name] for name in TAKEN}, **OWN}
    short = {name: flag for flag, name in SHORT.items()}
    words = "options, as in --set teacher.width=256 student.width=1024 for --untrained, or data.graph=knn"
    parser.add_flags(said, NUMBERS, SWITCHES, short=short, options=words)
    return parser


def _words(said: Mapping[str, Any]) -> list[str]:
    """What is said of networks and data, as arguments of `gnnkd.main`."""
    words = [f"--{name}={said[name]}" for name in TAKEN if name in said]
    return [*words, *(["--set", *said["set"]] if said.get("set") else [])]


def _sizes(text: str) -> tuple[int | None, ...]:
    found: list[int | None] = []
    for word in _split("sizes", text):
        if word.lower() == "all":
            found.append(None)
        elif word.isdecimal() and int(word) >= 1:
            found.append(int(word))
        else:
            near = " (did you mean 'all'?)" if get_close_matches(word.lower(), ["all"], cutoff=0.5) else ""
            raise UserError(f"--sizes has '{word}'; it must be numbers of nodes from 1 on, and the word all{near}")
    return tuple(dict.fromkeys(found))


def _engines(text: str) -> tuple[str, ...]:
    found = [word.lower() for word in _split("engines", text)]
    for word in found:
        if word not in ENGINES:
            raise unknown("engine", word, ENGINES)
    return tuple(dict.fromkeys(found))


def _split(flag: str, text: str) -> list[str]:
    found = [word for word in text.replace(",", " ").split() if word]
    if not found:
        raise UserError(f"--{flag} is empty; leave it out, or say which")
    return found


def _check(asked: Asked) -> None:
    """Refuse what is of images or of a training, and more threads than there are cores.

    Raises:
        UserError: it is.
    """
    from gnnkd.graph_config import Config

    cores = os.cpu_count() or 1
    if asked.threads > cores:  # they would wait for each other, and a system may not even have room for them
        raise UserError(f"--threads is {asked.threads}, and this machine has {cores} cores; say 1 to {cores}")
    config = asked.request.config
    if not isinstance(config, Config):
        raise UserError(f"'{config.dataset}' is of images here, and latencies are of graphs' networks; choose a graph")
    trained = {name for name in config.given if name.partition(".")[0] not in ("data", "generators")}
    trained -= {"method.base"}
    if trained and not asked.untrained:
        first = min(trained)
        raise UserError(
            f"{first} is given, and finished networks have the sizes that they were trained with; leave it out, name "
            "another run with --tag, or add --untrained"
        )
