"""YAML with plain values only: no tags that run code, no key twice, `1e-3` a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, final

import yaml

from gnnkd.errors import UserError


@final
class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 takes 1e-3 for a word, since it has no dot.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def read(path: Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises:
        UserError: the file is missing, no YAML, holds no mapping, a key twice, or a tag; nothing in it is executed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"configuration {path} cannot be read ({why})") from None
    content = _load(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"configuration {path} is a {type(content).__name__}; it must be a mapping of names to values")
    return content


def value(text: str, where: str) -> Any:
    """The value that `text` stands for: a number, true or false, null, a word, or a list of such.

    Raises:
        UserError: it is none of these.
    """
    return _load(text, where)


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        text = (problem.problem or "not YAML").replace("could not determine a constructor for", "no plain value:")
        raise UserError(f"{where}{line}: {text}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise UserError(f"{where}: not YAML ({str(problem).splitlines()[0]})") from None
