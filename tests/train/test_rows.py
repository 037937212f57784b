"""Students on rows from disk: each row once, as random and as small as stated, two processes as one."""

from __future__ import annotations

import os
import resource
import socket
import tracemalloc
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from gnnkd import distillers, nn, processes
from gnnkd.data import row_arrays
from gnnkd.data.row_store import RowStore
from gnnkd.distillers.base import Distiller
from gnnkd.errors import UserError
from gnnkd.train.fit import Fit
from gnnkd.train.rows import Rows
from gnnkd.train.settings import TrainSettings
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

N, D, C = 157, 6, 3


def _arrays(dtype: Any = np.float32) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(N, D)).astype(dtype)
    y = x[:, :C].argmax(1).astype(np.int64)
    logits = (4 * x[:, :C] + 0.1 * draw.normal(size=(N, C))).astype(dtype)
    ids = np.arange(N)
    return {"x": x, "y": y, "learn": ids % 5 > 0, "labelled": ids % 5 == 1, "logits": logits}


def _store(**given: Any) -> RowStore:
    return RowStore(**{**_arrays(), "seed": 3, "block": 8, "pool": 4, **given})


def _val() -> Any:
    return np.arange(N) % 5 == 0


def _fit(store: RowStore, *, method: str = "glnn", file: Path | None = None, model: str = "mlp", **given: Any) -> Fit:
    settings = TrainSettings(**{"epochs": 4, "lr": 0.01, "weight_decay": 0.0, "checkpoint_every": 1, **given})
    torch.manual_seed(0)
    network = nn.MODELS[model](D, C, layers=2, width=16, dropout=0.3)
    course = Rows(network, store, distillers.build(method), _val(), settings, batch_size=32)
    return Fit(course, settings, file=file, key="k")


# The order


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("block", "pool", "size"), [(8, 4, 32), (1, 1, 7), (64, 64, 20), (8, 3, 1000), (5, 2, 31)])
def test_each_row_comes_once_and_ranks_deal_the_batches_of_one(world: int, block: int, pool: int, size: int) -> None:
    store, data = _store(block=block, pool=pool), _arrays()
    alone = [batch.index for batch, _ in store.epoch(2, size)]
    rows = torch.cat(alone)
    assert torch.equal(rows.sort().values, torch.from_numpy(np.flatnonzero(data["learn"])))
    assert [ids.numel() for ids in alone[:-1]] == [size] * (len(alone) - 1)
    assert 2 <= alone[-1].numel() < size + 2
    if size < 2 * world:
        return
    shares = [list(store.epoch(2, size, rank=rank, world=world)) for rank in range(world)]
    for rank, share in enumerate(shares):
        dealt = torch.cat([batch.index for batch, _ in share])
        assert all(batch.index.numel() >= 2 for batch, _ in share)
        if rows.numel() % size >= 2 * world or rows.numel() % size == 0:  # no rest that joins another batch
            assert torch.equal(dealt, torch.cat([ids[rank::world] for ids in alone]))
    assert torch.equal(torch.cat([b.index for share in shares for b, _ in share]).sort().values, rows.sort().values)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_batch_is_what_lies_at_its_rows_and_hides_labels(dtype: Any, tmp_path: Path) -> None:
    data = _arrays(dtype)
    for name, array in data.items():
        np.save(tmp_path / f"{name}.npy", array)
    on_disk = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in data}
    for arrays in (data, on_disk):
        for batch, taught in _store(**arrays).epoch(0, 32):
            ids = batch.index.numpy()
            assert torch.equal(batch.x, torch.from_numpy(data["x"][ids].astype(np.float32)))
            assert taught is not None
            assert torch.equal(taught.logits, torch.from_numpy(data["logits"][ids].astype(np.float32)))
            labelled = torch.from_numpy(data["labelled"][ids])
            assert torch.equal(batch.labelled, labelled)
            assert torch.equal(batch.y, torch.from_numpy(data["y"][ids]).where(labelled, -1))
            assert batch.graph is None


def test_the_order_follows_seed_and_epoch_alone() -> None:
    def order(epoch: int, **given: Any) -> list[int]:
        return torch.cat([batch.index for batch, _ in _store(**given).epoch(epoch, 32)]).tolist()

    assert order(0) == order(0)
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(0, seed=4)), tuple(order(0, block=4))}) == 4


def test_one_pool_of_all_is_a_uniform_shuffle() -> None:
    """Over many epochs each row stands at each place equally often."""
    ids, epochs = np.arange(12), 300
    store = RowStore(np.zeros((12, 1), np.float32), ids, ids >= 0, ids >= 0, None, 0, block=4, pool=3)
    counts = np.zeros((12, 12))
    for epoch in range(epochs):
        ((batch, _),) = store.epoch(epoch, 12)
        counts[ids, batch.index.numpy()] += 1
    chi = ((counts - epochs / 12) ** 2 / (epochs / 12)).sum()
    assert chi < 121 + 4 * (2 * 121) ** 0.5


