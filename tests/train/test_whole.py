"""The course of graphs trains a method's own part beside the model, keeps it in checkpoints, and continues it."""

from __future__ import annotations

from pathlib import Path
from typing import final

import pytest
import torch
from torch import Tensor

from gnnkd import nn
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd import Dgd
from gnnkd.distillers.maps import pooled
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.train.fit import Fit
from gnnkd.train.settings import TrainSettings
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

N, D, C, EPOCHS = 40, 10, 3, 6


@final
class _Matched(Distiller):
    """The student's features, through a linear map of the method's own, are the teacher's."""

    reads_maps = True

    def prepare(self, lesson: Lesson) -> None:
        assert lesson.teacher is not None
        torch.manual_seed(lesson.seed)
        self.part = torch.nn.Linear(pooled(lesson.student).shape[1], pooled(lesson.teacher).shape[1])

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        assert teacher is not None
        assert self.part is not None
        return {"matched": (self.part(pooled(student)) - pooled(teacher)).square().mean()}


def _batch() -> Batch:
    torch.manual_seed(0)
    graph = Graph.from_edge_index(torch.randint(N, (2, 3 * N)), N)
    return Batch.of(torch.rand(N, D), torch.arange(N) % C, graph, torch.arange(N) < 20)


def _fit(file: Path | None, epochs: int, *, wrapped: bool) -> tuple[Fit, Distiller]:
    batch, settings = _batch(), TrainSettings(epochs=epochs, checkpoint_every=1)
    teacher = nn.MODELS["gcn"](D, C, layers=2, width=7).eval()
    model = nn.MODELS["mlp"](D, C, layers=2, width=5)
    taught = teacher(batch.x, batch.graph)
    taught = Output(taught.logits.detach(), {name: h.detach() for name, h in taught.hidden.items()})
    distiller: Distiller = Dgd(_Matched(), None, k=0) if wrapped else _Matched()
    shown = model.eval()(batch.x, None)
    distiller.prepare(Lesson(shown, taught, (), batch.y, 0.0, 0.0, 1))
    validation = (torch.arange(N) % C, torch.arange(N) >= 30)
    course = WholeBatch(model, batch, distiller, taught, validation, settings)
    return Fit(course, settings, file=file), distiller


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "under dgd"])
def test_a_part_trains_and_continues_bit_for_bit(tmp_path: Path, wrapped: bool) -> None:
    fit, distiller = _fit(None, EPOCHS, wrapped=wrapped)
    start = {name: p.clone() for name, p in distiller.state().items()}
    whole = fit.run()
    assert whole.history[-1]["matched"] < whole.history[0]["matched"]
    assert all(not torch.equal(p, start[name]) for name, p in distiller.state().items())
    early, _ = _fit(tmp_path / "checkpoint.safetensors", EPOCHS, wrapped=wrapped)
    early.settings = TrainSettings(epochs=3, checkpoint_every=1)
    early.run()
    later, again = _fit(tmp_path / "checkpoint.safetensors", EPOCHS, wrapped=wrapped)
    assert later.restore() == 3
    reached = later.run()
    assert reached.history == whole.history
    for name, p in distiller.state().items():
        assert torch.equal(p, again.state()[name]), name


def test_rows_of_the_last_weight_matrix_are_the_features() -> None:
    batch = _batch()
    output = nn.MODELS["gcn"](D, C, layers=2, width=7)(batch.x, batch.graph)
    assert pooled(output) is output.hidden["layers.1.lin.weight"]
    sparse = nn.MODELS["sgc"](D, C)(CSR.from_dense(batch.x), batch.graph)
    with pytest.raises(UserError, match="choose a deeper one"):
        pooled(sparse)
    with pytest.raises(UserError, match="choose a deeper one"):
        pooled(Output(output.logits))


def test_without_validation_the_last_epoch_is_kept() -> None:
    batch, settings = _batch(), TrainSettings(epochs=3)
    validation = (batch.y, torch.zeros(N, dtype=torch.bool))
    course = WholeBatch(nn.MODELS["mlp"](D, C, layers=2, width=5), batch, Supervised(), None, validation, settings)
    reached = Fit(course, settings).run()
    assert reached.best_epoch == 2
    assert all("val_acc" not in row for row in reached.history)
