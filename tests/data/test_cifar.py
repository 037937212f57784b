"""CIFAR: what its pickles may hold, what is wrong with a broken one, and how it comes from an archive."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
import tarfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkd.data import images, safe_pickle
from gnnkd.data.cifar import SETS, load
from gnnkd.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
NAMES = [b"cat", b"dog", b"frog"]


def batch(n: int, seed: int = 0, field: str = "labels") -> dict:
    rng = np.random.RandomState(seed)
    data = rng.randint(0, 256, (n, 3072)).astype(np.uint8)
    return {"data": data, field: rng.randint(0, 3, n).tolist(), "filenames": ["x.png"] * n}


def dump(path: Path, value: object, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def as_bytes(fields: dict) -> dict:
    return {k.encode(): v for k, v in fields.items()}


def write10(root: Path, change=None, protocol: int = 2) -> Path:
    """A CIFAR-10 of 5 batches of 4, 5, 6, 7 and 8 images, 9 that test, and three classes."""
    folder = root / "cifar-10-batches-py"
    for i, n in enumerate((4, 5, 6, 7, 8), start=1):
        dump(folder / f"data_batch_{i}", batch(n, i), protocol)
    dump(folder / "test_batch", batch(9), protocol)
    dump(folder / "batches.meta", {"label_names": NAMES}, protocol)
    if change:
        change(folder)
    return folder


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_batches_of_any_length_in_any_protocol(tmp_path, protocol):
    write10(tmp_path, protocol=protocol)
    data = images.load("cifar10", root=tmp_path)
    assert data.store.data.shape == (39, 3, 32, 32)
    assert data.test.nonzero().flatten().tolist() == list(range(30, 39))
    assert data.classes == ("cat", "dog", "frog")
    first = batch(4, 1)
    assert np.array_equal(data.store.data[:4].numpy(), first["data"].reshape(-1, 3, 32, 32))
    assert data.y[:4].tolist() == first["labels"]


def test_keys_of_text_and_of_bytes_are_the_same(tmp_path):
    one = images.load("cifar10", root=write10(tmp_path / "a").parent)

    def to_bytes(folder: Path) -> None:
        for file in folder.iterdir():
            dump(file, as_bytes(pickle.loads(file.read_bytes())))  # our own file

    other = images.load("cifar10", root=write10(tmp_path / "b", to_bytes).parent)
    assert torch.equal(one.store.data, other.store.data)
    assert torch.equal(one.y, other.y)


def test_cifar100_has_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    coarse = {"coarse_labels": [0] * 6}
    dump(folder / "train", batch(6, 1, "fine_labels") | coarse)
    dump(folder / "test", batch(5, 2, "fine_labels") | coarse)
    dump(folder / "meta", {"fine_label_names": NAMES, "coarse_label_names": ["animal"]})
    data = images.load("CIFAR100", root=tmp_path)
    assert data.y.tolist() == batch(6, 1)["labels"] + batch(5, 2)["labels"]
    assert int(data.test.sum()) == 5


def python2(array: np.ndarray) -> bytes:
    """A batch as Python 2 and an old numpy wrote it: strings of bytes, flags of the type as numbers."""
    raw = array.tobytes()
    text = (
        b"\x80\x02}(U\x06labels](K\x00K\x01eU\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ"
        b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbu."
    )
    pickletools.dis(text, out=io.StringIO())
    return text


def test_the_pickles_of_python_2_are_read_without_a_warning(tmp_path):
    data = batch(2)["data"]
    (tmp_path / "old").write_bytes(python2(data))
    found = safe_pickle.read(tmp_path / "old")
    assert found["labels"] == [0, 1]
    assert np.array_equal(found["data"], data)


def test_arrays_of_numbers_come_back_as_they_were(tmp_path):
    rng = np.random.RandomState(0)
    arrays = [rng.rand(3, 2), np.asfortranarray(rng.rand(3, 2)), np.arange(4, dtype=">i4"), np.array([True, False])]
    held = [*arrays, np.float32(2.5), np.int64(7), (1, {"a": None}), b"raw", b""]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        dump(tmp_path / "f", held, protocol)
        found = safe_pickle.read(tmp_path / "f")
        for a, b in zip(arrays, found, strict=False):
            assert (a.dtype.kind, a.dtype.itemsize) == (b.dtype.kind, b.dtype.itemsize)
            assert np.array_equal(a, b)
        assert found[4:] == held[4:]


class Code:
    """A pickle with code in it: it writes a file when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_code_in_a_pickle_is_not_run(tmp_path):
    trap = tmp_path / "ran"

    def plant(folder: Path) -> None:
        dump(folder / "data_batch_2", {"data": Code(trap), "labels": [0]})

    write10(tmp_path, plant)
    with pytest.raises(UserError, match=r"data_batch_2: the pickle asks for 'posix.mkdir'") as error:
        images.load("cifar10", root=tmp_path)
    assert "\n" not in str(error.value)
    assert not trap.exists()
    pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_2").read_bytes())
    assert trap.is_dir(), "the trap works on those who walk into it"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (np.array([None, 1]), "holds an array of type 'O8'"),
        (np.array(["a"]), "holds an array of type 'U1'"),
        (np.zeros(2, dtype=[("a", "u1")]), "holds an array of type 'V1'"),
        (np.random.RandomState(0), "asks for"),
        (OrderedDict(a=1), "asks for 'collections.OrderedDict'"),
        (Path("x"), "asks for 'pathlib"),
        (print, "asks for '(__builtin__|builtins).print'"),
    ],
)
def test_anything_but_containers_and_arrays_of_numbers_is_refused(tmp_path, held, said):
    for protocol in (2, 4):
        dump(tmp_path / "f", {"data": [held]}, protocol)
        with pytest.raises(UserError, match=said) as error:
            safe_pickle.read(tmp_path / "f")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"cnumpy\nndarray\n(K\x05tR.", "makes an array without its numbers"),
        (b"cnumpy\ndtype\n(S'u1'\ntR(K\x03S'|'\n(K\x01tNNtb.", "of a type made of others"),
        (b"cnumpy\ndtype\n(S'O8'\ntR.", "an array of type 'O8'"),
        (b"c__builtin__\nbytes\n(K\x05tR.", "makes bytes of something"),
        (b"cnumpy\nndarray\n}S'a'\nK\x01sb.", "changes what it names"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "asks for the codec 'rot13'"),
        (b"cos\nsystem\n(S'true'\ntR.", "asks for 'os.system'"),
        (b"(S'true'\nios\nsystem\n.", "asks for 'os.system'"),
        (b"\x80\x02]q\x00h\x00a.", None),
        (b"Pabc\n.", "damaged"),
        (b"\x80\x7f.", "damaged"),
        (b"", "damaged"),
    ],
)
def test_hostile_opcodes(tmp_path, text, said):
    (tmp_path / "f").write_bytes(text)
    if said is None:
        assert isinstance(safe_pickle.read(tmp_path / "f"), list)
        return
    with pytest.raises(UserError, match=said):
        safe_pickle.read(tmp_path / "f")


