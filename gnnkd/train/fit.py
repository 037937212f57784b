"""The training loop: epochs, selection of the first best one, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.errors import UserError
from gnnkd.tensors import under
from gnnkd.train import checkpoint
from gnnkd.train.course import Course
from gnnkd.train.interrupt import deferred
from gnnkd.train.settings import Loop
from gnnkd.types import Step


class Report(Protocol):
    """Whoever shows progress."""

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        """After every epoch: its number from 0, and the scalars worth showing."""

    def within(self, epoch: int, share: float) -> None:
        """Within a long epoch: how much of it is done, in [0, 1]."""


class DivergedError(UserError):
    """A loss that is not finite."""


@final
@dataclass
class Progress:
    """What a run has reached; all of it goes into a checkpoint, but `last`: the weights after the last epoch."""

    epoch: int = 0
    best_score: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    watcher_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)


@final
class Fit:
    """One course run to its end.

    Where nothing validates, the last epoch is the one that is kept. An epoch without a score (`Epoch.scored`) is never
    kept, and training does not stop early behind it.

    Args:
        course: the model and what an epoch of its training is.
        settings: how many epochs, and how often to keep them.
        file: where checkpoints go; None keeps none.
        key: what this run is, compared on resume.
    """

    def __init__(self, course: Course, settings: Loop, *, file: Path | None = None, key: str = "") -> None:
        self.course, self.settings, self.file, self.key = course, settings, file, key
        self.progress = Progress()

    @property
    def model(self) -> nn.Module:
        """What learns."""
        return self.course.model

    def run(self, report: Report | None = None) -> Progress:
        """Train to the end, or until patience is spent, and load the best weights into the model.

        A checkpoint is written every `checkpoint_every` epochs. An interrupt waits for the end of its epoch, then a
        checkpoint is written and the interrupt passed on.
        """
        p, stop = self.progress, False
        self.course.heard = None if report is None else report.within
        with deferred() as interrupted:
            while p.epoch < self.settings.epochs and not self._spent() and not stop:
                step = Step(p.epoch, self.settings.epochs)
                row = self._epoch(step)
                stop = processes.any_of(bool(interrupted()))
                if report is not None:
                    report.update(step.epoch, {name: row[name] for name in row if "/" not in name and name != "epoch"})
                if self.file is not None and (stop or p.epoch % self.settings.checkpoint_every == 0):
                    self.save()
        if (
            stop or interrupted()
        ):  # whoever handles the signal may have let it pass: what is not finished must not look so
            raise KeyboardInterrupt
        p.last = _copied(self.model)
        self.model.load_state_dict(p.best)
        return p

    def _spent(self) -> bool:
        patience, p = self.settings.patience, self.progress
        if not patience or not p.history or "val_acc" not in p.history[-1]:
            return False
        return p.epoch - 1 - p.best_epoch >= patience

    def _epoch(self, step: Step) -> dict[str, float]:
        p, start = self.progress, time.perf_counter()
        done = self.course.epoch(step)
        scalars = _floats(done.scalars)
        _check_finite(step, scalars)
        if done.scored and (done.score is None or done.score > p.best_score):
            p.best_score = -math.inf if done.score is None else done.score
            p.best_epoch, p.best = step.epoch, _copied(self.model)
        row = {"epoch": step.epoch, **({} if done.score is None else {"val_acc": done.score}), **scalars}
        p.history.append(row)
        p.epoch += 1
        p.seconds += time.perf_counter() - start - done.aside
        p.watcher_seconds += done.aside
        return row

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write everything needed to continue bit for bit; of several processes the first one writes."""
        assert self.file is not None
        if processes.rank() != 0:
            return
        p, device = self.progress, self.course.device
        tensors = {f"model.{k}": t for k, t in self.model.state_dict().items()}
        tensors |= {f"best.{k}": t for k, t in p.best.items()}
        tensors |= {f"optimizer.{k}": t for k, t in self.course.optimizer_state().items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
        tensors |= {f"course.{k}": t for k, t in self.course.state().items()}
        meta: dict[str, Any] = {
            "key": self.key, "epoch": p.epoch, "best_score": _written(p.best_score), "best_epoch": p.best_epoch,
            "seconds": p.seconds, "watcher_seconds": p.watcher_seconds,
            "history": [list(row.items()) for row in p.history],  # pairs, for metadata sorts the keys of a mapping
        }  # fmt: skip
        checkpoint.save(self.file, tensors, meta)

    def restore(self) -> int:
        """Continue from the checkpoint, in all processes; returns the epoch reached.

        Raises:
            UserError: the checkpoint is of another run.
        """
        assert self.file is not None
        tensors, meta = checkpoint.load(self.file)
        processes.wait()  # the first one may write or remove it as soon as it goes on
        if meta.get("key") != self.key:
            raise UserError(f"{self.file} is of another configuration; use --overwrite to start anew")
        device = self.course.device

        def there(prefix: str) -> dict[str, Tensor]:
            found = under(tensors, prefix)
            return {k: t if t.dtype == torch.uint8 else t.to(device) for k, t in found.items()}

        self.model.load_state_dict(there("model."))
        self.course.load_optimizer_state(there("optimizer."))
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], device)
        self.course.load_state(there("course."))
        reached = {k: meta[k] for k in ("epoch", "best_epoch", "seconds", "watcher_seconds")}
        score = -math.inf if meta["best_score"] is None else meta["best_score"]
        history = [dict(row) for row in meta["history"]]
        self.progress = Progress(**reached, best_score=score, history=history, best=there("best."))
        return self.progress.epoch


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def _written(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _floats(scalars: Mapping[str, Tensor | float]) -> dict[str, float]:
    """All scalars in one copy from the device."""
    tensors = {name: value for name, value in scalars.items() if isinstance(value, Tensor)}
    read = torch.stack([t.double() for t in tensors.values()]).tolist() if tensors else []
    found = dict(zip(tensors, read, strict=True))
    return {name: found[name] if name in found else float(scalars[name]) for name in scalars}


def _check_finite(step: Step, scalars: dict[str, float]) -> None:
    wrong = [name for name, value in scalars.items() if not math.isfinite(value)]
    if wrong:
        terms = [name for name in scalars if "/" not in name and name not in wrong]
        shown = ", ".join(f"{name} {scalars[name]:.4g}" for name in [*wrong[:3], *terms])
        what = "method.generator_lr" if wrong[0].startswith("imitation/") else "train.lr, or weight of the method"
        raise DivergedError(f"the loss is not finite at epoch {step.epoch} ({shown}); try a smaller {what}")
