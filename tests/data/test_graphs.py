"""Names, the digits, and real data where it is to be found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkd.data import graphs, raw
from gnnkd.data.graphs import load, task
from gnnkd.data.location import data_root, graph_cache
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR

REAL = Path(__file__).parents[3] / "shared" / "data"
FACTS = {  # nodes, edges, features, classes, nodes in the largest component
    "cora": (2708, 10556, 1433, 7, 2485),
    "citeseer": (3327, 9104, 3703, 6, 2120),
    "amazon-photo": (7650, 238162, 745, 8, 7487),
    "amazon-computers": (13752, 491722, 767, 10, 13381),
    "coauthor-cs": (18333, 163788, 6805, 15, 18333),
    "coauthor-physics": (34493, 495924, 8415, 5, 34493),
}
PUBLIC = {"cora": (140, 500, 1000), "citeseer": (120, 500, 1000)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GNNKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Each real dataset, read from its raw files and then from our copy."""

    def go(name):
        if not (REAL / graphs.SOURCES[name].folder).is_dir():
            pytest.skip(f"the raw files of {name} are not in ../shared/data")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNNKD_CACHE", str(folder))
            if name not in kept:
                kept[name] = load(name, root=REAL), load(name, root=REAL)
            return kept[name]

    folder, kept = tmp_path_factory.mktemp("cache"), {}
    return go


def parts(x):
    return (x.rowptr, x.col, x.values()) if isinstance(x, CSR) else (x,)


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*"))


# Names


@pytest.mark.parametrize("name", ["CORRA", "photo", "", "ogbn_mag"])
def test_an_unknown_name_lists_the_known_ones_and_the_way_to_a_file(name):
    with pytest.raises(UserError, match=r"allowed: amazon-computers, amazon-photo, .*\.npz file"):
        load(name)


def test_the_nearest_name_is_offered():
    with pytest.raises(UserError, match=r"unknown dataset 'amazon-foto'.*did you mean 'amazon-photo'"):
        load("Amazon_Foto")


def test_an_option_that_does_not_apply_is_refused():
    with pytest.raises(UserError, match=r"data\.k is 5, but the edges of 'cora' are given; .* data\.graph=knn"):
        load("cora", k=5)


