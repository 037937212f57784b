"""OGB's folders: read right, refused in one line that names the file, downloaded as a whole."""

from __future__ import annotations

import gzip
import importlib.util
import re
import shutil
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gnnkd.data import csv_gz, graphs, ogb
from gnnkd.data.graphs import load, names, task
from gnnkd.data.row_arrays import array
from gnnkd.errors import UserError

SPLITS = {"ogbn-arxiv": "time", "ogbn-products": "sales_ranking"}
N = 7
EDGES = np.array([[0, 1], [1, 2], [2, 1], [3, 3], [6, 0], [0, 1]])
X = np.round(np.random.RandomState(0).randn(N, 5), 6)
Y = np.array([3, 0, 1, 3, 2, 0, 1])
PARTS = {"train": [5, 0], "valid": [2, 4], "test": [1, 6]}


def write(file: Path, table) -> None:
    """A table as OGB writes it, or a text as it is."""
    text = table if isinstance(table, str) else "".join(",".join(map(str, row)) + "\n" for row in table)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()))


def column(numbers) -> list[tuple[int]]:
    return [(number,) for number in numbers]


def fill(folder: Path, split: str) -> None:
    """A small whole dataset, with the files of OGB that are not read."""
    tables = {
        "raw/num-node-list": [(N,)],
        "raw/num-edge-list": [(len(EDGES),)],
        "raw/edge": EDGES,
        "raw/node-feat": X,
        "raw/node-label": column(Y),
        "raw/node_year": column(range(N)),
        **{f"split/{split}/{part}": column(ids) for part, ids in PARTS.items()},
    }
    for name, table in tables.items():
        write(folder / f"{name}.csv.gz", table)
    (folder / "RELEASE_v1.txt").write_text("")
    (folder / "processed").mkdir()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GNNKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


@pytest.fixture(params=SPLITS)
def name(request, tmp_path) -> str:
    fill(tmp_path / request.param.replace("-", "_"), SPLITS[request.param])
    return request.param


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas", reason="the extra 'ogb' is not installed")


@pytest.fixture
def folder(tmp_path, pandas) -> Path:
    """A small ogbn-arxiv."""
    fill(tmp_path / "ogbn_arxiv", "time")
    return tmp_path / "ogbn_arxiv"


def refused(folder: Path, file: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load("ogbn-arxiv", root=folder.parent)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder / file) in text


# What is read


def test_they_are_known_by_name():
    assert set(SPLITS) <= set(names())


@pytest.mark.usefixtures("pandas")
def test_the_arrays_are_those_in_the_files(name, tmp_path):
    data = load(name, root=tmp_path, undirected=False)
    assert (data.name, data.protocol, data.classes) == (name, "ogb", (0, 1, 2, 3))
    assert data.x.dtype == torch.float32
    np.testing.assert_array_equal(data.x.numpy(), X.astype(np.float32))
    assert data.y.tolist() == Y.tolist()
    assert {tuple(edge) for edge in data.graph.edge_index.T.tolist()} == {tuple(edge) for edge in EDGES.tolist()}
    for mask, ids in zip((data.split.train, data.split.val, data.split.test), PARTS.values(), strict=True):
        assert mask.nonzero().flatten().tolist() == sorted(ids)


@pytest.mark.usefixtures("pandas")
def test_the_graph_is_symmetric_and_says_so_each_time_it_is_read(name, tmp_path):
    first, second = load(name, root=tmp_path), load(name, root=tmp_path)
    a = first.graph.adjacency.dense()
    assert torch.equal(a, a.T)
    assert first.notes == second.notes == ("2 reverse edges added", "1 self loop kept")
    assert torch.equal(first.graph.edge_index, second.graph.edge_index)
    assert torch.equal(first.x, second.x)
    assert (second.protocol, second.split.sizes) == ("ogb", (2, 2, 2))
    assert task(first, seed=0).fingerprint == task(second, seed=3).fingerprint


@pytest.mark.usefixtures("pandas")
def test_the_official_split_is_the_default_and_its_features_are_raw(name, tmp_path):
    made = task(load(name, root=tmp_path), seed=0)
    assert (made.protocol, made.features, made.split.sizes) == ("ogb", "raw", (2, 2, 2))


