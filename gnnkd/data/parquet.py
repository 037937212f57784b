"""Rows of features in Parquet files, written and read a row group at a time; a student's answers about them.

    features    a list of D numbers in each row (float16, float32 or float64; a fixed-size list where we write it)
    id          whole numbers, or anything when a file is scored
    label       whole numbers, -1 = unknown; may be absent

Memory: `batch_rows` rows decoded, about `16 D` bytes each, and a few MB; where they are scored, a student's activations
on as many rows come to that. Neither the number of rows nor the size of a row group matters.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.data.arrow import FEATURES, features, listed, packages, whole
from gnnkd.errors import UserError

ID, LABEL = "id", "label"
CLASS, PROBABILITIES = "class", "probabilities"
CLASSES = "gnnkd.classes"
"""Key of a scored file's metadata: the class of each of the probabilities, as a JSON list."""


_BUFFER = 1 << 20
"""Bytes of a column that are read at a time."""


class Scorer(Protocol):
    """What this floor knows of a student; `predictor.Predictor` is the one in use."""

    @property
    def n_features(self) -> int:
        """Width of a row."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Original label of each class id."""

    @property
    def needs_graph(self) -> bool:
        """Whether it looks at edges."""

    def predict_proba(self, x: Tensor) -> Tensor:
        """Probability of each class for rows [N, D]."""


@final
@dataclass(frozen=True)
class Group:
    """Rows of a file, one after another.

    Args:
        x: features.
        ids: of the rows.
        y: classes, -1 = unknown; None where the file has none.
    """

    x: Float[Tensor, "n D"]
    ids: Int[Tensor, " n"]
    y: Int[Tensor, " n"] | None = None


def write(file: Path, groups: Iterable[Group], *, half: bool = False) -> int:
    """Write a file, each group as a row group, whole or not at all, with checksums; returns the number of rows.

    Args:
        file: is replaced if it is there.
        groups: at least one, all of one width, all with classes or none.
        half: store features as float16.

    Raises:
        UserError: no group, groups that differ, a file that cannot be written, or no pyarrow.
    """
    pa, _ = packages()

    def tables() -> Iterator[Any]:
        for group in groups:
            x = group.x.detach().cpu().numpy().astype(np.float16 if half else np.float32)
            columns = {ID: pa.array(group.ids.cpu().numpy().astype(np.int64)), FEATURES: listed(x)}
            if group.y is not None:
                columns[LABEL] = pa.array(group.y.cpu().numpy().astype(np.int64))
            yield pa.table(columns)

    return _write(file, tables())


def groups(file: Path, *, batch_rows: int = 65536, width: int | None = None) -> Iterator[Group]:
    """The rows of a file in their order, row group by row group, those of more than `batch_rows` in pieces.

    Args:
        file: with the columns `features` and `id`; `label` is read if it is there.
        batch_rows: most rows of a piece, >= 1.
        width: features of a row that are expected; by default those of the first row.

    Raises:
        UserError: no such file, a truncated or damaged one, a missing column, rows of another width, values that are
            missing or of another type, or no pyarrow.
    """
    for piece in _pieces(file, (FEATURES, ID), (LABEL,), batch_rows):
        x = features(piece, width=width, where=str(file))
        width = x.shape[1]
        y = whole(piece, LABEL, str(file)) if LABEL in piece.schema.names else None
        yield Group(x, whole(piece, ID, str(file)), y)


def score(predictor: Scorer, file: Path, out: Path, *, batch_rows: int = 65536) -> int:
    """Write a student's answers about the rows of a file, piece by piece as `groups` has them.

    `out` has the columns `class` (a label of the training data), `probabilities` (in the order of the student's
    classes, which its metadata names) and, where `file` has it, `id`, whatever that holds. It is written whole or not
    at all.

    Args:
        predictor: a student that looks at rows alone.
        file: with the column `features`.
        out: is replaced if it is there; not `file` itself.
        batch_rows: most rows that are scored at a time, and of a row group of `out`, >= 1.

    Returns:
        Number of rows.

    Raises:
        UserError: as `groups`; a student that needs edges, or a place that cannot be written.
    """
    check_rowwise(predictor)
    if out.resolve() == file.resolve():
        raise UserError(f"{out} is the file that is read; write the answers to another one")
    metadata = {CLASSES: json.dumps(list(predictor.classes))}
    pieces = _pieces(file, (FEATURES,), (ID,), batch_rows)
    return _write(out, (answers(predictor, piece, where=str(file)) for piece in pieces), metadata)


def check_rowwise(predictor: Scorer) -> None:
    """Refuse a network that cannot answer about rows alone.

    Raises:
        UserError: that.
    """
    if predictor.needs_graph:
        raise UserError("this network predicts along edges, and rows of Parquet have none; score a student such as mlp")


def answers(predictor: Scorer, piece: Any, *, where: str = "the table") -> Any:
    """A student's answers about an Arrow table or record batch, as a table of the columns that `score` writes.

    Raises:
        UserError: as `features`.
    """
    pa, _ = packages()
    found = predictor.predict_proba(features(piece, width=predictor.n_features, where=where)).cpu()
    columns = {ID: piece.column(ID)} if ID in piece.schema.names else {}
    columns[CLASS] = pa.array(np.asarray(predictor.classes, dtype=np.int64)[found.argmax(1).numpy()])
    columns[PROBABILITIES] = listed(found.float().numpy())
    return pa.table(columns)


def _pieces(file: Path, needed: Sequence[str], wanted: Sequence[str], batch_rows: int) -> Iterator[Any]:
    """Record batches of at most `batch_rows` rows, none of them of two row groups."""
    if batch_rows < 1:
        raise UserError(f"batch_rows is {batch_rows}; it must be at least 1")
    _, pq = packages()
    with _readable(file), file.open("rb") as stream:
        found = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=False, buffer_size=_BUFFER)
        there = found.schema_arrow.names
        missing = [name for name in needed if name not in there]
        if missing:
            raise UserError(f"{file} has no column '{missing[0]}'; it has {', '.join(there) or 'none'}")
        columns = [*needed, *(name for name in wanted if name in there)]
        for group in range(found.num_row_groups):
            yield from found.iter_batches(batch_size=batch_rows, row_groups=[group], columns=columns, use_threads=False)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Errors of a file as it is read; pyarrow's are OSError and ValueError."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is no Parquet file, or truncated or damaged ({reason}); write it again") from error


def _write(file: Path, tables: Iterator[Any], metadata: dict[str, str] | None = None) -> int:
    _, pq = packages()
    draft, writer, rows = file.with_name(f".{file.name}.{uuid.uuid4().hex}"), None, 0
    try:
        for table in tables:
            said = table.replace_schema_metadata(metadata)
            if writer is None:
                file.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(draft, said.schema, write_page_checksum=True)
            if said.schema != writer.schema:
                raise UserError(
                    f"{file}: rows of another width or with other columns follow {rows} rows; all are alike"
                )
            writer.write_table(said, row_group_size=max(1, said.num_rows))
            rows += said.num_rows
        if writer is None:
            raise UserError(f"{file}: there are no rows to write")
        writer.close()
        draft.replace(file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}; choose another place") from error
    finally:
        with suppress(OSError):  # what is wrong with the place has been said
            if writer is not None:
                writer.close()
        with suppress(OSError):
            draft.unlink()
    return rows
