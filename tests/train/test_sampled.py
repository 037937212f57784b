"""Steps on samples: the step of the whole graph where all neighbours are drawn, and runs that continue bit for bit."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from gnnkd import distillers, nn, processes
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.metrics import accuracy
from gnnkd.nn.layerwise import Layerwise
from gnnkd.train.fit import Fit
from gnnkd.train.sampled import Sampled
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import update
from gnnkd.types import UNKNOWN, Batch, Output, Step

N, D, C = 120, 6, 3
TRAIN, VAL = torch.arange(N) < 30, (torch.arange(N) >= 30) & (torch.arange(N) < 70)
Y = torch.arange(N) % C


def _batch(*, sparse: bool = False, labelled: Tensor = TRAIN) -> Batch:
    """Three communities whose features say little and whose edges say much."""
    g = torch.Generator().manual_seed(0)
    source, target = torch.randint(N, (2, 3000), generator=g)
    kept = (Y[source] == Y[target]) | (torch.rand(3000, generator=g) < 0.1)
    graph = Graph.from_edge_index(torch.stack([source, target])[:, kept], N)
    x = torch.randn(N, D, generator=g) + torch.nn.functional.one_hot(Y, D)
    return Batch.of(CSR.from_dense(x) if sparse else x, Y, graph, labelled)


def _course(
    batch: Batch | None = None,
    *,
    model: str = "sage",
    method: Distiller | None = None,
    teacher: Output | None = None,
    fanouts: Sequence[int | None] = (None, None),
    batch_size: int = 1000,
    epochs: int = 6,
    dropout: float = 0.0,
    val: Tensor = VAL,
    seed: int = 0,
    **options: Any,
) -> Sampled:
    torch.manual_seed(seed)
    network = nn.MODELS[model](D, C, layers=2, width=8, dropout=dropout, **options)
    settings = TrainSettings(epochs=epochs)
    return Sampled(
        network, batch or _batch(), method or Supervised(), teacher, (Y, val), settings,
        fanouts=fanouts, batch_size=batch_size, seed=seed, inference=Layerwise(nodes=50, entries=300),
    )  # fmt: skip


def _fit(course: Sampled, file: Path | None = None, epochs: int = 6, **given: Any) -> Fit:
    return Fit(course, TrainSettings(epochs=epochs, **given), file=file)


@pytest.mark.parametrize(
    ("model", "hops", "options"),
    [("sage", 2, {}), ("sage", 2, {"aggregator": "gcn"}), ("gat", 2, {"heads": 2}), ("gcn", 2, {}), ("mlp", 1, {})],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_with_all_neighbours_and_seeds_the_step_is_that_of_the_whole_graph(
    model: str, hops: int, options: dict[str, Any], sparse: bool
) -> None:
    if model == "gat":
        options = {**options, "attention_dropout": 0.0}
    batch = _batch(sparse=sparse)
    course = _course(batch, model=model, fanouts=[None] * hops, **options)
    other = _course(batch, model=model, fanouts=[None] * hops, **options)
    optimizer = torch.optim.SGD(other.model.parameters(), lr=0.1)
    course.optimizer = torch.optim.SGD(course.model.parameters(), lr=0.1)
    for epoch in range(3):
        done = course.epoch(Step(epoch, 3))
        terms = update(other.model, optimizer, Supervised(), batch, None, Step(epoch, 3))
        torch.testing.assert_close(done.scalars["ce"], terms["ce"], rtol=1e-6, atol=1e-6)
        for (name, p), q in zip(course.model.named_parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6, msg=name)
        with torch.no_grad():
            logits = other.model.eval()(batch.x, batch.graph).logits
        assert done.score == pytest.approx(accuracy(logits, Y, VAL))


def test_every_labelled_node_is_a_seed_once_an_epoch_in_an_order_of_its_own() -> None:
    course = _course(batch_size=7)
    orders = [course._order(epoch) for epoch in (0, 1)]
    assert [part.numel() for part in orders[0]] == [7, 7, 7, 7, 2]
    assert [part.numel() for part in _course(batch_size=29)._order(0)] == [30], "a batch norm cannot learn on one node"
    for parts in orders:
        assert torch.cat(parts).sort().values.tolist() == list(range(30))
    assert not torch.equal(torch.cat(orders[0]), torch.cat(orders[1]))
    assert torch.equal(torch.cat(orders[1]), torch.cat(_course(batch_size=7)._order(1))), "named by seed and epoch"
    assert not torch.equal(torch.cat(orders[1]), torch.cat(_course(batch_size=7, seed=1)._order(1)))


@final
class _Spy(Distiller):
    """Cross-entropy, and a memory of what it was shown."""

    needs_teacher = False

    def __init__(self) -> None:
        self.seen: list[tuple[Batch, Output, Output | None]] = []

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        self.seen.append((batch, student, teacher))
        return {"ce": torch.nn.functional.cross_entropy(student.logits, batch.y)}


@pytest.mark.parametrize("sparse", [False, True])
def test_a_method_sees_the_seeds_alone(sparse: bool) -> None:
    batch, spy = _batch(sparse=sparse), _Spy()
    teacher = Output(torch.randn(N, C), {"w": torch.randn(N, 4)})
    _course(batch, method=spy, teacher=teacher, batch_size=8, fanouts=(3, 2)).epoch(Step(0, 1))
    assert torch.cat([seen.index for seen, _, _ in spy.seen]).sort().values.tolist() == list(range(30))
    for seen, student, taught in spy.seen:
        ids = seen.index
        assert torch.equal(seen.y, Y[ids])
        assert bool(seen.labelled.all())
        assert taught is not None
        assert torch.equal(taught.logits, teacher.logits[ids])
        assert torch.equal(taught.hidden["w"], teacher.hidden["w"][ids])  # type: ignore[index]
        x, whole = (x.dense() if isinstance(x, CSR) else x for x in (seen.x, batch.x))  # type: ignore[union-attr]
        torch.testing.assert_close(x, whole[ids])
        assert {h.shape[0] for h in student.hidden.values()} == {ids.numel()}
        edges = batch.graph.subgraph(ids).adjacency.dense()  # type: ignore[union-attr]
        among = seen.graph.adjacency.dense()  # type: ignore[union-attr]
        assert bool((among <= edges).all())


def test_labels_outside_the_seeds_are_not_read() -> None:
    batch = _batch()
    hidden = Batch(batch.x, batch.y.masked_fill(~TRAIN, UNKNOWN), batch.index, batch.graph, TRAIN)
    wrong = Batch(batch.x, torch.where(TRAIN, Y, (Y + 1) % C), batch.index, batch.graph, TRAIN)
    first, second = (_course(given, batch_size=8, fanouts=(3, 2)) for given in (hidden, wrong))
    assert first.epoch(Step(0, 1)).scalars == second.epoch(Step(0, 1)).scalars
    for p, q in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_scalars_are_means_over_seeds_not_over_batches() -> None:
    course = _course(batch_size=9)
    for group in course.optimizer.param_groups:
        group.update(lr=0.0, weight_decay=0.0)
    with torch.no_grad():
        logits = course.model(course.batch.x, course.batch.graph).logits
    done = course.epoch(Step(0, 1))
    assert float(done.scalars["ce"]) == pytest.approx(float(torch.nn.functional.cross_entropy(logits[TRAIN], Y[TRAIN])))


@pytest.mark.parametrize("method", ["supervised", "glnn"])
def test_a_run_in_two_pieces_is_the_run_in_one(method: str, tmp_path: Path) -> None:
    teacher = None if method == "supervised" else Output(torch.randn(N, C, generator=torch.Generator().manual_seed(5)))

    def made() -> Sampled:
        return _course(
            method=distillers.build(method), teacher=teacher, fanouts=(3, 2), batch_size=8, dropout=0.5, norm="batch"
        )

    expected = _fit(made()).run()
    _fit(made(), tmp_path / "c.safetensors", epochs=3, checkpoint_every=3).run()
    again = _fit(made(), tmp_path / "c.safetensors")
    torch.manual_seed(99)
    assert again.restore() == 3
    reached = again.run()
    assert reached.history == expected.history
    for name, t in expected.last.items():
        assert torch.equal(reached.last[name], t), name


def test_a_few_neighbours_are_enough_to_learn() -> None:
    """Where edges say more than features, and far more than a network of rows can find."""
    learnt = _fit(_course(aggregator="gcn", fanouts=(5, 5), batch_size=10, epochs=30), epochs=30).run()
    alone = _fit(_course(model="mlp", fanouts=(1,), batch_size=10, epochs=30), epochs=30).run()
    assert learnt.best_score > 0.9
    assert learnt.best_score > alone.best_score + 0.2


def test_a_student_that_passes_messages_learns_from_a_teacher() -> None:
    taught = Output(5.0 * torch.nn.functional.one_hot((Y + 1) % C, C).float())
    every = _batch(labelled=torch.ones(N, dtype=torch.bool))
    none = torch.zeros(N, dtype=torch.bool)  # the labels would choose the epoch least like the teacher
    course = _course(every, method=Glnn(), teacher=taught, fanouts=(5, 5), val=none, aggregator="gcn")
    _fit(course, epochs=100).run()
    with torch.no_grad():
        found = course.model.eval()(course.batch.x, course.batch.graph).logits.argmax(1)
    assert float((found == (Y + 1) % C).float().mean()) > 0.9


def test_without_validation_the_last_epoch_is_kept() -> None:
    assert _fit(_course(val=torch.zeros(N, dtype=torch.bool))).run().best_epoch == 5


def test_what_cannot_be_trained_so_is_refused() -> None:
    for wrong, match in (
        ({"fanouts": (5,)}, "one for each of 2 layers"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch": _batch(labelled=torch.zeros(N, dtype=torch.bool))}, "nodes to learn on is 0"),
        ({"model": "tag"}, "TAGConv cannot be applied to some nodes"),
    ):
        with pytest.raises(UserError, match=match):
            _course(**wrong)
    rows = _batch()
    with pytest.raises(ValueError, match="drawn from a Graph"):
        _course(Batch(rows.x, rows.y, rows.index, None, rows.labelled))
    asking = Supervised()
    asking.asks_student = True
    with pytest.raises(ValueError, match="asks the student"):
        _course(method=asking)


# -- several processes -------------------------------------------------------------------------------------------


def _trained() -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Thirty seeds in batches of 13: shares of 7 and 6, and 2 and 2."""
    course = _course(batch_size=13, norm="layer")
    course.optimizer = torch.optim.SGD(course.model.parameters(), lr=0.1)
    reached = _fit(course, epochs=3).run()
    return reached.last, reached.history


def _process(rank: int, folder: str, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with processes.joined("cpu"):
        torch.save(_trained(), Path(folder) / f"{rank}.pt")
        parts = _course(batch_size=29)._order(0)
        assert [part.numel() for part in parts] == [30], "a batch of one seed joins the one before"
        with pytest.raises(UserError, match="each of 2 processes"):
            _course(batch_size=1)


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(str(tmp_path), port), nprocs=2)
    weights, history = _trained()
    for rank in range(2):
        found, rows = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, t in found.items():
            torch.testing.assert_close(t, weights[name], rtol=1e-5, atol=1e-5)
        for row, other in zip(rows, history, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
