"""Lines of `results.jsonl` made by hand, with the histories that they name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

KINDS = {"generator": 0.8, "shuffled": 0.1, "persistence": 0.5, "generator_raw": 0.4, "persistence_raw": 0.3}


@pytest.fixture(autouse=True, scope="module")
def _no_curves() -> Iterator[None]:
    """Drawing `curves.png` takes longer than any training here, and nothing here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnnkd.results.draw", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session")
def lines() -> SimpleNamespace:
    """What makes such lines."""
    return SimpleNamespace(line=line, lost=lost, comparison=comparison)


def line(dataset: str, label: str, seed: int, **more: Any) -> dict[str, Any]:
    """A finished run of a student, or of the teacher."""
    teacher = label == "teacher"
    measures: dict[str, float] = {"ece": 0.05, "nll": 0.7 + 0.01 * seed}
    measures |= {f"robust_noise_{s}": 0.7 for s in ("0.1", "0.5", "1")}
    measures |= {f"robust_edges_{p}": 0.6 for p in ("0.1", "0.3", "0.5")}
    times = {size: {"p50": 0.1, "p95": 0.2, "n": 10} for size in ("1", "10", "1000", "all")}
    costs: dict[str, Any] = {"n_parameters": 1234, "hops": 2 * teacher, "macs": 1000.5, "latency_ms": times, "of": "0f"}
    if teacher:
        costs["fetch_ms"] = {size: {"p50": 3.0, "p95": 4.0, "n": 10} for size in ("1", "10", "1000")}
    found = {
        "status": "finished",
        "reason": None,
        "dataset": dataset,
        "protocol": "cpf",
        "setting": "tran",
        "teacher_model": "gcn",
        "student_model": None if teacher else "mlp",
        "label": label,
        "method": label,
        "base": None,
        "options": {},
        "tuned": 0,
        "needs": ["features", *(["edges"] if teacher else [])],
        "seed": seed,
        "folder": None,
        "test_acc": 0.8,
        "val_acc": 0.81,
        "n_parameters": 1234,
        "seconds": 2.0,
        "commit": "abc",
        "versions": {"gnnkd": "0.1.0"},
        "measures": measures | ({} if teacher else {"agreement": 0.9, "kl_teacher": 0.2}),
        "costs": costs if seed == 0 else {},
    }
    return {**found, **more}


def lost(dataset: str, label: str, seed: int, status: str, reason: str, **more: Any) -> dict[str, Any]:
    """A run without a number."""
    names = ("dataset", "protocol", "setting", "teacher_model", "student_model", "label", "method", "base", "tuned")
    whole = line(dataset, label, seed, **more)
    return {"status": status, "reason": reason, "seed": seed, **{name: whole[name] for name in names}}


def comparison(folder: Path | None = None, seeds: int = 6) -> list[dict[str, Any]]:
    """Two data sets: `up` is above glnn on both, `odd_50%` is as good; one seed of `odd_50%` and all of `no` failed."""
    found = []
    for dataset, base in (("cora", 0.8), ("cite_seer", 0.7)):
        for label, gain in (("teacher", 0.02), ("glnn", 0.0), ("up", 0.05), ("odd_50%", 0.001)):
            for seed in range(seeds):
                sign = 1 if label != "odd_50%" or seed % 2 else -1
                accuracy = base + 0.01 * seed + sign * gain * (1 + 0.1 * seed)
                where = None if folder is None else str(_history(folder / dataset / label / str(seed), label))
                found.append(line(dataset, label, seed, test_acc=accuracy, folder=where))
        found += [lost(dataset, "no", seed, "impossible", "no teaches <images> & 50% |x|") for seed in range(seeds)]
    at = next(i for i, row in enumerate(found) if row["dataset"] == "cora" and row["label"] == "odd_50%")
    found[at] = lost("cora", "odd_50%", 0, "failed", "killed by signal 9")
    return found


def _history(folder: Path, label: str) -> Path:
    rows: list[dict[str, float]] = []
    for epoch in range(30):
        row: dict[str, float] = {"epoch": epoch, "val_acc": 0.5 + 0.01 * epoch, "ce": 1.0}
        if label == "teacher":
            row |= {f"imitation/layers.0.lin.weight/{kind}": value for kind, value in KINDS.items()}
        if label == "up":
            row["bias/layers.0.weight"] = 0.2
        rows.append(row)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
