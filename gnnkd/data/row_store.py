"""Rows of features and cached teacher outputs that may stay on disk, in an order that is random and reads stretches.

An epoch's order: rows lie in blocks of S consecutive ones. The blocks are shuffled and read P at a time, a pool; the
rows of a pool are shuffled together, and batches of B are cut from the sequence of pools. Every row comes once.

How random that is: a batch is a uniform draw from P blocks, which are a uniform draw from all. The mean of any quantity
over its rows has variance `within (1/B - 1/(P S)) + between / P`, where `within` is the variance inside blocks and
`between` that of the blocks' means. Where the order on disk says nothing about the rows this is that of a uniform draw;
where a block's rows are all alike, a batch is worth no more than P rows of a uniform draw, and a larger pool of smaller
blocks helps. Rows of one block always come within P S rows of each other.

Memory: see `RowStore.memory`; it does not grow with the number of rows, but for 8 bytes a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.data.augment import generator
from gnnkd.data.row_arrays import Array, Kept, empty_like, forget
from gnnkd.errors import UserError
from gnnkd.types import Batch, Output

LEAST = 2
"""Rows of a training batch on each rank: batch norm cannot train on one."""


@final
@dataclass(frozen=True, eq=False)
class RowStore:
    """What a student of rows learns on; each array is in memory or mapped (`numpy.memmap`), and never written to.

    The order depends on seed, epoch, `block` and `pool`: not on what ran before, nor on the number of processes.

    Args:
        x: features [N, D], float32 or float16.
        y: class ids [N], integers; what they are outside `labelled` is not read in training.
        learn: booleans [N], the rows of an epoch.
        labelled: booleans [N], rows whose label training may read.
        logits: the teacher's [N, C], float32 or float16; None without a teacher.
        seed: of the order.
        block: S, consecutive rows that are read together, >= 1.
        pool: P, blocks in memory at a time, >= 1.
        device: of the batches.
        index: ids of the rows in the full data [N], integers, ascending; None numbers the rows.

    Raises:
        UserError: arrays of other shapes or types, or a number below 1.
    """

    x: Array
    y: Array
    learn: Array
    labelled: Array
    logits: Array | None
    seed: int
    block: int = 1024
    pool: int = 64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    index: Array | None = None

    def __post_init__(self) -> None:
        for name in ("block", "pool"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        matrices = {"x": self.x} if self.logits is None else {"x": self.x, "logits": self.logits}
        for name, array in matrices.items():
            if array.ndim != 2 or array.dtype not in (np.float32, np.float16) or len(array) != len(self.x):
                raise UserError(
                    f"{name} is {array.dtype} of shape {list(array.shape)}; it must be float32 or float16, one row for "
                    f"each of {len(self.x)}"
                )
        for name, kinds in (("y", "iu"), ("learn", "b"), ("labelled", "b")):
            self.check_column(name, getattr(self, name), kinds)
        if self.index is not None:
            self.check_column("index", self.index, "iu")

    def check_column(self, name: str, array: Array, kinds: str = "b") -> None:
        """Refuse an array that is not one value of the NumPy kinds `kinds` for each row.

        Raises:
            UserError: that.
        """
        if array.shape != (len(self.x),) or array.dtype.kind not in kinds:
            what = "boolean" if kinds == "b" else "integer"
            raise UserError(
                f"{name} is {array.dtype} of shape {list(array.shape)}; it must be one {what} for each of "
                f"{len(self.x)} rows"
            )

    @cached_property
    def count(self) -> int:
        """Number of rows of an epoch."""
        span = self.block * self.pool
        return sum(int(self.learn[a : a + span].sum()) for a in range(0, len(self.learn), span))

    def memory(self, batch_size: int, world: int = 1) -> int:
        """The most bytes that the rows of one process take at a time, with `N / S` blocks and `b = B / world`.

        `(P S / world + 2 b + S) row + 72 P S + 8 b (D + C) + 16 N / S`, where `row = D bytes(x) + C bytes(logits) + 17`
        is one row as it is kept: pool, carried rows, and the block that is being read; then the pool's order, the batch
        as float32, and the order of blocks. Pages of mapped files come and go with each block.

        A network adds 16 bytes a parameter (weights, gradient, Adam's two), and activations of one batch.
        """
        mine, share, classes = -(-self.pool * self.block // world), -(-batch_size // world), 0
        row = self.x.shape[1] * self.x.itemsize + 17
        if self.logits is not None:
            classes = self.logits.shape[1]
            row += classes * self.logits.itemsize
        kept = (mine + 2 * share + self.block) * row
        order = 72 * self.pool * self.block + 16 * -(-len(self.x) // self.block)
        return int(kept + order + 8 * share * (self.x.shape[1] + classes))

    def epoch(
        self, epoch: int, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Batch, Output | None]]:
        """The rows of `learn` once each, shuffled, with the teacher's output on them.

        The last batch is what is left over; where that is fewer than two rows a rank, it joins the batch before. Each
        batch is dealt to the ranks in turn, as one rank alone would have had it; a rank reads and keeps its share only.

        Args:
            epoch: from 0.
            batch_size: rows of a step, of all ranks together; at least two for each.
            rank: 0 .. world - 1.
            world: number of processes.

        Raises:
            UserError: a batch, or all the rows, too small for batch norm.
        """
        least = LEAST * world
        if batch_size < least:
            raise UserError(f"batch_size is {batch_size}; it must be at least {least}, {LEAST} for each process")
        if self.count < least:
            raise UserError(f"there are {self.count} rows to learn on; training needs at least {least}")
        return self._batches(epoch, batch_size, rank, world)

    def _batches(self, epoch: int, size: int, rank: int, world: int) -> Iterator[tuple[Batch, Output | None]]:
        whole, over = divmod(self.count, size)
        last = max(0, whole - 1 if over < LEAST * world else whole)
        held, passed, number = empty_like(self.x, self.logits, 0), 0, 0
        for ids in self._pools(epoch):
            place = np.arange(passed, passed + ids.size)
            place -= np.minimum(place // size, last) * size
            held = self._read(ids[place % world == rank], held)
            passed += ids.size
            while number <= last and passed >= (end := self.count if number == last else (number + 1) * size):
                share = len(range(rank, end - number * size, world))
                yield self._made(held[:share], readable=True)
                held, number = held[share:], number + 1
            held = held.copy()  # a view would keep the whole pool

    def _pools(self, epoch: int) -> Iterator[Array]:
        """Ids of the rows of each pool, shuffled."""
        blocks = torch.randperm(-(-len(self.x) // self.block), generator=generator("blocks", self.seed, epoch))
        for number, chosen in enumerate(torch.split(blocks, self.pool)):
            starts = (chosen.sort().values * self.block).tolist()
            ids = np.concatenate([np.flatnonzero(self.learn[a : a + self.block]) + a for a in starts])
            drawn = torch.randperm(ids.size, generator=generator("rows", self.seed, epoch, number))
            yield ids[drawn.numpy()]

    def scan(self, mask: Array, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Batch, Tensor]]:
        """The rows of `mask` [N] in their order without labels or teacher, and beside each batch its labels.

        Args:
            mask: booleans, in memory or mapped.
            batch_size: rows of a batch, at least 1; batches are dealt to the ranks in turn.
            rank: 0 .. world - 1.
            world: number of processes.
        """
        number, span, bare = 0, self.block * self.pool, replace(self, logits=None)
        for start in range(0, len(mask), span):
            found = np.flatnonzero(mask[start : start + span]) + start
            for a in range(0, found.size, batch_size):
                if number % world == rank:
                    held = bare._read(found[a : a + batch_size], empty_like(self.x, None, 0))
                    batch, _ = bare._made(held, readable=False)
                    yield batch, torch.from_numpy(held.y).to(self.device)
                number += 1

    def some(self, ids: Int[Tensor, " P"]) -> Batch:
        """The rows of these ids in the full data, distinct, in that order, without labels.

        Raises:
            ValueError: an id that is not there.
        """
        wanted = ids.cpu().numpy()
        index = np.arange(len(self.x)) if self.index is None else np.asarray(self.index)
        places = np.searchsorted(index, wanted).clip(max=len(index) - 1)
        if not np.array_equal(index[places], wanted):
            raise ValueError("a row that is asked about is none of those in the store")
        bare = replace(self, logits=None)
        return bare._made(bare._read(places, empty_like(self.x, None, 0)), readable=False)[0]

    def _read(self, ids: Array, before: Kept) -> Kept:
        """The rows `before`, then those of `ids` in that order, read block by block from the first to the last."""
        n = before.ids.size
        found = empty_like(self.x, self.logits, n + ids.size)
        for mine, old in zip(found.arrays, before.arrays, strict=True):
            mine[:n] = old
        found.ids[n:] = ids
        order = np.argsort(ids)
        edges = np.flatnonzero(np.diff(ids[order] // self.block)) + 1
        for places in np.split(order, edges):
            rows = ids[places]
            for mine, source in ((found.x, self.x), (found.y, self.y), (found.labelled, self.labelled)):
                mine[n + places] = source[rows]
            if found.logits is not None and self.logits is not None:
                found.logits[n + places] = self.logits[rows]
            self._release()  # for each block: the system maps up to some MB around what is read
        return found

    def _made(self, held: Kept, *, readable: bool) -> tuple[Batch, Output | None]:
        def there(array: Array, dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(array).to(self.device).to(dtype, copy=True)

        labelled = there(held.labelled if readable else np.zeros_like(held.labelled), torch.bool)
        index = there(held.ids if self.index is None else self.index[held.ids], torch.int64)
        batch = Batch.of(there(held.x, torch.float32), there(held.y, torch.int64), None, labelled, index)
        return batch, None if held.logits is None else Output(there(held.logits, torch.float32))

    def _release(self) -> None:
        for array in (self.x, self.y, self.learn, self.labelled, self.logits):
            if isinstance(array, np.memmap):
                forget(array)
