"""Work shared by processes: order, failures, a process that is killed, an interrupt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gnnkd.compare.pool import Outcome, Pool, _Queue
from gnnkd.errors import UserError


@dataclass(frozen=True)
class Deed:
    """Something to do."""

    key: str
    what: str = "add"
    after: str | None = None
    group: tuple[Hashable, ...] = ()
    file: Path | None = None

    @property
    def title(self) -> str:
        return f"the deed {self.key}"

    def do(self, kept: dict[Any, Any]) -> Any:
        if self.what == "refuse":
            raise UserError("it is\nrefused")
        if self.what == "break":
            raise KeyError("x")
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "wait":
            assert self.file is not None
            self.file.write_text("at work")
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                self.file.write_text("saved")
                raise
        kept["n"] = kept.get("n", 0) + 1
        import torch

        return kept["n"], torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.getpid()


def _all(pool: Pool, *deeds: Deed) -> dict[str, Outcome]:
    return {work.key: outcome for work, outcome in pool.run(deeds)}


def test_one_process_does_all_keeps_what_it_has_and_survives_what_fails() -> None:
    shown: list[list[str]] = []
    before = dict(os.environ)
    with Pool(1, lambda titles: shown.append(list(titles))) as pool:
        first = _all(pool, Deed("b", after="a"), Deed("a"), Deed("c", "refuse"), Deed("d", after="c"))
        assert list(first) == ["a", "b", "c", "d"]
        assert first["a"].value[:3] == (1, 1, "1")
        assert first["b"].value[0] == 2
        assert first["c"] == Outcome(reason="it is refused")
        assert first["d"].reason == "the deed c: it is refused"
        # A mistake leaves the process as it is; what surprises the code, or kills the process, costs the process alone.
        second = _all(pool, Deed("e"), Deed("f", "break"), Deed("g", "die"), Deed("h", after="gone"))
    assert second["e"].value[0] == 3
    assert second["e"].value[3] == first["a"].value[3]
    assert second["f"].reason == "KeyError: 'x'"
    assert "raise KeyError" in (second["f"].trace or "")
    assert second["g"].reason is not None
    assert "SIGKILL" in second["g"].reason
    assert second["h"].value[0] == 1
    assert second["h"].value[3] != first["a"].value[3]
    assert shown[0] == ["the deed a"]
    assert shown[-1] == []
    assert dict(os.environ) == before


def test_an_error_outside_makes_every_process_save_and_end(tmp_path: Path) -> None:
    file = tmp_path / "deed"

    def begun(titles: Any) -> None:
        deadline = time.monotonic() + 120
        while titles and not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if titles:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), Pool(1, begun) as pool:
        _all(pool, Deed("a", "wait", file=file))
    assert file.read_text() == "saved"
    assert not pool._team.workers


def test_a_process_goes_through_its_group_then_begins_another_then_helps() -> None:
    groups = {"a": ("x", 0), "b": ("x", 0), "c": ("x", 1), "d": ("y", 0), "e": ("y", 0)}
    queue = _Queue([Deed(key, group=group) for key, group in groups.items()])
    assert queue.take((), set()).key == "a"
    assert queue.take((), {("x", 0)}).key == "c"  # another process: what nobody is at
    assert queue.take(("x", 0), {("x", 1)}).key == "b"  # its own group first
    assert queue.take(("x", 0), {("x", 1)}).key == "d"
    assert queue.take(("x", 1), {("y", 0)}).key == "e"  # nothing else is left
    assert queue.ready() == []


def test_nothing_to_do_starts_no_process() -> None:
    with Pool(4) as pool:
        assert _all(pool) == {}
        assert pool._team.workers == []