def test_the_copy_is_read_without_pandas(folder, monkeypatch):
    first = load("ogbn-arxiv", root=folder.parent)
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setattr(ogb, "_read", None)
    assert torch.equal(load("ogbn-arxiv", root=folder.parent).x, first.x)


@pytest.fixture
def large(monkeypatch) -> None:
    """Every graph is a large one."""
    monkeypatch.setattr(graphs, "LARGE", 0)


@pytest.mark.usefixtures("pandas")
@pytest.mark.parametrize("undirected", [True, False])
def test_the_copy_of_a_large_graph_is_mapped_and_equal(name, tmp_path, monkeypatch, cache, undirected):
    plain = load(name, root=tmp_path, undirected=undirected)
    shutil.rmtree(cache)
    monkeypatch.setattr(graphs, "LARGE", 0)
    first = load(name, root=tmp_path, undirected=undirected)
    assert [p.is_dir() for p in cache.iterdir()] == [True], "and no other copy"
    monkeypatch.setattr(graphs, "from_arrays", None)
    second = load(name, root=tmp_path, undirected=undirected)
    for found in (first, second):
        assert isinstance(array(found.x), np.memmap)
        assert torch.equal(found.x, plain.x)
        assert torch.equal(found.graph.edge_index, plain.graph.edge_index)
        assert found.graph.adjacency.col.dtype == plain.graph.adjacency.col.dtype
        assert torch.equal(found.labels, plain.labels)
        for field in ("name", "classes", "protocol", "notes"):
            assert getattr(found, field) == getattr(plain, field), field
        one, other = task(found, seed=0), task(plain, seed=0)
        assert (one.fingerprint, one.content) == (other.fingerprint, other.content)


@pytest.mark.usefixtures("large")
def test_each_direction_of_a_large_graph_has_a_copy(folder, cache):
    both, one = (load("ogbn-arxiv", root=folder.parent, undirected=way) for way in (True, False))
    assert both.graph.n_edges > one.graph.n_edges == 5
    assert len(list(cache.iterdir())) == 2


@pytest.mark.usefixtures("large")
def test_a_damaged_copy_of_a_large_graph_is_made_again(folder, cache):
    first = load("ogbn-arxiv", root=folder.parent)
    (copy,) = cache.iterdir()
    (copy / "col.npy").write_bytes((copy / "col.npy").read_bytes()[:-3])
    again = load("ogbn-arxiv", root=folder.parent)
    assert torch.equal(first.graph.edge_index, again.graph.edge_index)
    assert "read from the raw files" in again.notes[-1]
    assert load("ogbn-arxiv", root=folder.parent).notes == first.notes


def test_a_copy_from_before_a_graph_was_large_is_mapped_from_then_on(folder, cache, monkeypatch):
    first = load("ogbn-arxiv", root=folder.parent)
    monkeypatch.setattr(graphs, "LARGE", 0)
    monkeypatch.setattr(ogb, "_read", None)
    for _ in range(2):
        found = load("ogbn-arxiv", root=folder.parent)
        assert isinstance(array(found.x), np.memmap)
        assert torch.equal(first.x, found.x)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.usefixtures("large")
def test_a_large_graph_without_a_place_for_its_copy_stays_in_memory(folder, monkeypatch):
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("GNNKD_CACHE", str(folder.parent / "file"))
    found = load("ogbn-arxiv", root=folder.parent)
    assert found.notes[-1].startswith("kept in memory: ")
    assert not isinstance(array(found.x), np.memmap)


@pytest.mark.parametrize("lines", [1, 2, 3, 100])
def test_the_size_of_a_block_does_not_matter(folder, monkeypatch, lines):
    monkeypatch.setattr(csv_gz, "LINES", lines)
    data = load("ogbn-arxiv", root=folder.parent)
    np.testing.assert_array_equal(data.x.numpy(), X.astype(np.float32))
    assert data.split.sizes == (2, 2, 2)


def test_reading_asks_nothing_starts_nothing_and_leaves_the_folder_alone(folder, monkeypatch):
    def asked(*_):
        pytest.fail("a question on standard input")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr(threading.Thread, "start", asked)
    before = sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))
    load("ogbn-arxiv", root=folder.parent)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*")) == before
    assert "ogb" not in sys.modules


# Files that are wrong


@pytest.mark.parametrize("file", graphs.SOURCES["ogbn-arxiv"].files)
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(UserError, match=re.escape(f"{folder} lacks {file}; complete it")):
        load("ogbn-arxiv", root=folder.parent)