def test_folders(monkeypatch, tmp_path):
    for variable in ("GNNKD_DATA", "GNNKD_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (data_root(), graph_cache()) == (tmp_path / "gnnkd/data", tmp_path / "gnnkd/graphs")
    monkeypatch.setenv("GNNKD_DATA", "there")
    assert data_root() == Path("there")
    assert data_root("here") == Path("here")


# Digits


def test_digits_are_images_joined_to_their_neighbours():
    data = load("Digits")
    assert (data.x.shape, data.x.dtype, float(data.x.max())) == ((1797, 64), torch.float32, 1.0)
    a = data.graph.adjacency
    assert torch.equal(a.dense(), a.transpose.dense())
    assert int(a.rowptr.diff().min()) >= 8
    assert not bool((a.row == a.col).any())
    assert data.notes == ()


def test_digits_have_the_distances_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    data = load("digits_graph", k=3)
    slow, _ = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(data.x.double()).kneighbors()
    source, target = data.graph.edge_index
    length = (data.x[source] - data.x[target]).double().norm(dim=1)
    for node in (0, 500, 1796):
        np.testing.assert_allclose(length[target == node].sort().values[:3], slow[node])


# Real data


@pytest.mark.parametrize("name", FACTS)
def test_the_published_statistics(real, name):
    data, _ = real(name)
    nodes, edges, features, classes, component = FACTS[name]
    assert (data.graph.n_nodes, data.graph.n_edges) == (nodes, edges)
    assert (data.x.shape[1], len(data.classes)) == (features, classes)
    assert task(data, protocol="cpf", seed=0).n_nodes == component
    assert (data.split.sizes if data.split else None) == PUBLIC.get(name)
    assert data.notes == ()


@pytest.mark.parametrize("name", FACTS)
def test_the_copy_equals_the_raw_files(real, name):
    first, second = real(name)
    for a, b in zip(parts(first.x), parts(second.x), strict=True):
        assert torch.equal(a, b)
    assert type(first.x) is type(second.x)
    assert torch.equal(first.y, second.y)
    assert torch.equal(first.graph.edge_index, second.graph.edge_index)
    fields = ("name", "classes", "notes")
    assert [getattr(first, f) for f in fields] == [getattr(second, f) for f in fields]
    assert task(first, seed=0).fingerprint == task(second, seed=0).fingerprint


def test_reading_leaves_the_raw_folder_alone(real):
    real("cora")
    before = listing(REAL / "planetoid")
    load("cora", root=REAL)
    assert listing(REAL / "planetoid") == before
    assert not list((REAL / "planetoid").rglob("processed"))


def test_a_damaged_copy_is_no_error(real, cache):
    first, _ = real("cora")
    load("cora", root=REAL)
    (copy,) = cache.iterdir()
    copy.write_bytes(copy.read_bytes()[:1000])
    again = load("cora", root=REAL)
    assert torch.equal(first.graph.edge_index, again.graph.edge_index)
    assert "read from the raw files" in again.notes[0]
    assert load("cora", root=REAL).notes == ()


# Sources of our own, small


class Small:
    """A source of three nodes that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, folder: Path):
        self.reads += 1
        x = np.full((3, 2), float((folder / "raw" / "numbers").read_text()))
        return {"x": x, "y": np.array([0, 1, 0]), "edge_index": np.array([[0, 1], [1, 2]])}

    def download(self, root: Path) -> None:
        folder = root / "Small" / "raw"
        folder.mkdir(parents=True)
        (folder / "numbers").write_text("5")
        (root / "Small" / "processed").mkdir()


@pytest.fixture
def small(monkeypatch) -> Small:
    it = Small()
    source = raw.Source(Path("family", "Small"), ("raw/numbers",), it.read, it.download, protocol=None)
    monkeypatch.setattr(graphs, "SOURCES", {"small": source})
    return it


def test_missing_data_is_downloaded_once_and_only_its_raw_part_is_kept(small, tmp_path):
    assert load("small", root=tmp_path / "root").x[0, 0] == 5
    assert load("small", root=tmp_path / "root").x[0, 0] == 5
    assert small.reads == 1
    found = {str(p.relative_to(tmp_path / "root")) for p in (tmp_path / "root").rglob("*")}
    assert found == {"family", "family/Small", "family/Small/raw", "family/Small/raw/numbers"}


def test_every_reading_says_the_same(small, tmp_path):
    both = [load("small", root=tmp_path / "root") for _ in range(2)]
    assert [data.notes for data in both] == [("2 reverse edges added",)] * 2
    assert small.reads == 1


@pytest.mark.parametrize("first", [True, False])
def test_one_copy_serves_both_directions_and_one(small, tmp_path, first):
    load("small", root=tmp_path / "root", undirected=first)
    assert load("small", root=tmp_path / "root", undirected=False).graph.n_edges == 2
    assert load("small", root=tmp_path / "root", undirected=True).graph.n_edges == 4
    assert small.reads == 1


def test_a_folder_with_a_copy_of_pyg_alone_is_filled(small, tmp_path):
    processed = tmp_path / "root/family/Small/processed"
    processed.mkdir(parents=True)
    (processed / "data.pt").write_text("")
    assert load("small", root=tmp_path / "root").x[0, 0] == 5
    assert (processed / "data.pt").exists()


def test_changed_raw_files_are_read_anew(small, tmp_path):
    load("small", root=tmp_path / "root")
    (tmp_path / "root/family/Small/raw/numbers").write_text("70")
    assert load("small", root=tmp_path / "root").x[0, 0] == 70


def test_a_cache_that_cannot_be_written_is_no_error(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GNNKD_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert "not kept for a faster start" in load("small", root=tmp_path / "root").notes[-1]
    assert small.reads == 2


def test_a_failed_download_is_one_line_and_leaves_nothing(small, tmp_path, monkeypatch):
    def broken(root: Path) -> None:
        (root / "Small" / "raw").mkdir(parents=True)
        raise OSError("no\nnetwork")

    source = replace(graphs.SOURCES["small"], download=broken)
    monkeypatch.setattr(graphs, "SOURCES", {"small": source})
    with pytest.raises(UserError, match=r"'small' is not in .*Small and .*\(OSError: no network\).*--data_root"):
        load("small", root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_raw_folder_that_is_not_whole_is_not_touched(small, tmp_path):
    folder = tmp_path / "root/family/Small/raw"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="lacks raw/numbers; complete it"):
        load("small", root=tmp_path / "root")
    assert list(folder.iterdir()) == []


def test_damaged_raw_files_are_one_line(small, tmp_path):
    folder = tmp_path / "root/family/Small/raw"
    folder.mkdir(parents=True)
    (folder / "numbers").write_text("five")
    with pytest.raises(UserError, match=r"cannot be read from .*ValueError.*damaged"):
        load("small", root=tmp_path / "root")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_root_that_cannot_be_written_is_one_line(small, tmp_path):
    (tmp_path / "root").mkdir(mode=0o500)
    with pytest.raises(UserError, match="could not be downloaded"):
        load("small", root=tmp_path / "root")
