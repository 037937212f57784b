"""What the command line says about results and missing teachers; every accuracy comes with its protocol."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.places import BEST_ON_TEST, LAST
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
    """The result of one seed: test accuracy with what it is made of or beside, and how it was come by."""
    parts = [f"{part} {result[f'test_acc_{part}']:.2%}" for part in PARTS if f"test_acc_{part}" in result]
    made_of = f" ({', '.join(parts)})" if parts else ""
    validated = "" if result["val_acc"] is None else f"validation {result['val_acc']:.2%}, "
    return (
        f"{_name(result)}, seed {result['seed']}: test {result['test_acc']:.2%}{made_of}{_beside(result)}, "
        f"{validated}{result['n_parameters']:,} parameters, {result['seconds']:.1f} s "
        f"({folder})"
    )


def _beside(result: Mapping[str, Any]) -> str:
    """Of images: which epoch's the test accuracy is, and those of other epochs."""
    if LAST not in result:
        return ""
    if result["val_acc"] is None:
        said = " after the last epoch (nothing validates)"
    else:
        said = f" (best by validation), {result[LAST]:.2%} after the last epoch"
    if BEST_ON_TEST in result:
        said += f", best on test {result[BEST_ON_TEST]:.2%} (for comparison with the literature only)"
    return said


def mean(results: Sequence[Mapping[str, Any]]) -> str:
    """The mean of two or more seeds."""
    found = [f"test {_spread(results, 'test_acc')}"]
    for key, words in ((LAST, "after the last epoch"), (BEST_ON_TEST, "best on test")):
        found += [f"{words} {_spread(results, key)}"] if all(key in result for result in results) else []
    return f"{_name(results[0])}, {len(results)} seeds: {', '.join(found)} (mean, standard deviation with ddof 1)"


def _spread(results: Sequence[Mapping[str, Any]], key: str) -> str:
    accuracies = [result[key] for result in results]
    return f"{statistics.fmean(accuracies):.2%} +- {statistics.stdev(accuracies):.2%}"


def teacher_command(request: Request, seeds: list[int], *, resume: bool) -> str:
    """The command that trains the teachers of these seeds as `request` wants them."""
    config = request.config
    words = ["--dataset", config.dataset, "--teacher_model", config.teacher_model, "--mode", "tea"]
    words += ["--seed", str(seeds[0])] if len(seeds) == 1 else ["--seeds", ",".join(map(str, seeds))]
    words += ["--split", config.split] if config.split else []
    words += ["--setting", config.setting] if config.setting != "tran" else []
    words += ["--data_root", request.data_root] if request.data_root else []
    words += ["--out", str(request.out)] if str(request.out) != "runs" else []
    words += config.teacher_arguments()
    words += ["--resume"] if resume else []
    return f"python -m gnnkd.main {shlex.join(words)}"
