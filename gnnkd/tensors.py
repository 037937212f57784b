"""Flat dictionaries of tensors, as checkpoints hold them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose name starts with `prefix`, without it."""
    return {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}


def listed(tensors: Mapping[str, Tensor], prefix: str, suffix: str = "") -> list[Tensor]:
    """The entries `prefix0suffix`, `prefix1suffix`, ... up to the first that is missing."""
    found: list[Tensor] = []
    while (key := f"{prefix}{len(found)}{suffix}") in tensors:
        found.append(tensors[key])
    return found
