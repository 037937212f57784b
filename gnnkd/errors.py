"""A user's mistake, said in one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in flags, files or data: one line that names the value, the constraint and the way out."""


class Unfit(UserError):  # noqa: N818
    """What is spelt well and cannot go together: a method and a student, batches, or what teaches."""


def unknown(what: str, word: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the allowed ones and the nearest match."""
    names = sorted(allowed)
    near = difflib.get_close_matches(word.lower(), names, n=len(names) or 1, cutoff=0.5)
    # Of the near ones, letters in another order are the likeliest slip, and similarity does not see it.
    near = sorted(near, key=lambda name: sorted(name) != sorted(word.lower()))
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return UserError(f"unknown {what} '{word}'; allowed: {', '.join(names)}{hint}")
