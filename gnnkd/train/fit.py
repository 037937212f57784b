"""The training loop: steps, validation, selection of the first best epoch, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from gnnkd.distillers.base import Distiller, Watcher
from gnnkd.errors import UserError
from gnnkd.metrics import accuracy
from gnnkd.optimizers import flat, unflatten
from gnnkd.tensors import under
from gnnkd.train import checkpoint
from gnnkd.train.interrupt import deferred
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import looking, update
from gnnkd.types import Batch, Output, Step


class Report(Protocol):
    """Whoever shows progress."""

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        """After every epoch: its number from 0, and the scalars worth showing."""


class DivergedError(UserError):
    """A loss that is not finite."""


@final
@dataclass
class Progress:
    """What a run has reached; all of it goes into a checkpoint."""

    epoch: int = 0
    best_score: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    watcher_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


@final
class Fit:
    """One model trained on one batch by one method.

    Args:
        model: what learns; `model(x, graph) -> Output`.
        batch: what it learns on; labels outside `labelled` are blank.
        distiller: the method.
        teacher: cached teacher output on the batch, or None.
        validation: labels for selection, [N], and the mask of validation rows.
        settings: learning rate and the like.
        watcher: learns beside the training without changing it.
        seed: names the noise of the watcher's looks.
        file: where checkpoints go; None keeps none.
        key: what this run is, compared on resume.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        distiller: Distiller,
        teacher: Output | None,
        validation: tuple[Tensor, Bool[Tensor, " N"]],
        settings: TrainSettings,
        *,
        watcher: Watcher | None = None,
        seed: int = 0,
        file: Path | None = None,
        key: str = "",
    ) -> None:
        self.model, self.batch, self.distiller, self.teacher = model, batch, distiller, teacher
        self.validation, self.settings, self.watcher = validation, settings, watcher
        self.seed, self.file, self.key = seed, file, key
        self.progress = Progress()
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def run(self, report: Report | None = None) -> Progress:
        """Train to the end, or until patience is spent, and load the best weights into the model.

        A checkpoint is written every `checkpoint_every` epochs. An interrupt waits for the end of its epoch, then a
        checkpoint is written and the interrupt passed on.
        """
        p = self.progress
        with deferred() as interrupted:
            while p.epoch < self.settings.epochs and not self._spent() and not interrupted():
                step = Step(p.epoch, self.settings.epochs)
                row = self._epoch(step)
                if report is not None:
                    report.update(step.epoch, {name: row[name] for name in row if "/" not in name and name != "epoch"})
                if self.file is not None and (interrupted() or p.epoch % self.settings.checkpoint_every == 0):
                    self.save()
        if interrupted():  # whoever handles the signal may have let it pass: what is not finished must not look so
            raise KeyboardInterrupt
        self.model.load_state_dict(p.best)
        return p

    def _spent(self) -> bool:
        patience = self.settings.patience
        return bool(patience) and self.progress.epoch - 1 - self.progress.best_epoch >= patience

    def _epoch(self, step: Step) -> dict[str, float]:
        p, start = self.progress, time.perf_counter()
        seen: dict[str, Tensor] = {}
        if self.watcher is not None:
            noise = (self.seed << 32) + (step.epoch << 8)
            look = looking(self.model, self.distiller, self.batch, step, noise)
            seen = dict(self.watcher.watch(self.batch, look, step))
        watched = time.perf_counter()
        taken = update(self.model, self.optimizer, self.distiller, self.batch, self.teacher, step)
        score = self._score()
        scalars = _floats(taken | seen)
        _check_finite(step, scalars)
        if score > p.best_score:
            p.best_score, p.best_epoch = score, step.epoch
            p.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        done = time.perf_counter()
        if self.watcher is not None:
            self.watcher.validated(score)
        row = {"epoch": step.epoch, "val_acc": score, **scalars}
        p.history.append(row)
        p.epoch += 1
        p.seconds += done - watched
        p.watcher_seconds += watched - start + time.perf_counter() - done
        return row

    @torch.no_grad()
    def _score(self) -> float:
        self.model.eval()
        return accuracy(self.model(self.batch.x, self.batch.graph).logits, *self.validation)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write everything needed to continue bit for bit."""
        assert self.file is not None
        p = self.progress
        tensors = {f"model.{k}": t for k, t in self.model.state_dict().items()}
        tensors |= {f"best.{k}": t for k, t in p.best.items()}
        tensors |= {f"optimizer.{k}": t for k, t in flat(self.optimizer).items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.batch.y.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.batch.y.device)
        if self.watcher is not None:
            tensors |= {f"watcher.{k}": t for k, t in self.watcher.state().items()}
        meta: dict[str, Any] = {
            "key": self.key, "epoch": p.epoch, "best_score": p.best_score, "best_epoch": p.best_epoch,
            "seconds": p.seconds, "watcher_seconds": p.watcher_seconds,
            "history": [list(row.items()) for row in p.history],  # pairs, for metadata sorts the keys of a mapping
        }  # fmt: skip
        checkpoint.save(self.file, tensors, meta)

    def restore(self) -> int:
        """Continue from the checkpoint; returns the epoch reached.

        Raises:
            UserError: the checkpoint is of another run.
        """
        assert self.file is not None
        tensors, meta = checkpoint.load(self.file)
        if meta.get("key") != self.key:
            raise UserError(f"{self.file} is of another configuration; use --overwrite to start anew")
        device = self.batch.y.device

        def there(prefix: str) -> dict[str, Tensor]:
            found = under(tensors, prefix)
            return {k: t if t.dtype == torch.uint8 else t.to(device) for k, t in found.items()}

        self.model.load_state_dict(there("model."))
        unflatten(self.optimizer, there("optimizer."))
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], device)
        if self.watcher is not None:
            self.watcher.load_state(there("watcher."))
        reached = {k: meta[k] for k in ("epoch", "best_score", "best_epoch", "seconds", "watcher_seconds")}
        history = [dict(row) for row in meta["history"]]
        self.progress = Progress(**reached, history=history, best=there("best."))
        return self.progress.epoch


def _floats(scalars: dict[str, Tensor]) -> dict[str, float]:
    """All scalars in one copy from the device."""
    if not scalars:
        return {}
    return dict(zip(scalars, torch.stack([t.double() for t in scalars.values()]).tolist(), strict=True))


def _check_finite(step: Step, scalars: dict[str, float]) -> None:
    wrong = [name for name, value in scalars.items() if not math.isfinite(value)]
    if wrong:
        terms = [name for name in scalars if "/" not in name and name not in wrong]
        shown = ", ".join(f"{name} {scalars[name]:.4g}" for name in [*wrong[:3], *terms])
        what = "method.generator_lr" if wrong[0].startswith("imitation/") else "train.lr or method.beta"
        raise DivergedError(f"the loss is not finite at epoch {step.epoch} ({shown}); try a smaller {what}")
