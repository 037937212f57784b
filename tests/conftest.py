"""What every test stands on: shapes in annotations are checked, and torch uses one thread."""

from __future__ import annotations

import signal
import sys
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping
import pytest
import typing_extensions

# The rooms where tensors live. Above them, annotations name classes that are imported late, for a fast --help.
ROOMS = (
    "batching",
    "compare.costs",
    "compare.fetch",
    "compare.latency",
    "compare.macs",
    "compare.measures",
    "compare.statistics",
    "data",
    "distillers",
    "export",
    "graph",
    "images",
    "latency.answers",
    "latency.contenders",
    "latency.engines",
    "latency.measuring",
    "latency.neighbourhoods",
    "latency.rows",
    "learning",
    "logits",
    "metrics",
    "models",
    "nn",
    "optimizers",
    "predictor",
    "results",
    "scores",
    "selfsup",
    "stage_room",
    "stages",
    "train",
    "types",
)

# jaxtyping hands over one method at a time, where beartype cannot know what Self is; it counts as any object there.
# An int is a float, as type checkers have it.
_CONF = beartype.BeartypeConf(
    hint_overrides=beartype.FrozenDict({typing_extensions.Self: object}), is_pep484_tower=True
)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with arguments and result checked; protocols beside it are made checkable, by their members' names."""
    for value in list(vars(sys.modules[function.__module__]).values()):
        if isinstance(value, type) and value is not typing.Protocol and getattr(value, "_is_protocol", False):
            typing.runtime_checkable(value)
    return beartype.beartype(conf=_CONF)(function)


# Before the first import of the package: every call of a function is checked from here on.
sys.modules["gnnkd_conftest"] = sys.modules[__name__]
jaxtyping.install_import_hook([f"gnnkd.{room}" for room in ROOMS], "gnnkd_conftest.checked")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """One thread: sums in one order, and no quarrel between two test processes."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive() -> None:
    """A process in a script's background inherits "ignore" for Ctrl-C; the tests send it to themselves."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
