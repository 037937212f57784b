"""Parquet: what was written is read, in bounded memory; a student's answers are those it gives; damage is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd import nn
from gnnkd.data import arrow, parquet
from gnnkd.data.parquet import Group
from gnnkd.errors import UserError
from gnnkd.predictor import Predictor

D, CLASSES = 5, (2, 7, 9)


@pytest.fixture
def pa() -> Any:
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")


@pytest.fixture
def pq(pa: Any) -> Any:
    return pytest.importorskip("pyarrow.parquet")


def _groups(*sizes: int, labels: bool = True) -> list[Group]:
    draw, start, found = torch.Generator().manual_seed(0), 0, []
    for n in sizes:
        ids = torch.arange(start, start + n) * 3
        found.append(Group(torch.randn(n, D, generator=draw), ids, ids % 4 - 1 if labels else None))
        start += n
    return found


def _student(model: str = "mlp") -> Predictor:
    torch.manual_seed(0)
    options = {"layers": 2, "width": 8}
    return Predictor(nn.MODELS[model](D, 3, **options).eval(), model, options, CLASSES, "raw", D)


def _same(a: list[Group], b: list[Group]) -> None:
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.ids, other.ids)
        assert (one.y is None) == (other.y is None)
        assert one.y is None or (other.y is not None and torch.equal(one.y, other.y))


@pytest.mark.parametrize("labels", [True, False])
def test_what_was_written_is_read(pq: Any, tmp_path: Path, labels: bool) -> None:
    file, made = tmp_path / "new" / "rows.parquet", _groups(7, 4, 1, labels=labels)
    assert parquet.write(file, iter(made)) == 12
    assert pq.ParquetFile(file).num_row_groups == 3
    assert pq.read_schema(file).field("features").type.list_size == D
    _same(list(parquet.groups(file)), made)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_groups_of_many_rows_come_in_pieces(pa: Any, tmp_path: Path) -> None:
    file, made = tmp_path / "rows.parquet", _groups(7, 4)
    parquet.write(file, made)
    found = list(parquet.groups(file, batch_rows=3, width=D))
    assert [g.ids.numel() for g in found] == [3, 3, 1, 3, 1]
    assert torch.equal(torch.cat([g.x for g in found]), torch.cat([g.x for g in made]))


def test_half_precision_rounds_once(pa: Any, tmp_path: Path) -> None:
    file, made = tmp_path / "rows.parquet", _groups(7)
    parquet.write(file, made, half=True)
    (found,) = parquet.groups(file)
    assert found.x.dtype == torch.float32
    assert torch.equal(found.x, made[0].x.half().float())


@pytest.mark.parametrize("kind", ["list", "large_list", "double"])
def test_lists_of_other_writers_are_read(pa: Any, pq: Any, tmp_path: Path, kind: str) -> None:
    (group,) = _groups(6)
    types = {
        "list": pa.list_(pa.float32()),
        "large_list": pa.large_list(pa.float32()),
        "double": pa.list_(pa.float64()),
    }
    table = pa.table({"features": pa.array(group.x.tolist(), types[kind]), "id": pa.array(group.ids.numpy())})
    pq.write_table(table, tmp_path / "rows.parquet")
    (found,) = parquet.groups(tmp_path / "rows.parquet")
    assert torch.equal(found.x, group.x)
    sliced = arrow.features(pa.concat_tables([table.slice(1, 2), table.slice(4)]))  # chunks that start inside
    assert torch.equal(sliced, group.x[[1, 2, 4, 5]])


@pytest.mark.parametrize("batch_rows", [3, 100])
def test_answers_are_those_of_the_student(pa: Any, pq: Any, tmp_path: Path, batch_rows: int) -> None:
    file, out, made, student = tmp_path / "rows.parquet", tmp_path / "out.parquet", _groups(7, 4), _student()
    parquet.write(file, made)
    assert parquet.score(student, file, out, batch_rows=batch_rows) == 11
    table, x = pq.read_table(out), torch.cat([g.x for g in made])
    assert table.column_names == ["id", "class", "probabilities"]
    assert table["id"].to_pylist() == torch.cat([g.ids for g in made]).tolist()
    assert table["class"].to_pylist() == student.predict(x).tolist()
    found = torch.tensor(table["probabilities"].to_pylist())
    torch.testing.assert_close(found, student.predict_proba(x))
    assert json.loads(table.schema.metadata[parquet.CLASSES.encode()]) == list(CLASSES)


def test_ids_of_any_type_are_handed_on(pa: Any, pq: Any, tmp_path: Path) -> None:
    (group,), file, out = _groups(3), tmp_path / "rows.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"id": ["a", "b", None], "features": arrow.listed(group.x.numpy())}), file)
    parquet.score(_student(), file, out)
    assert pq.read_table(out)["id"].to_pylist() == ["a", "b", None]
    with pytest.raises(UserError, match="'id' is of type string"):
        list(parquet.groups(file))
    pq.write_table(pa.table({"features": arrow.listed(group.x.numpy())}), file)
    parquet.score(_student(), file, out)
    assert pq.read_table(out).column_names == ["class", "probabilities"]


def test_memory_does_not_grow_with_the_file(pa: Any, tmp_path: Path) -> None:
    """One row group of 64 MB, read 1000 rows at a time."""
    file, rows, width = tmp_path / "rows.parquet", 160_000, 100
    x = torch.rand(rows, width, generator=torch.Generator().manual_seed(0))
    parquet.write(file, [Group(x, torch.arange(rows))])
    del x
    pool, most, seen = pa.default_memory_pool(), 0, 0
    before = pool.bytes_allocated()
    for group in parquet.groups(file, batch_rows=1000):
        most, seen = max(most, pool.bytes_allocated() - before), seen + group.ids.numel()
    assert seen == rows
    assert most < 16e6


# Mistakes


def _broken(tmp_path: Path) -> Path:
    file = tmp_path / "rows.parquet"
    parquet.write(file, _groups(70, 40))
    return file


def test_a_truncated_or_damaged_file_is_said(pa: Any, tmp_path: Path) -> None:
    file, out = _broken(tmp_path), tmp_path / "out.parquet"
    content = file.read_bytes()
    middle = len(content) // 4
    spoilt = content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 8]) + content[middle + 8 :]
    for damaged in (content[:-20], content[: len(content) // 2], b"", spoilt):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="truncated or damaged") as caught:
            parquet.score(_student(), file, out)
        assert "\n" not in str(caught.value)
        assert [p.name for p in tmp_path.iterdir()] == [file.name]  # nothing half written
    with pytest.raises(UserError, match="does not exist"):
        list(parquet.groups(tmp_path / "none.parquet"))


def test_another_width_is_said(pa: Any, pq: Any, tmp_path: Path) -> None:
    file = _broken(tmp_path)
    with pytest.raises(UserError, match=f"rows of {D} features; 4 are expected"):
        list(parquet.groups(file, width=4))
    wide = Group(torch.zeros(2, D + 1), torch.arange(2), torch.arange(2))
    with pytest.raises(UserError, match="another width"):
        parquet.write(tmp_path / "other.parquet", [*_groups(3), wide])
    with pytest.raises(UserError, match="other columns"):
        parquet.write(tmp_path / "other.parquet", [*_groups(3), *_groups(3, labels=False)])
    assert not (tmp_path / "other.parquet").exists()
    parquet.write(file, [wide])
    with pytest.raises(UserError, match=f"rows of {D + 1} features; {D} are expected"):
        parquet.score(_student(), file, tmp_path / "out.parquet")
    pq.write_table(pa.table({"id": [0, 1], "features": [[1.0], [1.0, 2.0]]}), file)
    with pytest.raises(UserError, match="rows of 2 features; 1 are expected"):
        list(parquet.groups(file))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"id": [0]}, "has no column 'features'; it has id"),
        ({"features": [[0.0] * D]}, "has no column 'id'; it has features"),
        ({"id": [0], "features": [1.0]}, "is of type double; it must be a list"),
        ({"id": [0], "features": [[1] * D]}, "holds int64"),
        ({"id": [0], "features": [[1.0, None]]}, "missing values"),
        ({"id": [0, 1], "features": [[1.0], None]}, "missing values"),
        ({"id": [0, None], "features": [[1.0], [2.0]]}, "'id' is of type .* or has missing values"),
    ],
)
def test_other_columns_are_said(pa: Any, pq: Any, tmp_path: Path, columns: dict[str, Any], match: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=match):
        list(parquet.groups(tmp_path / "rows.parquet"))


def test_what_cannot_be_scored_is_said(pa: Any, tmp_path: Path) -> None:
    file = _broken(tmp_path)
    with pytest.raises(UserError, match="predicts along edges"):
        parquet.score(_student("gcn"), file, tmp_path / "out.parquet")
    with pytest.raises(UserError, match="the file that is read"):
        parquet.score(_student(), file, tmp_path / "." / file.name)
    with pytest.raises(UserError, match="batch_rows is 0"):
        parquet.score(_student(), file, tmp_path / "out.parquet", batch_rows=0)
    with pytest.raises(UserError, match="no rows to write"):
        parquet.write(file, [])
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        parquet.write(tmp_path / "taken" / "rows.parquet", _groups(3))
    x = torch.full((2, D), np.nan)
    parquet.write(file, [Group(x, torch.arange(2))])
    with pytest.raises(UserError, match="not finite"):
        parquet.score(_student(), file, tmp_path / "out.parquet")


@pytest.fixture
def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)


def test_without_pyarrow_the_way_out_is_said(without_pyarrow: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Parquet needs pyarrow; install it with: pip install 'gnnkd\[parquet\]'"):
        parquet.write(tmp_path / "rows.parquet", _groups(2))