@pytest.mark.parametrize("alike", [True, False], ids=["sorted on disk", "shuffled on disk"])
def test_the_variance_of_a_batch_is_the_one_stated(alike: bool) -> None:
    blocks, block, pool, size = 200, 16, 4, 32
    value = np.random.default_rng(1).normal(size=blocks * block)
    value = (np.sort(value) if alike else value).astype(np.float32)
    n = np.arange(value.size)
    store = RowStore(value[:, None], n, n >= 0, n >= 0, None, 0, block=block, pool=pool)
    means = [float(batch.x.mean()) for epoch in range(8) for batch, _ in store.epoch(epoch, size)]
    table = value.reshape(blocks, block)
    within, between = table.var(1, ddof=1).mean(), table.mean(1).var()
    stated = within * (1 / size - 1 / (pool * block)) + between / pool
    assert np.var(means) == pytest.approx(stated, rel=0.2)
    assert (stated > 3 * value.var() / size) == alike


# Memory


def _big(folder: Path, rows: int, width: int, classes: int) -> dict[str, Any]:
    found = {}
    for name, columns in (("x", width), ("logits", classes)):
        made = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (rows, columns))
        made[:] = np.float32(1)
        made.flush()
        found[name] = row_arrays.opened(folder / f"{name}.npy", rows)
    ids = np.arange(rows)
    return {**found, "y": ids % classes, "learn": ids >= 0, "labelled": ids >= 0}


@pytest.mark.parametrize("world", [1, 2])
def test_memory_is_what_the_formula_says(tmp_path: Path, world: int) -> None:
    store = RowStore(**_big(tmp_path, 60_000, 40, 10), seed=0, block=256, pool=32)
    for _ in store.epoch(0, 1024, rank=world - 1, world=world):
        pass
    tracemalloc.start()
    for _ in store.epoch(1, 1024, rank=world - 1, world=world):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stated = store.memory(1024, world)
    assert 0.5 * stated < peak <= stated
    assert stated < 0.4 * (store.x.nbytes + 40 * 60_000)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says how much of a file is in memory")
def test_pages_that_were_read_do_not_stay(tmp_path: Path) -> None:
    store = RowStore(**_big(tmp_path, 400_000, 60, 10), seed=0, block=256, pool=16)
    page = resource.getpagesize()

    def shared() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2]) * page

    before, most = shared(), 0
    for _ in store.epoch(0, 4096):
        most = max(most, shared() - before)
    for _ in store.scan(store.learn, 4096):
        most = max(most, shared() - before)
    assert store.x.nbytes > 90e6
    assert most < 20e6


# Training


