"""The files of experiments/together: each is a graph that can be trained, and says at its head how."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import Spec
from gnnkd.yaml_file import read

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments" / "together").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_a_graph_and_its_head_tells_how_to_run_it(file: Path) -> None:
    head = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    assert head[0].startswith(f"python -m gnnkd.together {file.relative_to(ROOT)} --seeds ")
    for word in ("Expected: ", "Seeds: ", "Runtime: "):
        assert word in " ".join(head)
    spec = Spec.of(read(file))
    assert spec.lack() is None
    assert planned(spec, 0)


def test_the_published_graph_is_as_published() -> None:
    spec = Spec.of(read(ROOT / "experiments" / "together" / "cifar100-dcl.yaml"))
    assert [node.model for node in spec.nodes] == ["resnet32", "resnet32", "resnet110"]
    letters = "/".join("".join(gate[0].upper() for gate in row) for row in spec.gates)
    assert letters == "PPP/CNT/TCT"
