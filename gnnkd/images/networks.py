"""Names of image networks as people type them, and the networks that they stand for at a size of images."""

from __future__ import annotations

from functools import cache

import torch

from gnnkd import options
from gnnkd.errors import UserError, unknown
from gnnkd.nn import MODELS
from gnnkd.nn.images import LARGE, NAMES, SMALL, TINY, Constructor, ImageNetwork, family

FAMILIES = {"up to 32 pixels": SMALL, "33 to 64 pixels": TINY, "more than 64 pixels": LARGE}
"""By the images that they are laid out for, in words."""

ALIASES = {"wideresnet28_2": "wrn_28_2"}
"""Networks by names that others gave them: KTG."""


def known(said: str) -> str | None:
    """The network that a word stands for: case, dashes, underscores and the syllable `net` make no difference."""
    return _by_word().get(_word(said))


@cache
def _by_word() -> dict[str, str]:
    return {_word(name): name for name in NAMES} | {_word(other): name for other, name in ALIASES.items()}


def _word(said: str) -> str:
    return said.lower().replace("-", "").replace("_", "").replace("net", "")


def chosen(what: str, said: object, size: int | None, *, way: str = "") -> str:
    """The name of a network that reads images.

    Args:
        what: how errors call it.
        size: height and width of the images; None where only the files can tell.
        way: out of a wrong size, for errors, beside another network.

    Raises:
        UserError: an unknown name, with the nearest match, one of a graph network, or one laid out for other sizes.
    """
    if not isinstance(said, str):
        kind = f"the class {said.__name__}" if isinstance(said, type) else f"a {type(said).__name__}"
        raise UserError(f"{what} is {kind}; on images give the name of a network")
    there = NAMES if size is None else frozenset(family(size))
    name = known(said)
    if name in there:
        return name
    if said.lower() in MODELS:
        raise UserError(f"{what} '{said}' reads graphs, and this dataset has images; choose one of {_listed(there)}")
    if name is not None:
        fits = ", ".join(pixels for pixels, networks in FAMILIES.items() if name in networks)
        raise UserError(
            f"{what} '{said}' is laid out for images of {fits}, and these have {size}; choose one of "
            f"{_listed(there)}{way}"
        )
    raise unknown(what, said, there)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def constructor(name: str, size: int | None) -> Constructor:
    """The constructor of a network at a size of images; where that is open, of the largest that has the name."""
    if size is not None:
        return family(size)[name]
    return next(networks[name] for networks in (LARGE, TINY, SMALL) if name in networks)


def options_of(name: str, size: int | None) -> dict[str, options.Option]:
    """The options of a network's constructor."""
    return options.of(constructor(name, size))


def built(name: str, size: int, in_channels: int, n_classes: int, given: dict[str, object]) -> ImageNetwork:
    """A fresh network for images of a size.

    Raises:
        UserError: no such network at this size, an option that it does not have, or one out of range.
    """
    chosen("network", name, size)
    options.checked("network", given, options_of(name, size))
    return constructor(name, size)(in_channels, n_classes, **given)


def tried(name: str, size: int | None, given: dict[str, object]) -> None:
    """Check the ranges of options on a network without memory; defaults need none, and torch is slow to start here.

    Raises:
        UserError: a value out of range.
    """
    if all(given[option] == known.default for option, known in options_of(name, size).items()):
        return
    with torch.device("meta"):
        constructor(name, size)(3, 2, **given)