def test_one_batch_of_all_rows_is_the_course_of_whole_batches() -> None:
    """Without dropout, where the order of rows only rounds."""
    data, settings = _arrays(), TrainSettings(epochs=5, lr=0.01)
    batch = Batch.of(torch.from_numpy(data["x"]), torch.from_numpy(data["y"]), None, torch.from_numpy(data["labelled"]))
    reached = []
    for whole in (True, False):
        torch.manual_seed(0)
        model = nn.MODELS["mlp"](D, C, layers=2, width=16, dropout=0.0)
        method = distillers.build("glnn", label_weight=0.3)
        if whole:
            taught, val = Output(torch.from_numpy(data["logits"])), torch.from_numpy(_val())
            course: Any = WholeBatch(model, batch, method, taught, (torch.from_numpy(data["y"]), val), settings)
        else:
            everything = np.ones(N, bool)
            course = Rows(model, _store(learn=everything), method, _val(), settings, batch_size=N)
        reached.append(Fit(course, settings).run())
    for name, p in reached[0].last.items():
        torch.testing.assert_close(p, reached[1].last[name], rtol=1e-4, atol=1e-5)
    for row, other in zip(reached[0].history, reached[1].history, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_a_student_learns_its_teacher() -> None:
    rows = _fit(_store(), epochs=40).run().history
    assert rows[-1]["kd"] < 0.3 * rows[0]["kd"]
    assert rows[-1]["val_acc"] > 0.8


def test_validation_is_over_the_rows_of_the_mask() -> None:
    fit, data = _fit(_store(), epochs=1), _arrays()
    score = fit.run().history[0]["val_acc"]
    fit.model.eval()
    hits = fit.model(torch.from_numpy(data["x"]), None).logits.argmax(1) == torch.from_numpy(data["y"])
    assert score == float(hits[torch.from_numpy(_val())].double().mean())


def test_where_nothing_validates_the_last_epoch_is_kept() -> None:
    fit = _fit(_store())
    fit.course = Rows(fit.model, _store(), distillers.build("glnn"), np.zeros(N, bool), TrainSettings(), batch_size=32)
    reached = fit.run()
    assert reached.best_epoch == 3
    assert "val_acc" not in reached.history[0]


@pytest.mark.parametrize("method", ["glnn", "kd"])
def test_a_run_continues_bit_for_bit_whatever_the_random_state(tmp_path: Path, method: str) -> None:
    whole = _fit(_store(), method=method)
    state = torch.get_rng_state()
    reached = whole.run()
    assert torch.equal(torch.get_rng_state(), state)
    early = _fit(_store(), method=method, file=tmp_path / "c.safetensors")
    early.settings = TrainSettings(epochs=2, checkpoint_every=1)
    early.run()
    later = _fit(_store(), method=method, file=tmp_path / "c.safetensors")
    assert later.restore() == 2
    torch.manual_seed(99)
    again = later.run()
    assert again.history == reached.history
    for name, p in reached.last.items():
        assert torch.equal(p, again.last[name]), name


# Several processes


def _trained(steps: int) -> dict[str, Tensor]:
    settings = TrainSettings(epochs=steps, lr=0.01, weight_decay=0.0)
    torch.manual_seed(0)
    model = nn.MODELS["mlp"](D, C, layers=2, width=16, dropout=0.0)
    course = Rows(model, _store(), distillers.build("glnn"), _val(), settings, batch_size=33)
    fit = Fit(course, settings)
    reached = fit.run()
    grads = {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    scores = torch.tensor([[row["val_acc"], row["kd"]] for row in reached.history])
    return {**reached.last, **grads, "scores": scores}


def _process(rank: int, folder: str, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with processes.joined("cpu"):
        torch.save(_trained(3), Path(folder) / f"{rank}.pt")


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(str(tmp_path), port), nprocs=2)
    alone = _trained(3)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        for name, t in found.items():
            torch.testing.assert_close(t, alone[name], rtol=1e-5, atol=1e-5)


# Mistakes


@final
class _Maps(Distiller):
    reads_maps = True

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        return {"zero": student.logits.sum() * 0}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"x": np.zeros((N, D))}, "x is float64 of shape"),
        ({"logits": np.zeros((N - 1, C), np.float32)}, r"logits is float32 of shape \[156, 3\]"),
        ({"y": np.zeros(N, np.float32)}, "y is float32"),
        ({"learn": np.ones(3, bool)}, "learn is bool of shape"),
        ({"labelled": np.ones(N, np.int64)}, "labelled is int64"),
        ({"block": 0}, "block is 0"),
        ({"pool": 0}, "pool is 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        _store(**given)


def test_methods_that_need_more_than_logits_are_refused() -> None:
    model, settings = nn.MODELS["mlp"](D, C, layers=2, width=4), TrainSettings()
    with pytest.raises(UserError, match="reads more of a teacher than its logits"):
        Rows(model, _store(), _Maps(), _val(), settings)
    with pytest.raises(UserError, match="there are no logits"):
        Rows(model, _store(logits=None), distillers.build("glnn"), _val(), settings)
    with pytest.raises(UserError, match="batch_size is 1"):
        Rows(model, _store(), distillers.build("glnn"), _val(), settings, batch_size=1)
    with pytest.raises(UserError, match="validation is int64"):
        Rows(model, _store(), distillers.build("glnn"), _val().astype(np.int64), settings)
    with pytest.raises(UserError, match="0 rows to learn on"):
        _fit(_store(learn=np.zeros(N, bool))).run()


def test_batches_without_a_label_are_said() -> None:
    nothing = np.zeros(N, bool)
    with pytest.raises(UserError, match="had no labelled row"):
        _fit(_store(labelled=nothing), method="kd").run()
    assert _fit(_store(labelled=nothing)).run().epoch == 4  # glnn reads none


def test_a_truncated_map_is_said(tmp_path: Path) -> None:
    file = tmp_path / "logits.npy"
    np.save(file, np.zeros((10, 3), np.float32))
    assert row_arrays.opened(file, 10).shape == (10, 3)
    with pytest.raises(UserError, match="has 10 rows; it must have 11"):
        row_arrays.opened(file, 11)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match="missing, truncated or damaged"):
        row_arrays.opened(file, 10)
    np.save(file, np.zeros((10, 3)))
    with pytest.raises(UserError, match="no matrix of float32"):
        row_arrays.opened(file, 10)
    with pytest.raises(UserError, match="missing, truncated"):
        row_arrays.opened(tmp_path / "none.npy", 10)