def test_a_shape_that_asks_for_more_than_is_there(tmp_path):
    text = python2(batch(2)["data"]).replace(b"K\x01K\x02M\x00\x0c\x86", b"K\x01J\xff\xff\xff\x7fM\x00\x0c\x86")
    (tmp_path / "f").write_bytes(text)
    with pytest.raises(UserError, match="6144 bytes for an array of shape"):
        safe_pickle.read(tmp_path / "f")


def spoil(name: str, **fields):
    """A change of the fields of one file; None takes a field away."""

    def change(folder: Path) -> None:
        held = {**pickle.loads((folder / name).read_bytes()), **fields}
        dump(folder / name, {k: v for k, v in held.items() if v is not None})

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "data_batch_3").unlink(), "lacks data_batch_3; complete it"),
        (lambda f: (f / "batches.meta").unlink(), r"lacks batches\.meta"),
        (lambda f: os.truncate(f / "data_batch_3", 9000), "data_batch_3 cannot be read .*truncated or damaged"),
        (lambda f: (f / "test_batch").write_bytes(b"<html>not found</html>"), "test_batch cannot be read"),
        (lambda f: dump(f / "test_batch", [1, 2]), "test_batch holds a list; it must be a dictionary"),
        (spoil("data_batch_1", data=None), "data_batch_1: 'data' is missing; it holds 'filenames', 'labels'"),
        (spoil("data_batch_1", labels=None), "data_batch_1: 'labels' is missing"),
        (spoil("data_batch_1", data=[1]), "data_batch_1: data is of list"),
        (spoil("data_batch_1", data=np.zeros((4, 3072))), "data_batch_1: data is of type float64"),
        (
            spoil("data_batch_1", data=np.zeros((4, 784), np.uint8)),
            r"data has shape \[4, 784\]; it must be \[N, 3072\]",
        ),
        (spoil("data_batch_1", data=np.zeros((0, 3072), np.uint8), labels=[]), r"data has shape \[0, 3072\]"),
        (spoil("data_batch_4", labels=[0, 1]), "data_batch_4: data has 7 images and 'labels' 2 labels"),
        (spoil("data_batch_4", labels=[0, 1, 3, 0, 0, 0, 0]), r"labels\[2\] is 3; labels go from 0 to 2"),
        (spoil("test_batch", labels=[-1] * 9), r"test_batch: labels\[0\] is -1"),
        (spoil("test_batch", labels=["0"] * 9), "'labels' must be a list of whole numbers"),
        (spoil("test_batch", labels=[True] * 9), "'labels' must be a list of whole numbers"),
        (spoil("test_batch", labels=7), "'labels' must be a list of whole numbers"),
        (spoil("batches.meta", label_names=["one"]), "must be a list of at least two class names"),
        (spoil("batches.meta", label_names=None), "'label_names' is missing"),
    ],
)
def test_a_broken_file_is_named(tmp_path, change, said):
    write10(tmp_path, change)
    with pytest.raises(UserError, match=said) as error:
        images.load("cifar10", root=tmp_path)
    assert "\n" not in str(error.value)
    assert "cifar-10-batches-py" in str(error.value)


