"""What the smaller commands share with the main one: flags as people type them, and what a command's end says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from gnnkd.errors import UserError, unknown


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are the user's, in one line; dashes are underscores, and a flag's case is the same."""

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise UserError(message)

    def understood(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The values that a command line gives; None takes the program's own.

        Raises:
            UserError: an unknown flag, with the nearest match, a value for a switch, or a word too many.
        """
        tokens = [_plain(token) for token in (sys.argv[1:] if argv is None else argv)]
        for token in tokens:
            flag, equals, value = token.partition("=")
            if equals and flag in self._option_string_actions and self._option_string_actions[flag].nargs == 0:
                raise UserError(f"{flag} is a switch and takes no value ('{value}'); say {flag} alone, or leave it out")
        found, rest = self.parse_known_args(tokens)
        if rest:
            flags = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
            if rest[0].startswith("-"):
                raise unknown("flag", rest[0].split("=")[0].lstrip("-"), flags)
            raise UserError(f"unexpected argument '{rest[0]}'; options are given as --name value")
        return found

    def add_flags(
        self,
        words: Mapping[str, tuple[str, str]],
        numbers: Mapping[str, tuple[int, str]],
        switches: Mapping[str, str],
        *,
        short: Mapping[str, str] | None = None,
        options: str,
    ) -> None:
        """Add flags by their names.

        Args:
            words: what stands for the value, and help.
            numbers: the least whole number, and help.
            switches: help.
            short: other names of some of the words.
            options: help of `--set`, which takes KEY=VALUE any number of times.
        """
        for name, (metavar, text) in words.items():
            names = [f"--{one}" for one in (name, (short or {}).get(name)) if one]
            self.add_argument(*names, dest=name, metavar=metavar, help=text)
        for name, (low, text) in numbers.items():
            self.add_argument(f"--{name}", metavar="N", type=whole(low), help=text)
        self.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", help=options)
        for name, text in switches.items():
            self.add_argument(f"--{name}", action="store_true", help=text)


def _plain(token: str) -> str:
    if not token.startswith("--"):
        return token
    name, equals, value = token[2:].partition("=")
    return f"--{name.lower().replace('-', '_')}{equals}{value}"


def whole(low: int) -> Callable[[str], int]:
    """A type for a flag: whole numbers from `low` on."""

    def number(said: str) -> int:
        try:
            found = int(said)
        except ValueError:
            found = low - 1
        if found < low:
            raise argparse.ArgumentTypeError(f"{said!r} is no whole number from {low} on")
        return found

    return number


def answered(work: Callable[[], Any], *, again: str = "") -> int:
    """Do a command's work and return its exit code: 0, 2 (a user's mistake, said in one line) or 130 (Ctrl-C).

    `again` says what an interrupted one does next, if there is something to say.
    """
    try:
        work()
    except SystemExit as done:  # --help
        return int(done.code or 0)
    except UserError as mistake:
        print(f"gnnkd: error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gnnkd: interrupted{'; ' * bool(again)}{again}", file=sys.stderr)
        return 130
    return 0