@pytest.mark.parametrize("file", graphs.SOURCES["ogbn-arxiv"].files)
@pytest.mark.parametrize("cut", [1, 9, 20])
def test_a_truncated_file_is_named(folder, file, cut):
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:-cut])
    refused(folder, file, "cannot be read .*replace it by a whole one")


@pytest.mark.parametrize("file", graphs.SOURCES["ogbn-arxiv"].files)
@pytest.mark.parametrize("content", [b"", b"1,2\n"])
def test_a_file_that_is_no_archive_is_named(folder, file, content):
    (folder / file).write_bytes(content)
    refused(folder, file, "cannot be read")


@pytest.mark.parametrize("file", graphs.SOURCES["ogbn-arxiv"].files)
@pytest.mark.parametrize("word", ["two", "nan", "", "1.5.0"])
def test_text_in_a_column_of_numbers_is_named(folder, file, word):
    lines = gzip.decompress((folder / file).read_bytes()).decode().splitlines()
    fields = lines[-1].split(",")
    write(folder / file, "\n".join([*lines[:-1], ",".join([*fields[:-1], f'"{word}"'])]) + "\n")
    refused(folder, file, "cannot be read")


@pytest.mark.parametrize("line", [0, 3, -1])
@pytest.mark.parametrize(
    ("file", "pattern", "ragged"),
    [
        ("edge", r"$", ",7"),
        ("edge", r",.*", ""),
        ("edge", r",.*", ","),
        ("node-feat", r"$", ",7"),
        ("node-feat", r",[^,]*$", ""),
        ("node-feat", r",[^,]*,", ",,"),
        ("node-label", r"$", ",7"),
    ],
)
def test_ragged_rows_are_named(folder, file, line, pattern, ragged):
    path = folder / f"raw/{file}.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[line] = re.sub(pattern, ragged, lines[line], count=1)
    write(path, "\n".join(lines) + "\n")
    refused(folder, f"raw/{file}.csv.gz", "cannot be read|numbers a line")