def packed(tmp_path: Path, *extra: tarfile.TarInfo, leave_out: str = "") -> tuple[str, str]:
    """A published archive of a small CIFAR-10, with whatever else is in it: its address and MD5 sum."""
    folder = write10(tmp_path / "made")
    place = tmp_path / "cifar.tar.gz"
    with tarfile.open(place, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            if file.name != leave_out:
                tar.add(file, f"{folder.name}/{file.name}")
        for member in extra:
            content = b"evil"
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content) if member.isfile() else None)
    return place.as_uri(), hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest()


def link(name: str, target: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made


def test_what_is_not_there_is_downloaded_and_nothing_else_unpacked(tmp_path):
    inside = "cifar-10-batches-py"
    extra = [tarfile.TarInfo("../outside"), tarfile.TarInfo(f"{inside}/other"), link(f"{inside}/link", "/etc")]
    url, md5 = packed(tmp_path, *extra)
    root = tmp_path / "root"
    data = load("cifar10", replace(SETS["cifar10"], url=url, md5=md5), root)
    assert data.n_images == 39
    assert sorted(p.name for p in root.iterdir()) == [inside]
    assert sorted(p.name for p in (root / inside).iterdir()) == sorted(SETS["cifar10"].files)
    assert not (tmp_path / "outside").exists()
    again = load("cifar10", replace(SETS["cifar10"], url="file:///nowhere"), root)
    assert torch.equal(again.store.data, data.store.data)


def test_a_broken_download_leaves_nothing(tmp_path):
    url, _ = packed(tmp_path)
    root = tmp_path / "root"
    with pytest.raises(UserError, match="the published one is c58f30108f718f92721af3b95e74349a"):
        load("cifar10", replace(SETS["cifar10"], url=url), root)
    assert list(root.iterdir()) == []


def test_an_archive_without_a_file_and_one_with_a_link_in_its_place(tmp_path):
    url, md5 = packed(tmp_path, leave_out="test_batch")
    with pytest.raises(UserError, match="has no file cifar-10-batches-py/test_batch"):
        load("cifar10", replace(SETS["cifar10"], url=url, md5=md5), tmp_path / "a")
    url, md5 = packed(tmp_path, link("cifar-10-batches-py/test_batch", "/etc/passwd"), leave_out="test_batch")
    with pytest.raises(UserError, match="test_batch is no plain file"):
        load("cifar10", replace(SETS["cifar10"], url=url, md5=md5), tmp_path / "b")


def test_without_a_network_the_line_says_where_the_files_go(tmp_path):
    root = tmp_path / "root"
    with pytest.raises(
        UserError, match=r"is not in .*cifar-10-batches-py and could not be downloaded .*--data_root"
    ) as e:
        load("cifar10", replace(SETS["cifar10"], url=(tmp_path / "absent").as_uri()), root)
    assert "\n" not in str(e.value)


@pytest.mark.skipif(not (REAL / "cifar-100-python").is_dir(), reason="the real CIFAR-100 is not here")
def test_the_real_one():
    data = images.load("cifar100", root=REAL)
    train = ~data.test
    assert len(data.classes) == 100
    assert torch.bincount(data.y[data.test]).unique().tolist() == [100]
    mean = data.store.data[train].double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor(data.mean, dtype=torch.float64), atol=4e-3, rtol=0)


@pytest.mark.skipif(not (REAL / "cifar-10-batches-py").is_dir(), reason="the real CIFAR-10 is not here")
def test_the_real_small_one():
    data = images.load("cifar10", root=REAL)
    assert torch.bincount(data.y[data.test]).unique().numel() == 1
    assert data.classes[0] == "airplane"
