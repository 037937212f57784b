"""What the command line says about results and missing teachers; every accuracy comes with its protocol."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.options import plain
from gnnkd.scores import PARTS

if TYPE_CHECKING:
    from gnnkd.request import Request


def _name(result: Mapping[str, Any]) -> str:
    where = f"{result['dataset']} {result['protocol']}-{result['setting']}"
    if result["student_model"] is None:
        return f"{where} {result['teacher_model']} teacher"
    base = f"+{result['base']}" if result.get("base") else ""
    return f"{where} {result['teacher_model']} -> {result['student_model']}, {result['method']}{base}"


def line(result: Mapping[str, Any], folder: Path) -> str:
    """The result of one seed; under the inductive setting with what its test accuracy is made of."""
    parts = [f"{part} {result[f'test_acc_{part}']:.2%}" for part in PARTS if f"test_acc_{part}" in result]
    made_of = f" ({', '.join(parts)})" if parts else ""
    return (
        f"{_name(result)}, seed {result['seed']}: test {result['test_acc']:.2%}{made_of}, "
        f"validation {result['val_acc']:.2%}, {result['n_parameters']:,} parameters, {result['seconds']:.1f} s "
        f"({folder})"
    )


def mean(results: Sequence[Mapping[str, Any]]) -> str:
    """The mean of two or more seeds."""
    accuracies = [result["test_acc"] for result in results]
    return (
        f"{_name(results[0])}, {len(results)} seeds: test {statistics.fmean(accuracies):.2%} "
        f"+- {statistics.stdev(accuracies):.2%} (mean, standard deviation with ddof 1)"
    )


def teacher_command(request: Request, seeds: list[int], *, resume: bool) -> str:
    """The command that trains the teachers of these seeds as `request` wants them."""
    config = request.config
    words = ["--dataset", config.dataset, "--teacher_model", config.teacher_model, "--mode", "tea"]
    words += ["--seed", str(seeds[0])] if len(seeds) == 1 else ["--seeds", ",".join(map(str, seeds))]
    words += ["--split", config.split] if config.split else []
    words += ["--setting", config.setting] if config.setting != "tran" else []
    words += ["--data_root", request.data_root] if request.data_root else []
    words += ["--out", str(request.out)] if str(request.out) != "runs" else []
    options = _given_options(request)
    words += ["--set", *options] if options else []
    words += ["--resume"] if resume else []
    return f"python -m gnnkd.main {shlex.join(words)}"


def _given_options(request: Request) -> list[str]:
    """What the user said about data and teacher, as arguments of `--set`."""
    config = request.config
    values = {f"data.{name}": v for name, v in plain(config.data).items()}
    values |= {f"teacher.{name}": v for name, v in (plain(config.teacher) | plain(config.teacher_train)).items()}
    generators = plain(config.generators) or {}
    values |= {f"method.{name}": v for name, v in generators.items() if f"generators.{name}" in config.given}
    return [f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items() if key in config.given]