@pytest.mark.parametrize(
    ("file", "table", "message"),
    [
        ("raw/edge", EDGES[:-1], "has 5 lines of numbers; there must be 6"),
        ("raw/edge", [*EDGES, (0, 1)], "has 7 lines of numbers; there must be 6"),
        ("raw/edge", np.hstack([EDGES, EDGES]), "has 4 numbers a line; there must be 2"),
        ("raw/edge", [*EDGES[:3], (5, 7), *EDGES[4:]], r"line 4 holds 7, the first of 1 ids outside 0\.\.6"),
        ("raw/edge", [(-1, 2), *EDGES[1:]], "line 1 holds -1"),
        ("raw/edge", [(2**32, 2), *EDGES[1:]], "line 1 holds 4294967296"),
        ("raw/edge", [(2**64, 2), *EDGES[1:]], "cannot be read"),
        ("raw/edge", [(0.5, 2), *EDGES[1:]], "cannot be read"),
        ("raw/node-feat", X[:-1], "has 6 lines of numbers; there must be 7"),
        ("raw/node-label", column([*Y, 1]), "has 8 lines of numbers; there must be 7"),
        ("raw/node-label", np.stack([Y, Y], 1), "has 2 numbers a line; there must be 1"),
        ("raw/num-node-list", [(10**15,)], "does not fit into memory"),
        ("raw/num-node-list", [(0,)], "holds 0; a graph has at least one"),
        ("raw/num-edge-list", [(6,), (6,)], "has 2 lines of numbers; there must be 1"),
        ("split/time/valid", column([2, 7]), r"line 2 holds 7, the first of 1 ids outside 0\.\.6"),
        ("split/time/train", column([0, 5, 0]), "lists a node twice; 3 lines hold 2 nodes"),
        ("split/time/valid", column([5, 2]), r"train\.csv\.gz have 1 nodes in common, first node 5"),
        ("split/time/test", column([6, 4, 2]), r"valid\.csv\.gz have 2 nodes in common, first node 2"),
        ("split/time/test", "", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_named(folder, file, table, message):
    write(folder / f"{file}.csv.gz", table)
    if "memory" in message:  # what is too large is the table that the number asks for
        file = "raw/node-feat"
    refused(folder, f"{file}.csv.gz", message)


@pytest.mark.parametrize("value", ["1e39", "-1e39", "1e400"])
def test_features_beyond_float32_are_refused(folder, value):
    write(folder / "raw/node-feat.csv.gz", f"1,{value}\n" * N)
    # pandas 3 reads 1e400 as infinite, pandas 2 as no number.
    with pytest.raises(UserError, match=r"ogbn_arxiv: x\[0, 1\] is -?inf|node-feat\.csv\.gz cannot be read"):
        load("ogbn-arxiv", root=folder.parent)


# Packages that are not there


@pytest.fixture
def without(monkeypatch):
    """Hide packages from the search for them."""
    search = importlib.util.find_spec

    def go(*hidden: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else search(name))

    return go


@pytest.mark.parametrize("there", [True, False])
def test_without_pandas_the_extra_is_named_before_anything_is_downloaded(name, tmp_path, without, there):
    without("pandas", "ogb")
    if not there:
        shutil.rmtree(tmp_path / name.replace("-", "_"))
    with pytest.raises(UserError, match=rf"^dataset '{name}' needs the package pandas: pip install 'gnnkd\[ogb\]'$"):
        load(name, root=tmp_path)


@pytest.mark.usefixtures("pandas")
def test_without_ogb_the_address_is_unknown_and_the_extra_is_named(tmp_path, without):
    without("ogb")
    with pytest.raises(UserError, match=r"^dataset 'ogbn-arxiv' needs the package ogb: pip install 'gnnkd\[ogb\]'$"):
        load("ogbn-arxiv", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


# Download


@pytest.fixture
def offered(tmp_path, monkeypatch, pandas):
    """A package `ogb` whose table gives the address of a local archive, and the archive's path."""
    package = tmp_path / "site" / "ogb"
    (package / "nodeproppred").mkdir(parents=True)
    address = (tmp_path / "arxiv.zip").as_uri()
    (package / "nodeproppred" / "master.csv").write_text(
        f",ogbn-proteins,ogbn-arxiv\ndownload_name,proteins,arxiv\nurl,http://nowhere.invalid,{address}\n"
        "additional node files,node_species,node_year\n"
    )
    fill(tmp_path / "made" / "arxiv", "time")
    with zipfile.ZipFile(tmp_path / "arxiv.zip", "w") as archive:
        for file in sorted((tmp_path / "made").rglob("*")):
            archive.write(file, file.relative_to(tmp_path / "made"))
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    search = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "ogb" else search(name))
    return tmp_path / "arxiv.zip"


def test_what_is_missing_is_downloaded_as_a_whole(offered, tmp_path):
    root = tmp_path / "root"
    data = load("ogbn-arxiv", root=root)
    np.testing.assert_array_equal(data.x.numpy(), X.astype(np.float32))
    assert [p.name for p in root.iterdir()] == ["ogbn_arxiv"]
    # The rest of OGB's folder too, without which its own classes would ask for a new download.
    assert {p.name for p in (root / "ogbn_arxiv").iterdir()} == {"RELEASE_v1.txt", "raw", "split"}
    offered.unlink()
    assert torch.equal(load("ogbn-arxiv", root=root).x, data.x)


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_a_broken_download_leaves_nothing(offered, tmp_path, keep):
    offered.write_bytes(offered.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"'ogbn-arxiv' is not in .*ogbn_arxiv and could not be downloaded \(BadZip"):
        load("ogbn-arxiv", root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_no_network_is_one_line(offered, tmp_path):
    offered.unlink()
    with pytest.raises(UserError, match=r"could not be downloaded \(URLError: .*--data_root"):
        load("ogbn-arxiv", root=tmp_path / "root")


def test_a_table_without_the_dataset_is_one_line(offered, tmp_path):
    with pytest.raises(UserError, match=r"'ogbn-products' .* could not be downloaded \(ValueError"):
        load("ogbn-products", root=tmp_path / "root")


def test_the_table_of_the_package_has_an_address_for_each():
    if importlib.util.find_spec("ogb") is None:
        pytest.skip("the package ogb is not installed")
    for name, inside in (("ogbn-arxiv", "arxiv"), ("ogbn-products", "products")):
        url, folder = ogb._registered(name)
        assert (folder, url.rpartition("/")[2]) == (inside, f"{inside}.zip")
    assert "ogb" not in sys.modules
